"""The group that `cluster.py` measures: real computers on loopback, a client that asks always, and everybody's notices.

One clock (the monotonic one of this process) for everything: when a computer was killed, when a request was sent and
answered, when a notice arrived here. Replicas are told apart by the `X-Colla-Replica` header of their answers.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path

import aiohttp
import msgspec
import psutil

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))

from computers import Computer, eventually

from colla.client import Client, types
from colla.model.contribution import GIVES_NOTHING, Contribution, gives_all
from colla.model.errors import CollaError
from colla.model.ids import short

INTERVAL_S = 0.02
LOOK_S = 0.03
LATE_S = 2.0
"""A request that took longer counts as failed (DESIGN section 8)."""
REQUEST_TIMEOUT_S = 10.0
OPEN_MAX = 1000
WAIT_S = 60.0
NOTICES_AGAIN_S = 0.2
DOOR = "laptop"


class Asked(msgspec.Struct, frozen=True):
    """One request: sent and ended when, what came."""

    sent_s: float
    ended_s: float
    status: int
    replica: str
    error: str = ""

    @property
    def good(self) -> bool:
        return self.status == 200

    @property
    def failed(self) -> bool:
        return not self.good or self.ended_s - self.sent_s > LATE_S


class Asker:
    """Asks one service through the gateway every `INTERVAL_S`, whether or not earlier requests were answered."""

    def __init__(self, gateway: str, name: str) -> None:
        self._url, self._headers = f"http://{gateway}/", {"Host": f"{name}.localhost"}
        self.asked: list[Asked] = []
        self.first_s: dict[str, float] = {}
        """When each replica answered for the first time."""
        self._open: dict[asyncio.Task[None], None] = {}
        self._changed = asyncio.Condition()
        self._asking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Asker:
        self._asking = asyncio.create_task(self._ask_always())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._asking is not None
        self._asking.cancel()
        await asyncio.gather(self._asking, *self._open, return_exceptions=True)

    async def _ask_always(self) -> None:
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
        session = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0))
        try:
            due_s = time.monotonic()
            while True:
                if len(self._open) < OPEN_MAX:
                    one = asyncio.create_task(self._ask(session))
                    self._open[one] = None
                    one.add_done_callback(lambda done: self._open.pop(done, None))
                due_s = max(due_s + INTERVAL_S, time.monotonic() - 1.0)
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        finally:
            await asyncio.gather(*self._open, return_exceptions=True)
            await session.close()

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        sent_s, status, replica, error = time.monotonic(), 0, "", ""
        try:
            async with session.get(self._url, headers=self._headers) as answer:
                await answer.read()
                status, replica = answer.status, answer.headers.get("X-Colla-Replica", "")
                error = answer.headers.get("X-Colla-Error", "")
        except (aiohttp.ClientError, TimeoutError, OSError) as failure:
            error = str(failure) or type(failure).__name__
        ended_s = time.monotonic()
        self.asked.append(Asked(sent_s, ended_s, status, replica, error))
        if status == 200 and replica:
            self.first_s.setdefault(replica, ended_s)
        async with self._changed:
            self._changed.notify_all()

    async def until(self, what: str, good: Callable[[], bool], within_s: float = WAIT_S) -> None:
        """Wait until something holds, looked at after every answer."""
        try:
            async with asyncio.timeout(within_s), self._changed:
                await self._changed.wait_for(good)
        except TimeoutError:
            raise AssertionError(f"not within {within_s} s: {what} (last: {self.asked[-3:]})") from None

    async def replicas(self, count: int, without: Sequence[str] = (), within_s: float = WAIT_S) -> float:
        """Wait until so many replicas, those of `without` not counted, have answered; returns when the last did."""

        def found() -> list[float]:
            return sorted(at_s for replica, at_s in self.first_s.items() if replica not in without)

        await self.until(f"{count} replicas answered", lambda: len(found()) >= count, within_s)
        return found()[count - 1]

    def between(self, from_s: float, until_s: float) -> list[Asked]:
        """The requests sent within."""
        return [each for each in self.asked if from_s <= each.sent_s < until_s]


class Moment(msgspec.Struct, frozen=True):
    """A notice: when it arrived here, on which computer it was told."""

    at_s: float
    told_by: str
    kind: str
    text: str
    service: str


class Offered(msgspec.Struct, frozen=True):
    """A service: its id and name, what the answers call its replicas and where they run, its master's computer."""

    id: str
    name: str
    replicas: dict[str, str]
    master: str


