"""Commands between members: messages, events, and who is here."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
import typer

from colla.cli.command import COMPUTER_PANEL, GROUP_PANEL, SHARE_PANEL, Here, command
from colla.cli.formats import count_text, duration_text, list_text, size_text
from colla.client.client import Client
from colla.client.types import EventReport, MessageReport, NoticeReport, PresenceReport
from colla.model.errors import CollaError

SHORT_MESSAGE_ID = 8
"""Digits of a message's id that are shown; as many must be given to answer it."""
INBOX_MAX = 10_000
"""Messages that `inbox` looks through, at most."""


# -- messages -----------------------------------------------------------------------------------------------


async def send(
    here: Here,
    words: Annotated[
        list[str],
        typer.Argument(metavar="[MEMBER]... TEXT", help="Who shall get it, and the text; - reads stdin."),
    ],
    to_all: Annotated[bool, typer.Option("--all", help="To all members.")] = False,
    reply: Annotated[
        str, typer.Option("--reply", metavar="ID", help="Answer this message of the inbox.")
    ] = "",
) -> None:
    """Send a message to members: at once to those here, to the others when they return.

    Only the recipients' computers can read it. At most 28 KiB of text; `colla put` shares files.
    """
    *members, text = words
    if not members and not to_all and not reply:
        members, text = [text], "-"
    if text == "-":
        if sys.stdin.isatty():
            here.out.note("Type the message; Ctrl-D on a line of its own ends it.")
        text = await asyncio.to_thread(sys.stdin.read)
    async with here.client() as client:
        reply_to = ""
        if reply:
            answered = await _find(client, reply)
            reply_to, members = answered.id, members or [answered.sender]
        answer = await client.send(text.rstrip("\n"), members, to_all=to_all, reply_to=reply_to)
        present = {report.member for report in await client.presence() if report.here}
    if here.out.json:
        here.out.answer(answer)
        return
    away = [member for member in members if member not in present]
    here.out.say(f"Sent to {'all' if to_all else list_text(members)}.")
    if away:
        here.out.note(f"Not here now, so it waits for their return: {list_text(away)}.")


async def _find(client: Client, start: str) -> MessageReport:
    """The message of the inbox whose id begins so."""
    found = [message async for message in _all(client) if message.id.startswith(start)]
    if len(start) < SHORT_MESSAGE_ID or len(found) != 1:
        raise CollaError(
            "not_found", f"No message of yours has the id {start!r}.", "`colla inbox --all` shows the ids."
        )
    return found[0]


async def _all(client: Client, *, sent: bool = False, unread: bool = False) -> AsyncIterator[MessageReport]:
    """Page by page."""
    after, seen = 0, 0
    while seen < INBOX_MAX:
        page = await client.messages(after=after, sent=sent, unread=unread)
        for message in page.messages:
            yield message
        after, seen = page.place, seen + len(page.messages)
        if page.last:
            return


async def inbox(
    here: Here,
    every: Annotated[bool, typer.Option("--all", help="Also what was read before.")] = False,
    sent: Annotated[bool, typer.Option("--sent", help="What you sent, and who got and read it.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")
    ] = False,
    keep_unread: Annotated[bool, typer.Option("--keep-unread", help="Look only; nobody is told.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Of those read before, so many.")] = 20,
) -> None:
    """Read your messages: the unread ones, on whatever computer of yours they were not read yet."""
    async with here.client() as client:
        if sent:
            _show_all(here, [message async for message in _all(client, sent=True)][-limit:])
            return
        unread = [message async for message in _all(client, unread=True)]
        before = [message async for message in _all(client) if message.read] if every else []
        shown = unread + before[::-1][:limit]
        _show_all(here, shown, many=not follow)
        if not keep_unread:
            await _mark(client, unread)
        if not shown and not follow:
            here.out.note("No new messages." if not every else "No messages.")
        if follow:
            last = max((message.place for message in unread), default=0)
            async for message in client.follow_messages(after=last, unread=True):
                _show_all(here, [message], many=False)
                if not keep_unread:
                    await _mark(client, [message])
            raise CollaError("not_running", "The node stopped.", "Start it with `colla up`.")


async def _mark(client: Client, messages: list[MessageReport]) -> None:
    step = 256
    for at in range(0, len(messages), step):
        await client.mark_read([message.id for message in messages[at : at + step]])


