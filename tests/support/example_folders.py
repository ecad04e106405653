"""The examples of the repository, for tests: where they are, and how they are deployed as `colla deploy` does it.

Their packages come from the environment that runs the tests, copied file by file: nothing is fetched.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import shutil
from pathlib import Path

import msgspec
from computers import Computer
from packaging.requirements import Requirement

from colla.client import types
from colla.client.deploying import Said, plan_deploy
from colla.environments.folders import RuntimeFolder
from colla.model.ids import ReplicaId

FOLDER = Path(__file__).parents[2] / "examples"


def copied(name: str, target: Path) -> Path:
    """The example's own files, somewhere else, so that a test may add to them; nothing that would be fetched."""
    ignore = shutil.ignore_patterns(
        "packages", "requirements.txt", "__pycache__", "node_modules", "video", "public"
    )
    return Path(shutil.copytree(FOLDER / name, target / name, ignore=ignore))


def with_packages(folder: Path, *names: str) -> None:
    """Put the installed packages of these names, and what they need, into `folder/packages`, as pip --target does."""
    wanted, seen = list(names), {}
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen[name] = distribution = importlib.metadata.distribution(name)
        needed = [Requirement(one) for one in distribution.requires or ()]
        wanted += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    for distribution in seen.values():
        for file in distribution.files or ():
            if ".." in file.parts or "__pycache__" in file.parts or "tests" in file.parts:
                continue
            target = folder / "packages" / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.locate(), target)


async def deployed(computer: Computer, folder: Path, replicas: int) -> types.WrittenAnswer:
    """Deploy an example as `colla deploy FOLDER --replicas N` does, its colla.toml included; see `with_packages`."""
    plan = plan_deploy(folder, Said(replicas=replicas, env={"PYTHONPATH": "packages"}))
    async with computer.client() as client:
        put = await client.put(folder)
        return await client.deploy(
            msgspec.structs.replace(plan.request_for(put.object, put.size_bytes), replicas=replicas)
        )


def endpoint_of(computer: Computer, replica: str) -> Path:
    """The Unix socket of a replica, for a test that wants this one and no other (the gateway chooses by itself)."""
    (found,) = computer.home.rglob(f"replicas/{replica}")
    return RuntimeFolder(found.parent.parent).place(ReplicaId(bytes.fromhex(replica))).endpoint


class DirectDoor:
    """A TCP port on loopback that leads to one replica's socket."""

    def __init__(self, endpoint: Path) -> None:
        self._endpoint = endpoint
        self._listening: asyncio.Server | None = None

    async def open(self) -> str:
        """Its address."""
        self._listening = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        host, port = self._listening.sockets[0].getsockname()
        return f"{host}:{port}"

    def close(self) -> None:
        """Listen no longer."""
        if self._listening is not None:
            self._listening.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, away = await asyncio.open_unix_connection(str(self._endpoint))
        except OSError:
            writer.close()
            return
        with contextlib.suppress(OSError):
            await asyncio.gather(_pass_on(reader, away), _pass_on(there, writer))
        away.close()
        writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.write_eof()
