"""The wires between computers: how long packets take, which get lost, who is cut off from whom.

A `Rule` is a fault: it may cut a direction between two computers, and it may pass its verdict on each parcel. Rules
compose: a parcel gets through when all rules let it. Lines have a delay each way, jitter, random loss and rates, and
`distances` may lie between them. All that leaves a line waits for what left before it: messages and objects alike.
Computers may live in homes, behind routers. What is built on the wires (links that retransmit and time out) is in `links`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import msgspec

from colla.kernel.messages import Message
from colla.model.ids import NodeId
from colla.sim.homes import Home, Nat
from colla.sim.lines import HOME as HOME
from colla.sim.lines import LAN as LAN
from colla.sim.lines import Distances
from colla.sim.lines import Line as Line
from colla.sim.world import World

if TYPE_CHECKING:
    from colla.sim.links import Link, SimLinks

RETRANSMIT_FIRST_S = 0.05
RETRANSMIT_MAX_S = 2.0
"""A lost frame is sent again after so long, doubled each time (QUIC's probe timeout on a short path)."""


QUEUE_S_MAX = 1.0
"""A datagram that would wait longer than this for its turn on a line is dropped, as routers drop."""
PACKET_BYTES = 50
"""What IP, UDP and QUIC add to what is sent."""


class Verdict(msgspec.Struct, frozen=True):
    """What a rule does with a parcel: `copies` of it arrive (0: it is dropped), each so much later.

    Unless `in_order`, it may be overtaken by those behind it, even on one link.
    """

    copies: int = 1
    delay_s: float = 0.0
    in_order: bool = True


PASS = Verdict()
DROP = Verdict(copies=0)


class Parcel(msgspec.Struct, frozen=True):
    """One frame or datagram on its way between two computers (by name)."""

    source: str
    target: str
    message: Message
    size_bytes: int
    datagram: bool


class Rule:
    """A fault of the network. The base lets everything pass."""

    def cuts(self, source: str, target: str) -> bool:
        """Whether no packet gets from `source` to `target`. May depend on nothing but the two names."""
        return False

    def judge(self, parcel: Parcel) -> Verdict:
        """What becomes of a parcel. Links do not repeat a frame that a rule drops: as if its link had broken."""
        return PASS


class Partition(Rule):
    """Computers of different sides do not reach each other; those of no side (bridges) reach everybody."""

    def __init__(self, *sides: Iterable[str]) -> None:
        self._side_of = {name: number for number, side in enumerate(sides) for name in side}

    def cuts(self, source: str, target: str) -> bool:
        one, other = self._side_of.get(source), self._side_of.get(target)
        return one is not None and other is not None and one != other


class OneWay(Rule):
    """Nothing gets from the sources to the targets; the other direction works."""

    def __init__(self, sources: Iterable[str], targets: Iterable[str]) -> None:
        self._sources = tuple(sources)
        self._targets = tuple(targets)

    def cuts(self, source: str, target: str) -> bool:
        return source in self._sources and target in self._targets


class Losing(Rule):
    """The parcels with messages of these kinds are dropped, or delayed, at most `count` of them."""

    def __init__(
        self,
        kinds: tuple[type[Message], ...],
        *,
        targets: Sequence[str] = (),
        count: int = 1 << 62,
        verdict: Verdict = DROP,
    ) -> None:
        """`targets`: only parcels to these computers (empty: to all)."""
        self.left = count
        self._kinds = kinds
        self._targets = tuple(targets)
        self._verdict = verdict

    def judge(self, parcel: Parcel) -> Verdict:
        if not self.left or not isinstance(parcel.message, self._kinds):
            return PASS
        if self._targets and parcel.target not in self._targets:
            return PASS
        self.left -= 1
        return self._verdict


class Station(Protocol):
    """A computer as the network sees it."""

    name: str
    address: str
    line: Line

    @property
    def awake(self) -> bool:
        """Whether power is on and it does not sleep: else packets to it are lost."""
        ...

    @property
    def links(self) -> SimLinks | None:
        """The links of the process that runs there now."""
        ...


class Uplink:
    """The way out of one line: `free_s` is when all that was sent so far has left."""

    __slots__ = ("free_s",)

    def __init__(self) -> None:
        self.free_s = 0.0


@dataclass(slots=True, eq=False)
class Relay:
    """A relay of a member. `guests`: who can be reached over it."""

    url: str
    station: Station
    admits: Callable[[NodeId], bool]
    guests: dict[NodeId, Station] = field(default_factory=dict)
    runs: bool = True


class Path(msgspec.Struct):
    """What is true of packets from one computer to another until something changes. `jitter_s` is a mean."""

    cut: bool
    delay_s: float
    jitter_s: float
    loss: float
    uplink: Uplink | None
    """None on a LAN, where a switch leads from each to each."""
    upload_bytes_s: float
    bytes_s: float
    """The narrower of the two lines."""


class Network:
    """All wires, and the register of who listens where."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.frames = 0
        self.datagrams = 0
        self.delivered = 0
        self.bytes = 0
        self._rng = world.random("network")
        self._at: dict[str, Station] = {}
        self._rules: list[Rule] = []
        self._judges: list[Rule] = []
        self.distances: Distances | None = None
        """How far apart lines with regions are; set before anybody is plugged in, or call `changed`."""
        self._paths: dict[tuple[str, str], Path] = {}
        self._uplinks: dict[str, Uplink] = {}
        self._homes: dict[str, Home] = {}
        self._inside: dict[str, Home] = {}
        self._homes_built = 0
        self.relays: dict[str, Relay] = {}
        """The relays that run, by URL."""
        self._links: dict[int, Link] = {}
        self._serial = 0

    # -- computers ------------------------------------------------------------------------------------------

    def plug_in(self, address: str, station: Station) -> None:
        """From now on this computer is at the address."""
        self._at[address] = station

    def unplug(self, address: str) -> None:
        """Nobody is at the address any more."""
        self._at.pop(address, None)

    def at(self, address: str) -> Station | None:
        return self._at.get(address)

    # -- rules ----------------------------------------------------------------------------------------------

    def add(self, rule: Rule) -> Rule:
        """Put a rule into force."""
        self._rules.append(rule)
        self.changed()
        return rule

    def remove(self, rule: Rule) -> None:
        """The rule holds no more."""
        self._rules.remove(rule)
        self.changed()

    def heal(self) -> None:
        """No rule holds any more."""
        self._rules.clear()
        self.changed()

    def changed(self) -> None:
        """Rules changed, or a computer went to sleep, woke up or died: links look whether they still hear."""
        self._paths.clear()
        self._judges = [rule for rule in self._rules if type(rule).judge is not Rule.judge]
        for serial, link in list(self._links.items()):
            if link.over:
                del self._links[serial]
            else:
                link.review()

    # -- packets --------------------------------------------------------------------------------------------

    def path(self, source: Station, target: Station) -> Path:
        """What packets from one computer to another meet."""
        pair = (source.name, target.name)
        path = self._paths.get(pair)
        if path is None:
            path = self._paths[pair] = self._survey(source, target)
        return path

    def _survey(self, source: Station, target: Station) -> Path:
        cut = any(rule.cuts(source.name, target.name) for rule in self._rules)
        here, there = self._homes.get(source.name), self._homes.get(target.name)
        if here is not None and here is there:
            return Path(
                cut, 2 * LAN.delay_s, 2 * LAN.jitter_s, 0.0, None, LAN.upload_bytes_s, LAN.upload_bytes_s
            )
        one = source.line if here is None else here.line
        other = target.line if there is None else there.line
        delay_s = one.delay_s + other.delay_s
        if self.distances is not None:
            delay_s += self.distances.delay_s(one, other)
        name = source.name if here is None else f"home {here.number}"
        return Path(
            cut,
            delay_s,
            one.jitter_s + other.jitter_s,
            one.loss + other.loss,
            self._uplinks.setdefault(name, Uplink()),
            one.upload_bytes_s,
            min(one.upload_bytes_s, other.download_bytes_s),
        )

    def is_open(self, source: Station, target: Station, via: Relay | None = None) -> bool:
        """Whether packets get from one computer to the other now (over the relay `via`), but for random loss."""
        if via is not None:
            relay = via.station
            works = via.runs and relay.links is not None
            return works and self.is_open(source, relay) and self.is_open(relay, target)
        return source.awake and target.awake and not self.path(source, target).cut

    def connected(self, one: Station, other: Station) -> bool:
        """Whether packets get through both ways."""
        return self.is_open(one, other) and self.is_open(other, one)

    def judge(self, parcel: Parcel) -> Verdict:
        """What the rules do with a parcel; delays add up, the fewest copies count unless some are added."""
        copies, delay_s, in_order = 1, 0.0, True
        for rule in self._judges:
            verdict = rule.judge(parcel)
            if not verdict.copies:
                return DROP
            copies = max(copies, verdict.copies)
            delay_s += verdict.delay_s
            in_order = in_order and verdict.in_order
        return Verdict(copies, delay_s, in_order)

    @property
    def judges(self) -> bool:
        """Whether any rule looks at parcels."""
        return bool(self._judges)

    def delay_s(self, source: Station, target: Station, via: Relay | None = None) -> float:
        """How long one packet takes now."""
        if via is not None:
            return self.delay_s(source, via.station) + self.delay_s(via.station, target)
        path = self.path(source, target)
        return path.delay_s + (self._rng.expovariate(1 / path.jitter_s) if path.jitter_s else 0.0)

    def is_lost(self, source: Station, target: Station, via: Relay | None = None) -> bool:
        """Whether this one packet falls victim to random loss."""
        if via is not None:
            return self.is_lost(source, via.station) or self.is_lost(via.station, target)
        loss = self.path(source, target).loss
        return loss > 0.0 and self._rng.random() < loss

    def reliable_delay_s(self, source: Station, target: Station, via: Relay | None = None) -> float:
        """How long a frame takes that is sent again until it arrives."""
        total_s, again_s = self.delay_s(source, target, via), RETRANSMIT_FIRST_S
        while self.is_lost(source, target, via):
            total_s += again_s + self.delay_s(source, target, via)
            again_s = min(2 * again_s, RETRANSMIT_MAX_S)
        return total_s

    def datagram_s(
        self, source: Station, target: Station, size_bytes: int, via: Relay | None = None
    ) -> float | None:
        """Send a datagram: when it arrives, in seconds from now, or None when it is lost. One look at the path."""
        if via is not None:
            left_s = self.upload_s(source, target, size_bytes, via)
            lost = left_s > QUEUE_S_MAX or self.is_lost(source, target, via)
            open_now = self.is_open(source, target, via)
            return left_s + self.delay_s(source, target, via) if open_now and not lost else None
        path = self._paths.get((source.name, target.name)) or self.path(source, target)
        left_s = self._leave(path, size_bytes)
        if path.cut or left_s > QUEUE_S_MAX or not (source.awake and target.awake):
            return None
        if path.loss and self._rng.random() < path.loss:
            return None
        return left_s + path.delay_s + (self._rng.expovariate(1 / path.jitter_s) if path.jitter_s else 0.0)

    def frame_s(self, source: Station, target: Station, size_bytes: int, via: Relay | None = None) -> float:
        """Send a frame over an open path: when it arrives, in seconds from now, sent again until it does."""
        if via is None:
            path = self._paths.get((source.name, target.name)) or self.path(source, target)
            if not path.loss:
                jitter_s = self._rng.expovariate(1 / path.jitter_s) if path.jitter_s else 0.0
                return self._leave(path, size_bytes) + path.delay_s + jitter_s
        return self.upload_s(source, target, size_bytes, via) + self.reliable_delay_s(source, target, via)

    def upload_s(self, source: Station, target: Station, size_bytes: int, via: Relay | None = None) -> float:
        """Put so many bytes on the way: the seconds until all of them have left, after all that was sent before."""
        if via is not None:
            there_s = self.upload_s(source, via.station, size_bytes)
            return there_s + self.upload_s(via.station, target, size_bytes)
        return self._leave(self.path(source, target), size_bytes)

    def _leave(self, path: Path, size_bytes: int) -> float:
        uplink = path.uplink
        if uplink is None:
            return size_bytes / path.upload_bytes_s
        now_s = self.world.now_s
        begin_s = uplink.free_s if uplink.free_s > now_s else now_s
        uplink.free_s = begin_s + (size_bytes + PACKET_BYTES) / path.upload_bytes_s
        return uplink.free_s - now_s

    def random_share(self) -> float:
        """A random number in [0, 1) of the network's own."""
        return self._rng.random()

    # -- homes ----------------------------------------------------------------------------------------------

    def build_home(self, nat: Nat, line: Line = HOME) -> Home:
        """A home with a router of that kind, nobody in it yet."""
        self._homes_built += 1
        return Home(self._homes_built, nat, line)

    def move_in(self, home: Home, station: Station) -> tuple[str, str]:
        """The computer is behind this home's router from now on: its inner and outer address (see `Home.move_in`)."""
        self.move_out(station)
        inner, outer = home.move_in(station.name)
        self._homes[station.name] = home
        self._inside[inner] = home
        for address in filter(None, (inner, outer)):
            self.plug_in(address, station)
        self.changed()
        return inner, outer

    def move_out(self, station: Station) -> None:
        """The computer is in no home any more."""
        home = self._homes.pop(station.name, None)
        if home is not None:
            for address in filter(None, home.move_out(station.name)):
                self.unplug(address)
            self.changed()

    def home_of(self, station: Station) -> Home | None:
        """The home in which a computer is, if it is behind a router."""
        return self._homes.get(station.name)

    def knocks_in(self, source: Station, target: Station, address: str) -> bool:
        """`source` sends a packet to `target` at this address, unasked: whether routers let it get there.

        Open wires are another question. Whatever comes of it, the packet opens the router of `source` for an answer.
        """
        here, there, inside = self.home_of(source), self.home_of(target), self._inside.get(address)
        if inside is not None:
            return here is inside
        if here is not None:
            here.sent(source.name, target.name, self.world.now_s)
        if there is None:
            return True
        known = here is None or here.nat is not Nat.SYMMETRIC
        return here is not there and there.lets_in(target.name, source.name, known, self.world.now_s)

    def meets(self, one: Station, other: Station) -> bool:
        """Whether two computers that dial each other at the same time meet, whatever the wires are."""
        homes = [home for station in (one, other) if (home := self.home_of(station)) is not None]
        if len(homes) < 2 or homes[0] is homes[1] or any(home.nat is Nat.FORWARDING for home in homes):
            return True
        return all(home.nat is Nat.KEEPING for home in homes)

    def seen_at(self, source: Station, by: Station) -> str:
        """The address from which the packets of `source` come, as `by` sees it."""
        home = self.home_of(source)
        if home is None:
            return source.address
        if self.home_of(by) is home:
            return home.inner[source.name]
        return home.outer.get(source.name) or home.draw_address()

    def open_relay(self, url: str, station: Station, admits: Callable[[NodeId], bool]) -> Relay:
        """A relay runs there now, for the nodes that it admits."""
        self.relays[url] = relay = Relay(url, station, admits)
        return relay

    def close_relay(self, relay: Relay) -> None:
        """It runs no more; links over it hear nothing from now on."""
        if self.relays.get(relay.url) is relay:
            del self.relays[relay.url]
        relay.runs = False
        self.changed()

    # -- links ----------------------------------------------------------------------------------------------

    def register(self, link: Link) -> None:
        """Remember a link, to tell it when the wires change."""
        self._serial += 1
        self._links[self._serial] = link

    def count(self, size_bytes: int, datagram: bool) -> None:
        """A frame or datagram leaves."""
        self.bytes += size_bytes
        if datagram:
            self.datagrams += 1
        else:
            self.frames += 1
