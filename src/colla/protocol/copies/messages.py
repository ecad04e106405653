"""How nodes ask repository agents to hold copies of objects, and what they hold."""

from __future__ import annotations

from colla.kernel.messages import Message, Timer
from colla.model.ids import NodeId, ObjectId


class KeepCopy(Message, frozen=True, tag="keep?"):
    """Hold a copy of this object; `holders` have it. Answered by `CopyAnswer` with the same nonce once the copy
    is durable, or refused.
    """

    object: ObjectId
    size_bytes: int
    holders: tuple[NodeId, ...]
    nonce: int


class CopyAnswer(Message, frozen=True, tag="keep!"):
    """The copy is durable (`kept`), or why it is not."""

    object: ObjectId
    nonce: int
    kept: bool
    reason: str = ""


class CopyProgress(Message, frozen=True, tag="keep.."):
    """The copy is on its way here (`done_bytes` of it, as far as is known): whoever asked need not give this node up."""

    object: ObjectId
    nonce: int
    done_bytes: int = 0


class CopyQuery(Message, frozen=True, tag="held?"):
    """Which of these objects do you hold?"""

    objects: tuple[ObjectId, ...]
    nonce: int


class CopiesHeld(Message, frozen=True, tag="held!"):
    """Those that the answering node holds."""

    objects: tuple[ObjectId, ...]
    nonce: int


class KeepingDue(Timer, frozen=True):
    """Tell those who asked for copies that these are still on their way."""


class PlacingDue(Timer, frozen=True):
    """A placing has waited long enough for the nodes asked in this round, unless they were heard since."""

    nonce: int
    round: int


class CopyCheckDue(Timer, frozen=True):
    """Look after the copies; stale when `epoch` is not the newest."""

    epoch: int


class CopyCountDue(Timer, frozen=True):
    """Conclude the count of copies that `nonce` began."""

    nonce: int
