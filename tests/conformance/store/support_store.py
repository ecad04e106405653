"""What the conformance tests need from a record store, whoever provides it.

A provider is a class whose objects are one node's disk with the store on it. All calls block until done; how
(an own loop, virtual time) is the provider's business.
"""

from __future__ import annotations

from typing import Protocol

from colla.kernel.durable import Durable
from colla.kernel.effects import Persist
from colla.kernel.events import Persisted, PersistFailed


class StoreUnderTest(Protocol):
    """One node's disk, with a store that was opened on it but not loaded."""

    def load(self) -> Durable:
        """What the agents are started from. Called first, and again after a `PersistFailed`."""
        ...

    def persist(self, *effects: Persist) -> list[Persisted | PersistFailed]:
        """Ask for all of them at once, as effects of steps; their outcomes, in the order in which they came."""
        ...

    def crash(self) -> None:
        """The process dies, and the store is opened again on what the disk has. Not loaded."""
        ...

    def restart(self) -> None:
        """The store is closed in order and opened again. Not loaded."""
        ...

    def fill(self) -> None:
        """From now on the disk takes nothing more."""
        ...

    def free(self) -> None:
        """The disk takes writes again."""
        ...

    def close(self) -> None:
        """The end of the test."""
        ...
