"""From a vacancy to a claim: one dispatcher's attempts to become master, one per service at most.

Transitions of one candidacy, `following` while there is none:

    following   vacancy, and the election says it is this node's turn  -> asking      the witnesses
    following   just activated, and this node's turn at once           -> claiming    inventory asked meanwhile
    following   the master hands over to this node                     -> claiming
    asking      a witness heard the master lately                      -> following   held back until it would count
    asking      all answered, or time is over: the election contends   -> contending
    asking      all answered, or time is over: it does not contend     -> claiming    ballot max + 1 is persisted
    asking      the vacancy is over, or another contends               -> following
    contending  a smaller (wait, id) contends                          -> following   held back
    contending  the vacancy is over                                    -> following
    contending  the wait is over                                       -> claiming    ballot max + 1 is persisted
    claiming    Persisted                                              -> following   won: masters the service
    claiming    the vacancy is over, or service inactive               -> following

Invariants: a ballot is claimed only when durable and higher than every ballot known here; it is never reused (a
persisted floor); a just activated service is claimed without witnesses, since nobody could have mastered it.
"""

from __future__ import annotations

from math import inf

import msgspec

from colla.kernel.time import Instant
from colla.model.ids import NodeId, ServiceId
from colla.model.location import Ballot
from colla.protocol.election.book import MasterBook
from colla.protocol.election.contention import Negotiation
from colla.protocol.election.echoes import Echoes
from colla.protocol.election.floors import BallotFloors
from colla.protocol.election.messages import Contention
from colla.protocol.election.rule import ElectionRule, Vacancy, VacancyKind
from colla.protocol.election.setting import Setting
from colla.protocol.rendezvous import nearest, proximity
from colla.protocol.supervision.survey import Survey, Surveys

CLAIMED_PREFIX = "claimed-ballot/"
MARGIN_S = 0.02
"""How much later than strictly needed a witness is asked again."""


class Candidacy(msgspec.Struct):
    """An attempt that has begun. `persist` is the id of the write of `ballot`, 0 before; `contend_until_s` is None
    while witnesses are asked.
    """

    survey: Survey
    kind: VacancyKind
    lost: NodeId
    ask_until_s: float
    secondary: bool = False
    contend_until_s: float | None = None
    ballot: Ballot | None = None
    persist: int = 0


class Won(msgspec.Struct, frozen=True):
    """The ballot is durable: this node masters the service by it."""

    service: ServiceId
    ballot: Ballot
    kind: VacancyKind
    survey: Survey


