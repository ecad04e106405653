"""What a node expects of its links, whoever provides them (iroh, or a twin in memory for tests).

Links carry *frames* (byte strings, in order and reliable while the link lives, or datagrams that may be
lost) and *streams* (two-way byte streams for bulk). A peer is a node id: whoever provides the links has
proved that the other end holds that key. Nothing here knows what the bytes mean.

Delivery is at most once: frames under way when a link breaks are lost, and whoever needs them sends them
again. A link that died silently is not noticed here in useful time; heartbeats above notice, and then call
`close_link` before they dial again.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import msgspec

from colla.model.ids import NodeId

FRAME_BYTES_MAX = 256 * 1024
"""The longest frame, in bytes; longer ones are never sent and get their sender dropped."""

DIAL_TIMEOUT_S = 5.0
"""How long dialling may take by default; iroh itself would try a dead address for 30 s."""

RELAY_PREFIX = "relay:"
"""Marks an address that is the URL of a relay, as in `relay:http://192.0.2.7:3340`."""


class LinkError(Exception):
    """A stream could not be opened, or ended before its data was delivered. `str()` says why."""


class PathInfo(msgspec.Struct, frozen=True):
    """The way that a link's packets take now."""

    direct: bool
    """False when a relay carries them."""
    address: str
    """`ip:port`, or `relay:URL`."""
    rtt_ms: int
    """Smoothed round-trip time in milliseconds."""


class LinkCounters(msgspec.Struct, frozen=True):
    """What went through all links since the start of the process. Bytes are of frames, without overhead."""

    frames_in: int = 0
    frames_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    datagrams_in: int = 0
    datagrams_out: int = 0
    stream_bytes_in: int = 0
    stream_bytes_out: int = 0
    links_opened: int = 0
    links_closed: int = 0
    dials_failed: int = 0
    drops: dict[str, int] = {}
    """Frames, links and streams refused or lost, by reason (`queue_full`, `unreachable`, `malformed`, …)."""


class LinkStream(Protocol):
    """One two-way byte stream. Whoever holds it must `finish` and read to the end, or `abort`."""

    async def read(self, at_most: int) -> bytes:
        """The next bytes, at most `at_most`; `b""` once the peer finished. Raises `LinkError`."""
        ...

    async def write(self, data: bytes) -> None:
        """Send `data`; returns when it is on its way, so a slow peer slows the caller. Raises `LinkError`."""
        ...

    async def finish(self) -> None:
        """End my direction and wait until the peer has everything. Raises `LinkError`."""
        ...

    async def abort(self) -> None:
        """Give up both directions at once. Never raises; further calls do nothing."""
        ...


class LinkEvents(Protocol):
    """What links report. Called on the loop; implementations never block and never raise."""

    def link_opened(self, peer: NodeId, addresses: tuple[str, ...]) -> None:
        """A link to `peer` is up; `addresses` is where the peer is seen now, the path in use first."""
        ...

    def link_closed(self, peer: NodeId, reason: str) -> None:
        """The link is gone. Called exactly once for each `link_opened`, before any further one."""
        ...

    def frame_received(self, peer: NodeId, frame: bytes) -> None:
        """One whole frame from `peer`, who may not be accepted yet."""
        ...

    def dial_slow(self, peer: NodeId) -> None:
        """A dial has not got through at once; if the peer dialled too, routers on both sides would let it."""
        ...

    def addresses_changed(self) -> None:
        """`my_addresses` or `reachable` says something new."""
        ...

    def stream_opened(self, peer: NodeId, kind: str, stream: LinkStream) -> None:
        """An accepted peer opened a stream of this kind. The callee owns it from here on."""
        ...


class Links(Protocol):
    """The links of one node: at most one per peer, opened when needed."""

    node_id: NodeId
    port: int

    def send(self, peer: NodeId, frame: bytes, *, datagram: bool) -> None:
        """Queue one frame. Never blocks, never raises.

        Dials the peer's last known addresses when no link is up. Frames that find no room in the peer's
        queue or no link are dropped and counted. With `datagram` the frame may be lost on its way, but never
        waits behind others; one too large for a datagram goes the reliable way.
        """
        ...

    def note_addresses(self, peer: NodeId, addresses: tuple[str, ...]) -> None:
        """Remember where `peer` may be reached: `ip:port`, `dns-name:port` or `relay:URL`. Newest first."""
        ...

    async def dial(self, peer: NodeId, addresses: tuple[str, ...], timeout_s: float = DIAL_TIMEOUT_S) -> bool:
        """Try these and all known addresses at once. True when a link is up within `timeout_s`."""
        ...

    async def open_stream(self, peer: NodeId, kind: str) -> LinkStream:
        """Open a bulk stream, dialling first when needed. Raises `LinkError`."""
        ...

    def set_accepted(self, peer: NodeId, accepted: bool) -> None:
        """Whether `peer` may use this node freely. Until then it gets little room and little time."""
        ...

    def close_link(self, peer: NodeId, reason: str) -> None:
        """End the link or the dial under way; frames queued before are sent first. The peer sees `reason`.

        `link_closed` is called before this returns.
        """
        ...

    def my_addresses(self) -> tuple[str, ...]:
        """Where other nodes may reach this one, best guesses first."""
        ...

    def reachable(self) -> bool:
        """Whether anybody gets through to this node unasked, as far as is known."""
        ...

    def unreached(self) -> tuple[NodeId, ...]:
        """The peers without a link to which the last dial failed."""
        ...

    def path(self, peer: NodeId) -> PathInfo | None:
        """The path that the link to `peer` uses now; None when there is no link."""
        ...

    def counters(self) -> LinkCounters:
        """A snapshot of the counters."""
        ...

    def close_idle(self, keep: Collection[NodeId]) -> None:
        """Close the links unused for a while, except those to `keep`."""
        ...

    async def close(self) -> None:
        """Send what is queued (for a second at most) and close every link.

        The port is free afterwards, except that a dial under way may hold it for some seconds or until the
        process ends.
        """
        ...
