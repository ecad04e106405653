"""What an engine is asked for, and what it is not asked for where it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("docker", reason="docker is not installed")

from colla.environments import container_engine
from colla.environments.container_engine import creation, has_init
from colla.environments.images import Image
from colla.environments.protocol import Limits


@pytest.fixture
def podman_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Podman would have its programs; none is on PATH."""
    monkeypatch.setattr(container_engine, "PODMAN_FOLDERS", (tmp_path,))
    monkeypatch.setenv("PATH", "")
    return tmp_path


@pytest.mark.parametrize(
    ("about", "is_podman", "there", "wanted"),
    [
        ({"InitBinary": "docker-init"}, False, False, True),
        ({}, False, True, False),
        ({"InitBinary": ""}, True, False, False),
        ({"InitBinary": ""}, True, True, True),
    ],
)
def test_a_first_process_where_the_engine_brings_one(
    podman_folder: Path, about: dict[str, Any], is_podman: bool, there: bool, wanted: bool
) -> None:
    if there:
        (podman_folder / "catatonit").touch()
    assert has_init(about, is_podman) is wanted


def test_nothing_is_granted(tmp_path: Path) -> None:
    image = Image(tmp_path, "sha256:00", (), "amd64", (8080,), ("/data",))
    asked = creation(image, "ab" * 16, (), {}, Limits(memory_bytes=1 << 26, pids=20), init=True)
    assert asked["network_mode"] == "none"
    assert asked["read_only"] is True
    assert asked["cap_drop"] == ["ALL"]
    assert asked["security_opt"] == ["no-new-privileges"]
    assert asked["mounts"] == []
    assert asked["init"] is True
    assert asked["memswap_limit"] == asked["mem_limit"] == 1 << 26, "no swap beside it"
    assert set(asked["tmpfs"]) == {"/tmp", "/data"}
    assert not {"privileged", "devices", "volumes", "cap_add", "pid_mode", "ipc_mode"} & set(asked)
