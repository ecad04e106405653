"""What is fuzzed: everything that reads bytes from other nodes, from people's paste buffers, or from programs.

A target takes any bytes and raises only when something is wrong with us. Where bytes are accepted, what was read is written
again and must be read as the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import msgspec
from _victim import Victim, recorded_frames, talk

from colla.access.http1 import BrokenAnswer, ChunkedBody, parse_head
from colla.agents.foundation import TOPICS
from colla.agents.wire import make_codec
from colla.kernel.codec import UnknownMessage
from colla.model.errors import UNDECODABLE, CollaError
from colla.model.ids import GroupId
from colla.model.manifest import (
    BadManifest,
    FolderManifest,
    build_file,
    build_folder,
    content_size,
    decode_manifest,
    encode_manifest,
    file_count,
    file_slices,
)
from colla.model.record import Key, SignedRecord, open_record, parse_record
from colla.node.links.agreement import Agreement, Hello, Reply, Verdict, decode_hello, decode_reply
from colla.node.links.frame_queue import FrameReader, TooLong, pack
from colla.protocol.membership.tickets import read_ticket, write_ticket
from colla.sim.group import SimGroup

Feed = Callable[[bytes], None]
FRAME_BYTES_MAX = 1 << 20
BYTES_PER_FRAME_MAX = 64
GROUP = GroupId(b"g" * 32)


class Target(NamedTuple):
    """`make` prepares it; `seeds` are inputs to begin with."""

    what: str
    make: Callable[[], Feed]
    seeds: Callable[[], Iterator[bytes]]


def recorded() -> dict[str, bytes]:
    """One frame of each kind that nodes of a group send each other in a minute full of events."""
    kinds: dict[str, bytes] = {}
    with recorded_frames(kinds):
        group = SimGroup(5)
        group.grow(4)
        service = group.deploy("web", replicas=2, at=group[1])
        talk(group)
        group.run(5.0)
        group.crash(group[2])
        group.run(8.0)
        group.restart(group[2])
        group.run(10.0)
        group.eliminate(service, group[1])
        group.run(5.0)
    return dict(sorted(kinds.items()))


def frames_of_nodes() -> Iterator[bytes]:
    yield from recorded().values()


def make_wire() -> Feed:
    codec = make_codec(FRAME_BYTES_MAX)

    def feed(data: bytes) -> None:
        try:
            message = codec.decode(data)
        except (UnknownMessage, ValueError):
            return
        assert codec.decode(codec.encode(message)) == message, "what was read is not what is written"

    return feed


def make_record() -> Feed:
    decoder = msgspec.msgpack.Decoder(SignedRecord)

    def feed(data: bytes) -> None:
        try:
            signed = decoder.decode(data)
            record = parse_record(signed)
        except (*UNDECODABLE, ValueError):
            return
        assert record.signed == signed
        try:
            open_record(GROUP, signed)
        except ValueError:
            return
        raise AssertionError("a record that nobody signed was accepted")

    return feed


def seeds_of_records() -> Iterator[bytes]:
    group = SimGroup(3)
    group.grow(2)
    group.deploy("web", replicas=1)
    talk(group)
    for topic in TOPICS:
        for record in group[0].core.foundation.book.all_records(topic):
            yield msgspec.msgpack.encode(record.signed)


def make_ticket() -> Feed:
    def feed(data: bytes) -> None:
        try:
            text = data.decode("utf-8", "surrogateescape")
            ticket = read_ticket(text)
        except CollaError as error:
            assert error.message, "the error says nothing"
            return
        assert read_ticket(write_ticket(ticket)) == ticket

    return feed


def seeds_of_tickets() -> Iterator[bytes]:
    group = SimGroup(3)
    yield group.invite(group[0]).encode()
    yield b"colla1"


def make_hello() -> Feed:
    """Any hello or reply of a peer, to either side of a pair: the numbers of links never go back."""

    def feed(data: bytes) -> None:
        for mine, other in ((b"a", b"b"), (b"b", b"a")):
            agreement = Agreement(mine, other, b"i" * 8, iter(range(1, 1 << 20)).__next__)
            agreement.hello(forced=False)
            try:
                if len(data) % 2:
                    agreement.concluded(decode_reply(data[1:]))
                else:
                    agreement.answer(decode_hello(data))
            except ValueError:
                continue
            assert agreement.serial >= 0

    return feed


def seeds_of_hellos() -> Iterator[bytes]:
    hello = Hello(b"i" * 8, b"j" * 8, 7, False).encode()
    reply = Reply(Verdict.GRANTED, b"i" * 8, 7, "192.0.2.1:7000").encode()
    yield hello if len(hello) % 2 == 0 else hello + b"\0"
    yield b"\1" + reply if len(reply) % 2 == 0 else reply


def in_pieces(data: bytes) -> Iterator[bytes]:
    """The same bytes as a network might bring them: in pieces of 1, 2, 3… bytes."""
    at, size = 0, 1
    while at < len(data):
        yield data[at : at + size]
        at, size = at + size, size + 1


def make_stream() -> Feed:
    """Frames cut out of a stream: the same however the bytes arrive."""

    def frames(pieces: Iterable[bytes]) -> tuple[list[bytes], bool]:
        reader = FrameReader()
        found: list[bytes] = []
        try:
            for piece in pieces:
                for frame in reader.feed(piece, BYTES_PER_FRAME_MAX):
                    found.append(frame)  # Those before one too long count.
        except TooLong:
            return found, True
        return found, False

    def feed(data: bytes) -> None:
        whole, too_long = frames([data])
        assert (whole, too_long) == frames(in_pieces(data)), "the pieces make a difference"
        assert data.startswith(pack(whole))

    return feed


def seeds_of_streams() -> Iterator[bytes]:
    yield pack([b"", b"a", b"bc" * 9])


def make_answer() -> Feed:
    """What a replica answers: a head, or a chunked body that is the same however its bytes arrive."""

    def decoded(pieces: Iterable[bytes]) -> bytes | None:
        body = ChunkedBody()
        try:
            return b"".join([body.feed(piece) for piece in pieces])
        except BrokenAnswer:
            return None

    def feed(data: bytes) -> None:
        try:
            head = parse_head(data, "GET")
        except BrokenAnswer:
            pass
        else:
            for name, value in head.headers:
                assert not {"\r", "\n", "\0"}.intersection(name + value), "a header smuggles a line"
        assert decoded([data]) == decoded(in_pieces(data)), "the pieces make a difference"

    return feed


def seeds_of_answers() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\nConnection: close"
    yield b"HTTP/1.0 304 Not Modified\r\nContent-Length: 5\r\nKeep-Alive: timeout=5"
    yield b"5;name=value\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\nTrailer: x\r\n\r\n"


def make_manifest() -> Feed:
    def feed(data: bytes) -> None:
        try:
            manifest = decode_manifest(data)
        except BadManifest:
            return
        assert encode_manifest(manifest) == data
        assert content_size(manifest) >= 0
        assert file_count(manifest) >= 0
        if isinstance(manifest, FolderManifest):
            sizes = sum(piece.end - piece.start for _, slices in file_slices(manifest) for piece in slices)
            assert sizes == content_size(manifest)

    return feed


def seeds_of_manifests() -> Iterator[bytes]:
    folder, _ = build_folder({"index.html": (b"<h1>hello</h1>", False), "bin/run": (b"#!/bin/sh", True)})
    yield folder.manifests[-1].data
    file, _ = build_file(b"hello" * 100)
    yield file.manifests[-1].data


def make_frames() -> Feed:
    return Victim().feed


def make_member() -> Feed:
    """Records of any content, signed as they must be, by a member's node that means harm."""
    victim = Victim()
    subjects = victim.subjects()

    def feed(data: bytes) -> None:
        if len(data) < 3:
            return
        key = subjects[data[1] % len(subjects)]
        if data[0] & 2:
            key = Key(data[2:8].decode("latin-1"), key.subject)
        if data[0] & 4:
            key = Key(key.kind, data[-16:])
        topic = (data[0] & 1) + (data[0] >> 2 & 6)
        victim.write(TOPICS[topic % len(TOPICS)], key, data[2:])

    return feed


def seeds_of_members() -> Iterator[bytes]:
    group = SimGroup(1)
    group.grow(4)
    group.deploy("web", replicas=2, at=group[1])
    talk(group)
    for number, topic in enumerate(TOPICS):
        for place, record in enumerate(group[0].core.foundation.book.all_records(topic)):
            yield bytes([(number & 1) + ((number & 6) << 2), place]) + record.body


TARGETS = {
    "wire": Target("the codec of all messages between nodes", make_wire, frames_of_nodes),
    "record": Target("signed records as they travel", make_record, seeds_of_records),
    "ticket": Target("tickets as people paste them", make_ticket, seeds_of_tickets),
    "hello": Target("the handshake of links", make_hello, seeds_of_hellos),
    "stream": Target("frames on a stream between nodes", make_stream, seeds_of_streams),
    "manifest": Target("manifests of objects", make_manifest, seeds_of_manifests),
    "answer": Target("what a replica answers over HTTP", make_answer, seeds_of_answers),
    "frames": Target("a node's agents, fed by a hostile member's node", make_frames, frames_of_nodes),
    "member": Target(
        "a node's agents, fed with well-signed records of any content", make_member, seeds_of_members
    ),
}
