"""Making a group's folder on this computer: by founding the group, or by preparing to join one with a ticket."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import SystemRandom

import msgspec

from colla.agents.requests import JoinGroup
from colla.client.folders import LEFT_FOLDER, groups
from colla.kernel.durable import Durable
from colla.kernel.time import Instant
from colla.model.contribution import Contribution, check_contribution
from colla.model.errors import UNDECODABLE, CollaError
from colla.model.ids import GroupId
from colla.model.record import TOPIC_MEMBERSHIP, SignedRecord, open_record
from colla.node.disk import disk_errors, sync_folder
from colla.node.settings import (
    DEFAULT_GATEWAY_PORT,
    MEMBER_KEY,
    NODE_KEY,
    Peer,
    Settings,
    make_key,
    read_settings,
    write_bytes,
    write_settings,
)
from colla.protocol.membership.bodies import check_label
from colla.protocol.membership.founding import found
from colla.protocol.membership.tickets import TicketText, read_ticket
from colla.protocol.records.book import slot_of
from colla.protocol.views import Election

FOUNDING = "founding.msgpack"
"""The founder's first records: kept beside the database, so that a damaged database does not lose the group."""

CUT_OFF_PREFIX = ".new-"
CUT_OFF_AFTER_S = 3600.0
SAME_NAMES_MAX = 100


def found_group(
    home: Path,
    name: str,
    election: str,
    member_name: str,
    node_name: str,
    contribution: Contribution,
    port: int = 0,
    gateway_port: int | None = None,
    lan_discovery: bool = True,
) -> Path:
    """Found a group and return its folder. Raises `CollaError` (`bad_name`, `group_exists`); leaves nothing behind."""
    check_label("group", name)
    check_label("member", member_name)
    check_label("computer", node_name)
    check_contribution(contribution)
    if name == LEFT_FOLDER:
        raise CollaError(
            "bad_name", f"{name!r} is where a computer keeps groups that it left.", "Choose another name."
        )
    with _new_folder(home, name) as folder:
        member, node = make_key(folder, MEMBER_KEY), make_key(folder, NODE_KEY)
        founded = found(
            name,
            Election(election),
            member,
            node,
            member_name,
            node_name,
            SystemRandom(),
            Instant(time.monotonic(), time.time()),
        )
        signed = [record.signed for record in founded.records]
        write_bytes(folder / FOUNDING, msgspec.msgpack.encode(signed))
        settings = Settings(
            group=founded.group.hex(),
            group_name=name,
            node_name=node_name,
            member_name=member_name,
            port=port,
            gateway_port=_free_gateway_port(home) if gateway_port is None else gateway_port,
            gateway_port_fixed=gateway_port is not None,
            lan_discovery=lan_discovery,
            contribution=contribution,
        )
        write_settings(folder, settings)
    return home / name


def prepare_join(
    home: Path,
    ticket_text: str,
    member_name: str,
    node_name: str,
    contribution: Contribution,
    port: int = 0,
    gateway_port: int | None = None,
    lan_discovery: bool = True,
) -> Path:
    """Make the folder of a node that will ask to be let in when it starts; returns it.

    Where an earlier attempt to join this group was cut off, its folder and keys are used again, with this ticket.
    Raises `CollaError`: what is wrong with the ticket, `bad_name`, `bad_contribution`, or `already_joined` when this
    computer is in that group already. An expired ticket is refused here, before anything is made.
    """
    ticket = read_ticket(ticket_text)
    if ticket.expires_s < time.time():
        raise CollaError("ticket_expired", "The ticket has expired.", "Ask for a new one: `colla invite`.")
    check_label("group", ticket.group_name)
    check_label("computer", node_name)
    if not ticket.own_computer:
        check_label("member", member_name)
    check_contribution(contribution)
    settings = Settings(
        group=ticket.group.hex(),
        group_name=ticket.group_name,
        node_name=node_name,
        member_name=member_name,
        port=port,
        gateway_port=_free_gateway_port(home, ticket.group.hex()) if gateway_port is None else gateway_port,
        gateway_port_fixed=gateway_port is not None,
        lan_discovery=lan_discovery,
        ticket="".join(ticket_text.split()),
        peers=_peers(ticket),
        contribution=contribution,
    )
    unfinished = _unfinished(home, settings.group)
    if unfinished is not None:
        write_settings(unfinished, settings)
        return unfinished
    name = _free_name(home, ticket.group_name)
    with _new_folder(home, name) as folder:
        make_key(folder, MEMBER_KEY)
        make_key(folder, NODE_KEY)
        write_settings(folder, settings)
    return home / name


