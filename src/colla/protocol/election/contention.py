"""The contention election: chosen at random at activation; afterwards whoever draws the shortest wait.

Who tries, by vacancy:

    activated  -> the drawn dispatcher at once; the others after the orphan wait
    unknown    -> after the orphan wait
    silent     -> (secondaries only see this) once the master was not heard for heard_master_s
    gone       -> secondaries at once, others after the orphan wait
    released   -> secondaries at once, others after the orphan wait

and then, by `Negotiation`: transitions of one negotiation:

    -           begin                        -> contending  every contender is told the drawn wait
    contending  a larger (wait, id) heard    -> contending  the other is told mine, with the echo that makes it count
    contending  a smaller (wait, id) heard   -> -           held back until the winner had time to claim
    contending  the wait is over             -> -           may claim

The random choice at activation is drawn from the activation's record, which is random and known to all: they agree on
it without a message that could be lost, and also when the activating node carries no dispatcher. Source: the paper's
pseudo-CSMA/CD. Only a smaller (wait, id) silences: when any message did, most modelled rounds elected nobody.
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from colla.kernel.time import Instant
from colla.model.ids import NodeId, ServiceId
from colla.model.record import TOPIC_CATALOGUE, Key
from colla.protocol.catalogue.bodies import KIND_WANTED
from colla.protocol.election.echoes import Echoes
from colla.protocol.election.messages import Contention
from colla.protocol.election.rule import Vacancy, VacancyKind
from colla.protocol.election.setting import Setting
from colla.protocol.rendezvous import nearest


class ContentionElection:
    """See the module's docstring."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._config = setting.config.election

    def drawn(self, service: ServiceId) -> NodeId:
        """The dispatcher that this activation's record chooses among the present ones."""
        record = self._setting.records.winner(TOPIC_CATALOGUE, Key(KIND_WANTED, service))
        draw = service + (record.digest if record is not None else b"")
        dispatchers = self._setting.dispatchers()
        return nearest(draw, dispatchers)[0] if dispatchers else self._setting.me

    def claim_at_s(self, service: ServiceId, vacancy: Vacancy, now_s: float) -> float:
        orphan_s = vacancy.since_s + self._config.contention_orphan_wait_s
        kind = vacancy.kind
        match kind:
            case VacancyKind.ACTIVATED:
                return vacancy.since_s if self.drawn(service) == self._setting.me else orphan_s
            case VacancyKind.UNKNOWN:
                return orphan_s
            case VacancyKind.SILENT:
                return vacancy.since_s + self._config.heard_master_s
            case VacancyKind.GONE | VacancyKind.RELEASED:
                return vacancy.since_s if vacancy.secondary else orphan_s
            case _:
                assert_never(kind)

    def wait_s(self) -> float | None:
        return self._setting.rng.uniform(0.0, self._config.contention_wait_max_s)

    def secondaries(self, service: ServiceId, kept: tuple[NodeId, ...], now_s: float) -> tuple[NodeId, ...]:
        present = [node for node in self._setting.dispatchers() if node != self._setting.me]
        chosen = [node for node in kept if node in present][: self._config.secondaries]
        others = [node for node in present if node not in chosen]
        missing = min(self._config.secondaries - len(chosen), len(others))
        return tuple(chosen + self._setting.rng.sample(others, missing))

    def heir(self, service: ServiceId, now_s: float) -> NodeId | None:
        return None


class Contending(msgspec.Struct):
    """This dispatcher's part in one negotiation."""

    wait_s: float
    until_s: float
    others: tuple[NodeId, ...]
    answered: dict[NodeId, int]


class Negotiation:
    """All negotiations in which this dispatcher takes part, one per service at most."""

    def __init__(self, setting: Setting, echoes: Echoes) -> None:
        self._setting = setting
        self._config = setting.config.election
        self._echoes = echoes
        self._open: dict[ServiceId, Contending] = {}

    def begin(self, service: ServiceId, wait_s: float, others: tuple[NodeId, ...], now: Instant) -> float:
        """Tell the others the drawn wait. Returns when it is over (boot clock)."""
        contending = Contending(wait_s, now.boot_s + wait_s, others, {})
        self._open[service] = contending
        for node in others:
            self._tell(service, contending, node, now)
        return contending.until_s

    def end(self, service: ServiceId) -> None:
        """The negotiation is over for this dispatcher."""
        self._open.pop(service, None)

    def heard(self, peer: NodeId, message: Contention, now: Instant) -> float | None:
        """Another contends. Returns until when (boot clock) this dispatcher is silenced, or None."""
        mine = self._open.get(message.service)
        hold_until_s = now.boot_s + min(message.wait_s, self._config.contention_wait_max_s)
        hold_until_s += self._config.contention_hold_s
        counts = self._echoes.hears_me(peer, now)
        if mine is None:
            return hold_until_s if counts else None
        smaller = (message.wait_s, peer) < (mine.wait_s, self._setting.me)
        if smaller and counts:
            self.end(message.service)
            return hold_until_s
        # Without an echo of mine the other's word does not count, and mine may not count there: tell it once more.
        if mine.answered.get(peer) != message.nonce:
            mine.answered[peer] = message.nonce
            self._tell(message.service, mine, peer, now)
        return None

    def _tell(self, service: ServiceId, contending: Contending, peer: NodeId, now: Instant) -> None:
        nonce, echo = self._echoes.nonce(now), self._echoes.echo(peer)
        self._setting.outbox.send(peer, Contention(service, contending.wait_s, nonce, echo))
