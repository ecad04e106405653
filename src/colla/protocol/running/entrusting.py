"""An executor and the keys of the secrets that its replicas need: asking the master for them until they are here.

Transitions of one replica's question:

    -       the replica is here and lacks keys       -> asked   `KeysQuery` to the master whose ballot is obeyed
    asked   `KeysDue`, keys still lack               -> asked   once more, at most until `wait_s`
    asked   `wait_s` over, the replica has not begun -> -       it fails with the reason, and is tried again later
    asked   the master knows no holder who is here   -> -       as if that time were over
    asked   `wait_s` over, the replica runs          -> asked   its successor will need them: asked ever more rarely
    asked   all keys are here, or the replica left   -> -       one that waits for a start slot may start

A replica that runs asks as well when a secret is changed: so the new key is here before the replica is replaced, when
whoever set it may be gone already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from colla.kernel.time import Instant
from colla.model.ids import NodeId, ReplicaId, ServiceId
from colla.model.location import NO_BALLOT, Ballot
from colla.model.secret import SealedSecret
from colla.protocol.election.setting import Setting
from colla.protocol.running.replicas import Own, Stage
from colla.protocol.running.running import Running
from colla.protocol.secrets.keyring import SecretsHere
from colla.protocol.secrets.messages import KeysAnswer, KeysDue, KeysQuery

ATTEMPTS_LEAST = 2
RARELY_S = 30.0
"""A replica that runs, and lacks keys that nobody gave, asks this often."""


class Question(msgspec.Struct):
    """What one replica asked."""

    since_s: float
    attempt: int = 0


class Entrusting:
    """See the module's docstring. `obeyed` gives the ballot that is obeyed for a service."""

    def __init__(
        self, setting: Setting, running: Running, secrets: SecretsHere, obeyed: Callable[[ServiceId], Ballot]
    ) -> None:
        self._setting = setting
        self._config = setting.config.secrets
        self._running = running
        self._secrets = secrets
        self._obeyed = obeyed
        self._asked: dict[ReplicaId, Question] = {}

    def look(self, now: Instant) -> None:
        """Replicas or secrets may have changed: ask for what lacks, let go on what has all."""
        here = {own.id: own for own in self._running.table.all() if not own.going}
        for replica in [replica for replica in self._asked if replica not in here]:
            del self._asked[replica]
        for own in here.values():
            if own.stage is Stage.RESERVING:
                continue
            lacking = self._secrets.lacking(own.service)
            if lacking and own.id not in self._asked:
                self._asked[own.id] = Question(now.boot_s)
                self._ask(own, lacking, now)
            elif not lacking:
                self._asked.pop(own.id, None)
                self._running.entrusted(own, now)

    def answered(self, peer: NodeId, answer: KeysAnswer, now: Instant) -> None:
        """A holder sent keys, or the master says that there is none."""
        if answer.sealed:
            self._secrets.take(answer.service, answer.sealed)
            return
        own = self._running.table.of(answer.service)
        question = self._asked.get(own.id) if own is not None else None
        if own is None or question is None or peer != self._obeyed(own.service).node:
            return
        # A master that has just begun may not know yet who runs the service.
        if question.attempt >= ATTEMPTS_LEAST:
            self._give_up(own, now)

    def readers_came(self, nodes: Sequence[NodeId]) -> None:
        """Computers that can read secrets are here again: what failed for want of them may be tried at once."""
        for service in self._setting.catalogue.services():
            if any(key.node in nodes for secret in service.secrets for key in secret.keys):
                self._running.backoff.forget(service.id)

    def due(self, timer: KeysDue, now: Instant) -> None:
        """Ask again, or give up."""
        own, question = self._running.table.by_id(timer.replica), self._asked.get(timer.replica)
        if own is None or question is None or question.attempt != timer.attempt:
            return
        lacking = self._secrets.lacking(own.service)
        if own.stage is Stage.ENTRUSTING and now.boot_s - question.since_s >= self._config.wait_s:
            self._give_up(own, now)
        elif lacking:
            self._ask(own, lacking, now)

    def _give_up(self, own: Own, now: Instant) -> None:
        lacking = self._secrets.lacking(own.service)
        if own.stage is Stage.ENTRUSTING and lacking:
            del self._asked[own.id]
            self._running.not_entrusted(own, self._why(lacking), now)

    def _ask(self, own: Own, lacking: tuple[SealedSecret, ...], now: Instant) -> None:
        question = self._asked[own.id]
        question.attempt += 1
        master = self._obeyed(own.service).node
        if master != NO_BALLOT.node:
            wanted = tuple(secret.id for secret in lacking)
            self._setting.outbox.send(master, KeysQuery(own.service, wanted, question.attempt))
        waited_s = now.boot_s - question.since_s
        pause_s = self._config.ask_again_s if waited_s < self._config.wait_s else RARELY_S
        self._setting.outbox.wake_in(pause_s, KeysDue(own.id, question.attempt), now)
        if own.stage is Stage.ENTRUSTING and not own.detail:
            own.detail = "waits for the keys of its secrets"

    def _why(self, lacking: tuple[SealedSecret, ...]) -> str:
        """Which secrets did not come, and whose computers could give them."""
        named = ", ".join(secret.name for secret in lacking)
        holders = list(dict.fromkeys(key.node for secret in lacking for key in secret.keys))
        here = [node for node in holders if self._setting.presence.is_present(node)]
        if here:
            return f"its secrets {named} did not come from {self._names(here)}"
        return (
            f"nobody who is here can read its secrets {named}: one of {self._names(holders)} must come,"
            " or they are set anew"
        )

    def _names(self, nodes: list[NodeId]) -> str:
        names = [self._setting.name(node) for node in nodes[:3]]
        return ", ".join(names) + (", …" if len(nodes) > len(names) else "")