def _show_all(here: Here, messages: list[MessageReport], *, many: bool = True) -> None:
    if here.out.json and many:
        here.out.answer(messages)
        return
    for message in messages:
        if here.out.json:
            here.out.answer(message)
        elif here.out.terminal:
            _show(here, message)
        else:
            to = list_text(message.to, "all")
            cells = (_moment(message.at_s), message.id[:SHORT_MESSAGE_ID], message.sender, to, _text(message))
            here.out.row((*cells, *_receipts(message)))


def _show(here: Here, message: MessageReport) -> None:
    new = "" if message.read or message.delivered_s else "new  "
    head = f"{new}{message.sender} to {list_text(message.to, 'all')}, {_moment(message.at_s)}"
    here.out.say(f"{head}  [{message.id[:SHORT_MESSAGE_ID]}]", "bold")
    here.out.say(_text(message))
    for line in _receipts(message):
        here.out.say(line, "dim")
    here.out.say("")


def _receipts(message: MessageReport) -> list[str]:
    """What became of a message that was sent."""
    came = [member for member in message.delivered_s if member not in message.read_s]
    told = (("read by", list(message.read_s)), ("came to", came))
    return [f"{what} {list_text(who)}" for what, who in told if who]


def _text(message: MessageReport) -> str:
    if message.readable:
        return message.text
    return "(sent before this computer was yours: read it on another one)"


def _moment(at_s: float) -> str:
    at = time.localtime(at_s)
    today = time.strftime("%Y-%m-%d", at) == time.strftime("%Y-%m-%d")
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M", at)


# -- events -------------------------------------------------------------------------------------------------


async def events(
    here: Here,
    topic: Annotated[
        list[str] | None,
        typer.Option("--topic", "-t", help="Only of this topic; `group` is the group's own. Repeat it."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")
    ] = False,
    publish: Annotated[
        str | None, typer.Option("--publish", metavar="DATA", help="Publish JSON, or a text, to the topic.")
    ] = None,
    subscriber: Annotated[
        str, typer.Option("--subscriber", metavar="NAME", help="What this name has not been given yet.")
    ] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="So many of the past.")] = 20,
) -> None:
    """Show what happened in the group, and what applications published; follow it; publish something.

    Events reach everybody, also those who were away, in the order in which each author said them.
    """
    topics = topic or []
    async with here.client() as client:
        if publish is not None:
            await _publish(here, client, topics, publish)
        elif subscriber:
            await _subscribe(here, client, subscriber, topics, follow)
        else:
            await _show_events(here, client, topics, follow, limit)


async def _publish(here: Here, client: Client, topics: list[str], text: str) -> None:
    if len(topics) != 1:
        raise CollaError("bad_usage", "An event is published to one topic.", "Name it: --topic shop.orders")
    try:
        data: Any = msgspec.json.decode(text)
    except msgspec.DecodeError:
        data = text
    answer = await client.publish(topics[0], data)
    if here.out.json:
        here.out.answer(answer)
    else:
        here.out.note(f"Published; it is safe on {count_text(answer.copies, 'computer')}.")


async def _subscribe(here: Here, client: Client, name: str, topics: list[str], follow: bool) -> None:
    if follow:
        async with client.subscribe(name, topics, past=True) as following:
            async for event in following:
                _show_event(here, event)
        raise CollaError("not_running", "The node stopped.", "Start it with `colla up`.")
    while True:
        page = await client.events(subscriber=name, topics=topics, past=True)
        for event in page.events:
            _show_event(here, event)
        await client.taken(name, page.place)
        if page.last:
            return


async def _show_events(here: Here, client: Client, topics: list[str], follow: bool, limit: int) -> None:
    newest: deque[EventReport] = deque(maxlen=limit)
    after = 0
    while True:
        page = await client.events(after=after, topics=topics)
        newest.extend(page.events)
        after = page.place
        if page.last:
            break
    for event in newest:
        _show_event(here, event)
    if follow:
        async for event in client.follow_events(after=after, topics=topics):
            _show_event(here, event)
        raise CollaError("not_running", "The node stopped.", "Start it with `colla up`.")


