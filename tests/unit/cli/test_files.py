"""Commands on the group's files: what they ask, what they show, what they say when something is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from colla.client import types

Colla = Callable[..., Result]
ID = "ab" * 32
PUT = types.PutAnswer(ID, 3_000_000, 3, 3, (), "albums/2026", 12, 2)


def listed(name: str, **more: Any) -> types.ObjectReport:
    return types.ObjectReport(
        name, ID, 2048, 2, more.pop("folder", False), "ana", 1_700_000_000.0, 3, 3, **more
    )


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "lake.jpg"
    path.write_bytes(b"jpeg")
    return path


def test_put_names_the_file_and_says_where_it_is(colla: Colla, node: Any, photo: Path) -> None:
    node.answer("POST objects", PUT)
    result = colla("put", str(photo), "albums/2026")
    assert (result.exit_code, result.stdout) == (0, "albums/2026: 2.86 MiB in 12 files, on 3 computers\n")
    colla("put", str(photo))
    colla("put", str(photo), "albums/")
    colla("object", "put", str(photo), "--for", "ben", "--for", "carla", "--replace")
    colla("put", str(photo), "--seal")
    bodies = node.bodies("POST objects")
    assert [body["name"] for body in bodies] == [
        "albums/2026",
        "lake.jpg",
        "albums/lake.jpg",
        "lake.jpg",
        "lake.jpg",
    ]
    assert all(body["path"] == str(photo) and body["transfer"] for body in bodies)
    assert [body["sealed"] for body in bodies] == [False, False, False, True, True]
    assert [body["sealed_for"] for body in bodies][3:] == [["ben", "carla"], []]
    assert [body["replace"] for body in bodies] == [False, False, False, True, False]


def test_too_few_copies_are_told(colla: Colla, node: Any, photo: Path) -> None:
    node.answer("POST objects", types.PutAnswer(ID, 5, 1, 3, ("the disk is full",), "x", 1, 2))
    result = colla("put", str(photo))
    assert "on 1 computer" in result.stdout
    assert "only 1 of 3 copies: the disk is full" in result.stderr
    node.answer("POST objects", types.PutAnswer(ID, 5, 1, 1, (), "x", 1, 1))
    assert "if this one is off" in colla("put", str(photo)).stderr


def test_what_is_not_there_is_not_put(colla: Colla, node: Any, tmp_path: Path) -> None:
    result = colla("put", str(tmp_path / "missing"))
    assert result.exit_code == 4
    assert node.asked == []


def test_get_chooses_a_place(
    colla: Colla, node: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    node.answer("POST objects/get", types.GetAnswer("a/lake.jpg", ID, "", 4, 1, False, "ana", 1.0))
    assert colla("get", "a/lake.jpg").stdout == "lake.jpg: 4 B in 1 file, from ana\n"
    colla("get", "a/lake.jpg", "there")
    colla("get", "a/lake.jpg", "other.jpg", "--replace")
    targets = [body["target"] for body in node.bodies("POST objects/get")]
    assert targets == [str(tmp_path / place) for place in ("lake.jpg", "there/lake.jpg", "other.jpg")]
    assert [body["replace"] for body in node.bodies("POST objects/get")] == [False, False, True]


def test_get_of_a_version_takes_the_beginning_of_its_id(colla: Colla, node: Any) -> None:
    versions = (
        types.VersionReport("current", ID, "ana", "nas", 1.0),
        types.VersionReport("conflict", "cd" * 32, "ben", "vps", 1.0),
    )
    node.answer("GET objects/versions", versions)
    node.answer("POST objects/get", types.GetAnswer("plan", ID, "", 4, 1, False, "ben", 1.0))
    colla("get", "plan", "--version", "cdcd")
    assert node.bodies("POST objects/get")[0]["object"] == "cd" * 32
    result = colla("get", "plan", "--version", "ff")
    assert result.exit_code == 4
    assert "colla object show plan" in result.stderr


def test_a_list_in_three_forms(colla: Colla, node: Any) -> None:
    node.answer(
        "GET objects",
        (
            listed("albums/2026", folder=True, conflicts=2),
            listed("diary", sealed=True, readable=False),
            listed("new", sealed=True),
        ),
    )
    lines = [line.split("\t") for line in colla("ls").stdout.splitlines()]
    assert [line[0] for line in lines] == ["albums/2026/", "diary", "new"]
    assert lines[0][1:5] == ["ana", "2 KiB", "2", "3 of 3"]
    assert [line[6] for line in lines] == ["2 conflicts", "sealed, not for you", "sealed"]
    assert "COPIES" in colla("object", "ls", terminal=True).stdout
    assert [json.loads(line)["name"] for line in colla("ls", "--json").stdout.splitlines()] == [
        "albums/2026",
        "diary",
        "new",
    ]


def test_an_empty_list_says_what_to_do(colla: Colla, node: Any) -> None:
    node.answer("GET objects", ())
    result = colla("ls")
    assert result.stdout == ""
    assert "colla put" in result.stderr


def test_versions_tell_what_was_removed_and_how_conflicts_end(colla: Colla, node: Any) -> None:
    node.answer(
        "GET objects/versions",
        (
            types.VersionReport("current", "", "ana", "nas", 1.0),
            types.VersionReport("conflict", ID, "ben", "vps", 1.0, 2048, 1, False, True, True, 3),
        ),
    )
    result = colla("object", "show", "plan")
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert lines[0][:2] == ["removed", "current"]
    assert lines[1][:6] == [ID[:10], "conflict", "ben", "vps", "2 KiB sealed", "3"]
    assert "settles it" in result.stderr


def test_removing_asks_first(colla: Colla, node: Any) -> None:
    node.answer("DELETE objects", types.NamedAnswer("plan", 2))
    assert "removed" in colla("object", "rm", "plan", "--yes").stdout
    assert "2 computers" in colla("object", "rm", "plan", "--replace").stdout


def test_sharing_and_checking(colla: Colla, node: Any) -> None:
    node.answer("POST objects/share", types.NamedAnswer("plan", 2))
    assert "ben, carla" in colla("object", "share", "plan", "ben", "carla").stdout
    assert "the whole group" in colla("object", "share", "plan").stdout
    assert [body["members"] for body in node.bodies("POST objects/share")] == [["ben", "carla"], []]
    node.answer(
        "POST objects/check", types.CheckAnswer(10, 5_000_000, 0), types.CheckAnswer(10, 5_000_000, 2)
    )
    assert colla("object", "check").stdout == "10 pieces, 4.77 MiB: all as they should be\n"
    assert "2 damaged, fetched again" in colla("object", "check").stdout


def test_rm_alone_still_eliminates_services(colla: Colla, node: Any, samples: Any) -> None:
    node.answer("GET services/plan", samples.service("plan", "vps"))
    node.answer("DELETE services/plan", types.WrittenAnswer("1", "plan", 2))
    colla("rm", "plan", "--yes")
    assert [path for method, path, _ in node.asked if method == "DELETE"] == ["services/plan"]
