"""One program with its bridge: what the process environment knows of a replica, from its launch to its end.

The bridge's notes tell what happened; which processes it consists of is known by process id, boot and start time, so that a
replica is the same one after a restart of the environment.
"""

from __future__ import annotations

import asyncio
import codecs
import os
import re
import signal as signals
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Final

import msgspec
import psutil

from colla.environments import processes
from colla.environments.cgroups import Group
from colla.environments.driver import fault
from colla.environments.folders import Place
from colla.environments.health import until_answered
from colla.environments.notes import Notes, read_notes
from colla.environments.processes import Identity
from colla.environments.protocol import (
    ExecOutput,
    ExecRequest,
    Exit,
    LimitName,
    ReplicaSignal,
    ReplicaSpec,
    ReplicaStats,
    StopSignal,
)

NOTES_POLL_S: Final = 0.005
"""How often a starting replica's notes are read; nothing is polled once it is ready."""
EXEC_PIECE_BYTES: Final = 16 << 10
TRAILER_BYTES_MAX: Final = 8
"""A zero byte, an exit code, a line's end: kept back until it is clear that nothing follows."""
CODE: Final = re.compile(rb"-?\d{1,3}")
LAUNCH_ERRORS: Final = "launch.err"


class Handle(msgspec.Struct, frozen=True, kw_only=True):
    """What finds a replica again: the outer process and the bridge (the same one without a sandbox)."""

    outer: Identity
    bridge: Identity


