"""Every bound and every interval of the mechanisms, in one place, with its unit in its name.

One section a mechanism. The defaults are the product profile; the simulator builds others. A bound on what a
peer can make us hold stands here too.
"""

from __future__ import annotations

import msgspec


class IterationConfig(msgspec.Struct, frozen=True):
    """Iterations (DESIGN section 12): every periodic mechanism once in each. The product has none: `length_s` is 0.

    `aligned`: they follow the wall clock, and each mechanism has its moment after the beginning, in this order. Else
    each mechanism of each node has a moment by lot. See `kernel/rhythm.py`.
    """

    length_s: float = 0.0
    aligned: bool = False
    presence_at_s: float = 2.5
    sessions_at_s: float = 7.0
    supervision_at_s: float = 11.5
    orphans_at_s: float = 15.0
    access_at_s: float = 16.5

    @property
    def exist(self) -> bool:
        return self.length_s > 0.0

    def __post_init__(self) -> None:
        """Raises `ValueError` for a moment that no iteration has."""
        early, late = (self.presence_at_s, self.sessions_at_s), (self.orphans_at_s, self.access_at_s)
        moments = (*early, self.supervision_at_s, *late)
        if self.length_s < 0.0:
            raise ValueError("an iteration cannot be shorter than nothing")
        if self.aligned and not all(0.0 <= at_s < self.length_s for at_s in moments):
            raise ValueError("every mechanism's moment must lie within the iteration")


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
    session_at_contact: bool = True
    """A session at once with whoever is met or comes back; else the next periodic one is with them."""
    pass_on_learned: bool = False
    """What a session brought is multicast to those who were here before, and lack it as well. Where whoever comes back
    meets everybody at once, that would only cost."""
    first_session_wait_s: float = 5.0
    multicast_direct_max: int = 64
    multicast_batch_records_max: int = 64
    copies_wanted: int = 2
    copies_asked: int = 3
    copies_timeout_s: float = 2.0
    writes_pending_max: int = 1024
    session_messages_max: int = 20_000
    """A session of a million records needs about 8,000 questions; no peer can keep one going for ever."""
    segments_asked_max: int = 256
    inventory_entries_max: int = 2048
    summary_logs_max: int = 4096
    """Frontiers in one message; of more logs a random stretch is told, so that all get their turn."""
    logs_per_node_max: int = 16
    """Logs of one node in one topic: one, and one more for each time that an old disk came back."""
    unknown_authors_bytes_max: int = 4 * 1024 * 1024
    """Records whose author no membership record names (yet), all together."""


class QuotaConfig(msgspec.Struct, frozen=True):
    """What others keep of one log of a member's computer (decision 0021); it may have `logs_per_node_max` in a topic."""

    membership_records: int = 8192
    services: int = 4096
    """Services and secrets in one log of the catalogue, the eliminated ones included; also of one computer."""
    names: int = 16_384
    """Named objects in one log, the removed ones included; also of one computer."""
    subject_records: int = 16
    """Of one service or one name: six keys, and as much again where a disk came back."""
    member_bytes: int = 128 * 1024 * 1024
    """Of all computers of one member together, in all topics."""
    receipts_body_bytes: int = 8 * 1024
    events_body_bytes: int = 24 * 1024
    group_events_body_bytes: int = 24 * 1024


class MembershipConfig(msgspec.Struct, frozen=True):
    """Greeting, proof and tickets (DESIGN section 10)."""

    proof_bytes_max: int = 256 * 1024
    proof_page_bytes_max: int = 48 * 1024
    proof_page_records_max: int = 128
    greeting_timeout_s: float = 5.0
    greeting_repeat_s: float = 1.0
    handshake_messages_max: int = 64
    peers_pending_max: int = 64
    strangers_per_address_max: int = 8
    strangers_window_s: float = 60.0
    unknown_dial_s: float = 8.0
    addresses_remembered_max: int = 1024
    refusal_chars_max: int = 300
    join_timeout_s: float = 10.0
    join_repeat_s: float = 2.0
    ticket_expiry_s: float = 7 * 24 * 3600.0
    ticket_expiry_max_s: float = 366 * 24 * 3600.0
    members_max: int = 10_000
    computers_per_member_max: int = 64
    """Of more than the eldest of these only so much is kept as of authors that nobody knows."""
    name_chars_max: int = 63