class Candidacies:
    """See the module's docstring."""

    def __init__(
        self, setting: Setting, rule: ElectionRule, book: MasterBook, surveys: Surveys, echoes: Echoes
    ) -> None:
        self._setting = setting
        self._config = setting.config.election
        self._rule = rule
        self._book = book
        self._surveys = surveys
        self._negotiation = Negotiation(setting, echoes)
        self.floors = BallotFloors(CLAIMED_PREFIX, setting.durable)
        self._open: dict[ServiceId, Candidacy] = {}
        self._hold_until_s: dict[ServiceId, float] = {}
        self.listen_until_s = 0.0
        """A node that just started, or slept, claims nothing before (boot clock)."""

    # -- the machine -------------------------------------------------------------------------------------------

    def review(self, service: ServiceId, now: Instant) -> float:
        """Look at a service that this node does not master. Returns when to look again (boot clock)."""
        candidacy = self._open.get(service)
        if candidacy is not None and candidacy.persist:
            return inf
        doubtful = self._book.to_confirm(service, now)
        if doubtful:
            self._surveys.ask_master(service, doubtful, now)
        vacancy = self._book.vacancy(service, now)
        if vacancy is None:
            self.withdraw(service)
            self._hold_until_s.pop(service, None)
            return self._book.next_look_s(service, now)
        if candidacy is None:
            due_s = self._rule.claim_at_s(service, vacancy, now.boot_s)
            due_s = max(due_s, self._hold_until_s.get(service, -inf), self.listen_until_s)
            if now.boot_s < due_s:
                return due_s
            self._begin(service, vacancy, now)
        return self._progress(service, now)

    def hand_over(self, service: ServiceId, master: NodeId, now: Instant) -> None:
        """The living master hands the service over: claim it, no witness needed."""
        if service not in self._open:
            survey = self._surveys.begin(service, (), NodeId(b""), now)
            candidacy = Candidacy(survey, VacancyKind.RELEASED, master, now.boot_s)
            self._open[service] = candidacy
            self._claim(service, candidacy, now)

    def withdraw(self, service: ServiceId) -> None:
        """There is a master, or no more need of one."""
        self._negotiation.end(service)
        if self._open.pop(service, None) is not None:
            self._surveys.end(service)

    def withdraw_all(self) -> None:
        """All soft knowledge is stale."""
        for service in list(self._open):
            self.withdraw(service)
        self._hold_until_s.clear()

    def forget(self, service: ServiceId) -> None:
        """The service is inactive or eliminated."""
        self.withdraw(service)
        self._hold_until_s.pop(service, None)

    def persisted(self, persist: int) -> Won | None:
        """A write is durable: perhaps that of a ballot."""
        for service, candidacy in self._open.items():
            if candidacy.persist == persist and candidacy.ballot is not None:
                del self._open[service]
                self.floors.persisted(service, candidacy.ballot)
                if self._book.ballot(service) > candidacy.ballot or not self._book.is_watched(service):
                    self._surveys.end(service)
                    return None
                return Won(service, candidacy.ballot, candidacy.kind, candidacy.survey)
        return None

    # -- what comes in -----------------------------------------------------------------------------------------

    def contention(self, peer: NodeId, message: Contention, now: Instant) -> None:
        """Another dispatcher contends for the service."""
        until_s = self._negotiation.heard(peer, message, now)
        candidacy = self._open.get(message.service)
        if until_s is None or not self._book.is_watched(message.service):
            return
        if candidacy is None or not candidacy.persist:
            self.withdraw(message.service)
            self._hold_until_s[message.service] = until_s

    # -- steps -------------------------------------------------------------------------------------------------

    def _begin(self, service: ServiceId, vacancy: Vacancy, now: Instant) -> None:
        at_once = vacancy.kind is VacancyKind.ACTIVATED and now.boot_s - vacancy.since_s < MARGIN_S
        witnesses = () if at_once else self._witnesses(service)
        survey = self._surveys.begin(service, witnesses, vacancy.master, now)
        until_s = now.boot_s + self._config.witness_s
        candidacy = Candidacy(survey, vacancy.kind, vacancy.master, until_s, vacancy.secondary)
        self._open[service] = candidacy
        if at_once:
            self._claim(service, candidacy, now)

    def _witnesses(self, service: ServiceId) -> tuple[NodeId, ...]:
        """Whom to ask besides the executors: the known master and secondaries, else the nearest dispatchers."""
        present = self._setting.dispatchers()
        known = self._book.known(service)
        named: list[NodeId] = []
        if known is not None:
            named.append(known.ballot.node)
        if known is not None and known.knowledge is not None:
            named.extend(known.knowledge.secondaries)
        else:
            named.extend(nearest(service, present)[: self._config.witnesses_max])
        chosen = [node for node in dict.fromkeys(named) if node in present and node != self._setting.me]
        return tuple(chosen[: self._config.witnesses_max])

    def _contenders(self, service: ServiceId, candidacy: Candidacy) -> tuple[NodeId, ...]:
        known = self._book.known(service)
        knowledge = known.knowledge if known is not None else None
        present = self._setting.dispatchers()
        among = knowledge.secondaries if candidacy.secondary and knowledge is not None else present
        without = (self._setting.me, candidacy.lost)
        return tuple(node for node in among if node in present and node not in without)

    def _progress(self, service: ServiceId, now: Instant) -> float:
        candidacy = self._open.get(service)
        if candidacy is None or candidacy.persist:
            return inf
        hold_s = self._heard_by_witness(candidacy, now)
        if hold_s is not None:
            self.withdraw(service)
            self._book.hearsay(service, candidacy.survey.ballot(), now)
            self._book.vouched(service, now)
            self._hold_until_s[service] = now.boot_s + hold_s + MARGIN_S
            return self._hold_until_s[service]
        news = self._book.hearsay(service, candidacy.survey.ballot(), now)
        if news and self._book.vacancy(service, now) is None:
            self.withdraw(service)
            return self._book.next_look_s(service, now)
        if candidacy.contend_until_s is None:
            if candidacy.survey.unanswered() and now.boot_s < candidacy.ask_until_s:
                return candidacy.ask_until_s
            known = self._book.known(service)
            # Who does not know from the master what runs has to hear it from the executors, however far they are.
            candidacy.survey.give_up_silent(executors=known is not None and known.knowledge is not None)
            wait_s = self._rule.wait_s()
            candidacy.contend_until_s = now.boot_s
            if wait_s is not None:
                others = self._contenders(service, candidacy)
                candidacy.contend_until_s = self._negotiation.begin(service, wait_s, others, now)
        if now.boot_s < candidacy.contend_until_s:
            return candidacy.contend_until_s
        self._claim(service, candidacy, now)
        return inf

    def _heard_by_witness(self, candidacy: Candidacy, now: Instant) -> float | None:
        """For how long not to claim, because a witness heard the master; None: nobody did lately."""
        ages, survey = [], candidacy.survey
        for heard_s, ballot in survey.heard():
            asked = ballot.node in survey.unanswered() and ballot.node in survey.dispatchers
            if asked and now.boot_s < candidacy.ask_until_s:
                # What it says of itself will count more.
                continue
            asked_about_me = ballot.node == self._setting.me
            known_lost = candidacy.kind is VacancyKind.RELEASED and ballot.node == candidacy.lost
            if heard_s <= self._config.heard_master_s and not asked_about_me and not known_lost:
                ages.append(heard_s)
        return self._config.heard_master_s - min(ages) if ages else None

    def _claim(self, service: ServiceId, candidacy: Candidacy, now: Instant) -> None:
        self._negotiation.end(service)
        me = self._setting.me
        highest = max(self.floors.pledged(service), self._book.ballot(service), candidacy.survey.ballot())
        candidacy.ballot = highest.next(proximity(service, me), me)
        write = self.floors.raise_to(service, candidacy.ballot)
        if write is None:
            # Only where a lying member used up all terms: nobody masters the service until it is made anew.
            self.withdraw(service)
            return
        candidacy.persist = self._setting.outbox.persist(write)
