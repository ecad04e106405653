"""The wires between computers: how long packets take, which get lost, who is cut off from whom.

A `Rule` is a fault: it may cut a direction between two computers, and it may pass its verdict on each parcel. Rules
compose: a parcel gets through when all rules let it. Lines have a delay each way, jitter, random loss and an upload
rate. What is built on the wires (links that retransmit and time out) is in `links`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from colla.kernel.messages import Message
from colla.sim.world import World

if TYPE_CHECKING:
    from colla.sim.links import Link, SimLinks

RETRANSMIT_FIRST_S = 0.05
RETRANSMIT_MAX_S = 2.0
"""A lost frame is sent again after so long, doubled each time (QUIC's probe timeout on a short path)."""


class Line(msgspec.Struct, frozen=True):
    """A computer's way to the others: one-way delay of its own part, mean of the jitter, loss, upload rate."""

    delay_s: float = 0.008
    jitter_s: float = 0.002
    loss: float = 0.0
    upload_bytes_s: float = 2_500_000.0


LAN = Line(delay_s=0.0002, jitter_s=0.0001, upload_bytes_s=100_000_000.0)
HOME = Line()


class Verdict(msgspec.Struct, frozen=True):
    """What a rule does with a parcel: `copies` of it arrive (0: it is dropped), each so much later."""

    copies: int = 1
    delay_s: float = 0.0


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
        self._cut: dict[tuple[str, str], bool] = {}
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
        self._cut.clear()
        self._judges = [rule for rule in self._rules if type(rule).judge is not Rule.judge]
        for serial, link in list(self._links.items()):
            if link.over:
                del self._links[serial]
            else:
                link.review()

    # -- packets --------------------------------------------------------------------------------------------

    def is_open(self, source: Station, target: Station) -> bool:
        """Whether packets get from one computer to the other now, but for random loss."""
        if not (source.awake and target.awake):
            return False
        pair = (source.name, target.name)
        cut = self._cut.get(pair)
        if cut is None:
            cut = self._cut[pair] = any(rule.cuts(*pair) for rule in self._rules)
        return not cut

    def connected(self, one: Station, other: Station) -> bool:
        """Whether packets get through both ways."""
        return self.is_open(one, other) and self.is_open(other, one)

    def judge(self, parcel: Parcel) -> Verdict:
        """What the rules do with a parcel; delays add up, the fewest copies count unless some are added."""
        copies, delay_s = 1, 0.0
        for rule in self._judges:
            verdict = rule.judge(parcel)
            if not verdict.copies:
                return DROP
            copies = max(copies, verdict.copies)
            delay_s += verdict.delay_s
        return Verdict(copies, delay_s)

    @property
    def judges(self) -> bool:
        """Whether any rule looks at parcels."""
        return bool(self._judges)

    def delay_s(self, source: Station, target: Station) -> float:
        """How long one packet takes now."""
        one, other = source.line, target.line
        jitter_s = one.jitter_s + other.jitter_s
        return one.delay_s + other.delay_s + (self._rng.expovariate(1 / jitter_s) if jitter_s else 0.0)

    def is_lost(self, source: Station, target: Station) -> bool:
        """Whether this one packet falls victim to random loss."""
        loss = source.line.loss + target.line.loss
        return loss > 0.0 and self._rng.random() < loss

    def reliable_delay_s(self, source: Station, target: Station) -> float:
        """How long a frame takes that is sent again until it arrives."""
        total_s, again_s = self.delay_s(source, target), RETRANSMIT_FIRST_S
        while self.is_lost(source, target):
            total_s += again_s + self.delay_s(source, target)
            again_s = min(2 * again_s, RETRANSMIT_MAX_S)
        return total_s

    def random_share(self) -> float:
        """A random number in [0, 1) of the network's own."""
        return self._rng.random()

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
