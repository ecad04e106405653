"""What lies in a folder that shall be deployed: names only, and what deserves a warning.

Reads directory listings, and the first bytes of files that may be databases. Bounded: a folder with more files than an
object can have is refused when the object is made, so that counting stops there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from colla.model.errors import CollaError

ENTRIES_MAX = 200_000
"""Listing stops here; an object has fewer files."""
DATABASE_SUFFIXES = (".db", ".db3", ".sqlite", ".sqlite3")
DATABASE_MAGIC = b"SQLite format 3\x00"
PRIVATE_NAMES = (".env", ".git", ".ssh", "id_rsa", "id_ed25519")
NAMED_MAX = 20
"""Of each kind of finding, so many are kept for the warning."""


class Content(msgspec.Struct, frozen=True):
    """Names at the top, paths one folder deeper, and findings anywhere: databases and what looks private."""

    top: frozenset[str]
    second: frozenset[str]
    databases: tuple[str, ...]
    private: tuple[str, ...]
    brings_modules: bool


NOTHING = Content(frozenset(), frozenset(), (), (), False)
"""What lies in a file."""


def read_content(folder: Path) -> Content:
    """List the folder. Raises `CollaError`: `folder_missing`, `not_a_folder`, `unreadable`, `folder_empty`."""
    if not os.path.lexists(folder):
        raise CollaError("folder_missing", f"There is no folder {folder}.", "Check its path.")
    top: list[str] = []
    second: list[str] = []
    databases: list[str] = []
    private: list[str] = []
    files = 0
    for path, is_file in _walk(folder):
        name = path.rpartition("/")[2]
        depth = path.count("/")
        (top if depth == 0 else second if depth == 1 else []).append(path)
        if name in PRIVATE_NAMES and len(private) < NAMED_MAX:
            private.append(path)
        if not is_file:
            continue
        files += 1
        if (
            name.lower().endswith(DATABASE_SUFFIXES)
            and len(databases) < NAMED_MAX
            and _is_database(folder / path)
        ):
            databases.append(path)
    if not files:
        raise CollaError("folder_empty", f"The folder {folder} has no files.", "Put at least one into it.")
    installed = any(path.endswith(".dist-info") for path in top)
    return Content(frozenset(top), frozenset(second), tuple(databases), tuple(private), installed)


def _walk(folder: Path) -> Iterator[tuple[str, bool]]:
    """All paths below the folder, in order, with whether each is a file."""
    pending = [(folder, "")]
    left = ENTRIES_MAX
    while pending:
        directory, prefix = pending.pop(0)
        for entry in _list(directory):
            left -= 1
            if left < 0:
                return
            yield prefix + entry.name, not entry.is_dir(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                pending.append((Path(entry.path), f"{prefix}{entry.name}/"))
            elif not os.access(entry.path, os.R_OK) and not entry.is_symlink():
                raise _unreadable(Path(entry.path), "permission denied")


def _list(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except NotADirectoryError:
        raise CollaError("not_a_folder", f"{directory} is no folder.", "Give the path of a folder.") from None
    except OSError as error:
        raise _unreadable(directory, (error.strerror or str(error)).lower()) from None


def _unreadable(path: Path, why: str) -> CollaError:
    return CollaError("unreadable", f"{path} cannot be read: {why}.", "Give yourself the right to read it.")


def _is_database(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(len(DATABASE_MAGIC)) == DATABASE_MAGIC
    except OSError as error:
        raise _unreadable(path, (error.strerror or str(error)).lower()) from None
