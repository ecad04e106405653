"""Real processes cut from each other: both sides keep the service, and after healing one master remains."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from computers import Computer, deploy, eventually, everything, sees
from namespaces import Network, fetch

from colla.client import Client, types

pytestmark = [pytest.mark.cluster, pytest.mark.partition, pytest.mark.timeout(180)]


@asynccontextmanager
async def group_of(
    tmp_path: Path, election: str, count: int
) -> AsyncIterator[tuple[Network, list[Computer]]]:
    """A group with one node on each of `count` computers, each in a namespace of its own."""
    with Network() as network:
        computers = [Computer(tmp_path, f"home{n}", network.add(f"home{n}")) for n in range(1, count + 1)]
        try:
            first = computers[0]
            first.found("circle", election, everything())
            await first.up()
            for computer in computers[1:]:
                answer = await first.ask(lambda client: client.invite(types.InviteRequest()))
                computer.prepare(answer.ticket, everything(), member=f"member-of-{computer.name}")
                await computer.up()
            for computer in computers:
                await eventually(
                    lambda computer=computer: sees(computer, count), 20.0, f"{computer.name} sees all"
                )
            yield network, computers
        finally:
            for computer in computers:
                computer.unplug()


async def running(computer: Computer, name: str) -> int:
    """How many replicas the master, asked from this computer, counts as running."""
    async with computer.client() as client:
        return len((await client.service(name)).locations)


async def facts(client: Client) -> list[tuple[str, bool, int, int]]:
    """The catalogue as this node has it."""
    return [(s.name, s.active, s.replicas_wanted, s.version) for s in await client.services()]


@pytest.mark.parametrize("election", ["hashing", "contention"])
async def test_both_sides_of_a_cut_keep_the_service_and_agree_after_healing(
    tmp_path: Path, election: str
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("<h1>our site</h1>")
    async with group_of(tmp_path, election, 4) as (network, computers):
        left, right = computers[:2], computers[2:]
        await deploy(computers[0], site, "web", 2)
        for computer in computers:
            await eventually(lambda c=computer: fetch(c, "web"), 20.0, f"{computer.name} is served")

        network.cut([computer.name for computer in right])
        for computer in computers:
            await eventually(lambda c=computer: sees(c, 2), 20.0, f"{computer.name} sees its side only")
        for side in (left, right):
            await eventually(lambda s=side: full(s[0]), 30.0, "each side runs the full number")
        for computer in computers:
            page = await eventually(lambda c=computer: fetch(c, "web"), 20.0, f"{computer.name} is served")
            assert "our site" in page

        # Both sides go on changing the catalogue while they are apart.
        await deploy(left[0], site, "left", 1)
        await deploy(right[0], site, "right", 1)

        network.heal()
        healed_at = time.monotonic()
        for computer in computers:
            await eventually(lambda c=computer: sees(c, 4), 90.0, f"{computer.name} sees all again")
        await eventually(lambda: agree(computers), 60.0, "all catalogues are equal")
        await eventually(lambda: one_master(computers, "web"), 60.0, "one master remains")
        await eventually(lambda: exactly(computers, "web", 2), 60.0, "the surplus is trimmed")
        print(f"{election}: agreed {time.monotonic() - healed_at:.1f} s after healing")


async def full(computer: Computer) -> bool:
    return await running(computer, "web") >= 2


async def agree(computers: list[Computer]) -> bool:
    catalogues = [sorted(await computer.ask(facts)) for computer in computers]
    names = [name for name, *_ in catalogues[0]]
    return all(catalogue == catalogues[0] for catalogue in catalogues) and names == ["left", "right", "web"]


async def one_master(computers: list[Computer], name: str) -> bool:
    masters = {(await computer.ask(lambda client: client.service(name))).master for computer in computers}
    return len(masters) == 1 and "" not in masters


async def exactly(computers: list[Computer], name: str, count: int) -> bool:
    """Whether exactly so many replicas run, by what the computers themselves report."""
    reports = [await computer.ask(lambda client: client.node()) for computer in computers]
    others = 2  # the services "left" and "right", one replica each
    return sum(report.replicas for report in reports) == count + others