class PresenceConfig(msgspec.Struct, frozen=True):
    """Heartbeats, suspicion and reconnecting (DESIGN section 5)."""

    watchers: int = 4
    heartbeats: bool = True
    """Without them, whom this node watches is asked once per interval, and only an unanswered question is silence."""
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
    news_batch_s: float = 0.1
    news_items_max: int = 64
    """Items in one message; 64 signatures take about 8 ms to verify."""
    news_spread_max: int = 64
    forward_links_max: int = 12
    ask_interval_s: float = 0.4
    answer_wait_s: float = 1.0
    vote_s: float = 2.0
    confirm_s: float = 3.0
    lapse_s: float = 5.0
    doubt_s: float = 10.0
    quiet_s: float = 30.0
    table_interval_s: float = 30.0
    table_again_s: float = 2.0
    table_agains_max: int = 5
    table_index_max: int = 512
    fresh_s: float = 10.0
    link_grace_s: float = 1.0
    link_retry_s: float = 3.0
    announcement_bytes_max: int = 4096
    echoes_remembered: int = 8
    absences_kept_max: int = 16
    dial_interval_s: float = 10.0
    dial_interval_max_s: float = 60.0
    addresses_max: int = 16
    partners_max: int = 256
    departed_kept_max: int = 4096
    introduction_interval_s: float = 5.0
    introduction_asked_max: int = 2
    introductions_remembered_max: int = 256
    seen_interval_s: float = 60.0


class ElectionConfig(msgspec.Struct, frozen=True):
    """Ballots, hashing and contention (DESIGN section 7)."""

    secondaries: int = 2
    rank_wait_s: float = 1.0
    witness_s: float = 0.3
    heard_master_s: float = 2.0
    echo_s: float = 3.0
    echo_silence_s: float = 3.0
    """A master that has echoed nothing for so long counts as silent; no less than `echo_s`, after which nothing it says counts."""
    nonce_interval_s: float = 0.5
    start_wait_s: float = 2.0
    """A node that just started first listens: it knows neither who is here nor who masters what."""
    settled_s: float = 60.0
    settled_max_s: float = 3600.0
    absences_within_s: float = 3600.0
    handover_interval_s: float = 5.0
    reclaim_interval_s: float = 5.0
    contention_wait_max_s: float = 0.6
    contention_hold_s: float = 0.6
    contention_orphan_wait_s: float = 4.0
    mastership_interval_s: float = 2.0
    claim_stale_s: float = 6.0
    """A node that is heard but has not claimed a service for so long does not master it any more."""
    hearsay_s: float = 6.0
    """A master of whom only others speak is believed in for so long, then asked for."""
    gossip_interval_s: float = 5.0
    on_events: bool = True
    """Absences are acted upon at once; else when the mastership interval is over, with everything else."""
    witnesses_max: int = 16
    entries_per_message_max: int = 512


class SupervisionConfig(msgspec.Struct, frozen=True):
    """Inventory, placement, spares, trimming and running (DESIGN section 7)."""

    inventory_s: float = 2.0
    check_interval_s: float = 2.0
    check_soonest_s: float = 0.05
    offer_timeout_s: float = 1.0
    capacity_refresh_s: float = 3.0
    no_answer_retry_s: float = 3.0
    order_retry_s: float = 2.0
    launch_timeout_s: float = 60.0
    preparing_timeout_s: float = 900.0
    unhealthy_patience_s: float = 10.0
    spare_after_s: float = 2.0
    spares_share: float = 0.1
    suspects_share_max: float = 0.34
    trim_after_s: float = 30.0
    drain_s: float = 1.0
    starts_at_once: int = 2
    start_slot_s: float = 15.0
    """A replica that is started but not ready yet keeps others from starting no longer than this."""
    best_choices: int = 3
    refused_retry_s: float = 10.0
    held_offer_s: float = 0.5
    held_offers_max: int = 64
    backoff_first_s: float = 1.0
    backoff_max_s: float = 60.0
    backoff_reset_s: float = 60.0
    backoffs_max: int = 1024
    stop_grace_max_s: float = 60.0
    stop_retries_max: int = 5
    stop_retry_s: float = 2.0
    survey_interval_s: float = 60.0
    survey_retry_s: float = 2.0
    orphans_interval_s: float = 3.0
    orphan_after_s: float = 6.0
    """A replica that no master has claimed for so long is told to all dispatchers."""
    services_max: int = 2048
    """Also keeps the longest list of mastered services below a frame."""
    services_per_inventory_max: int = 64
    holders_max: int = 8
    history_max: int = 20
    why_lines_max: int = 64
    detail_chars_max: int = 200
    preseed_interval_s: float = 10.0


class CopiesConfig(msgspec.Struct, frozen=True):
    """Copies of objects on repository agents (DESIGN section 9)."""

    copies: int = 3
    check_interval_s: float = 60.0
    remake_after_s: float = 3600.0
    query_timeout_s: float = 2.0
    put_timeout_s: float = 30.0
    """A node that was asked to hold a copy and says nothing for so long is given up."""
    progress_interval_s: float = 2.0
    fetches_at_once: int = 2
    fetch_retry_s: float = 5.0
    objects_per_query_max: int = 256
    objects_counted_max: int = 4096
    """Objects counted at a time; of more, the next ones at the next check."""
    check_soon_s: float = 1.0
    extra_asked: int = 2
    urgent_copies: int = 2
    unreferenced_kept_s: float = 3600.0
    place_patience_s: float = 5.0
    remakes_at_once: int = 8
    remake_bytes_s: float = 2_000_000.0
    """What a node lets others fetch for copies that are not urgent, on average."""
    remake_burst_bytes: float = 64_000_000.0
    surplus_kept_s: float = 3600.0
    """A copy on a node that need not hold one goes when the others have been enough for so long."""
    healers_asked_max: int = 16
    counts_open_max: int = 64
    counted_per_request_max: int = 4096


