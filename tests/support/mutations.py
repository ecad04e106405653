"""Mechanisms broken on purpose, each with a scene in which the simulator's checkers must notice.

A `Mutation` breaks one mechanism of the product by replacing a method of it, and plays a scene. The same scene passes
when nothing is broken. `caught_by` is what the failure must say, and `means` the sentence of it for people.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mutation_breaks import (
    accepts_any_signature,
    adopts_nothing,
    any_message_silences,
    asks_no_witness,
    drops_tombstones,
    forgets_the_absent,
    forgets_to_store,
    forgets_what_it_obeyed,
    ignores_refusals,
    keeps_masterships_over_restarts,
    leaves_strays,
    merges_by_arrival,
    moves_to_the_end_of_a_truncated_session,
    never_trims,
    refutes_nothing,
    sends_before_it_is_durable,
    skips_the_ballot_check,
    spares_without_bounds,
    takes_no_inventory,
    takes_the_highest_number,
    tells_nobody_of_moves,
    waits_for_orders_to_stop,
)
from mutation_scenes import (
    a_computer_stalls,
    a_partition_heals,
    a_replica_that_nobody_wrote_down,
    a_service_is_eliminated,
    an_owner_pauses,
    both_sides_change_the_same,
    everybody_restarts_after_an_elimination,
    master_and_secondaries_die,
    masters_die_by_contention,
    much_to_tell,
    news_is_lost_on_the_way,
    orders_are_late,
    replicas_end,
    somebody_forges,
    the_master_and_a_secondary_lose_each_other,
    the_master_restarts,
    the_master_stands_still,
    the_power_fails_right_after_a_write,
    two_masters_and_a_bridge,
)
from pytest import MonkeyPatch


@dataclass(frozen=True)
class Mutation:
    """See the module's docstring. The scene is played with each seed; it must be caught with one of them at least."""

    name: str
    means: str
    caught_by: str
    breaks: Callable[[MonkeyPatch], None]
    plays: Callable[[int], None]
    seeds: tuple[int, ...] = (0,)


MUTATIONS = (
    Mutation(
        "an executor skips the ballot check",
        "safety: it obeys an offer of a lower ballot after a higher one",
        r"obeys a offer of .* after",
        skips_the_ballot_check,
        orders_are_late,
        (0, 1, 2, 3, 4, 5),
    ),
    Mutation(
        "an executor does not write down what it obeys",
        "safety: the ballot of the offer that it accepts is not on its disk",
        r"obeys a offer of .* not on its disk",
        forgets_what_it_obeyed,
        two_masters_and_a_bridge,
    ),
    Mutation(
        "a dispatcher keeps its masterships over a restart",
        "safety: it rules by a ballot that it claimed in an earlier life",
        r"rules by .* claimed in an earlier life",
        keeps_masterships_over_restarts,
        the_master_restarts,
    ),
    Mutation(
        "the highest number heard is taken for the frontier",
        "safety: a node claims a log up to a number below which it lacks a record",
        r"n2 claims a log of catalogue up to \d+ but lacks",
        takes_the_highest_number,
        news_is_lost_on_the_way,
    ),
    Mutation(
        "a truncated session moves the frontier to its end",
        "safety: a node claims a log up to a number below which it lacks a record",
        r"n2 claims a log of catalogue up to \d+ but lacks",
        moves_to_the_end_of_a_truncated_session,
        much_to_tell,
    ),
    Mutation(
        "tombstones are dropped at a restart",
        "safety: what a node knew eliminated is back",
        r"again, which was eliminated",
        drops_tombstones,
        everybody_restarts_after_an_elimination,
    ),
    Mutation(
        "messages leave before what they say is durable",
        "safety: a write that was acknowledged on two nodes is lost although one was wiped only",
        r"was acknowledged on 2 nodes and is lost|not on its disk",
        sends_before_it_is_durable,
        the_power_fails_right_after_a_write,
        (0, 1, 2, 3),
    ),
    Mutation(
        "records are not flushed at all",
        "safety: others hold what its author never wrote down",
        r"which its author never wrote down",
        forgets_to_store,
        the_power_fails_right_after_a_write,
    ),
    Mutation(
        "any signature is accepted",
        "safety: others hold what its author never wrote down",
        r"which its author never wrote down",
        accepts_any_signature,
        somebody_forges,
    ),
    Mutation(
        "an owner's refusal is ignored",
        "safety: an executor launches what its owner does not give",
        r"n1 launches web though it is paused",
        ignores_refusals,
        an_owner_pauses,
    ),
    Mutation(
        "records are merged in the order of their arrival",
        "liveness (a): catalogues stay different",
        r"\(a\) other catalogues",
        merges_by_arrival,
        both_sides_change_the_same,
    ),
    Mutation(
        "the absent are forgotten: nobody dials them again",
        "liveness (a): the sides of a healed partition never meet",
        r"\(a\) other catalogues",
        forgets_the_absent,
        a_partition_heals,
    ),
    Mutation(
        "any message silences who contends",
        "liveness (b), in time: masters are missing for longer than they must",
        r"\(b\) it took",
        any_message_silences,
        masters_die_by_contention,
        (3, 6, 9),
    ),
    Mutation(
        "suspicions are not refuted",
        "liveness (b), (c): the living are taken for dead and replaced, one after the other",
        r"\([bc]\)|no restraint",
        refutes_nothing,
        a_computer_stalls,
        (0, 1),
    ),
    Mutation(
        "a surplus is never trimmed",
        "liveness (c): more replicas run than are wanted",
        r"\(c\) web: 5 sound of 5 replicas, 3 wanted",
        never_trims,
        a_partition_heals,
    ),
    Mutation(
        "replicas that nobody knows run on",
        "liveness (c): a replica runs of something that does not exist",
        r"\(c\) n\d runs a replica of something that does not exist",
        leaves_strays,
        a_replica_that_nobody_wrote_down,
    ),
    Mutation(
        "executors wait for an order to stop what was eliminated",
        "liveness (c): a replica runs of something that does not exist",
        r"\(c\) n\d runs a replica of something that does not exist",
        waits_for_orders_to_stop,
        a_service_is_eliminated,
    ),
    Mutation(
        "user agents are not told where replicas are now",
        "liveness (d), in time: locations that are not live are handed out for longer than they must",
        r"\(d\) it took",
        tells_nobody_of_moves,
        replicas_end,
        (0, 1),
    ),
    Mutation(
        "no witness is asked before a claim",
        "restraint: somebody takes over although others hear the master",
        r"no restraint: \d takeovers",
        asks_no_witness,
        the_master_and_a_secondary_lose_each_other,
        (0, 1),
    ),
    Mutation(
        "a successor starts replicas before its inventory",
        "restraint: replicas are launched although all of them run",
        r"no restraint: \d launches",
        takes_no_inventory,
        master_and_secondaries_die,
        (3, 7, 8),
    ),
    Mutation(
        "a successor does not adopt what its inventory finds",
        "restraint: replicas are launched although all of them run",
        r"no restraint: \d launches",
        adopts_nothing,
        master_and_secondaries_die,
        (0, 1, 2),
    ),
    Mutation(
        "spares without bounds",
        "restraint: more replicas are launched than a stall of the master's own loop justifies",
        r"no restraint: \d launches",
        spares_without_bounds,
        the_master_stands_still,
        (0, 1),
    ),
)
