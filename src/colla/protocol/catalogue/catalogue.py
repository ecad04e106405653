"""The existing services as this node knows them: a view over records and membership (DESIGN section 6).

Owns: the merged `Service` of every existing service, the names, and the rules of the five operations.

Invariants:
- The view is a pure function of the records held and of the membership: same sets, same catalogue.
- Elimination beats every record of its id, and only those whose authors may change the service count.
- Of services with one name, the one with the lowest (stamp of the claim, id) holds the short name.
- The version of a service grows with every change of its specification and of its secrets: it is the specification's own
  plus the revisions of all its secrets.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import msgspec

from colla.kernel.time import Instant
from colla.model.errors import CollaError
from colla.model.ids import RANDOM_ID_BYTES, MemberId, ServiceId
from colla.model.record import TOPIC_CATALOGUE, Key, Record, Stamp
from colla.model.secret import SECRETS_MAX, SealedSecret
from colla.model.service import REPLICAS_MAX, Service, Specification
from colla.protocol.catalogue.authority import authorised, may_change
from colla.protocol.catalogue.bodies import (
    DELEGATES_MAX,
    KIND_ADOPTED,
    KIND_DELEGATES,
    KIND_GONE,
    KIND_REPLICAS,
    KIND_SPEC,
    KIND_WANTED,
    Adopted,
    Delegates,
    Replicas,
    Specified,
    Wanted,
    check_record,
    check_specification,
    decode_adopted,
    decode_delegates,
    decode_replicas,
    decode_spec,
    decode_wanted,
    encode,
    new_service_id,
)
from colla.protocol.records.book import RecordBook
from colla.protocol.records.order import undominated
from colla.protocol.records.quarantine import NO_QUARANTINE, Quarantine
from colla.protocol.records.quota import UNBOUNDED, Quota
from colla.protocol.secrets import bodies as secret_bodies
from colla.protocol.secrets.bodies import KIND_SECRET, SecretBody, secret_key, secret_of
from colla.protocol.views import MembershipView, RecordChange, RecordsView, Role

Items = list[tuple[Key, bytes]]


def register_catalogue(book: RecordBook, quota: Quota = UNBOUNDED) -> None:
    """Let the book hold the catalogue's records."""
    book.register(TOPIC_CATALOGUE, check_record, tombstone=KIND_GONE, quota=quota)


class _Entry(msgspec.Struct, frozen=True):
    """A service and what its name rests on. `version` is the specification's own."""

    service: Service
    claimed: Stamp
    nonce: bytes
    version: int


