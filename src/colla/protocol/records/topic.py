"""All that this node holds of one topic: its logs, and an index by key over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from colla.kernel.config import RecordConfig
from colla.model.ids import LogId, NodeId, digest
from colla.model.record import Key, Log, Record
from colla.protocol.records.log import HeldLog
from colla.protocol.records.retention import Retention

Validate = Callable[[Record], None]


class Topic:
    """One registered topic. `validate` raises `ValueError` for a body that breaks the topic's rules."""

    def __init__(
        self,
        name: str,
        validate: Validate,
        tombstone: str,
        config: RecordConfig,
        retention: Retention | None = None,
    ) -> None:
        self.name = name
        self.validate = validate
        self.retention = retention
        self._tombstone = tombstone
        self._config = config
        self._logs: dict[Log, HeldLog] = {}
        self._sorted: tuple[HeldLog, ...] = ()
        self._by_key: dict[Key, list[Record]] = {}
        self._by_kind: dict[str, dict[Key, None]] = {}
        self._highest: dict[LogId, int] = {}
        self._logs_of: dict[NodeId, int] = {}
        self._contents: bytes | None = None

    def find(self, log: Log) -> HeldLog | None:
        return self._logs.get(log)

    def logs(self) -> Sequence[HeldLog]:
        """All logs, sorted by name."""
        if len(self._sorted) != len(self._logs):
            # Logs are never taken away.
            self._sorted = tuple(sorted(self._logs.values(), key=lambda held: held.name))
        return self._sorted

    def log_of(self, log: Log) -> HeldLog:
        """The log, made when it is new."""
        held = self._logs.get(log)
        if held is None:
            held = self._logs[log] = HeldLog(
                log, self._tombstone, self._config.ahead_numbers_max, self.retention
            )
            self._logs_of[log.node] = self._logs_of.get(log.node, 0) + 1
        return held

    def logs_of(self, node: NodeId) -> int:
        """How many logs of that node are held."""
        return self._logs_of.get(node, 0)

    def highest(self, log: LogId) -> int:
        """The greatest number known of the logs with that id; 0 when there is none."""
        return self._highest.get(log, 0)

    def add(self, record: Record) -> list[Record] | None:
        """Hold the record; returns what it replaced, or None when it is replaced itself (only its number counts)."""
        held = self.log_of(record.log)
        if held.replaced(record):
            held.note(record.number)
            return None
        # One name of a log for all its records: a stream holds many of them, and most of each is its envelope.
        content = msgspec.structs.replace(record.content, log=held.log)
        record = Record(record.signed, content, record.digest)
        replaced = held.add(record)
        self._by_key.setdefault(record.key, []).append(record)
        if self.retention is None:
            self._by_kind.setdefault(record.key.kind, {})[record.key] = None
        for old in replaced:
            self._forget(old)
        self._highest[record.log.id] = max(record.number, self.highest(record.log.id))
        self._contents = None
        return replaced

    def versions(self, key: Key) -> list[Record]:
        """Every held record of the key, sorted by (log, number)."""
        return sorted(self._by_key.get(key, ()), key=_place)

    def keys(self, kind: str) -> tuple[Key, ...]:
        """All keys of that kind; of a stream none are counted."""
        return tuple(sorted(self._by_kind.get(kind, ())))

    def records(self) -> list[Record]:
        """Every held record, sorted by (log, number)."""
        return [record for log in sorted(self._logs) for record in self._logs[log].records()]

    def contents(self) -> bytes:
        """A hash over all held records."""
        if self._contents is None:
            self._contents = digest(b"".join(held.name + held.hash for held in self.logs() if len(held)))
        return self._contents

    def fingerprint(self) -> bytes:
        """A hash over all held records and all frontiers."""
        parts = [held.name + held.frontier.to_bytes(8) + held.hash for held in self.logs()]
        return digest(self.name.encode() + b"".join(parts))

    def _forget(self, record: Record) -> None:
        same_key = self._by_key[record.key]
        same_key.remove(record)
        if not same_key:
            del self._by_key[record.key]
            self._by_kind.get(record.key.kind, {}).pop(record.key, None)


def _place(record: Record) -> tuple[Log, int, bytes]:
    return (record.log, record.number, record.digest)
