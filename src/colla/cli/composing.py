"""`colla deploy compose.yaml`: each service of the file, with its image taken from this computer's engine."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from colla.cli.command import Here
from colla.client.client import Client
from colla.client.compose import describe, read_compose
from colla.client.deploying import DeployPlan, Said
from colla.model.errors import CollaError

ENGINES = ("podman", "docker")
Deploy = Callable[[Here, Client, DeployPlan, float | None], Awaitable[None]]


async def deploy_compose(
    here: Here, client: Client, path: Path, said: Said, wait_s: float | None, deploy: Deploy
) -> None:
    """Read the file, say what will be different, and deploy its services in their order."""
    if said.name or said.environment or said.command or said.health_path or said.replicas:
        raise CollaError(
            "bad_option", "A Compose file says name, command, health and replicas itself.", "Leave them out."
        )
    services = read_compose(path, said)
    for note in describe(services):
        here.out.note(note)
    engine = next((name for name in ENGINES if shutil.which(name)), "")
    if not engine:
        raise CollaError(
            "no_engine",
            "The images of a Compose file are taken from Podman or Docker here, and neither is installed.",
        )
    for service in services:
        with tempfile.TemporaryDirectory(prefix="colla-image-") as folder:
            archive = Path(folder) / f"{service.plan.request.name}.tar"
            await _save(engine, service.image, archive)
            await deploy(here, client, msgspec.structs.replace(service.plan, path=archive), wait_s)


async def _save(engine: str, image: str, archive: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(engine, "save", "-o", str(archive), image),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    with _ended_with_us(process):
        _, said = await process.communicate()
    if process.returncode != 0:
        lines = said.decode(errors="replace").strip().splitlines()
        raise CollaError(
            "no_image",
            f"{engine} cannot give the image {image}: {lines[-1] if lines else process.returncode}.",
            f"Make it available here: {engine} build -t {image} . (or {engine} pull {image})",
        )


@contextmanager
def _ended_with_us(process: asyncio.subprocess.Process) -> Iterator[None]:
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()
