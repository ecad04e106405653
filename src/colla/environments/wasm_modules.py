"""WebAssembly modules: which can be run, and their machine code, compiled once and kept.

Compiling somebody's module takes time and memory that its author chooses, so it happens in a process of its own with
bounds on both: `python -m colla.environments.wasm_modules MODULE TARGET`. The code is kept under the hash of the module and all
that it depends on (wasmtime's version, the machine), in a folder that its owner alone can write: machine code is
trusted when it is loaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from colla.environments.driver import fault
from colla.model.ids import digest

if TYPE_CHECKING:
    from wasmtime import Engine, Module

SUFFIX: Final = ".wasm"
MODULE_BYTES_MAX: Final = 64 << 20
MODULES_MAX: Final = 8
"""Modules at the top of one folder."""
COMPILE_S_MAX: Final = 120
COMPILE_BYTES_MAX: Final = 4 << 30
"""Address space of the compiling process."""
KEPT_MAX: Final = 64
"""Compiled modules kept per runtime folder; those unused for longest go first."""
WASI: Final = "wasi_snapshot_preview1"
_MAGIC: Final = b"\0asm"
_CORE: Final = b"\1\0\0\0"


def why_unavailable() -> str:
    """Why nothing can be run here; empty when it can."""
    if importlib.util.find_spec("wasmtime") is None:
        return "wasmtime is not installed: pip install 'colla[wasm]'"
    return ""


def modules_of(folder: Path) -> list[Path]:
    """The modules at the top of the folder, sorted."""
    found = sorted(path for path in folder.iterdir() if path.suffix == SUFFIX and path.is_file())
    return found[:MODULES_MAX]


def find_module(folder: Path, command: tuple[str, ...]) -> Path:
    """The module that a specification means. Raises `EnvironmentFault`."""
    if not command:
        found = modules_of(folder)
        if len(found) == 1:
            return found[0]
        what = "no module" if not found else f"{len(found)} modules"
        raise fault(
            "module_missing", f"There is {what} at the top of the folder.", "Name one as the command."
        )
    path = (folder / command[0]).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise fault("module_missing", f"There is no module {command[0]!r} in the folder.", "Deploy it anew.")
    return path


def read_module(path: Path) -> bytes:
    """The module's bytes, when they can be one. Raises `EnvironmentFault`."""
    if path.stat().st_size > MODULE_BYTES_MAX:
        raise fault("module_too_large", f"{path.name} is larger than {MODULE_BYTES_MAX >> 20} MiB.")
    data = path.read_bytes()
    if data[:4] != _MAGIC:
        raise fault(
            "module_malformed", f"{path.name} is no WebAssembly module.", "Compile it for wasm32-wasi."
        )
    if data[4:8] != _CORE:
        raise fault(
            "module_is_component",
            f"{path.name} is a WebAssembly component (WASI 0.2), and only modules can be run.",
            "Compile it for wasm32-wasip1 (WASI preview 1).",
        )
    return data


def make_engine() -> Engine:
    """The engine that compiled code is for. Compiling and running must agree in every option."""
    from wasmtime import Config, Engine

    config = Config()
    config.epoch_interruption = True
    return Engine(config)


class ModuleCache:
    """The compiled modules of one environment program."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._locks: dict[Path, asyncio.Lock] = {}

    async def compiled(self, module: Path) -> Path:
        """The file with the module's machine code, made now if it is not there. Raises `EnvironmentFault`."""
        data = await asyncio.to_thread(read_module, module)
        target = self._folder / f"{digest(data).hex()[:40]}-{_tag()}.cwasm"
        lock = self._locks.setdefault(target, asyncio.Lock())
        async with lock:
            if not target.exists():
                await _compile(module, target)
                self._drop_old()
            os.utime(target)
        self._locks = {path: held for path, held in self._locks.items() if held.locked()}
        return target

    def _drop_old(self) -> None:
        kept = sorted(self._folder.glob("*.cwasm"), key=lambda path: path.stat().st_mtime)
        for path in kept[:-KEPT_MAX]:
            path.unlink(missing_ok=True)


def _tag() -> str:
    return f"{importlib.metadata.version('wasmtime')}-{platform.machine()}"


async def _compile(module: Path, target: Path) -> None:
    fresh = target.with_suffix(".new")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", __name__, str(module), str(fresh)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(COMPILE_S_MAX):
            _, said = await process.communicate()
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        fresh.unlink(missing_ok=True)
        if isinstance(error, TimeoutError):
            message = f"Compiling {module.name} took more than {COMPILE_S_MAX} s."
            raise fault("module_too_complex", message, "Make it smaller.") from None
        raise
    if process.returncode != 0:
        fresh.unlink(missing_ok=True)
        lines = said.decode(errors="replace").strip().splitlines()
        reason = lines[-1][:300] if lines else f"it ended with {process.returncode}"
        raise fault("module_not_compiled", f"{module.name} cannot be compiled: {reason}")
    fresh.replace(target)


def check_imports(module: Module) -> None:
    """Raise `ValueError` when the module needs what WASI does not give, or cannot be started."""
    foreign = sorted({f"{one.module}.{one.name}" for one in module.imports if one.module != WASI})
    if foreign:
        raise ValueError(f"it imports {', '.join(foreign[:3])}, and WASI preview 1 is all that there is")
    if not any(one.name == "_start" for one in module.exports):
        raise ValueError("it exports no _start: compile it as a program (command), not as a library")


def main(arguments: list[str]) -> int:
    """Compile one module; the reason of a failure is the last line on stderr."""
    import resource

    from wasmtime import Module, WasmtimeError

    resource.setrlimit(resource.RLIMIT_CPU, (COMPILE_S_MAX, COMPILE_S_MAX))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (COMPILE_BYTES_MAX, COMPILE_BYTES_MAX))
    source, target = arguments
    try:
        module = Module.from_file(make_engine(), source)
        check_imports(module)
    except (WasmtimeError, ValueError, MemoryError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    Path(target).write_bytes(module.serialize())
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
