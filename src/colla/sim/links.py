"""The links of one node's process, as `node/links` makes them of iroh's connections, in virtual time.

A link is agreed on by both ends and carries frames, in order and reliably while it lives, and datagrams, which may be
lost. `send` dials by itself at the addresses noted. What is true of iroh is true here: lost frames are sent again; a
cut shorter than `IDLE_TIMEOUT_S` only delays them; an end that hears nothing for so long closes without a word; the
death of a process or computer is told to nobody; a process that comes back replaces its old links. `LinkOpened` and
`LinkClosed` alternate for each peer. Frames under way are lost with their link.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Protocol

from colla.kernel.messages import Message
from colla.model.ids import NodeId
from colla.sim.network import PASS, Network, Parcel, Relay, Station, Verdict
from colla.sim.world import World

IDLE_TIMEOUT_S = 30.0
"""iroh's own, which cannot be changed."""
DIAL_TIMEOUT_S = 5.0
KNOCKS_S = (0.0, 1.0, 3.0)
"""When the first packet of a dial is sent, and sent again."""
SLOW_DIAL_S = 0.3
"""A dial that takes longer is told: perhaps a router stands in between."""
REDIAL_PAUSE_S = 1.0
LINK_IDLE_S = 30.0
STRANGER_S = 10.0
"""A peer that is not accepted within this time is sent away."""
WINDOW_BYTES = 12_000
"""So much leaves before anything is acknowledged (RFC 9002, section 7.2: ten packets), also after a cut."""
FRAMES_WAITING_MAX = 4096
DATAGRAMS_WAITING_MAX = 16
ADDRESSES_MAX = 16
RELAY_PREFIX = "relay:"
"""Marks an address that is the URL of a relay, as in the node's links."""
GO_DIRECT_AFTER_S = 0.3
"""A relayed link of two computers that can meet becomes direct so soon."""
REPLACED = "a newer link took its place"


class LinkListener(Protocol):
    """What links tell the process they belong to."""

    def link_opened(self, peer: NodeId, addresses: tuple[str, ...]) -> None: ...
    def link_closed(self, peer: NodeId, reason: str) -> None: ...
    def frame_received(self, peer: NodeId, frame: bytes) -> None: ...
    def dial_slow(self, peer: NodeId) -> None: ...
    def peer_found(self, peer: NodeId, address: str) -> None: ...


@dataclass(slots=True, eq=False)
class End:
    """One of the two ends of a link. `coming`: when the last frame on its way to this end arrives."""

    links: SimLinks
    up: bool = False
    coming_s: float = 0.0
    numbered: int = 0
    held: list[tuple[int, bytes]] = field(default_factory=list)  # Frames to this end that found the way cut.
    held_since_s: float = 0.0
    silent: int = 0  # Odd while nothing can be heard here; grows with every change.
    used_s: float = 0.0


