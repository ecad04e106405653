"""What is not a folder yet becomes one, for as long as it is stored: a module, an image's archive."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from colla.client.images import unpack_image

MODULE_SUFFIX = ".wasm"


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """The folder to store for `path`, a folder or one of the files that `plan_deploy` recognises.

    Raises `CollaError("bad_image")`. A temporary folder needs the room that the image takes (`TMPDIR` says where).
    """
    if path.is_dir():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="colla-deploy-") as temporary:
        folder = Path(temporary)
        if path.name.lower().endswith(MODULE_SUFFIX):
            shutil.copyfile(path, folder / path.name)
        else:
            unpack_image(path, folder)
        yield folder
