"""Commands that show: in a pipe, on a terminal, as JSON; and what every command does when something is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import Result

from colla.client import types

Colla = Callable[..., Result]


def test_members_in_a_pipe(colla: Colla, node: Any) -> None:
    node.answer("GET members", (types.MemberReport("1", "ana", "administrator", ("nas", "vps"), True),))
    result = colla("members")
    assert (result.exit_code, result.stdout) == (0, "ana\tadministrator\tyes\tnas, vps\n")


def test_computers_in_three_forms(colla: Colla, node: Any) -> None:
    lines = colla("nodes").stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["nas (this one)", "vps", "old"]
    assert lines[1].split("\t")[-1] == "direct 12 ms" and lines[2].split("\t")[2] == "absent"
    shown = colla("nodes", terminal=True).stdout
    assert "COMPUTER" in shown and "\x1b[" in shown
    assert [each["name"] for each in json.loads(colla("nodes", "--json").stdout)] == ["nas", "vps", "old"]


def test_names_from_others_do_nothing_to_the_terminal(colla: Colla, node: Any) -> None:
    evil = "x\x1b]0;owned\x07\x9b2J\r\n[red]y"
    node.answer("GET members", (types.MemberReport("1", evil, "member", (), False),))
    for options in ((), ("--json",)):
        text = colla("members", *options).stdout
        assert "\x1b" not in text and "\x9b" not in text and text.count("\n") == 1
    shown = colla("members", terminal=True).stdout
    assert "\x1b]" not in shown and "\x9b" not in shown and "[red]y" in shown


def test_status_tells_what_is_missing(colla: Colla, node: Any, samples: Any) -> None:
    services = (samples.service("blog", "vps"), samples.service("shop", active=False))
    gone = msgspec.structs.replace(samples.computers[2], name="sold", phase="left")
    computers = (*samples.computers, gone)
    report = types.StatusReport(samples.node, computers, services, ("blog: 1 of 3 replicas run",))
    node.answer("GET status", report)
    result = colla("status")
    assert (
        result.exit_code == 0
        and "blog\tactive\t1/3" in result.stdout
        and "shop\tinactive\t–" in result.stdout
    )
    assert "2 of 3 computers here" in result.stdout and "warning: blog: 1 of 3" in result.stderr


def test_status_fails_when_a_service_is_down_or_this_node_is_outside(
    colla: Colla, node: Any, samples: Any
) -> None:
    down = types.StatusReport(samples.node, (), (samples.service("blog"),))
    outside = msgspec.structs.replace(samples.node, joined=False, join_problem="The ticket was used.")
    node.answer("GET status", down, types.StatusReport(outside, (), ()))
    result = colla("status")
    assert (
        result.exit_code == 1
        and "No replica answers of: blog" in result.stderr
        and "colla why blog" in result.stderr
    )
    result = colla("status", "--json")
    assert result.exit_code == 1 and json.loads(result.stderr)["message"] == "The ticket was used."
    assert json.loads(result.stdout)["node"]["joined"] is False


def test_why_is_a_table_with_its_history(colla: Colla, node: Any) -> None:
    lines = (
        types.WhyLineReport("vps", "runs", "since 12:00", 0.9),
        types.WhyLineReport("old", "refused", "own only", 0),
    )
    node.answer(
        "GET services/blog/why", types.WhyReport("blog", "vps", 3, 2, 1, lines, ("12:00 vps took over",))
    )
    assert colla("why", "blog").stdout == "vps\truns\tsince 12:00\t0.90\nold\trefused\town only\t0.00\n"
    shown = colla("why", "blog", terminal=True).stdout
    assert "1 of 2 replicas running; 1 missing" in shown and "12:00 vps took over" in shown


def test_show_locate_and_logs(colla: Colla, node: Any, samples: Any) -> None:
    node.answer("GET services/blog", samples.service("blog", "vps", "dd", conflicts=("spec",)))
    node.answer("GET services/blog/logs", [samples.line("vps", "one"), samples.line("vps", "two\x1b[1m")])
    result = colla("show", "blog")
    assert "master\tvps" in result.stdout and "replicas\t2/3" in result.stdout and "spec" in result.stderr
    located = json.loads(colla("locate", "blog", "--json").stdout)
    assert located["replicas"][1] == {
        "replica": "dd-1", "node": "dd" * 16, "node_name": "dd", "path": "", "rtt_ms": 0.0,
    }  # fmt: skip
    printed = [line.split("\t")[1:] for line in colla("logs", "blog").stdout.splitlines()]
    assert printed == [["vps", "one"], ["vps", "two\\x1b[1m"]]


def test_locate_when_nothing_runs(colla: Colla, node: Any, samples: Any) -> None:
    node.answer("GET services/blog", samples.service("blog"), samples.service("blog", active=False))
    result = colla("locate", "blog")
    assert result.exit_code == 1 and "colla why blog" in result.stderr
    assert "colla activate blog" in colla("locate", "blog").stderr


def test_open_prints_the_address(
    colla: Colla, node: Any, samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.answer("GET services/blog", samples.service("blog", "vps"))
    node.answer("POST forwards", types.ForwardAnswer("blog", 20123))
    monkeypatch.setattr("colla.cli.use._resolves", lambda url: False)
    result = colla("open", "blog")
    assert result.stdout == "http://blog.localhost:8642/\n" and "http://127.0.0.1:20123/" in result.stderr
    monkeypatch.setattr("colla.cli.use._resolves", lambda url: True)
    assert json.loads(colla("open", "blog", "--json").stdout)["loopback_url"] == ""


def test_notices_are_followed_until_the_node_stops(colla: Colla, node: Any, samples: Any) -> None:
    notices = [
        types.NoticeReport(1.0, "took_over", "vps is master\x1b[2J", "11" * 16),
        types.NoticeReport(2.0, "replica_ready", "of another", "33" * 16),
    ]
    node.answer("GET notices", notices).answer("GET services/blog", samples.service("blog"))
    result = colla("notices", "--service", "blog")
    assert result.exit_code == 3 and "took_over\tvps is master\\x1b[2J" in result.stdout
    assert "another" not in result.stdout and "node stopped" in result.stderr
    lines = colla("notices", "--json", "--kind", "replica_ready").stdout.splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["replica_ready"]
    assert colla("notices", "--new").stdout == ""


def test_the_log_is_read_without_a_node(colla: Colla, home: Path) -> None:
    assert colla("log").exit_code == 1
    (home / "club" / "node.log").write_text("".join(f"line {number}\n" for number in range(20_000)))
    assert colla("log", "-n", "2").stdout == "line 19998\nline 19999\n"
    assert len(colla("log", "-n", "15000").stdout.splitlines()) == 15_000


def test_doctor_without_a_node(colla: Colla, home: Path) -> None:
    result = colla("doctor", "--json")
    found = {line["subject"]: line["verdict"] for line in json.loads(result.stdout)}
    assert result.exit_code == 1 and found["node"] == "problem" and "disk" in found


def test_doctor_with_a_node(colla: Colla, node: Any) -> None:
    node.answer("GET doctor", (types.DoctorLine("warning", "nat", "No way in.", "Forward a port."),))
    result = colla("doctor")
    assert result.exit_code == 0 and "warning\tnat\tNo way in.\tForward a port." in result.stdout


@pytest.mark.parametrize(
    "words", [("services",), ("deploy", "."), ("contribute",), ("down",), ("connect", "a:1")]
)
def test_a_node_that_does_not_run(colla: Colla, home: Path, words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("x")
    result = colla(*(tmp_path if word == "." else word for word in words))
    assert result.exit_code == 3 and "colla up" in result.stderr and not result.stdout


def test_a_socket_that_nobody_serves_is_no_node(colla: Colla, node: Any) -> None:
    node.stop()
    assert colla("services").exit_code == 3


def test_which_group(colla: Colla, home: Path, node: Any) -> None:
    node.answer("GET services", ())
    other = home / "lab"
    other.mkdir()
    (other / "settings.toml").write_text("")
    assert colla("services").exit_code == 2
    assert colla("services", "--group", "club").exit_code == 0
    assert colla("services", "--group", "lab").exit_code == 3
    result = colla("services", "-g", "nowhere")
    assert result.exit_code == 4 and "club, lab" in result.stderr
    assert colla("services", "--home", home / "empty").exit_code == 4


def test_errors_of_the_node_are_shown_with_their_hint(colla: Colla, node: Any) -> None:
    result = colla("show", "nothing")
    assert result.exit_code == 4 and "Nothing is at" in result.stderr and "A hint." in result.stderr
    assert json.loads(colla("show", "nothing", "--json").stderr)["code"] == "not_found"


def test_a_name_cannot_reach_another_path(colla: Colla, node: Any) -> None:
    node.answer("GET node", types.ApiError("wrong", "reached"))
    assert colla("show", "../node").exit_code == 4


def test_a_fault_is_no_traceback(colla: Colla, node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colla.client.client.Client.members", lambda self: 1 / 0)
    result = colla("members")
    assert result.exit_code == 1 and "ZeroDivisionError" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "words", [("dance",), ("scale", "blog", "0"), ("scale", "blog"), ("invite", "--expires", "soon")]
)
def test_wrong_use(colla: Colla, node: Any, words: tuple[str, ...]) -> None:
    assert colla(*words).exit_code == 2
