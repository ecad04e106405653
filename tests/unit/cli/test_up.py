"""Founding, joining and starting: a node that runs and a whole folder, or nothing."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import Result

from colla.cli import up
from colla.model.ids import GroupId, NodeId
from colla.node.logs import log_to
from colla.protocol.membership.tickets import Contact, TicketText, write_ticket

Colla = Callable[..., Result]
READY = "import time; time.sleep(60)"
REFUSES = 'import sys; sys.stderr.write(\'{"code":"port_in_use","message":"Taken.","hint":"Use --port."}\\n\'); sys.exit(1)'
CRASHES = 'import sys; sys.stderr.write("Segmentation\\nfault"); sys.exit(7)'
LIVES = "input()"


@pytest.fixture
def spawned(
    monkeypatch: pytest.MonkeyPatch,
    samples: Any,
    make_node: Callable[[Path], Any],
    request: pytest.FixtureRequest,
) -> Iterator[list[Path]]:
    """Instead of a node: a program (the test's parameter), and with `LIVES` an API that answers `samples.node`."""
    started: list[Path] = []
    fakes: list[Any] = []
    processes: list[subprocess.Popen[bytes]] = []

    def spawn(folder: Path, errors: Path) -> subprocess.Popen[bytes]:
        started.append(folder)
        with errors.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-c", request.param],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=stream,
            )
        processes.append(process)
        if request.param == LIVES:
            report = msgspec.structs.replace(samples.node, pid=process.pid)
            fake = make_node(folder).answer("GET node", report).answer("POST shut-down", {})
            fakes.append(fake.start())
        return process

    monkeypatch.setattr(up, "_spawn", spawn)
    yield started
    for fake in fakes:
        fake.stop()
    for process in processes:
        process.kill()
        process.communicate()


def ticket(expires_s: float, *, own_computer: bool = False) -> str:
    contacts = (Contact(NodeId(b"n" * 32), ("192.0.2.1:4242",)),)
    return write_ticket(
        TicketText(
            GroupId(b"g" * 32), "choir", b"s" * 32, NodeId(b"n" * 32), own_computer, expires_s, contacts
        )
    )


def test_founding_without_starting(colla: Colla, home: Path) -> None:
    words = (
        "--member",
        "ana",
        "--computer",
        "nas",
        "--no-up",
        "--cpus",
        "1.5",
        "--environments",
        "static",
        "--no-lan",
    )
    result = colla("group", "create", "choir", "--election", "contention", *words)
    assert result.exit_code == 0 and "colla up" in result.stdout
    settings = tomllib.loads((home / "choir" / "settings.toml").read_text())
    given = settings["contribution"]
    assert (settings["member_name"], settings["node_name"], settings["lan_discovery"]) == (
        "ana",
        "nas",
        False,
    )
    assert (given["cpus"], given["environments"], len(given["agents"])) == (1.5, ["static"], 5)
    again = colla("group", "create", "choir", "--no-up")
    assert again.exit_code == 1 and "--home" in again.stderr


@pytest.mark.parametrize(
    "words", [("Our Choir",), ("choir", "--member", "Ana B"), ("choir", "--computer", "a--b")]
)
def test_a_name_that_cannot_be(colla: Colla, home: Path, words: tuple[str, ...]) -> None:
    result = colla("group", "create", *words, "--no-up")
    assert result.exit_code == 1 and "hyphens" in result.stderr
    assert not (home / words[0]).exists()


@pytest.mark.parametrize("spawned", [REFUSES], indirect=True)
def test_a_node_that_cannot_start_says_why_and_leaves_nothing(
    colla: Colla, home: Path, spawned: list[Path]
) -> None:
    result = colla("group", "create", "choir", "--json")
    assert result.exit_code == 1 and spawned == [home / "choir"]
    assert json.loads(result.stderr) == {"code": "port_in_use", "message": "Taken.", "hint": "Use --port."}
    assert not (home / "choir").exists()


@pytest.mark.parametrize("spawned", [CRASHES], indirect=True)
def test_a_node_that_crashes_at_once_is_told(colla: Colla, home: Path, spawned: list[Path]) -> None:
    result = colla("up", "--background")
    assert result.exit_code == 1 and "ended with 7" in result.stderr and "fault" in result.stderr
    assert (home / "club").exists()


