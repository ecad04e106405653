"""The highest ballot per service that this node claimed, or obeyed: kept on disk before it has any effect.

Transitions of one service's floor:

    -        raise_to         -> pledged  persist asked
    pledged  Persisted        -> obeyed
    pledged  raise_to higher  -> pledged
    obeyed   raise_to higher  -> pledged
    pledged  forget           -> -        the service is eliminated: its id is never used again
    obeyed   forget           -> -

Invariant: `pledged` and `obeyed` never decrease, also over restarts. A restarted master holds no mastership; what
it finds here is only a floor.
"""

from __future__ import annotations

import msgspec

from colla.kernel.durable import Durable
from colla.kernel.effects import DropCell, StoreCell, Write
from colla.model.ids import ServiceId
from colla.model.location import NO_BALLOT, Ballot

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Ballot)


class BallotFloors:
    """Floors of one purpose; `prefix` names their cells (`claimed-ballot/…`, `obeyed-ballot/…`)."""

    def __init__(self, prefix: str, durable: Durable) -> None:
        """Raises `ValueError` when a cell is corrupt."""
        self._prefix = prefix
        self._pledged: dict[ServiceId, Ballot] = {}
        self._obeyed: dict[ServiceId, Ballot] = {}
        for name in sorted(durable.cells):
            if name.startswith(prefix):
                service = ServiceId(bytes.fromhex(name.removeprefix(prefix)))
                try:
                    ballot = _decoder.decode(durable.cells[name])
                except msgspec.DecodeError as error:
                    raise ValueError(f"the cell {name} is corrupt: {error}") from None
                self._pledged[service] = self._obeyed[service] = ballot

    def pledged(self, service: ServiceId) -> Ballot:
        """The highest ballot that is on disk or on its way there: nothing lower may be accepted."""
        return self._pledged.get(service, NO_BALLOT)

    def obeyed(self, service: ServiceId) -> Ballot:
        """The highest ballot that is on disk."""
        return self._obeyed.get(service, NO_BALLOT)

    def raise_to(self, service: ServiceId, ballot: Ballot) -> Write | None:
        """Pledge to a ballot that is not lower than the pledge.

        Returns what to persist; call `persisted` when it is. None: it is on disk already, or on its way.
        """
        if ballot <= self.pledged(service):
            return None
        self._pledged[service] = ballot
        return StoreCell(self._cell(service), _encoder.encode(ballot))

    def persisted(self, service: ServiceId, ballot: Ballot) -> None:
        """The write of `raise_to` is durable. Nothing, when the service was forgotten meanwhile."""
        if service in self._pledged:
            self._obeyed[service] = max(ballot, self.obeyed(service))

    def forget(self, service: ServiceId) -> Write | None:
        """The service is eliminated. Returns what to persist, if anything."""
        self._obeyed.pop(service, None)
        if self._pledged.pop(service, None) is None:
            return None
        return DropCell(self._cell(service))

    def services(self) -> list[ServiceId]:
        """All services with a floor, sorted."""
        return sorted(self._pledged)

    def _cell(self, service: ServiceId) -> str:
        return self._prefix + service.hex()
