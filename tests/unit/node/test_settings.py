"""Settings and keys that an owner, a disk or an accident changed: told with the field, and nothing is overwritten."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from colla.kernel.durable import Durable
from colla.model.contribution import GIVES_NOTHING
from colla.model.errors import CollaError
from colla.model.ids import GroupId
from colla.model.record import TOPIC_MEMBERSHIP
from colla.node.founding import FOUNDING, add_founding, found_group
from colla.node.settings import MEMBER_KEY, NODE_KEY, make_key, read_key, read_settings, write_settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return found_group(tmp_path, "choir", "hashing", "ana", "attic", GIVES_NOTHING)


def test_what_was_written_is_read(folder: Path) -> None:
    settings = read_settings(folder)
    assert (settings.group_name, settings.member_name, settings.node_name) == ("choir", "ana", "attic")
    write_settings(folder, settings)
    assert read_settings(folder) == settings
    assert (folder / "settings.toml").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("port = = 3", "line"),
        ('port = "many"', "port"),
        ("port = 99999", "port"),
        ("gateway_port = -1", "gateway_port"),
        ('group = "zz"', "group"),
        ('colour = "red"', "colour"),
        ('peers = [{ node = "zz", addresses = [] }]', "peers"),
        ("cpus = -1.0", "cpus"),
        ("cpus = nan", "cpus"),
        ("memory_bytes = 100000000000000000000000000", "memory_bytes"),
        ('agents = ["cook"]', "agents"),
    ],
)
def test_a_wrong_line_is_named(folder: Path, line: str, field: str) -> None:
    path = folder / "settings.toml"
    name = line.partition(" ")[0]
    kept = []
    skipping = False
    for old in path.read_text().splitlines():
        # Values of several lines end with a bracket of their own.
        if old.startswith(f"{name} ="):
            kept.append(line)
            skipping = old.endswith("[")
        elif not skipping:
            kept.append(old)
        elif old == "]":
            skipping = False
    text = "\n".join(kept if line in kept else [line, *kept])
    path.write_text(text)
    with pytest.raises(CollaError) as caught:
        read_settings(folder)
    assert caught.value.code == "bad_settings" and field in caught.value.message and caught.value.hint
    assert path.read_text() == text


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[" * 5000])
def test_a_file_that_is_no_settings_at_all(folder: Path, content: bytes) -> None:
    (folder / "settings.toml").write_bytes(content)
    with pytest.raises(CollaError) as caught:
        read_settings(folder)
    assert caught.value.code == "bad_settings"


def test_a_full_disk_leaves_the_old_settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read_settings(folder)

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    names = sorted(path.name for path in folder.iterdir())
    with pytest.raises(CollaError) as caught:
        write_settings(folder, settings)
    assert caught.value.code == "disk_full" and caught.value.hint
    assert read_settings(folder) == settings
    assert sorted(path.name for path in folder.iterdir()) == names


@pytest.mark.parametrize("content", [None, b"", b"zz", b"\xff" * 32, b"ab" * 31, b"ab" * 33])
def test_a_key_that_is_gone_or_damaged(folder: Path, content: bytes | None) -> None:
    path = folder / NODE_KEY
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CollaError) as caught:
        read_key(folder, NODE_KEY)
    assert caught.value.code == "bad_key" and str(path) in caught.value.message and caught.value.hint


def test_a_key_is_for_its_owner_only(tmp_path: Path) -> None:
    secret = make_key(tmp_path, MEMBER_KEY)
    assert read_key(tmp_path, MEMBER_KEY).seed == secret.seed
    assert (tmp_path / MEMBER_KEY).stat().st_mode & 0o077 == 0


def test_the_founders_records_are_added_where_the_database_lacks_them(folder: Path) -> None:
    durable = Durable()
    add_founding(folder, GroupId(bytes.fromhex(read_settings(folder).group)), durable)
    assert durable.records and all(topic == TOPIC_MEMBERSHIP for topic, _ in durable.records)
    before = dict(durable.records)
    add_founding(folder, GroupId(bytes.fromhex(read_settings(folder).group)), durable)
    assert durable.records == before


@pytest.mark.parametrize("damage", ["flipped", "truncated", "emptied", "of another group"])
def test_damaged_founding_records_do_not_lose_the_group_in_silence(folder: Path, damage: str) -> None:
    path = folder / FOUNDING
    data = bytearray(path.read_bytes())
    group = bytes.fromhex(read_settings(folder).group)
    match damage:
        case "flipped":
            data[len(data) // 2] ^= 0x01
        case "truncated":
            del data[len(data) // 2 :]
        case "emptied":
            data.clear()
        case _:
            group = bytes(32)
    path.write_bytes(data)
    with pytest.raises(CollaError) as caught:
        add_founding(folder, GroupId(group), Durable())
    assert caught.value.code == "damaged" and caught.value.hint
