"""Links and addresses: whom this node dials, and where members' nodes may be found.

Absent members are not forgotten: the present nodes dial each of them about once per `dial_interval_s` in all, backing off
to `dial_interval_max_s`, at every known address; without this, healed partitions would never merge. At the start all
are dialled at once. Links to ring neighbours and partners are kept, and dialled again when they are gone. After a sleep
no link is trusted: the others have closed theirs long ago, and nobody tells. The last known addresses of each node stay
on the disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import msgspec

from colla.kernel.config import PresenceConfig
from colla.kernel.effects import CloseLink, Dial, DropCell, KeepLinks, NoteAddresses, StoreCell
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.errors import UNDECODABLE
from colla.model.ids import KEY_BYTES, NodeId

CELL_PREFIX = "presence/addresses/"
DIALS_PER_ROUND_MAX = 8
BACKOFF = 1.5
LATER_SIDE_S = 1.0
"""The node with the higher id waits so long for the other's link, lest both dial at once."""

_addresses_decoder = msgspec.msgpack.Decoder(tuple[str, ...])


@dataclass(slots=True)
class _Target:
    """When an absent node is dialled again by this node."""

    interval_s: float
    next_s: float


class Links:
    """Which links are up, which are accepted, and which are wanted."""

    def __init__(
        self,
        config: PresenceConfig,
        outbox: Outbox,
        rng: Random,
        own: NodeId,
        cells: Mapping[str, bytes],
    ) -> None:
        """`cells` as found on the disk."""
        self._config = config
        self._outbox = outbox
        self._rng = rng
        self._own = own
        self._links: dict[NodeId, bool] = {}
        self._accepted: tuple[NodeId, ...] | None = None
        self._observed: dict[NodeId, tuple[str, ...]] = {}
        self._addresses: dict[NodeId, tuple[str, ...]] = {}
        self._targets: dict[NodeId, _Target] = {}
        self._dialled_s: dict[NodeId, float] = {}
        self._missing_s: dict[NodeId, float] = {}
        self._reopened: dict[NodeId, None] = {}
        self._kept: tuple[NodeId, ...] = ()
        for name in sorted(cells):
            if name.startswith(CELL_PREFIX):
                self._restore(name, cells[name])

    # Links.

    def opened(self, peer: NodeId, addresses: Sequence[str]) -> None:
        """A link is up, not accepted yet."""
        self._links[peer] = False
        self._accepted = None
        self._observed[peer] = tuple(addresses[: self._config.addresses_max])

    def accept(self, peer: NodeId) -> None:
        """The peer on this link is a member's node."""
        self._links[peer] = True
        self._accepted = None
        self._missing_s.pop(peer, None)
        self._targets.pop(peer, None)
        # What was seen comes after what the peer says of itself: behind a router it may not work again.
        known = self._addresses.get(peer, ())
        observed = [address for address in self._observed.pop(peer, ()) if address not in known]
        first = self._config.addresses_max // 2
        self._note(peer, (*known[:first], *observed[:first], *known[first:]))

    def closed(self, peer: NodeId, now: Instant) -> None:
        """The link is gone."""
        self._links.pop(peer, None)
        self._observed.pop(peer, None)
        self._accepted = None
        if peer in self._reopened:
            del self._reopened[peer]
            self.dial_all([peer], now)

    def reopen_all(self) -> None:
        """After a sleep links are dead or as good as dead: close each, and dial its peer again once it is closed."""
        self._dialled_s.clear()
        self._missing_s.clear()
        self._reopened = dict.fromkeys(self._links)
        for peer in self._links:
            self._outbox.put(CloseLink(peer, "this computer slept"))

    def accepted(self, peer: NodeId) -> bool:
        return self._links.get(peer, False)

    def all_accepted(self) -> tuple[NodeId, ...]:
        """Sorted."""
        if self._accepted is None:
            self._accepted = tuple(sorted(peer for peer, accepted in self._links.items() if accepted))
        return self._accepted

    def keep(self, nodes: Iterable[NodeId]) -> None:
        """These links must stay open."""
        kept = tuple(sorted(dict.fromkeys(nodes)))
        if kept != self._kept:
            self._kept = kept
            self._outbox.put(KeepLinks(kept))

    def want(self, nodes: Iterable[NodeId], now: Instant) -> None:
        """Dial those of the nodes to which there is no link; the node with the lower id first."""
        for node in nodes:
            if node in self._links or node == self._own:
                continue
            since_s = self._missing_s.setdefault(node, now.boot_s)
            last_s = self._dialled_s.get(node, float("-inf"))
            patient = self._own > node and now.boot_s - since_s < LATER_SIDE_S
            if not patient and now.boot_s - last_s >= self._config.link_retry_s:
                self._dial(node, now)

    # Addresses.

    def addresses(self, node: NodeId) -> tuple[str, ...]:
        """Where the node may be found; empty when nothing is known."""
        return self._addresses.get(node, ())

    def announced(self, node: NodeId, addresses: Sequence[str]) -> None:
        """The node says where it can be reached: that comes first, before what was seen earlier."""
        if addresses:
            known = [address for address in self._addresses.get(node, ()) if address not in addresses]
            self._note(node, (*addresses, *known))

    def _note(self, node: NodeId, addresses: tuple[str, ...]) -> None:
        addresses = addresses[: self._config.addresses_max]
        if node != self._own and self._addresses.get(node, ()) != addresses:
            self._addresses[node] = addresses
            self._outbox.put(NoteAddresses(node, addresses))
            self._outbox.persist(StoreCell(CELL_PREFIX + node.hex(), msgspec.msgpack.encode(addresses)))

    def _restore(self, name: str, value: bytes) -> None:
        try:
            node = bytes.fromhex(name.removeprefix(CELL_PREFIX))
            addresses = _addresses_decoder.decode(value)
        except (ValueError, *UNDECODABLE):
            self._outbox.notify("addresses_damaged", "The last addresses of a computer cannot be read.")
            self._outbox.persist(DropCell(name))
            return
        if len(node) == KEY_BYTES:
            self._addresses[NodeId(node)] = addresses[: self._config.addresses_max]

    def keep_only(self, members: dict[NodeId, None]) -> None:
        """Forget the addresses of all others."""
        for node in [node for node in self._addresses if node not in members]:
            del self._addresses[node]
            self._outbox.persist(DropCell(CELL_PREFIX + node.hex()))
        for known in (self._dialled_s, self._missing_s, self._targets):
            for node in [node for node in known if node not in members]:
                del known[node]

    # The absent.

    def dial_all(self, nodes: Sequence[NodeId], now: Instant) -> None:
        """Dial everybody at once: this node just started, or woke up."""
        for node in nodes:
            if node not in self._links and self._addresses.get(node):
                self._outbox.put(NoteAddresses(node, self._addresses[node]))
                self._dial(node, now)

    def seek(self, absent: Sequence[NodeId], seekers: int, now: Instant) -> None:
        """Dial those of the absent whose turn has come; `seekers` nodes share this work."""
        wanted = dict.fromkeys(absent)
        for node in [node for node in self._targets if node not in wanted]:
            del self._targets[node]
        dials = 0
        for node in absent:
            target = self._targets.get(node)
            if target is None:
                interval_s = self._config.dial_interval_s
                wait_s = self._rng.uniform(0.0, 1.0) * interval_s * seekers
                self._targets[node] = _Target(interval_s, now.boot_s + wait_s)
            elif now.boot_s >= target.next_s and dials < DIALS_PER_ROUND_MAX and node not in self._links:
                dials += 1
                wait_s = self._rng.uniform(0.5, 1.5) * target.interval_s * seekers
                target.next_s = now.boot_s + wait_s
                target.interval_s = min(target.interval_s * BACKOFF, self._config.dial_interval_max_s)
                self._dial(node, now)

    def _dial(self, node: NodeId, now: Instant) -> None:
        addresses = self._addresses.get(node)
        if addresses:
            self._dialled_s[node] = now.boot_s
            self._outbox.put(Dial(self._outbox.new_id(), node, addresses))
