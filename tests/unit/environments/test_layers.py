"""What a layer would unpack to: archives that lie about it, and bombs, are refused before an engine sees them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from pathlib import Path

import pytest

from colla.environments.layers import BadLayer, Unpacked, measure

MIB = 1 << 20


def tar(*entries: tarfile.TarInfo, kind: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive of these, files filled with zeros."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=kind) as archive:
        for entry in entries:
            archive.addfile(entry, io.BytesIO(bytes(entry.size)) if entry.isfile() else None)
    return data.getvalue()


def file(name: str, size: int = 0, /, **pax: str) -> tarfile.TarInfo:
    about = tarfile.TarInfo(name)
    about.size, about.pax_headers = size, pax
    return about


def written(folder: Path, data: bytes) -> Path:
    (folder / "layer").write_bytes(data)
    return folder / "layer"


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_an_honest_layer_is_added_up(tmp_path, kind, pack):
    folder = tarfile.TarInfo("folder")
    folder.type = tarfile.DIRTYPE
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    name = "folder/long" if kind == tarfile.USTAR_FORMAT else "folder/" + "long" * 60
    data = tar(folder, link, file("a", 1000), file(name, 3 * MIB), kind=kind)
    assert measure(written(tmp_path, pack(data)), 4 * MIB, 4) == Unpacked(1000 + 3 * MIB, 4)


def test_large_files_say_their_size_in_an_extended_header(tmp_path):
    data = tar(file("a", 5 * MIB, size=str(5 * MIB)))
    assert measure(written(tmp_path, data), 5 * MIB, 1).size_bytes == 5 * MIB
    with pytest.raises(BadLayer, match="more than 4 MiB"):
        measure(written(tmp_path, data), 4 * MIB, 1)


def test_a_bomb_is_noticed_without_being_unpacked(tmp_path):
    bomb = gzip.compress(tar(file("zeros", 64 * MIB)))
    assert len(bomb) < 100_000
    with pytest.raises(BadLayer, match="more than 8 MiB"):
        measure(written(tmp_path, bomb), 8 * MIB, 10)
    with pytest.raises(BadLayer, match="more than 9 files"):
        measure(written(tmp_path, tar(*(file(str(number)) for number in range(10)))), MIB, 9)


def changed(data: bytes, at: int, text: bytes) -> bytes:
    return data[:at] + text + data[at + len(text) :]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (changed(tar(file("a", 10)), 156, b"S"), "sparse"),
        (tar(file("a", 10, **{"GNU.sparse.realsize": str(1 << 40)})), "sparse"),
        (changed(tar(file("a", 10)), 124, b"0o7777777777"), "malformed header"),
        (changed(tar(file("a", 10)), 124, b"\x80" + bytes(5) + b"\xff" * 6), "more than 1 MiB"),
        (changed(tar(file("a", 2 * MIB)), 156, b"x"), "extended header of 2097152 bytes"),
        (changed(tar(file("a", 10)), 156, b"x"), "malformed extended header"),
        (changed(tar(file("a", 10, size="1")), 512, b"9999 size=1"), "malformed extended header"),
        (tar(file("a", 10)) + tar(file("b", 10)) + bytes(300), "middle of a header"),
        (tar() + bytes(3 * MIB), "after its end"),
        (gzip.compress(tar(file("a", 10)), mtime=0)[:60], "damaged"),
        (b"\x28\xb5\x2f\xfd" + bytes(600), "zstd"),
    ],
)
def test_what_cannot_be_added_up_is_refused(tmp_path, data, why):
    with pytest.raises(BadLayer, match=why):
        measure(written(tmp_path, data), MIB, 100)
