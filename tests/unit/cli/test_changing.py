"""Commands that change something: what they ask of the node, what they wait for, and what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import Result

from colla.cli import waiting
from colla.client import types
from colla.model.contribution import GIVES_NOTHING

Colla = Callable[..., Result]
NOT_FOUND = types.ApiError("not_found", "no")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "index.html").write_text("hello")
    return tmp_path


@pytest.fixture
def prepared(node: Any) -> Any:
    node.answer("POST objects", types.PutAnswer("22" * 32, 5, 3, 3))
    node.answer("POST services", types.WrittenAnswer("11" * 16, "blog", 2, created=True))
    return node


def test_deploy_waits_for_all_replicas(colla: Colla, prepared: Any, samples: Any, site: Path) -> None:
    prepared.answer(
        "GET services/blog",
        NOT_FOUND,
        samples.service("blog"),
        samples.service("blog", "aa"),
        samples.service("blog", "aa", "bb", "cc"),
    )
    result = colla("deploy", site, "--name", "blog", "--env", "A=1", "--public", "--domain", "x.org")
    assert result.exit_code == 0 and result.stdout == "http://blog.localhost:8642/\n"
    assert "3 replicas answer after" in result.stderr and "on aa, bb, cc" in result.stderr
    assert [body["path"] for body in prepared.bodies("POST objects")] == [str(site)]
    (body,) = prepared.bodies("POST services")
    assert (
        body["object"] == "22" * 32
        and body["env"] == {"A": "1"}
        and body["public"]
        and body["domains"] == ["x.org"]
    )


def test_a_change_waits_until_no_old_replica_is_left(
    colla: Colla, prepared: Any, samples: Any, site: Path
) -> None:
    new = samples.service("blog", "dd", "ee", "ff", version=2)
    prepared.answer("POST services", types.WrittenAnswer("11" * 16, "blog", 2))
    prepared.answer(
        "GET services/blog",
        samples.service("blog", "aa", "bb", "cc"),
        samples.service("blog", "aa", "bb", "cc", version=2),
        samples.service("blog", "aa", "dd", "ee", version=2),
        new,
    )
    result = colla("deploy", site, "--name", "blog", "--json")
    assert result.exit_code == 0 and msgspec.json.decode(result.stdout, type=types.ServiceReport) == new


@pytest.mark.parametrize(("asked", "replicas"), [((), 5), (("--replicas", "2"), 2)])
def test_a_change_keeps_the_number_of_replicas_unless_told(
    colla: Colla, prepared: Any, samples: Any, site: Path, asked: tuple[str, ...], replicas: int
) -> None:
    held = msgspec.structs.replace(samples.service("blog", "aa"), replicas_wanted=5)
    prepared.answer("GET services/blog", held)
    assert colla("deploy", site, "--name", "blog", "--no-wait", *asked).exit_code == 0
    assert [body["replicas"] for body in prepared.bodies("POST services")] == [replicas]


def test_fewer_replicas_than_wanted_are_told(
    colla: Colla, prepared: Any, samples: Any, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "SETTLED_S", 0.0)
    prepared.answer("GET services/blog", NOT_FOUND, samples.service("blog", "aa"))
    result = colla("deploy", site, "--name", "blog")
    assert result.exit_code == 0 and "1 of 3 replicas of blog answer" in result.stderr


def test_no_replica_at_all_is_too_late(colla: Colla, prepared: Any, samples: Any, site: Path) -> None:
    prepared.answer("GET services/blog", NOT_FOUND, samples.service("blog"))
    result = colla("deploy", site, "--name", "blog", "--timeout", "0")
    assert result.exit_code == 5 and "colla why blog" in result.stderr


@pytest.mark.parametrize("option", ["--inactive", "--no-wait"])
def test_deploy_without_waiting(colla: Colla, prepared: Any, samples: Any, site: Path, option: str) -> None:
    prepared.answer("GET services/blog", NOT_FOUND, samples.service("blog", active=option != "--inactive"))
    assert colla("deploy", site, "--name", "blog", option).exit_code == 0
    assert prepared.bodies("POST services")[0]["activate"] is (option != "--inactive")


def test_missing_copies_are_told(colla: Colla, prepared: Any, samples: Any, site: Path) -> None:
    prepared.answer("POST objects", types.PutAnswer("22" * 32, 5, 1, 3, ("vps: the disk is full",)))
    prepared.answer("GET services/blog", NOT_FOUND, samples.service("blog", "aa", "bb", "cc"))
    assert "1 of 3 copies" in colla("deploy", site, "--name", "blog").stderr


def test_a_folder_that_is_nothing_asks_nobody(colla: Colla, prepared: Any, tmp_path: Path) -> None:
    result = colla("deploy", tmp_path / "nowhere")
    assert result.exit_code == 4 and not prepared.asked
    assert colla("deploy", tmp_path, "--env", "A").exit_code == 2


def test_scale_activate_and_deactivate(colla: Colla, node: Any, samples: Any) -> None:
    for verb in ("scale", "activate", "deactivate"):
        node.answer(f"POST services/blog/{verb}", types.WrittenAnswer("11" * 16, "blog", 2))
    node.answer("GET services/blog", samples.service("blog", "aa", "bb", "cc"))
    result = colla("scale", "blog", 3)
    assert result.stdout == "blog shall have 3 replicas; it runs on aa, bb, cc.\n"
    assert node.bodies("POST services/blog/scale") == [{"replicas": 3}]
    assert "blog is active" in colla("activate", "blog").stdout
    assert json.loads(colla("deactivate", "blog", "--json").stdout)["name"] == "blog"


@pytest.mark.parametrize(("words", "code"), [(("eliminate", "blog"), 1), (("rm", "blog", "--yes"), 0)])
def test_elimination_is_confirmed(
    colla: Colla, node: Any, samples: Any, words: tuple[str, ...], code: int
) -> None:
    node.answer("GET services/blog", samples.service("blog"))
    node.answer("DELETE services/blog", types.WrittenAnswer("11" * 16, "blog", 2))
    assert colla(*words).exit_code == code
    assert len(node.bodies("DELETE services/blog")) == (1 if code == 0 else 0)


def test_an_invitation_is_two_lines(colla: Colla, node: Any) -> None:
    node.answer("POST invite", types.InviteAnswer("colla1abc", "club", 2e9, 1))
    result = colla("invite", "--expires", "12h", "--my-computer")
    assert result.stdout == "pip install colla\ncolla join colla1abc\n"
    (asked,) = node.bodies("POST invite")
    assert (asked["my_computer"], asked["expiry_s"], asked["role"], asked["uses"]) == (
        True,
        43200.0,
        "member",
        1,
    )
    colla("invite", "--role", "guest", "--uses", "20", "--for", "ben")
    asked = node.bodies("POST invite")[-1]
    assert (asked["role"], asked["uses"], asked["member"]) == ("guest", 20, "ben")
    picture = colla("invite", "--qr").stdout.splitlines()[2:]
    assert (
        len(picture) > 10
        and len({len(line) for line in picture}) == 1
        and set("".join(picture)) <= set("█▀▄ ")
    )


def test_contribute_shows_and_changes(colla: Colla, node: Any, samples: Any) -> None:
    node.answer("POST contribute", types.ContributeAnswer(GIVES_NOTHING, 2))
    assert "agents\tuser" in colla("contribute").stdout
    assert not node.bodies("POST contribute")
    node.answer("GET members", (types.MemberReport("ab" * 32, "ana", "member", (), True),))
    result = colla(
        "contribute", "--cpus", "0.5", "--for", "ana", "--for", "nobody\x1b[31m", "--label", "site=home"
    )
    assert result.exit_code == 0 and "2 replicas run here now" in result.stderr
    assert "no member" in result.stderr and "\x1b" not in result.stderr and "'ana'" not in result.stderr
    (body,) = node.bodies("POST contribute")
    sent = body["contribution"]
    assert (sent["cpus"], sent["members"], sent["labels"]) == (
        0.5,
        ["ana", "nobody\x1b[31m"],
        [["site", "home"]],
    )


def test_drain_waits_until_the_computer_is_empty(colla: Colla, node: Any, samples: Any) -> None:
    full = msgspec.structs.replace(samples.node, replicas=2)
    node.answer("POST contribute", types.ContributeAnswer(GIVES_NOTHING, 2))
    node.answer("GET node", full, full, samples.node)
    node.answer("GET nodes", samples.computers)
    assert "empty" in colla("drain").stdout
    assert node.bodies("POST contribute")[0]["contribution"]["draining"] is True
    node.answer("GET node", full)
    result = colla("drain", "--timeout", "0")
    assert result.exit_code == 5 and "2 replicas could not move" in result.stderr
    alone = tuple(msgspec.structs.replace(each, phase="absent") for each in samples.computers if not each.me)
    node.answer("GET nodes", alone)
    result = colla("drain")
    assert result.exit_code == 1 and "2 replicas cannot move" in result.stderr
    assert colla("drain", "--undo").exit_code == 0
    assert node.bodies("POST contribute")[-1]["contribution"]["draining"] is False


def test_pause_and_resume(colla: Colla, node: Any) -> None:
    node.answer("POST contribute", types.ContributeAnswer(GIVES_NOTHING, 0))
    assert colla("pause").exit_code == 0 and colla("resume").exit_code == 0
    paused = [body["contribution"]["paused"] for body in node.bodies("POST contribute")]
    assert paused == [True, False]


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """Something that runs and has a process id."""
    running = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield running
    running.kill()
    running.wait()


def test_down_waits_until_the_process_is_gone(colla: Colla, node: Any, samples: Any, process: Any) -> None:
    node.answer("GET node", msgspec.structs.replace(samples.node, pid=process.pid))
    node.answer("POST shut-down", {})
    process.kill()
    assert colla("down", "--keep-replicas").exit_code == 0
    assert node.bodies("POST shut-down") == [{"keep_replicas": True}]


def test_down_tells_when_it_does_not_stop(
    colla: Colla, node: Any, samples: Any, process: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("colla.cli.computer._ended.__defaults__", (0.0,))
    node.answer("GET node", msgspec.structs.replace(samples.node, pid=process.pid))
    node.answer("POST shut-down", {})
    assert colla("down").exit_code == 5


def test_leaving_is_confirmed_and_puts_the_folder_aside(colla: Colla, node: Any, home: Path) -> None:
    node.answer("POST leave", {})
    assert colla("leave").exit_code == 1 and not node.bodies("POST leave")
    result = colla("leave", "--yes")
    assert result.exit_code == 0 and node.bodies("POST leave")
    (aside,) = (home / "left").iterdir()
    assert str(aside) in result.stdout and (aside / "settings.toml").exists()
    assert colla("status").exit_code == 4


def test_leaving_at_once_and_for_good(colla: Colla, node: Any, home: Path) -> None:
    node.answer("POST leave", {})
    assert colla("leave", "--yes", "--now", "--delete", "--anyway").exit_code == 0
    assert node.bodies("POST leave") == [{"now": True, "anyway": True}]
    assert not (home / "club").exists() and not (home / "left").exists()


def test_connect(colla: Colla, node: Any) -> None:
    node.answer("POST connect", {})
    assert "1 other computer" in colla("connect", "[2001:db8::1]:4242").stdout
    assert node.bodies("POST connect") == [{"address": "[2001:db8::1]:4242"}]
    for address in ("nowhere", "a:", ":1", "a:70000"):
        assert colla("connect", address).exit_code == 2
