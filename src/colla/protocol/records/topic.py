"""All that this node holds of one topic: its logs, and an index by key over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from colla.kernel.config import RecordConfig
from colla.model.ids import LogId, NodeId, digest
from colla.model.record import Key, Log, Record
from colla.protocol.records.log import HeldLog
from colla.protocol.records.quota import UNBOUNDED, Quota
from colla.protocol.records.retention import Retention
from colla.protocol.records.summary import log_name

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
        quota: Quota = UNBOUNDED,
    ) -> None:
        self.name = name
        self.validate = validate
        self.retention = retention
        self.quota = quota
        self.bytes_of: dict[NodeId, int] = {}
        """What is held of each author."""
        self.bytes_held = 0
        self.shed = False
        """Whether anything was beyond the quota."""
        self._tombstone = tombstone
        self._config = config
        self._logs: dict[Log, HeldLog] = {}
        self._sorted: tuple[HeldLog, ...] = ()
        self._by_key: dict[Key, list[Record]] = {}
        self._by_kind: dict[str, dict[Key, None]] = {}
        self._highest: dict[LogId, int] = {}
        self._logs_of: dict[NodeId, list[HeldLog]] = {}
        self._contents: bytes | None = None

    def find(self, log: Log) -> HeldLog | None:
        return self._logs.get(log)

    def logs(self) -> Sequence[HeldLog]:
        """All logs, sorted by name."""
        if len(self._sorted) != len(self._logs):
            self._sorted = tuple(sorted(self._logs.values(), key=lambda held: held.name))
        return self._sorted

    def log_of(self, log: Log) -> HeldLog:
        """The log, made when it is new."""
        held = self._logs.get(log)
        if held is None:
            held = self._logs[log] = HeldLog(
                log, self._tombstone, self._config.ahead_numbers_max, self.retention, self.quota
            )
            self._logs_of.setdefault(log.node, []).append(held)
        return held

    def has_all_logs(self, node: NodeId) -> bool:
        """Whether as many logs of that node are held as one may have."""
        return len(self._logs_of.get(node, ())) >= self._config.logs_per_node_max

    def subjects_of(self, node: NodeId) -> int:
        """How many subjects all logs of that node are about, together."""
        logs = self._logs_of.get(node, ())
        if len(logs) == 1:
            return len(logs[0].subjects)
        return len({subject for held in logs for subject in held.subjects})

    def new_subjects(self, node: NodeId, subjects: Sequence[bytes]) -> int:
        """How many of these no log of that node is about."""
        logs = self._logs_of.get(node, ())
        return sum(not any(one in held.subjects for held in logs) for one in dict.fromkeys(subjects))

    def takes(self, log: Log) -> bool:
        """Whether a record of that log can be held as far as the number of its author's logs goes."""
        if log in self._logs or not self.has_all_logs(log.node):
            return True
        return not self.quota.earliest_logs and log_name(log) < self._last_of(log.node).name

    def make_room(self, log: Log) -> tuple[HeldLog, list[Record]] | None:
        """The log of the same author that goes for this one, which `takes` lets in, and what it held."""
        if log in self._logs or not self.has_all_logs(log.node):
            return None
        last = self._last_of(log.node)
        records = last.records()
        for record in records:
            self._forget(record)
        del self._logs[last.log]
        self._logs_of[log.node].remove(last)
        self._sorted = ()
        self._contents = None
        self.shed = True
        return last, records

    def _last_of(self, node: NodeId) -> HeldLog:
        return max(self._logs_of[node], key=lambda held: held.name)

    def highest(self, log: LogId) -> int:
        """The greatest number known of the logs with that id; 0 when there is none."""
        return self._highest.get(log, 0)

    def add(self, record: Record) -> list[Record] | None:
        """Hold the record; returns what is held no more, which may be the record itself when it is beyond the quota.

        None when it is replaced itself: only its number counts.
        """
        held = self.log_of(record.log)
        if held.replaced(record):
            held.note(record.number)
            return None
        # One name of a log for all its records: a stream holds many of them, and most of each is its envelope.
        content = msgspec.structs.replace(record.content, log=held.log)
        record = Record(record.signed, content, record.digest)
        replaced = held.add(record)
        self._by_key.setdefault(record.key, []).append(record)
        self._weigh(record, 1)
        if self.retention is None:
            self._by_kind.setdefault(record.key.kind, {})[record.key] = None
        for old in replaced:
            self._forget(old)
        self.shed = self.shed or any(old.digest == record.digest for old in replaced)
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

    def _weigh(self, record: Record, sign: int) -> None:
        size = sign * record.size
        self.bytes_held += size
        self.bytes_of[record.log.node] = self.bytes_of.get(record.log.node, 0) + size

    def _forget(self, record: Record) -> None:
        self._weigh(record, -1)
        same_key = self._by_key[record.key]
        same_key.remove(record)
        if not same_key:
            del self._by_key[record.key]
            self._by_kind.get(record.key.kind, {}).pop(record.key, None)


def _place(record: Record) -> tuple[Log, int, bytes]:
    return (record.log, record.number, record.digest)
