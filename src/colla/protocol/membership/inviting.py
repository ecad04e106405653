"""Making tickets: the record that the group keeps and the text that the invited person gets."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import msgspec

from colla.kernel.config import MembershipConfig
from colla.kernel.time import Instant
from colla.model.errors import CollaError
from colla.model.ids import MemberId
from colla.model.keys import SecretKey
from colla.protocol.membership.bodies import HEADS_MAX, USES_MAX, Ticket
from colla.protocol.membership.membership import Membership
from colla.protocol.membership.tickets import Contact, TicketText, choose_contacts, write_ticket
from colla.protocol.views import Identity, Role

NOBODY = MemberId(b"")


class Invitation(msgspec.Struct, frozen=True):
    """`body` is to be written as a record of this node (key: `key_of(body)`); `text` is for the person invited."""

    body: Ticket
    text: str


def make_invitation(
    identity: Identity,
    membership: Membership,
    contacts: Sequence[Contact],
    own_computer: bool,
    valid_s: float,
    rng: Random,
    now: Instant,
    role: Role = Role.MEMBER,
    uses: int = 1,
    member: MemberId = NOBODY,
) -> Invitation:
    """Make a ticket for persons, or (`own_computer`) for one more computer of this node's member, or of `member`.

    `contacts`: this node first, then others, those most likely to be reached first. Whether the inviter may do it is not
    asked here (`administering`). Raises `CollaError` with code `not_a_member`, `bad_expiry`, `bad_uses`, `no_address` or
    `ticket_too_long`.
    """
    inviter = membership.owner_of(identity.node)
    if inviter is None:
        raise CollaError("not_a_member", "This computer is not in the group.", "Join the group first.")
    if not 0 < valid_s <= MembershipConfig().ticket_expiry_max_s:
        raise CollaError("bad_expiry", "A ticket is valid for up to a year.", "Choose a shorter time.")
    if not 1 <= uses <= USES_MAX:
        raise CollaError("bad_uses", f"A ticket is for 1 to {USES_MAX} uses.", "Choose such a number.")
    chosen = choose_contacts([contact for contact in contacts if contact.addresses])
    if not chosen:
        raise CollaError(
            "no_address",
            "No computer of the group has an address that a joiner could use.",
            "Connect this computer to a network first; `colla doctor` says more.",
        )
    secret = SecretKey(rng.randbytes(32))
    expires_s = now.wall_s + valid_s
    past = membership.heads()[:HEADS_MAX]
    body = Ticket(secret.public, inviter, expires_s, own_computer, role, uses, member, past)
    text = TicketText(
        identity.group,
        membership.group_name,
        secret.seed,
        identity.node,
        own_computer,
        expires_s,
        chosen,
    )
    return Invitation(body, write_ticket(text))
