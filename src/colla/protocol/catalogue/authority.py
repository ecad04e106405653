"""Which of a service's records count: those whose author had the authority to write them.

Judged when the catalogue is read, from the membership as this node knows it now, never when records are
merged. A record of a node that membership does not name (yet) is simply not seen.
"""

from __future__ import annotations

from collections.abc import Sequence

from colla.model.ids import MemberId
from colla.model.record import Record
from colla.protocol.views import MembershipView, Role


def may_change(membership: MembershipView, member: MemberId, *owners: MemberId) -> bool:
    """Whether `member` may change what one of `owners` offers: it is one of them and no guest, or an administrator."""
    info = membership.member(member)
    if info is None or info.role == Role.GUEST:
        return False
    return member in owners or info.role == Role.ADMINISTRATOR


def authorised(membership: MembershipView, records: Sequence[Record], *owners: MemberId) -> list[Record]:
    """Those of `records`, all about one service, that count: written by one of `owners` or by an administrator, in
    the role that the author had when it wrote them. Guests write nothing that counts.
    """
    found = []
    for record in records:
        writer = membership.writer(record)
        if writer is None or writer.role is Role.GUEST:
            continue
        if writer.member in owners or writer.role is Role.ADMINISTRATOR:
            found.append(record)
    return found
