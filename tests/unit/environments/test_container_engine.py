"""What an engine is asked for, and what it is not asked for where it cannot."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("docker", reason="docker is not installed")

from colla.environments import container_engine
from colla.environments.container_engine import connect, creation, has_init
from colla.environments.images import Image
from colla.environments.protocol import EnvironmentFault, Limits


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


@pytest.fixture
def going_away() -> Iterator[str]:
    """An engine that says its version once, and then closes every connection: what its client meets is no `DockerException`."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = f"{folder}/engine"
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            version = b'{"ApiVersion":"1.41"}'
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(version)
            answers = [head + version]
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(answers.pop() if answers else b"")

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"unix://{path}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_an_engine_that_goes_away_is_a_fault(going_away: str) -> None:
    with pytest.raises(EnvironmentFault, match="The container engine failed") as failed:
        connect(going_away)
    assert failed.value.retryable