class MessagingConfig(msgspec.Struct, frozen=True):
    """Messages between members and their receipts (DESIGN section 9)."""

    text_bytes_max: int = 28 * 1024
    """With all wrapped keys and recipients it fits one record."""
    recipients_named_max: int = 64
    keys_per_letter_max: int = 128
    computers_max: int = 512
    """Computers of all recipients together; wrapping a key takes about 0.1 ms each."""
    letters_kept: int = 256
    letters_bytes: int = 1024 * 1024
    receipts_kept: int = 128
    receipts_bytes: int = 128 * 1024
    receipt_delay_s: float = 0.3
    receipt_ids_max: int = 256
    receipts_pending_max: int = 4096


class HappeningsConfig(msgspec.Struct, frozen=True):
    """Events of the group and of applications (DESIGN section 9)."""

    group_told: bool = True
    """Whether what happens to members and services becomes an event of the group."""
    data_bytes_max: int = 16 * 1024
    topic_chars_max: int = 64
    text_chars_max: int = 300
    events_kept: int = 256
    events_bytes: int = 256 * 1024
    group_kept: int = 128
    group_bytes: int = 64 * 1024
    told_at_once_max: int = 4
    told_again_s: float = 60.0
    """Of one kind about one service so many at once, then one in such a time: what flaps fills nobody's history."""
    told_about_max: int = 1024
    told_pending_max: int = 64
    subscribers_max: int = 256
    found_max: int = 256
    found_bytes_max: int = 1024 * 1024
    wait_s_max: float = 25.0
    waiting_max: int = 128


class AccessConfig(msgspec.Struct, frozen=True):
    """Locations that a user agent keeps (DESIGN section 8)."""

    location_ttl_s: float = 10.0
    refresh_interval_s: float = 3.0
    locate_timeout_s: float = 1.0
    subscribers_max: int = 1024
    interest_s: float = 120.0
    services_watched_max: int = 1024
    failed_refresh_s: float = 0.3
    ask_again_s: float = 0.15
    tell_changes: bool = True
    """Masters tell subscribed user agents at once what changed; else these find out when they ask again."""


class SecretsConfig(msgspec.Struct, frozen=True):
    """Secrets of services (DESIGN section 11)."""

    value_bytes_max: int = 32 * 1024
    """With its wrapped keys it fits one record."""
    service_bytes_max: int = 56 * 1024
    """All of one service: with command and configuration they fit what environments take."""
    ask_again_s: float = 1.0
    wait_s: float = 20.0
    """A replica waits for the keys of its secrets for so long; then another executor, or a later attempt, has its turn."""
    holders_asked_max: int = 3
    """Holders that a master sends for each question, others each time."""
    kept_s: float = 600.0
    """Keys that were given are kept on for so long without a replica: it may come back."""


class Config(msgspec.Struct, frozen=True):
    """All sections, and what belongs to no mechanism."""

    iterations: IterationConfig = IterationConfig()
    records: RecordConfig = RecordConfig()
    quotas: QuotaConfig = QuotaConfig()
    membership: MembershipConfig = MembershipConfig()
    presence: PresenceConfig = PresenceConfig()
    election: ElectionConfig = ElectionConfig()
    supervision: SupervisionConfig = SupervisionConfig()
    copies: CopiesConfig = CopiesConfig()
    access: AccessConfig = AccessConfig()
    messaging: MessagingConfig = MessagingConfig()
    happenings: HappeningsConfig = HappeningsConfig()
    secrets: SecretsConfig = SecretsConfig()
    frame_bytes_max: int = 256 * 1024
    story_entries_max: int = 256
    requests_pending_max: int = 256
    request_timeout_s: float = 30.0
    goodbye_s: float = 0.5

    def __post_init__(self) -> None:
        """Raises `ValueError` for a period that is none, or that contradicts another."""
        periods = {
            "session_interval_s": self.records.session_interval_s,
            "heartbeat_interval_s": self.presence.heartbeat_interval_s,
            "probe_interval_s": self.presence.probe_interval_s,
            "mastership_interval_s": self.election.mastership_interval_s,
            "check_interval_s": self.supervision.check_interval_s,
            "refresh_interval_s": self.access.refresh_interval_s,
        }
        for name, seconds in periods.items():
            if not seconds > 0.0:
                raise ValueError(f"{name} must be more than nothing")
        if self.election.echo_silence_s < self.election.echo_s:
            raise ValueError("a master would be silent while what it says counts: echo_silence_s, echo_s")
        if self.election.claim_stale_s < self.election.mastership_interval_s:
            raise ValueError(
                "a claim would be stale before it is repeated: claim_stale_s, mastership_interval_s"
            )
