"""Commands on the group: who belongs, who is here, how somebody joins."""

from __future__ import annotations

import io
import time
from typing import Annotated

import typer

from colla.cli.command import GROUP_PANEL, Here, command
from colla.cli.formats import count_text, duration_text, list_text, parse_duration, short_id, size_text
from colla.client.types import ComputerReport, InviteAnswer, InviteRequest, MemberReport, StatusReport
from colla.model.contribution import ALL_AGENTS
from colla.model.errors import CollaError

INSTALL_LINE = "pip install colla"
EXPIRY_S_MAX = 366 * 24 * 3600.0


async def show(here: Here) -> None:
    """Show the group that this computer is in, and this computer's place in it."""
    async with here.client() as client:
        node = await client.node()
        members = await client.members()
    if here.out.json:
        here.out.answer(node)
        return
    here.out.pairs(
        (
            ("group", node.group_name),
            ("id", node.group),
            ("election", node.election),
            ("members", str(len(members))),
            ("I am", node.member_name),
            ("this computer", f"{node.name} ({short_id(node.node)})"),
            ("folder", str(here.folder())),
        )
    )


async def invite(
    here: Here,
    my_computer: Annotated[
        bool, typer.Option("--my-computer", help="For a further computer of mine, not for another person.")
    ] = False,
    expires: Annotated[str, typer.Option("--expires", help="How long it can be used: 12h, 7d, 2w.")] = "7d",
    role: Annotated[
        str, typer.Option("--role", help="What they become: administrator, member or guest.")
    ] = "member",
    uses: Annotated[int, typer.Option("--uses", min=1, help="How many may come with it.")] = 1,
    member: Annotated[
        str, typer.Option("--for", help="For a computer of this member, who lost theirs.", metavar="MEMBER")
    ] = "",
    qr: Annotated[bool, typer.Option("--qr", help="Show a QR code as well.")] = False,
) -> None:
    """Invite a person, or a further computer of yours: prints two lines to paste into a chat.

    The ticket lets one computer in, or as many as --uses says. Treat it like a key: whoever has it can join until it expires,
    is used, or is revoked (`colla tickets`). Guests use services, they offer none.
    """
    try:
        expiry_s = parse_duration(expires)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--expires") from None
    if not 0 < expiry_s <= EXPIRY_S_MAX:
        raise typer.BadParameter("a ticket can be used for a year at most", param_hint="--expires")
    async with here.client() as client:
        answer = await client.invite(InviteRequest(my_computer, expiry_s, role, uses, member))
    if here.out.json:
        here.out.answer(answer)
        return
    computers = "another computer" if uses == 1 else f"{uses} more computers"
    whom = "one person" if uses == 1 else f"{uses} persons"
    if my_computer or member:
        whom = f"{computers} of {member or 'yours'}"
    elif role != "member":
        whom = f"{whom} as {role}"
    until = moment_text(answer.expires_s)
    here.out.note(f"For {whom}, until {until}. Send these two lines; treat them like a key.")
    here.out.say(INSTALL_LINE)
    here.out.say(f"colla join {answer.ticket}")
    if qr:
        here.out.say(_qr_text(answer))


def _qr_text(answer: InviteAnswer) -> str:
    # segno writes the colours of a terminal; blocks of text are understood everywhere and can be cleaned.
    import segno

    rows = [list(row) for row in segno.make(answer.ticket, micro=False).matrix_iter(border=2)]
    rows += [[0] * len(rows[0])] * (len(rows) % 2)
    blocks = {(0, 0): "█", (0, 1): "▀", (1, 0): "▄", (1, 1): " "}
    text = io.StringIO()
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        text.write("".join(blocks[bool(a), bool(b)] for a, b in zip(upper, lower, strict=True)) + "\n")
    return text.getvalue().rstrip("\n")


async def members(
    here: Here,
    former: Annotated[
        bool, typer.Option("--former", help="Who was removed or left instead, and why.")
    ] = False,
) -> None:
    """List the members of the group: their roles, whether they are here, and their computers."""
    async with here.client() as client:
        found = await client.members()
        gone = await client.former_members() if former else ()
    if here.out.json:
        here.out.answer(gone if former else found)
    elif former:
        rows = [(each.name, each.what, moment_text(each.at_s), each.text) for each in gone]
        here.out.table(("MEMBER", "WAS", "AT", "WHY"), rows)
    else:
        here.out.table(("MEMBER", "ROLE", "HERE", "COMPUTERS"), [_member_row(member) for member in found])


