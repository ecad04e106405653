"""A group that exists already: all of its computers were admitted before the simulation begins.

What joining would have written stands on every disk, signed as it would have been, so that large groups need not
spend their simulation on joining. The founder's node admitted everybody; every computer knows the addresses of a few.
"""

from __future__ import annotations

import msgspec

from colla.kernel.effects import StoreCell, StoreRecord, Write
from colla.model.ids import LogId
from colla.model.keys import SecretKey
from colla.model.record import TOPIC_MEMBERSHIP, Log, Payload, Stamp, parse_record, sign_record
from colla.protocol.membership.bodies import Admitted, Body, Ticket, encode_body, key_of, sign_claim
from colla.protocol.records.book import slot_of
from colla.protocol.records.own import CELL_PREFIX, OwnLog
from colla.sim.computer import Computer
from colla.sim.group import SimGroup

TICKET_EXPIRY_S = 7 * 24 * 3600.0
PEERS_KNOWN = 4
"""Every computer begins with the addresses of so many others; it learns the rest from them."""


def gather(group: SimGroup, count: int) -> None:
    """Let a group of one have `count` computers, each of a member of its own. All are off when this returns."""
    founder = group.computers[0]
    founder.power_off()
    while len(group.computers) < count:
        group.newcomer()
    admissions = Admissions(group, founder)
    for computer in group.computers[1:]:
        admissions.admit(computer)
    for number, computer in enumerate(group.computers):
        durable = computer.disk.snapshot()
        durable.apply(admissions.writes())
        if computer is founder:
            durable.apply((admissions.own_log(),))
        computer.disk.restore(durable)
        others = [group.computers[(number + step) % count] for step in range(1, min(PEERS_KNOWN + 1, count))]
        computer.settings.peers = tuple((other.node, (other.address,)) for other in others)


class Admissions:
    """The membership records of the founder's node."""

    def __init__(self, group: SimGroup, founder: Computer) -> None:
        self._group = group
        self._founder = founder
        self._wall_s = founder.clock.now().wall_s
        found = founder.disk.snapshot().records.items()
        self._signed = [signed for (topic, _), signed in found if topic == TOPIC_MEMBERSHIP]
        records = [parse_record(signed) for signed in self._signed]
        self._log: Log = records[0].log
        self._number = max(record.number for record in records)

    def admit(self, computer: Computer) -> None:
        """Invite the computer's owner, and let it in."""
        founder, group = self._founder, self._group
        ticket = SecretKey(group.world.random(f"ticket/{computer.name}").randbytes(32))
        person = group.owner(computer)
        expires_s = self._wall_s + TICKET_EXPIRY_S
        self._write(Ticket(ticket.public, group.owner(founder).id, expires_s, False))
        claim = sign_claim(
            group.group, ticket, founder.node, computer.node, computer.name, person.secret, person.name
        )
        self._write(Admitted(claim, self._wall_s))

    def _write(self, body: Body) -> None:
        self._number += 1
        stamp = Stamp(int(self._wall_s * 1000), self._number)
        payload = Payload(self._log, self._number, key_of(body), stamp, (), encode_body(body))
        secret = self._founder.settings.identity.secret
        self._signed.append(sign_record(self._group.group, secret, payload).signed)

    def writes(self) -> tuple[Write, ...]:
        """What puts them on a disk."""
        return tuple(StoreRecord(TOPIC_MEMBERSHIP, slot_of(signed), signed) for signed in self._signed)

    def own_log(self) -> Write:
        """What lets the founder's node go on with its log."""
        own = OwnLog(LogId(self._log.id), number=self._number, confirmed=self._number)
        return StoreCell(CELL_PREFIX + TOPIC_MEMBERSHIP, msgspec.msgpack.encode(own))
