"""What the owner of this computer lets run: the last word on every offer, and on every replica that runs already.

Pure. Each refusal has a stable code and a sentence for people; `retry_s` says when it makes sense to ask again.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from colla.model.contribution import AgentKind, Contribution
from colla.model.ids import MemberId
from colla.model.service import Specification
from colla.model.willing import refuses
from colla.protocol.supervision.messages import Capacity

EPSILON = 1e-9
SOON_S = 1.0
LATER_S = 10.0
MIB = 2**20


class Unwilling(msgspec.Struct, frozen=True):
    """Why not."""

    code: str
    reason: str
    retry_s: float = LATER_S


class Owner(msgspec.Struct, frozen=True):
    """What the owner decided, who the owner is, and how each attached environment isolates what it runs."""

    contribution: Contribution
    environments: tuple[str, ...]
    member: MemberId | None
    isolation: tuple[tuple[str, str], ...] = ()


def refuses_service(owner: Owner, specification: Specification, owner_name: str) -> Unwilling | None:
    """Whether the owner does not let this service run here at all, now. Running replicas of it stop at once."""
    gives = owner.contribution
    if gives.paused:
        return Unwilling("paused", "the owner paused this computer")
    if not gives.carries(AgentKind.EXECUTOR):
        return Unwilling("no_executor", "the owner runs no replicas on this computer")
    if specification.environment not in gives.environments:
        return Unwilling(
            "environment_not_given", f"the owner does not give the environment {specification.environment}"
        )
    # What is attached and does not say how it isolates counts as the weakest; what is not attached is not judged here.
    attached = specification.environment in owner.environments
    isolation = dict(owner.isolation).get(specification.environment, "" if attached else None)
    refused = refuses(gives, owner.member, specification, owner_name, isolation)
    return Unwilling(refused.code, refused.reason) if refused is not None else None


def refuses_one_more(
    owner: Owner, specification: Specification, owner_name: str, capacity: Capacity, holds: bool
) -> Unwilling | None:
    """Whether to refuse a further replica: as above, and what is reserved, drained or not attached now."""
    never = refuses_service(owner, specification, owner_name)
    if never is not None:
        return never
    limits = specification.limits
    if owner.contribution.draining:
        return Unwilling("draining", "this computer is draining")
    if specification.environment not in owner.environments:
        return Unwilling(
            "environment_missing", f"the environment {specification.environment} is not attached"
        )
    if capacity.replicas >= capacity.replicas_max:
        return Unwilling("replicas_max", f"the owner allows {capacity.replicas_max} replicas, all are taken")
    if capacity.cpus_reserved + limits.cpus > capacity.cpus + EPSILON:
        free = capacity.cpus - capacity.cpus_reserved
        return Unwilling("no_cpu", f"{limits.cpus:g} cores are wanted, {max(0.0, free):g} are free")
    if capacity.memory_reserved_bytes + limits.memory_bytes > capacity.memory_bytes:
        free_mib = max(0, capacity.memory_bytes - capacity.memory_reserved_bytes) // MIB
        wanted_mib = limits.memory_bytes // MIB
        return Unwilling("no_memory", f"{wanted_mib} MiB of memory are wanted, {free_mib} MiB are free")
    if not holds and specification.object_bytes > capacity.disk_free_bytes:
        return Unwilling("no_disk", "too little of the disk that the owner gives is free for the object")
    return None


def over_limit(owner: Owner, running: Sequence[Specification]) -> list[int]:
    """Which replicas (places in `running`, oldest first) exceed what the owner gives now: the newest go first."""
    gives = owner.contribution
    cpus, memory_bytes, kept = 0.0, 0, 0
    excess = []
    for place, specification in enumerate(running):
        limits = specification.limits
        fits = (
            kept < gives.replicas_max
            and cpus + limits.cpus <= gives.cpus + EPSILON
            and memory_bytes + limits.memory_bytes <= gives.memory_bytes
        )
        if fits:
            kept += 1
            cpus += limits.cpus
            memory_bytes += limits.memory_bytes
        else:
            excess.append(place)
    return excess
