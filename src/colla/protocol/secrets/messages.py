"""How the key of a secret comes to an executor: it asks the master, the master sends a holder, the holder answers it.

The master never sees a key: what the holder sends is sealed for the executor. And a holder hears of executors from the
master only, so that whoever was not chosen asks in vain.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from colla.kernel.messages import Message, Timer
from colla.model.ids import NodeId, ReplicaId, ServiceId
from colla.model.secret import SECRETS_MAX

SecretIds = Annotated[tuple[bytes, ...], Meta(max_length=SECRETS_MAX)]


class KeysQuery(Message, frozen=True, tag="key?"):
    """From an executor with a replica to its master: I lack the keys of these secrets. `attempt` counts from 1."""

    service: ServiceId
    secrets: SecretIds
    attempt: int


class KeysErrand(Message, frozen=True, tag="key>"):
    """From the master to somebody who may hold the keys: I chose this node's executor, give it what it lacks."""

    service: ServiceId
    secrets: SecretIds
    node: NodeId


class KeysAnswer(Message, frozen=True, tag="key!"):
    """From a holder to the executor: the keys, sealed for it (`sealing.seal_keys`). Empty, and from the master: nobody who
    is here holds any.
    """

    service: ServiceId
    sealed: Annotated[bytes, Meta(max_length=8192)]


class KeysDue(Timer, frozen=True):
    """An executor has waited for keys: ask again, or give up. Stale unless it stands at this attempt."""

    replica: ReplicaId
    attempt: int