class ProcessReplica:
    """One program with its bridge."""

    def __init__(
        self,
        spec: ReplicaSpec,
        place: Place,
        handle: Handle,
        group: Group,
        limits: tuple[LimitName, ...],
        child: subprocess.Popen[bytes] | None,
        release: Callable[[], None],
    ) -> None:
        self.handle = msgspec.json.encode(handle).decode()
        self.limits_enforced = limits
        self._spec = spec
        self._place = place
        self._processes = handle
        self._group = group
        self._child = child
        """The outer process where it is our own child and has to be waited for; None after a recovery."""
        self._release = release
        """Gives back what is shared with other replicas, once this one has ended."""
        self._stop_requested = False

    async def until_listening(self) -> None:
        """By the bridge's notes. With LISTEN_FDS the listener is there from the start, as systemd has it; where
        that is only one of the ways (auto), a program that uses it is known by its answering a request."""
        if self._spec.listen == "fds":
            await self._until_note(lambda notes: notes.program is not None)
            return
        ways = [asyncio.ensure_future(self._until_note(lambda notes: notes.listening is not None))]
        if self._spec.listen == "auto":
            ways.append(
                asyncio.ensure_future(until_answered(self._place.endpoint, self._spec.health.path or "/"))
            )
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()

    async def _until_note(self, wanted: Callable[[Notes], bool]) -> None:
        while not wanted(read_notes(self._place.status)):  # noqa: ASYNC110 - another process writes them
            await asyncio.sleep(NOTES_POLL_S)

    async def until_exit(self) -> Exit:
        await processes.until_ended(self._processes.bridge)
        await self._kill()
        if self._child is not None:
            await asyncio.to_thread(self._child.wait)
        exit = self._describe_exit()
        await asyncio.to_thread(self._group.remove)
        await asyncio.to_thread(self._release)
        return exit

    def _describe_exit(self) -> Exit:
        notes = read_notes(self._place.status)
        if self._group.ran_out_of_memory():
            return Exit(
                reason="out_of_memory",
                code=notes.exited,
                signal=notes.signal,
                message="It needed more memory than it may have.",
            )
        if notes.overfull is not None:
            message = f"It was ended, since {notes.overfull}."
            return Exit(reason="killed", code=notes.exited, signal=notes.signal, message=message)
        if notes.failed is not None:
            return Exit(reason="not_started", message=f"It could not be started: {notes.failed}")
        if self._stop_requested:
            return Exit(reason="stopped", code=notes.exited, signal=notes.signal)
        if notes.program is None:
            return Exit(
                reason="not_started", message=f"The sandbox could not be made: {self._launch_error()}"
            )
        if not notes.ended and self._child is None:
            return Exit(reason="lost", message="It ended while nobody watched, with its computer perhaps.")
        if not notes.ended:
            return Exit(reason="killed", message="Its bridge was killed from outside.")
        if notes.signal is not None:
            name = signals.Signals(notes.signal).name
            return Exit(reason="killed", signal=notes.signal, message=f"It was ended by {name}.")
        return Exit(reason="exited", code=notes.exited, message=f"It ended with code {notes.exited}.")

    def _launch_error(self) -> str:
        try:
            return (self._place.path / LAUNCH_ERRORS).read_text(errors="replace").strip()[
                -500:
            ] or "no reason given"
        except OSError:
            return "no reason given"

    async def stop(self, signal: StopSignal, grace_s: float) -> None:
        self._stop_requested = True
        bridge_process = self._processes.bridge
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                # Before that note the bridge would not pass the signal on.
                ready = asyncio.ensure_future(self._until_note(lambda notes: notes.program is not None))
                ended = asyncio.ensure_future(processes.until_ended(bridge_process))
                try:
                    await asyncio.wait([ready, ended], return_when=asyncio.FIRST_COMPLETED)
                    if bridge_process.lives():
                        with suppress(ProcessLookupError):
                            os.kill(bridge_process.pid, signals.Signals[signal])
                    await ended
                finally:
                    ready.cancel()
                    ended.cancel()
        await self._kill()

    async def _kill(self) -> None:
        """Whatever is left of it. In a sandbox everything ends with the bridge, its first process."""
        await asyncio.to_thread(self._kill_now)

    def _kill_now(self) -> None:
        contained = self._processes.outer != self._processes.bridge
        if contained:
            processes.kill(self._processes.bridge)
        else:
            processes.kill_tree(self._processes.bridge)
        self._group.kill()
        if contained:
            processes.kill_tree(self._processes.outer)

    async def signal(self, signal: ReplicaSignal) -> None:
        """The bridge passes it on."""
        if self._processes.bridge.lives():
            with suppress(ProcessLookupError):
                os.kill(self._processes.bridge.pid, signals.Signals[signal])

    async def exec(self, request: ExecRequest) -> AsyncIterator[ExecOutput]:
        """By the bridge, which sends what the command writes and last its code behind a zero byte."""
        try:
            reader, writer = await asyncio.open_unix_connection(self._place.control)
        except OSError as error:
            raise fault("exec_failed", f"The replica takes no commands: {error.strerror}.") from None
        try:
            writer.write(msgspec.json.encode(request) + b"\n")
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            held = b""
            while data := await reader.read(EXEC_PIECE_BYTES):
                held += data
                zero = held.rfind(b"\0", max(0, len(held) - TRAILER_BYTES_MAX))
                piece, held = (held, b"") if zero < 0 else (held[:zero], held[zero:])
                if text := decoder.decode(piece):
                    yield ExecOutput(text=text)
            code = held.removeprefix(b"\0").strip()
            if not CODE.fullmatch(code):
                raise fault(
                    "exec_failed", "It was cut off: too many commands run at once, or the replica ended."
                )
            yield ExecOutput(text=decoder.decode(b"", final=True), code=int(code))
        finally:
            writer.close()

    async def check_problem(self) -> str:
        """As the bridge noted it, which runs the command."""
        found = read_notes(self._place.status).check
        return "the command that checks it has not ended yet" if found is None else found

    def why_not_listening(self) -> str:
        notes = read_notes(self._place.status)
        if notes.program is None:
            return "it did not even start"
        return f"nothing listens on $PORT ({notes.port}), on $COLLA_SOCKET or answers on LISTEN_FDS"

    def stats(self) -> ReplicaStats:
        cpu, memory = self._group.usage()
        below = processes.tree(self._processes.outer)
        if cpu is None or memory is None:
            seconds, resident = 0.0, 0
            for process in below:
                with suppress(psutil.Error):
                    times = process.cpu_times()
                    seconds += times.user + times.system
                    resident += process.memory_info().rss
            cpu, memory = (seconds if cpu is None else cpu), (resident if memory is None else memory)
        return ReplicaStats(
            replica=self._spec.replica, cpu_seconds=cpu, memory_bytes=memory, processes=len(below)
        )
