"""Making a group's folder on this computer: by founding the group, or by preparing to join one with a ticket."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from random import SystemRandom

import msgspec

from colla.agents.requests import JoinGroup
from colla.kernel.durable import Durable
from colla.kernel.time import Instant
from colla.model.contribution import Contribution, check_contribution
from colla.model.errors import UNDECODABLE, CollaError
from colla.model.record import TOPIC_MEMBERSHIP, SignedRecord
from colla.node.settings import (
    DEFAULT_GATEWAY_PORT,
    MEMBER_KEY,
    NODE_KEY,
    Peer,
    Settings,
    make_key,
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
    folder = _new_folder(home, name)
    try:
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
            gateway_port=DEFAULT_GATEWAY_PORT if gateway_port is None else gateway_port,
            gateway_port_fixed=gateway_port is not None,
            lan_discovery=lan_discovery,
            contribution=contribution,
        )
        write_settings(folder, settings)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


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

    Raises `CollaError`: what is wrong with the ticket, `bad_name`, or `group_exists` when this computer is in that
    group already. An expired ticket is refused here, before anything is made.
    """
    ticket = read_ticket(ticket_text)
    if ticket.expires_s < time.time():
        raise CollaError("ticket_expired", "The ticket has expired.", "Ask for a new one: `colla invite`.")
    check_label("computer", node_name)
    if not ticket.own_computer:
        check_label("member", member_name)
    check_contribution(contribution)
    folder = _new_folder(home, ticket.group_name)
    try:
        make_key(folder, MEMBER_KEY)
        make_key(folder, NODE_KEY)
        settings = Settings(
            group=ticket.group.hex(),
            group_name=ticket.group_name,
            node_name=node_name,
            member_name=member_name,
            port=port,
            gateway_port=DEFAULT_GATEWAY_PORT if gateway_port is None else gateway_port,
            gateway_port_fixed=gateway_port is not None,
            lan_discovery=lan_discovery,
            ticket="".join(ticket_text.split()),
            peers=_peers(ticket),
            contribution=contribution,
        )
        write_settings(folder, settings)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def add_founding(folder: Path, durable: Durable) -> None:
    """Add the founder's first records, if this node founded the group, to what the database has."""
    path = folder / FOUNDING
    if not path.exists():
        return
    try:
        records = msgspec.msgpack.decode(path.read_bytes(), type=list[SignedRecord])
    except UNDECODABLE:
        raise CollaError("damaged", f"{path} is damaged.", "Restore it from a backup.") from None
    for signed in records:
        durable.records.setdefault((TOPIC_MEMBERSHIP, slot_of(signed)), signed)


def join_request(settings: Settings, member_seed: bytes) -> JoinGroup:
    """What the node asks when it starts with a ticket in its settings."""
    return JoinGroup(settings.ticket, member_seed, settings.member_name, settings.node_name)


def _peers(ticket: TicketText) -> tuple[Peer, ...]:
    return tuple(Peer(contact.node.hex(), contact.addresses) for contact in ticket.contacts)


def _new_folder(home: Path, name: str) -> Path:
    folder = home / name
    try:
        home.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
    except FileExistsError:
        raise CollaError(
            "group_exists",
            f"This computer has a group called {name!r} already, in {folder}.",
            "Choose another name, or another folder with --home.",
        ) from None
    except OSError as error:
        raise CollaError(
            "bad_home", f"{folder} cannot be made: {error.strerror}.", "Choose another folder with --home."
        ) from None
    return folder
