"""Whether a dispatcher claims, holds back or goes on asking, by what the witnesses said until now."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

from colla.kernel.config import Config
from colla.kernel.durable import Durable
from colla.kernel.effects import Persist
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.ids import NodeId, ServiceId
from colla.model.location import NO_BALLOT, Ballot
from colla.protocol.election.candidacy import Candidacies
from colla.protocol.election.echoes import Echoes
from colla.protocol.election.messages import MasterAnswer
from colla.protocol.election.rule import Vacancy, VacancyKind
from colla.protocol.supervision.messages import Capacity, InventoryAnswer, InventoryEntry
from colla.protocol.supervision.survey import Surveys

SERVICE = ServiceId(b"s" * 16)
ME, MASTER, EXECUTOR = (NodeId(letter * 32) for letter in (b"a", b"m", b"e"))
OLD = NO_BALLOT.next(0, MASTER)
CAPACITY = Capacity(1.0, 0.0, 1, 0, 1, 0, 1)


class Rule:
    """It is this node's turn at once, and it does not contend."""

    def claim_at_s(self, service: ServiceId, vacancy: Vacancy, now_s: float) -> float:
        return now_s

    def wait_s(self) -> float | None:
        return None


class Book:
    """This node has just come: it has heard of no master."""

    def to_confirm(self, service: ServiceId, now: Instant) -> None:
        return None

    def vacancy(self, service: ServiceId, now: Instant) -> Vacancy:
        return Vacancy(VacancyKind.UNKNOWN, 0.0, NodeId(b""), False)

    def known(self, service: ServiceId) -> None:
        return None

    def hearsay(self, service: ServiceId, ballot: Ballot, now: Instant) -> bool:
        return False

    def vouched(self, service: ServiceId, now: Instant) -> None:
        """Nothing depends on it here."""

    def ballot(self, service: ServiceId) -> Ballot:
        return NO_BALLOT


class Candidate:
    """One dispatcher that holds the service to be without a master; an executor that obeyed it says it heard it."""

    def __init__(self, *, dispatchers: tuple[NodeId, ...]) -> None:
        config, presence = Config(), SimpleNamespace(echoed_s=lambda node, now_s: None)
        setting: Any = SimpleNamespace(
            me=ME,
            config=config,
            rng=Random(1),
            outbox=Outbox(1),
            durable=Durable(),
            presence=presence,
            dispatchers=lambda: (ME, *dispatchers),
            executors=lambda: (EXECUTOR,),
        )
        self.outbox: Outbox = setting.outbox
        echoes = Echoes(setting)
        self.surveys = Surveys(setting, echoes, Echoes(setting))
        book: Any = Book()
        self.candidacies = Candidacies(setting, Rule(), book, self.surveys, echoes)  # type: ignore[arg-type]
        self.witness_s = config.election.witness_s
        self.at(0.0)
        entry = InventoryEntry(SERVICE, OLD, 0.0, True)
        self.surveys.inventory_answered(EXECUTOR, InventoryAnswer((entry,), CAPACITY, True, 1, 0))

    def at(self, seconds: float) -> bool:
        """Look at the service then. Returns whether it is claimed now."""
        self.candidacies.review(SERVICE, Instant(seconds, seconds))
        return any(isinstance(effect, Persist) for effect in self.outbox.drain())


def test_the_master_is_waited_for_when_only_executors_vouch_for_it_and_its_denial_counts() -> None:
    candidate = Candidate(dispatchers=(MASTER,))
    assert not candidate.at(0.01)
    candidate.surveys.witness_answered(MASTER, MasterAnswer(SERVICE, OLD, -1.0, 1, 0))
    assert candidate.at(0.02), "it stepped down: the executors heard its node, not a master"


def test_a_master_that_confirms_itself_is_not_deposed() -> None:
    candidate = Candidate(dispatchers=(MASTER,))
    candidate.surveys.witness_answered(MASTER, MasterAnswer(SERVICE, OLD, 0.0, 1, 0))
    assert not candidate.at(0.02)
    assert not candidate.at(candidate.witness_s + 0.1)


def test_a_master_that_does_not_answer_is_vouched_for_once_the_time_for_answers_is_over() -> None:
    candidate = Candidate(dispatchers=(MASTER,))
    assert not candidate.at(candidate.witness_s + 0.01)
    candidate.surveys.witness_answered(MASTER, MasterAnswer(SERVICE, OLD, -1.0, 1, 0))
    assert not candidate.at(candidate.witness_s + 0.02), "it holds back for a while then"


def test_the_word_of_executors_counts_at_once_where_the_master_cannot_be_asked() -> None:
    candidate = Candidate(dispatchers=())
    assert not candidate.at(0.01)
    assert candidate.surveys.of(SERVICE) is None, "it holds back"
