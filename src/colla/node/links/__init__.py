"""Encrypted links between nodes: bytes only, knowing nothing of messages.

`interface` says what the rest of the node may expect, `iroh_links` provides it over iroh, `relay` lets a
member's computer carry the links of others, `discovery` finds nodes on the same network.
"""

from colla.node.links.interface import (
    FRAME_BYTES_MAX,
    LinkCounters,
    LinkError,
    LinkEvents,
    Links,
    LinkStream,
    PathInfo,
)

__all__ = [
    "FRAME_BYTES_MAX",
    "LinkCounters",
    "LinkError",
    "LinkEvents",
    "LinkStream",
    "Links",
    "PathInfo",
]
