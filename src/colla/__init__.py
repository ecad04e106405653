"""colla keeps a group's services alive on the computers that its members own.

`colla.Client` speaks to this computer's node from a program.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from colla.client.client import Client

__version__ = "0.1.0"
__all__ = ["Client", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the client when it is first asked for: the pure core needs none of what it imports."""
    if name == "Client":
        return importlib.import_module("colla.client.client").Client
    raise AttributeError(f"module 'colla' has no attribute {name!r}")
