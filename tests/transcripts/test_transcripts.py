"""Conversations between nodes, as text: what happens, and every effect that follows, in order.

A transcript is a `*.txt` file beside this one. Lines that begin with `#` explain; lines that begin with `>` are
carried out, one after another, in the laboratory of records; below each stands what came of it. When the
behaviour is meant to change, write the transcripts anew and read the difference:

    UPDATE_TRANSCRIPTS=1 pytest tests/transcripts

The commands:

    > nodes 3 [key=value …]        nodes a, b, c that may write; the rest overrides bounds of `RecordConfig`
    > a writes KEY BODY            and tells all others;  `a eliminates KEY`
    > a opens b                    a session
    > deliver [N] | deliver all    the first messages under way arrive;  `lose [N]`: they never do
    > time SECONDS                 passes; timers become due
    > a keeps its disk             a copy, for later;  `a restarts [from the kept disk]`
    > show                         what everybody holds
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from colla.kernel.effects import (
    DropCell,
    DropRecord,
    Effect,
    Notify,
    Persist,
    Send,
    StoreCell,
    StoreRecord,
    WakeAt,
)
from colla.kernel.messages import Message
from colla.model.record import Record, SignedRecord, parse_record
from colla.protocol.multicast.multicast import Carried
from colla.protocol.records.summary import (
    ENTRY_BYTES,
    NUMBER_BYTES,
    Frontier,
    Segment,
    entry_number,
    log_name,
)

HERE = Path(__file__).parent
TRANSCRIPTS = sorted(path.name for path in HERE.glob("*.txt"))


class Names:
    """Short names for what is random or a hash, given in the order of appearance."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, object], str] = {}
        self._count: dict[str, int] = {}

    def of(self, kind: str, thing: object) -> str:
        if (kind, thing) not in self._names:
            self._count[kind] = self._count.get(kind, 0) + 1
            self._names[kind, thing] = f"{kind}{self._count[kind]}"
        return self._names[kind, thing]

    def call(self, kind: str, thing: object, name: str) -> None:
        self._names.setdefault((kind, thing), name)