def _show_event(here: Here, event: EventReport) -> None:
    if here.out.json:
        here.out.answer(event)
        return
    text = event.text or msgspec.json.encode(event.data).decode()
    cells = (_moment(event.at_s), event.kind or event.topic, event.member, text)
    if here.out.terminal:
        who = "" if event.kind else f"  ({event.member})"
        here.out.say(f"{cells[0]}  {cells[1]:<14} {text}{who}")
    else:
        here.out.row(cells)


async def notices(
    here: Here,
    kind: Annotated[list[str] | None, typer.Option("--kind", help="Only this kind; repeat it.")] = None,
    service: Annotated[str | None, typer.Option("--service", help="Only of this service.")] = None,
    new: Annotated[bool, typer.Option("--new", help="Leave out what happened before.")] = False,
) -> None:
    """Follow what this computer does and sees, until Ctrl-C. The newest of the past come first."""
    began_s = time.time()
    async with here.client() as client:
        wanted = (await client.service(service)).id if service is not None else ""
        async for notice in client.notices():
            if (
                (new and notice.at_s < began_s)
                or (kind and notice.kind not in kind)
                or (wanted and notice.service != wanted)
            ):
                continue
            _show_notice(here, notice)
    raise CollaError("not_running", "The node stopped.", "Start it with `colla up`.")


def _show_notice(here: Here, notice: NoticeReport) -> None:
    at = time.strftime("%H:%M:%S", time.localtime(notice.at_s))
    if here.out.json:
        here.out.answer(notice)
    elif here.out.terminal:
        here.out.say(f"{at}  {notice.text}")
    else:
        here.out.row((at, notice.kind, notice.text))


# -- presence -----------------------------------------------------------------------------------------------


async def presence(
    here: Here,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on with every change, until Ctrl-C.")
    ] = False,
) -> None:
    """Show who is here, since when, on which computers, what they give; and who was here when."""
    async with here.client() as client:
        reports = await client.presence()
        if here.out.json and not watch:
            here.out.answer(reports)
            return
        if not here.out.json:
            columns = ("MEMBER", "IS", "SINCE", "COMPUTERS", "AWAY", "GIVES")
            here.out.table(columns, [_presence_row(report) for report in reports])
        if not watch:
            return
        known = {report.member: report for report in reports}
        async for report in client.follow_presence():
            if here.out.json:
                here.out.answer(report)
            elif _shown(known.get(report.member)) != _shown(report):
                here.out.row((time.strftime("%H:%M:%S"), *_presence_row(report)))
            known[report.member] = report
    raise CollaError("not_running", "The node stopped.", "Start it with `colla up`.")


def _shown(report: PresenceReport | None) -> Any:
    return report and msgspec.structs.replace(report, since_s=0.0, seen_s=0.0)


def _presence_row(report: PresenceReport) -> tuple[str, ...]:
    name = f"{report.member} (you)" if report.me else report.member
    at_s = report.since_s if report.here else report.seen_s
    since = duration_text(max(0.0, time.time() - at_s)) if at_s else "–"
    gives = f"{report.cpus:g} CPUs, {size_text(report.memory_bytes)}, {size_text(report.disk_bytes)} disk"
    return (
        name,
        "here" if report.here else "away",
        since if report.here or not at_s else f"seen {since} ago",
        list_text(report.computers),
        list_text(report.computers_away),
        gives if report.cpus or report.memory_bytes or report.disk_bytes else "–",
    )


def add(app: typer.Typer) -> None:
    """Declare these commands."""
    command(
        app,
        SHARE_PANEL,
        examples=(
            'colla send ben "See you at eight."',
            'colla send --all "The site is up."',
            "uptime | colla send ben -",
        ),
    )(send)
    command(app, SHARE_PANEL, examples=("colla inbox", "colla inbox --follow", "colla inbox --sent"))(inbox)
    command(
        app,
        SHARE_PANEL,
        examples=(
            "colla events --topic group",
            "colla events --topic shop.orders --publish '{\"number\": 7}'",
            "colla events --topic shop.orders --subscriber bookkeeping --follow --json",
        ),
    )(events)
    command(app, GROUP_PANEL, examples=("colla presence", "colla presence --watch"))(presence)
    command(
        app,
        COMPUTER_PANEL,
        examples=("colla notices", "colla notices --service blog", "colla notices --json --kind took_over"),
    )(notices)
