"""Quotas: how much of one author's records every node keeps, whoever forwards them (decision 0021).

What is beyond a quota is not kept, and which records that are follows from the set of records alone, never from who came
first: so all nodes drop the same, and sessions end in equality. That needs orders in which nothing that was dropped
comes back when more becomes known:

- of the *subjects* of a log the lowest so many count. A subject that was ever written always keeps a record, so their
  number only grows;
- of one subject in a log the newest records count, by their numbers. A record replaces all older ones of its key, so
  what was dropped would have been replaced before what is kept;
- of a node's logs in a topic those with the lowest names count;
- where records never replace each other, numbers end: a log has no record beyond `numbers_max`.

Sizes have no such order (an older, smaller record would fit where a newer one did not). So what all computers of one
member may fill, `member_bytes_max`, is a last resort: beyond it each node keeps what came first, and asks no more for
that member's records.

An honest author never gets there: its node refuses to write (`quota_reached`). Only a liar's own records crowd each other out.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from colla.kernel.config import QuotaConfig
from colla.model.record import Record
from colla.protocol.records.order import NUMBER_MAX

ANY = 2**53


class Quota(msgspec.Struct, frozen=True):
    """How much of one log of a topic is kept. `earliest_logs`: of a node's logs those that came first count, here
    and not everywhere alike: where others' records stand on an author's, no later log may push an earlier one out.
    """

    numbers_max: int = NUMBER_MAX
    subjects_max: int = ANY
    subject_records_max: int = ANY
    body_bytes_max: int = ANY
    earliest_logs: bool = False

    def beyond(self, records: Sequence[Record]) -> list[Record]:
        """Those of the records of one subject in one log that are too many: the oldest."""
        if len(records) <= self.subject_records_max:
            return []
        newest_first = sorted(records, key=lambda record: (record.number, record.digest), reverse=True)
        return newest_first[self.subject_records_max :]


UNBOUNDED = Quota()


def subjects_quota(config: QuotaConfig, subjects_max: int) -> Quota:
    """The quota of a topic whose records replace each other by key."""
    return Quota(subjects_max=subjects_max, subject_records_max=config.subject_records)
