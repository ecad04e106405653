"""Commands that change who belongs: roles, removals, names, computers, tickets, and whose a service is."""

from __future__ import annotations

from typing import Annotated

import typer

from colla.cli.command import GROUP_PANEL, SERVICES_PANEL, Here, command
from colla.cli.formats import count_text, list_text
from colla.cli.group import moment_text
from colla.client.types import ChangedAnswer, TicketReport
from colla.model.errors import CollaError

MemberArgument = Annotated[str, typer.Argument(help="The member's name, as `colla members` shows it.")]
ComputerArgument = Annotated[str, typer.Argument(help="The computer's name, as `colla nodes` shows it.")]
NewNameArgument = Annotated[str, typer.Argument(help="The new name.", metavar="NEW")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; everybody can read it.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

member_app = typer.Typer(
    help="Give a member a role or a name, or remove it.", no_args_is_help=True, rich_markup_mode="rich"
)
node_app = typer.Typer(
    help="Give a computer of the group another name, or retire it.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


def _done(here: Here, answer: ChangedAnswer, text: str) -> None:
    if here.out.json:
        here.out.answer(answer)
    else:
        here.out.say(f"{text} Known on {count_text(answer.copies, 'computer')}.")


def _confirm(here: Here, question: str, yes: bool) -> None:
    if not yes and not here.out.ask(question, default=False):
        raise CollaError("not_confirmed", "Nothing was changed.", "Confirm it, or give --yes.")


async def role(
    here: Here,
    name: MemberArgument,
    role: Annotated[str, typer.Argument(help="administrator, member or guest.")],
) -> None:
    """Give a member a role. Administrators do it; everybody may step down.

    An administrator may do everything about the group and its services; a member offers services and invites; a guest uses
    services. There is always an administrator.
    """
    async with here.client() as client:
        answer = await client.give_role(name, role)
    _done(here, answer, f"{name} is {role} now.")


async def rename(here: Here, name: MemberArgument, new: NewNameArgument) -> None:
    """Call a member otherwise: yourself, or as an administrator somebody else."""
    async with here.client() as client:
        answer = await client.rename_member(name, new)
    _done(here, answer, f"{name} is called {new} now.")


async def remove(here: Here, name: MemberArgument, reason: ReasonOption = "", yes: YesOption = False) -> None:
    """Remove a member with all its computers, for good. Only administrators can.

    Its computers are cut off at once wherever that is known. What it wrote before stays; what it writes from now on counts
    nowhere. Its services stop unless somebody adopts them. Who was removed by mistake can be invited again, as a new member.
    """
    _confirm(here, f"Remove {name} from the group, for good?", yes)
    async with here.client() as client:
        answer = await client.remove_member(name, reason)
    _done(here, answer, f"{name} does not belong to the group any more.")


async def rename_node(here: Here, name: ComputerArgument, new: NewNameArgument) -> None:
    """Call a computer otherwise: one of yours, or as an administrator any."""
    async with here.client() as client:
        answer = await client.rename_computer(name, new)
    _done(here, answer, f"{name} is called {new} now.")


async def retire_node(
    here: Here, name: ComputerArgument, reason: ReasonOption = "", yes: YesOption = False
) -> None:
    """Take a lost or sold computer out of the group, for good: one of yours, or as an administrator any.

    It is cut off at once, and its keys are worth nothing any more. Its owner stays a member; `colla invite --my-computer`, or
    `colla invite --for MEMBER` of an administrator, lets the next computer in.
    """
    _confirm(here, f"Retire {name}, for good?", yes)
    async with here.client() as client:
        answer = await client.retire_computer(name, reason)
    _done(here, answer, f"{name} does not belong to the group any more.")


async def tickets(
    here: Here,
    every: Annotated[bool, typer.Option("--all", help="Also those used, expired or revoked.")] = False,
) -> None:
    """List the tickets with which somebody can still join."""
    async with here.client() as client:
        found = [each for each in await client.tickets() if every or each.fate == "open"]
    if here.out.json:
        here.out.answer(found)
        return
    columns = ("TICKET", "IS", "FOR", "USED BY", "UNTIL", "BY", "MADE ON")
    here.out.table(columns, [_ticket_row(each) for each in found])


def _ticket_row(ticket: TicketReport) -> tuple[str, ...]:
    whom = f"computers of {ticket.member}" if ticket.member else ticket.role
    return (
        ticket.id[:10],
        ticket.fate,
        whom,
        f"{len(ticket.used_by)}/{ticket.uses} {list_text(ticket.used_by) if ticket.used_by else ''}".strip(),
        moment_text(ticket.expires_s),
        f"{ticket.inviter} (you)" if ticket.mine else ticket.inviter or "–",
        ticket.computer or "–",
    )


async def revoke(
    here: Here, ticket: Annotated[str, typer.Argument(help="Its id, or the beginning: `colla tickets`.")]
) -> None:
    """Revoke a ticket: nobody can join with it any more. Who has joined stays."""
    async with here.client() as client:
        answer = await client.revoke_ticket(ticket)
    _done(here, answer, "Nobody can join with it any more.")


async def rename_service(
    here: Here,
    service: Annotated[str, typer.Argument(help="The service's name.")],
    new: NewNameArgument,
) -> None:
    """Call a service otherwise: its address changes, and it stays the same service.

    Its replicas start anew one after the other, as with a new version, since programs are told their service's name. Deploy it
    under its new name from now on: `colla deploy FOLDER --name NEW`.
    """
    async with here.client() as client:
        answer = await client.rename_service(service, new)
    _done(here, answer, f"{service} is called {new} now.")


async def adopt(
    here: Here,
    service: Annotated[str, typer.Argument(help="The service's name.")],
    member: Annotated[str, typer.Option("--for", help="Give it to this member.", metavar="MEMBER")] = "",
) -> None:
    """Take a service over, or give it to somebody: as its owner or as an administrator.

    The services of a member who left or was removed stop; who adopts one lets it run on.
    """
    async with here.client() as client:
        answer = await client.adopt(service, member)
    _done(here, answer, f"{service} is {member + chr(39) + 's' if member else 'yours'} now.")


async def delegate(
    here: Here,
    service: Annotated[str, typer.Argument(help="The service's name.")],
    members: Annotated[
        list[str] | None, typer.Argument(help="Who may change it too. None: nobody else.", metavar="MEMBER")
    ] = None,
) -> None:
    """Let other members change a service as its owner may. Who was named before is replaced."""
    async with here.client() as client:
        answer = await client.delegate(service, members or [])
    whom = list_text(tuple(members)) if members else "Nobody else"
    _done(here, answer, f"{whom} may change {service} too." if members else f"{whom} may change {service}.")


def add(app: typer.Typer) -> None:
    """Declare these commands."""
    app.add_typer(member_app, name="member", rich_help_panel=GROUP_PANEL)
    app.add_typer(node_app, name="node", rich_help_panel=GROUP_PANEL)
    command(member_app, GROUP_PANEL, examples=("colla member role ben administrator",))(role)
    command(member_app, GROUP_PANEL, examples=("colla member rename ben benjamin",))(rename)
    command(member_app, GROUP_PANEL, examples=("colla member remove ben --reason 'moved away'",))(remove)
    command(node_app, GROUP_PANEL, name="rename", examples=("colla node rename laptop attic",))(rename_node)
    command(
        node_app,
        GROUP_PANEL,
        name="retire",
        examples=("colla node retire laptop --reason 'lost in the train'",),
    )(retire_node)
    command(app, GROUP_PANEL, examples=("colla tickets", "colla tickets --all"))(tickets)
    command(app, GROUP_PANEL, examples=("colla revoke 3fa85f64",))(revoke)
    command(app, SERVICES_PANEL, name="rename", examples=("colla rename blog journal",))(rename_service)
    command(app, SERVICES_PANEL, examples=("colla adopt calendar", "colla adopt calendar --for ben"))(adopt)
    command(app, SERVICES_PANEL, examples=("colla delegate calendar ben cleo",))(delegate)
