"""What is not a folder yet, or lacks its packages, becomes one for as long as it is stored: a module, an image's archive,
a program whose Python packages have to travel with it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from colla.client.images import unpack_image
from colla.client.wheels import PackagesWanted, Tell, bundle

MODULE_SUFFIX = ".wasm"


class Staged(msgspec.Struct, frozen=True):
    """The folder to store, and what people should know about it."""

    folder: Path
    note: str = ""


@contextmanager
def staged(
    path: Path, packages: PackagesWanted | None = None, tell: Tell = lambda text: None
) -> Iterator[Staged]:
    """The folder to store for `path`, a folder or one of the files that `plan_deploy` recognises.

    Raises `CollaError`: `bad_image`, and what `wheels.bundle` raises. A temporary folder needs the room that an image, or
    a program with its packages, takes (`TMPDIR` says where). `tell` hears what is being done.
    """
    if path.is_dir() and packages is None:
        yield Staged(path)
        return
    note = ""
    with tempfile.TemporaryDirectory(prefix="colla-deploy-") as temporary:
        folder = Path(temporary)
        if packages is not None:
            note = bundle(path, packages, folder, tell)
        elif path.name.lower().endswith(MODULE_SUFFIX):
            shutil.copyfile(path, folder / path.name)
        else:
            unpack_image(path, folder)
        yield Staged(folder, note)
