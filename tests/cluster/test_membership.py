"""Real processes: who is removed is cut off at once; what it wrote unseen vanishes, what was seen stays."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from computers import Computer, deploy, eventually, everything, make_group, page, sees
from namespaces import Network

from colla.client import types

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

CUT_OFF_S = 2.0


async def catalogue(computer: Computer) -> dict[str, tuple[str, bool]]:
    """Each service's owner, and whether it is active."""
    services = await computer.ask(lambda client: client.services())
    return {service.name: (service.owner, service.active) for service in services}


async def members(computer: Computer) -> dict[str, str]:
    return {one.name: one.role for one in await computer.ask(lambda client: client.members())}


async def cut_off(computer: Computer) -> str | None:
    """Why the computer does not belong any more, once it has no link to anybody."""
    report = await computer.ask(lambda client: client.node())
    others = [one for one in await computer.ask(lambda client: client.computers()) if not one.me]
    return report.join_problem if not report.joined and not any(one.path for one in others) else None


def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir(exist_ok=True)
    (folder / "index.html").write_text("<h1>our site</h1>")
    return folder


async def test_a_removed_member_is_cut_off_and_its_service_stops_until_it_is_adopted(tmp_path: Path) -> None:
    computers = await make_group(tmp_path, "hashing", 3)
    first, second, third = computers
    try:
        await deploy(second, site(tmp_path), "web", 2)
        await eventually(lambda: page(third, "web"), 20.0, "the service answers")
        removed = await first.ask(lambda client: client.remove_member("member-of-home2", "moved away"))
        began = time.monotonic()
        assert removed.copies >= 1
        why = await eventually(lambda: cut_off(second), CUT_OFF_S, "the removed computer has no link left")
        print(f"cut off {time.monotonic() - began:.2f} s after the answer")
        assert why == "anna removed member-of-home2 from the group: moved away."
        assert await members(third) == {"anna": "administrator", "member-of-home3": "member"}
        assert await sees(third, 2)
        assert await catalogue(third) == {"web": ("member-of-home2", False)}

        async def at_rest() -> bool:
            return all([(await one.ask(lambda client: client.node())).replicas == 0 for one in computers])

        await eventually(at_rest, 20.0, "its service stops everywhere, on its own computer too")
        await first.ask(lambda client: client.adopt("web"))
        await eventually(lambda: page(third, "web"), 20.0, "the adopted service answers")
        assert await catalogue(third) == {"web": ("anna", True)}
    finally:
        for computer in computers:
            computer.unplug()


@pytest.mark.partition
async def test_what_a_removed_member_wrote_during_a_partition_vanishes(tmp_path: Path) -> None:
    with Network() as network:
        computers = [Computer(tmp_path, f"home{n}", network.add(f"home{n}")) for n in (1, 2, 3)]
        first, second, third = computers
        try:
            first.found("circle", "hashing", everything())
            await first.up()
            for computer in (second, third):
                answer = await first.ask(lambda client: client.invite(types.InviteRequest()))
                computer.prepare(answer.ticket, everything(), member=f"member-of-{computer.name}")
                await computer.up()
            for computer in computers:
                await eventually(lambda one=computer: sees(one, 3), 20.0, f"{computer.name} sees all")
            await deploy(third, site(tmp_path), "before", 1)
            for computer in computers:
                await eventually(lambda one=computer: knows(one, "before"), 10.0, "all know what was before")

            network.cut(["home2", "home3"])
            await deploy(third, site(tmp_path), "during", 1)
            ticket = await third.ask(lambda client: client.invite(types.InviteRequest()))
            await eventually(lambda: knows(second, "during"), 10.0, "its side knows what it wrote")
            assert ticket.ticket
            await first.ask(lambda client: client.remove_member("member-of-home3"))
            assert not await knows(first, "during")

            network.heal()
            healed = time.monotonic()
            await eventually(lambda: settled(second), 60.0, "the other side knows of the removal")
            print(f"known everywhere {time.monotonic() - healed:.1f} s after healing")
            for computer in (first, second):
                assert await catalogue(computer) == {"before": ("member-of-home3", False)}
                fates = [one.fate for one in await computer.ask(lambda client: client.tickets())]
                assert "open" not in fates
            why = await eventually(lambda: cut_off(third), 30.0, "the removed one is told")
            assert why == "anna removed member-of-home3 from the group."
        finally:
            for computer in computers:
                computer.unplug()


async def knows(computer: Computer, service: str) -> bool:
    return service in await catalogue(computer)


async def settled(computer: Computer) -> bool:
    return "member-of-home3" not in await members(computer) and not await knows(computer, "during")
