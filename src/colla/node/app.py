"""A real node: wires agents, runner, links, store, objects, environments, access and API into one process.

Owns their order of life: the disk first, then links, agents, environments, gateway and API; the other way round at
the end. `run_node` is what `colla up` runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from pathlib import Path
from random import SystemRandom

import msgspec

import colla
from colla.access.forwards import Forwards
from colla.access.tunnels import serve_tunnel
from colla.agents.administration_requests import Depart
from colla.agents.requests import Contribute, Contributed
from colla.agents.router import Router
from colla.kernel.codec import UnknownMessage
from colla.kernel.config import Config
from colla.kernel.durable import Durable
from colla.kernel.effects import Notice
from colla.kernel.events import (
    AddressesChanged,
    DialSlow,
    Event,
    LinkClosed,
    LinkOpened,
    MessageReceived,
    ObjectDamaged,
    PeerFound,
    StopRequested,
)
from colla.model.contribution import Contribution, check_contribution
from colla.model.errors import CollaError
from colla.model.ids import GroupId, NodeId
from colla.node import clock
from colla.node.api import Api
from colla.node.asking import Asking
from colla.node.attaching import check_given
from colla.node.disk import check_room
from colla.node.doors import Doors
from colla.node.executing import Executing
from colla.node.files import Files
from colla.node.founding import add_founding, has_expired, join_request
from colla.node.group_door import GroupDoor
from colla.node.links.discovery import Discovery
from colla.node.links.interface import LinkStream
from colla.node.links.iroh_links import IrohLinks
from colla.node.memory import keep_trimming, limit_arenas
from colla.node.notices import Notices
from colla.node.objects import Damage, ObjectStore, UploadLimiter, serve_objects
from colla.node.objects.fetching import Fetches
from colla.node.objects.scrubbing import Scrubber
from colla.node.observing import Observing
from colla.node.performer import NodePerformer
from colla.node.relaying import Relaying
from colla.node.replicas import Replicas
from colla.node.resolving import OBJECT_STREAM, TUNNEL_STREAM, LinkBytes, NodeResolver, NodeTunnels
from colla.node.runner import Runner
from colla.node.settings import MEMBER_KEY, NODE_KEY, Settings, read_key, read_settings, write_settings
from colla.node.store import RecordStore
from colla.protocol.membership.joining import CLOCKS_DIFFER, PASSING_CODES
from colla.protocol.views import Identity

log = logging.getLogger(__name__)

DATABASE = "group.db"
OWN_OBJECTS_BYTES = 32 * 1024**3
"""What a member's own puts may take beside what the owner gives to the group."""
ADDRESS_CHECK_S = 5.0
DISCOVERY_CHECK_S = 30.0
CONTACT_S = 10.0
RESEAL_EVERY_S = 30.0
JOIN_AGAIN_S = 5.0
PASSING_HERE = ("timeout", "disk_full", "disk_failed", "unreadable", "internal")
"""What keeps this computer from joining for now, beside what the group may say."""
ENVIRONMENTS_WAIT_S = 5.0
LEAVE_WAIT_S = 30.0


