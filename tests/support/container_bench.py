"""Containers for tests: a driver with Podman's storage in a folder of the test's own, and what was launched by it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import oci
import pytest

from colla.environments.folders import Place, Record, RuntimeFolder
from colla.environments.protocol import Limits, ReplicaSpec


@contextmanager
def own_podman(folder: Path) -> Iterator[None]:
    """Everything of Podman stays in `folder`; at the end the process that serves its API ends too."""
    with pytest.MonkeyPatch.context() as patch:
        for name, text in oci.podman_settings(folder).items():
            patch.setenv(name, text)
        try:
            yield
        finally:
            from colla.environments.container_engine import end_service

            end_service(RuntimeFolder(folder / "runtime"))


class Bench:
    """A driver with its folder, and what was launched."""

    def __init__(self, folder: Path) -> None:
        # Its import needs the docker package, an extra of ours.
        from colla.environments.container import ContainerDriver

        self.folder = folder
        self.runtime = RuntimeFolder(folder / "runtime")
        self.driver = ContainerDriver("instance", self.runtime)
        self.replicas: list[Any] = []

    def spec(self, command: list[str], files: dict[str, bytes] | None = None, **more: Any) -> ReplicaSpec:
        return self.spec_of(oci.image(command, files, **more.pop("image", {})), **more)

    def spec_of(self, image: dict[str, bytes], **more: Any) -> ReplicaSpec:
        """To run this image."""
        artifact = oci.write_folder(self.folder / secrets.token_hex(4), image)
        more.setdefault("limits", Limits(memory_bytes=64 << 20, cpus=1.0, pids=32))
        return ReplicaSpec(replica=secrets.token_hex(16), service="garden", artifact=str(artifact), **more)

    async def launch(self, spec: ReplicaSpec) -> tuple[Any, Place]:
        self.driver.check(spec, allow_unsandboxed=False)
        place = self.runtime.place(spec.replica_id)
        place.create(Record(spec=spec.remembered, started_at=time.time()))
        replica = await self.driver.launch(spec, place)
        self.replicas.append(replica)
        return replica, place

    async def said(self, place: Place, text: str) -> None:
        async with asyncio.timeout(30.0):
            while not any(text in line.text for line in self.driver.logs(place, 0)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def close(self) -> None:
        """End what was launched."""
        for replica in self.replicas:
            await replica.stop("SIGTERM", 0.2)
            await replica.until_exit()
