"""What a layer of an image would unpack to, told before an engine is asked to unpack it.

An engine unpacks as its own user, on the owner's disk, whatever a layer says: a compressed layer may hold a thousand times
what travelled, and a sparse file of one line any number of zeros. So the headers of the archive are walked first (POSIX
ustar and pax, IEEE 1003.1) and added up. Nothing is written, and nothing longer than one extended header is kept in memory.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import zlib
from io import BufferedReader
from pathlib import Path
from typing import Final, NamedTuple

BLOCK_BYTES: Final = 512
READ_BYTES: Final = 1 << 20
EXTENDED_BYTES_MAX: Final = 1 << 20
"""Of one pax header or long name."""
EMPTY_BLOCKS_MAX: Final = 2048
"""Zeros at the end of an archive: two by the standard, twenty as most programs write them."""
_EXTENDED: Final = frozenset(b"xgX")
_LONG_NAMES: Final = frozenset(b"LK")
_WITHOUT_CONTENT: Final = frozenset(b"123456")
"""Links, devices, folders and pipes; whatever else comes is read as a file."""
_OCTAL: Final = re.compile(rb"[0-7]+")
_LENGTH: Final = re.compile(rb"(\d{1,7}) ")


_Layer = BufferedReader | gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile


class BadLayer(Exception):
    """The layer is nothing that an engine should be given; says why."""


class Unpacked(NamedTuple):
    """What a layer holds: its files' bytes together, and how many entries."""

    size_bytes: int
    entries: int


def measure(layer: Path, bytes_max: int, entries_max: int) -> Unpacked:
    """Add up a layer. Raises `BadLayer` when it exceeds a bound or is no archive that can be added up, `OSError`."""
    with layer.open("rb") as raw, _opened(raw) as file:
        try:
            return _walk(file, bytes_max, entries_max)
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise BadLayer(f"it is damaged ({error})") from None


def _opened(raw: BufferedReader) -> _Layer:
    magic = raw.read(6)
    raw.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=raw)
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(raw)
    if magic.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMAFile(raw)
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        raise BadLayer("it is compressed with zstd, which cannot be looked into here")
    return raw


def _walk(file: _Layer, bytes_max: int, entries_max: int) -> Unpacked:
    total = entries = empty = 0
    said: int | None = None
    """The next file's size, when an extended header says it."""
    while header := file.read(BLOCK_BYTES):
        if len(header) < BLOCK_BYTES:
            raise BadLayer("it ends in the middle of a header")
        if not header.strip(b"\0"):
            empty += 1
            if empty > EMPTY_BLOCKS_MAX:
                raise BadLayer("it goes on after its end")
            continue
        size, kind = _size(header[124:136]), header[156]
        if kind in _EXTENDED or kind in _LONG_NAMES:
            content = _extended(file, size)
            said = _size_of_next(content, said) if kind in _EXTENDED else said
            continue
        if kind == ord("S"):
            raise BadLayer("it holds a sparse file")
        size, said = 0 if kind in _WITHOUT_CONTENT else size if said is None else said, None
        total, entries = total + size, entries + 1
        if total > bytes_max:
            raise BadLayer(f"it would unpack to more than {bytes_max >> 20} MiB")
        if entries > entries_max:
            raise BadLayer(f"it holds more than {entries_max} files")
        _skip(file, size + -size % BLOCK_BYTES)
    return Unpacked(total, entries)


def _size(field: bytes) -> int:
    """Octal digits, or base 256 where the highest bit is set (GNU)."""
    if field[0] & 0x80:
        return int.from_bytes(field, "big") & ((1 << 95) - 1)
    digits = field.strip(b" \0") or b"0"
    if not _OCTAL.fullmatch(digits):
        raise BadLayer("it has a malformed header")
    return int(digits, 8)


def _extended(file: _Layer, size: int) -> bytes:
    if size > EXTENDED_BYTES_MAX:
        raise BadLayer(f"it has an extended header of {size} bytes")
    return file.read(size + -size % BLOCK_BYTES)[:size]


def _size_of_next(records: bytes, size: int | None) -> int | None:
    """What the records, each "LENGTH KEY=VALUE\\n", say of the next file's size; `size` when they say nothing."""
    at = 0
    while at < len(records):
        length = _LENGTH.match(records, at)
        if length is None or not 0 < int(length[1]) <= len(records) - at:
            raise BadLayer("it has a malformed extended header")
        key, _, value = records[length.end() : at + int(length[1]) - 1].partition(b"=")
        if key.startswith(b"GNU.sparse."):
            raise BadLayer("it holds a sparse file")
        if key == b"size":
            if not value.isdigit():
                raise BadLayer("it has a malformed extended header")
            size = int(value)
        at += int(length[1])
    return size


def _skip(file: _Layer, left: int) -> None:
    if isinstance(file, BufferedReader):
        file.seek(left, 1)
        return
    while left > 0:
        data = file.read(min(READ_BYTES, left))
        if not data:
            raise BadLayer("it ends in the middle of a file")
        left -= len(data)
