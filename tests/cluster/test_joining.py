"""A second user on another data folder joins with one ticket and deploys; strangers are refused."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from computers import Computer, eventually, everything

from colla.client import types
from colla.model.contribution import GIVES_NOTHING
from colla.model.errors import CollaError
from colla.node.settings import Peer, read_settings, write_settings

pytestmark = pytest.mark.cluster


@pytest.fixture
async def founder(tmp_path: Path) -> AsyncIterator[Computer]:
    computer = Computer(tmp_path, "attic")
    computer.found("circle", "hashing", everything())
    await computer.up()
    yield computer
    computer.unplug()


def colla(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the CLI as a person does."""
    command = [sys.executable, "-m", "colla", *words, "--home", str(home)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, env=dict(os.environ))


async def page(gateway: str, service: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{gateway}/", headers={"Host": f"{service}.localhost"}) as response,
    ):
        return response.status, await response.text()


async def test_a_second_member_joins_and_deploys_with_one_command(tmp_path: Path, founder: Computer) -> None:
    ticket = (await founder.ask(lambda client: client.invite(types.InviteRequest()))).ticket
    second = Computer(tmp_path, "laptop")
    second.prepare(ticket, GIVES_NOTHING, member="ben")
    try:
        await second.up()
        site = tmp_path / "site"
        site.mkdir()
        (site / "index.html").write_text("<h1>ben's page</h1>")
        done = await asyncio.to_thread(
            colla, second.home, "deploy", str(site), "--name", "web", "--replicas", "1"
        )
        assert done.returncode == 0, done.stdout + done.stderr
        gateway = (await second.ask(lambda client: client.node())).gateway
        status, text = await page(gateway, "web")
        assert status == 200
        assert "ben's page" in text
        # The laptop gives nothing: the replica runs in the attic, and is seen from there too.
        assert (await second.ask(lambda client: client.node())).replicas == 0
        assert (await founder.ask(lambda client: client.node())).replicas == 1
        assert (await page((await founder.ask(lambda client: client.node())).gateway, "web"))[0] == 200
    finally:
        second.unplug()


async def test_a_ticket_admits_one_person_only(tmp_path: Path, founder: Computer) -> None:
    ticket = (await founder.ask(lambda client: client.invite(types.InviteRequest()))).ticket
    second, third = Computer(tmp_path, "laptop"), Computer(tmp_path, "tower")
    second.prepare(ticket, GIVES_NOTHING, member="ben")
    third.prepare(ticket, GIVES_NOTHING, member="cleo")
    try:
        await second.up()
        with pytest.raises(AssertionError, match="joined with this ticket already"):
            await third.up()
    finally:
        second.unplug()
        third.unplug()


async def test_killed_again_and_again_while_joining(tmp_path: Path, founder: Computer) -> None:
    """Wherever the power fails, the ticket still works for this computer, and it joins once."""
    ticket = (await founder.ask(lambda client: client.invite(types.InviteRequest()))).ticket
    second = Computer(tmp_path, "laptop")
    second.prepare(ticket, everything(), member="ben")
    try:
        for after_s in (0.5, 0.7, 0.9, 1.1):
            second.start()
            await asyncio.sleep(after_s)  # No wait for a condition: the moment of the power failure.
            second.unplug()
        assert (await second.up()).joined
        entries = await founder.ask(lambda client: client.computers())
        assert sorted(entry.name for entry in entries) == ["attic", "laptop"]
    finally:
        second.unplug()


async def test_a_strangers_node_is_refused(tmp_path: Path, founder: Computer) -> None:
    """Somebody who knows the group's id and a member's address, but has no ticket."""
    report = await founder.ask(lambda client: client.node())
    stranger = Computer(tmp_path, "stranger")
    stranger.found("circle", "hashing", everything(), member="eve")
    settings = read_settings(stranger.folder)
    contact = Peer(report.node, (f"127.0.0.1:{report.port}",))
    (stranger.folder / "founding.msgpack").unlink()
    write_settings(
        stranger.folder,
        type(settings)(
            group=report.group,
            group_name="circle",
            node_name="stranger",
            gateway_port=0,
            lan_discovery=False,
            peers=(contact,),
        ),
    )
    try:
        stranger.start()

        async def refused() -> bool:
            async with stranger.client() as client:
                async for notice in client.notices():
                    if notice.kind == "refused_by_peer":
                        return True
            return False

        try:
            assert await asyncio.wait_for(eventually(refused, 60.0, "the stranger is refused"), 65.0)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{stranger.log_tail()}") from None
        names = [entry.name for entry in await founder.ask(lambda client: client.computers())]
        assert names == ["attic"]
        with pytest.raises(CollaError):
            await stranger.ask(lambda client: client.invite(types.InviteRequest()))
    finally:
        stranger.unplug()


async def test_restart_keeps_the_port_and_everything_else(tmp_path: Path, founder: Computer) -> None:
    before = await founder.ask(lambda client: client.node())
    assert await founder.stop() == 0
    after = await founder.up()
    assert (after.port, after.node, after.group) == (before.port, before.node, before.group)


async def test_a_joiner_whom_nobody_answers_asks_again_until_somebody_does(
    tmp_path: Path, founder: Computer
) -> None:
    ticket = (await founder.ask(lambda client: client.invite(types.InviteRequest()))).ticket
    await founder.stop()
    second = Computer(tmp_path, "laptop")
    second.prepare(ticket, GIVES_NOTHING, member="ben")
    try:
        second.start()

        async def report() -> types.NodeReport:
            return await second.ask(lambda client: client.node())

        async def told() -> bool:
            return "answered" in (await report()).join_problem

        async def joined() -> bool:
            return (await report()).joined

        await eventually(told, 30.0, "the joiner says that nobody answers")
        await founder.up()
        await eventually(joined, 30.0, "the joiner is let in after all")
        assert (await report()).join_problem == ""
    finally:
        second.unplug()
