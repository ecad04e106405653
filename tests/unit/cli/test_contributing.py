"""From the owner's words to what a computer gives: only what was named changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer

from colla.cli.contributing import (
    Computer,
    Gives,
    decide,
    describe,
    inspect_computer,
    parse_agents,
    reasonable,
)
from colla.model.contribution import ALL_AGENTS, GIVES_NOTHING, AgentKind

BIG = Computer(cpus=8, memory_bytes=16 << 30, disk_free_bytes=10**12, disk_bytes=10**13, sandbox=True)
SMALL = Computer(cpus=1, memory_bytes=1 << 30, disk_free_bytes=10**9, disk_bytes=10**10, sandbox=False)


def test_what_is_reasonable() -> None:
    big, small = reasonable(BIG), reasonable(SMALL)
    assert (big.cpus, big.memory_bytes, big.disk_bytes) == (4, 4 << 30, 10**10)
    assert (small.cpus, small.memory_bytes, small.disk_bytes) == (0.5, 1 << 28, 10**8)
    assert big.environments == ("static", "process") and small.environments == ("static",)
    assert big.agents == ALL_AGENTS and not big.unsandboxed


def test_presets_keep_where_the_computer_is() -> None:
    base = msgspec.structs.replace(reasonable(BIG), labels=(("site", "home"),), own_only=True)
    nothing = decide(Gives(give="nothing"), base, BIG)
    assert nothing == msgspec.structs.replace(GIVES_NOTHING, labels=base.labels)
    assert decide(Gives(give="all"), nothing, BIG) == msgspec.structs.replace(
        reasonable(BIG), labels=base.labels
    )


def test_agents_bring_what_they_need() -> None:
    given = decide(Gives(give="executor"), GIVES_NOTHING, BIG)
    assert given.agents == (AgentKind.USER, AgentKind.EXECUTOR)
    assert (given.cpus, given.environments) == (4, ("static", "process")) and given.disk_bytes
    kept = decide(Gives(agents="executor,group"), msgspec.structs.replace(given, cpus=1.0), BIG)
    assert kept.cpus == 1.0 and AgentKind.GROUP in kept.agents
    assert decide(Gives(agents="group"), GIVES_NOTHING, BIG).cpus == 0


@pytest.mark.parametrize(
    ("gives", "field", "value"),
    [
        (Gives(cpus=1.5), "cpus", 1.5),
        (Gives(cpus=0.0), "cpus", 0.0),
        (Gives(memory="2GiB"), "memory_bytes", 2 << 30),
        (Gives(disk="5GB"), "disk_bytes", 5 * 10**9),
        (Gives(environments="static, process,static"), "environments", ("static", "process")),
        (Gives(environments="none"), "environments", ()),
        (Gives(unsandboxed=True), "unsandboxed", True),
        (Gives(own_only=True), "own_only", True),
        (Gives(members=["ana", "ben"]), "members", ("ana", "ben")),
        (Gives(members=["everybody"]), "members", ()),
        (Gives(replicas_max=2), "replicas_max", 2),
        (Gives(gateway="0.0.0.0:8080"), "gateway", "0.0.0.0:8080"),
        (Gives(gateway="none"), "gateway", ""),
        (Gives(relay="http://203.0.113.7:3340"), "relay", "http://203.0.113.7:3340"),
        (Gives(relay="none"), "relay", ""),
        (Gives(label=["site=attic", "rack=", "room=2"]), "labels", (("room", "2"), ("site", "attic"))),
    ],
)
def test_only_what_was_named_changes(gives: Gives, field: str, value: Any) -> None:
    base = msgspec.structs.replace(
        reasonable(BIG),
        labels=(("rack", "1"), ("site", "home")),
        members=("zoe",),
        gateway="a:1",
        relay="http://a:1",
        draining=True,
    )
    changed = decide(gives, base, BIG)
    assert getattr(changed, field) == value
    assert msgspec.structs.replace(changed, **{field: getattr(base, field)}) == base


def test_saying_nothing_is_noticed() -> None:
    assert not Gives().says_something
    assert Gives(cpus=0.0).says_something and Gives(own_only=False).says_something


@pytest.mark.parametrize(
    "gives",
    [
        Gives(give="everything"),
        Gives(agents=""),
        Gives(agents="executor,cook"),
        Gives(memory="lots"),
        Gives(cpus=9.0),
        Gives(cpus=float("nan")),
        Gives(cpus=float("inf")),
        Gives(memory="17GiB"),
        Gives(memory="9" * 400 + "TB"),
        Gives(disk="11TB"),
        Gives(environments="static,no good"),
        Gives(environments=","),
        Gives(label=["home"]),
        Gives(gateway="8080"),
        Gives(gateway="a:0"),
        Gives(relay="203.0.113.7:3340"),
        Gives(relay="http://203.0.113.7"),
        Gives(relay="http://a:port"),
    ],
)
def test_wrong_words_are_told(gives: Gives) -> None:
    with pytest.raises(typer.BadParameter):
        decide(gives, GIVES_NOTHING, BIG)


def test_agents_stand_in_a_fixed_order_with_the_users_own_door() -> None:
    assert parse_agents("executor, REPOSITORY") == (AgentKind.USER, AgentKind.REPOSITORY, AgentKind.EXECUTOR)
    assert parse_agents("all") == ALL_AGENTS


def test_this_computer_is_seen(tmp_path: Path) -> None:
    computer = inspect_computer(tmp_path / "not" / "yet")
    assert computer.cpus >= 1 and computer.memory_bytes > 1 << 20 and computer.disk_free_bytes > 0


def test_a_contribution_is_described() -> None:
    words = dict(
        describe(msgspec.structs.replace(reasonable(BIG), own_only=True, draining=True, unsandboxed=True))
    )
    assert words["runs services of"] == "my own services" and words["now"] == "draining"
    assert "dangerous" in words["unsandboxed"]
    assert dict(describe(GIVES_NOTHING))["environments"] == "–"
