"""The user agent: a member's door to the group. It carries out what the API asks and resolves locations.

Locations are soft: those of a service in which somebody here is interested are asked from its master, who tells
changes; asking is repeated every `refresh_interval_s`, also from one other dispatcher, so that a new master is
found when the old one died. Locations on absent nodes are dropped at once. Between a master's death and its
successor's first word the last known locations stand: availability first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from colla.agents.agent import Agent, Context
from colla.agents.requests import (
    CreateService,
    EliminateService,
    ExplainService,
    LocateService,
    ModifyService,
    RemoveSecrets,
    Request,
    ServiceLocated,
    SetActive,
    SetReplicas,
    SetSecrets,
    Written,
)
from colla.kernel.effects import Answer, Refusal
from colla.kernel.messages import Message, Timer
from colla.kernel.rhythm import Rhythm
from colla.kernel.time import Instant
from colla.model.contribution import AgentKind
from colla.model.errors import CollaError
from colla.model.ids import MemberId, NodeId, ReplicaId, ServiceId
from colla.model.location import Location
from colla.model.record import TOPIC_CATALOGUE, Key
from colla.protocol.catalogue.catalogue import Catalogue
from colla.protocol.locations.messages import AskWhy, Explanation, Locate, Located, LocationFailed
from colla.protocol.rendezvous import nearest
from colla.protocol.secrets.writing import SecretWriting
from colla.protocol.views import PresenceChange

Submit = Callable[[int, str, Sequence[tuple[Key, bytes]], Instant], None]


class RefreshDue(Timer, frozen=True):
    """Ask again where a service is; stale when `epoch` is not the newest."""

    service: ServiceId
    epoch: int


class RequestDue(Timer, frozen=True):
    """A request to a dispatcher has waited long enough."""

    request: int
    attempt: int


class Known(msgspec.Struct):
    """What this user agent knows of one service's locations."""

    interest_until_s: float
    epoch: int = 0
    master: NodeId = NodeId(b"")
    locations: tuple[Location, ...] = ()
    answered_s: float = float("-inf")
    doubted_s: float = float("-inf")


class Asking(msgspec.Struct):
    """A request of the API that waits for dispatchers."""

    service: ServiceId
    explain: bool
    until_s: float
    attempt: int = 0


