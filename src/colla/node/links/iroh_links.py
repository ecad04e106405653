"""The links of a real node, over iroh: one connection per peer, opened when needed, agreed on by both.

Owns the endpoint (and so the UDP port), what is known about each peer, the bounds on strangers and the relays in
use. Invariants: at most one link per peer; `link_opened` and `link_closed` alternate for each peer; a frame
queued is sent on the link that is up next, or dropped and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
from collections.abc import Collection

import iroh
import msgspec

from colla.model.ids import NodeId, short
from colla.model.keys import SecretKey
from colla.node.links.agreement import (
    INCARNATION_BYTES,
    REPLY_BYTES,
    Hello,
    Reply,
    Verdict,
    decode_reply,
)
from colla.node.links.chores import Chores
from colla.node.links.dialler import ABANDONED, connect_known
from colla.node.links.door import RELAYED, Door, ip_of
from colla.node.links.endpoint import bind_endpoint, explain
from colla.node.links.frame_queue import FrameQueue
from colla.node.links.interface import (
    DIAL_TIMEOUT_S,
    FRAME_BYTES_MAX,
    LinkCounters,
    LinkError,
    LinkEvents,
    PathInfo,
)
from colla.node.links.link import Link
from colla.node.links.peer import Peer
from colla.node.links.reachability import Reachability
from colla.node.links.strangers import STRANGER_SECONDS_MAX, STRANGERS_MAX, AddressQuotas, Allowance
from colla.node.links.stream import IrohStream
from colla.node.links.tally import Tally

logger = logging.getLogger("colla.links")

PEERS_MAX = 10_000
REDIAL_PAUSE_S = 1.0
"""After a failed dial, `send` does not dial the same peer again for this long; `dial` always may."""
DUPLICATE_WAIT_S = 1.0
"""How long the link that made mine a duplicate may take to show up here before I insist on mine."""
SLOW_DIAL_S = 0.3
"""A dial that takes longer waits for a router, perhaps."""
ROUTER_FORGETS_S = 300.0
"""Routers let in packets from where packets went less than so long ago; most forget sooner."""
LINK_IDLE_S = 30.0
CLOSE_TIMEOUT_S = 0.5
NOT_ACCEPTED = 4
TOO_MUCH = 5


class IrohLinks:
    """`Links` over iroh. Made by `bind`."""

    def __init__(
        self,
        endpoint: iroh.Endpoint,
        secret: SecretKey,
        port: int,
        alpn: bytes,
        events: LinkEvents,
        host: str,
    ) -> None:
        self.node_id = NodeId(secret.public)
        self.port = port
        self._endpoint: iroh.Endpoint | None = endpoint
        self._alpn = alpn
        self._events = events
        self._reachability = Reachability(endpoint, host, port, events.addresses_changed)
        self._incarnation = secrets.token_bytes(INCARNATION_BYTES)
        self._next_serial = itertools.count(1).__next__
        self._peers: dict[NodeId, Peer] = {}
        self._quotas = AddressQuotas()
        self._tally = Tally()
        self._chores = Chores()
        self._farewells = Chores()
        """Links being shut, which `close` waits for."""
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def bind(
        cls, secret: SecretKey, port: int, group_alpn: bytes, events: LinkEvents, bind_host: str = "0.0.0.0"
    ) -> IrohLinks:
        """Listen on UDP `port` (0: any free one). Raises `CollaError` (`port_in_use`, `cannot_bind`).

        Only nodes that speak `group_alpn` get through. On `0.0.0.0` IPv6 is served on the same port.
        """
        endpoint, bound = await bind_endpoint(secret, port, group_alpn, bind_host)
        links = cls(endpoint, secret, bound, group_alpn, events, bind_host)
        links._chores.spawn(Door(links._answer, links._chores, links._tally).keep(endpoint))
        return links

    # -- what the node asks -----------------------------------------------------------------------------

    def send(self, peer: NodeId, frame: bytes, *, datagram: bool) -> None:
        """See `Links.send`."""
        if len(frame) > FRAME_BYTES_MAX:
            logger.error("a frame of %d bytes for %s is too long and was dropped", len(frame), short(peer))
            self._tally.drop("too_long")
            return
        known = self._peers.get(peer)
        if known is None or self._endpoint is None:
            self._tally.drop("unreachable")
            return
        link = known.link if known.link is not None and not known.link.ending else None
        if datagram and link is not None and link.send_datagram(frame):
            return
        if datagram and link is None:
            self._tally.drop("datagram_stale", int(len(known.datagrams) == known.datagrams.maxlen))
            known.datagrams.append(frame)
        elif not known.queue.put(frame):
            self._tally.drop("queue_full")
            return
        if link is not None:
            link.wake()
        elif known.link is None:
            self._dial_for_waiting(known)

    def note_addresses(self, peer: NodeId, addresses: tuple[str, ...]) -> None:
        """See `Links.note_addresses`."""
        known = self._named(peer)
        if known is not None:
            known.note(addresses)

    async def dial(self, peer: NodeId, addresses: tuple[str, ...], timeout_s: float = DIAL_TIMEOUT_S) -> bool:
        """See `Links.dial`."""
        known = self._named(peer)
        if known is None:
            return False
        known.note(addresses)
        deadline = self._loop.time() + timeout_s
        while self._endpoint is not None and (remaining := deadline - self._loop.time()) > 0:
            if known.link is not None and not known.link.ending:
                return True
            task = known.dialling or self._start_dial(known)
            done, _ = await asyncio.wait((task,), timeout=remaining)
            if done and not task.cancelled():
                return task.result()
            if done and known.dialling is None:
                # `close_link` ended the dial.
                return False
        return known.link is not None

    async def open_stream(self, peer: NodeId, kind: str) -> IrohStream:
        """See `Links.open_stream`."""
        if not await self.dial(peer, ()):
            raise LinkError(f"node {short(peer)} cannot be reached")
        link = self._peers[peer].link
        if link is None:
            raise LinkError(f"the link to node {short(peer)} closed at once")
        return await link.open_stream(kind)

    def set_accepted(self, peer: NodeId, accepted: bool) -> None:
        """See `Links.set_accepted`."""
        known = self._named(peer) if accepted else self._peers.get(peer)
        if known is None or known.accepted == accepted:
            return
        known.accepted = accepted
        self._learn_address(known)
        link = known.link
        if link is None:
            return
        link.accepted = accepted
        if accepted:
            known.stop_timer()
        else:
            self._limit(known, link)
            self._chores.spawn(link.abort_streams())

    def close_link(self, peer: NodeId, reason: str) -> None:
        """See `Links.close_link`."""
        known = self._peers.get(peer)
        if known is None:
            return
        if known.dialling is not None:
            known.dialling.cancel()
            known.dialling = None
        link = known.link
        if link is None:
            self._tally.drop("link_closed", known.drop_waiting())
            self._forget_stranger(known)
            return
        last_frames, known.queue = known.queue, FrameQueue()
        link.over = True
        self._farewells.spawn(link.shut(reason, last_frames))
        self._gone(known, reason)

    def my_addresses(self) -> tuple[str, ...]:
        """See `Links.my_addresses`."""
        return self._reachability.addresses()

    def reachable(self) -> bool:
        """See `Links.reachable`."""
        return self._reachability.reachable()

    def unreached(self) -> tuple[NodeId, ...]:
        """See `Links.unreached`."""
        return tuple(sorted(peer.node_id for peer in self._peers.values() if peer.unreached))

    def path(self, peer: NodeId) -> PathInfo | None:
        """See `Links.path`."""
        known = self._peers.get(peer)
        paths = known.link.paths() if known is not None and known.link is not None else ()
        return paths[0] if paths else None

    def counters(self) -> LinkCounters:
        """See `Links.counters`."""
        return self._tally.snapshot()

    def close_idle(self, keep: Collection[NodeId]) -> None:
        """See `Links.close_idle`."""
        idle_since = self._loop.time() - LINK_IDLE_S
        for known in list(self._peers.values()):
            link = known.link
            if link is not None and link.idle and link.used_at < idle_since and known.node_id not in keep:
                self.close_link(known.node_id, "idle")

    def close_all(self, reason: str) -> None:
        """Close every link; this node goes on listening."""
        for peer in list(self._peers):
            self.close_link(peer, reason)

    async def close(self) -> None:
        """See `Links.close`."""
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is None:
            return
        self.close_all("the node has stopped")
        await self._farewells.settle()
        # iroh waits for dials to dead addresses to drain, which nobody needs: every link has been closed by now.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await endpoint.close()
        await self._chores.end()
        self._peers.clear()
        self._reachability.release()
        # iroh keeps the socket open until the last Python object with a handle of its is freed.
        del endpoint

    # -- relays and addresses of this node ---------------------------------------------------------------

    async def use_relay(self, url: str) -> bool:
        """Be reachable through a member's relay too: True once connected (within 5 s). Tried until `drop_relay`."""
        return await self._reachability.use_relay(url)

    async def drop_relay(self, url: str) -> None:
        """Stop using a relay, as its member is gone."""
        await self._reachability.drop_relay(url)

    async def add_external_address(self, address: str) -> None:
        """Tell peers an `ip:port` at which others have seen this node, so that they can try it directly."""
        await self._reachability.add_external_address(address)

    def tell_address(self, address: str) -> None:
        """The owner says where others reach this node: `name` or `name:port`; empty takes it back."""
        self._reachability.tell_address(address)

    # -- dialling ---------------------------------------------------------------------------------------

    def _dial_for_waiting(self, known: Peer) -> None:
        if known.dialling is not None:
            return
        pausing = self._loop.time() < known.failed_at + REDIAL_PAUSE_S
        if self._endpoint is None or not known.addresses or pausing:
            self._tally.drop("unreachable", known.drop_waiting())
            return
        self._start_dial(known)

    def _start_dial(self, known: Peer) -> asyncio.Task[bool]:
        task = self._chores.spawn(self._dial(known))
        known.dialling = task
        return task

    async def _dial(self, known: Peer) -> bool:
        """Bring a link up. Bounded in time; on failure what waited for the link is dropped."""
        why = "no answer"
        known.spoken_at = self._loop.time()
        slow = self._loop.call_later(SLOW_DIAL_S, self._events.dial_slow, known.node_id)
        try:
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                if known.link is not None and known.link.ending:
                    await known.link.gone.wait()
                forced = False
                while known.link is None and await self._introduce(known, forced) is Verdict.DUPLICATE:
                    forced = not await self._came_up(known)
        except TimeoutError:
            pass
        except (LinkError, iroh.IrohError, ValueError) as error:
            why = explain(error)
        finally:
            slow.cancel()
            known.spoken_at = self._loop.time()
            known.agreement.withdraw()
            if known.dialling is asyncio.current_task():
                known.dialling = None
        if known.link is None:
            known.failed_at = self._loop.time()
            known.unreached = True
            self._tally.dials_failed += 1
            self._tally.drop("unreachable", known.drop_waiting())
            logger.debug("dialling %s failed: %s", short(known.node_id), why)
        return known.link is not None

    async def _came_up(self, known: Peer) -> bool:
        try:
            async with asyncio.timeout(DUPLICATE_WAIT_S):
                return await known.link_up.wait()
        except TimeoutError:
            return False

    async def _introduce(self, known: Peer, forced: bool) -> Verdict:
        """Connect, say hello, and make this the link if the peer agrees."""
        endpoint = self._endpoint
        if endpoint is None:
            raise LinkError("the links are closed")
        connection = await connect_known(
            endpoint, known.node_id, lambda: known.addresses, known.news, self._alpn
        )
        del endpoint
        used = False
        try:
            control = await connection.open_bi()
            # The peer's own dial may have been granted meanwhile; a hello now would read as "I lost that link".
            if known.agreement.up:
                return Verdict.DUPLICATE
            await control.send().write_all(known.agreement.hello(forced=forced).encode())
            reply = decode_reply(await control.recv().read_exact(REPLY_BYTES))
            if reply.verdict is Verdict.BUSY:
                raise LinkError("the peer takes no more strangers for now")
            used = known.agreement.concluded(reply)
            if used:
                known.sees_me_at = reply.seen
                self._learn_address(known)
                self._adopt(known, connection, control)
            return reply.verdict
        finally:
            if not used:
                connection.close(ABANDONED, b"not needed")

    def _learn_address(self, known: Peer) -> None:
        """Behind a NAT, the address at which a member sees this node is how others may get through to it."""
        if known.accepted and known.sees_me_at and self._reachability.is_news(known.sees_me_at):
            self._chores.spawn(self._reachability.add_external_address(known.sees_me_at))

    # -- being dialled ----------------------------------------------------------------------------------

    async def _answer(
        self, connection: iroh.Connection, control: iroh.BiStream, hello: Hello, origin: str
    ) -> bool:
        """Reply to a hello; whether this connection became the link (called by the door)."""
        if self._endpoint is None:
            return False
        peer = NodeId(connection.remote_id().to_bytes())
        known = self._peers.get(peer)
        ip = ip_of(origin)
        if known is None or not known.accepted:
            refused = self._why_refused(ip)
            if refused:
                self._tally.drop(refused)
                await control.send().write_all(Reply(Verdict.BUSY, self._incarnation, 0).encode())
                return False
        if known is None:
            known = self._peers[peer] = Peer(self.node_id, peer, self._incarnation, self._next_serial)
        since = self._loop.time() - ROUTER_FORGETS_S
        if not any(peer.spoken_to(ip, since) for peer in self._peers.values()):
            self._reachability.got_through(ip)
        seen = "" if origin == RELAYED else origin
        reply = msgspec.structs.replace(known.agreement.answer(hello), seen=seen)
        if reply.verdict is not Verdict.GRANTED:
            await control.send().write_all(reply.encode())
            return False
        try:
            await control.send().write_all(reply.encode())
        except BaseException:
            if known.link is None:
                known.agreement.lost()
                self._forget_stranger(known)
            raise
        if known.agreement.serial != reply.serial or self._peers.get(peer) is not known:
            # A newer one was agreed on, or everything closed, while the reply was being written.
            return False
        known.ip = ip
        self._adopt(known, connection, control)
        return True

    def _why_refused(self, ip: str) -> str:
        strangers = sum(peer.link is not None and not peer.accepted for peer in self._peers.values())
        if strangers >= STRANGERS_MAX or len(self._peers) >= PEERS_MAX:
            return "too_many_strangers"
        return "" if self._quotas.link(ip, self._loop.time()) else "address_busy"

    # -- links coming and going -------------------------------------------------------------------------

    def _adopt(self, known: Peer, connection: iroh.Connection, control: iroh.BiStream) -> None:
        old = known.link
        link = Link(known.node_id, connection, control, known.queue, self, self._tally)
        link.accepted = known.accepted
        known.link = link
        known.unreached = False
        known.link_up.set()
        known.stop_timer()
        if old is not None:
            replaced = "a newer link took its place"
            old.fail(ABANDONED, replaced)
            self._chores.spawn(old.ended())
            self._tally.links_closed += 1
            self._events.link_closed(known.node_id, replaced)
        link.start()
        if not known.accepted:
            self._limit(known, link)
        addresses = tuple(path.address for path in link.paths())
        known.note(addresses)
        self._tally.links_opened += 1
        self._events.link_opened(known.node_id, addresses)
        while known.datagrams and known.link is link:
            frame = known.datagrams.popleft()
            if not link.send_datagram(frame) and not known.queue.put(frame):
                self._tally.drop("queue_full")
        link.wake()

    def _limit(self, known: Peer, link: Link) -> None:
        """The peer of this link is not accepted: it gets little room and little time."""
        known.allowance = Allowance()
        known.stop_timer()
        known.timer = self._loop.call_later(
            STRANGER_SECONDS_MAX, link.fail, NOT_ACCEPTED, "not accepted in time"
        )

    def link_ended(self, link: Link, reason: str) -> None:
        """A link ended by itself or by the peer (called by the link, once)."""
        known = self._peers.get(link.peer)
        if known is None or known.link is not link:
            return
        self._chores.spawn(link.ended())
        self._gone(known, reason)
        if known.waiting():
            self._dial_for_waiting(known)

    def _gone(self, known: Peer, reason: str) -> None:
        known.link = None
        known.spoken_at = self._loop.time()
        known.link_up.clear()
        known.agreement.lost()
        known.stop_timer()
        self._tally.links_closed += 1
        self._forget_stranger(known)
        self._events.link_closed(known.node_id, reason)

    def frame_arrived(self, link: Link, frame: bytes, *, datagram: bool) -> None:
        """A link received a frame (called by the link)."""
        known = self._peers.get(link.peer)
        if known is None or known.link is not link:
            return
        if not known.accepted:
            within = known.allowance.take(len(frame))
            if not within or not self._quotas.received(known.ip, len(frame), self._loop.time()):
                self._tally.drop("stranger_limit")
                link.fail(TOO_MUCH, "too much before being accepted")
                return
        self._events.frame_received(link.peer, frame)

    def stream_arrived(self, link: Link, kind: str, stream: IrohStream) -> None:
        """A link received a stream from an accepted peer (called by the link)."""
        self._events.stream_opened(link.peer, kind, stream)

    # -- small things -----------------------------------------------------------------------------------

    def _named(self, peer: NodeId) -> Peer | None:
        """The peer, remembered from now on; None for this node itself or beyond the bound."""
        known = self._peers.get(peer)
        if known is None:
            if peer == self.node_id or self._endpoint is None:
                return None
            if len(self._peers) >= PEERS_MAX:
                self._tally.drop("too_many_peers")
                return None
            known = self._peers[peer] = Peer(self.node_id, peer, self._incarnation, self._next_serial)
        known.noted = True
        return known

    def _forget_stranger(self, known: Peer) -> None:
        if not known.noted and not known.accepted and known.link is None and not known.waiting():
            self._peers.pop(known.node_id, None)