class Fleet:
    """The computers of one group; those that give everything, and `DOOR`, which gives nothing and has the gateway."""

    def __init__(self, base: Path, election: str, givers: int) -> None:
        self.base, self.election = base, election
        self.givers = [Computer(base, f"home{number}") for number in range(1, givers + 1)]
        self.door = Computer(base, DOOR)
        self.on: dict[str, Computer] = {}
        self.moments: list[Moment] = []
        self.gateway = ""
        self.object = types.PutAnswer("", 0, 0, 0)
        self._listening: list[asyncio.Task[None]] = []
        self._leaving: list[asyncio.Task[int]] = []
        self._heard = asyncio.Condition()
        self._serial = 0

    @property
    def all(self) -> list[Computer]:
        return [*self.givers, self.door]

    def by_name(self, name: str) -> Computer:
        return next(each for each in self.all if each.name == name)

    # -- beginning and end ---------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Found the group and let everybody join."""
        self.givers[0].found("bench", self.election, _gives())
        await self.givers[0].up()
        for computer in self.all[1:]:
            answer = await self.givers[0].ask(lambda client: client.invite(types.InviteRequest()))
            gives = GIVES_NOTHING if computer is self.door else _gives()
            computer.prepare(answer.ticket, gives, member=f"member-of-{computer.name}")
            await computer.up()
        self.on = {each.name: each for each in self.all}
        await self.everybody_sees_everybody()
        self.gateway = await self.gateway_of(DOOR)
        self._listening = [asyncio.create_task(self._listen(each)) for each in self.all]
        self.object = await self.store("the site of all runs")
        # Every computer gets the object of all runs, so that repairs are measured with the object already there.
        warm = await self.offer(len(self.givers))
        await self.eliminate(warm)

    async def gateway_of(self, name: str) -> str:
        """Where the gateway of a computer listens now."""
        return (await self.by_name(name).ask(lambda client: client.node())).gateway

    async def end(self) -> None:
        for listening in self._listening:
            listening.cancel()
        await asyncio.gather(*self._listening, return_exceptions=True)
        await asyncio.gather(*(asyncio.to_thread(each.unplug) for each in self.all))

    async def everybody_sees_everybody(self) -> None:
        count = len(self.on)
        for computer in self.on.values():
            await eventually(lambda one=computer: _sees(one, count), WAIT_S, f"{computer.name} sees {count}")

    # -- services ------------------------------------------------------------------------------------------------

    def site(self, text: str) -> Path:
        """A new folder with a small site."""
        self._serial += 1
        folder = self.base / f"site{self._serial}"
        folder.mkdir()
        (folder / "index.html").write_text(f"<h1>{text}</h1>" + "<p>A page of a few kilobytes.</p>" * 150)
        return folder

    async def store(self, text: str) -> types.PutAnswer:
        folder = self.site(text)
        return await self.door.ask(lambda client: client.put(folder))

    def new_name(self) -> str:
        self._serial += 1
        return f"web{self._serial}"

    async def offer(self, replicas: int) -> Offered:
        """Deploy a new service and wait until it is there in full number and mastered."""
        name = self.new_name()
        request = types.DeployRequest(
            name, self.object.object, self.object.size_bytes, "static", replicas=replicas
        )
        async with self.door.client() as client:
            await client.deploy(request)

            async def ready() -> types.ServiceReport | None:
                found = await client.service(name)
                here = found.master in self.on and len(found.locations) == replicas
                return found if here else None

            found = await eventually(ready, WAIT_S, f"{replicas} replicas of {name}")
        where = {short(bytes.fromhex(each.replica)): each.node_name for each in found.locations}
        return Offered(found.id, name, where, found.master)

    async def offer_that(self, replicas: int, fits: Callable[[Offered], bool]) -> Offered:
        """Deploy new services until one lies as wanted."""
        for _ in range(30):
            offered = await self.offer(replicas)
            if fits(offered):
                return offered
            await self.eliminate(offered)
        raise AssertionError("no service came to lie as wanted")

    async def eliminate(self, offered: Offered) -> None:
        await self.door.ask(lambda client: client.eliminate(offered.name))

    async def full_number(self, name: str, count: int, known: Collection[str] = ()) -> float:
        """Wait until the client's node knows so many replicas on living computers, and those not `known` have answered.

        A gateway prefers its own computer's replica, so each new one is asked through the gateway beside it. Returns when
        the last one answered.
        """
        async with self.door.client() as client:
            async with asyncio.timeout(WAIT_S):
                while True:
                    with suppress(CollaError):
                        found = await client.service(name)
                        living = [each for each in found.locations if each.node_name in self.on]
                        if len(living) >= count:
                            break
                    await asyncio.sleep(LOOK_S)
        for each in living:
            replica = short(bytes.fromhex(each.replica))
            if replica not in known:
                async with Asker(await self.gateway_of(each.node_name), name) as asker:
                    await asker.until(f"{replica} answered", lambda one=replica, at=asker: one in at.first_s)
        return time.monotonic()

    # -- blows ---------------------------------------------------------------------------------------------------

    async def kill(self, names: Sequence[str]) -> float:
        """Power failure of these computers at the same moment. Returns when."""
        victims = [self.on.pop(name) for name in names]
        processes: list[psutil.Process] = []
        for victim in victims:
            processes += await asyncio.to_thread(victim.marked)
        # The nodes first: nothing of a dead computer may say a word about its own death.
        pids = {victim.process.pid for victim in victims if victim.process is not None}
        at_s = time.monotonic()
        for process in sorted(processes, key=lambda each: each.pid not in pids):
            with suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        for victim in victims:
            await asyncio.to_thread(victim.unplug)
        return at_s

    async def stop(self, name: str) -> float:
        """Ask a computer's node politely to stop. Returns when."""
        leaver = self.on.pop(name)
        at_s = time.monotonic()
        self._leaving.append(asyncio.create_task(leaver.stop()))
        return at_s

    async def stopped(self) -> None:
        """Wait until whoever was asked to stop has done so."""
        codes = await asyncio.gather(*self._leaving)
        self._leaving.clear()
        assert not any(codes), f"a node ended with {codes}"

    async def restart(self) -> None:
        """Power again for all that are off, until everybody is seen by everybody."""
        off = [each for each in self.all if each.name not in self.on]
        for each in off:
            await asyncio.to_thread(each.unplug)
        self.on |= {each.name: each for each in off}
        await asyncio.gather(*(each.up() for each in off))
        self.gateway = await self.gateway_of(DOOR)
        await self.everybody_sees_everybody()

    # -- notices -------------------------------------------------------------------------------------------------

    async def _listen(self, computer: Computer) -> None:
        heard_until_s = time.time()
        while True:
            with suppress(CollaError, OSError, aiohttp.ClientError):
                async with Client(computer.folder) as client:
                    async for notice in client.notices():
                        if notice.at_s > heard_until_s:
                            heard_until_s = notice.at_s
                            await self._hear(computer.name, notice)
            await asyncio.sleep(NOTICES_AGAIN_S)

    async def _hear(self, name: str, notice: types.NoticeReport) -> None:
        moment = Moment(time.monotonic(), name, notice.kind, notice.text, notice.service)
        self.moments.append(moment)
        async with self._heard:
            self._heard.notify_all()

    def first(self, kind: str, service: str, since_s: float) -> float | None:
        """When this was first told of the service by a computer that is on."""
        found = [
            each.at_s
            for each in self.moments
            if each.kind == kind
            and each.service == service
            and each.at_s >= since_s
            and each.told_by in self.on
        ]
        return min(found, default=None)

    async def told(self, kind: str, service: str, since_s: float) -> float:
        """Wait for that."""
        async with asyncio.timeout(WAIT_S), self._heard:
            await self._heard.wait_for(lambda: self.first(kind, service, since_s) is not None)
        at_s = self.first(kind, service, since_s)
        assert at_s is not None
        return at_s

    def timeline(self, since_s: float, until_s: float) -> list[str]:
        """What was told in between, in words."""
        return [
            f"{each.at_s - since_s:7.2f} s  {each.told_by}: {each.kind}: {each.text}"
            for each in self.moments
            if since_s <= each.at_s <= until_s
        ]


def _gives() -> Contribution:
    return gives_all(4.0, 2 * 1024**3, 4 * 1024**3, ("static", "process"))


async def _sees(computer: Computer, count: int) -> bool:
    reports = await computer.ask(lambda client: client.computers())
    return sum(report.phase == "present" for report in reports) == count
