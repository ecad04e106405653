"""`python -m colla.environments static|process|wasm|container --runtime DIR [--isolation auto|bubblewrap|landlock|none]`.

Starts one environment program in a runtime folder, prints its handshake and serves until it is ended.
`python -m colla.environments openapi` prints the OpenAPI document.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from pathlib import Path
from typing import Final

from colla.environments import openapi, program
from colla.environments.driver import Driver
from colla.environments.folders import RuntimeFolder
from colla.environments.process import ProcessDriver
from colla.environments.protocol import EnvironmentFault
from colla.environments.static import StaticDriver

EXIT_TAKEN: Final = 75
"""Another program lives in the folder (EX_TEMPFAIL)."""


def make_driver(kind: str, instance: str, folder: RuntimeFolder, isolation: str) -> Driver:
    """The driver of a kind. Raises `EnvironmentFault` when it cannot work here."""
    if kind == "static":
        return StaticDriver(instance)
    if kind == "wasm":
        # What it needs is an extra of the package, and is imported only where the kind is wanted.
        from colla.environments.wasm import WasmDriver

        return WasmDriver(instance, folder)
    if kind == "container":
        from colla.environments.container import ContainerDriver

        return ContainerDriver(instance, folder)
    return ProcessDriver(instance, folder, isolation)


async def run(kind: str, runtime: Path, isolation: str) -> int:
    """Serve; the program's exit code."""
    folder = RuntimeFolder(runtime)
    if program.take_lock(folder) is None:
        print(f"another environment program runs in {runtime}", file=sys.stderr)
        return EXIT_TAKEN
    instance = secrets.token_hex(8)
    await program.serve(make_driver(kind, instance, folder, isolation), folder)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m colla.environments", description="An execution environment."
    )
    parser.add_argument("kind", choices=["static", "process", "wasm", "container", "openapi"])
    parser.add_argument("--runtime", type=Path, help="folder for its socket and its replicas")
    parser.add_argument("--isolation", choices=["auto", "bubblewrap", "landlock", "none"], default="auto")
    options = parser.parse_args(arguments)
    if options.kind == "openapi":
        sys.stdout.write(openapi.text())
        return 0
    if options.runtime is None:
        parser.error("--runtime is needed")
    try:
        return asyncio.run(run(options.kind, options.runtime, options.isolation))
    except (EnvironmentFault, OSError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