def add_founding(folder: Path, group: GroupId, durable: Durable) -> None:
    """Add the founder's first records, if this node founded the group, to what the database has.

    Raises `CollaError("damaged")`: without them a group whose only computer this is would be lost in silence.
    """
    path = folder / FOUNDING
    if not path.exists():
        return
    try:
        records = msgspec.msgpack.decode(path.read_bytes(), type=list[SignedRecord])
        for signed in records:
            open_record(group, signed)
    except (*UNDECODABLE, ValueError):
        raise CollaError(
            "damaged",
            f"{path} is damaged.",
            "Restore it from a backup. Where the group has other computers: put it and group.db away, start, and "
            "`colla connect` to one of them.",
        ) from None
    for signed in records:
        durable.records.setdefault((TOPIC_MEMBERSHIP, slot_of(signed)), signed)


def join_request(settings: Settings, member_seed: bytes) -> JoinGroup:
    """What the node asks when it starts with a ticket in its settings."""
    return JoinGroup(settings.ticket, member_seed, settings.member_name, settings.node_name)


def has_expired(settings: Settings) -> bool:
    """Whether the ticket in the settings has, by this computer's clock."""
    return read_ticket(settings.ticket).expires_s < time.time()


def _peers(ticket: TicketText) -> tuple[Peer, ...]:
    return tuple(Peer(contact.node.hex(), contact.addresses) for contact in ticket.contacts)


def _unfinished(home: Path, group: str) -> Path | None:
    """The folder of an attempt to join this group that nobody answered. Raises `CollaError("already_joined")`."""
    for folder in groups(home):
        try:
            settings = read_settings(folder)
        except CollaError:
            continue  # Another group's settings, damaged or not, are no matter of this one.
        if settings.group != group:
            continue
        if not settings.ticket:
            raise CollaError(
                "already_joined",
                f"This computer is in the group {settings.group_name} already, in {folder}.",
                "`colla up` starts its node, `colla status` asks it.",
            )
        return folder
    return None


def _free_gateway_port(home: Path, group: str = "") -> int:
    """The default port, or the next one that no other group of this computer has: each keeps its own for good."""
    taken: dict[int, None] = {}
    for folder in groups(home):
        # Another group's settings, damaged or not, are no matter of this one.
        with contextlib.suppress(CollaError):
            settings = read_settings(folder)
            if settings.group != group:
                taken[settings.gateway_port] = None
    return next(
        port for port in range(DEFAULT_GATEWAY_PORT, DEFAULT_GATEWAY_PORT + 1000) if port not in taken
    )


def _free_name(home: Path, name: str) -> str:
    """The group's name, with a number when another group here is called so."""
    for number in range(1, SAME_NAMES_MAX + 1):
        numbered = name if number == 1 else f"{name}-{number}"
        if numbered != LEFT_FOLDER and not (home / numbered).exists():
            return numbered
    raise CollaError(
        "group_exists", f"This computer has too many groups called {name!r}.", "Leave one first."
    )


@contextlib.contextmanager
def _new_folder(home: Path, name: str) -> Iterator[Path]:
    """A folder to fill, which then appears under its name as a whole, or not at all."""
    folder = home / name
    if folder.exists():
        raise _group_exists(folder)
    try:
        home.mkdir(parents=True, exist_ok=True)
        _clear_cut_off(home)
        fresh = Path(tempfile.mkdtemp(prefix=CUT_OFF_PREFIX, dir=home))
    except OSError as error:
        raise CollaError(
            "bad_home", f"{folder} cannot be made: {error.strerror}.", "Choose another folder with --home."
        ) from None
    try:
        yield fresh
        try:
            fresh.rename(folder)
        except OSError:
            if folder.exists():
                raise _group_exists(folder) from None  # Somebody else was faster.
            raise
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    with disk_errors(home):
        sync_folder(home)


def _group_exists(folder: Path) -> CollaError:
    return CollaError(
        "group_exists",
        f"This computer has a group called {folder.name!r} already, in {folder}.",
        "`colla up` starts its node. For another group, choose another name, or another folder with --home.",
    )


def _clear_cut_off(home: Path) -> None:
    """Remove what founding or joining left here when it was killed; not what another process makes right now."""
    for left in home.glob(f"{CUT_OFF_PREFIX}*"):
        if time.time() - left.stat().st_mtime > CUT_OFF_AFTER_S:
            shutil.rmtree(left, ignore_errors=True)
