"""A node that hears whatever a member's broken or hostile node sends: the simulator's, with its real agents.

A small group is made and then all nodes but the victim fall silent, so that only what is fed arrives. It is made anew after
`INPUTS_PER_LIFE` inputs: links between silent nodes do not live long.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from colla.kernel.codec import UnknownMessage
from colla.kernel.events import MessageReceived
from colla.model.ids import LogId
from colla.model.record import TOPIC_CATALOGUE, TOPIC_MEMBERSHIP, Key, Log, Payload, Stamp, sign_record
from colla.protocol.records.writes import RecordsNews
from colla.sim.computer import Computer
from colla.sim.group import SimGroup

INPUTS_PER_LIFE = 500
BETWEEN_INPUTS_S = 0.02
TOPICS = (TOPIC_MEMBERSHIP, TOPIC_CATALOGUE)


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

    def _live(self) -> None:
        if self._left > 0:
            self._left -= 1
            return
        self._left = INPUTS_PER_LIFE
        self._number = 0
        group = self.group = SimGroup(self._seed)
        group.grow(4)
        group.deploy("web", replicas=2, at=group[1])
        group.run(5.0)
        self.me, self.peer = group[0], group[1]
        for other in group.computers[1:]:
            assert other.process is not None
            other.process.stand_still()


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
