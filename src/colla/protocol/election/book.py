"""Who masters what, as one dispatcher knows it: soft knowledge, and whether it still holds.

For every active service: the highest ballot known, when its master last claimed it, and, as a secondary, what the
master knows. Out of it follow the `Vacancy` of a service and the witness's answer "I heard its master so long ago".

Invariants: the known ballot of a service never decreases; a claim refreshes only if its master hears this node
(`Echoes`), hearsay never refreshes. A node that is heard by heartbeats but restarted, carries no dispatcher any more
or has not claimed for `claim_stale_s` is no master.
"""

from __future__ import annotations

from math import inf

import msgspec

from colla.kernel.time import Instant
from colla.model.ids import NodeId, ServiceId
from colla.model.location import NO_BALLOT, Ballot
from colla.protocol.election.echoes import Echoes
from colla.protocol.election.messages import MasterKnowledge
from colla.protocol.election.rule import Vacancy, VacancyKind
from colla.protocol.election.setting import Setting
from colla.protocol.views import PresencePhase

NOBODY = NodeId(b"")
DOUBTED_AFTER = 1.5
"""Times `hearsay_s`, after which the master is asked to confirm: the answer comes well before that."""
EARLY_MAX = 512
"""Claims of services that this node's catalogue does not show active yet, at most so many."""


class Known(msgspec.Struct):
    """One service's master. `claimed_s`: when a claim of it last counted; `start`: its node's start number then."""

    ballot: Ballot
    claimed_s: float = -inf
    start: int = 0
    knowledge: MasterKnowledge | None = None
    released_s: float | None = None
    gone_s: float | None = None
    learned_s: float = inf
    """When a third party said so; what its own node never confirms does not count for long."""
    asked: bool = False
    """Whether its node was asked to confirm that."""


class Watch(msgspec.Struct):
    """An active service. `activated` tells that it was seen to become active, at `since_s`."""

    since_s: float
    activated: bool
    known: Known | None = None
    floor: Ballot = NO_BALLOT


