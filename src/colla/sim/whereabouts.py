"""Where a computer can be reached, and the relays of members: what `node/links/reachability` and `node/relaying` do.

A computer behind a router announces its inner address, those at which others saw it, and the relay over which it can be
reached; peers in the same home find each other as by zeroconf. A relay that the owner contributes runs as long as the
node does, and admits members only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from colla.kernel.events import AddressesChanged, PeerFound
from colla.sim.homes import Home, Nat
from colla.sim.links import RELAY_PREFIX
from colla.sim.network import Relay

if TYPE_CHECKING:
    from colla.sim.computer import Computer
    from colla.sim.process import Process

LOOK_S = 2.0
RELAYS_MAX = 4
"""As in the node: relays used at once, and how often it looks which there are."""
EXTERNAL_MAX = 4
"""Addresses that others saw; of more, the oldest are forgotten."""


class Whereabouts:
    """Of one computer."""

    def __init__(self, computer: Computer) -> None:
        self.home: Home | None = None
        self._computer = computer
        self._network = computer.network
        self._external: dict[str, None] = {}
        self._relay: Relay | None = None
        """The one that runs here."""
        self._used: dict[str, Relay] = {}

    def live_in(self, home: Home) -> None:
        """The computer is in that home from now on, behind its router."""
        computer, network = self._computer, self._network
        self.home = home
        network.unplug(computer.address)
        inner, outer = network.move_in(home, computer)
        computer.address = outer or inner
        self._external.clear()
        self._tell()

    def move(self, address: str) -> None:
        """The computer is in no home from now on, at this address."""
        computer, network = self._computer, self._network
        network.unplug(computer.address)
        network.move_out(computer)
        self.home = None
        self._external.clear()
        computer.address = address
        network.plug_in(address, computer)
        self._tell()

    def addresses(self) -> tuple[str, ...]:
        """Where it tells others that it can be reached."""
        computer, home = self._computer, self.home
        if home is None:
            return (computer.address,)
        told = (home.outer[computer.name],) if home.nat is Nat.FORWARDING else ()
        relayed = tuple(RELAY_PREFIX + url for url in list(self._used)[:1])
        return tuple(dict.fromkeys((*told, *self._external, home.inner[computer.name], *relayed)))

    def event(self) -> AddressesChanged:
        """What the agents are told."""
        reachable = self.home is None or self.home.nat is Nat.FORWARDING
        return AddressesChanged(self.addresses(), reachable=reachable)

    def _tell(self) -> None:
        self._computer.post(self.event())

    def seen_at(self, address: str) -> None:
        """A peer sees this computer there."""
        home = self.home
        if home is None or address in self._external or address == home.inner[self._computer.name]:
            return
        if len(self._external) >= EXTERNAL_MAX:
            del self._external[next(iter(self._external))]
        self._external[address] = None
        self._tell()

    # -- the life of a process ------------------------------------------------------------------------------

    def began(self, process: Process) -> None:
        """The node's process starts: it is told where it is, finds the others at home, runs and uses relays."""
        process.post(self.event())
        home = self.home
        if home is not None:
            for name in home.inner:
                other = self._network.at(home.inner[name])
                if other is not None and other is not self._computer and other.links is not None:
                    process.post(PeerFound(other.links.node, (home.inner[name],)))
                    other.links.tell_found(self._computer.node, home.inner[self._computer.name])
        self.contributes()
        self._look(process)

    def ended(self) -> None:
        """The process is gone, and its relay with it."""
        if self._relay is not None:
            self._network.close_relay(self._relay)
            self._relay = None
        self._leave(dict(self._used))

    def contributes(self) -> None:
        """The owner decides whether a relay runs here."""
        computer = self._computer
        url = computer.settings.contribution.relay if computer.runs else ""
        if self._relay is not None and self._relay.url != url:
            self._network.close_relay(self._relay)
            self._relay = None
        if url and self._relay is None:
            self._relay = self._network.open_relay(
                url, computer, lambda node: computer.runs and computer.core.membership.node(node) is not None
            )

    def _leave(self, relays: dict[str, Relay]) -> None:
        for url, relay in relays.items():
            del self._used[url]
            relay.guests.pop(self._computer.node, None)

    def _look(self, process: Process) -> None:
        computer = self._computer
        if computer.process is not process:
            return
        computer.world.after(LOOK_S, self._look, process)
        if not (self._network.relays or self._used) or self.home is None or not computer.up:
            return
        before = list(self._used)
        self._leave({url: relay for url, relay in self._used.items() if not self._usable(relay)})
        for url in self._offered():
            relay = self._network.relays.get(url)
            if relay is not None and url not in self._used and self._usable(relay):
                self._used[url] = relay
                relay.guests[computer.node] = computer
        if list(self._used) != before:
            self._tell()

    def _usable(self, relay: Relay) -> bool:
        station, computer = relay.station, self._computer
        return relay.runs and relay.admits(computer.node) and self._network.connected(computer, station)

    def _offered(self) -> list[str]:
        presence = self._computer.core.presence
        entries = [presence.entry(node) for node in presence.present()]
        urls = [entry.announcement.contribution.relay for entry in entries if entry is not None]
        return sorted(dict.fromkeys(filter(None, urls)))[:RELAYS_MAX]
