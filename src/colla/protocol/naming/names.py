"""The group's named objects as this node knows them: a view over records and membership (DESIGN section 9).

Owns: which object each path leads to, what was written concurrently and lost, and what other nodes wrote before.

Invariants:
- The view is a pure function of the records held and of the membership: same sets, same names.
- Of concurrent versions of a path the later stamp wins; the others are shown as conflicts, and what they lead to is
  kept, until somebody writes the path again who has seen them.
- Every member but a guest may write every path: the file space is the group's. What another has written is replaced
  only where the writer says so (`expected`, or `replace`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from colla.model.errors import CollaError
from colla.model.ids import MemberId, NodeId, ObjectId
from colla.model.record import TOPIC_OBJECTS, Key, Record
from colla.protocol.naming.bodies import (
    KIND_NAME,
    Named,
    Removed,
    check_record,
    clean_path,
    decode,
    encode,
    key_of,
)
from colla.protocol.records.book import RecordBook
from colla.protocol.records.order import undominated
from colla.protocol.records.quarantine import NO_QUARANTINE, Quarantine
from colla.protocol.records.quota import UNBOUNDED, Quota
from colla.protocol.views import MembershipView, RecordChange, RecordsView, Role

NOTHING = ObjectId(b"")
"""As `expected`: the path must lead nowhere."""

Items = list[tuple[Key, bytes]]


def register_names(book: RecordBook, quota: Quota = UNBOUNDED) -> None:
    """Let the book hold the records that name objects."""
    book.register(TOPIC_OBJECTS, check_record, quota=quota)


class Version(msgspec.Struct, frozen=True):
    """What one record says of a path: where it leads (`named`; None: removed), who says so, and when (Unix time)."""

    named: Named | None
    member: MemberId
    node: NodeId
    written_s: float

    @property
    def object(self) -> ObjectId:
        """Empty when the path was removed."""
        return self.named.object if self.named is not None else NOTHING


class Entry(msgspec.Struct, frozen=True):
    """One path. `conflicts`: concurrent versions that lost; `earlier`: what other nodes wrote before, newest first."""

    path: str
    current: Version
    conflicts: tuple[Version, ...] = ()
    earlier: tuple[Version, ...] = ()


class Names:
    """See the module. Its two `…_changed` calls keep it up to date."""

    def __init__(
        self, records: RecordsView, membership: MembershipView, quarantine: Quarantine = NO_QUARANTINE
    ) -> None:
        self._records = records
        self._quarantine = quarantine
        self._membership = membership
        self._entries: dict[Key, Entry] = {}
        self._paths: dict[str, Key] | None = None
        self.membership_changed()

    # Reading.

    def find(self, path: str) -> Entry | None:
        """The entry of a path that leads somewhere, or has a conflict that does."""
        return self._entries.get(key_of(path))

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """All entries whose path is `prefix` or begins with it, in the order of their paths."""
        if self._paths is None:
            self._paths = {self._entries[key].path: key for key in self._entries}
            self._paths = dict(sorted(self._paths.items()))
        for path, key in self._paths.items():
            if path.startswith(prefix):
                yield self._entries[key]

    def referenced(self) -> dict[ObjectId, int]:
        """Every object that a path leads to, losers of conflicts included, with its size in bytes."""
        found: dict[ObjectId, int] = {}
        for entry in self._entries.values():
            for version in (entry.current, *entry.conflicts):
                if version.named is not None:
                    found[version.named.object] = version.named.stored_bytes
        return found

    # Keeping up to date.

    def records_changed(self, changes: Sequence[RecordChange]) -> bool:
        """Records changed; whether a path leads elsewhere now."""
        keys = dict.fromkeys(
            change.key for change in changes if change.topic == TOPIC_OBJECTS and change.key.kind == KIND_NAME
        )
        return self._refresh(list(keys))

    def membership_changed(self) -> bool:
        """Who may write changed; whether a path leads elsewhere now."""
        known = dict.fromkeys(self._records.keys(TOPIC_OBJECTS, KIND_NAME))
        return self._refresh([*known, *(key for key in self._entries if key not in known)])

    # Operations: each returns the items to write, or raises `CollaError`.

    def name(
        self, named: Named, author: MemberId, expected: ObjectId | None = None, *, replace: bool = False
    ) -> Items:
        """Let `named.path` lead to an object. With `expected`: only if it leads there (`NOTHING`: nowhere) now.

        Raises `bad_name`, `not_allowed`, `changed_meanwhile` (not as expected), `name_taken` (another member's).
        """
        path = self.check(named.path, author, expected, replace=replace)
        return [(key_of(path), encode(msgspec.structs.replace(named, path=path)))]

    def remove(
        self, path: str, author: MemberId, expected: ObjectId | None = None, *, replace: bool = False
    ) -> Items:
        """Let the path lead nowhere. Raises as `name`, and `not_found`."""
        path = clean_path(path)
        if self.find(path) is None:
            raise no_such_object(path)
        self.check(path, author, expected, replace=replace)
        return [(key_of(path), encode(Removed()))]

    def check(
        self, path: str, author: MemberId, expected: ObjectId | None = None, *, replace: bool = False
    ) -> str:
        """Whether `author` may write the path now; returns it cleaned. Raises as `name`."""
        path = clean_path(path)
        if not self._may_write(author):
            raise CollaError(
                "not_allowed",
                "Guests may get objects but not put any.",
                "Ask an administrator to be a member.",
            )
        entry = self.find(path)
        current = entry.current if entry is not None else None
        if expected is not None:
            if (current.object if current is not None else NOTHING) != expected:
                raise CollaError(
                    "changed_meanwhile",
                    f"{path!r} leads elsewhere by now.",
                    "Look at it again: `colla object show`.",
                )
        elif not replace and current is not None and current.named is not None and current.member != author:
            owner = self._membership.member(current.member)
            raise CollaError(
                "name_taken",
                f"{path!r} is {owner.name if owner is not None else 'another member'}'s.",
                "Choose another name, or say that it shall be replaced: --replace.",
            )
        return path

    # Inside.

    def _may_write(self, member: MemberId) -> bool:
        info = self._membership.member(member)
        return info is not None and info.role != Role.GUEST

    def _refresh(self, keys: Sequence[Key]) -> bool:
        changed = False
        for key in keys:
            entry = self._read(key)
            if entry == self._entries.get(key):
                continue
            changed = True
            self._paths = None
            if entry is None:
                del self._entries[key]
            else:
                self._entries[key] = entry
        return changed

    def _read(self, key: Key) -> Entry | None:
        return self._quarantine.read("the name", key.subject, lambda: self._merge(key), None)

    def _merge(self, key: Key) -> Entry | None:
        """The path as its records give it; None when neither it nor a conflict leads anywhere."""
        records = [record for record in self._records.versions(TOPIC_OBJECTS, key) if self._counts(record)]
        free = undominated(records)
        if not free:
            return None
        versions = [self._version(record) for record in free]
        others = [version for version in versions[1:] if version.object != versions[0].object]
        path = next((one.named.path for one in versions if one.named is not None), None)
        if path is None:
            return None
        earlier = [self._version(record) for record in records if record not in free]
        earlier.sort(key=lambda version: (-version.written_s, version.node))
        return Entry(path, versions[0], tuple(others), tuple(earlier))

    def _counts(self, record: Record) -> bool:
        writer = self._membership.writer(record)
        return writer is not None and writer.role is not Role.GUEST

    def _version(self, record: Record) -> Version:
        body = decode(record.body)
        writer = self._membership.writer(record)
        member = writer.member if writer is not None else MemberId(b"")
        named = body if isinstance(body, Named) else None
        return Version(named, member, record.log.node, record.stamp.wall_ms / 1000)


def no_such_object(path: str) -> CollaError:
    """Nothing is called so (`not_found`)."""
    return CollaError("not_found", f"There is no object called {path!r}.", "`colla ls` lists them.")