class Node:
    """One node of this computer. Make it with `Node.open`."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self.identity = Identity(GroupId(bytes.fromhex(settings.group)), read_key(folder, NODE_KEY))
        self.member_seed = read_key(folder, MEMBER_KEY).seed
        self.notices = Notices()
        self.started_s = time.time()
        self.join_problem = ""
        self.join_again = False
        self.gateway_address = ""
        self.stop_wanted = asyncio.Event()
        self.keep_replicas = False
        self.opened = False
        self._whereabouts: AddressesChanged = AddressesChanged(())
        self.whereabouts_changed = asyncio.Event()
        self._background: dict[asyncio.Task[None], None] = {}
        self._stack = contextlib.AsyncExitStack()

    @classmethod
    async def open(cls, folder: Path) -> Node:
        """Read the folder, open the disk, bind the ports. Raises `CollaError` that says what to do."""
        node = cls(folder, read_settings(folder))
        async with contextlib.AsyncExitStack() as stack:
            await node._open(stack)
            node.opened = True
            node._stack = stack.pop_all()
        return node

    async def _open(self, stack: contextlib.AsyncExitStack) -> None:
        contribution = self.settings.contribution
        self.store = await asyncio.to_thread(RecordStore.open, self.folder / DATABASE, self.notices.tell)
        stack.push_async_callback(self.store.close)
        self.objects = await ObjectStore.open(
            self.folder / "objects", contribution.disk_bytes + OWN_OBJECTS_BYTES, self._damaged
        )
        stack.push_async_callback(self.objects.close)
        self.links = await IrohLinks.bind(self.identity.secret, self.settings.port, b"colla/1", _Events(self))
        stack.push_async_callback(self.links.close)
        self.links.tell_address(contribution.address)
        if self.settings.port != self.links.port:
            self.change_settings(port=self.links.port)
        self.asking = Asking(self.post, lambda: self.runner.trouble if self.runner.resting else None)
        self.replicas = Replicas(
            self.folder / "run",
            self.objects,
            self.post,
            lambda: self.core.contribution.unsandboxed,
            lambda kind: next((each.command for each in self.settings.programs if each.kind == kind), ()),
            lambda token: self.group_door.access(token),
        )
        self.group_door = GroupDoor(self)
        stack.push_async_callback(self.group_door.close)
        await self.replicas.open()
        self.core = self._make_core()
        self.fetches = Fetches(
            self.identity.node, self.objects, lambda node: self.links.open_stream(node, OBJECT_STREAM)
        )
        self.performer = NodePerformer(
            self.core.codec,
            self.links,
            self.store,
            self.objects,
            self.fetches,
            self.replicas,
            self.asking,
            self.notices,
            lambda node: self.core.node_name(node),
        )
        self.performer.connect(self.post)
        stack.push_async_callback(self.performer.close)
        self.runner = Runner(self.core, self.performer, self._restart_core, self._agents_failed)
        scrubber = Scrubber(self.objects, self.folder / "objects")
        self._scrubber = scrubber
        self.files = Files(lambda: self.core, self.objects, self.fetches, scrubber, self.asking, self.post)
        stack.push_async_callback(self.files.close)
        self.resolver = NodeResolver(lambda: self.core, self.links, self.asking)
        self.tunnels = NodeTunnels(self.identity.node, self.links, self.replicas.endpoint_of)
        self.doors = Doors(self.resolver, self.tunnels)
        stack.push_async_callback(self.doors.close)
        self.forwards = Forwards(self.resolver, self.tunnels, SystemRandom())
        stack.push_async_callback(self.forwards.close)
        self.limiter = UploadLimiter(None)
        self.observing = Observing(self)
        self.executing = Executing(self)
        self.relaying = Relaying(lambda: self.core, self.links)
        stack.push_async_callback(self.relaying.close)
        self.api = Api(self)
        stack.push_async_callback(self.api.close)

    def _make_core(self) -> Router:
        listed = self.objects.list_objects()
        return Router(
            self.identity,
            Config(),
            SystemRandom(),
            self._durable(),
            [(item.object, item.size) for item in listed if item.complete],
            self.settings.contribution,
            self.replicas.kinds(),
            colla.__version__,
            [item.object for item in listed if not item.complete],
        )

    def _durable(self) -> Durable:
        durable = self.store.load()
        add_founding(self.folder, self.identity.group, durable)
        return durable

    def _agents_failed(self, why: CollaError) -> None:
        self.asking.restart(why)
        self.notices.tell(Notice("agents_restarted", str(why)))

    def _restart_core(self) -> Router:
        """Until now the views of the old agents stood: what runs here was found, though nothing could change.

        Raises `CollaError` while the disk takes nothing: agents that fail at once would only take the views away.
        """
        check_room(self.folder)
        # The new agents know of no link that is open: whoever was linked greets them anew.
        self.links.close_all("the node starts again")
        self.core = self._make_core()
        self.replicas.tell_kinds()
        self.post(self._whereabouts)
        return self.core

    # -- life -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live until `stop_wanted`; then say goodbye and close everything."""
        try:
            await self.group_door.open()
            await self.replicas.set_kinds(self._kinds(self.settings.contribution))
            await self.replicas.attached(ENVIRONMENTS_WAIT_S)
            self._background_of(self._watch_addresses())
            self._background_of(keep_trimming())
            self._background_of(self._scrubber.run())
            self._background_of(self._reseal())
            running = asyncio.create_task(self.runner.run(), name="runner")
            self._background_of(self._meet_contacts())
            self._background_of(self._discover())
            await self._open_doors()
            await self.relaying.start(self.settings.contribution.relay)
            await self.api.start()
            if self.settings.ticket:
                self._background_of(self._join())
            log.info("node %s of group %s is up", self.settings.node_name, self.settings.group_name)
            stopping = asyncio.create_task(self.stop_wanted.wait())
            await asyncio.wait({stopping, running}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if running.done():
                running.result()
            await self._goodbye(running)
        finally:
            for work in list(self._background):
                work.cancel()
            await asyncio.gather(*self._background, return_exceptions=True)
            self.notices.close()
            await self.replicas.close(keep_replicas=self.keep_replicas)
            await self._stack.aclose()

    async def _goodbye(self, running: asyncio.Task[None]) -> None:
        # Followers wait for ever: closing the API waits for them in vain, while the group is told of nothing.
        self.notices.close()
        self.asking.restart(
            CollaError("not_running", "This computer's node stops.", "Start it with `colla up`.")
        )
        await self.api.close()
        await self.doors.close()
        self.post(StopRequested())
        # The agents repeat their goodbye for a moment, in case that a datagram is lost.
        await asyncio.wait({running}, timeout=Config().goodbye_s)
        self.runner.stop()
        await running
        await self.runner.flush()

    @property
    def joined(self) -> bool:
        """Whether the group's records, as this node has them, name this node."""
        return self.core.membership.node(self.identity.node) is not None

    def post(self, event: Event) -> None:
        """Tell the agents."""
        self.runner.post(event)

    # -- what the owner decides -----------------------------------------------------------------------------

    async def contribute(self, contribution: Contribution) -> Contributed:
        """Take the owner's decision: to the settings, the agents and the environments, at once.

        Raises `CollaError` (`bad_contribution`, `bad_gateway`, `port_in_use`, `disk_full`), and then nothing has changed.
        """
        check_contribution(contribution)
        check_given(self, contribution)
        await self.doors.contribute(contribution.gateway)
        await self.relaying.contribute(contribution.relay)
        self.links.tell_address(contribution.address)
        self.change_settings(contribution=contribution)
        self.objects.quota_bytes = contribution.disk_bytes + OWN_OBJECTS_BYTES
        answer: Contributed = await self.asking.ask(Contribute(contribution))
        await self.replicas.set_kinds(self._kinds(contribution))
        return answer

    async def leave(self, *, now: bool = False, anyway: bool = False) -> None:
        """Let the replicas move to other computers (for a while, or not), tell the group, then stop.

        Raises `CollaError("last_administrator")`, unless it shall be `anyway`.
        """
        if self.joined:
            self.core.foundation.administering.leave(clock.now(), anyway=anyway)
        if not now:
            contribution = msgspec.structs.replace(self.core.contribution, draining=True)
            await self.asking.ask(Contribute(contribution))
            await self.replicas.emptied(LEAVE_WAIT_S)
        if self.joined:
            try:
                await self.asking.ask(Depart(anyway))
            except CollaError as error:
                # The owner leaves in any case; others see a computer that is down, and may retire it.
                log.warning("the group was not told: %s", error)
        self.stop_wanted.set()

    def change_settings(self, **changes: object) -> None:
        """Change settings on disk and in memory."""
        self.settings = msgspec.structs.replace(self.settings, **changes)
        write_settings(self.folder, self.settings)

    def _kinds(self, contribution: Contribution) -> tuple[str, ...]:
        return contribution.environments

    # -- joining --------------------------------------------------------------------------------------------

    async def _join(self) -> None:
        """Join with the ticket; while nobody can be asked, or nobody can admit yet, ask again now and then."""
        while True:
            try:
                if not self.joined:  # A crash may have come between the admission and the note of it.
                    await self.asking.ask(join_request(self.settings, self.member_seed))
                self.change_settings(ticket="")
            except CollaError as error:
                if str(error) != self.join_problem:
                    log.error("joining failed: %s", error)
                self.join_problem = str(error)
                passing = error.code in (*PASSING_CODES, *PASSING_HERE)
                # Here and there it has expired by now, whosever clock was wrong.
                over = error.code == CLOCKS_DIFFER and has_expired(self.settings)
                self.join_again = passing and not over
                if not self.join_again:
                    return
            else:
                break
            await asyncio.sleep(JOIN_AGAIN_S)
        self.join_problem, self.join_again = "", False

    # -- doors and neighbours -------------------------------------------------------------------------------

    async def _open_doors(self) -> None:
        settings = self.settings
        self.gateway_address = await self.doors.open_own(
            settings.gateway_port, fixed=settings.gateway_port_fixed
        )
        await self.doors.contribute(settings.contribution.gateway)

    async def _watch_addresses(self) -> None:
        while True:
            self.whereabouts_changed.clear()
            whereabouts = AddressesChanged(self.links.my_addresses(), self.links.reachable())
            if whereabouts != self._whereabouts:
                self._whereabouts = whereabouts
                self.post(whereabouts)
            # What links learn is told at once; interfaces that come and go tell nobody.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ADDRESS_CHECK_S):
                    await self.whereabouts_changed.wait()

    async def _meet_contacts(self) -> None:
        """While no record says that this node belongs, the contacts of its ticket are all that it knows."""
        while True:
            for peer in self.settings.peers:
                self.post(PeerFound(NodeId(bytes.fromhex(peer.node)), peer.addresses))
            if not self.settings.peers or self.joined:
                return
            await asyncio.sleep(CONTACT_S)

    async def _discover(self) -> None:
        if not self.settings.lan_discovery:
            return
        discovery = Discovery(
            self.identity.group,
            self.identity.node,
            self.links.port,
            lambda node, addresses: self.post(PeerFound(node, addresses)),
        )
        try:
            while True:
                await discovery.refresh()
                await asyncio.sleep(DISCOVERY_CHECK_S)
        finally:
            await discovery.close()

    def stream_opened(self, peer: NodeId, kind: str, stream: LinkStream) -> None:
        """An accepted peer wants objects, or a tunnel to a replica."""
        match kind:
            case "object":
                self._background_of(self._serve_objects(stream))
            case "tunnel":
                self._background_of(serve_tunnel(LinkBytes(stream), self.replicas.endpoint_of))
            case "observe":
                self._background_of(self.observing.serve(peer, stream))
            case "execute":
                self._background_of(self.executing.serve(peer, stream))
            case _:
                self._background_of(stream.abort())

    async def _serve_objects(self, stream: LinkStream) -> None:
        await serve_objects(stream, self.objects, self.limiter)

    def _background_of(self, work: object) -> None:
        running: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)  # type: ignore[arg-type]
        self._background[running] = None
        running.add_done_callback(self._background_done)

    def _background_done(self, done: asyncio.Task[None]) -> None:
        self._background.pop(done, None)
        if not done.cancelled() and done.exception() is not None:
            log.error("a background activity failed", exc_info=done.exception())

    async def _reseal(self) -> None:
        """Computers of recipients that came later get the keys of what this member sealed for them."""
        while True:
            await asyncio.sleep(RESEAL_EVERY_S)
            with contextlib.suppress(
                CollaError
            ):  # Not joined, or not met anybody yet: the next time is soon enough.
                await self.files.reseal_for_newcomers()

    # -- damage ---------------------------------------------------------------------------------------------

    def _damaged(self, damage: Damage) -> None:
        if not self.opened:
            # Found while the disk is opened: such objects do not count as held when the agents start.
            log.warning("damaged on this disk: %s", damage.why)
            return
        for object_id in damage.objects:
            self.post(ObjectDamaged(object_id, damage.why))


