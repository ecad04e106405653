"""The folder with a service's files: is it there, can it be read, how much is in it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from colla.environments.driver import fault
from colla.environments.protocol import PrepareProgress

FILES_PER_LINE: Final = 500
"""Progress is told once per so many files."""


def check_artifact(artifact: str) -> Path:
    """The folder, resolved. Raises `EnvironmentFault` when it is missing, unreadable, empty or no folder."""
    path = Path(artifact)
    if not path.is_absolute():
        raise fault(
            "artifact_relative", f"{artifact!r} is no absolute path.", "Give the full path of the folder."
        )
    try:
        path = path.resolve(strict=True)
        with os.scandir(path) as entries:
            empty = next(entries, None) is None
    except (FileNotFoundError, NotADirectoryError):
        raise fault(
            "artifact_missing", f"There is no folder {artifact}.", "Fetch the service's object first."
        ) from None
    except (PermissionError, OSError) as error:
        raise fault(
            "artifact_unreadable", f"{artifact} cannot be read: {error.strerror}.", "See its permissions."
        ) from None
    if empty:
        raise fault("artifact_empty", f"The folder {artifact} is empty.", "Deploy a folder that has files.")
    return path


async def count_artifact(artifact: str) -> AsyncIterator[PrepareProgress]:
    """The preparation of kinds that use the files as they are: see that all of them can be found."""
    root = check_artifact(artifact)
    files = size = 0
    for folder, _, names in os.walk(root):
        for name in names:
            files += 1
            size += (Path(folder) / name).lstat().st_size
            if files % FILES_PER_LINE == 0:
                yield PrepareProgress(files=files, size_bytes=size)
    yield PrepareProgress(done=True, files=files, size_bytes=size)
