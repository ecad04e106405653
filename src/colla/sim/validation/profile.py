"""Configurations under which the same agents are validated.

* `plain`: the mechanisms as published. Every periodic mechanism runs once per iteration, at a moment by lot; no
  heartbeats; absences are acted upon by periodic supervision only; user agents ask, nobody tells them.
* `paper`: the same once per iteration, no heartbeats, no repair by events; but the mechanisms of an iteration follow
  each other, by the wall clock, and what one finds out goes on to those concerned at once.
* `product`: what ships.
"""

from __future__ import annotations

import enum

from msgspec.structs import replace

from colla.kernel.config import Config, IterationConfig, PresenceConfig

STALE_ITERATIONS = 2.5
"""What is repeated once per iteration counts for so long."""
PRESENCE_AT, SESSIONS_AT, SUPERVISION_AT, ORPHANS_AT, ACCESS_AT = 0.125, 0.35, 0.575, 0.75, 0.825
"""The moments of an aligned iteration, as shares of its length."""
FOREVER_S = 1e9


class Profile(enum.StrEnum):
    """See the module's docstring."""

    PLAIN = "plain"
    PAPER = "paper"
    PRODUCT = "product"


def configuration(profile: Profile, iteration_s: float) -> Config:
    """What the agents are given; `iteration_s` counts for the profiles with iterations."""
    shipped = Config()
    # Whom people use stays of interest for the whole run, in every profile.
    access = replace(shipped.access, interest_s=FOREVER_S)
    if profile is Profile.PRODUCT:
        return replace(shipped, access=access)
    plain = profile is Profile.PLAIN
    stale_s = STALE_ITERATIONS * iteration_s
    return replace(
        shipped,
        iterations=IterationConfig(
            length_s=iteration_s,
            aligned=not plain,
            presence_at_s=PRESENCE_AT * iteration_s,
            sessions_at_s=SESSIONS_AT * iteration_s,
            supervision_at_s=SUPERVISION_AT * iteration_s,
            orphans_at_s=ORPHANS_AT * iteration_s,
            access_at_s=ACCESS_AT * iteration_s,
        ),
        records=replace(
            shipped.records,
            session_interval_s=iteration_s,
            session_at_contact=False,
            pass_on_learned=not plain,
        ),
        presence=_presence(shipped.presence, iteration_s),
        election=replace(
            shipped.election,
            on_events=False,
            mastership_interval_s=iteration_s,
            gossip_interval_s=iteration_s,
            hearsay_s=iteration_s,
            claim_stale_s=stale_s,
            echo_s=stale_s,
            # An echo that is just fresh enough is renewed when the master speaks again, an iteration later.
            echo_silence_s=stale_s + 1.5 * iteration_s,
            nonce_interval_s=iteration_s / 2,
            handover_interval_s=iteration_s / 2,
        ),
        supervision=replace(
            shipped.supervision,
            check_interval_s=iteration_s,
            orphans_interval_s=iteration_s,
            # Where masters have just spoken, a replica that none of them named in this iteration is one too many.
            orphan_after_s=iteration_s if plain else iteration_s / 2,
            # There is one look per iteration: what is too much then is stopped then.
            trim_after_s=1.0,
        ),
        # Copies of objects are no mechanism of the paper; they are looked after once per iteration.
        copies=replace(shipped.copies, check_soon_s=iteration_s),
        access=replace(
            access, refresh_interval_s=iteration_s, location_ttl_s=stale_s, tell_changes=not plain
        ),
    )


def _presence(presence: PresenceConfig, iteration_s: float) -> PresenceConfig:
    """Who is here is asked once per iteration instead of heard every second."""
    return replace(
        presence,
        heartbeats=False,
        heartbeat_interval_s=iteration_s,
        # What is lost of the news comes with the tables.
        news_repeats=1,
        forward_links_max=4,
        # A question is repeated every half second, and unanswered after three the others are asked.
        late_after_s=0.0,
        probe_interval_s=0.5,
        silence_s=3.0,
        answer_wait_s=3.5,
        vote_s=4.0,
        quiet_s=iteration_s / 4,
        # Tables are compared with one node at every round, and the absent are dialled at every round.
        table_interval_s=1.0,
        dial_interval_s=iteration_s / 2,
        dial_interval_max_s=iteration_s / 2,
    )
