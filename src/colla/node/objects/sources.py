"""Files of the owner on their way into objects: what a folder contains, and its bytes cut into chunks.

Only regular files become part of an object. A symbolic link is followed if it leads to a file inside the same
folder, and refused otherwise, as are sockets, pipes and devices: an object must not carry away what its owner
did not put into the folder. A file that changes while it is read is an error, never a mixture. Blocking.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from colla.model.errors import CollaError
from colla.model.manifest import (
    CHUNK_BYTES_MAX,
    DEPTH_MAX,
    FILES_MAX,
    BadPath,
    Built,
    FileBuilder,
    FolderBuilder,
    Piece,
    changed_meanwhile,
    check_path,
    check_size,
    too_many_files,
)

Store = Callable[[Piece], None]
"""Takes a piece and makes it durable now or soon."""
Exclude = Callable[[str], bool]
"""Whether the file or folder with this relative path is left out."""


class SourceFile(NamedTuple):
    """A file to put: its name in the object, where it lies (links followed), length in bytes, permission."""

    path: str
    location: Path
    size: int
    executable: bool


def scan_folder(folder: Path, exclude: Exclude | None = None) -> list[SourceFile]:
    """All files under `folder`, in the order of their paths.

    Raises `CollaError`: `folder_missing`, `not_a_folder`, `folder_empty`, `unreadable`, `link_refused`,
    `not_a_file`, `too_many_files`, `file_too_large`, `bad_path`.
    """
    hint = "Give the path of a folder with the files."
    try:
        status = folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise CollaError("folder_missing", f"There is no folder {folder}.", hint) from None
    except OSError as error:
        raise unreadable(folder, error) from error
    if not stat.S_ISDIR(status.st_mode):
        raise CollaError("not_a_folder", f"{folder} is no folder.", hint)
    root = folder.resolve()
    found: list[SourceFile] = []
    pending: list[tuple[Path, str, int]] = [(root, "", 1)]
    while pending:
        directory, prefix, depth = pending.pop()
        for entry in _list(directory):
            path = prefix + entry.name
            if exclude is not None and exclude(path):
                continue
            if entry.is_dir(follow_symlinks=False):
                if depth >= DEPTH_MAX:
                    raise BadPath(path, f"lies more than {DEPTH_MAX} folders deep")
                pending.append((Path(entry.path), path + "/", depth + 1))
            else:
                found.append(_source_file(root, entry, path))
                if len(found) > FILES_MAX:
                    raise too_many_files()
    if not found:
        raise CollaError("folder_empty", f"The folder {folder} has no files.", "Put at least one into it.")
    found.sort(key=lambda file: file.path)
    return found


def scan_file(path: Path) -> SourceFile:
    """One file by itself; a link is followed. Raises `CollaError` as `scan_folder`, and `file_missing`."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise CollaError("file_missing", f"There is no file {path}.") from None
    except OSError as error:
        raise unreadable(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise _not_a_file(str(path))
    check_size(path.name, status.st_size)
    return SourceFile(path.name, path.resolve(), status.st_size, bool(status.st_mode & stat.S_IXUSR))


def cut_folder(files: list[SourceFile], store: Store) -> Built:
    """Cut the files into chunks and give each to `store`, manifests last. Raises `CollaError`."""
    builder = FolderBuilder()
    for file in files:
        _store_all(builder.begin(file.path, file.size, file.executable), store)
        for data in read_file(file):
            _store_all(builder.feed(data), store)
        _store_all(builder.end(), store)
    last, built = builder.finish()
    _store_all([*last, *built.manifests], store)
    return built


def cut_file(file: SourceFile, store: Store) -> Built:
    """As `cut_folder`, for one file without a name."""
    builder = FileBuilder()
    for data in read_file(file):
        _store_all(builder.feed(data), store)
    last, built = builder.finish()
    _store_all([*last, *built.manifests], store)
    return built


def cut_bytes(data: bytes, store: Store) -> Built:
    """As `cut_file`, for bytes in memory."""
    builder = FileBuilder()
    for start in range(0, len(data), CHUNK_BYTES_MAX):
        _store_all(builder.feed(data[start : start + CHUNK_BYTES_MAX]), store)
    last, built = builder.finish()
    _store_all([*last, *built.manifests], store)
    return built


def unreadable(path: Path, error: OSError) -> CollaError:
    """The owner's file or folder cannot be read (`unreadable`)."""
    return CollaError("unreadable", f"{path} cannot be read: {error.strerror}.", "Check its permissions.")


def _list(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except OSError as error:
        raise unreadable(directory, error) from error


def _source_file(root: Path, entry: os.DirEntry[str], path: str) -> SourceFile:
    check_path(path)
    location = Path(entry.path)
    if entry.is_symlink():
        location = _followed(root, location, path)
    try:
        status = location.stat(follow_symlinks=False)
    except OSError as error:
        raise unreadable(location, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise _not_a_file(path)
    check_size(path, status.st_size)
    return SourceFile(path, location, status.st_size, bool(status.st_mode & stat.S_IXUSR))


def _followed(root: Path, link: Path, path: str) -> Path:
    hint = "Replace the link by the file itself."
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):
        raise CollaError("link_refused", f"The link {path!r} leads nowhere.", hint) from None
    if not target.is_relative_to(root):
        raise CollaError("link_refused", f"The link {path!r} leads out of the folder.", hint)
    if target.is_dir():
        raise CollaError("link_refused", f"The link {path!r} leads to a folder, not to a file.", hint)
    return target


def _not_a_file(path: str) -> CollaError:
    hint = "Sockets, pipes and devices cannot be shared: remove it or leave it out."
    return CollaError("not_a_file", f"{path!r} is no ordinary file.", hint)


def read_file(file: SourceFile) -> Iterator[bytes]:
    # The checks of the scan hold for what is opened now: not a link, not a pipe that would block for ever.
    flags = os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    left = file.size
    try:
        descriptor = os.open(file.location, flags)
    except FileNotFoundError:
        raise changed_meanwhile(file.path) from None
    except OSError as error:
        raise unreadable(file.location, error) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise changed_meanwhile(file.path)
        while data := os.read(descriptor, CHUNK_BYTES_MAX):
            left -= len(data)
            if left < 0:
                raise changed_meanwhile(file.path)
            yield data
    except OSError as error:
        raise unreadable(file.location, error) from error
    finally:
        os.close(descriptor)
    if left:
        raise changed_meanwhile(file.path)


def _store_all(pieces: list[Piece], store: Store) -> None:
    for piece in pieces:
        store(piece)
