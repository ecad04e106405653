"""The demo's group: five computers of three members and a laptop that contributes nothing, founded, joined, served.

Owns the computers, the client process and the watcher, from the first command to the last. Everything is done by commands
of colla on those computers.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path

import msgspec

from colla.cli.demo.asker import REQUEST_TIMEOUT_S, Plan, Target, body_digest
from colla.cli.demo.computers import Computer
from colla.cli.demo.offers import site_paths, write_app, write_site
from colla.cli.demo.report import Act
from colla.cli.demo.requests import Dark, RequestLog
from colla.cli.demo.screen import Screen
from colla.cli.demo.watching import (
    TOLD_ABSENT,
    UNPLUGGED,
    Moment,
    Timeline,
    Watcher,
    find,
    is_absent,
    is_present,
    running,
)
from colla.client.types import InviteRequest, StatusReport
from colla.model.errors import CollaError

GROUP = "demo"
SITE, APP = "site", "app"
REPLICAS = 3
FOUNDER, LAPTOP = "ana-nas", "ana-laptop"
COMPUTERS = {
    FOUNDER: "ana",
    "ana-mini": "ana",
    "ben-nas": "ben",
    "ben-pi": "ben",
    "cleo-vps": "cleo",
    LAPTOP: "ana",
}
GIVES = (
    "--give",
    "all",
    "--cpus",
    "2",
    "--memory",
    "1GiB",
    "--disk",
    "2GB",
    "--environments",
    "static,process",
)
START_TIMEOUT_S = 60.0
REPAIR_TIMEOUT_S = 45.0
SANDBOX_PROBE = ("bwrap", "--unshare-all", "--ro-bind", "/", "/", "true")


class Stage:
    """See the module's docstring."""

    def __init__(self, root: Path, election: str, site: Path | None, *, quiet: bool) -> None:
        self.root = root
        self.election = election
        self.site = site if site is not None else root / "offers" / SITE
        self.app = root / "offers" / APP
        self._site_is_ours = site is None
        self.computers = {name: Computer(root, name, owner) for name, owner in COMPUTERS.items()}
        self.laptop = self.computers[LAPTOP]
        self.screen = Screen(self.computers, quiet=quiet)
        self.timeline = Timeline(self.screen.tell)
        self.watcher = Watcher(self.laptop, self.computers, self.timeline)
        self.log = RequestLog(root / "requests.jsonl")
        self.acts: list[Act] = []
        self.dark: list[Dark] = []
        self.gateway = ""
        self._running: list[asyncio.Task[None]] = []
        self._asker: asyncio.subprocess.Process | None = None

    # -- founding ---------------------------------------------------------------------------------------------

    async def build(self) -> None:
        """Found the group, let everybody join, and begin to watch."""
        gives = self._gives()
        port = str(_free_port())
        self.gateway = f"127.0.0.1:{port}"
        founder = self.computers[FOUNDER]
        await asyncio.gather(*(computer.switch_on() for computer in self.computers.values()))
        election = ("--election", self.election, "--member", "ana", "--computer", FOUNDER)
        await founder.colla("group", "create", GROUP, *election, *gives, "--gateway-port", "0", "--no-lan")
        self.screen.line(f"{FOUNDER} founded the group ({self.election})")
        await asyncio.gather(
            self._join(self.laptop, FOUNDER, ("--give", "nothing", "--gateway-port", port)),
            self._join(self.computers["ana-mini"], FOUNDER, (*gives, "--gateway-port", "0")),
            self._join_two(gives),
            self._join(self.computers["cleo-vps"], FOUNDER, (*gives, "--gateway-port", "0")),
        )
        self._start(self.watcher.look())
        for computer in self.computers.values():
            self._start(self.watcher.listen(computer))
        await self.everybody_here()

    def _gives(self) -> tuple[str, ...]:
        try:
            contained = subprocess.run(SANDBOX_PROBE, capture_output=True, timeout=10).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            contained = False
        if contained:
            return GIVES
        self.screen.line(
            "bubblewrap does not work here: the demo's own program runs without a sandbox", "yellow"
        )
        return (*GIVES, "--unsandboxed")

    async def _join_two(self, gives: tuple[str, ...]) -> None:
        """Ben joins by Ana's invitation, and then invites his second computer himself."""
        words = (*gives, "--gateway-port", "0")
        await self._join(self.computers["ben-nas"], FOUNDER, words)
        await self._join(self.computers["ben-pi"], "ben-nas", words)

    async def _join(self, computer: Computer, inviter: str, words: tuple[str, ...]) -> None:
        same = computer.owner == self.computers[inviter].owner
        async with self.computers[inviter].client() as client:
            ticket = (await client.invite(InviteRequest(my_computer=same))).ticket
        names = ("--member", computer.owner, "--computer", computer.name, "--no-lan")
        await computer.colla("join", ticket, *names, *words)
        self.screen.line(f"{computer.name} of {computer.owner} joined by a ticket of {inviter}")

    # -- services and their client ----------------------------------------------------------------------------

    async def offer(self) -> None:
        """Deploy both services from the laptop, and let the client ask for them from then on."""
        if self._site_is_ours:
            await asyncio.to_thread(write_site, self.site)
        await asyncio.to_thread(write_app, self.app)
        count = ("--replicas", str(REPLICAS))
        for name, folder, words in ((SITE, self.site, ()), (APP, self.app, ("--env", "GREETING=hello"))):
            await self.laptop.colla("deploy", str(folder), "--name", name, *count, *words)
            self.screen.line(f"{name} is deployed from the laptop, {REPLICAS} replicas answer", "green")
        await self.full_number(time.time())
        await self._ask_always()

    async def _ask_always(self) -> None:
        paths = await asyncio.to_thread(site_paths, self.site)
        pages = tuple((path, body_digest(file.read_bytes())) for path, file in paths.items())
        plan = Plan(
            self.gateway, (Target(SITE, pages), Target(APP, (("/", ""),))), str(self.root / "requests.jsonl")
        )
        path = self.root / "asker.json"
        path.write_bytes(msgspec.json.encode(plan))
        self._asker = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "colla.cli.demo.asker",
            str(path),
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
        )

    def _start(self, work: Coroutine[None, None, None]) -> None:
        self._running.append(asyncio.create_task(work))

    # -- what acts do -----------------------------------------------------------------------------------------

    @property
    def givers(self) -> list[Computer]:
        """The contributing computers that are on."""
        return [each for each in self.computers.values() if each.on and each is not self.laptop]

    @property
    def view(self) -> StatusReport:
        """The laptop's view. Raises `CollaError` while there is none."""
        if self.watcher.latest is None:
            raise CollaError("not_running", "The laptop does not answer.")
        return self.watcher.latest

    async def unplug(self, *names: str) -> float:
        """Kill computers at once; returns when."""
        victims = [self.computers[name] for name in names]
        at_s = min(await asyncio.gather(*(each.unplug() for each in victims)))
        for name in names:
            self.timeline.add(Moment(at_s, UNPLUGGED, f"{name} is unplugged", about=name))
        return at_s

    async def restart(self, *names: str) -> None:
        """Power again for these computers, and wait until they are seen."""
        await asyncio.gather(*(self.computers[name].start_node() for name in names))
        await self.everybody_here()

    async def everybody_here(self, timeout_s: float = START_TIMEOUT_S) -> float:
        """Wait until every computer that is on is present."""
        names = [each.name for each in self.computers.values() if each.on]
        return await self.watcher.until(
            f"{', '.join(names)} present",
            lambda view: all(is_present(view, name) for name in names),
            timeout_s,
        )

    async def gone(self, names: tuple[str, ...], since_s: float) -> float:
        """Wait until these are seen as absent; returns when the first of the nodes, or the laptop, saw the last one."""
        await self.watcher.until(
            f"{', '.join(names)} absent",
            lambda view: all(is_absent(view, name) for name in names),
            REPAIR_TIMEOUT_S,
        )
        # A node that tells of an absence knew it before the laptop showed it.
        seen = [self.timeline.first(TOLD_ABSENT, since_s, about=(name,)) for name in names]
        return max((each for each in seen if each is not None), default=time.time())

    async def full_number(self, since_s: float, names: tuple[str, ...] = (SITE, APP)) -> float:
        """Wait until each has its replicas, as many as the computers that are on allow.

        Returns how long that took since then, and 0 when there were never fewer.
        """
        wanted = min(REPLICAS, len(self.givers))

        def good(view: StatusReport) -> bool:
            return all(self.running_of(name, view) >= wanted for name in names)

        if good(self.view):
            return 0.0
        return (
            await self.watcher.until(f"{wanted} replicas of {', '.join(names)}", good, REPAIR_TIMEOUT_S)
            - since_s
        )

    async def mastered(self, names: tuple[str, ...] = (SITE, APP)) -> float:
        """Wait until each has a master that lives; returns when."""

        def lives(view: StatusReport, name: str) -> bool:
            found = find(view, name)
            return found is not None and found.master in self.computers and self.computers[found.master].on

        return await self.watcher.until(
            f"a living master of {', '.join(names)}",
            lambda view: all(lives(view, name) for name in names),
            REPAIR_TIMEOUT_S,
        )

    def running_of(self, service: str, view: StatusReport) -> int:
        """How many replicas of a service really run."""
        found = find(view, service)
        return len(running(found, self.computers)) if found is not None else 0

    # -- the end ----------------------------------------------------------------------------------------------

    async def stop_asking(self) -> None:
        """End the client process once its open requests are answered."""
        if self._asker is not None and self._asker.returncode is None:
            assert self._asker.stdin is not None
            self._asker.stdin.close()
            try:
                await asyncio.wait_for(self._asker.wait(), REQUEST_TIMEOUT_S * 2)
            except TimeoutError:
                self._asker.kill()
                await self._asker.wait()
        self.log.read()

    async def close(self, *, keep: bool) -> None:
        """Stop watching; unplug everything and remove the folder, unless the group is kept."""
        for work in self._running:
            work.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        if self._asker is not None and self._asker.returncode is None:
            self._asker.kill()
            await self._asker.wait()
        if keep:
            await asyncio.gather(*(each.keep() for each in self.computers.values()))
            return
        await asyncio.gather(*(each.unplug() for each in self.computers.values()))

    def remove(self) -> None:
        """Remove all files of the demo."""
        shutil.rmtree(self.root, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def short_root() -> Path:
    """A new folder whose path is short, since sockets lie in it."""
    base = os.environ.get("TMPDIR", "/tmp")
    return Path(tempfile.mkdtemp(prefix="colla-demo-", dir=base))
