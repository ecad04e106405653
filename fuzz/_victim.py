"""A node that hears whatever a member's broken or hostile node sends: the simulator's, with its real agents.

A small group is made and then all nodes but the victim fall silent, so that only what is fed arrives. It is made anew after
`INPUTS_PER_LIFE` inputs: links between silent nodes do not live long.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from colla.agents.communication_requests import FindEvents, FindMessages, MarkRead, PublishEvent, SendMessage
from colla.agents.foundation import TOPICS
from colla.agents.requests import NameObject, RemoveName
from colla.kernel.codec import UnknownMessage
from colla.kernel.events import MessageReceived
from colla.model.ids import LogId, ObjectId, digest
from colla.model.record import Key, Log, Payload, Stamp, sign_record
from colla.protocol.naming.bodies import KeyFor, Named, Sealing
from colla.protocol.records.writes import RecordsNews
from colla.sim.computer import Computer
from colla.sim.group import SimGroup

INPUTS_PER_LIFE = 500
BETWEEN_INPUTS_S = 0.02
READ_EVERY_INPUTS = 25
"""The member reads what came, as a program would."""


class Victim:
    """See the module's docstring."""

    def __init__(self, seed: int = 1) -> None:
        self._seed = seed
        self._left = 0
        self._number = 0
        self.group: SimGroup
        self.me: Computer
        self.peer: Computer

    def feed(self, frame: bytes) -> None:
        """A frame arrives from a member's node. What the agents do with it may be anything but an exception."""
        self._live()
        try:
            message = self.me.core.codec.decode(frame)
        except (UnknownMessage, ValueError):
            return  # The link drops it and counts it.
        self.me.post(MessageReceived(self.peer.node, message))
        self._go_on()

    def write(self, topic: str, key: Key, body: bytes) -> None:
        """A member's node signs a record of any content, and it arrives."""
        self._live()
        self._number += 1
        log = Log(self.peer.node, LogId(b"fuzz" * 4), topic)
        stamp = Stamp(self._number)
        payload = Payload(log, self._number, key, stamp, (), body)
        identity = self.peer.settings.identity
        record = sign_record(identity.group, identity.secret, payload)
        frame = self.me.core.codec.encode(RecordsNews((record.signed,), True))
        self.me.post(MessageReceived(self.peer.node, self.me.core.codec.decode(frame)))
        self._go_on()

    def subjects(self) -> list[Key]:
        """Keys that exist, sorted: what a hostile record may be about."""
        self._live()
        records = [record for topic in TOPICS for record in self.me.core.foundation.book.all_records(topic)]
        return sorted({record.key: None for record in records})

    def _go_on(self) -> None:
        self.group.run(BETWEEN_INPUTS_S)
        core = self.me.core
        for service in core.catalogue.services():
            core.shown_name(service)
            core.catalogue.by_name(service.name)
        core.catalogue.fingerprint()
        core.membership.fingerprint()
        for info in core.membership.nodes():
            core.node_name(info.id)
        unread = [notice.text for _, notice in self.me.notices if notice.kind == "record_quarantined"]
        assert not unread, unread
        if self._left % READ_EVERY_INPUTS == 0:
            self.me.ask(FindMessages())
            self.me.ask(FindMessages(sent=True))
            self.me.ask(FindEvents())
            for entry in core.foundation.names.entries():
                core.foundation.names.find(entry.path)

    def _live(self) -> None:
        if self._left > 0:
            self._left -= 1
            return
        self._left = INPUTS_PER_LIFE
        self._number = 0
        group = self.group = SimGroup(self._seed)
        group.grow(4)
        group.deploy("web", replicas=2, at=group[1])
        talk(group)
        group.run(5.0)
        self.me, self.peer = group[0], group[1]
        for other in group.computers[1:]:
            assert other.process is not None
            other.process.stand_still()


def talk(group: SimGroup) -> None:
    """Messages with their receipts, events, and named objects: of each kind of record one at least."""
    writer, reader = group[1], group[0]
    sent = group.answer(writer, SendMessage((group.owner(reader).id,), "hello"))
    group.answer(writer, SendMessage((), "to all", sent.message))
    group.run(2.0)
    group.answer(reader, MarkRead((sent.message,)))
    group.answer(writer, PublishEvent("shop.orders", b'{"order": 1}'))
    object_id = ObjectId(digest(b"notes"))
    writer.put_object(object_id, 100)
    sealing = Sealing(True, (group.owner(reader).id,), (KeyFor(reader.node, bytes(80)),))
    for path, how in (("notes/one.txt", None), ("notes/two.txt", sealing), ("notes/old.txt", None)):
        group.answer(writer, NameObject(Named(path, object_id, 100, 90, 1, False, how)))
    group.answer(writer, RemoveName("notes/old.txt"))


@contextlib.contextmanager
def recorded_frames(kinds: dict[str, bytes]) -> Iterator[None]:
    """Keep one frame of each kind of message that any node sends meanwhile."""
    from colla.kernel.codec import Codec

    encode = Codec.encode

    def listening(self: Codec, message: object) -> bytes:
        frame = encode(self, message)  # type: ignore[arg-type]
        kinds.setdefault(type(message).__name__, frame)
        return frame

    Codec.encode = listening  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        Codec.encode = encode  # type: ignore[method-assign]
