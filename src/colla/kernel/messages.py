"""The base types of what travels between agents and of what wakes them.

Each mechanism defines its own messages and timers beside it; `agents/wire.py` joins the messages into the one
tagged union of the wire. Messages are arrays with a leading tag on the wire, so that fields with defaults can
be appended by a later version and are ignored by an earlier one.
"""

from __future__ import annotations

import msgspec


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Anything that one agent says to another. A noun; the tag is the class name unless a shorter one is given."""


class Timer(msgspec.Struct, frozen=True, tag=True):
    """Comes back as `TimerDue`; carries what proves it stale (a session number, an epoch, a ballot)."""
