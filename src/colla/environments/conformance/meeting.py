"""Checks: how an environment introduces itself, and how it speaks HTTP."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import msgspec

from colla.environments.conformance.checks import Checks, expect, refused, require
from colla.environments.conformance.subject import PATIENCE_S, Subject
from colla.environments.protocol import (
    BODY_BYTES_MAX,
    CALLS,
    CAPABILITIES,
    PROTOCOL_VERSION,
    EnvironmentInfo,
    Problem,
)

CHECKS = Checks()


@CHECKS.declare()
async def handshake(subject: Subject) -> None:
    """It prints one handshake, keeps the same in program.json while it lives, and serves the socket that this names."""
    told = subject.handshake
    require(told.colla_environment >= PROTOCOL_VERSION, f"it speaks version {told.colla_environment}")
    expect(told.kind, subject.client.info.kind, "the kind in the handshake")
    require(Path(told.socket).is_absolute(), f"{told.socket} is no absolute path")
    os.kill(told.pid, 0)


@CHECKS.declare()
async def info(subject: Subject) -> None:
    """Its info has a common version, claims only capabilities that exist, and names the limits that it really enforces."""
    _, _, raw = await subject.ask("GET", "/v1/info")
    told = msgspec.json.decode(raw, type=EnvironmentInfo)
    require(PROTOCOL_VERSION in told.protocol_versions, f"no common version in {told.protocol_versions}")
    require(told.kind and told.version and told.instance, "kind, version or instance is empty")
    unknown = [name for name in told.capabilities if name not in CAPABILITIES and not name.startswith("x-")]
    require(not unknown, f"no capabilities of the protocol (begin your own with x-): {', '.join(unknown)}")
    require(told.artifact_kinds, "it names no artifact kinds")
    expect(told.config_schema.get("type"), "object", "the type of the configuration's schema")


@CHECKS.declare()
async def health(subject: Subject) -> None:
    """It says that it is healthy."""
    told = await subject.client.health()
    require(told.healthy, f"it says that it is not: {told.message}")


@CHECKS.declare()
async def private(subject: Subject) -> None:
    """Nobody but its owner can reach its socket, the replicas' sockets or the folder in which they are."""
    spec = subject.spec()
    await subject.ready(spec)
    paths = [subject.runtime, Path(subject.handshake.socket)]
    for status in await subject.client.list():
        paths += [Path(path)] if (path := getattr(status.endpoint, "path", "")) else []
    for path in paths:
        open_to = stat.S_IMODE(path.stat().st_mode) & 0o077
        folder = stat.S_IMODE(path.parent.stat().st_mode) & 0o077
        require(not open_to or not folder, f"{path} is open to others ({oct(open_to)})")
    await subject.client.delete(spec.replica_id)


@CHECKS.declare()
async def json_everywhere(subject: Subject) -> None:
    """Answers are application/json, streams application/x-ndjson, and errors a Problem with code and message."""
    for path in ("/v1/info", "/v1/health", "/v1/replicas"):
        status, kind, _ = await subject.ask("GET", path)
        expect((status, kind), (200, "application/json"), f"GET {path}")
    wrong = [
        ("GET", "/v1/replicas/" + "0" * 32, None, 404),
        ("GET", "/v1/nothing", None, 404),
        ("POST", "/v1/replicas", b"{", 400),
        ("POST", "/v1/replicas", b'{"spec": 7}', 400),
        ("POST", "/v1/replicas", b"[]", 400),
    ]
    for method, path, body, wanted in wrong:
        status, kind, raw = await subject.ask(method, path, body)
        expect((status, kind), (wanted, "application/json"), f"{method} {path} with {body!r}")
        problem = msgspec.json.decode(raw, type=Problem)
        require(problem.code and problem.message, f"{method} {path}: a problem without code or message")


@CHECKS.declare()
async def bounded_bodies(subject: Subject) -> None:
    """A body above 1 MiB is refused, without being kept."""
    body = b'{"spec": "' + b"x" * (BODY_BYTES_MAX + 1) + b'"}'
    try:
        status, _, _ = await subject.ask("POST", "/v1/replicas", body)
    except OSError:
        return  # It hung up while the body came, which refuses it as well.
    require(status in (400, 413), f"it answered {status}")


@CHECKS.declare()
async def newer_fields(subject: Subject) -> None:
    """Fields that it does not know are ignored: they are what a newer agent says."""
    spec = subject.spec()
    asked = msgspec.to_builtins({"spec": spec, "allow_unsandboxed": True})
    asked["from_the_future"] = asked["spec"]["from_the_future"] = {"a": 1}
    status, _, raw = await subject.ask("POST", "/v1/replicas", msgspec.json.encode(asked))
    expect(status, 200, f"the status ({raw.decode(errors='replace')})")
    await subject.client.delete(spec.replica_id)


@CHECKS.declare()
async def what_is_not_claimed(subject: Subject) -> None:
    """A call whose capability it does not claim is refused as not supported or unknown, or answered; it never breaks it."""
    claimed = subject.client.info.capabilities
    for call in CALLS.values():
        if call.capability and call.capability not in claimed:
            path = call.path.replace("{replica}", "0" * 32)
            status, _, raw = await subject.ask(call.method, path, b"{}" if call.body else None)
            if status >= 400:
                code = msgspec.json.decode(raw, type=Problem).code
                allowed = ("not_supported", "call_unknown", "replica_unknown", "body_malformed")
                require(code in allowed, f"{call.name} is refused with {code}, not with not_supported")
    require((await subject.client.health()).healthy, "it is not healthy any more")


@CHECKS.declare()
async def one_program_per_folder(subject: Subject) -> None:
    """A second program in the same runtime folder ends by itself with an error, and the first one goes on."""
    instance = subject.client.info.instance
    second = await asyncio.create_subprocess_exec(
        *subject.program,
        "--runtime",
        str(subject.runtime),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            code = await second.wait()
    except TimeoutError:
        second.kill()
        await second.wait()
        raise AssertionError("the second program goes on beside the first") from None
    require(code != 0, "the second program says that all went well")
    other = await subject.another_client()
    expect(other.info.instance, instance, "the instance that answers")
    await other.detach()


@CHECKS.declare()
async def consent(subject: Subject) -> None:
    """An environment without isolation says so, and starts nothing unless the owner of the computer agreed."""
    told = subject.client.info
    expect(bool(told.needs_consent), told.isolation == "none", "whether it asks for the owner's consent")
    if told.needs_consent:
        client = await subject.another_client()
        client.allow_unsandboxed = False
        await refused(client.start(subject.spec()), "consent_needed")
        await client.detach()