class _Events:
    """What links report, as events of the agents."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def link_opened(self, peer: NodeId, addresses: tuple[str, ...]) -> None:
        self._node.post(LinkOpened(peer, addresses))

    def link_closed(self, peer: NodeId, reason: str) -> None:
        self._node.post(LinkClosed(peer, reason))

    def frame_received(self, peer: NodeId, frame: bytes) -> None:
        try:
            message = self._node.core.codec.decode(frame)
        except UnknownMessage as error:
            log.info("ignoring what %s says, a newer version perhaps: %s", peer.hex()[:10], error)
            return
        except ValueError as error:
            log.warning("dropping %s: %s", peer.hex()[:10], error)
            self._node.links.close_link(peer, "malformed frame")
            return
        self._node.post(MessageReceived(peer, message))

    def dial_slow(self, peer: NodeId) -> None:
        self._node.post(DialSlow(peer))

    def addresses_changed(self) -> None:
        self._node.whereabouts_changed.set()

    def stream_opened(self, peer: NodeId, kind: str, stream: LinkStream) -> None:
        self._node.stream_opened(peer, kind, stream)


async def run_node(folder: Path) -> int:
    """Run the node of this folder until SIGTERM or SIGINT; returns the exit code. Raises `CollaError`."""
    limit_arenas()
    node = await Node.open(folder)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, node.stop_wanted.set)
    (folder / "node.pid").write_text(f"{os.getpid()}\n")
    try:
        await node.run()
    finally:
        (folder / "node.pid").unlink(missing_ok=True)
    return 0


__all__ = ["OBJECT_STREAM", "TUNNEL_STREAM", "Node", "run_node"]
