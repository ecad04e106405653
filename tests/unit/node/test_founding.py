"""Founding and joining make a folder that is whole, or nothing; what a crash left does not stand in the way."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import pytest

from colla.client.folders import groups
from colla.model.contribution import GIVES_NOTHING
from colla.model.errors import CollaError
from colla.model.ids import GroupId, NodeId
from colla.node import founding
from colla.node.founding import found_group, prepare_join
from colla.node.settings import MEMBER_KEY, NODE_KEY, read_key, read_settings, write_settings
from colla.protocol.membership.tickets import Contact, TicketText, write_ticket


def ticket(group: bytes = b"g", name: str = "choir", expires_in_s: float = 99.0) -> str:
    contacts = (Contact(NodeId(b"n" * 32), ("192.0.2.1:4242",)),)
    text = TicketText(
        GroupId(group * 32), name, b"s" * 32, NodeId(b"n" * 32), False, time.time() + expires_in_s, contacts
    )
    return write_ticket(text)


def join(home: Path, text: str) -> Path:
    return prepare_join(home, text, "ben", "laptop", GIVES_NOTHING)


def found(home: Path, name: str = "choir") -> Path:
    return found_group(home, name, "hashing", "ana", "attic", GIVES_NOTHING)


def code(action: object, *words: object) -> str:
    with pytest.raises(CollaError) as caught:
        action(*words)  # type: ignore[operator]
    assert caught.value.hint, "an error says what to do"
    return caught.value.code


def test_a_group_is_founded_once(tmp_path: Path) -> None:
    folder = found(tmp_path / "home")
    assert groups(tmp_path / "home") == [folder]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert code(found, tmp_path / "home") == "group_exists"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["choir"]


@pytest.mark.parametrize("name", ["", "..", "a/b", "Choir", "left", "x" * 64])
def test_a_name_that_no_folder_shall_have(tmp_path: Path, name: str) -> None:
    assert code(found, tmp_path / "home", name) == "bad_name"
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("name", ["..", "../../outside", "/tmp/outside", "a\nb", "Choir"])
def test_a_ticket_cannot_choose_a_folder_elsewhere(tmp_path: Path, name: str) -> None:
    assert code(join, tmp_path / "deep" / "home", ticket(name=name)) == "bad_name"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["make_key", "write_settings"])
def test_whatever_fails_on_the_way_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def refuse(*_: object) -> None:
        raise CollaError("disk_full", "The disk is full.", "Free some space.")

    monkeypatch.setattr(founding, step, refuse)
    for action in (lambda: found(tmp_path), lambda: join(tmp_path, ticket())):
        assert code(action) == "disk_full"
        assert list(tmp_path.iterdir()) == []


def test_a_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("mine")
    assert code(found, tmp_path / "home") == "bad_home"
    assert (tmp_path / "home").read_text() == "mine"


def test_what_was_cut_off_is_no_group_and_goes_after_a_while(tmp_path: Path) -> None:
    old, new = tmp_path / ".new-old", tmp_path / ".new-now"
    for left in (old, new):
        left.mkdir()
        (left / "settings.toml").write_text("")
    os.utime(old, (0.0, time.time() - 2 * founding.CUT_OFF_AFTER_S))
    assert groups(tmp_path) == []
    folder = found(tmp_path)
    assert groups(tmp_path) == [folder]
    assert new.exists() and not old.exists()


def test_joining_a_group_twice_is_refused(tmp_path: Path) -> None:
    folder = join(tmp_path, ticket())
    write_settings(folder, msgspec.structs.replace(read_settings(folder), ticket=""))
    assert code(join, tmp_path, ticket()) == "already_joined"
    assert groups(tmp_path) == [folder]


def test_joining_again_after_a_crash_keeps_the_keys_and_takes_the_new_ticket(tmp_path: Path) -> None:
    folder = join(tmp_path, ticket())
    keys = [read_key(folder, name).seed for name in (NODE_KEY, MEMBER_KEY)]
    newer = ticket(expires_in_s=999.0)
    assert join(tmp_path, newer) == folder
    assert [read_key(folder, name).seed for name in (NODE_KEY, MEMBER_KEY)] == keys
    assert read_settings(folder).ticket == newer


def test_another_group_of_the_same_name_gets_a_number(tmp_path: Path) -> None:
    names = [join(tmp_path, ticket(group)).name for group in (b"a", b"b", b"c")]
    assert names == ["choir", "choir-2", "choir-3"]
    (tmp_path / "choir" / "settings.toml").write_text("damaged = [")
    assert join(tmp_path, ticket(b"d")).name == "choir-4"


def test_an_expired_ticket_makes_nothing(tmp_path: Path) -> None:
    assert code(join, tmp_path, ticket(expires_in_s=-1.0)) == "ticket_expired"
    assert list(tmp_path.iterdir()) == []


def test_every_group_of_a_computer_has_a_gateway_port_of_its_own(tmp_path: Path) -> None:
    folders = [found(tmp_path), join(tmp_path, ticket(b"x", "club")), join(tmp_path, ticket(b"y", "quiz"))]
    ports = [read_settings(folder).gateway_port for folder in folders]
    assert ports == [8642, 8643, 8644]
    # An attempt that goes on keeps its own.
    assert read_settings(join(tmp_path, ticket(b"y", "quiz"))).gateway_port == 8644
