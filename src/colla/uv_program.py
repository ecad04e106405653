"""Where uv is, the program that resolves and installs Python packages: wanted by who deploys and by who runs them.

It comes with the extra `colla[python]`; one that the computer has anyway will do.
"""

from __future__ import annotations

import importlib
import shutil

UV_HINT = "Install it: pip install 'colla[python]', or see https://docs.astral.sh/uv/"


def find_uv() -> str | None:
    """The path of the program: that of the installed package, else the one on the search path; None without any."""
    try:
        found: str = importlib.import_module("uv").find_uv_bin()
    except (ImportError, AttributeError, FileNotFoundError):
        return shutil.which("uv")
    return found