class Catalogue:
    """Implements `views.CatalogueView`. Its two `…_changed` calls keep it up to date."""

    def __init__(
        self, records: RecordsView, membership: MembershipView, quarantine: Quarantine = NO_QUARANTINE
    ) -> None:
        self._records = records
        self._quarantine = quarantine
        self._membership = membership
        self._entries: dict[ServiceId, _Entry] = {}
        self._by_name: dict[str, list[ServiceId]] = {}
        self._gone: dict[ServiceId, None] = {}
        self._sorted: tuple[Service, ...] | None = None
        self.membership_changed()

    # Reading: views.CatalogueView.

    def services(self) -> tuple[Service, ...]:
        """All existing services, sorted by id."""
        if self._sorted is None:
            self._sorted = tuple(self._entries[service].service for service in sorted(self._entries))
        return self._sorted

    def service(self, service: ServiceId) -> Service | None:
        entry = self._entries.get(service)
        return None if entry is None else entry.service

    def by_name(self, name: str) -> Service | None:
        plain, separator, member = name.partition("--")
        for service in self._by_name.get(plain, ()):
            found = self._entries[service].service
            if not separator:
                return found
            owner = self._membership.member(found.owner)
            if owner is not None and owner.name == member:
                return found
        return None

    def eliminated(self, service: ServiceId) -> bool:
        return service in self._gone

    def fingerprint(self) -> bytes:
        return self._records.contents(TOPIC_CATALOGUE)

    # Keeping up to date.

    def records_changed(self, changes: Sequence[RecordChange], now: Instant) -> list[ServiceId]:
        """Records changed: which services are other than before (new, changed, renamed, eliminated)? Sorted."""
        del now
        touched = {
            # Behind the service's id a secret's key has the secret's name.
            ServiceId(
                one.key.subject[:RANDOM_ID_BYTES] if one.key.kind == KIND_SECRET else one.key.subject
            ): None
            for one in changes
            if one.topic == TOPIC_CATALOGUE
        }
        return self._refresh(list(touched))

    def membership_changed(self) -> list[ServiceId]:
        """The membership changed, and with it what authors may do: which services are other than before?"""
        subjects = dict.fromkeys(self._entries)
        for kind in (KIND_SPEC, KIND_GONE):
            subjects.update(
                (ServiceId(key.subject), None) for key in self._records.keys(TOPIC_CATALOGUE, kind)
            )
        return self._refresh(list(subjects))

    # Operations: each returns the items to write, or raises `CollaError`.

    def create(
        self, rng: Random, specification: Specification, active: bool, replicas: int, author: MemberId
    ) -> tuple[ServiceId, Items]:
        """A new service of `author`. Raises `bad_name`, `bad_specification`, `name_taken`, `not_owner`, and
        `bad_replicas` or `too_many_replicas`.
        """
        specification = msgspec.structs.replace(specification, version=1)
        self._check_change(specification, author, None)
        _check_replicas(replicas)
        service, nonce = new_service_id(rng, specification.owner)
        return service, [
            (Key(KIND_SPEC, service), encode(Specified(nonce, None, specification))),
            (Key(KIND_WANTED, service), encode(Wanted(active))),
            (Key(KIND_REPLICAS, service), encode(Replicas(replicas))),
        ]

    def modify(self, service: ServiceId, specification: Specification, author: MemberId) -> Items:
        """Another specification; its owner stays and its version grows. Raises as `create`, and `not_found`."""
        entry = self._changeable(service, author)
        before = entry.service.specification
        version = max(entry.version, self._highest_version(service, before.owner)) + 1
        specification = msgspec.structs.replace(specification, owner=before.owner, version=version)
        self._check_change(specification, author, service)
        claimed = entry.claimed if specification.name == before.name else None
        return [(Key(KIND_SPEC, service), encode(Specified(entry.nonce, claimed, specification)))]

    def activate(self, service: ServiceId, author: MemberId) -> Items:
        """Keep replicas running. Raises `not_found`, `not_owner`."""
        self._changeable(service, author)
        return [(Key(KIND_WANTED, service), encode(Wanted(True)))]

    def deactivate(self, service: ServiceId, author: MemberId) -> Items:
        """Stop the replicas; the service goes on existing. Raises `not_found`, `not_owner`."""
        self._changeable(service, author)
        return [(Key(KIND_WANTED, service), encode(Wanted(False)))]

    def scale(self, service: ServiceId, replicas: int, author: MemberId) -> Items:
        """Another number of replicas. Raises `not_found`, `not_owner`, `bad_replicas`, `too_many_replicas`."""
        self._changeable(service, author)
        _check_replicas(replicas)
        return [(Key(KIND_REPLICAS, service), encode(Replicas(replicas)))]

    def adopt(self, service: ServiceId, owner: MemberId, author: MemberId) -> Items:
        """Let the service be that member's from now on. Raises `not_found`, `not_owner`, `guest`."""
        entry = self._entries.get(service)
        info = self._membership.member(owner)
        if entry is None or info is None:
            what = "service" if entry is None else "member"
            raise CollaError("not_found", f"There is no such {what}.", f"`colla {what}s` lists them.")
        if not may_change(self._membership, author, entry.service.owner):
            message = "Only its owner or an administrator can give a service to somebody."
            raise CollaError("not_owner", message, "`colla members` shows who is administrator.")
        if info.role == Role.GUEST:
            raise CollaError("guest", f"{info.name} is a guest, who cannot own services.")
        return [(Key(KIND_ADOPTED, service), encode(Adopted(owner)))]

    def delegate(self, service: ServiceId, delegates: Sequence[MemberId], author: MemberId) -> Items:
        """Let these members change the service too. Raises `not_found`, `not_owner`, `too_many_delegates`."""
        self._changeable(service, author)
        if len(delegates) > DELEGATES_MAX:
            raise CollaError("too_many_delegates", f"A service has {DELEGATES_MAX} delegates at most.")
        if any(self._membership.member(one) is None for one in delegates):
            raise CollaError("not_found", "There is no such member.", "`colla members` lists them.")
        return [(Key(KIND_DELEGATES, service), encode(Delegates(tuple(sorted(set(delegates))))))]

    def eliminate(self, service: ServiceId, author: MemberId) -> Items:
        """Remove the service for good. Raises `not_found`, `not_owner`."""
        secrets = self._changeable(service, author).service.secrets
        tombstone: Items = [(Key(KIND_GONE, service), b"")]
        return tombstone + [
            (secret_key(service, one.name), self._taken_away(service, one.name)) for one in secrets
        ]

    def _taken_away(self, service: ServiceId, name: str) -> bytes:
        return secret_bodies.encode(SecretBody(self.next_secret_revision(service, name)))

    def changeable(self, service: ServiceId, author: MemberId) -> Service:
        """The service, if this member may change it. Raises `not_found`, `guest`, `not_owner`."""
        return self._changeable(service, author).service

    def next_secret_revision(self, service: ServiceId, name: str) -> int:
        """What the next change of this secret counts as. Only changes by who may change the service count."""
        existing = self._entries[service].service
        changing = (existing.specification.owner, existing.owner, *existing.delegates)
        records = authorised(self._membership, self._versions_of(secret_key(service, name)), *changing)
        highest = max((secret_bodies.decode(record.body).revision for record in records), default=0)
        return min(highest + 1, secret_bodies.REVISION_MAX)

    # Inside: merging.

    def _refresh(self, subjects: Sequence[ServiceId]) -> list[ServiceId]:
        before: dict[ServiceId, Service | None] = {}
        names: dict[str, None] = {}
        secrets: dict[ServiceId, list[Key]] = {}
        for key in self._records.keys(TOPIC_CATALOGUE, KIND_SECRET):
            secrets.setdefault(secret_of(key)[0], []).append(key)
        for service in subjects:
            old = self._entries.pop(service, None)
            before[service] = None if old is None else old.service
            new = self._read(service, secrets.get(service, ()))
            if new is not None:
                self._entries[service] = new
            for entry in (old, new):
                if entry is not None:
                    names[entry.service.name] = None
        self._rename(names, before)
        self._sorted = None
        return sorted(service for service, old_one in before.items() if self.service(service) != old_one)

    def _read(self, service: ServiceId, secret_keys: Sequence[Key]) -> _Entry | None:
        return self._quarantine.read("the service", service, lambda: self._merge(service, secret_keys), None)

    def _merge(self, service: ServiceId, secret_keys: Sequence[Key] = ()) -> _Entry | None:
        """The service as its records give it; None when it does not exist (any more)."""
        specs = self._versions(KIND_SPEC, service)
        tombstones = self._versions(KIND_GONE, service)
        self._gone.pop(service, None)
        if not specs:
            # A tombstone takes the specification of its own log along; without one there is nothing to show.
            if tombstones:
                self._gone[service] = None
            return None
        # Every specification of this id names the same creator: the id is a hash over it.
        creator = decode_spec(specs[0].body).specification.owner
        adopted_by, delegates = self._others(service, creator)
        owner = adopted_by or creator
        changing = (creator, owner, *delegates)
        if authorised(self._membership, tombstones, *changing):
            self._gone[service] = None
            return None
        valid = undominated(authorised(self._membership, specs, *changing))
        if not valid:
            return None
        body = decode_spec(valid[0].body)
        revisions, secrets = self._merge_secrets(secret_keys, changing)
        version = body.specification.version
        wanted = self._valid(KIND_WANTED, service, *changing)
        replicas = self._valid(KIND_REPLICAS, service, *changing)
        kinds = ((KIND_SPEC, valid), (KIND_WANTED, wanted), (KIND_REPLICAS, replicas))
        merged = Service(
            id=service,
            specification=msgspec.structs.replace(body.specification, version=version + revisions),
            # Whose owner left or was removed stops, until somebody adopts it.
            active=bool(wanted)
            and decode_wanted(wanted[0].body).active
            and self._membership.member(owner) is not None,
            replicas=decode_replicas(replicas[0].body).count if replicas else 1,
            conflicts=tuple(kind for kind, records in kinds if _in_conflict(records)),
            adopted_by=adopted_by,
            delegates=delegates,
            secrets=secrets,
        )
        return _Entry(merged, body.claimed or valid[0].stamp, body.nonce, version)

    def _merge_secrets(
        self, keys: Sequence[Key], changing: Sequence[MemberId]
    ) -> tuple[int, tuple[SealedSecret, ...]]:
        """The sum of the highest revisions, and the secrets that are set now, sorted by name."""
        revisions = 0
        found: list[SealedSecret] = []
        for key in keys:
            records = authorised(self._membership, self._versions_of(key), *changing)
            if not records:
                continue
            revisions += max(secret_bodies.decode(record.body).revision for record in records)
            winner = undominated(records)[0]
            body: SecretBody = secret_bodies.decode(winner.body)
            if body.sealed and len(found) < SECRETS_MAX:
                name, set_ms = secret_of(key)[1], winner.stamp.wall_ms
                found.append(
                    SealedSecret(name, winner.digest, body.keys, body.sealed, set_ms, winner.log.node)
                )
        return revisions, tuple(found)

    def _rename(self, names: dict[str, None], before: dict[ServiceId, Service | None]) -> None:
        """Find out who holds each of these names; `before` gets whoever changes by that."""
        claims: dict[str, list[tuple[Stamp, ServiceId]]] = {name: [] for name in names}
        for service, entry in self._entries.items():
            if entry.service.name in claims:
                claims[entry.service.name].append((entry.claimed, service))
        for name, found in claims.items():
            found.sort()
            self._by_name[name] = [service for _, service in found]
            if not found:
                del self._by_name[name]
            for place, (_, service) in enumerate(found):
                entry = self._entries[service]
                if entry.service.short != (place == 0):
                    before.setdefault(service, entry.service)
                    renamed = msgspec.structs.replace(entry.service, short=place == 0)
                    self._entries[service] = msgspec.structs.replace(entry, service=renamed)

    def _versions(self, kind: str, service: ServiceId) -> tuple[Record, ...]:
        return self._versions_of(Key(kind, service))

    def _versions_of(self, key: Key) -> tuple[Record, ...]:
        return self._records.versions(TOPIC_CATALOGUE, key)

    def _valid(self, kind: str, service: ServiceId, *changing: MemberId) -> list[Record]:
        """The undominated ones among the records that count, the winner first."""
        return undominated(authorised(self._membership, self._versions(kind, service), *changing))

    def _others(self, service: ServiceId, creator: MemberId) -> tuple[MemberId, tuple[MemberId, ...]]:
        """Who adopted the service (empty: nobody), and who may change it beside its owner."""
        adoptions = self._valid(KIND_ADOPTED, service, creator)
        adopted_by = decode_adopted(adoptions[0].body).owner if adoptions else MemberId(b"")
        delegations = self._valid(KIND_DELEGATES, service, creator, adopted_by)
        delegates = decode_delegates(delegations[0].body).members if delegations else ()
        return adopted_by, delegates

    # Inside: operations.

    def _changeable(self, service: ServiceId, author: MemberId) -> _Entry:
        entry = self._entries.get(service)
        if entry is None:
            raise CollaError("not_found", "There is no such service.", "`colla services` lists them.")
        _refuse_guests(self._membership, author)
        owner = entry.service.owner
        if not may_change(self._membership, author, owner, *entry.service.delegates):
            message = f"The service {entry.service.name!r} belongs to another member."
            raise CollaError("not_owner", message, "Ask its owner or an administrator.")
        return entry

    def _highest_version(self, service: ServiceId, owner: MemberId) -> int:
        adopted_by, delegates = self._others(service, owner)
        versions = self._versions(KIND_SPEC, service)
        specs = authorised(self._membership, versions, owner, adopted_by, *delegates)
        return max((decode_spec(record.body).specification.version for record in specs), default=0)

    def _check_change(
        self, specification: Specification, author: MemberId, service: ServiceId | None
    ) -> None:
        _refuse_guests(self._membership, author)
        if service is None and not may_change(self._membership, author, specification.owner):
            raise CollaError("not_owner", "A service can be created for oneself only.")
        check_specification(specification)
        holder = self.by_name(specification.name)
        if holder is None or holder.id == service:
            return
        if service is not None and self._entries[service].service.name == specification.name:
            return
        message = f"The name {specification.name!r} is taken by another service."
        raise CollaError("name_taken", message, "Choose another name.")


def _refuse_guests(membership: MembershipView, author: MemberId) -> None:
    info = membership.member(author)
    if info is not None and info.role == Role.GUEST:
        raise CollaError(
            "guest",
            "Guests use services; they cannot offer or change any.",
            "Ask an administrator for another role: `colla member role NAME member`.",
        )


def _check_replicas(replicas: int) -> None:
    if replicas < 1:
        raise CollaError("bad_replicas", "A service has at least one replica.", "Deactivate it to stop it.")
    if replicas > REPLICAS_MAX:
        message = f"{replicas} replicas are too many."
        raise CollaError("too_many_replicas", message, f"Ask for {REPLICAS_MAX} at most.")


def _in_conflict(records: Sequence[Record]) -> bool:
    """Whether a concurrent change lost that says something else than the winner."""
    return any(record.body != records[0].body for record in records[1:])
