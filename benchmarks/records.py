"""How fast records are verified, merged, restored and exchanged. Run it: `python benchmarks/records.py [--records N]`.

Method. Everything runs in this process on one core, with no disk and no network: the rates are those of the pure
core, which shares one loop with the rest of a node. Records look like those of the catalogue (300-byte bodies)
and come from twenty authors, each with one log. Every figure is the median of `--rounds` runs; a *slice* is what
one delta or one batch of news keeps the loop busy (section 3 asks for at most 20 ms). A session is run through the
codec, both nodes' work added up, so that what is printed is the time of the two nodes together.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from random import Random

from rich.console import Console
from rich.table import Table

from colla.kernel.codec import Codec
from colla.kernel.config import RecordConfig
from colla.kernel.durable import Durable
from colla.kernel.effects import Persist, Send
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.ids import GroupId, LogId, NodeId, digest
from colla.model.keys import SecretKey, verify
from colla.model.record import Key, Log, Payload, Record, Stamp, open_record, sign_record
from colla.protocol.records.book import RecordBook
from colla.protocol.sessions.sessions import Sessions
from colla.protocol.views import Identity

TOPIC = "benchmark"
GROUP = GroupId(digest(b"benchmark"))
AUTHORS = 20
BODY_BYTES = 300
NOW = Instant(0.0, 1_700_000_000.0)
FRAME_BYTES_MAX = 256 * 1024


def make_records(count: int, rng: Random) -> list[Record]:
    """`count` records of distinct keys, each author's in number order."""
    made = []
    for place in range(count):
        author = SecretKey(digest(b"author %d" % (place % AUTHORS)))
        log = Log(NodeId(author.public), LogId(digest(author.public)[:16]), TOPIC)
        key = Key("spec", digest(b"key %d" % place)[:16])
        stamp = Stamp(1_700_000_000_000 + place)
        payload = Payload(log, place // AUTHORS + 1, key, stamp, (), rng.randbytes(BODY_BYTES))
        made.append(sign_record(GROUP, author, payload))
    return made


def make_book(number: int, durable: Durable | None = None) -> tuple[RecordBook, Outbox, Sessions]:
    identity = Identity(GROUP, SecretKey(digest(b"node %d" % number)))
    outbox = Outbox(1)
    rng = Random(number)
    book = RecordBook(identity, RecordConfig(), rng, outbox, durable or Durable({}, {}))
    book.register(TOPIC, lambda record: None)
    return book, outbox, Sessions(identity, RecordConfig(), rng, outbox, book)


def fill(book: RecordBook, records: Sequence[Record]) -> list[float]:
    """Receive all records in batches as long as a delta may be; returns the seconds of each batch."""
    most = RecordConfig().delta_records_max
    seconds = []
    for start in range(0, len(records), most):
        batch = [record.signed for record in records[start : start + most]]
        began = time.perf_counter()
        book.receive(batch, NOW)
        seconds.append(time.perf_counter() - began)
    return seconds


def session(records: Sequence[Record], had: int) -> tuple[float, int, int]:
    """One session in which the first node gets all but the `had` records it had: seconds, messages, bytes."""
    nodes = [make_book(number) for number in range(2)]
    fill(nodes[0][0], records[:had])
    fill(nodes[1][0], records)
    for _, outbox, _ in nodes:
        outbox.drain()
    identities = [book.identity.node for book, _, _ in nodes]
    codec = Codec(Sessions.MESSAGES, FRAME_BYTES_MAX)
    frames = total = 0
    began = time.perf_counter()
    nodes[0][2].open(identities[1], (TOPIC,), NOW)
    wire: list[tuple[int, bytes]] = []
    while True:
        for number, (_, outbox, _) in enumerate(nodes):
            for effect in outbox.drain():
                if isinstance(effect, Send):
                    wire.append((1 - number, codec.encode(effect.message)))
        if not wire:
            break
        to, frame = wire.pop(0)
        frames, total = frames + 1, total + len(frame)
        nodes[to][2].message(identities[1 - to], codec.decode(frame), NOW)
    seconds = time.perf_counter() - began
    if nodes[0][0].fingerprint((TOPIC,)) != nodes[1][0].fingerprint((TOPIC,)):
        raise RuntimeError("the session did not make the nodes equal")
    return seconds, frames, total


def timed(rounds: int, run: Callable[[], object]) -> float:
    """The median of the seconds that `run` takes."""
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def rate(count: int, seconds: float) -> str:
    return f"{count / seconds:,.0f} records/s"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    count, rounds = options.records, options.rounds
    records = make_records(count, Random(1))
    table = Table("what", "result", title=f"{count:,} records of {records[0].size} bytes")

    one = records[0]
    message = GROUP + one.signed.payload
    seconds = timed(
        rounds, lambda: [verify(one.log.node, message, one.signed.signature) for _ in range(1000)]
    )
    table.add_row("verify a signature (Ed25519, for comparison)", rate(1000, seconds))
    seconds = timed(rounds, lambda: [open_record(GROUP, record.signed) for record in records[:1000]])
    table.add_row("decode and verify", rate(1000, seconds))

    slices: list[float] = []

    def receive_all() -> RecordBook:
        book, _, _ = make_book(0)
        slices.extend(fill(book, records))
        return book

    seconds = timed(rounds, receive_all)
    table.add_row("receive: verify, merge, persist effects", rate(count, seconds))
    slices.sort()
    p99 = slices[int(len(slices) * 0.99)]
    table.add_row(
        "slice of 128 records", f"median {statistics.median(slices) * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms"
    )

    book, outbox, _ = make_book(0)
    fill(book, records)
    seconds = timed(rounds, lambda: fill(book, records))
    table.add_row("receive what is known", rate(count, seconds))
    durable = Durable({}, {})
    for effect in outbox.drain():
        if isinstance(effect, Persist):
            durable.apply(effect.writes)
    seconds = timed(rounds, lambda: make_book(0, durable))
    table.add_row(
        "restore from disk (decode, check, index)", f"{seconds * 1e3:.0f} ms, {rate(count, seconds)}"
    )

    items = [(record.key, record.body) for record in records[:1000]]
    writer, _, _ = make_book(99)
    writer.opened()
    seconds = timed(rounds, lambda: [writer.write(TOPIC, [item], NOW) for item in items])
    table.add_row("write: sign, number, merge", rate(1000, seconds))

    for title, had in (
        ("session, everything lacking", 0),
        ("session, the last 100 lacking", count - 100),
        ("session, equal", count),
    ):
        runs = [session(records, had) for _ in range(rounds)]
        seconds = statistics.median(run[0] for run in runs)
        _, frames, total = runs[0]
        table.add_row(title, f"{seconds * 1e3:,.1f} ms, {frames} messages, {total / 1024:,.1f} KiB")
    Console().print(table)


if __name__ == "__main__":
    main()
