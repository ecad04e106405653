"""What an environment program says of its own troubles: on stderr, which is a file on the disk that may be full."""

from __future__ import annotations

import sys
from contextlib import suppress


def complain(text: str) -> None:
    """Say it if it can be said: a complaint that cannot be written must not break what goes on."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)
