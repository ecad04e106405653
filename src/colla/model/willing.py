"""Whose and which services an owner lets run: the part of a contribution that judges a specification.

Pure, and the same for the executor that enforces it and for the dispatcher that wants to know beforehand. A stranger
is any member whom the owner did not name in `members`, except the owner.
"""

from __future__ import annotations

from typing import Final

import msgspec

from colla.model.contribution import Contribution
from colla.model.ids import MemberId
from colla.model.service import Specification

ISOLATIONS: Final = ("none", "landlock", "bubblewrap", "container", "webassembly", "nothing-executed")
"""How an environment keeps a service from the rest of the computer, the weakest first."""


class Refused(msgspec.Struct, frozen=True):
    """Why not: a stable code, and the end of a sentence for people."""

    code: str
    reason: str


def refuses(
    gives: Contribution,
    owner: MemberId | None,
    specification: Specification,
    owner_name: str,
    isolation: str | None,
) -> Refused | None:
    """Whether the `owner` of a computer does not let this service run there.

    `owner_name` is how people call the service's owner; members are named by it or by their id. `isolation` is that of
    the service's environment there, or None where it is not known.
    """
    own = specification.owner == owner
    names = (specification.owner.hex(), owner_name)
    if gives.own_only and not own:
        return Refused("own_only", "the owner runs only own services")
    named = any(name in gives.members for name in names)
    if gives.members and not named:
        return Refused("member_not_allowed", "the owner does not run this member's services")
    if any(name in gives.denied_members for name in names):
        return Refused("member_denied", "the owner refuses this member's services")
    if gives.only_labels and not any(label in gives.only_labels for label in specification.labels):
        wanted = " or ".join(map(label_text, gives.only_labels))
        return Refused("label_not_allowed", f"the owner runs only services that ask for {wanted}")
    if specification.outgoing and not gives.lets_out:
        return Refused("outgoing", "the owner lets no service reach the Internet from here")
    for label in specification.labels:
        if label in gives.denied_labels:
            return Refused("label_denied", f"the owner refuses services that ask for {label_text(label)}")
    if isolation is not None and not own and not named and weaker(isolation, gives.strangers):
        return Refused(
            "isolation",
            f"the owner runs strangers' services in {gives.strangers} or stronger isolation, not {isolation}",
        )
    return None


def weaker(isolation: str, wanted: str) -> bool:
    """Whether an isolation is weaker than what is wanted (empty: nothing is). One that nobody knows is the weakest."""
    if wanted not in ISOLATIONS:
        return False
    return isolation not in ISOLATIONS or ISOLATIONS.index(isolation) < ISOLATIONS.index(wanted)


def label_text(label: tuple[str, str]) -> str:
    """A label as people write it."""
    return f"{label[0]}={label[1]}"
