"""From what an owner says to what a computer gives.

The options of `group create`, `join` and `contribute`, what is reasonable for a computer, and the questions for a
person who joins. Invariant: only what the owner named changes; a node always carries the user agent, its owner's
own door.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
import psutil
import typer

from colla.cli.formats import GIB, list_text, parse_pairs, parse_size, size_text
from colla.cli.output import Output
from colla.model.contribution import ALL_AGENTS, GIVES_NOTHING, AgentKind, Contribution, gives_all
from colla.model.service import KIND_PATTERN
from colla.model.willing import ISOLATIONS

DISK_BYTES_REASONABLE = 10_000_000_000
BUILT_IN = ("static", "process", "wasm", "container")
PANEL = "What this computer gives"
EVERYBODY, NONE = "everybody", "none"


class Computer(msgspec.Struct, frozen=True):
    """What this computer has, as far as it matters for what is reasonable to give."""

    cpus: int
    memory_bytes: int
    disk_free_bytes: int
    disk_bytes: int
    sandbox: bool
    """Whether programs of others can be kept in bubblewrap."""
    webassembly: bool = False


@dataclass(frozen=True)
class Gives:
    """The options; None means that the owner said nothing about it."""

    give: Annotated[
        str | None,
        typer.Option(
            "--give",
            help="all (what is reasonable), nothing, or agents: executor,repository,…",
            rich_help_panel=PANEL,
        ),
    ] = None
    agents: Annotated[
        str | None,
        typer.Option("--agents", help="Exactly these agents, comma-separated.", rich_help_panel=PANEL),
    ] = None
    cpus: Annotated[
        float | None,
        typer.Option("--cpus", min=0.0, help="Cores for replicas, as 1.5.", rich_help_panel=PANEL),
    ] = None
    memory: Annotated[
        str | None, typer.Option("--memory", help="Memory for replicas, as 2GiB.", rich_help_panel=PANEL)
    ] = None
    disk: Annotated[
        str | None,
        typer.Option("--disk", help="Disk for objects and replicas, as 10GB.", rich_help_panel=PANEL),
    ] = None
    environments: Annotated[
        str | None,
        typer.Option(
            "--environments",
            help="What may run: static,process,wasm,container or none.",
            rich_help_panel=PANEL,
        ),
    ] = None
    unsandboxed: Annotated[
        bool | None,
        typer.Option(
            "--unsandboxed/--sandboxed",
            help="Let programs of others run without a sandbox where there is none. Dangerous.",
            rich_help_panel=PANEL,
        ),
    ] = None
    members: Annotated[
        list[str] | None,
        typer.Option(
            "--for", help="Run services of this member only (repeat it), or everybody.", rich_help_panel=PANEL
        ),
    ] = None
    own_only: Annotated[
        bool | None,
        typer.Option("--own-only/--not-own-only", help="Run my own services only.", rich_help_panel=PANEL),
    ] = None
    not_for: Annotated[
        list[str] | None,
        typer.Option(
            "--not-for", help="Never run services of this member (repeat it), or none.", rich_help_panel=PANEL
        ),
    ] = None
    only_label: Annotated[
        list[str] | None,
        typer.Option(
            "--only-label",
            help="Run only services that ask for this label, as gpu=yes, or none.",
            rich_help_panel=PANEL,
        ),
    ] = None
    not_label: Annotated[
        list[str] | None,
        typer.Option(
            "--not-label", help="Never run services that ask for this label, or none.", rich_help_panel=PANEL
        ),
    ] = None
    strangers: Annotated[
        str | None,
        typer.Option(
            "--strangers",
            help="The weakest isolation for services of members whom --for does not name: landlock, bubblewrap, container, "
            "webassembly, nothing-executed; or none.",
            rich_help_panel=PANEL,
        ),
    ] = None
    outgoing: Annotated[
        bool | None,
        typer.Option(
            "--outgoing/--no-outgoing",
            help="Let services that ask for it reach the Internet from here (not this computer, nor its networks).",
            rich_help_panel=PANEL,
        ),
    ] = None
    exec: Annotated[
        bool | None,
        typer.Option(
            "--exec/--no-exec",
            help="Let a service's owner, and administrators, run commands beside its replicas here.",
            rich_help_panel=PANEL,
        ),
    ] = None
    replicas_max: Annotated[
        int | None,
        typer.Option("--replicas-max", min=0, help="At most so many replicas.", rich_help_panel=PANEL),
    ] = None
    label: Annotated[
        list[str] | None,
        typer.Option("--label", help="Where it is, as site=home; `site=` removes it.", rich_help_panel=PANEL),
    ] = None
    gateway: Annotated[
        str | None,
        typer.Option(
            "--gateway",
            help="Serve public services to everybody at ADDRESS:PORT, or none.",
            rich_help_panel=PANEL,
        ),
    ] = None
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            help="Where others reach this computer if it cannot know, as with a forwarded port: NAME or NAME:PORT, "
            "or none.",
            rich_help_panel=PANEL,
        ),
    ] = None
    relay: Annotated[
        str | None,
        typer.Option(
            "--relay",
            help="Carry members' packets where they cannot meet: the URL of this computer, as http://203.0.113.7:3340, "
            "or none.",
            rich_help_panel=PANEL,
        ),
    ] = None

    @property
    def says_something(self) -> bool:
        """Whether the owner decided anything."""
        return self != Gives()


def inspect_computer(home: Path) -> Computer:
    """This computer, with the disk where `home` is."""
    existing = home
    while not existing.exists():
        existing = existing.parent
    disk = shutil.disk_usage(existing)
    return Computer(
        cpus=os.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        disk_free_bytes=disk.free,
        disk_bytes=disk.total,
        sandbox=shutil.which("bwrap") is not None,
        webassembly=importlib.util.find_spec("wasmtime") is not None,
    )


def reasonable(computer: Computer) -> Contribution:
    """All agents, half the cores, a quarter of the memory, 10 GB or a tenth of the free disk, what is safe to run."""
    return gives_all(
        cpus=max(0.5, computer.cpus / 2),
        memory_bytes=computer.memory_bytes // 4,
        disk_bytes=min(DISK_BYTES_REASONABLE, computer.disk_free_bytes // 10),
        environments=safe_environments(computer),
    )


def safe_environments(computer: Computer) -> tuple[str, ...]:
    """What may run code of people one does not know, on this computer. Containers are for the owner to offer."""
    found = {"static": True, "process": computer.sandbox, "wasm": computer.webassembly}
    return tuple(name for name, safe in found.items() if safe)


def decide(gives: Gives, base: Contribution, computer: Computer) -> Contribution:
    """What holds when `base` held before and the owner says `gives`. Raises `typer.BadParameter`."""
    _refuse_more_than_there_is(gives, computer)
    result = _take_preset(gives.give, base, computer)
    if gives.agents is not None:
        result = _with_agents(result, parse_agents(gives.agents), computer)
    changes: dict[str, object] = {
        name: value
        for name, value in (
            ("cpus", gives.cpus),
            ("memory_bytes", _size(gives.memory, "--memory")),
            ("disk_bytes", _size(gives.disk, "--disk")),
            ("environments", _names(gives.environments)),
            ("unsandboxed", gives.unsandboxed),
            ("own_only", gives.own_only),
            ("replicas_max", gives.replicas_max),
            ("gateway", _endpoint(gives.gateway)),
            ("relay", _relay(gives.relay)),
            ("address", _address(gives.address)),
            ("denied_members", _list_or_none(gives.not_for)),
            ("only_labels", _pairs_or_none(gives.only_label, "--only-label")),
            ("denied_labels", _pairs_or_none(gives.not_label, "--not-label")),
            ("strangers", _isolation(gives.strangers)),
            ("outgoing", gives.outgoing),
            ("exec", gives.exec),
        )
        if value is not None
    }
    if gives.members is not None:
        changes["members"] = () if EVERYBODY in gives.members else tuple(gives.members)
    if gives.label is not None:
        changes["labels"] = _labels(result.labels, gives.label)
    return msgspec.structs.replace(result, **changes)


def _refuse_more_than_there_is(gives: Gives, computer: Computer) -> None:
    """What a computer does not have would be promised to services that then starve."""
    for option, given, there_is, shown in (
        ("--cpus", gives.cpus, computer.cpus, f"{computer.cpus} cores"),
        (
            "--memory",
            _size(gives.memory, "--memory"),
            computer.memory_bytes,
            size_text(computer.memory_bytes) + " of memory",
        ),
        (
            "--disk",
            _size(gives.disk, "--disk"),
            computer.disk_bytes,
            size_text(computer.disk_bytes) + " of disk",
        ),
    ):
        # `not <=` also refuses what is no number.
        if given is not None and not given <= there_is:
            raise typer.BadParameter(f"this computer has {shown}", param_hint=option)


def parse_agents(text: str) -> tuple[AgentKind, ...]:
    """Agents from `executor,repository`, in the fixed order and with the user agent. Raises `typer.BadParameter`."""
    known = {str(agent): agent for agent in ALL_AGENTS}
    asked = [name.strip().lower() for name in text.split(",") if name.strip()]
    wrong = [name for name in asked if name not in known and name != "all"]
    if wrong or not asked:
        raise typer.BadParameter(f"{text!r}: the agents are {', '.join(known)} (or all, or nothing)")
    if "all" in asked:
        return ALL_AGENTS
    return tuple(agent for agent in ALL_AGENTS if agent == AgentKind.USER or agent in asked)


def _take_preset(give: str | None, base: Contribution, computer: Computer) -> Contribution:
    if give is None:
        return base
    if give == "all":
        return msgspec.structs.replace(reasonable(computer), labels=base.labels)
    if give == "nothing":
        return msgspec.structs.replace(GIVES_NOTHING, labels=base.labels)
    return _with_agents(base, parse_agents(give), computer)


def _with_agents(base: Contribution, agents: tuple[AgentKind, ...], computer: Computer) -> Contribution:
    """With these agents; what they need and nobody decided yet is taken from what is reasonable."""
    full = reasonable(computer)
    result = msgspec.structs.replace(base, agents=agents)
    if result.carries(AgentKind.EXECUTOR) and not base.carries(AgentKind.EXECUTOR):
        result = msgspec.structs.replace(
            result,
            cpus=base.cpus or full.cpus,
            memory_bytes=base.memory_bytes or full.memory_bytes,
            environments=base.environments or full.environments,
        )
    if result.carries(AgentKind.EXECUTOR) or result.carries(AgentKind.REPOSITORY):
        result = msgspec.structs.replace(result, disk_bytes=base.disk_bytes or full.disk_bytes)
    return result


def _size(text: str | None, option: str) -> int | None:
    if text is None:
        return None
    try:
        return parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _names(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if names == (NONE,):
        return ()
    if not names or not all(KIND_PATTERN.fullmatch(name) for name in names):
        raise typer.BadParameter(
            f"{text!r}: name kinds of environments, as {list_text(BUILT_IN)} (or none)",
            param_hint="--environments",
        )
    return names


def _endpoint(text: str | None) -> str | None:
    if text is None or text == NONE:
        return None if text is None else ""
    address, _, port = text.rpartition(":")
    if not address or not port.isdigit() or not 0 < int(port) < 65536:
        raise typer.BadParameter(f"{text!r} is no ADDRESS:PORT, as 0.0.0.0:8080", param_hint="--gateway")
    return text


def _relay(text: str | None) -> str | None:
    if text is None or text == NONE:
        return None if text is None else ""
    url = urlsplit(text)
    try:
        right = url.scheme == "http" and bool(url.hostname) and bool(url.port)
    except ValueError:
        right = False
    if not right:
        raise typer.BadParameter(
            f"{text!r} is no URL with a port, as http://203.0.113.7:3340", param_hint="--relay"
        )
    return text


def _address(text: str | None) -> str | None:
    """A name or IP address, with or without a port."""
    if text is None or text == NONE:
        return None if text is None else ""
    bare = text.count(":") > 1 and not text.startswith("[")
    name, _, port = (text, "", "") if bare else text.partition("]:" if text.startswith("[") else ":")
    name = name.strip("[]")
    wrong_port = bool(port) and not (port.isdigit() and 0 < int(port) < 65536)
    if not name or wrong_port or any(not (one.isalnum() or one in ".-:_") for one in name):
        raise typer.BadParameter(
            f"{text!r} is no NAME or NAME:PORT, as example.org or 203.0.113.7:4242", param_hint="--address"
        )
    return text


def _labels(held: tuple[tuple[str, str], ...], changes: list[str]) -> tuple[tuple[str, str], ...]:
    try:
        merged = dict(held) | parse_pairs(changes)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--label") from None
    return tuple(sorted((key, value) for key, value in merged.items() if value))


def _list_or_none(names: list[str] | None) -> tuple[str, ...] | None:
    return None if names is None else () if NONE in names else tuple(names)


def _pairs_or_none(texts: list[str] | None, option: str) -> tuple[tuple[str, str], ...] | None:
    if texts is None or NONE in texts:
        return None if texts is None else ()
    try:
        return tuple(sorted(parse_pairs(texts).items()))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _isolation(text: str | None) -> str | None:
    if text is None or text == NONE:
        return None if text is None else ""
    if text not in ISOLATIONS:
        raise typer.BadParameter(f"{text!r}: there are {', '.join(ISOLATIONS)}", param_hint="--strangers")
    return text


def describe(contribution: Contribution) -> list[tuple[str, str]]:
    """What a computer gives, as names and values."""
    whose = "my own services" if contribution.own_only else list_text(contribution.members, "everybody")
    return [
        ("agents", list_text([str(agent) for agent in contribution.agents])),
        ("cpus", f"{contribution.cpus:g}"),
        ("memory", size_text(contribution.memory_bytes)),
        ("disk", size_text(contribution.disk_bytes)),
        ("environments", list_text(contribution.environments)),
        ("unsandboxed", "yes, dangerous" if contribution.unsandboxed else "no"),
        ("runs services of", whose),
        ("never those of", list_text(contribution.denied_members)),
        ("only with labels", list_text([f"{key}={value}" for key, value in contribution.only_labels], "any")),
        ("never with labels", list_text([f"{key}={value}" for key, value in contribution.denied_labels])),
        ("isolates strangers by", contribution.strangers or "anything"),
        ("replicas at most", str(contribution.replicas_max)),
        ("labels", list_text([f"{key}={value}" for key, value in contribution.labels])),
        ("gateway", contribution.gateway or "for this computer only"),
        ("relay", contribution.relay or "no"),
        ("address", contribution.address or "as it finds out itself"),
        ("now", "paused" if contribution.paused else "draining" if contribution.draining else "open"),
    ]


def ask_contribution(out: Output, computer: Computer) -> Contribution:
    """Ask the person who joins what to give; an empty answer gives nothing."""
    full = reasonable(computer)
    out.note(
        "What should this computer give to the group? You can change it at any time with `colla contribute`."
    )
    out.note(
        f"  all      {full.cpus:g} cores, {size_text(full.memory_bytes)} memory, {size_text(full.disk_bytes)} disk, "
        f"runs {list_text(full.environments)}"
    )
    out.note("  choose   say how much of each")
    out.note("  nothing  only use what the group has")
    while True:
        match out.ask_text("all, choose or nothing", "nothing").lower():
            case "nothing":
                return GIVES_NOTHING
            case "all":
                return full
            case "choose":
                return _ask_each(out, full, computer)
            case other:
                out.note(f"{other!r} is none of the three.")


def _ask_each(out: Output, full: Contribution, computer: Computer) -> Contribution:
    while True:
        answers = Gives(
            cpus=_number(out.ask_text("cores", f"{full.cpus:g}")),
            memory=out.ask_text("memory", f"{full.memory_bytes / GIB:.1f}GiB"),
            disk=out.ask_text("disk", f"{full.disk_bytes / 1e9:.1f}GB"),
            environments=out.ask_text("what may run", ",".join(full.environments)),
        )
        try:
            return decide(answers, full, computer)
        except typer.BadParameter as error:
            out.note(error.message)


def _number(text: str) -> float | None:
    try:
        return max(0.0, float(text))
    except ValueError:
        return None
