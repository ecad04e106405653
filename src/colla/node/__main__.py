"""`python -m colla.node FOLDER`: the node's process, what `colla up` becomes.

It imports no face: the command line's libraries would stay in memory as long as the node runs (15 MB measured).
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path

import msgspec

from colla.client.types import ApiError
from colla.model.errors import CollaError
from colla.node.app import run_node
from colla.node.disk import disk_errors
from colla.node.logs import log_to

log = logging.getLogger("colla.node")

FAILED = 1
FAULT_CHARACTERS_MAX = 300


def main() -> int:
    """Run the node of a folder; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m colla.node", description="Run the node of a group's folder."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quiet", action="store_true", help="log into the folder's file only")
    parser.add_argument("--verbose", action="store_true", help="log details as well")
    parser.add_argument("--json", action="store_true", help="say errors as JSON")
    options = parser.parse_args()
    # Environments and replicas have working folders of their own.
    folder = options.folder.absolute()
    try:
        log_to(folder, quiet=options.quiet, level=logging.DEBUG if options.verbose else logging.INFO)
        return asyncio.run(run_node(folder))
    except CollaError as error:
        ended = error
    except OSError as error:
        ended = _said_of(error, folder)
    except Exception as error:
        log.exception("a fault of colla ended the node")
        ended = CollaError("fault", _fault_text(error), "`colla log` tells where.")
    if options.json:
        said = msgspec.json.encode(ApiError(ended.code, ended.message, ended.hint)).decode()
    else:
        said = f"colla: {ended}"
    if options.quiet:
        log.error("the node cannot run: %s", ended)
    print(said, file=sys.stderr)
    return FAILED


def _fault_text(error: Exception) -> str:
    # Some libraries put whole backtraces into their messages.
    first = str(error).partition("\n")[0][:FAULT_CHARACTERS_MAX]
    return f"This is a fault of colla: {type(error).__name__}: {first}"


def _said_of(error: OSError, folder: Path) -> CollaError:
    try:
        with disk_errors(folder):
            raise error
    except CollaError as told:
        return told


if __name__ == "__main__":
    sys.exit(main())