@pytest.mark.parametrize("spawned", [LIVES], indirect=True)
def test_founding_starts_the_node(colla: Colla, spawned: list[Path]) -> None:
    result = colla("group", "create", "choir")
    assert result.exit_code == 0 and "which is up" in result.stdout and "It gives" in result.stderr


@pytest.mark.parametrize("spawned", [READY], indirect=True)
async def test_a_node_that_never_answers_is_stopped(home: Path, spawned: list[Path]) -> None:
    with pytest.raises(up.CollaError) as raised:
        await up.start_in_background(home / "club", timeout_s=0.2)
    assert raised.value.code == "timeout"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("colla1zzz", "missing"),
        ("hello", "not a ticket"),
        (ticket(time.time() - 1), "expired"),
        (ticket(time.time() + 99)[:-3], "missing"),
    ],
)
def test_a_ticket_that_is_not_right(colla: Colla, home: Path, text: str, part: str) -> None:
    result = colla("join", text)
    assert result.exit_code == 1 and part in result.stderr
    assert not (home / "choir").exists()


@pytest.mark.parametrize("spawned", [LIVES], indirect=True)
def test_joining_gives_nothing_unless_asked(colla: Colla, home: Path, spawned: list[Path]) -> None:
    text = ticket(time.time() + 99)
    result = colla("join", "colla", "join", text[:20], text[20:], "--member", "ben", "--computer", "laptop")
    assert result.exit_code == 0 and "It gives nothing" in result.stderr
    settings = tomllib.loads((home / "choir" / "settings.toml").read_text())
    assert settings["ticket"] == text and settings["contribution"]["agents"] == ["user"]
    assert settings["peers"][0]["addresses"] == ["192.0.2.1:4242"]


@pytest.mark.parametrize("spawned", [LIVES], indirect=True)
def test_joining_with_a_contribution(colla: Colla, home: Path, spawned: list[Path]) -> None:
    assert colla("join", ticket(time.time() + 99), "--give", "all", "--own-only").exit_code == 0
    given = tomllib.loads((home / "choir" / "settings.toml").read_text())["contribution"]
    assert len(given["agents"]) == 5 and given["own_only"] is True


@pytest.mark.parametrize("spawned", [LIVES], indirect=True)
@pytest.mark.parametrize(
    ("problem", "again", "code", "part"),
    [
        ("The ticket was used before.", False, 1, "used before"),
        ("Nobody answered.", True, 5, "with the same ticket"),
        ("", False, 5, "must be on and reachable"),
    ],
)
def test_a_refusal_leaves_nothing(
    colla: Colla,
    home: Path,
    spawned: list[Path],
    samples: Any,
    monkeypatch: pytest.MonkeyPatch,
    problem: str,
    again: bool,
    code: int,
    part: str,
) -> None:
    samples.node = msgspec.structs.replace(samples.node, joined=False, join_problem=problem, join_again=again)
    monkeypatch.setattr(up, "STOP_TIMEOUT_S", 0.0)
    result = colla("join", ticket(time.time() + 99), "--timeout", "1")
    assert result.exit_code == code and part in result.stderr
    assert spawned and not (home / "choir").exists()


def test_a_second_node_of_a_group_is_refused(colla: Colla, node: Any) -> None:
    result = colla("up")
    assert result.exit_code == 1 and "runs already" in result.stderr and "colla down" in result.stderr


def test_the_log_goes_to_its_file_and_cannot_move_the_terminal(home: Path) -> None:
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    log_to(home / "club", quiet=True)
    added = [handler for handler in root.handlers if handler not in before]
    try:
        logging.getLogger("colla").info("from another: %s", "\x1b[2J")
        logging.getLogger("asyncio").info("not interesting")
    finally:
        for handler in added:
            root.removeHandler(handler)
            handler.close()
    text = (home / "club" / "node.log").read_text()
    assert "from another: \\x1b[2J" in text and "interesting" not in text and len(added) == 1


def test_names_are_made_from_any_text() -> None:
    assert up.label("Ana's NAS.local", "x") == "ana-s-nas-local" and up.label("漢", "computer") == "computer"
