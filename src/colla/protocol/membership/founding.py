"""How a group begins: its first record, made before there is any node to run it."""

from __future__ import annotations

from random import Random

import msgspec

from colla.kernel.effects import StoreCell, StoreRecord, Write
from colla.kernel.time import Instant
from colla.model.ids import GroupId, LogId, MemberId, NodeId, random_id
from colla.model.keys import SIGNATURE_BYTES, SecretKey
from colla.model.record import TOPIC_MEMBERSHIP, Log, Payload, Record, Stamp, sign_record
from colla.protocol.membership.bodies import (
    Founding,
    check_label,
    encode_body,
    group_id_of,
    key_of,
    sign_founding,
)
from colla.protocol.records.book import slot_of
from colla.protocol.records.own import CELL_PREFIX, OwnLog
from colla.protocol.views import Election


class Founded(msgspec.Struct, frozen=True):
    """A new group: its id and the records to store before the founder's node starts for the first time."""

    group: GroupId
    records: tuple[Record, ...]
    writes: tuple[Write, ...]
    """What to `apply` to the founder's empty `Durable`, so that its record book goes on with this log."""


def found(
    group_name: str,
    election: Election,
    member: SecretKey,
    node: SecretKey,
    member_name: str,
    node_name: str,
    rng: Random,
    now: Instant,
) -> Founded:
    """Found a group. Raises `CollaError("bad_name")` when one of the names is no DNS label."""
    body = Founding(
        group_name=check_label("group", group_name),
        election=election,
        member=MemberId(member.public),
        member_name=check_label("member", member_name),
        node=NodeId(node.public),
        node_name=check_label("computer", node_name),
        random=rng.randbytes(16),
        certificate=bytes(SIGNATURE_BYTES),
    )
    signed = sign_founding(body, member)
    encoded = encode_body(signed)
    group = group_id_of(encoded)
    log = Log(NodeId(node.public), LogId(random_id(rng)), TOPIC_MEMBERSHIP)
    payload = Payload(log, 1, key_of(signed), Stamp(now.wall_ms), (), encoded)
    record = sign_record(group, node, payload)
    own_log = OwnLog(log.id, number=1)
    return Founded(
        group,
        (record,),
        (
            StoreRecord(TOPIC_MEMBERSHIP, slot_of(record.signed), record.signed),
            StoreCell(CELL_PREFIX + TOPIC_MEMBERSHIP, msgspec.msgpack.encode(own_log)),
        ),
    )
