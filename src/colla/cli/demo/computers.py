"""The demo's hold on its computers: switch on, run commands there, unplug."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from pathlib import Path

import msgspec

from colla.cli.demo.computer import Done, Order
from colla.client.client import Client
from colla.client.folders import LOG_NAME
from colla.model.errors import CollaError

LINE_BYTES_MAX = 16 << 20
"""The longest answer of a command that is read."""
COMMAND_TIMEOUT_S = 90.0


class Computer:
    """One computer: its name, its owner, its folder, and whether it is on."""

    def __init__(self, root: Path, name: str, owner: str) -> None:
        self.name = name
        self.owner = owner
        self.home = root / name
        self.on = False
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Done]] = {}

    @property
    def folder(self) -> Path:
        """The folder of its group. Raises `CollaError` before there is one."""
        found = sorted(self.home.glob("*/settings.toml"))
        if not found:
            raise CollaError("no_group", f"{self.name} is in no group yet.")
        return found[0].parent

    def client(self) -> Client:
        """A client of its node."""
        return Client(self.folder)

    async def switch_on(self) -> None:
        """Power. Its node is started by a command, as on any computer."""
        self.home.mkdir(parents=True, exist_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "colla.cli.demo.computer",
            str(self.home),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES_MAX,
            start_new_session=True,
        )
        self._reading = asyncio.create_task(self._read(self._process))
        self.on = True

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            done = msgspec.json.decode(line, type=Done)
            waiting = self._waiting.pop(done.id, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(done)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(CollaError("unplugged", f"{self.name} was unplugged."))
        self._waiting.clear()

    def _order(self, order: Order) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(order) + b"\n")

    async def colla(self, *words: str) -> str:
        """Run a command of colla there and return its output. Raises `CollaError` with what it said when it failed."""
        order = Order("run", next(self._ids), words)
        self._waiting[order.id] = asyncio.get_running_loop().create_future()
        self._order(order)
        done = await asyncio.wait_for(self._waiting[order.id], COMMAND_TIMEOUT_S)
        if done.code:
            said = " ".join((done.errors or done.output).split())
            hint = f"Its log: {self.home}/*/{LOG_NAME}"
            raise CollaError(
                "failed", f"`colla {words[0]}` on {self.name} failed ({done.code}): {said}", hint
            )
        return done.output

    async def start_node(self) -> None:
        """Power and `colla up`."""
        await self.switch_on()
        await self.colla("up", "--background")

    async def unplug(self) -> float:
        """Kill everything on it, without a word to anybody. Returns when (Unix seconds)."""
        at_s = time.time()
        if self._process is None or not self.on:
            return at_s
        self.on = False
        self._order(Order("unplug"))
        await self._process.wait()
        if self._reading is not None:
            await self._reading
        return at_s

    async def keep(self) -> None:
        """Let it run on when the demo ends."""
        if self._process is not None and self.on:
            self.on = False
            self._order(Order("keep"))
            await self._process.wait()
