"""The content keys of secrets that this node may use: those wrapped for it when they were set, and those given to it.

What was given is kept sealed for this node's own key in a cell per service, so that a replica starts again after a
failure, a restart or a power cut although nobody else is there.

Invariants: only keys that open a present secret of the service are kept; values in clear are made when asked for and
kept nowhere. Keys that were given are forgotten `kept_s` after the last replica of the service here was seen, at once when
the service does not exist any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Protocol

from colla.kernel.config import SecretsConfig
from colla.kernel.durable import Durable
from colla.kernel.effects import DropCell, StoreCell
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.ids import NodeId, ServiceId
from colla.model.sealing import DecryptionKey, derive_decryption_key
from colla.model.secret import Hidden, SealedSecret
from colla.model.service import Service
from colla.protocol.secrets.sealing import open_keys, open_value, seal_keys, unwrap_own
from colla.protocol.views import CatalogueView, Identity

CELL_PREFIX = "secret-keys/"
UNWRAPPED_MAX = 4096
"""Keys that were unwrapped before, or found to be for others: kept in memory, made anew when they are too many."""


class SecretsHere(Protocol):
    """What running replicas needs to know of secrets."""

    def lacking(self, service: ServiceId) -> tuple[SealedSecret, ...]:
        """The secrets of the service that this node cannot open."""

    def reveal(self, service: ServiceId) -> tuple[tuple[str, Hidden], ...]:
        """All that it can open, by name."""

    def tidy(self, running: Sequence[ServiceId], now: Instant) -> None:
        """Replicas of these services are here; what nobody here needs any more is forgotten."""

    def take(self, service: ServiceId, sealed: bytes) -> bool:
        """Somebody gave keys; returns whether any of them was lacking."""


class NoSecrets:
    """Implements `SecretsHere` where there are none."""

    def lacking(self, service: ServiceId) -> tuple[SealedSecret, ...]:
        return ()

    def reveal(self, service: ServiceId) -> tuple[tuple[str, Hidden], ...]:
        return ()

    def tidy(self, running: Sequence[ServiceId], now: Instant) -> None:
        """Nothing is kept."""

    def take(self, service: ServiceId, sealed: bytes) -> bool:
        return False


class Keyring:
    """Implements `SecretsHere`; see the module's docstring."""

    def __init__(
        self,
        identity: Identity,
        config: SecretsConfig,
        rng: Random,
        outbox: Outbox,
        durable: Durable,
        catalogue: CatalogueView,
    ) -> None:
        self._identity = identity
        self._config = config
        self._rng = rng
        self._outbox = outbox
        self._catalogue = catalogue
        self._key: DecryptionKey = derive_decryption_key(identity.secret.seed)
        self._given: dict[ServiceId, dict[bytes, bytes]] = {}
        self._idle_s: dict[ServiceId, float] = {}
        self._unwrapped: dict[bytes, bytes | None] = {}
        for name in sorted(durable.cells):
            if name.startswith(CELL_PREFIX):
                service = ServiceId(bytes.fromhex(name.removeprefix(CELL_PREFIX)))
                # A cell that cannot be opened is as good as none: the keys are asked for again.
                self._given[service] = self._open(service, durable.cells[name])

    def lacking(self, service: ServiceId) -> tuple[SealedSecret, ...]:
        return tuple(secret for secret in self._secrets(service) if self._key_of(service, secret) is None)

    def reveal(self, service: ServiceId) -> tuple[tuple[str, Hidden], ...]:
        found = []
        for secret in self._secrets(service):
            content_key = self._key_of(service, secret)
            value = open_value(secret, content_key) if content_key is not None else None
            if value is not None:
                found.append((secret.name, value))
        return tuple(found)

    def take(self, service: ServiceId, sealed: bytes) -> bool:
        lacked = {secret.id: secret for secret in self.lacking(service)}
        keys = {
            which: content_key
            for which, content_key in self._open(service, sealed).items()
            if which in lacked and open_value(lacked[which], content_key) is not None
        }
        if keys:
            present = {secret.id for secret in self._secrets(service)}
            kept = {which: key for which, key in self._given.get(service, {}).items() if which in present}
            self._given[service] = kept | keys
            own = seal_keys(
                self._identity.group, service, self._given[service], self._identity.node, self._rng
            )
            self._outbox.persist(StoreCell(_cell(service), own))
        return bool(keys)

    def give(self, service: Service, wanted: Sequence[bytes], node: NodeId) -> bytes | None:
        """Those of the wanted keys that this node has, sealed for another; None when it has none of them."""
        keys: dict[bytes, bytes] = {}
        for secret in service.secrets:
            content_key = self._key_of(service.id, secret) if secret.id in wanted else None
            if content_key is not None:
                keys[secret.id] = content_key
        return seal_keys(self._identity.group, service.id, keys, node, self._rng) if keys else None

    def tidy(self, running: Sequence[ServiceId], now: Instant) -> None:
        for service in list(self._given):
            if service in running:
                self._idle_s.pop(service, None)
                continue
            since_s = self._idle_s.setdefault(service, now.boot_s)
            gone = self._catalogue.eliminated(service)
            if gone or now.boot_s - since_s >= self._config.kept_s:
                del self._given[service], self._idle_s[service]
                self._outbox.persist(DropCell(_cell(service)))

    # -- inside ------------------------------------------------------------------------------------------------

    def _secrets(self, service: ServiceId) -> tuple[SealedSecret, ...]:
        existing = self._catalogue.service(service)
        return existing.secrets if existing is not None else ()

    def _key_of(self, service: ServiceId, secret: SealedSecret) -> bytes | None:
        given = self._given.get(service, {}).get(secret.id)
        if given is not None:
            return given
        if secret.id not in self._unwrapped:
            if len(self._unwrapped) >= UNWRAPPED_MAX:
                self._unwrapped.clear()
            identity = self._identity
            found = unwrap_own(identity.group, service, secret, identity.node, self._key)
            self._unwrapped[secret.id] = found
        return self._unwrapped[secret.id]

    def _open(self, service: ServiceId, sealed: bytes) -> dict[bytes, bytes]:
        return open_keys(self._identity.group, service, sealed, self._identity.node, self._key)


def _cell(service: ServiceId) -> str:
    return CELL_PREFIX + service.hex()
