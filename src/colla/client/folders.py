"""Where a computer keeps its groups: one folder per group under the platform's data folder, or COLLA_HOME.

A group's folder holds its keys, settings, database, objects, sockets and log. Its name on this computer is the
group's name, with a number when two groups of the same name were joined.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from colla.model.errors import CollaError

HOME_VARIABLE = "COLLA_HOME"
SETTINGS_NAME = "settings.toml"
LOG_NAME = "node.log"
LEFT_FOLDER = "left"


def home(override: Path | None = None) -> Path:
    """The folder of all groups: `override`, else $COLLA_HOME, else the platform's data folder."""
    if override is not None:
        return override
    if os.environ.get(HOME_VARIABLE):
        return Path(os.environ[HOME_VARIABLE])
    return Path(platformdirs.user_data_dir("colla"))


def groups(base: Path) -> list[Path]:
    """The folders of the groups on this computer, sorted by name."""
    if not base.is_dir():
        return []
    # A folder whose name begins with a dot is not whole yet.
    return sorted(path.parent for path in base.glob(f"[!.]*/{SETTINGS_NAME}"))


def find_group(base: Path, name: str | None) -> Path:
    """The folder of the named group, or of the only one.

    Raises `CollaError`: `no_group`, `unknown_group`, or `which_group` when there are several and none is named.
    """
    found = groups(base)
    if name is not None:
        for path in found:
            if path.name == name:
                return path
        known = ", ".join(path.name for path in found) or "none"
        raise CollaError("unknown_group", f"This computer is not in a group {name!r} (it is in: {known}).")
    if not found:
        raise CollaError(
            "no_group",
            "This computer is in no group yet.",
            "Found one with `colla group create NAME`, or join one with `colla join TICKET`.",
        )
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise CollaError(
            "which_group", f"This computer is in several groups: {names}.", "Say which with `--group NAME`."
        )
    return found[0]
