"""Radicale's storage, kept as the service's named objects, so that all replicas have the same calendars.

A collection `everyone/calendar` is the name `everyone/calendar/.props` (its properties, as JSON); its items are the
names beside it, `everyone/calendar/lunch.ics`. Nothing is kept in the replica but copies of immutable objects.

- Every request works on one look at the names, taken when Radicale takes the storage's lock. An item's ETag is a hash
  of its text, the sync token one over names and objects: alike at every replica.
- A write says what that look showed (compare-and-set). If another replica was faster, `ChangedMeanwhile` leaves here
  and the client gets 412, as for an ETag that no longer holds.
- Two replicas that write before they have heard of each other both succeed. The group orders the two records by stamp,
  the same way on every computer: within a moment all replicas show the later one. The other is kept as a conflict.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from email.utils import formatdate
from hashlib import sha256
from typing import Any
from urllib.parse import quote, unquote

from door import NOTHING, ChangedMeanwhile, Door, Name
from radicale import item as radicale_item
from radicale import pathutils
from radicale.storage import BaseCollection, BaseStorage, ComponentNotFoundError

PROPS = ".props"
"""No item can be called so: Radicale refuses names that begin with a dot."""
KEPT_ITEMS_MAX = 20_000
"""Items that are kept parsed; the least recently used one goes."""
KEPT_PROPS_MAX = 1_000
KEPT_TOKENS_MAX = 200
"""Sync tokens whose state is known here; with an older one the client looks at everything again (RFC 6578, 3.6)."""
TOKEN = "http://radicale.org/ns/sync/"
SAFE = " !$&'()+,;=@~"
"""Characters beside letters and digits that stand in names as they are."""


@dataclass(frozen=True)
class Parsed:
    """What Radicale asks of an item again and again, so that it is parsed once."""

    text: str
    etag: str
    uid: str
    name: str
    component: str
    time_range: tuple[int, int]


class Look:
    """The names as one request sees them: those of the group, and what the request itself changed."""

    def __init__(self, names: Iterable[Name]) -> None:
        self.names = {one.name: one for one in names}

    def collection(self, path: str) -> dict[str, Name]:
        """The items of a collection by their encoded hrefs."""
        prefix = f"{_encoded(path)}/"
        found = {
            name.removeprefix(prefix): one for name, one in self.names.items() if name.startswith(prefix)
        }
        return {href: one for href, one in found.items() if "/" not in href and href != PROPS}

    def has(self, path: str) -> bool:
        """Whether there is such a collection. The root always is."""
        return not path or _props(path) in self.names

    def children(self, path: str) -> list[str]:
        """The paths of the collections right inside."""
        prefix = f"{_encoded(path)}/" if path else ""
        inside = (name.removeprefix(prefix) for name in self.names if name.startswith(prefix))
        parts = (name.split("/") for name in inside)
        return [_decoded(prefix + part[0]) for part in parts if len(part) == 2 and part[1] == PROPS]


class Collection(BaseCollection):
    """A calendar, an address book, or the folder of one person's."""

    def __init__(self, storage: Storage, path: str) -> None:
        self._storage = storage
        self._path = path

    @property
    def path(self) -> str:
        return self._path

    def get_all(self) -> Iterator[radicale_item.Item]:
        for href in self._storage.look.collection(self._path):
            item = self.get(unquote(href))
            if item is not None:
                yield item

    def get_multi(self, hrefs: Iterable[str]) -> Iterator[tuple[str, radicale_item.Item | None]]:
        for href in hrefs:
            yield href, self.get(href)

    def get(self, href: str) -> radicale_item.Item | None:
        """The item called so; None when there is none."""
        name = self._storage.look.names.get(self._name(href)) if _is_plain(href) else None
        parsed = self._storage.parsed(name, self) if name is not None else None
        if name is None or parsed is None:
            return None
        return radicale_item.Item(
            collection=self,
            href=href,
            last_modified=formatdate(name.written_at, usegmt=True),
            text=parsed.text,
            etag=parsed.etag,
            uid=parsed.uid,
            name=parsed.name,
            component_name=parsed.component,
            time_range=parsed.time_range,
        )

    def upload(
        self, href: str, item: radicale_item.Item
    ) -> tuple[radicale_item.Item, radicale_item.Item | None]:
        if not _is_plain(href):
            raise pathutils.UnsafePathError(href)
        old = self.get(href)
        self._storage.write(self._name(href), item.serialize())
        new = self.get(href)
        assert new is not None
        return new, old

    def delete(self, href: str | None = None) -> None:
        if href is not None:
            if self._name(href) not in self._storage.look.names:
                raise ComponentNotFoundError(href)
            self._storage.remove(self._name(href))
            return
        prefix = f"{_encoded(self._path)}/"
        inside = [name for name in self._storage.look.names if name.startswith(prefix)]
        # Its properties last: as long as something is left, the collection can be seen and removed again.
        for name in sorted(inside, key=lambda name: name == _props(self._path)):
            self._storage.remove(name)

    def get_meta(self, key: str | None = None) -> Any:
        props = self._storage.props(self._path)
        return props if key is None else props.get(key)

    def set_meta(self, props: Mapping[str, str]) -> None:
        self._storage.write(_props(self._path), json.dumps(dict(props), sort_keys=True))

    @property
    def last_modified(self) -> str:
        names = [*self._storage.look.collection(self._path).values()]
        names += [self._storage.look.names[_props(self._path)]] if self._path else []
        return formatdate(max((one.written_at for one in names), default=0.0), usegmt=True)

    def sync(self, old_token: str = "") -> tuple[str, Iterable[str]]:
        state = {href: one.object for href, one in self._storage.look.collection(self._path).items()}
        digest = sha256("\n".join(f"{href} {state[href]}" for href in sorted(state)).encode()).hexdigest()
        changed = self._storage.changes(self._path, state, digest, old_token.removeprefix(TOKEN))
        return TOKEN + digest, [unquote(href) for href in changed]

    def _name(self, href: str) -> str:
        return f"{_encoded(self._path)}/{_part(href)}"


