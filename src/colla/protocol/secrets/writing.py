"""Setting and taking away secrets: what to write, and who may.

Who may change a service may change its secrets. A value is sealed for the present computers of the service's owner and of
the member who sets it; everybody else gets its key when chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from colla.kernel.config import SecretsConfig
from colla.model.errors import CollaError
from colla.model.ids import MemberId, NodeId, ServiceId
from colla.model.record import Key
from colla.model.secret import SECRETS_MAX, Hidden, check_secret_name
from colla.model.service import Service
from colla.protocol.catalogue.catalogue import Catalogue
from colla.protocol.secrets.bodies import KEYS_MAX, SecretBody, encode, secret_key
from colla.protocol.secrets.sealing import seal_value
from colla.protocol.views import Identity, MembershipView

Values = Sequence[tuple[str, Hidden]]
Items = list[tuple[Key, bytes]]


class SecretWriting:
    """See the module's docstring."""

    def __init__(
        self,
        identity: Identity,
        config: SecretsConfig,
        rng: Random,
        catalogue: Catalogue,
        membership: MembershipView,
    ) -> None:
        self._identity = identity
        self._config = config
        self._rng = rng
        self._catalogue = catalogue
        self._membership = membership

    def set(self, service: ServiceId, values: Values, author: MemberId) -> Items:
        """New values, each by its name. Raises `not_found`, `not_owner`, `guest`, `bad_secret_name`, `bad_secret`,
        `too_many_secrets`, `secrets_too_large`.
        """
        existing = self._catalogue.changeable(service, author)
        self._check(existing, values)
        nodes = self._readers(existing.owner, author)
        items = []
        for name, value in values:
            keys, sealed = seal_value(self._identity.group, service, name, value, nodes, self._rng)
            body = SecretBody(self._catalogue.next_secret_revision(service, name), keys, sealed)
            items.append((secret_key(service, name), encode(body)))
        return items

    def remove(self, service: ServiceId, names: Sequence[str], author: MemberId) -> Items:
        """Take secrets away. Raises `not_found` (also for a secret), `not_owner`, `guest`."""
        existing = self._catalogue.changeable(service, author)
        have = {secret.name for secret in existing.secrets}
        items = []
        for name in dict.fromkeys(names):
            if name not in have:
                hint = "`colla secret list` shows those that are set."
                raise CollaError("not_found", f"{existing.name} has no secret {name}.", hint)
            revision = self._catalogue.next_secret_revision(service, name)
            items.append((secret_key(service, name), encode(SecretBody(revision))))
        return items

    def _check(self, service: Service, values: Values) -> None:
        sizes = {secret.name: len(secret.sealed) for secret in service.secrets}
        for name, value in values:
            check_secret_name(name)
            size = len(value.text.encode())
            if not value.text or "\0" in value.text:
                raise CollaError("bad_secret", f"The value of {name} is empty or has a NUL character.")
            if size > self._config.value_bytes_max:
                text = f"The value of {name} is longer than {self._config.value_bytes_max} bytes."
                raise CollaError("secrets_too_large", text, "Let the program fetch large data elsewhere.")
            sizes[name] = size
        if len(sizes) > SECRETS_MAX:
            raise CollaError("too_many_secrets", f"A service has {SECRETS_MAX} secrets at most.")
        if sum(sizes.values()) > self._config.service_bytes_max:
            text = (
                f"All secrets of {service.name} together would exceed {self._config.service_bytes_max} bytes."
            )
            raise CollaError("secrets_too_large", text, "Remove those that it does not need any more.")

    def _readers(self, *members: MemberId) -> list[NodeId]:
        """This node, then the computers of these members."""
        nodes = [node.id for member in members for node in self._membership.nodes() if node.member == member]
        return list(dict.fromkeys((self._identity.node, *nodes)))[:KEYS_MAX]
