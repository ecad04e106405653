"""What a master should do about one service now: start so many, stop these. Pure; the supervisor carries it out.

Replicas that a master knows are, in this order of judgement,

    ordered   told to stop already; they count for nothing
    outgoing  of an old version, on a draining node, or ill for too long: they serve until they are replaced
    doubtful  their node has not been heard for `spare_after_s`: neither healthy nor gone
    staying   everything else: starting, or ready

Rules (DESIGN section 7): a gone replica is replaced at once. A doubtful one may get one spare per service. An outgoing
one is replaced before it stops; of an old version one at a time; where no other executor is free, one stops first, and
at least one keeps serving where two or more are wanted, unless no more than one could be had for long. A surplus is trimmed when it was stable for long, only with
executors that acknowledged this ballot, never counting doubtful ones as healthy.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from colla.model.ids import NodeId


class Judged(msgspec.Struct, frozen=True):
    """One replica as the master sees it. `acknowledged`: its executor obeys the master's present ballot.

    `serving`: it answers requests as far as is known. `rank`: where placement would have it (the last go first).
    """

    node: NodeId
    ready: bool
    serving: bool
    acknowledged: bool
    doubtful: bool = False
    ordered: bool = False
    old: bool = False
    leaving: bool = False
    ill: bool = False
    rank: int = 0

    @property
    def outgoing(self) -> bool:
        return self.old or self.leaving or self.ill


class Situation(msgspec.Struct, frozen=True):
    """All that the decision depends on. `free`: some executor could take one more replica now; `hopeful`: one could
    soon, which failed or did not answer just now. `short_for_long`: the number was not reached for so long that no more
    executors are to be expected.
    """

    wanted: int
    replicas: tuple[Judged, ...]
    offers: int
    free: bool
    may_spare: bool
    trim_now: bool
    hopeful: bool = False
    short_for_long: bool = False


class Decision(msgspec.Struct, frozen=True):
    """`starts` replicas that are missing or to be replaced, `spares` for doubtful ones, nodes where to stop now.

    `surplus`: more healthy ones than wanted, whether or not they may be trimmed yet; `missing`: below the number.
    """

    starts: int = 0
    spares: int = 0
    stops: tuple[NodeId, ...] = ()
    trims: tuple[NodeId, ...] = ()
    surplus: int = 0
    missing: int = 0


def decide(situation: Situation) -> Decision:
    """See the module's docstring."""
    alive = [item for item in situation.replicas if not item.ordered]
    outgoing = [item for item in alive if item.outgoing]
    staying = [item for item in alive if not item.outgoing]
    sound = [item for item in staying if not item.doubtful]
    doubtful = len(staying) - len(sound)
    healthy = [item for item in sound if item.ready and item.acknowledged]
    filling = [item for item in outgoing if item.serving and not item.doubtful]
    wanted, coming = situation.wanted, len(sound) + situation.offers

    absent = max(0, wanted - coming - doubtful - len(filling))
    replacements = _replacements(situation, outgoing, sound, wanted - coming - doubtful - absent, absent)
    spares = 0
    uncertain = wanted - coming - len(filling) - absent
    if doubtful and situation.may_spare and uncertain > 0 and coming + doubtful <= wanted:
        spares = 1

    surplus = max(0, len(healthy) - wanted)
    stops = _outgoing_stops(situation, outgoing, healthy, filling, absent + replacements)
    trims: tuple[NodeId, ...] = ()
    if surplus and situation.trim_now:
        worst_first = sorted(healthy, key=lambda item: (-item.rank, item.node))
        trims = tuple(item.node for item in worst_first[:surplus])
    return Decision(
        starts=absent + replacements,
        spares=spares,
        stops=stops,
        trims=trims,
        surplus=surplus,
        missing=max(0, wanted - len(healthy) - len(filling)),
    )


def _replacements(
    situation: Situation, outgoing: Sequence[Judged], sound: Sequence[Judged], room: int, absent: int
) -> int:
    """How many successors of outgoing replicas to start now: all for draining nodes, else one at a time."""
    if room <= 0 or not outgoing:
        return 0
    leaving = min(room, sum(1 for item in outgoing if item.leaving))
    # More new ones than stopped old ones: the next old one stops first.
    overlap = len(sound) + len(outgoing) > situation.wanted
    stopping = overlap or any(item.ordered for item in situation.replicas)
    under_way = absent > 0 or situation.offers > 0 or stopping or any(not item.ready for item in sound)
    others = 1 if room > leaving and not under_way else 0
    return leaving + others


def _outgoing_stops(
    situation: Situation,
    outgoing: Sequence[Judged],
    healthy: Sequence[Judged],
    filling: Sequence[Judged],
    starting: int,
) -> tuple[NodeId, ...]:
    """Which outgoing replicas to stop now, those that serve nobody first, then draining ones, then old ones."""
    # Whoever has not acknowledged this ballot may follow another master, and an order to a doubtful node is lost.
    stoppable = [item for item in outgoing if item.acknowledged and not item.doubtful]
    stoppable.sort(key=lambda item: (item.serving, not item.ill, not item.leaving, item.rank, item.node))
    excess = len(healthy) + len(filling) - situation.wanted
    chosen: list[NodeId] = []
    for item in stoppable:
        if not item.serving:
            replaced = len(healthy) + situation.offers >= situation.wanted or not situation.free
            if replaced:
                chosen.append(item.node)
        elif excess > 0:
            excess -= 1
            chosen.append(item.node)
    if chosen or not starting or situation.free or situation.hopeful or situation.offers:
        return tuple(chosen)
    # No executor will be free: one has to stop first, where it can start again. A draining node could not take it back.
    stopping = any(item.ordered for item in situation.replicas)
    unready = any(not item.outgoing and not item.ready for item in situation.replicas if not item.ordered)
    serving = len(healthy) + len(filling)
    least = 0 if situation.short_for_long else min(1, situation.wanted - 1)
    if stopping or unready or serving - 1 < least:
        return ()
    for item in stoppable:
        if item.serving and not item.leaving:
            return (item.node,)
    return ()