def moment_text(at_s: float) -> str:
    """A moment, in local time to the minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at_s))


def _member_row(member: MemberReport) -> tuple[str, ...]:
    name = f"{member.name} (you)" if member.me else member.name
    return name, member.role, "yes" if member.present else "no", list_text(member.nodes)


async def nodes(here: Here) -> None:
    """List the computers of the group: who is here, and what each gives."""
    async with here.client() as client:
        found = await client.computers()
    if here.out.json:
        here.out.answer(found)
        return
    show_computers(here, found)


def show_computers(here: Here, computers: tuple[ComputerReport, ...]) -> None:
    """The table of the computers."""
    columns = ("COMPUTER", "MEMBER", "IS", "SINCE", "AGENTS", "RUNS", "CPUS", "MEMORY", "DISK", "PATH")
    here.out.table(columns, [_computer_row(computer) for computer in computers])


def _computer_row(computer: ComputerReport) -> tuple[str, ...]:
    name = f"{computer.name} (this one)" if computer.me else computer.name
    way = computer.path
    if computer.rtt_ms:
        way = f"{way} {computer.rtt_ms:.0f} ms".strip()
    return (
        name,
        computer.member,
        presence_text(computer),
        duration_text(max(0.0, time.time() - computer.since_s)) if computer.since_s else "–",
        "all five" if len(computer.agents) == len(ALL_AGENTS) else list_text(computer.agents),
        list_text(computer.environments),
        f"{computer.cpus:g}",
        size_text(computer.memory_bytes),
        size_text(computer.disk_bytes),
        way or "–",
    )


def presence_text(computer: ComputerReport) -> str:
    """In a word: present, suspected, absent or left; for one that is here also paused or draining."""
    if computer.phase != "present":
        return computer.phase
    return "paused" if computer.paused else "draining" if computer.draining else computer.phase


async def status(here: Here) -> None:
    """Show the group at a glance: computers, services, and what is missing. Exits with 1 if a service is down."""
    async with here.client() as client:
        report = await client.status()
    down = [each.name for each in report.services if each.active and not each.locations]
    if here.out.json:
        here.out.answer(report)
    else:
        _show_status(here, report)
    if not report.node.joined:
        raise CollaError(
            "not_joined", report.node.join_problem or "The group has not admitted this computer yet."
        )
    if down:
        hint = f"`colla why {down[0]}` says why."
        raise CollaError("service_down", f"No replica answers of: {list_text(down)}.", hint)


def _show_status(here: Here, report: StatusReport) -> None:
    node = report.node
    present = sum(each.phase == "present" for each in report.computers)
    computers = count_text(sum(each.phase != "left" for each in report.computers), "computer")
    here.out.say(
        f"{node.group_name}: {present} of {computers} here; this one is {node.name} of {node.member_name}"
    )
    here.out.table(
        ("COMPUTER", "MEMBER", "IS"),
        [(each.name, each.member, presence_text(each)) for each in report.computers],
    )
    if report.services:
        if here.out.terminal:
            here.out.say("")
        here.out.table(
            ("SERVICE", "IS", "REPLICAS", "URL"),
            [
                (
                    each.name,
                    "active" if each.active else "inactive",
                    f"{len(each.locations)}/{each.replicas_wanted}" if each.active else "–",
                    each.url,
                )
                for each in report.services
            ],
        )
    for text in report.warnings:
        here.out.warn(text)


def add(app: typer.Typer, group: typer.Typer) -> None:
    """Declare these commands."""
    command(group, GROUP_PANEL, examples=("colla group show",))(show)
    command(
        app,
        GROUP_PANEL,
        examples=(
            "colla invite",
            "colla invite --expires 12h --qr",
            "colla invite --role guest --uses 20",
            "colla invite --my-computer",
            "colla invite --for ben",
        ),
    )(invite)
    command(app, GROUP_PANEL, examples=("colla members", "colla members --former"))(members)
    command(app, GROUP_PANEL, examples=("colla nodes", "colla nodes --json | jq '.[].name'"))(nodes)
    command(app, GROUP_PANEL, examples=("colla status", "colla status --json"))(status)