class Transcript:
    """Carries out commands and says what came of them."""

    def __init__(self, lab: ModuleType) -> None:
        self._lab = lab
        self._names = Names()
        self._group: Any = None
        self._kept: dict[str, Any] = {}
        self._said: list[str] = []

    def run(self, command: str) -> list[str]:
        self._said = []
        match command.split():
            case ["nodes", count, *bounds]:
                self._nodes(int(count), dict(bound.split("=") for bound in bounds))
            case [who, "writes", name, body]:
                self._box(who).write(name, body.encode())
            case [who, "eliminates", name]:
                self._box(who).write(name, b"", self._lab.TOMBSTONE)
            case [who, "opens", other]:
                self._box(who).open(self._box(other))
            case ["deliver", "all"]:
                while self._group.wire:
                    self._deliver()
            case ["deliver", *count]:
                for _ in range(int(count[0]) if count else 1):
                    self._deliver()
            case ["lose", *count]:
                for _ in range(int(count[0]) if count else 1):
                    sender, receiver, frame = self._group.wire.pop(0)
                    message = self._message(self._group.codec.decode(frame))
                    self._said.append(f"{self._who(sender.id)} ⇸ {self._who(receiver.id)}  {message}")
            case ["time", seconds]:
                self._pass_time(float(seconds))
            case [who, "keeps", "its", "disk"]:
                durable = self._box(who).durable
                self._kept[who] = self._lab.Durable(dict(durable.records), dict(durable.cells))
            case [who, "restarts", *kept]:
                self._group.restart(self._box(who), self._kept[who] if kept else None)
            case ["show"]:
                self._show()
            case _:
                raise ValueError(f"no such command: {command}")
        self._perform()
        return self._said

    def _nodes(self, count: int, bounds: dict[str, str]) -> None:
        config = self._lab.RecordConfig(**{name: int(value) for name, value in bounds.items()})
        self._group = self._lab.Lab(count, config=config)
        for number, box in enumerate(self._group.boxes):
            self._names.call("node ", box.id, "abcdefghijklmnop"[number])

    def _box(self, name: str) -> Any:
        return self._group.boxes["abcdefghijklmnop".index(name)]

    def _who(self, node: bytes) -> str:
        return self._names.of("node ", node)

    def _deliver(self) -> None:
        sender, receiver, message = self._group.deliver()
        self._said.append(f"{self._who(sender.id)} → {self._who(receiver.id)}  {self._message(message)}")
        self._perform()

    def _pass_time(self, seconds: float) -> None:
        group = self._group
        until = group.now.boot_s + seconds
        while due := sorted((one for one in group.timers if one[0] <= until), key=lambda one: one[0]):
            at_s, box, timer = due[0]
            group.timers.remove(due[0])
            group.now = group.now.later(at_s - group.now.boot_s)
            if group.boxes[box.number] is box:
                self._said.append(f"{self._who(box.id)}: {type(timer).__name__} is due")
                box.due(timer)
                self._perform()
        group.now = group.now.later(until - group.now.boot_s)

    def _perform(self) -> None:
        """Carry out all effects, in order, and tell them and the conclusions."""
        for box in self._group.boxes:
            name = self._who(box.id)
            while box.queue:
                self._said.append(f"    {name}: {self._effect(box.queue[0])}")
                box.perform()
            for done in box.concluded:
                self._said.append(f"    {name} concludes: written, copies: {done.copies}")
            for ended in box.ended:
                how = "equal" if ended.equal else "complete" if ended.complete else "incomplete"
                self._said.append(f"    {name} concludes: session with {self._who(ended.peer)} ended, {how}")
            box.concluded.clear()
            box.ended.clear()

    def _show(self) -> None:
        for box in self._group.boxes:
            fingerprint = self._names.of("f", box.book.fingerprint((self._lab.TOPIC,)))
            self._said.append(f"{self._who(box.id)}, {fingerprint}:")
            frontiers = {one.log: one.number for one in box.book.summary((self._lab.TOPIC,))}
            for record in sorted(box.book.all_records(self._lab.TOPIC), key=self._record):
                chosen = box.book.winner(self._lab.TOPIC, record.key) == record
                free = record in box.book.concurrent(self._lab.TOPIC, record.key)
                rank = "wins" if chosen else "concurrent" if free else "dominated"
                ahead = ", ahead" if record.number > frontiers[log_name(record.log)] else ""
                self._said.append(f"    {self._record(record)}: {rank}{ahead}")

    # Texts.

    def _log(self, record: Record) -> str:
        node = self._who(record.log.node)
        name = self._names.of(f"log {node}", log_name(record.log)).removeprefix("log ")
        self._names.call("log", log_name(record.log), name)
        self._names.call("log", record.log.id, name)
        return name

    def _record(self, record: Record | SignedRecord) -> str:
        if isinstance(record, SignedRecord):
            record = parse_record(record)
        log = self._log(record)
        self._names.call("record ", record.digest, f"{log}/{record.number}")
        subject = record.key.subject.decode()
        about = f"{subject} = {record.body.decode()}" if record.body else f"{record.key.kind} {subject}"
        seen = "".join(f" seen {self._seen(one.log)}/{one.number}" for one in record.seen)
        return f"{log}/{record.number} {about}{seen}"

    def _seen(self, log: bytes) -> str:
        for box in self._group.boxes:
            for record in box.book.all_records(self._lab.TOPIC):
                if record.log.id == log:
                    return self._log(record)
        return "unknown"

    def _effect(self, effect: Effect) -> str:
        match effect:
            case Persist(writes=writes):
                return "persist " + ", ".join(self._write(write) for write in writes)
            case Send(to=to, message=message, unbarriered=unbarriered):
                return f"send to {self._who(to)}{' unbarriered' if unbarriered else ''}  {self._message(message)}"
            case WakeAt(at_s=at_s, timer=timer):
                return f"wake in {at_s - self._group.now.boot_s:.1f} s  {type(timer).__name__}"
            case Notify(notice=notice):
                return f"notify {notice.kind}"
        raise AssertionError(effect)

    def _write(self, write: Any) -> str:
        match write:
            case StoreRecord(record=record):
                return f"store ({self._record(record)})"
            case DropRecord(slot=slot):
                return f"drop {self._names.of('slot ', slot)}"
            case StoreCell(name=name, value=value):
                if name.startswith("records/frontier/"):
                    log = self._names.of("log", bytes.fromhex(name.rpartition("/")[2]))
                    return f"frontier {log}/{int.from_bytes(value)}"
                _, number, confirmed = msgspec.msgpack.decode(value)
                return f"own log at {number}, confirmed {confirmed}"
            case DropCell(name=name):
                return f"drop cell {name}"
        raise AssertionError(write)

    def _message(self, message: Message) -> str:
        if isinstance(message, Carried):
            inner = self._message(self._group.codec.decode(message.payload))
            onward = "".join(f" {self._who(node)}" for node in message.recipients)
            return f"Carried from {self._who(message.origin)}{' for' + onward if onward else ''}: {inner}"
        fields = (self._field(name, getattr(message, name)) for name in message.__struct_fields__)
        return " ".join([type(message).__name__, *(field for field in fields if field)])

    def _field(self, name: str, value: Any) -> str:
        match name, value:
            case "session", number:
                return self._names.of("s", number)
            case "fingerprint", b"":
                return ""
            case "fingerprint", fingerprint:
                return self._names.of("f", fingerprint)
            case "log", log:
                return self._names.of("log", log)
            case "topics", _:
                return ""
            case "entries", entries:
                return f"[{', '.join(self._entries(entries))}]"
            case "digests", digests:
                return f"[{', '.join(self._names.of('record ', one) for one in digests)}]"
            case _, tuple():
                return f"[{', '.join(self._item(item) for item in value)}]"
            case _, bool():
                return name if value else ""
            case _:
                return f"{name} {value}" if value else ""

    def _entries(self, entries: bytes) -> Iterator[str]:
        for start in range(0, len(entries), ENTRY_BYTES):
            entry = entries[start : start + ENTRY_BYTES]
            yield f"{entry_number(entry)} {self._names.of('record ', entry[NUMBER_BYTES:])}"

    def _item(self, item: Any) -> str:
        match item:
            case SignedRecord():
                return self._record(item)
            case Frontier(log=log, number=number, hash=hashed):
                of = f" hash {self._names.of('h', hashed)}" if hashed else ""
                return f"{self._names.of('log', log)}/{number}{of}"
            case Segment(log=log, after=after, through=through):
                return f"{self._names.of('log', log)}/{after}…{through}"
            case _:
                return str(item)


def play(lab: ModuleType, text: str) -> str:
    """The transcript as it would be written now."""
    transcript = Transcript(lab)
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("> "):
            lines += [line, *transcript.run(line.removeprefix("> "))]
        elif line.startswith("#") or not line:
            lines.append(line)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_transcript(lab: ModuleType, name: str) -> None:
    path = HERE / name
    text = path.read_text(encoding="utf-8")
    played = play(lab, text)
    if os.environ.get("UPDATE_TRANSCRIPTS"):
        path.write_text(played, encoding="utf-8")
    else:
        assert played == text, f"{name} differs: if it is meant to, see this module's docstring"


def test_there_are_transcripts() -> None:
    assert len(TRANSCRIPTS) >= 5
