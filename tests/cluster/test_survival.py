"""What a group survives on real processes: killed agents, dead computers, cold starts, damaged disks, leaving owners."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from computers import Computer, deploy, eventually, located, make_group, page, sees

from colla.model.errors import CollaError

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

ELECTIONS = ["hashing", "contention"]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return make_site(tmp_path / "site", "our site")


def make_site(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "index.html").write_text(f"<h1>{text}</h1>")
    return folder


@pytest.fixture
async def pair(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[list[Computer]]:
    election = getattr(request, "param", "hashing")
    computers = await make_group(tmp_path, election, 2)
    yield computers
    for computer in computers:
        computer.unplug()


async def full(computer: Computer, name: str, count: int) -> bool:
    return len(await located(computer, name)) == count


@pytest.mark.parametrize("pair", ELECTIONS, indirect=True)
async def test_with_one_of_two_computers_dead_everything_can_be_managed(
    pair: list[Computer], site: Path, tmp_path: Path
) -> None:
    left, right = pair
    await deploy(left, site, "web", 2)
    await eventually(lambda: full(right, "web", 2), 20.0, "both run a replica")
    left.unplug()
    # Nothing waits for a majority: the survivor creates, modifies, deactivates, activates, scales and eliminates.
    written = await deploy(right, site, "notes", 1)
    assert written.created
    await eventually(lambda: page(right, "notes"), 20.0, "what was created is served")
    newer = make_site(tmp_path / "newer", "a newer page")
    await deploy(right, newer, "notes", 1)

    async def is_newer() -> bool:
        return "a newer page" in (await page(right, "notes") or "")

    await eventually(is_newer, 20.0, "what was modified is served")
    async with right.client() as client:
        await client.deactivate("notes")
        await eventually(lambda: full(right, "notes", 0), 20.0, "no replica of an inactive service")
        await client.activate("notes")
        await eventually(lambda: page(right, "notes"), 20.0, "it is served again")
        await client.eliminate("notes")
        with pytest.raises(CollaError, match="no service"):
            await client.service("notes")
    assert "our site" in (await eventually(lambda: page(right, "web"), 10.0, "the other service goes on"))
    # The dead computer comes back and learns all of it.
    await left.up()

    async def learnt() -> bool:
        return [s.name for s in await left.ask(lambda client: client.services())] == ["web"]

    await eventually(learnt, 20.0, "the returned computer has the same catalogue")
    await eventually(lambda: full(left, "web", 2), 30.0, "both run a replica again")


async def test_replicas_go_on_while_the_agent_restarts(pair: list[Computer], site: Path) -> None:
    left, right = pair
    await deploy(left, site, "web", 2)
    await eventually(lambda: full(left, "web", 2), 20.0, "both run a replica")
    before = await located(left, "web")
    assert right.process is not None
    # Only the agent dies: its environment program and the replica in it go on.
    os.kill((await right.ask(lambda client: client.node())).pid, signal.SIGKILL)
    right.process.wait(10)
    await right.up()
    await eventually(lambda: sees(left, 2), 30.0, "the restarted one is here")
    await eventually(lambda: full(left, "web", 2), 30.0, "two replicas again")
    assert await located(left, "web") == before


@pytest.mark.parametrize("pair", ELECTIONS, indirect=True)
async def test_a_cold_start_of_all_brings_the_services_back(pair: list[Computer], site: Path) -> None:
    left, right = pair
    await deploy(left, site, "web", 2)
    await eventually(lambda: full(left, "web", 2), 20.0, "both run a replica")
    left.unplug()
    right.unplug()
    await left.up()
    await right.up()
    for computer in (left, right):
        text = await eventually(lambda one=computer: page(one, "web"), 30.0, "the service is back")
        assert "our site" in text
    await eventually(lambda: full(right, "web", 2), 30.0, "in full number")


async def test_a_damaged_database_is_put_aside_and_refilled_by_the_group(
    pair: list[Computer], site: Path
) -> None:
    left, right = pair
    await deploy(left, site, "web", 1)
    await eventually(lambda: page(right, "web"), 20.0, "the service answers")
    assert await right.stop() == 0
    database = right.folder / "group.db"
    database.write_bytes(b"this is no database " * 4096)
    await right.up()

    async def refilled() -> bool:
        return [s.name for s in await right.ask(lambda client: client.services())] == ["web"]

    await eventually(refilled, 30.0, "the catalogue came back from the group")
    assert list(right.folder.glob("group.db.corrupt-*")), "the damaged file is kept aside"


async def test_who_drains_keeps_serving_until_others_do(pair: list[Computer], site: Path) -> None:
    left, right = pair
    await deploy(left, site, "web", 1)
    await eventually(lambda: full(left, "web", 1), 20.0, "one replica runs")
    (where,) = await located(left, "web")
    keeper, other = (left, right) if where == left.name else (right, left)
    async with keeper.client() as client:
        contribution = (await client.node()).contribution
        await client.contribute(msgspec.structs.replace(contribution, draining=True))

    async def moved() -> bool:
        # Whoever asks while the replica moves is served.
        assert await page(other, "web") is not None
        return set(await located(other, "web")) == {other.name}

    await eventually(moved, 20.0, "the replica moved")


async def test_a_refusing_owner_is_obeyed_and_explained(pair: list[Computer], site: Path) -> None:
    left, right = pair
    async with right.client() as client:
        contribution = (await client.node()).contribution
        await client.contribute(msgspec.structs.replace(contribution, own_only=True))
    await deploy(left, site, "web", 2)
    await eventually(lambda: full(left, "web", 1), 20.0, "one replica runs")

    async def explained() -> bool:
        why = await left.ask(lambda client: client.why("web"))
        lines = {line.node: line.reason for line in why.lines}
        return why.wanted == 2 and why.running == 1 and "own" in lines.get(right.name, "")

    await eventually(explained, 20.0, "why tells of the owner's decision")
    status = await left.ask(lambda client: client.status())
    assert any("1 of 2 replicas" in warning for warning in status.warnings)
    assert (await right.ask(lambda client: client.node())).replicas == 0