class Storage(BaseStorage):
    """See the module. One per replica; its threads share the parsed items, each request has its own look."""

    _is_collision_free = True
    _supports_unicode = True
    _supports_trailing_whitespace = True
    _supports_problematic_chars = True

    def __init__(self, configuration: Any, door: Door | None = None) -> None:
        super().__init__(configuration)
        self._door = door or Door.of_replica()
        self._writing = threading.Lock()
        self._thread = threading.local()
        self._keeping = threading.Lock()
        self._kept: OrderedDict[str, Parsed] = OrderedDict()
        self._kept_props: OrderedDict[str, dict[str, str]] = OrderedDict()
        self._tokens: OrderedDict[tuple[str, str], dict[str, str]] = OrderedDict()

    @property
    def look(self) -> Look:
        """What this request sees."""
        look: Look = self._thread.look
        return look

    @contextmanager
    def acquire_lock(self, mode: str, user: str = "", *args: object, **kwargs: object) -> Iterator[None]:
        """Requests that write come one after the other at this replica; for the others there is compare-and-set."""
        if mode == "w":
            self._writing.acquire()
        try:
            self._thread.look = Look(self._door.names())
            yield
        finally:
            if mode == "w":
                self._writing.release()

    def discover(
        self, path: str, depth: str = "0", child_context_manager: Any = None, user_groups: Any = ()
    ) -> Iterator[Collection | radicale_item.Item]:
        path = pathutils.strip_path(path)
        if not self.look.has(path):
            parent, _, href = path.rpartition("/")
            item = Collection(self, parent).get(href) if parent and self.look.has(parent) else None
            if item is not None:
                yield item
            return
        collection = Collection(self, path)
        yield collection
        if depth == "0":
            return
        yield from collection.get_all()
        for child in self.look.children(path):
            yield Collection(self, child)

    def create_collection(
        self,
        href: str,
        items: Iterable[radicale_item.Item] | None = None,
        props: Mapping[str, str] | None = None,
    ) -> tuple[Collection, dict[str, radicale_item.Item], list[str]]:
        path = pathutils.strip_path(href)
        collection = Collection(self, path)
        if not props:
            self.found(path, {})
            return collection, {}, []
        before = {unquote(one) for one in self.look.collection(path)}
        replaced, created = {}, []
        collection.set_meta(props)
        suffix = {"VCALENDAR": ".ics", "VADDRESSBOOK": ".vcf"}.get(props.get("tag", ""))
        for item in (items or ()) if suffix else ():
            name = item.uid if item.uid.lower().endswith(str(suffix)) else f"{item.uid}{suffix}"
            if not _is_plain(name):
                name = radicale_item.get_etag(item.uid).strip('"') + str(suffix)
            _, old = collection.upload(name, item)
            if old is None:
                created.append(name)
            else:
                replaced[name] = old
        for gone in sorted(before - {*replaced, *created}):
            collection.delete(gone)
        return collection, replaced, created

    def found(self, path: str, props: Mapping[str, str]) -> None:
        """Create a collection unless there is one. Replicas that do so at once agree."""
        if not self.look.has(path):
            try:
                Collection(self, path).set_meta(props)
            except ChangedMeanwhile:
                self._thread.look = Look(self._door.names())

    def move(self, item: radicale_item.Item, to_collection: BaseCollection, to_href: str) -> None:
        assert item.collection is not None and item.href is not None
        # In this order a failure in between leaves the item twice rather than not at all.
        to_collection.upload(to_href, item)
        if (item.collection.path, item.href) != (to_collection.path, to_href):
            item.collection.delete(item.href)

    def verify(self) -> bool:
        """Whether everything can be read."""
        with self.acquire_lock("r"):
            return all(self._door.read(name)[0] for name in self.look.names)

    # -- what collections ask ---------------------------------------------------------------------------------

    def parsed(self, name: Name, collection: Collection) -> Parsed | None:
        """The item that a name leads to; None when it was removed since this request looked."""
        with self._keeping:
            if name.object in self._kept:
                self._kept.move_to_end(name.object)
                return self._kept[name.object]
        try:
            object_id, content = self._door.read(name.name)
        except KeyError:
            return None
        # It may lead elsewhere since this request looked: then that is what it sees, and what a write compares with.
        self.look.names[name.name] = replace(name, object=object_id)
        item = radicale_item.Item(collection=collection, text=content.decode())
        parsed = Parsed(
            item.serialize(), item.etag, item.uid, item.name, item.component_name, item.time_range
        )
        with self._keeping:
            self._kept[object_id] = parsed
            if len(self._kept) > KEPT_ITEMS_MAX:
                self._kept.popitem(last=False)
        return parsed

    def props(self, path: str) -> dict[str, str]:
        """The properties of a collection, empty for what is none."""
        name = self.look.names.get(_props(path))
        if name is None:
            return {}
        with self._keeping:
            if name.object in self._kept_props:
                return self._kept_props[name.object]
        try:
            object_id, content = self._door.read(name.name)
        except KeyError:
            return {}
        self.look.names[name.name] = replace(name, object=object_id)
        props: dict[str, str] = radicale_item.check_and_sanitize_props(json.loads(content))
        with self._keeping:
            self._kept_props[object_id] = props
            if len(self._kept_props) > KEPT_PROPS_MAX:
                self._kept_props.popitem(last=False)
        return props

    def changes(self, path: str, state: dict[str, str], token: str, old_token: str) -> list[str]:
        """What differs between the states of two sync tokens; `state` is that of `token`. Raises `ValueError`."""
        with self._keeping:
            old = self._tokens.get((path, old_token)) if old_token else {}
            self._tokens[path, token] = state
            if len(self._tokens) > KEPT_TOKENS_MAX:
                self._tokens.popitem(last=False)
        if old is None:
            raise ValueError("this replica does not know that sync token")
        return [href for href in sorted({**old, **state}) if old.get(href) != state.get(href)]

    def write(self, name: str, text: str) -> None:
        """Let a name lead to this text, if it still leads where this request saw it. Raises `ChangedMeanwhile`."""
        seen = self.look.names.get(name)
        object_id = self._door.write(name, text.encode(), seen.object if seen is not None else NOTHING)
        self.look.names[name] = Name(name, object_id, time.time())

    def remove(self, name: str) -> None:
        """Let a name lead nowhere, if it still leads where this request saw it. Raises `ChangedMeanwhile`."""
        self._door.remove(name, self.look.names[name].object)
        del self.look.names[name]


def _is_plain(href: str) -> bool:
    return bool(pathutils.is_safe_filesystem_path_component(href))


def _part(text: str) -> str:
    return quote(text, safe=SAFE)


def _encoded(path: str) -> str:
    return "/".join(_part(part) for part in path.split("/"))


def _decoded(path: str) -> str:
    return "/".join(unquote(part) for part in path.split("/"))


def _props(path: str) -> str:
    return f"{_encoded(path)}/{PROPS}"
