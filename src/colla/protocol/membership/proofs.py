"""Chains of records as they travel between nodes that do not trust each other yet: paged, bounded, verified."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from colla.kernel.config import MembershipConfig
from colla.model.ids import GroupId
from colla.model.record import Record, SignedRecord, open_record
from colla.protocol.membership.bodies import check_record


def pages(
    records: Sequence[Record], config: MembershipConfig
) -> Iterator[tuple[tuple[SignedRecord, ...], bool]]:
    """The records in pages, each with whether it is the last; there is always a last one."""
    page: list[SignedRecord] = []
    size = 0
    for record in records:
        full = len(page) >= config.proof_page_records_max
        if page and (full or size + record.size > config.proof_page_bytes_max):
            yield tuple(page), False
            page, size = [], 0
        page.append(record.signed)
        size += record.size
    yield tuple(page), True


class Collector:
    """Takes the pages of one chain; refuses what is too long before it verifies anything."""

    def __init__(self, group: GroupId, config: MembershipConfig) -> None:
        self._group = group
        self._config = config
        self._bytes = 0
        self.records: list[Record] = []

    def add(self, page: Sequence[SignedRecord]) -> str:
        """Verify a page and keep it. Returns "", or the code of what is wrong with it."""
        self._bytes += sum(len(signed.payload) + len(signed.signature) for signed in page)
        too_many = len(page) > self._config.proof_page_records_max
        if too_many or self._bytes > self._config.proof_bytes_max:
            return "proof_too_long"
        for signed in page:
            try:
                record = open_record(self._group, signed)
                check_record(record)
            except ValueError:
                return "bad_proof"
            self.records.append(record)
        return ""
