"""All messages that nodes exchange, joined into the one tagged union of the wire."""

from __future__ import annotations

from colla.agents.confidant import Confidant
from colla.agents.dispatcher import Dispatcher
from colla.agents.executor import Executor
from colla.agents.repository import RepositoryAgent
from colla.agents.user import UserAgent
from colla.kernel.codec import Codec
from colla.kernel.messages import Message
from colla.protocol.copies.messages import CopiesHeld, CopyAnswer, CopyProgress
from colla.protocol.membership.admission import Admission
from colla.protocol.multicast.multicast import Multicast
from colla.protocol.presence.introductions import Introductions
from colla.protocol.presence.presence import Presence
from colla.protocol.records.writes import Writes
from colla.protocol.sessions.sessions import Sessions

MESSAGES: tuple[type[Message], ...] = tuple(
    dict.fromkeys(
        (
            *Admission.MESSAGES,
            *Sessions.MESSAGES,
            *Multicast.MESSAGES,
            *Writes.MESSAGES,
            *Presence.MESSAGES,
            *Introductions.MESSAGES,
            *Dispatcher.MESSAGES,
            *Executor.MESSAGES,
            *RepositoryAgent.MESSAGES,
            *UserAgent.MESSAGES,
            CopiesHeld,
            CopyAnswer,
            CopyProgress,
            *Confidant.MESSAGES,
        )
    )
)


def make_codec(frame_bytes_max: int) -> Codec:
    """The codec of the wire."""
    return Codec(MESSAGES, frame_bytes_max)
