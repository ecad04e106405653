"""Many cases through an executor, each result kept as soon as it is there: an experiment that can be broken off and resumed.

A *case* is a frozen struct with a `key` that names it among all cases of the experiment; `execute` turns it into a
result, a frozen struct too, and depends on nothing but the case. Results are appended to a file of JSON lines, one
after the other, and flushed to the disk; its first line says which experiment, program and parameters made them.

Invariants: a case whose result is in the file is not run again; a file of other parameters or of another program is
refused, never mixed; a line that was cut off while it was written counts for nothing; results are handed back in the
order of the cases, so that nothing depends on the number of processes or on who was faster.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import msgspec
from blake3 import blake3

import colla
from colla.model.errors import CollaError

LOOK_EVERY_S = 0.2
"""How often it looks whether it should stop, while cases run."""
AHEAD = 2
"""Cases handed out per process: one runs, one waits, so that no process is ever idle and stopping is quick."""
PROGRAM_PARTS = ("model", "kernel", "protocol", "agents", "sim")
"""What decides the outcome of a simulation; another text of any of it is another program."""


class Case(Protocol):
    """What an experiment runs: a frozen struct that can be sent to another process."""

    @property
    def key(self) -> str: ...


C = TypeVar("C", bound=Case)
R = TypeVar("R")


class Heading(msgspec.Struct, frozen=True):
    """The first line of a file of results. `parameters`: all that decides a result besides its case."""

    experiment: str
    program: str
    parameters: dict[str, Any]


class Line(msgspec.Struct, frozen=True):
    """Any other line."""

    key: str
    result: msgspec.Raw


class Outcome(msgspec.Struct, Generic[C, R], frozen=True):
    """What came out, in the order of the cases. `missing` cases were not run: the budget ended, or it was stopped."""

    results: tuple[tuple[C, R], ...]
    missing: int
    resumed: int
    """Results that an earlier run had left in the file."""
    took_s: float

    @property
    def complete(self) -> bool:
        return not self.missing


@cache
def program_version() -> str:
    """The version of colla and the first digits of a hash over the sources that decide a simulation."""
    root = Path(colla.__file__).parent
    hasher = blake3()
    for part in PROGRAM_PARTS:
        for source in sorted((root / part).rglob("*.py")):
            hasher.update(source.relative_to(root).as_posix().encode() + b"\0")
            hasher.update(source.read_bytes() + b"\0")
    return f"{colla.__version__}+{hasher.hexdigest()[:16]}"


def heading(experiment: str, parameters: msgspec.Struct | dict[str, Any]) -> Heading:
    """The heading of an experiment of this program."""
    return Heading(experiment, program_version(), msgspec.to_builtins(parameters))


class ResultFile(Generic[R]):
    """A file of results; None as path keeps them in memory only. Raises `CollaError` as `conduct`."""

    def __init__(self, path: Path | None, heading: Heading, result_type: type[R]) -> None:
        self.results: dict[str, R] = {}
        self._path = path
        self._file: Any = None
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        whole_bytes = self._read(path, heading, result_type) if path.exists() else 0
        self._file = path.open("r+b" if path.exists() else "w+b")
        self._file.truncate(whole_bytes)
        self._file.seek(whole_bytes)
        if not whole_bytes:
            self._write(heading)

    def _read(self, path: Path, heading: Heading, result_type: type[R]) -> int:
        """Take what is there; returns the length of the lines that are whole."""
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        lines = whole.splitlines()
        if not lines:
            return 0
        try:
            _check(path, msgspec.json.decode(lines[0], type=Heading), heading)
            for text in lines[1:]:
                line = msgspec.json.decode(text, type=Line)
                self.results.setdefault(line.key, msgspec.json.decode(line.result, type=result_type))
        except msgspec.DecodeError as error:
            raise CollaError(
                "results_unreadable",
                f"{path} is not a file of results of this experiment: {error}.",
                "Name another file, or remove this one.",
            ) from error
        return len(whole)

    def append(self, key: str, result: R) -> None:
        """Keep a result; it is on the disk when this returns."""
        self.results[key] = result
        if self._file is not None:
            self._write({"key": key, "result": result})

    def _write(self, value: Any) -> None:
        self._file.write(msgspec.json.encode(value) + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _check(path: Path, found: Heading, wanted: Heading) -> None:
    """Raises `CollaError` with everything that differs."""
    differences = []
    if found.experiment != wanted.experiment:
        differences.append(f"experiment {found.experiment} (now {wanted.experiment})")
    if found.program != wanted.program:
        differences.append(f"program {found.program} (now {wanted.program})")
    for name in sorted({**found.parameters, **wanted.parameters}):
        before, now = found.parameters.get(name), wanted.parameters.get(name)
        if before != now:
            differences.append(f"{name} {before} (now {now})")
    if differences:
        raise CollaError(
            "results_differ",
            f"{path} holds results of another experiment: {'; '.join(differences)}.",
            "Name another folder, remove the file, or use the parameters and the program that made it.",
        )


def conduct(
    cases: Sequence[C],
    execute: Callable[[C], R],
    result_type: type[R],
    heading: Heading,
    *,
    path: Path | None = None,
    processes: int | None = None,
    executor: Executor | None = None,
    budget_s: float | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    on_result: Callable[[C, R], None] = lambda case, result: None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome[C, R]:
    """Run all cases that have no result yet.

    `execute` is a function of a module, since it is sent to other processes. `processes` (all cores) and `budget_s`
    bound what is used: when the time is over no more cases begin, and what runs is finished. `executor` replaces the
    pool of processes. `progress` hears (done, total) at the beginning and after each result. When `stop` turns true,
    what runs is broken off at once.

    Raises `CollaError`: `results_differ` and `results_unreadable` for a file that cannot be gone on with,
    `case_failed` with the key of a case whose execution raised.
    """
    began_s = time.monotonic()
    count = processes or os.cpu_count() or 1
    kept = ResultFile(path, heading, result_type)
    try:
        todo = [case for case in cases if case.key not in kept.results]
        resumed = len(cases) - len(todo)
        until_s = float("inf") if budget_s is None else began_s + budget_s
        done = resumed
        progress(done, len(cases))
        if todo:
            with _pool(executor, min(count, len(todo))) as pool:
                left = iter(todo)
                for case, result in _each(pool, execute, left, count * AHEAD, until_s, stop):
                    kept.append(case.key, result)
                    on_result(case, result)
                    done += 1
                    progress(done, len(cases))
    finally:
        kept.close()
    results = tuple((case, kept.results[case.key]) for case in cases if case.key in kept.results)
    return Outcome(results, len(cases) - len(results), resumed, time.monotonic() - began_s)


def _each(
    pool: Executor,
    execute: Callable[[C], R],
    left: Iterator[C],
    ahead: int,
    until_s: float,
    stop: Callable[[], bool],
) -> Iterator[tuple[C, R]]:
    """Results as they come, with at most `ahead` cases handed out at any time."""
    running: dict[Future[R], C] = {}
    while True:
        over = time.monotonic() >= until_s
        if stop():
            return
        if over:
            for future in [one for one in running if one.cancel()]:
                del running[future]
        while not over and len(running) < ahead and (case := next(left, None)) is not None:
            running[pool.submit(execute, case)] = case
        if not running:
            return
        for future in wait(running, timeout=LOOK_EVERY_S, return_when=FIRST_COMPLETED).done:
            case = running.pop(future)
            try:
                yield case, future.result()
            except BrokenProcessPool as error:
                raise CollaError(
                    "case_failed",
                    f"A process that ran cases died, perhaps for lack of memory (case {case.key} or near it).",
                    "The results so far are kept; go on with fewer --processes.",
                ) from error
            except Exception as error:
                raise CollaError(
                    "case_failed",
                    f"Case {case.key} failed: {type(error).__name__}: {error}",
                    "The results so far are kept; this is a fault in colla or in the case.",
                ) from error


@contextmanager
def _pool(given: Executor | None, processes: int) -> Iterator[Executor]:
    """The executor that was given, or processes of our own, which are gone at the end however it comes."""
    if given is not None:
        yield given
        return
    before = multiprocessing.active_children()
    # Fresh interpreters: forking beside the thread of a progress bar could copy a lock that is held.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_ignore_interrupt)
    try:
        yield pool
    except BaseException:
        _end(pool, before)
        raise
    _end(pool, before)


def _end(pool: ProcessPoolExecutor, before: list[Any]) -> None:
    """What still runs is of no use to anybody: results are taken before it comes to this."""
    for process in multiprocessing.active_children():
        if process not in before:
            process.terminate()
    pool.shutdown(wait=True, cancel_futures=True)


def _ignore_interrupt() -> None:
    """Ctrl-C reaches all processes of the terminal; the first one decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
