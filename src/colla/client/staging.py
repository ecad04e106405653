"""What is not a folder yet, or lacks its packages, becomes one for as long as it is stored: a module, an image's archive,
a program whose Python packages have to travel with it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from colla.client.images import AddedFile, add_files, unpack_image, volumes
from colla.client.wheels import PackagesWanted, Tell, bundle

MODULE_SUFFIX = ".wasm"
LOST = (
    "What a replica writes there is lost: its files vanish with it, and each replica has its own. What must last goes into the"
    " service's named objects, or into a database outside of the group."
)


class Staged(msgspec.Struct, frozen=True):
    """The folder to store, what people should know about it, and what they would lose."""

    folder: Path
    note: str = ""
    warning: str = ""


@contextmanager
def staged(
    path: Path,
    packages: PackagesWanted | None = None,
    tell: Tell = lambda text: None,
    files: Sequence[AddedFile] = (),
) -> Iterator[Staged]:
    """The folder to store for `path`, a folder or one of the files that `plan_deploy` recognises.

    Raises `CollaError`: `bad_image`, and what `wheels.bundle` raises. A temporary folder needs the room that an image, or
    a program with its packages, takes (`TMPDIR` says where). `tell` hears what is being done. `files` are put on top of an image.
    """
    if path.is_dir() and packages is None:
        yield Staged(path)
        return
    note = warning = ""
    with tempfile.TemporaryDirectory(prefix="colla-deploy-") as temporary:
        folder = Path(temporary)
        if packages is not None:
            note = bundle(path, packages, folder, tell)
        elif path.name.lower().endswith(MODULE_SUFFIX):
            shutil.copyfile(path, folder / path.name)
        else:
            unpack_image(path, folder)
            if files:
                add_files(folder, files)
            if kept := volumes(folder):
                warning = f"The image keeps data in {', '.join(kept)}. {LOST}"
        yield Staged(folder, note, warning)