class Link:
    """One link between two processes. `pending`: the dialler has not got the answer yet; `via`: over that relay."""

    def __init__(
        self, network: Network, dialler: SimLinks, answerer: SimLinks, via: Relay | None = None
    ) -> None:
        self.via = via
        self._network = network
        self._world = network.world
        self.pending = True
        self.ends = (End(dialler), End(answerer))
        network.register(self)

    @property
    def over(self) -> bool:
        return not (self.pending or self.ends[0].up or self.ends[1].up)

    def end_of(self, links: SimLinks) -> End:
        return self.ends[0] if self.ends[0].links is links else self.ends[1]

    def other(self, end: End) -> End:
        return self.ends[1] if end is self.ends[0] else self.ends[0]

    # -- packets --------------------------------------------------------------------------------------------

    def send(self, source: End, frame: bytes, message: Message, *, datagram: bool) -> None:
        """One frame from that end to the other."""
        network, ends = self._network, self.ends
        target = ends[1] if source is ends[0] else ends[0]
        one, other = source.links.station, target.links.station
        source.used_s = self._world.now_s
        network.count(len(frame), datagram)
        verdict = PASS
        if network.judges:
            verdict = network.judge(Parcel(one.name, other.name, message, len(frame), datagram))
        for _ in range(verdict.copies):
            if datagram:
                delay_s = network.datagram_s(one, other, len(frame), self.via)
                if delay_s is not None:
                    self._world.after(delay_s + verdict.delay_s, self._arrive, target, frame, -1)
                continue
            target.numbered += 1
            if target.held or not network.is_open(one, other, self.via):
                self._hold(target, frame, target.numbered)
                self._acknowledge(target)
            else:
                self._deliver(target, frame, target.numbered, verdict)

    def _deliver(self, target: End, frame: bytes, number: int, verdict: Verdict = PASS) -> None:
        source, station = self.other(target).links.station, target.links.station
        delay_s = self._network.frame_s(source, station, len(frame), self.via) + verdict.delay_s
        arrives_s = self._world.now_s + delay_s
        if verdict.in_order:
            arrives_s = target.coming_s = max(target.coming_s, arrives_s)
        self._world.at(arrives_s, self._arrive, target, frame, number)

    def _hold(self, target: End, frame: bytes, number: int) -> None:
        if not target.held:
            target.held_since_s = self._world.now_s
        if len(target.held) < FRAMES_WAITING_MAX:
            target.held.append((number, frame))

    def _arrive(self, target: End, frame: bytes, number: int) -> None:
        if not target.up or not target.links.alive:
            return
        if not target.links.station.awake:
            if number >= 0:
                self._hold(target, frame, number)
            return
        target.used_s = self._world.now_s
        if number < 0:
            self._acknowledge(target)
        target.links.arrived(self, frame)

    def _acknowledge(self, target: End) -> None:
        """A newer packet gets there: once that is known, what was lost before is sent again (RFC 9002, section 6.1)."""
        source, waiting_bytes = self.other(target), sum(len(frame) for _, frame in target.held)
        if 0 < waiting_bytes <= WINDOW_BYTES and self.hears(target) and self.hears(source):
            way_s = self._network.reliable_delay_s(source.links.station, target.links.station, self.via)
            self._world.after(2 * way_s, self._release, target)

    def close(self, source: End, reason: str) -> None:
        """That end closes: frames sent before arrive first; a cut swallows the news of it."""
        source.up = False
        target = self.other(source)
        one, other = source.links.station, target.links.station
        if target.up and self._network.is_open(one, other, self.via):
            delay_s = self._network.reliable_delay_s(one, other, self.via)
            target.coming_s = max(target.coming_s, self._world.now_s + delay_s)
            self._world.at(target.coming_s, self._end, target, reason)
        else:
            self.review()

    def _end(self, target: End, reason: str) -> None:
        if target.up:
            target.up = False
            target.links.ended(self, reason)

    # -- silence --------------------------------------------------------------------------------------------

    def hears(self, end: End) -> bool:
        """Whether anything that the other end says can arrive at this end now."""
        source = self.other(end)
        speaks = (source.up or self.pending) and source.links.alive
        return speaks and self._network.is_open(source.links.station, end.links.station, self.via)

    def go_direct(self) -> None:
        """The two ends found a way without the relay, if there is one; from now on they use it."""
        one, other = (end.links.station for end in self.ends)
        if not self.over and self._network.meets(one, other) and self._network.connected(one, other):
            self.via = None
            self.review()

    def seen_at(self, by: SimLinks) -> str:
        """The address of the other end, as this one sees it."""
        if self.via is not None:
            return RELAY_PREFIX + self.via.url
        return self._network.seen_at(self.other(self.end_of(by)).links.station, by.station)

    def review(self) -> None:
        """The wires or an end changed: begin or end the count of silence, send what was held."""
        for end in self.ends:
            if not end.up:
                continue
            silent = not self.hears(end)
            if silent and not end.silent % 2:
                end.silent += 1
                self._world.after(IDLE_TIMEOUT_S, self._time_out, end, end.silent)
            elif not silent and end.silent % 2:
                end.silent += 1
            if end.held and not silent:
                # Probes have become rare during the cut: the longer it was, the later they find the way open.
                gap_s = self._world.now_s - end.held_since_s
                self._world.after(gap_s * self._network.random_share(), self._release, end)

    def _release(self, end: End) -> None:
        if end.up and end.held and self.hears(end):
            held, end.held = sorted(end.held), []
            for number, frame in held:
                self._deliver(end, frame, number)

    def _time_out(self, end: End, silent: int) -> None:
        if not end.up or end.silent != silent or not end.links.alive:
            return
        if not end.links.station.awake:
            # Its clock for this stands still while it sleeps.
            self._world.after(IDLE_TIMEOUT_S, self._time_out, end, silent)
            return
        self._end(end, "timed out")
        self.review()


