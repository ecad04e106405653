"""Sealing objects for members: which computers get the content key, and opening what is sealed for this one.

A content key is wrapped for every computer of every recipient, since each has a key of its own. The putting member is
always a recipient.
"""

from __future__ import annotations

from collections.abc import Sequence

from colla.model.errors import CollaError
from colla.model.hpke import encryption_key_of
from colla.model.ids import MemberId, NodeId, ObjectId
from colla.model.sealing import UnsealError, derive_decryption_key, wrap
from colla.protocol.naming.bodies import RECIPIENTS_MAX, KeyFor, Sealing, wrap_info
from colla.protocol.views import Identity, MembershipView


class Keys:
    """Wraps and opens content keys on one node."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._key = derive_decryption_key(identity.secret.seed)

    def recipients(
        self, membership: MembershipView, names: Sequence[str], me: MemberId
    ) -> tuple[MemberId, ...]:
        """The members of these names, and the one who asks. Raises `CollaError` (`unknown_member`)."""
        by_name = {member.name: member.id for member in membership.members()}
        for name in names:
            if name not in by_name:
                raise CollaError(
                    "unknown_member", f"There is no member called {name!r}.", "`colla members` lists them."
                )
        return tuple(sorted({me: None, **{by_name[name]: None for name in names}}))

    def seal_for(
        self,
        membership: MembershipView,
        object_id: ObjectId,
        content_key: bytes,
        members: tuple[MemberId, ...] | None,
    ) -> Sealing:
        """The content key for all computers of `members` (None: of the whole group).

        Raises `CollaError` (`too_many_recipients`).
        """
        nodes = [one.id for one in membership.nodes() if members is None or one.member in members]
        if len(nodes) > RECIPIENTS_MAX:
            raise CollaError(
                "too_many_recipients",
                f"An object can be sealed for {RECIPIENTS_MAX} computers; these members have {len(nodes)}.",
                "Name fewer members, or put it unsealed: only members can get it anyway.",
            )
        info = wrap_info(self._identity.group, object_id)
        keys = tuple(KeyFor(node, wrap(encryption_key_of(node), content_key, info)) for node in nodes)
        return Sealing(members is None, members or (), keys)

    def open(self, sealing: Sealing, object_id: ObjectId) -> bytes | None:
        """The content key, if one is wrapped for this computer."""
        info = wrap_info(self._identity.group, object_id)
        for key in sealing.keys:
            if key.node == self._identity.node:
                try:
                    return self._key.unwrap(key.wrapped, info)
                except UnsealError:
                    return None
        return None

    def lacking(self, membership: MembershipView, sealing: Sealing) -> list[NodeId]:
        """Computers of recipients that have no key yet."""
        having = dict.fromkeys(key.node for key in sealing.keys)
        wanted = [one for one in membership.nodes() if sealing.to_group or one.member in sealing.members]
        return [one.id for one in wanted if one.id not in having]
