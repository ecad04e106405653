"""Weather: rules that strike at random, for scenarios. Each passes a verdict on parcels; `Network.add` puts it into force.

`network.Partition`, `network.OneWay` and `network.Losing` cut wires and strike messages of chosen kinds; these here know
nothing about messages. All draw from the `Random` that they are given.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from colla.sim.network import DROP, PASS, Parcel, Rule, Verdict


class Weather(Rule):
    """A share of the parcels from and to some computers is struck."""

    def __init__(
        self, rng: Random, share: float, sources: Iterable[str] = (), targets: Iterable[str] = ()
    ) -> None:
        """`sources` and `targets` are names of computers; none means all."""
        self.struck = 0
        self._rng = rng
        self._share = share
        self._sources = tuple(sources)
        self._targets = tuple(targets)

    def judge(self, parcel: Parcel) -> Verdict:
        if self._sources and parcel.source not in self._sources:
            return PASS
        if self._targets and parcel.target not in self._targets:
            return PASS
        if self._rng.random() >= self._share:
            return PASS
        self.struck += 1
        return self.strike(parcel)

    def strike(self, parcel: Parcel) -> Verdict:
        """What becomes of a parcel that is struck."""
        raise NotImplementedError


class Dropping(Weather):
    """Whole messages vanish, also those on links, as if the link had broken and been made again in between.

    That is worse than the loss of packets, which links repair: for that, change the line's `loss`.
    """

    def strike(self, parcel: Parcel) -> Verdict:
        return DROP


class Delaying(Weather):
    """Messages take up to `extra_s` longer; those behind them on the same link wait for them."""

    def __init__(
        self,
        rng: Random,
        extra_s: float,
        share: float = 1.0,
        sources: Iterable[str] = (),
        targets: Iterable[str] = (),
    ) -> None:
        super().__init__(rng, share, sources, targets)
        self._extra_s = extra_s

    def strike(self, parcel: Parcel) -> Verdict:
        return Verdict(delay_s=self._rng.random() * self._extra_s)


class Duplicating(Weather):
    """Messages arrive twice."""

    def strike(self, parcel: Parcel) -> Verdict:
        return Verdict(copies=2)


class Reordering(Delaying):
    """Messages are overtaken by those sent up to `extra_s` later, even on one link: more than links let happen, but
    what a mechanism sees whose messages come over an old link and a new one.
    """

    def strike(self, parcel: Parcel) -> Verdict:
        return Verdict(delay_s=self._rng.random() * self._extra_s, in_order=False)