@dataclass(slots=True, eq=False)
class Dialling:
    """A dial under way."""

    waiters: list[Callable[[bool], None]] = field(default_factory=list)
    over: bool = False


@dataclass(slots=True, eq=False)
class Peer:
    """What a process remembers of a peer."""

    addresses: tuple[str, ...] = ()
    accepted: bool = False
    link: Link | None = None
    dialling: Dialling | None = None
    failed_s: float = float("-inf")
    frames: list[tuple[bytes, Message]] = field(default_factory=list)
    datagrams: list[tuple[bytes, Message]] = field(default_factory=list)


class SimLinks:
    """All links of one process. Made when it starts, dead with it."""

    def __init__(
        self, world: World, network: Network, node: NodeId, station: Station, listener: LinkListener
    ) -> None:
        self.alive = True
        self.node = node
        self.station = station
        self.dropped = 0
        self.seen_at: Callable[[str], None] | None = None
        """Told the addresses at which accepted peers see this computer."""
        self._world = world
        self._network = network
        self._listener = listener
        self._peers: dict[NodeId, Peer] = {}

    # -- what the agents ask --------------------------------------------------------------------------------

    def send(self, peer: NodeId, frame: bytes, message: Message, *, datagram: bool) -> None:
        """Queue one frame; dial first when there is no link."""
        known = self._peers.get(peer)
        if known is None:
            self.dropped += 1
        elif known.link is not None:
            known.link.send(known.link.end_of(self), frame, message, datagram=datagram)
        elif datagram:
            del known.datagrams[: 1 - DATAGRAMS_WAITING_MAX]
            known.datagrams.append((frame, message))
            self._dial_for_waiting(peer, known)
        elif len(known.frames) < FRAMES_WAITING_MAX:
            known.frames.append((frame, message))
            self._dial_for_waiting(peer, known)
        else:
            self.dropped += 1

    def note_addresses(self, peer: NodeId, addresses: tuple[str, ...]) -> None:
        """Where `peer` may be, newest first."""
        if peer != self.node:
            known = self._peers.setdefault(peer, Peer())
            known.addresses = tuple(dict.fromkeys(addresses + known.addresses))[:ADDRESSES_MAX]

    def dial(self, peer: NodeId, addresses: tuple[str, ...], done: Callable[[bool], None]) -> None:
        """Try these and all known addresses; `done` hears whether a link is up within `DIAL_TIMEOUT_S`."""
        self.note_addresses(peer, addresses)
        known = self._peers.get(peer)
        if known is None:
            done(False)
        elif known.link is not None:
            done(True)
        else:
            self._start_dial(peer, known).waiters.append(done)

    def tell_found(self, peer: NodeId, address: str) -> None:
        """A peer was found on the same LAN."""
        self._listener.peer_found(peer, address)

    def accept(self, peer: NodeId) -> None:
        """The peer is no stranger."""
        known = self._peers.setdefault(peer, Peer())
        known.accepted = True
        if known.link is not None:
            self._hear_own_address(known.link)

    def _hear_own_address(self, link: Link) -> None:
        """An accepted peer tells at which address it sees this node."""
        other = link.other(link.end_of(self)).links.station
        if self.seen_at is not None and link.via is None:
            self.seen_at(self._network.seen_at(self.station, other))

    def close_link(self, peer: NodeId, reason: str) -> None:
        """End the link, or the dial under way."""
        known = self._peers.get(peer)
        if known is None:
            return
        if known.dialling is not None:
            self._conclude(known, known.dialling, up=False)
        link, known.link = known.link, None
        if link is None:
            self._drop_waiting(known)
        else:
            link.close(link.end_of(self), reason)
            self._listener.link_closed(peer, reason)

    def close_idle(self, keep: Collection[NodeId]) -> None:
        """Close the links unused for a while, except those to `keep`."""
        for peer, known in list(self._peers.items()):
            unused_since_s = self._world.now_s - LINK_IDLE_S
            if (
                known.link is not None
                and known.link.end_of(self).used_s < unused_since_s
                and peer not in keep
            ):
                self.close_link(peer, "idle")

    def close_all(self, reason: str) -> None:
        """The process ends in order, or its agents start again."""
        for peer in list(self._peers):
            self.close_link(peer, reason)

    def die(self) -> None:
        """The process is gone, without a word to anybody."""
        self.alive = False

    def link_to(self, peer: NodeId) -> Link | None:
        """The link to that peer, if one is up."""
        known = self._peers.get(peer)
        return None if known is None else known.link

    def peers(self) -> tuple[NodeId, ...]:
        """To whom a link is up."""
        return tuple(peer for peer, known in self._peers.items() if known.link is not None)

    # -- dialling -------------------------------------------------------------------------------------------

    def _dial_for_waiting(self, peer: NodeId, known: Peer) -> None:
        if known.dialling is not None:
            return
        if not known.addresses or self._world.now_s < known.failed_s + REDIAL_PAUSE_S:
            self._drop_waiting(known)
        else:
            self._start_dial(peer, known)

    def _drop_waiting(self, known: Peer) -> None:
        self.dropped += len(known.frames) + len(known.datagrams)
        known.frames.clear()
        known.datagrams.clear()

    def _start_dial(self, peer: NodeId, known: Peer) -> Dialling:
        if known.dialling is None:
            dialling = known.dialling = Dialling()
            for pause_s in KNOCKS_S:
                self._world.after(pause_s, self._knock, peer, known, dialling)
            self._world.after(SLOW_DIAL_S, self._slow, peer, dialling)
            self._world.after(DIAL_TIMEOUT_S, self._conclude, known, dialling)
        return known.dialling

    def _slow(self, peer: NodeId, dialling: Dialling) -> None:
        if self.alive and not dialling.over:
            self._listener.dial_slow(peer)

    def _knock(self, peer: NodeId, known: Peer, dialling: Dialling) -> None:
        if dialling.over or not self.alive:
            return
        for address in known.addresses:
            if address.startswith(RELAY_PREFIX):
                if self._knock_at_relay(peer, address.removeprefix(RELAY_PREFIX), dialling):
                    return
                continue
            station = self._network.at(address)
            if station is None or station.links is None or station.links.node != peer:
                continue
            gets_in = self._network.knocks_in(self.station, station, address)
            if gets_in and self._say_hello(station, dialling, None):
                return

    def _knock_at_relay(self, peer: NodeId, url: str, dialling: Dialling) -> bool:
        relay = self._network.relays.get(url)
        guest = None if relay is None else relay.guests.get(peer)
        if relay is None or guest is None or not relay.admits(self.node):
            return False
        return (
            guest.links is not None and guest.links.node == peer and self._say_hello(guest, dialling, relay)
        )

    def _say_hello(self, station: Station, dialling: Dialling, via: Relay | None) -> bool:
        network, here, links = self._network, self.station, station.links
        lost = network.is_lost(here, station, via) or network.is_lost(station, here, via)
        if links is None or lost:
            return False
        if not (network.is_open(here, station, via) and network.is_open(station, here, via)):
            return False
        delay_s = sum(network.delay_s(here, station, via) for _ in range(3))
        self._world.after(delay_s, links.answer, self, dialling, via)
        return True

    def answer(self, dialler: SimLinks, dialling: Dialling, via: Relay | None) -> None:
        """Another process says hello: agree on a link, unless there is one that it knows or is about to know."""
        if not self.alive or dialling.over or not self._network.is_open(dialler.station, self.station, via):
            return
        known = self._peers.setdefault(dialler.node, Peer())
        old = known.link
        if old is not None and old.other(old.end_of(self)).links is dialler:
            theirs = old.other(old.end_of(self))
            if theirs.up or old.pending:
                return
        link = Link(self._network, dialler, self, via)
        delay_s = self._network.reliable_delay_s(self.station, dialler.station, via)
        self._world.after(delay_s, dialler._granted, self.node, dialling, link)
        self._adopt(dialler.node, known, link)

    def _granted(self, peer: NodeId, dialling: Dialling, link: Link) -> None:
        link.pending = False
        known = self._peers.get(peer)
        theirs = link.other(link.ends[0])
        arrives = self._network.is_open(theirs.links.station, self.station, link.via)
        if known is None or not self.alive or dialling.over or not arrives or not theirs.up:
            link.review()
        else:
            self._adopt(peer, known, link)
            if link.via is not None:
                self._world.after(GO_DIRECT_AFTER_S, link.go_direct)

    def _adopt(self, peer: NodeId, known: Peer, link: Link) -> None:
        old, known.link = known.link, link
        end = link.end_of(self)
        end.up, end.used_s = True, self._world.now_s
        if old is not None:
            old.end_of(self).up = False
            self._listener.link_closed(peer, REPLACED)
        address = link.seen_at(self)
        self.note_addresses(peer, (address,))
        self._listener.link_opened(peer, (address,))
        if known.dialling is not None:
            self._conclude(known, known.dialling, up=True)
        while known.link is link and (known.frames or known.datagrams):
            datagram = not known.frames
            frame, message = (known.datagrams if datagram else known.frames).pop(0)
            link.send(end, frame, message, datagram=datagram)
        if known.accepted:
            self._hear_own_address(link)
        else:
            self._world.after(STRANGER_S, self._send_away, peer, known, link)
        link.review()

    def _send_away(self, peer: NodeId, known: Peer, link: Link) -> None:
        if self.alive and known.link is link and not known.accepted:
            self.close_link(peer, "not accepted in time")

    def _conclude(self, known: Peer, dialling: Dialling, up: bool = False) -> None:
        if dialling.over or not self.alive:
            return
        dialling.over = True
        known.dialling = None
        if not up and known.link is None:
            known.failed_s = self._world.now_s
            self._drop_waiting(known)
        for done in dialling.waiters:
            done(known.link is not None)

    # -- what links tell ------------------------------------------------------------------------------------

    def arrived(self, link: Link, frame: bytes) -> None:
        """A frame came out of a link."""
        one, other = link.ends
        peer = other.links.node if one.links is self else one.links.node
        if self._peers[peer].link is link:
            self._network.delivered += 1
            self._listener.frame_received(peer, frame)

    def ended(self, link: Link, reason: str) -> None:
        """A link ended by itself, or the other end closed it."""
        peer = link.other(link.end_of(self)).links.node
        known = self._peers[peer]
        if known.link is link and self.alive:
            known.link = None
            self._listener.link_closed(peer, reason)
            if known.frames or known.datagrams:
                self._dial_for_waiting(peer, known)
