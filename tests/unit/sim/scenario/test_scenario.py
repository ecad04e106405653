"""Scenarios as values: TOML there and back, errors that name the place, patterns of presence, configuration."""

from __future__ import annotations

from random import Random
from typing import get_args

import msgspec
import pytest

from colla.model.errors import CollaError
from colla.sim.scenario.act import Act
from colla.sim.scenario.acts.computers import PowerOff, Suspend
from colla.sim.scenario.compose import compose
from colla.sim.scenario.patterns import PresencePattern
from colla.sim.scenario.scenario import AnyAct, Scenario, read_scenario, write_scenario

KINDS = get_args(AnyAct)


def all_acts(base: type[Act]) -> list[type[Act]]:
    """Every kind of act that can happen: the classes without subclasses."""
    below = base.__subclasses__()
    return [base] if not below else [kind for one in below for kind in all_acts(one)]


def test_every_kind_of_act_can_be_written_and_says_what_it_is() -> None:
    # `Modify` is built upon another act, but is one itself, as is everything in the union.
    assert set(all_acts(Act)) <= set(KINDS)
    assert all(kind.__doc__ for kind in KINDS)
    assert len({kind.__struct_config__.tag for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("seed", range(0, 200, 5))
def test_what_is_written_is_read_again(seed: int) -> None:
    scenario = compose(seed)
    assert read_scenario(write_scenario(scenario)) == scenario


def test_what_is_as_usual_is_not_written() -> None:
    written = write_scenario(Scenario(acts=(PowerOff(at_s=1.0, node="n1"),)))
    assert " ".join(written.split()) == 'acts = [ { act = "power-off", at_s = 1.0, node = "n1" }, ]'


def test_all_kinds_are_composed() -> None:
    kinds = {act.kind for seed in range(400) for act in compose(seed).acts}
    # Starting is what the end of other acts does; a person who starts a computer is one of those.
    assert {str(kind.__struct_config__.tag) for kind in KINDS} - kinds == {"start"}


def test_a_seed_composes_the_same_again() -> None:
    assert compose(12) == compose(12) != compose(14)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nodes = = 3", "line 1, column 9"),
        ("nodes = 'x'", "`$.nodes`"),
        ("colour = 3", "unknown field `colour`"),
        (
            "nodes = 2\n\n[[acts]]\nact = 'kill'\nat_s = 1\nnode = 'n7'",
            "no computer 'n7' - at `$.acts[0]` (line 3)",
        ),
        ("[[acts]]\nact = 'kil'\nat_s = 1\nnode = 'n0'", "'kil' - at `$.acts[0].act` (line 1)"),
        ("[[acts]]\nact = 'kill'\nnode = 'n0'", "missing required field `at_s` - at `$.acts[0]` (line 1)"),
        ("[[acts]]\nact = 'kill'\nat_s = 1\nnode = 'n0'\nlasts = 3", "`lasts` - at `$.acts[0]` (line 1)"),
        ("[[acts]]\nact = 'kill'\nat_s = 31\nnode = 'n0'", "after the end, at 30 s"),
        ("[[acts]]\nact = 'scale'\nat_s = 1\nservice = 'web'\nreplicas = 2", "no service 'web'"),
        ("services = [{ name = 'web', node = 'x1' }]", "no computer 'x1' - at `$.services[0]`"),
        ("[config]\n'presence.silence' = 3.0", "no 'presence.silence'"),
        ("[config]\n'presence.watchers' = 1.5", "`$.presence.watchers`"),
    ],
)
def test_errors_name_the_place(text: str, said: str) -> None:
    with pytest.raises(CollaError) as caught:
        read_scenario(text, "some.toml")
    assert caught.value.code == "bad_scenario"
    assert said in caught.value.message


def test_configuration_is_changed_by_name() -> None:
    scenario = read_scenario("[config]\n'presence.silence_s' = 9.0\ngoodbye_s = 2")
    config = scenario.configuration()
    assert (config.presence.silence_s, config.goodbye_s) == (9.0, 2.0)
    assert config.presence.watchers == Scenario().configuration().presence.watchers


def test_presence_by_the_hours_of_the_week() -> None:
    pattern = PresencePattern(
        nodes=("n1",), weekdays=((18.0, 22.0),), weekend=((10.0, 24.0),), day_s=24.0, unpunctual_h=0.0
    )
    acts = pattern.acts(Random(1), 7 * 24.0)
    assert all(isinstance(act, Suspend) for act in acts)
    begins = [act.at_s for act in acts]
    ends = [act.at_s + act.lasts_s for act in acts]  # type: ignore[attr-defined]
    assert begins == pytest.approx([0.0, 22.0, 46.0, 70.0, 94.0, 118.0, 144.0])
    assert ends == pytest.approx([18.0, 42.0, 66.0, 90.0, 114.0, 130.0, 154.0])


def test_who_has_no_hours_is_away() -> None:
    pattern = PresencePattern(nodes=("n1",), weekdays=(), weekend=(), day_s=10.0, away="power-off")
    assert pattern.acts(Random(1), 30.0) == [PowerOff(at_s=0.0, node="n1", lasts_s=30.0)]


def test_patterns_are_part_of_the_acts_in_order() -> None:
    scenario = read_scenario(
        "ends_s = 48.0\n[[presence]]\nnodes = ['n1']\nweekdays = [[0, 12]]\nweekend = []\n"
        "[[acts]]\nact = 'stall'\nat_s = 20.0\nnode = 'n2'\nseconds = 1.0"
    )
    acts = scenario.all_acts(Random(3))
    assert [act.at_s for act in acts] == sorted(act.at_s for act in acts)
    assert {act.kind for act in acts} == {"stall", "suspend"}
    assert msgspec.structs.replace(scenario, presence=()).all_acts(Random(3)) == list(scenario.acts)
