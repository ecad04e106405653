"""Every bound and every interval of the mechanisms, in one place, with its unit in its name.

One section a mechanism. The defaults are the product profile; the simulator builds others. A bound on what a
peer can make us hold stands here too.
"""

from __future__ import annotations

import msgspec


class RecordConfig(msgspec.Struct, frozen=True):
    """Records, sessions and multicast (DESIGN sections 4 and 6)."""

    body_bytes_max: int = 48 * 1024
    seen_entries_max: int = 64
    ahead_numbers_max: int = 4096
    delta_bytes_max: int = 96 * 1024
    delta_records_max: int = 128
    """Verifying 128 signatures takes about 15 ms: a slice of the loop, as section 3 asks."""
    sessions_open_max: int = 64
    session_timeout_s: float = 5.0
    session_interval_s: float = 10.0
    sessions_per_interval: int = 1
    first_session_wait_s: float = 5.0
    multicast_direct_max: int = 64
    multicast_batch_records_max: int = 64
    copies_wanted: int = 2
    copies_asked: int = 3
    copies_timeout_s: float = 2.0
    writes_pending_max: int = 1024


class MembershipConfig(msgspec.Struct, frozen=True):
    """Greeting, proof and tickets (DESIGN section 10)."""

    proof_bytes_max: int = 256 * 1024
    greeting_timeout_s: float = 5.0
    peers_pending_max: int = 64
    join_timeout_s: float = 10.0
    ticket_expiry_s: float = 7 * 24 * 3600.0
    members_max: int = 10_000
    name_chars_max: int = 63


class PresenceConfig(msgspec.Struct, frozen=True):
    """Heartbeats, suspicion and reconnecting (DESIGN section 5)."""

    watchers: int = 4
    heartbeat_interval_s: float = 1.0
    late_after_s: float = 1.2
    probe_interval_s: float = 0.2
    silence_s: float = 3.2
    silent_watchers: int = 3
    refutation_s: float = 0.6
    loop_late_s: float = 0.5
    news_repeats: int = 3
    news_repeat_s: float = 0.3
    news_pending_max: int = 512
    dial_interval_s: float = 10.0
    dial_interval_max_s: float = 60.0
    addresses_max: int = 16
    partners_max: int = 256
    departed_kept_max: int = 4096


class ElectionConfig(msgspec.Struct, frozen=True):
    """Ballots, hashing and contention (DESIGN section 7)."""

    secondaries: int = 2
    rank_wait_s: float = 1.0
    witness_s: float = 0.3
    heard_master_s: float = 2.0
    echo_s: float = 3.0
    settled_s: float = 60.0
    settled_max_s: float = 3600.0
    contention_wait_max_s: float = 0.6
    contention_orphan_wait_s: float = 4.0
    mastership_interval_s: float = 1.0


class SupervisionConfig(msgspec.Struct, frozen=True):
    """Inventory, placement, spares and trimming (DESIGN section 7)."""

    inventory_s: float = 2.0
    check_interval_s: float = 2.0
    offer_timeout_s: float = 1.0
    launch_timeout_s: float = 60.0
    spare_after_s: float = 2.0
    spares_share: float = 0.1
    suspects_share_max: float = 0.34
    trim_after_s: float = 30.0
    drain_s: float = 1.0
    starts_at_once: int = 2
    best_choices: int = 3
    refused_retry_s: float = 10.0
    backoff_first_s: float = 1.0
    backoff_max_s: float = 60.0
    backoff_reset_s: float = 60.0
    stop_grace_max_s: float = 60.0
    services_max: int = 4096
    stop_retries_max: int = 5


class CopiesConfig(msgspec.Struct, frozen=True):
    """Copies of objects on repository agents (DESIGN section 9)."""

    copies: int = 3
    check_interval_s: float = 60.0
    remake_after_s: float = 3600.0
    query_timeout_s: float = 2.0
    put_timeout_s: float = 30.0
    fetches_at_once: int = 2
    fetch_retry_s: float = 5.0
    objects_per_query_max: int = 256
    objects_counted_max: int = 4096
    check_soon_s: float = 1.0
    extra_asked: int = 2
    urgent_copies: int = 2
    unreferenced_kept_s: float = 3600.0


class AccessConfig(msgspec.Struct, frozen=True):
    """Locations that a user agent keeps (DESIGN section 8)."""

    location_ttl_s: float = 10.0
    refresh_interval_s: float = 3.0
    locate_timeout_s: float = 1.0
    subscribers_max: int = 1024
    interest_s: float = 120.0
    services_watched_max: int = 1024
    failed_refresh_s: float = 0.3
    redirects_max: int = 3


class Config(msgspec.Struct, frozen=True):
    """All sections, and what belongs to no mechanism."""

    records: RecordConfig = RecordConfig()
    membership: MembershipConfig = MembershipConfig()
    presence: PresenceConfig = PresenceConfig()
    election: ElectionConfig = ElectionConfig()
    supervision: SupervisionConfig = SupervisionConfig()
    copies: CopiesConfig = CopiesConfig()
    access: AccessConfig = AccessConfig()
    frame_bytes_max: int = 256 * 1024
    story_entries_max: int = 256
    requests_pending_max: int = 256
    request_timeout_s: float = 30.0
    goodbye_s: float = 0.5
