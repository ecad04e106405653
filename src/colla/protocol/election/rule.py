"""The small interface behind which both elections stand, and what they share: vacancies and settled dispatchers.

An election only decides *who should try, and when*. That a claim is safe is the business of ballots, witnesses and
executors (`candidacy`, `running`): two dispatchers that both try do no harm but cost messages.
"""

from __future__ import annotations

import enum
from typing import Protocol

import msgspec

from colla.kernel.config import ElectionConfig
from colla.model.ids import NodeId, ServiceId
from colla.protocol.views import PresenceEntry, PresencePhase


class VacancyKind(enum.StrEnum):
    """Why a dispatcher holds that an active service has no master."""

    ACTIVATED = "activated"
    """It was activated just now; nobody ever mastered this activation."""
    UNKNOWN = "unknown"
    """This dispatcher has heard of none (it just started, or lost track)."""
    SILENT = "silent"
    """Its master has not been heard, or has not claimed it, for a while."""
    GONE = "gone"
    """Its master is absent, or carries no dispatcher any more."""
    RELEASED = "released"
    """Its master left, restarted, or said that it masters the service no more."""


class Vacancy(msgspec.Struct, frozen=True):
    """An active service without a master. `since_s` (boot clock): when it was last heard, or the lack was seen.

    `master` is who had it (b"" for nobody), `secondary` whether this node is among the master's secondaries.
    """

    kind: VacancyKind
    since_s: float
    master: NodeId
    secondary: bool


class ElectionRule(Protocol):
    """One of the two elections."""

    def claim_at_s(self, service: ServiceId, vacancy: Vacancy, now_s: float) -> float:
        """From when on (boot clock) this dispatcher should try to become master."""

    def wait_s(self) -> float | None:
        """How long to contend before claiming; None: this election does not contend."""

    def secondaries(self, service: ServiceId, kept: tuple[NodeId, ...], now_s: float) -> tuple[NodeId, ...]:
        """Whom this node, as the service's master, makes secondaries; `kept` are those it has."""

    def heir(self, service: ServiceId, now_s: float) -> NodeId | None:
        """The settled dispatcher that this node, as a settled group's master, should hand the service over to."""


def present_for_s(entry: PresenceEntry, now_s: float) -> float:
    """How long the node has been present without doubt; 0 when it is not."""
    return now_s - entry.since_s if entry.phase is PresencePhase.PRESENT else 0.0


def is_settled(entry: PresenceEntry | None, config: ElectionConfig, now_s: float) -> bool:
    """Present for `settled_s`, doubled per absence within the last hour: a flapping laptop does not rule."""
    if entry is None:
        return False
    recent = sum(1 for at_s in entry.absences if now_s - at_s < config.absences_within_s)
    needed_s = config.settled_s
    for _ in range(recent):
        needed_s = min(2 * needed_s, config.settled_max_s)
    return present_for_s(entry, now_s) >= needed_s
