"""This node's own logs: the numbers it gave out, and what of them is known elsewhere.

A node writes one log per topic. When it meets records of that log which it did not write, an old copy of its
disk has come back: the log has two branches. It opens a new log, and says again there what its own branch
says and nobody had confirmed, so that both branches live on as concurrent changes.
"""

from __future__ import annotations

from random import Random

import msgspec

from colla.kernel.durable import Durable
from colla.kernel.effects import StoreCell
from colla.model.ids import RANDOM_ID_BYTES, LogId, NodeId, random_id
from colla.model.record import Log

CELL_PREFIX = "records/own/"


class OwnLog(msgspec.Struct, array_like=True):
    """One own log: its id, the last number given out, and up to which number others are known to hold it."""

    id: LogId
    number: int = 0
    confirmed: int = 0


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(OwnLog)


class OwnLogs:
    """The own log of each topic. Every change is made durable by the cell that `cell` gives."""

    def __init__(self, node: NodeId, rng: Random, durable: Durable) -> None:
        """A malformed cell counts as none: the log that it named is not written to any more."""
        self._node = node
        self._rng = rng
        self._logs: dict[str, OwnLog] = {}
        self._confirmed_ahead: dict[str, dict[int, None]] = {}
        self._confirmed_on_disk: dict[str, int] = {}
        for name, value in durable.cells.items():
            if name.startswith(CELL_PREFIX):
                self._restore(name.removeprefix(CELL_PREFIX), value)

    def _restore(self, topic: str, value: bytes) -> None:
        try:
            own = _decoder.decode(value)
        except msgspec.DecodeError:
            return
        if len(own.id) == RANDOM_ID_BYTES and 0 <= own.confirmed <= own.number:
            self._logs[topic] = own
            self._confirmed_on_disk[topic] = own.confirmed

    def current(self, topic: str) -> OwnLog | None:
        return self._logs.get(topic)

    def log(self, topic: str) -> Log:
        """The log to write to; a fresh one when there is none yet."""
        own = self._logs.get(topic)
        if own is None:
            own = self.renew(topic)
        return Log(self._node, own.id, topic)

    def next_number(self, topic: str) -> int:
        """The number of the next record. The log must exist."""
        own = self._logs[topic]
        own.number += 1
        return own.number

    def renew(self, topic: str) -> OwnLog:
        """Open a fresh log in place of the present one."""
        own = self._logs[topic] = OwnLog(LogId(random_id(self._rng)))
        self._confirmed_ahead[topic] = {}
        return own

    def is_current(self, log: Log) -> bool:
        own = self._logs.get(log.topic)
        return own is not None and log.node == self._node and own.id == log.id

    def acknowledged(self, log: LogId, number: int) -> None:
        """Another node holds that record of ours. `confirmed` grows only without gaps."""
        for topic, own in self._logs.items():
            if own.id == log and own.confirmed < number <= own.number:
                ahead = self._confirmed_ahead.setdefault(topic, {})
                ahead[number] = None
                while own.confirmed + 1 in ahead:
                    own.confirmed += 1
                    del ahead[own.confirmed]

    def confirm_all(self, topic: str) -> bool:
        """Another node holds all of our log; returns whether the disk does not say so yet."""
        own = self._logs.get(topic)
        if own is None:
            return False
        own.confirmed = own.number
        self._confirmed_ahead[topic] = {}
        return self._confirmed_on_disk.get(topic, 0) != own.confirmed

    def cell(self, topic: str) -> StoreCell:
        """The write that makes the log's numbers durable."""
        self._confirmed_on_disk[topic] = self._logs[topic].confirmed
        return StoreCell(CELL_PREFIX + topic, _encoder.encode(self._logs[topic]))
