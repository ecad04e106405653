"""Which of a service's records count: those whose author had the authority to write them.

Judged when the catalogue is read, from the membership as this node knows it now, never when records are
merged. A record of a node that membership does not name (yet) is simply not seen.
"""

from __future__ import annotations

from collections.abc import Sequence

from colla.model.ids import MemberId
from colla.model.record import Record
from colla.protocol.views import MembershipView

ADMINISTRATOR = "administrator"


def may_change(membership: MembershipView, member: MemberId, owner: MemberId) -> bool:
    """Whether `member` may change what `owner` offers: the owner, or an administrator of the group."""
    if member == owner:
        return True
    info = membership.member(member)
    return info is not None and info.role == ADMINISTRATOR


def authorised(membership: MembershipView, records: Sequence[Record], owner: MemberId) -> list[Record]:
    """Those of `records`, all about one service of `owner`, that count."""
    found = []
    for record in records:
        author = membership.owner_of(record.log.node)
        if author is not None and may_change(membership, author, owner):
            found.append(record)
    return found