class UserAgent(Agent):
    """See the module's docstring."""

    MESSAGES = (Located, Explanation)
    TIMERS = (RefreshDue, RequestDue)
    REQUESTS = (
        CreateService,
        ModifyService,
        SetActive,
        SetReplicas,
        SetSecrets,
        RemoveSecrets,
        EliminateService,
        LocateService,
        ExplainService,
    )

    def __init__(
        self, context: Context, catalogue: Catalogue, secrets: SecretWriting, submit: Submit
    ) -> None:
        super().__init__(context)
        self._config = context.config.access
        self._catalogue = catalogue
        self._secrets = secrets
        self._submit = submit
        self._known: dict[ServiceId, Known] = {}
        iterations = context.config.iterations
        self._rhythm = Rhythm(iterations, iterations.access_at_s, context.rng)
        self._asking: dict[int, Asking] = {}
        self._writing: dict[int, ServiceId] = {}

    # -- what the API and the gateway read ------------------------------------------------------------------

    def locations(self, service: ServiceId) -> tuple[Location, ...]:
        """The live locations known now (perhaps none); present nodes only."""
        known = self._known.get(service)
        if known is None:
            return ()
        return tuple(item for item in known.locations if self.context.presence.is_present(item.node))

    def master_of(self, service: ServiceId) -> NodeId:
        """The master known now, or b""."""
        known = self._known.get(service)
        return known.master if known is not None else NodeId(b"")

    def is_watching(self, service: ServiceId) -> bool:
        """Whether this user agent keeps the locations of the service fresh already."""
        return service in self._known

    def watch(self, service: ServiceId, now: Instant) -> None:
        """Somebody is interested: keep the locations of this service fresh for a while."""
        known = self._known.get(service)
        until = now.boot_s + self._config.interest_s
        if known is not None:
            known.interest_until_s = until
            return
        if len(self._known) >= self._config.services_watched_max:
            oldest = min(self._known, key=lambda item: self._known[item].interest_until_s)
            del self._known[oldest]
        self._known[service] = Known(until)
        self._refresh(service, now)

    def location_failed(self, service: ServiceId, replica: ReplicaId, now: Instant) -> None:
        """A location did not answer: hint at it to the master, and ask anew."""
        known = self._known.get(service)
        if known is None:
            return
        if known.master:
            self.context.outbox.send(known.master, LocationFailed(service, replica))
        pause_s = self._config.failed_refresh_s
        if now.boot_s - known.answered_s > pause_s and now.boot_s - known.doubted_s > pause_s:
            # The master may have died together with the replica: others know its successor by now.
            known.doubted_s = now.boot_s
            self._refresh(service, now, doubted=True)

    # -- agent ----------------------------------------------------------------------------------------------

    def resumed(self, gap_s: float, now: Instant) -> None:
        for service, known in self._known.items():
            known.answered_s = float("-inf")
            self._refresh(service, now)

    def message(self, peer: NodeId, message: Message, now: Instant) -> None:
        match message:
            case Located():
                self._located(peer, message, now)
            case Explanation():
                self._explained(peer, message, now)
            case _:
                raise TypeError(f"not for a user agent: {message!r}")

    def timer(self, timer: Timer, late_s: float, now: Instant) -> None:
        match timer:
            case RefreshDue():
                known = self._known.get(timer.service)
                if known is not None and known.epoch == timer.epoch:
                    if known.interest_until_s < now.boot_s:
                        del self._known[timer.service]
                    else:
                        self._refresh(timer.service, now)
            case RequestDue():
                self._request_due(timer, now)
            case _:
                raise TypeError(f"not for a user agent: {timer!r}")

    def presence_changed(self, changes: Sequence[PresenceChange], now: Instant) -> None:
        for change in changes:
            if self.context.presence.is_present(change.node):
                continue
            for service, known in self._known.items():
                if known.master == change.node:
                    known.master = NodeId(b"")
                    if not self._rhythm.given:
                        self._refresh(service, now)

    def catalogue_changed(self, services: Sequence[ServiceId], now: Instant) -> None:
        for service in services:
            existing = self.context.catalogue.service(service)
            if service in self._known and (existing is None or not existing.active):
                self._known[service].locations = ()

    def request(self, request_id: int, request: Any, now: Instant) -> None:
        try:
            self._carry_out(request_id, request, now)
        except CollaError as error:
            self._answer(request_id, Refusal(error.code, error.message, error.hint))

    # -- writing --------------------------------------------------------------------------------------------

    def _carry_out(self, request_id: int, request: Request, now: Instant) -> None:
        author = self._me()
        match request:
            case CreateService():
                specification = msgspec.structs.replace(request.specification, owner=author, version=1)
                service, items = self._catalogue.create(
                    self.context.rng, specification, request.active, request.replicas, author
                )
                self._write(request_id, service, items, now)
            case ModifyService():
                items = self._catalogue.modify(request.service, request.specification, author)
                self._write(request_id, request.service, items, now)
            case SetActive(service=service, active=active):
                change = self._catalogue.activate if active else self._catalogue.deactivate
                self._write(request_id, service, change(service, author), now)
            case SetReplicas(service=service, replicas=replicas):
                self._write(request_id, service, self._catalogue.scale(service, replicas, author), now)
            case SetSecrets(service=service, values=values):
                self._write(request_id, service, self._secrets.set(service, values, author), now)
            case RemoveSecrets(service=service, names=names):
                self._write(request_id, service, self._secrets.remove(service, names, author), now)
            case EliminateService(service=service):
                self._write(request_id, service, self._catalogue.eliminate(service, author), now)
            case LocateService(service=service):
                self._existing(service)
                self.watch(service, now)
                self._ask(request_id, self._asking_for(service, False, now), now)
            case ExplainService(service=service):
                self._existing(service)
                self._ask(request_id, self._asking_for(service, True, now), now)
            case _:
                raise TypeError(f"not for a user agent: {request!r}")

    def _me(self) -> MemberId:
        owner = self.context.membership.owner_of(self.context.identity.node)
        if owner is None:
            raise CollaError("not_a_member", "This computer does not belong to the group.", "Join it first.")
        return owner

    def _existing(self, service: ServiceId) -> None:
        if self.context.catalogue.service(service) is None:
            raise CollaError("not_found", "There is no such service.", "`colla services` lists them.")

    def _write(
        self, request_id: int, service: ServiceId, items: Sequence[tuple[Key, bytes]], now: Instant
    ) -> None:
        self._writing[request_id] = service
        self._submit(request_id, TOPIC_CATALOGUE, items, now)

    def written(self, request_id: int, copies: int) -> None:
        """The router tells: the write of this request is durable on so many nodes."""
        service = self._writing.pop(request_id, None)
        if service is not None:
            self._answer(request_id, Written(service, copies))

    def write_failed(self, request_id: int, refusal: Refusal) -> None:
        """The router tells: the write could not be made."""
        if self._writing.pop(request_id, None) is not None:
            self._answer(request_id, refusal)

    # -- locations ------------------------------------------------------------------------------------------

    def _dispatchers(self, service: ServiceId, known: NodeId) -> list[NodeId]:
        """Whom to ask: the known master, the nearest dispatcher, one at random; distinct."""
        present = self.context.presence.carrying(AgentKind.DISPATCHER)
        if not present:
            return []
        chosen = [known] if known in present else []
        chosen.append(nearest(service, present)[0])
        others = [node for node in present if node not in chosen]
        if others:
            chosen.append(self.context.rng.choice(others))
        return list(dict.fromkeys(chosen))

    def _refresh(self, service: ServiceId, now: Instant, *, doubted: bool = False) -> None:
        known = self._known[service]
        known.epoch += 1
        fresh = now.boot_s - known.answered_s < 2 * self._config.refresh_interval_s
        asked = self._dispatchers(service, known.master)
        for node in asked[: 1 if fresh and known.master and not doubted else 3]:
            self.context.outbox.send(node, Locate(service, True))
        pause = self._config.refresh_interval_s if fresh else self._config.locate_timeout_s
        if self._rhythm.given:
            pause = self._rhythm.wait_s(now)
        self.context.outbox.wake_in(pause, RefreshDue(service, known.epoch), now)

    def _located(self, peer: NodeId, answer: Located, now: Instant) -> None:
        known = self._known.get(answer.service)
        if known is None:
            return
        stale = now.boot_s - known.answered_s > 2 * self._config.refresh_interval_s
        if answer.authoritative:
            known.master = peer
            known.locations = answer.locations
            known.answered_s = now.boot_s
            self._locating_done(answer.service, fresh=True)
            return
        if stale and answer.locations and not self.locations(answer.service):
            known.locations = answer.locations
        if answer.master and answer.master != peer and answer.master != known.master:
            # The known one may have died a moment ago. What the other says of itself decides.
            if not known.master or stale:
                known.master = answer.master
            self.context.outbox.send(answer.master, Locate(answer.service, True))

    def _locating_done(self, service: ServiceId, *, fresh: bool) -> None:
        for request_id, asking in list(self._asking.items()):
            if asking.service == service and not asking.explain:
                del self._asking[request_id]
                self._answer(request_id, ServiceLocated(service, fresh))

    def _asking_for(self, service: ServiceId, explain: bool, now: Instant) -> Asking:
        return Asking(service, explain, now.boot_s + self._config.locate_timeout_s)

    def _ask(self, request_id: int, asking: Asking, now: Instant) -> None:
        self._asking[request_id] = asking
        known = self._known.get(asking.service)
        master = known.master if known is not None else NodeId(b"")
        for node in self._dispatchers(asking.service, master):
            self._ask_node(request_id, asking, node)
        self.context.outbox.wake_in(self._config.ask_again_s, RequestDue(request_id, asking.attempt), now)

    def _ask_node(self, request_id: int, asking: Asking, node: NodeId) -> None:
        if asking.explain:
            self.context.outbox.send(node, AskWhy(asking.service, request_id))
        else:
            self.context.outbox.send(node, Locate(asking.service, True))

    def _explained(self, peer: NodeId, answer: Explanation, now: Instant) -> None:
        asking = self._asking.get(answer.nonce)
        if asking is None or not asking.explain or asking.service != answer.service:
            return
        if answer.master == peer:
            del self._asking[answer.nonce]
            self._answer(answer.nonce, answer)
        elif answer.master and now.boot_s < asking.until_s:
            asking.attempt += 1
            self._ask_node(answer.nonce, asking, answer.master)
            self.context.outbox.wake_in(
                self._config.ask_again_s, RequestDue(answer.nonce, asking.attempt), now
            )

    def _request_due(self, timer: RequestDue, now: Instant) -> None:
        asking = self._asking.get(timer.request)
        if asking is None or asking.attempt != timer.attempt:
            return
        if now.boot_s < asking.until_s:
            # Perhaps nobody mastered the service yet, or a message was lost.
            asking.attempt += 1
            self._ask(timer.request, asking, now)
            return
        del self._asking[timer.request]
        if asking.explain:
            self._answer(
                timer.request,
                Refusal(
                    "no_master",
                    "No dispatcher masters this service right now.",
                    "An inactive service has no master; otherwise try again in a few seconds.",
                ),
            )
        else:
            self._answer(timer.request, ServiceLocated(asking.service, fresh=False))

    def _answer(self, request_id: int, result: Any) -> None:
        self.context.outbox.put(Answer(request_id, result))
