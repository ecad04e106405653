"""Real computers for tests: each a `colla up` process with its own data folder, killed as a power failure kills.

A computer's processes carry a mark in their environment; `unplug` kills every process that carries it and all
their descendants (environment programs and replicas live in sessions of their own), again until none is left.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import psutil

from colla.client import Client, types
from colla.model.contribution import Contribution, gives_all
from colla.model.errors import CollaError
from colla.node.founding import found_group, prepare_join

MARK = "COLLA_TEST_COMPUTER"
T = TypeVar("T")


def everything(environments: tuple[str, ...] = ("static",)) -> Contribution:
    """A contribution that carries all five agents."""
    return gives_all(2.0, 1024**3, 1024**3, environments)


class Computer:
    """One computer with one node. `prefix` is put before its commands (to enter a network namespace)."""

    def __init__(self, base: Path, name: str, prefix: Sequence[str] = ()) -> None:
        self.name = name
        self.home = base / name
        self.prefix = list(prefix)
        self.folder = Path()
        self.process: subprocess.Popen[bytes] | None = None
        self._mark = f"{MARK}={self.home}"

    def found(self, group: str, election: str, contribution: Contribution, member: str = "anna") -> None:
        """Found a group here."""
        self.folder = found_group(
            self.home, group, election, member, self.name, contribution, gateway_port=0, lan_discovery=False
        )

    def prepare(self, ticket: str, contribution: Contribution, member: str = "ben") -> None:
        """Get ready to join with a ticket."""
        self.folder = prepare_join(
            self.home, ticket, member, self.name, contribution, gateway_port=0, lan_discovery=False
        )

    def start(self) -> None:
        """Start the node's process."""
        log = (self.home / "test.log").open("ab")
        environment = dict(os.environ) | {MARK: str(self.home)}
        command = [*self.prefix, sys.executable, "-m", "colla", "up", "--home", str(self.home)]
        self.process = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
        )
        log.close()

    async def up(self) -> types.NodeReport:
        """Start and wait until the node has joined. A failure shows the end of its log."""
        self.start()
        try:
            return await eventually(self._joined, 20.0, f"{self.name} is up")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log_tail()}") from None

    async def _joined(self) -> types.NodeReport | None:
        if self.process is not None and self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self.process.returncode}\n{self.log_tail()}")
        try:
            async with Client(self.folder) as client:
                report = await client.node()
        except CollaError:
            return None
        if report.join_problem:
            raise AssertionError(f"{self.name} could not join: {report.join_problem}")
        return report if report.joined else None

    def client(self) -> Client:
        """A client of this computer's node."""
        return Client(self.folder)

    async def ask(self, question: Callable[[Client], Awaitable[T]]) -> T:
        """One question through a client of its own."""
        async with self.client() as client:
            return await question(client)

    def marked(self) -> list[psutil.Process]:
        """All processes of this computer."""
        found: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == str(self.home):
                    found[process.pid] = process
                    for child in process.children(recursive=True):
                        found[child.pid] = child
            except psutil.Error:
                continue
        return list(found.values())

    def unplug(self) -> float:
        """Power failure: every process is killed at once. Returns the monotonic time of the first kill."""
        at_s = time.monotonic()
        for _ in range(50):
            processes = self.marked()
            if not processes:
                break
            for process in processes:
                try:
                    process.send_signal(signal.SIGKILL)
                except psutil.Error:
                    continue
            psutil.wait_procs(processes, timeout=2)
        if self.process is not None:
            self.process.wait(10)
        return at_s

    async def stop(self) -> int:
        """Stop the node politely; returns its exit code."""
        assert self.process is not None
        self.process.terminate()
        return await asyncio.to_thread(self.process.wait, 20)

    def log_tail(self, lines: int = 40) -> str:
        """The end of the node's log."""
        path = self.home / "test.log"
        text = path.read_text(errors="replace") if path.exists() else ""
        return f"--- log of {self.name}\n" + "\n".join(text.splitlines()[-lines:])


async def eventually(probe: Callable[[], Awaitable[T | None]], within_s: float, what: str) -> T:
    """Ask `probe` until it gives something true; fail with `what` after `within_s`."""
    deadline = time.monotonic() + within_s
    last: object = None
    while time.monotonic() < deadline:
        try:
            result = await probe()
        except CollaError as error:
            last = error
        else:
            if result:
                return result
            last = result
        await asyncio.sleep(0.05)
    raise AssertionError(f"not within {within_s} s: {what} (last: {last!r})")


async def make_group(
    base: Path, election: str, count: int, environments: tuple[str, ...] = ("static",)
) -> list[Computer]:
    """A running group of `count` computers on loopback, each of a member of its own, everybody seeing everybody."""
    computers = [Computer(base, f"home{number}") for number in range(1, count + 1)]
    computers[0].found("circle", election, everything(environments))
    await computers[0].up()
    for computer in computers[1:]:
        answer = await computers[0].ask(lambda client: client.invite(types.InviteRequest()))
        computer.prepare(answer.ticket, everything(environments), member=f"member-of-{computer.name}")
        await computer.up()
    for computer in computers:
        await eventually(lambda one=computer: sees(one, count), 30.0, f"{computer.name} sees all")
    return computers


async def sees(computer: Computer, count: int) -> bool:
    """Whether this computer sees exactly `count` computers present."""
    reports = await computer.ask(lambda client: client.computers())
    return sum(report.phase in ("present", "suspected") for report in reports) == count


async def deploy(
    computer: Computer, folder: Path, name: str, replicas: int, **more: Any
) -> types.WrittenAnswer:
    """Put a folder and deploy it, as `colla deploy` does; static unless told otherwise."""
    async with computer.client() as client:
        put = await client.put(folder)
        request = types.DeployRequest(
            name=name,
            object=put.object,
            object_bytes=put.size_bytes,
            environment=more.pop("environment", "static"),
            replicas=replicas,
            **more,
        )
        return await client.deploy(request)


async def located(computer: Computer, name: str) -> dict[str, str]:
    """The live replicas as the master tells this computer: computer's name to replica id."""
    service = await computer.ask(lambda client: client.service(name))
    return {replica.node_name: replica.replica for replica in service.locations}


async def page(computer: Computer, name: str) -> str | None:
    """The front page of a service through the computer's own gateway; None unless it answers 200."""
    gateway = (await computer.ask(lambda client: client.node())).gateway
    headers = {"Host": f"{name}.localhost"}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
        session.get(f"http://{gateway}/", headers=headers) as response,
    ):
        return await response.text() if response.status == 200 else None
