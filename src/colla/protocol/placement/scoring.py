"""Where the next replica should go: a pure judgement of every executor, with its reasons.

A candidate that cannot run the service is *unfit*, with the first hard constraint it violates. Among the fit ones the
replicas spread first over members, then over sites; then whoever holds the object, is less loaded and is present longer
scores higher. `choose` takes one at random among the best three of those that spread equally well, so that masters
which decide at the same moment do not all choose the same executor.

Owners enforce their contribution themselves (`protocol/running`); what is judged here is what they announced.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import msgspec

from colla.model.contribution import Contribution
from colla.model.ids import MemberId, NodeId
from colla.model.service import Specification
from colla.model.willing import refuses
from colla.protocol.supervision.messages import Capacity

SITE_LABEL = "site"
SPREAD_MEMBER = 4.0
SPREAD_SITE = 2.0
HOLDS_OBJECT = 1.0
FREE = 1.0
PRESENCE = 0.5
LONG_PRESENCE_S = 3600.0
EPSILON = 1e-9


class Candidate(msgspec.Struct, frozen=True):
    """One present executor as the master knows it. `capacity` is None until the executor reported any."""

    node: NodeId
    member: MemberId
    contribution: Contribution
    environments: tuple[str, ...]
    capacity: Capacity | None
    holds: bool
    present_s: float


class Verdict(msgspec.Struct, frozen=True):
    """What placement thinks of one executor. `reason` is for people; `spread` counts replicas (member, site)."""

    node: NodeId
    fit: bool
    score: float
    reason: str
    spread: tuple[int, int] = (0, 0)


def unfit_reason(candidate: Candidate, specification: Specification, owner_name: str) -> str:
    """The hard constraint that the executor violates, as a sentence's end for people; empty when it is fit.

    `owner_name` is how people call the service's owner: contributions may list members by name or by id.
    """
    gives, limits = candidate.contribution, specification.limits
    labels = [f"{key}={value}" for key, value in specification.labels if gives.label(key) != value]
    capacity = candidate.capacity
    if gives.paused:
        return "its owner paused it"
    if gives.draining:
        return "it is draining"
    if specification.environment not in gives.environments:
        return f"its owner does not give the environment {specification.environment}"
    if specification.environment not in candidate.environments:
        return f"the environment {specification.environment} is not attached there"
    if labels:
        return f"it lacks the label {labels[0]}"
    refused = refuses(gives, candidate.member, specification, owner_name, None)
    if refused is not None:
        return refused.reason
    if capacity is None:
        return "" if gives.cpus > 0 else "it gives no CPU"
    if capacity.replicas >= capacity.replicas_max:
        return f"it runs {capacity.replicas} replicas and its owner allows no more"
    if capacity.cpus_reserved + limits.cpus > capacity.cpus + EPSILON:
        return f"too little CPU is free ({capacity.cpus - capacity.cpus_reserved:.2f} cores)"
    if capacity.memory_reserved_bytes + limits.memory_bytes > capacity.memory_bytes:
        free_mib = (capacity.memory_bytes - capacity.memory_reserved_bytes) // 2**20
        return f"too little memory is free ({free_mib} MiB)"
    if not candidate.holds and specification.object_bytes > capacity.disk_free_bytes:
        return "too little disk is free"
    return ""


def judge(
    candidates: Sequence[Candidate],
    specification: Specification,
    owner_name: str,
    placed: Sequence[Candidate],
) -> list[Verdict]:
    """A verdict for every candidate, the best first. `placed` are the executors that keep a replica of the service."""
    verdicts = []
    for candidate in candidates:
        reason = unfit_reason(candidate, specification, owner_name)
        if reason:
            verdicts.append(Verdict(candidate.node, False, 0.0, reason))
            continue
        verdicts.append(_judge_fit(candidate, placed))
    return sorted(verdicts, key=lambda v: (not v.fit, v.spread, -v.score, v.node))


def _judge_fit(candidate: Candidate, placed: Sequence[Candidate]) -> Verdict:
    site = candidate.contribution.label(SITE_LABEL)
    same_member = sum(1 for other in placed if other.member == candidate.member)
    same_site = sum(1 for other in placed if site and other.contribution.label(SITE_LABEL) == site)
    load = candidate.capacity.load if candidate.capacity is not None else 0.5
    long = min(1.0, candidate.present_s / LONG_PRESENCE_S)
    score = HOLDS_OBJECT * candidate.holds + FREE * (1.0 - load) + PRESENCE * long
    score -= SPREAD_MEMBER * same_member + SPREAD_SITE * same_site
    parts = [
        f"{same_member} more of this member" if same_member else "no other of this member",
        f"{same_site} more at this site" if same_site else "",
        "holds the object" if candidate.holds else "has to fetch the object",
        f"{100 * load:.0f} % reserved",
    ]
    reason = ", ".join(part for part in parts if part)
    return Verdict(candidate.node, True, round(score, 3), reason, (same_member, same_site))


def choose(verdicts: Sequence[Verdict], rng: Random, best_choices: int) -> Verdict | None:
    """One of the best `best_choices` fit ones that spread as well as the very best; None when nobody is fit."""
    fit = [verdict for verdict in verdicts if verdict.fit]
    if not fit:
        return None
    equal = [verdict for verdict in fit if verdict.spread == fit[0].spread]
    return rng.choice(equal[:best_choices])
