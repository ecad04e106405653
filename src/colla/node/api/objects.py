"""Routes about objects: the group's files, and what is under way with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from colla.client import types
from colla.model.errors import CollaError
from colla.model.ids import MemberId, ObjectId
from colla.node.api.routes import WRITE_ERRORS, Call, Route, object_id
from colla.node.files import GetOrder, PutOrder, Transfer, is_left_out
from colla.protocol.naming.names import NOTHING, Entry, Version


async def _put(call: Call[types.PutRequest]) -> types.PutAnswer:
    body = call.body
    order = PutOrder(
        _absolute(body.path),
        body.name,
        body.sealed_for if body.sealed else None,
        body.replace,
        _expected(body.expected),
        # What belongs to a program but not to the service that it is stays at home; a person's files are put whole.
        None if body.name else is_left_out,
        body.transfer,
    )
    if body.sealed and not body.name:
        raise CollaError("bad_request", "Only what gets a name can be sealed: services must be readable.")
    done = await call.node.files.put(order)
    return types.PutAnswer(
        done.stored.object.hex(),
        done.stored.content_bytes,
        done.placed.copies,
        done.placed.wanted,
        done.placed.reasons,
        body.name,
        done.stored.files,
        done.records,
    )


async def _get(call: Call[types.GetRequest]) -> types.GetAnswer:
    body = call.body
    target = _absolute(body.target)
    wanted = object_id(body.object) if body.object else NOTHING
    version = await call.node.files.get(GetOrder(body.name, target, wanted, body.replace, body.transfer))
    assert version.named is not None
    return types.GetAnswer(
        body.name,
        version.object.hex(),
        str(target),
        version.named.size_bytes,
        version.named.files,
        version.named.folder,
        _member(call, version.member),
        version.written_s,
    )


async def _list(call: Call[types.ListRequest]) -> tuple[types.ObjectReport, ...]:
    body = call.body
    entries: list[Entry] = []
    for entry in call.node.core.foundation.names.entries(body.prefix):
        if entry.path > body.after or not body.after:
            entries.append(entry)
        if len(entries) >= body.limit:
            break
    shown = [(entry, version) for entry in entries if (version := _shown(entry)) is not None]
    counted = await call.node.files.count([version.object for _, version in shown])
    return tuple(_report(call, entry, version, counted) for entry, version in shown)


def _shown(entry: Entry) -> Version | None:
    """The version that stands for the entry: of a removed one with a conflict, what was not removed."""
    return next((one for one in (entry.current, *entry.conflicts) if one.named is not None), None)


def _report(
    call: Call[Any], entry: Entry, version: Version, counted: dict[ObjectId, Any]
) -> types.ObjectReport:
    named = version.named
    assert named is not None
    repositories = call.node.core.foundation.repositories_for(version.object)
    holders = counted.get(version.object, ())
    sealing = named.sealing
    return types.ObjectReport(
        name=entry.path,
        object=version.object.hex(),
        size_bytes=named.size_bytes,
        files=named.files,
        folder=named.folder,
        owner=_member(call, version.member),
        written_s=version.written_s,
        copies=sum(node in repositories for node in holders),
        wanted=min(call.node.core.config.copies.copies, len(repositories)),
        sealed=sealing is not None,
        sealed_for=tuple(_member(call, one) for one in sealing.members) if sealing is not None else (),
        readable=call.node.files.readable(version),
        conflicts=len(entry.conflicts),
    )


async def _versions(call: Call[types.VersionsRequest]) -> tuple[types.VersionReport, ...]:
    entry = call.node.files.entry(call.body.name)
    standings = [
        ("current", entry.current),
        *(("conflict", version) for version in entry.conflicts),
        *(("earlier", version) for version in entry.earlier),
    ]
    counted = await call.node.files.count([one.object for _, one in standings if one.named is not None])
    reports = []
    for standing, version in standings:
        named = version.named
        report = types.VersionReport(
            standing=standing,
            object=version.object.hex(),
            owner=_member(call, version.member),
            computer=call.node.core.node_name(version.node),
            written_s=version.written_s,
        )
        if named is not None:
            report = types.VersionReport(
                standing=standing,
                object=version.object.hex(),
                owner=report.owner,
                computer=report.computer,
                written_s=version.written_s,
                size_bytes=named.size_bytes,
                files=named.files,
                folder=named.folder,
                sealed=named.sealing is not None,
                readable=call.node.files.readable(version),
                copies=len(counted.get(version.object, ())),
            )
        reports.append(report)
    return tuple(reports)


async def _remove(call: Call[types.RemoveRequest]) -> types.NamedAnswer:
    body = call.body
    done = await call.node.files.remove(body.name, replace=body.replace, expected=_expected(body.expected))
    return types.NamedAnswer(done.path, done.copies)


async def _share(call: Call[types.ShareRequest]) -> types.NamedAnswer:
    done = await call.node.files.share(call.body.name, call.body.members)
    return types.NamedAnswer(done.path, done.copies)


async def _check(call: Call[types.CheckRequest]) -> types.CheckAnswer:
    checked = await call.node.files.check(call.body.transfer)
    return types.CheckAnswer(checked.chunks, checked.size, checked.damaged)


async def _transfers(call: Call[None]) -> tuple[types.TransferReport, ...]:
    running = call.node.files.transfers.running()
    return tuple(_transfer(call, one, name) for one in running for name in (one.id, *one.also))


def _transfer(call: Call[Any], transfer: Transfer, name: str) -> types.TransferReport:
    placing = call.node.core.objects.progress(transfer.object) if transfer.object else None
    if placing is None:
        return types.TransferReport(
            name,
            transfer.kind,
            transfer.name,
            transfer.phase,
            transfer.done_bytes,
            transfer.total_bytes,
        )
    return types.TransferReport(
        name,
        transfer.kind,
        transfer.name,
        transfer.phase,
        placing.kept * placing.size_bytes + sum(placing.done_bytes),
        placing.wanted * placing.size_bytes,
        placing.kept,
        placing.wanted,
    )


async def _stop_transfer(call: Call[None]) -> dict[str, str]:
    await call.node.files.transfers.stop(call.path["id"])
    return {}


def _absolute(text: str) -> Path:
    path = Path(text)
    if not path.is_absolute() or "\0" in text:
        raise CollaError("bad_request", "The path must be absolute: the node has another working folder.")
    return path


def _expected(text: str | None) -> ObjectId | None:
    return None if text is None else object_id(text) if text else NOTHING


def _member(call: Call[Any], member: MemberId) -> str:
    info = call.node.core.membership.member(member)
    return info.name if info is not None else member.hex()[:10]


ROUTES: Final[tuple[Route[Any, Any], ...]] = (
    Route(
        "GET",
        "objects",
        "The group's files: named objects with owner, size, copies and time.",
        _list,
        tuple[types.ObjectReport, ...],
        types.ListRequest,
    ),
    Route(
        "POST",
        "objects",
        "Store a folder or file of this computer as an object, with copies on repository agents.",
        _put,
        types.PutAnswer,
        types.PutRequest,
        ("not_found", "disk_full", "name_taken", "not_allowed", *WRITE_ERRORS),
    ),
    Route(
        "DELETE",
        "objects",
        "Remove a name; what it leads to is forgotten when nothing else refers to it.",
        _remove,
        types.NamedAnswer,
        types.RemoveRequest,
        ("not_found", "name_taken", "not_allowed", *WRITE_ERRORS),
    ),
    Route(
        "POST",
        "objects/get",
        "Write a named object to a file or folder of this computer.",
        _get,
        types.GetAnswer,
        types.GetRequest,
        ("not_found", "disk_full"),
    ),
    Route(
        "GET",
        "objects/versions",
        "All versions of a name: the current one, concurrent ones that lost, earlier ones of other computers.",
        _versions,
        tuple[types.VersionReport, ...],
        types.VersionsRequest,
        ("not_found",),
    ),
    Route(
        "POST",
        "objects/share",
        "Let further members read a sealed object.",
        _share,
        types.NamedAnswer,
        types.ShareRequest,
        ("not_found", *WRITE_ERRORS),
    ),
    Route(
        "POST",
        "objects/check",
        "Read everything that is stored on this computer now; damage is mended from other computers.",
        _check,
        types.CheckAnswer,
        types.CheckRequest,
    ),
    Route(
        "GET",
        "transfers",
        "Puts, gets and checks under way on this computer.",
        _transfers,
        tuple[types.TransferReport, ...],
    ),
    Route(
        "DELETE",
        "transfers/{id}",
        "Stop a transfer. Asked for again, it goes on where it stopped.",
        _stop_transfer,
        dict[str, str],
        errors=("not_found",),
    ),
)