class MasterBook:
    """See the module's docstring. The dispatcher keeps this node's own masterships elsewhere."""

    def __init__(self, setting: Setting, echoes: Echoes) -> None:
        self._setting = setting
        self._config = setting.config.election
        self._echoes = echoes
        self._watches: dict[ServiceId, Watch] = {}
        self._early: dict[ServiceId, tuple[Ballot, float]] = {}

    # -- which services ----------------------------------------------------------------------------------------

    def watch(self, service: ServiceId, now: Instant, *, activated: bool, listen_s: float = 0.0) -> None:
        """The service is active. `listen_s`: how long not to count the lack of a master yet."""
        if service in self._watches or len(self._watches) >= self._setting.config.supervision.services_max:
            return
        self._watches[service] = Watch(now.boot_s + listen_s, activated)
        ballot, at_s = self._early.pop(service, (NO_BALLOT, -inf))
        if now.boot_s - at_s <= self._config.claim_stale_s:
            self.claimed(service, ballot, now)

    def forget(self, service: ServiceId) -> None:
        """The service is inactive or eliminated."""
        self._watches.pop(service, None)

    def watched(self) -> list[ServiceId]:
        """All active services, sorted."""
        return sorted(self._watches)

    def is_watched(self, service: ServiceId) -> bool:
        return service in self._watches

    # -- what is heard -----------------------------------------------------------------------------------------

    def known(self, service: ServiceId) -> Known | None:
        watch = self._watches.get(service)
        return watch.known if watch is not None else None

    def ballot(self, service: ServiceId) -> Ballot:
        """The highest ballot known of this activation, or `NO_BALLOT`."""
        watch = self._watches.get(service)
        return watch.floor if watch is not None else NO_BALLOT

    def raise_floor(self, service: ServiceId, ballot: Ballot) -> None:
        """Somebody claimed, or obeyed, this ballot."""
        watch = self._watches.get(service)
        if watch is not None and ballot > watch.floor:
            watch.floor = ballot

    def hearsay(self, service: ServiceId, ballot: Ballot, now: Instant) -> bool:
        """A third party says so. Returns whether it was news."""
        watch = self._watches.get(service)
        if watch is None or ballot < watch.floor or ballot == NO_BALLOT:
            return False
        if watch.known is not None and ballot == watch.known.ballot:
            return False
        watch.floor = ballot
        watch.known = Known(ballot, learned_s=now.boot_s)
        return True

    def vouched(self, service: ServiceId, now: Instant) -> None:
        """A witness has heard the master that is known by hearsay: believe in it for a while longer."""
        known = self.known(service)
        if known is not None and known.claimed_s == -inf:
            known.learned_s, known.asked = now.boot_s, False

    def to_confirm(self, service: ServiceId, now: Instant) -> NodeId:
        """The node of whom only others have said for a while that it masters the service; asked for once, else b""."""
        known = self.known(service)
        if known is None or known.asked or now.boot_s < known.learned_s + self._config.hearsay_s:
            return NOBODY
        known.asked = True
        return known.ballot.node if known.claimed_s == -inf else NOBODY

    def claimed(self, service: ServiceId, ballot: Ballot, now: Instant) -> bool:
        """The ballot's own node, which hears this one, claims it. Returns whether nothing higher is known."""
        watch = self._watches.get(service)
        if watch is None:
            self._claimed_early(service, ballot, now)
            return True
        if ballot < watch.floor:
            return False
        known = watch.known
        if known is None or known.ballot != ballot:
            known = watch.known = Known(ballot)
        watch.floor = ballot
        known.claimed_s = now.boot_s
        known.start = self._start_of(ballot.node)
        known.released_s = known.gone_s = None
        return True

    def learn(self, message: MasterKnowledge, now: Instant) -> bool:
        """The master tells what it knows. Returns whether nothing higher is known."""
        if not self.claimed(message.service, message.ballot, now):
            return False
        known = self.known(message.service)
        if known is not None:
            known.knowledge = message
        return True

    def released(self, service: ServiceId, now: Instant) -> None:
        """Its master claims it no more."""
        known = self.known(service)
        if known is not None and known.released_s is None:
            known.released_s = now.boot_s

    def stale(self, now: Instant, listen_s: float) -> None:
        """This node slept: it knows nothing of masters any more, but keeps the floors."""
        for watch in self._watches.values():
            watch.known = None
            watch.activated = False
            watch.since_s = now.boot_s + listen_s

    # -- what follows ------------------------------------------------------------------------------------------

    def is_secondary(self, service: ServiceId) -> bool:
        known = self.known(service)
        knowledge = known.knowledge if known is not None else None
        return knowledge is not None and self._setting.me in knowledge.secondaries

    def told_revision(self, service: ServiceId) -> int | None:
        """Which revision of its knowledge the master has told this node last, if any."""
        known = self.known(service)
        return known.knowledge.revision if known is not None and known.knowledge is not None else None

    def master(self, service: ServiceId, now: Instant) -> NodeId:
        """The node believed to master the service, or b""."""
        known = self.known(service)
        if known is None or self.vacancy(service, now) is not None:
            return NOBODY
        return known.ballot.node

    def silence_s(self, service: ServiceId, now: Instant) -> float:
        """For how long nothing that counts was heard of the service's master (infinite: never)."""
        known = self.known(service)
        if known is None or known.released_s is not None or self._restarted(known):
            return inf
        master = known.ballot.node
        claim_age_s = now.boot_s - known.claimed_s
        if claim_age_s > self._config.claim_stale_s:
            return claim_age_s
        heard_s = self._setting.presence.heard_s(master, now.boot_s)
        silence_s = claim_age_s if heard_s is None else min(claim_age_s, heard_s)
        echo_age_s = self._echoes.echoed_s(master, now)
        return max(silence_s, echo_age_s) if echo_age_s > self._config.echo_silence_s else silence_s

    def vacancy(self, service: ServiceId, now: Instant) -> Vacancy | None:
        """Whether the service lacks a master as far as this node (which does not master it) can tell."""
        watch = self._watches.get(service)
        if watch is None:
            return None
        known = watch.known
        if known is None or known.ballot.node == self._setting.me:
            fresh = watch.activated and known is None
            kind = VacancyKind.ACTIVATED if fresh else VacancyKind.UNKNOWN
            return Vacancy(kind, watch.since_s, NOBODY, False)
        master, secondary = known.ballot.node, self.is_secondary(service)
        lost = self._lost(known, now)
        if lost is not None:
            if known.gone_s is None:
                known.gone_s = now.boot_s
            return Vacancy(lost, known.gone_s, master, secondary)
        known.gone_s = None
        if now.boot_s >= self._doubted_at_s(known):
            return Vacancy(VacancyKind.UNKNOWN, self._doubted_at_s(known), master, secondary)
        if secondary:
            silence_s = self.silence_s(service, now)
            if silence_s >= self._config.heard_master_s:
                return Vacancy(VacancyKind.SILENT, now.boot_s - silence_s, master, True)
        return None

    def next_look_s(self, service: ServiceId, now: Instant) -> float:
        """When (boot clock) the service's master could first be found silent, if nothing is heard until then."""
        known = self.known(service)
        if known is not None and known.ballot.node not in self._setting.dispatchers():
            return max(now.boot_s, known.claimed_s + self._config.heard_master_s)
        if known is not None and known.claimed_s == -inf:
            asks_s = known.learned_s + self._config.hearsay_s
            return max(now.boot_s, self._doubted_at_s(known) if known.asked else asks_s)
        if not self.is_secondary(service):
            return inf
        return now.boot_s + max(0.0, self._config.heard_master_s - self.silence_s(service, now))

    def witness_s(self, service: ServiceId, asker: NodeId, now: Instant) -> float:
        """How long ago this node heard the service's master (negative: never). The asker itself does not count."""
        known = self.known(service)
        if known is None or known.ballot.node == asker or self._lost(known, now) is not None:
            return -1.0
        silence_s = self.silence_s(service, now)
        return -1.0 if silence_s == inf else silence_s

    def partners(self) -> list[NodeId]:
        """The masters and fellow secondaries of all services of which this node is a secondary."""
        me, mine = self._setting.me, []
        for service, watch in self._watches.items():
            known = watch.known
            if known is not None and known.knowledge is not None and me in known.knowledge.secondaries:
                mine.append((service, known.ballot, known.knowledge))
        nodes: dict[NodeId, None] = {}
        for _, ballot, knowledge in sorted(mine, key=lambda item: item[0]):
            if knowledge.ballot == ballot:
                nodes[ballot.node] = None
                nodes.update(dict.fromkeys(knowledge.secondaries))
        return list(nodes)

    def to_unknown(self, service: ServiceId, now: Instant) -> None:
        """This node mastered the service and does no longer; it knows of no other master yet."""
        watch = self._watches.get(service)
        if watch is not None:
            watch.activated = False
            watch.since_s = now.boot_s
            if watch.known is not None and watch.known.ballot.node == self._setting.me:
                watch.known = None

    def _claimed_early(self, service: ServiceId, ballot: Ballot, now: Instant) -> None:
        """Mastership travels faster than the catalogue sometimes: whoever learns of the service late must not claim."""
        if ballot < self._early.get(service, (NO_BALLOT, 0.0))[0]:
            return
        self._early.pop(service, None)
        self._early[service] = (ballot, now.boot_s)
        if len(self._early) > EARLY_MAX:
            del self._early[next(iter(self._early))]

    def _doubted_at_s(self, known: Known) -> float:
        """From when on (boot clock) not to believe that somebody masters a service who never said so here."""
        return known.learned_s + DOUBTED_AFTER * self._config.hearsay_s if known.claimed_s == -inf else inf

    def _lost(self, known: Known, now: Instant) -> VacancyKind | None:
        """What can be told without listening: the master's node is gone, restarted, or released the service."""
        entry = self._setting.presence.entry(known.ballot.node)
        if entry is not None and entry.phase is PresencePhase.LEFT:
            return VacancyKind.RELEASED
        if known.ballot.node not in self._setting.dispatchers():
            # Its claim may be faster than the news that its node is here.
            fresh = now.boot_s - known.claimed_s < self._config.heard_master_s
            return None if fresh else VacancyKind.GONE
        if known.released_s is not None or self._restarted(known):
            return VacancyKind.RELEASED
        return None

    def _restarted(self, known: Known) -> bool:
        return known.start != 0 and self._start_of(known.ballot.node) > known.start

    def _start_of(self, node: NodeId) -> int:
        entry = self._setting.presence.entry(node)
        return entry.announcement.start if entry is not None else 0
