"""Homes behind routers joined by one ticket each: a public computer introduces them, or carries their packets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from computers import Computer, deploy, eventually, everything, located, sees
from namespaces import INTERNET, Network, fetch

from colla.client import types
from colla.model.contribution import AgentKind, Contribution

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.partition,
    pytest.mark.nat,
    pytest.mark.timeout(300),
]

RELAY_PORT = 3340


def no_executor(relay: str = "") -> Contribution:
    """All that `everything` gives except running replicas, so that the test decides where they run."""
    agents = tuple(agent for agent in everything().agents if agent is not AgentKind.EXECUTOR)
    return msgspec.structs.replace(everything(), agents=agents, relay=relay)


@asynccontextmanager
async def computers_of(tmp_path: Path, places: dict[str, list[str]]) -> AsyncIterator[dict[str, Computer]]:
    """Computers by name, in namespaces that hold until the end; not started."""
    found = {name: Computer(tmp_path, name, prefix) for name, prefix in places.items()}
    try:
        yield found
    finally:
        await asyncio.gather(*(asyncio.to_thread(computer.unplug) for computer in found.values()))


async def join(computer: Computer, inviter: Computer, contribution: Contribution) -> None:
    """One ticket from `inviter`, wherever that one is."""
    answer = await inviter.ask(lambda client: client.invite(types.InviteRequest()))
    computer.prepare(answer.ticket, contribution, member=f"member-of-{computer.name}")
    await computer.up()


async def paths(computer: Computer) -> dict[str, str]:
    """How this computer is linked with each other one that is not absent."""
    reports = await computer.ask(lambda client: client.computers())
    return {one.name: one.path for one in reports if not one.me and one.phase in ("present", "suspected")}


async def expect(computer: Computer, within_s: float, **expected: str) -> None:
    """Wait until the computer is linked with exactly these, in these ways."""
    seen: dict[str, str] = {}

    async def probe() -> bool:
        nonlocal seen
        seen = await paths(computer)
        return seen == expected

    try:
        await eventually(probe, within_s, f"{computer.name} is linked as {expected}")
    except AssertionError as error:
        raise AssertionError(f"{error}; it is {seen}\n{computer.log_tail()}") from None


async def doctor(computer: Computer, subject: str) -> list[types.DoctorLine]:
    """What the computer's doctor says about a subject."""
    lines = await computer.ask(lambda client: client.doctor())
    return [line for line in lines if line.subject == subject]


async def apart(computer: Computer, name: str) -> bool:
    """Whether the doctor says that no link gets through to that computer, and what would help."""
    lines = await doctor(computer, "links")
    return any(name in line.text and "--relay" in line.hint for line in lines if line.verdict == "warning")


def site_in(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("<h1>our site</h1>")
    return site


async def served(computer: Computer, name: str) -> None:
    """Wait until the computer's own gateway serves the site. It has patience: when a relay was away, iroh pauses up to
    half a minute before it tries that one again, which can be neither told nor seen.
    """
    try:
        page = await eventually(lambda: fetch(computer, name), 60.0, f"{name} is served at {computer.name}")
    except AssertionError as error:
        told = await computer.ask(lambda client: client.service(name))
        raise AssertionError(f"{error}; it knows {told}\n{computer.log_tail()}") from None
    assert "our site" in page


async def runs_on(computer: Computer, service: str, names: set[str]) -> bool:
    return set(await located(computer, service)) == names


async def test_homes_meet_directly_and_stay_together_without_the_public_computer(tmp_path: Path) -> None:
    with Network(INTERNET) as network:
        home_a, home_b = network.add_home("home-a"), network.add_home("home-b")
        places = {
            "public": network.add("public"),
            "a1": home_a.add("a1"),
            "a2": home_a.add("a2"),
            "b": home_b.add("b"),
        }
        async with computers_of(tmp_path, places) as by_name:
            public, a1, a2, b = by_name.values()
            public.found("circle", "hashing", no_executor())
            await public.up()
            await join(a1, public, everything())
            await join(a2, public, everything())
            # The ticket comes from behind a router and names the public computer too.
            await join(b, a1, no_executor())
            for computer in by_name.values():
                others = {name: "direct" for name in by_name if name != computer.name}
                await expect(computer, 20.0, **others)

            await deploy(b, site_in(tmp_path), "web", 2)
            await eventually(lambda: runs_on(b, "web", {"a1", "a2"}), 20.0, "it runs in the other home")
            await served(b, "web")

            (line,) = await doctor(b, "reachable")
            assert (line.verdict, "public" in line.text) == ("ok", True), line
            (line,) = await doctor(public, "reachable")
            assert f"--relay http://{network.addresses['public']}:" in line.hint, line

            public.unplug()
            await expect(b, 15.0, a1="direct", a2="direct")
            await expect(a1, 15.0, a2="direct", b="direct")
            await served(b, "web")
            (line,) = await doctor(b, "reachable")
            assert line.verdict == "warning" and "--address" in line.hint, line

            public.start()
            for computer in by_name.values():
                others = {name: "direct" for name in by_name if name != computer.name}
                await expect(computer, 30.0, **others)
            await served(public, "web")


async def test_a_members_relay_joins_a_home_that_no_direct_way_leads_to(tmp_path: Path) -> None:
    with Network(INTERNET) as network:
        home_a, home_b = network.add_home("home-a"), network.add_home("home-b", symmetric=True)
        places = {"public": network.add("public"), "a": home_a.add("a"), "b": home_b.add("b")}
        relay = f"http://{network.addresses['public']}:{RELAY_PORT}"
        async with computers_of(tmp_path, places) as by_name:
            public, a, b = by_name.values()
            public.found("circle", "hashing", no_executor())
            await public.up()
            await join(a, public, everything())
            await join(b, a, no_executor())
            await eventually(lambda: apart(a, "b"), 20.0, "the doctor says that the homes are kept apart")
            await public.ask(lambda client: client.contribute(no_executor(relay)))
            await expect(a, 20.0, public="direct", b="relayed")
            await expect(b, 20.0, public="direct", a="relayed")
            await deploy(b, site_in(tmp_path), "web", 1)
            await eventually(lambda: runs_on(b, "web", {"a"}), 20.0, "it runs in the other home")
            await served(b, "web")

            public.unplug()
            for computer in (a, b):
                await eventually(lambda c=computer: sees(c, 1), 20.0, f"{computer.name} is alone")
            public.start()
            await expect(a, 80.0, public="direct", b="relayed")
            await expect(b, 80.0, public="direct", a="relayed")
            await served(b, "web")
