"""Objects as values: manifests, how files become chunks, and what a name inside a folder may be.

An object is a manifest; its id is the BLAKE3 of the manifest's bytes. The content of a manifest is one
stream, the concatenation of its files in path order, cut into chunks of at most 1 MiB. Small files therefore
share chunks: a site of several hundred files is a dozen chunks and one manifest, which is what makes putting,
fetching and syncing it fast. A chunk also ends after some small files, chosen by the hash of their path, so
that a changed file changes the chunks around it and no others. Large files have chunks of their own.

Invariants: equal files give equal ids (sorted paths, no times, no owners); a manifest is at most as long as a
chunk and only its canonical encoding is accepted; every bound is checked before memory is taken; a folder that
does not fit one manifest is a manifest of manifests, one level deep. Empty folders are not kept, as in Git.

Source: DESIGN sections 2 and 9. Pure: no reading of disks here (see `colla.node.objects`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, NamedTuple, NewType, TypeAlias, assert_never

import msgspec
from msgspec import Meta

from colla.model.errors import UNDECODABLE, CollaError
from colla.model.ids import KEY_BYTES, ObjectId, digest

ChunkId = NewType("ChunkId", bytes)
"""BLAKE3 of a chunk's bytes (32 bytes). A manifest is stored and travels as a chunk whose id is its object's."""

MANIFEST_VERSION = 1
CHUNK_BYTES_MAX = 1024 * 1024
"""No chunk and no encoded manifest is longer, so that one piece of memory fits whatever arrives."""
SMALL_FILE_BYTES_MAX = 64 * 1024
"""Files up to this long share chunks with their neighbours."""
PACK_ENDS_ONE_IN = 16
"""A shared chunk ends after one small file in this many: the price of a change against the number of chunks."""
CHUNKS_PER_MANIFEST_MAX = 16_384
FILE_BYTES_MAX = CHUNKS_PER_MANIFEST_MAX * CHUNK_BYTES_MAX
ENTRIES_PER_MANIFEST_MAX = 16_384
PARTS_MAX = 64
FILES_MAX = 200_000
"""Files in one folder, all parts together."""
PATH_BYTES_MAX = 1024
COMPONENT_BYTES_MAX = 255
DEPTH_MAX = 32

# What one element adds to an encoded manifest at most; the builder closes a part before the sum gets too long.
_ENTRY_BYTES = 16
_CHUNK_BYTES = 42
_PART_BYTES_MAX = CHUNK_BYTES_MAX - 1024

_FORBIDDEN = re.compile(r"[\\\x00-\x1f\x7f-\x9f]")
_HASH = Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)


class BadManifest(CollaError):
    """A manifest that breaks a rule (`bad_manifest`), or that a newer colla wrote (`manifest_too_new`)."""

    def __init__(self, message: str, code: str = "bad_manifest", hint: str = "") -> None:
        super().__init__(code, message, hint)


class BadPath(CollaError):
    """A file name that cannot be part of an object (`bad_path`)."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__("bad_path", f"The file name {path!r} {reason}.", "Rename or remove the file.")
        self.path = path
        self.reason = reason


class Chunk(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A piece of a stream: its hash and its length in bytes, which is never 0."""

    id: Annotated[ChunkId, _HASH]
    size: Annotated[int, Meta(ge=1, le=CHUNK_BYTES_MAX)]


class Entry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One file of a folder. `path` is relative, with `/` between its components."""

    path: Annotated[str, Meta(min_length=1, max_length=PATH_BYTES_MAX)]
    size: Annotated[int, Meta(ge=0, le=FILE_BYTES_MAX)]
    executable: bool


class Part(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One of the manifests that a large folder consists of; `manifest` names it as a chunk."""

    manifest: Chunk
    files: Annotated[int, Meta(ge=1, le=ENTRIES_PER_MANIFEST_MAX)]
    size: Annotated[int, Meta(ge=0, le=FILE_BYTES_MAX)]


_Version = Annotated[int, Meta(ge=1, le=MANIFEST_VERSION)]
_Chunks = Annotated[tuple[Chunk, ...], Meta(max_length=CHUNKS_PER_MANIFEST_MAX)]


class FileManifest(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="file"):
    """A single file without a name."""

    version: _Version
    chunks: _Chunks


class FolderManifest(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="folder"):
    """Files with their names; the chunks are those of their concatenation."""

    version: _Version
    entries: Annotated[tuple[Entry, ...], Meta(min_length=1, max_length=ENTRIES_PER_MANIFEST_MAX)]
    chunks: _Chunks


class PartsManifest(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="parts"):
    """A folder too large for one manifest: folder manifests whose paths follow each other in order."""

    version: _Version
    parts: Annotated[tuple[Part, ...], Meta(min_length=2, max_length=PARTS_MAX)]


Manifest: TypeAlias = FileManifest | FolderManifest | PartsManifest


class _Head(msgspec.Struct, array_like=True):
    """The beginning that manifests of all versions share."""

    kind: str
    version: int


class Slice(msgspec.Struct, frozen=True):
    """The bytes `[start, end)` of one chunk."""

    chunk: Chunk
    start: int
    end: int


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Manifest] = msgspec.msgpack.Decoder(Manifest)
_head_decoder = msgspec.msgpack.Decoder(_Head)


def encode_manifest(manifest: Manifest) -> bytes:
    """The canonical bytes of `manifest`: what is hashed, stored and sent."""
    return _encoder.encode(manifest)


def decode_manifest(data: bytes) -> Manifest:
    """Read and validate a manifest from another node or the disk. Raises `BadManifest`."""
    if len(data) > CHUNK_BYTES_MAX:
        raise BadManifest(f"A manifest has at most {CHUNK_BYTES_MAX} bytes, not {len(data)}.")
    try:
        head = _head_decoder.decode(data)
        if head.version > MANIFEST_VERSION:
            hint = "Update colla on this computer."
            raise BadManifest("The object was written by a newer colla.", "manifest_too_new", hint)
        manifest = _decoder.decode(data)
    except UNDECODABLE as error:
        raise BadManifest(f"The manifest cannot be read: {error}.") from None
    if encode_manifest(manifest) != data:
        raise BadManifest("The manifest is not in its canonical form.")
    if isinstance(manifest, FolderManifest):
        _check_foreign(manifest.entries)
        if sum(entry.size for entry in manifest.entries) != sum(chunk.size for chunk in manifest.chunks):
            raise BadManifest("The files of the manifest are not as long as its chunks.")
    return manifest


def decode_part(data: bytes, part: Part) -> FolderManifest:
    """Read one part of a large folder and check that it is what the whole says. Raises `BadManifest`."""
    manifest = decode_manifest(data)
    if not isinstance(manifest, FolderManifest):
        raise BadManifest("A part of a folder is not a folder.")
    if len(manifest.entries) != part.files or content_size(manifest) != part.size:
        raise BadManifest("A part of a folder is not what its whole says.")
    return manifest


def join_parts(parts: Sequence[FolderManifest]) -> None:
    """Check the rules that hold across the parts of one folder. Raises `BadManifest`."""
    if sum(len(part.entries) for part in parts) > FILES_MAX:
        raise BadManifest(f"A folder has at most {FILES_MAX} files.")
    _check_foreign([entry for part in parts for entry in part.entries])


def content_size(manifest: Manifest) -> int:
    """The length of the object's content in bytes, every file counted."""
    match manifest:
        case FileManifest() | FolderManifest():
            return sum(chunk.size for chunk in manifest.chunks)
        case PartsManifest():
            return sum(part.size for part in manifest.parts)
        case _:
            assert_never(manifest)


def file_count(manifest: Manifest) -> int:
    """How many files the object has."""
    match manifest:
        case FileManifest():
            return 1
        case FolderManifest():
            return len(manifest.entries)
        case PartsManifest():
            return sum(part.files for part in manifest.parts)
        case _:
            assert_never(manifest)


def direct_chunks(manifest: Manifest) -> tuple[Chunk, ...]:
    """The chunks that the manifest itself names: content, or the manifests of the parts."""
    match manifest:
        case FileManifest() | FolderManifest():
            return manifest.chunks
        case PartsManifest():
            return tuple(part.manifest for part in manifest.parts)
        case _:
            assert_never(manifest)


def file_slices(manifest: FolderManifest) -> Iterator[tuple[Entry, list[Slice]]]:
    """Where in the chunks each file of `manifest` lies, in path order."""
    chunks = iter(manifest.chunks)
    chunk: Chunk | None = None
    used = 0
    for entry in manifest.entries:
        slices: list[Slice] = []
        wanted = entry.size
        while wanted:
            if chunk is None or used == chunk.size:
                chunk, used = next(chunks), 0
            taken = min(wanted, chunk.size - used)
            slices.append(Slice(chunk, used, used + taken))
            used += taken
            wanted -= taken
        yield entry, slices


def check_path(path: str) -> None:
    """Raise `BadPath` unless `path` is relative, stays inside its folder and means the same everywhere."""
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        raise BadPath(path, "is not UTF-8") from None
    if len(encoded) > PATH_BYTES_MAX:
        raise BadPath(path[:64] + "…", f"is longer than {PATH_BYTES_MAX} bytes")
    if _FORBIDDEN.search(path):
        raise BadPath(path, "has a backslash or a control character")
    if path[1:2] == ":":
        raise BadPath(path, "begins like a Windows drive")
    components = path.split("/")
    if len(components) > DEPTH_MAX:
        raise BadPath(path, f"lies more than {DEPTH_MAX} folders deep")
    for component in components:
        if component in ("", ".", ".."):
            raise BadPath(path, "is no plain relative path")
        if len(component.encode()) > COMPONENT_BYTES_MAX:
            raise BadPath(path, f"has a part longer than {COMPONENT_BYTES_MAX} bytes")


def check_entries(entries: Sequence[Entry]) -> None:
    """Check the names of a folder: each valid, in strict order, none in the way of another.

    Names that differ only in case or in Unicode normalisation are refused, since they are one file on macOS
    and Windows. Raises `BadPath` or `BadManifest`.
    """
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for entry in entries:
        check_path(entry.path)
        folded = _folded(entry.path)
        if folded in files:
            raise BadPath(entry.path, f"is the same as {files[folded]!r} on some computers")
        files[folded] = entry.path
        parent = folded.rpartition("/")[0]
        while parent and parent not in folders:
            folders[parent] = entry.path
            parent = parent.rpartition("/")[0]
    for folded, path in files.items():
        if folded in folders:
            raise BadPath(path, f"is both a file and, for {folders[folded]!r}, a folder")
    if any(first.path >= second.path for first, second in pairwise(entries)):
        raise BadManifest("The files of the manifest are not in order.")


def _check_foreign(entries: Sequence[Entry]) -> None:
    try:
        check_entries(entries)
    except BadPath as error:
        raise BadManifest(error.message) from None


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


class Piece(NamedTuple):
    """A chunk with its bytes, on its way to a store."""

    id: ChunkId
    data: bytes


class Built(msgspec.Struct, frozen=True):
    """A finished object: its id, its manifests (the object's own last), content bytes and number of files."""

    object: ObjectId
    manifests: tuple[Piece, ...]
    size: int
    files: int


class FileBuilder:
    """Cuts one file into chunks: `feed` its bytes, store the chunks that come back, then `finish`."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._chunks: list[Chunk] = []
        self._size = 0

    def feed(self, data: bytes) -> list[Piece]:
        """Take the next bytes; returns the chunks that became full. Raises `CollaError` (`file_too_large`)."""
        self._size += len(data)
        check_size("", self._size)
        return _take(data, self._buffer, self._chunks)

    def finish(self) -> tuple[list[Piece], Built]:
        """The last chunk, if there is one, and the object."""
        last = [_cut(self._buffer, self._chunks)] if self._buffer else []
        manifest = FileManifest(MANIFEST_VERSION, tuple(self._chunks))
        piece = _piece(encode_manifest(manifest))
        return last, Built(ObjectId(piece.id), (piece,), content_size(manifest), 1)


class FolderBuilder:
    """Cuts the files of a folder into chunks and manifests.

    For each file in path order: `begin`, `feed` until its `size` bytes were given, `end`; at last `finish`.
    Every method returns the chunks that are complete and have to be stored.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._chunks: list[Chunk] = []
        self._entries: list[Entry] = []
        self._all_entries: list[Entry] = []
        self._part_bytes = 0
        self._parts: list[Part] = []
        self._manifests: list[Piece] = []
        self._fed = 0

    def begin(self, path: str, size: int, executable: bool) -> list[Piece]:
        """Start the next file. Raises `BadPath`, or `CollaError` (`file_too_large`, `too_many_files`)."""
        check_path(path)
        check_size(path, size)
        if len(self._all_entries) >= FILES_MAX:
            raise too_many_files()
        cost = _ENTRY_BYTES + len(path.encode()) + _CHUNK_BYTES * (2 + size // CHUNK_BYTES_MAX)
        closes_part = self._part_bytes + cost > _PART_BYTES_MAX or self._part_is_full(size)
        own_chunks = size > SMALL_FILE_BYTES_MAX
        done = self._cut_rest() if closes_part or own_chunks or self._overflows(size) else []
        if closes_part:
            self._close_part()
        self._part_bytes += cost
        entry = Entry(path, size, executable)
        self._entries.append(entry)
        self._all_entries.append(entry)
        self._fed = 0
        return done

    def feed(self, data: bytes) -> list[Piece]:
        """Take the next bytes of the file that was begun last."""
        self._fed += len(data)
        return _take(data, self._buffer, self._chunks)

    def end(self) -> list[Piece]:
        """Finish the file. Raises `CollaError` (`changed_meanwhile`) if it is not as long as was said."""
        entry = self._entries[-1]
        if self._fed != entry.size:
            raise changed_meanwhile(entry.path)
        if entry.size > SMALL_FILE_BYTES_MAX or digest(entry.path.encode())[0] % PACK_ENDS_ONE_IN == 0:
            return self._cut_rest()
        return []

    def finish(self) -> tuple[list[Piece], Built]:
        """The last chunk, if there is one, and the object. Raises `BadPath`, `CollaError` (`folder_empty`)."""
        if not self._all_entries:
            raise CollaError("folder_empty", "The folder has no files.", "Put at least one file into it.")
        check_entries(self._all_entries)
        last = self._cut_rest()
        self._close_part()
        if len(self._parts) > PARTS_MAX:
            raise too_many_files()
        if len(self._parts) > 1:
            whole = PartsManifest(MANIFEST_VERSION, tuple(self._parts))
            self._manifests.append(_piece(encode_manifest(whole)))
        size = sum(part.size for part in self._parts)
        manifests = tuple(self._manifests)
        return last, Built(ObjectId(manifests[-1].id), manifests, size, len(self._all_entries))

    def _overflows(self, size: int) -> bool:
        # A small file lies in one chunk whole, so that reading it takes one read.
        return len(self._buffer) + size > CHUNK_BYTES_MAX

    def _part_is_full(self, size: int) -> bool:
        chunks = len(self._chunks) + 2 + size // CHUNK_BYTES_MAX
        full = chunks > CHUNKS_PER_MANIFEST_MAX or len(self._entries) >= ENTRIES_PER_MANIFEST_MAX
        return full and bool(self._entries)

    def _cut_rest(self) -> list[Piece]:
        return [_cut(self._buffer, self._chunks)] if self._buffer else []

    def _close_part(self) -> None:
        if not self._entries:
            return
        manifest = FolderManifest(MANIFEST_VERSION, tuple(self._entries), tuple(self._chunks))
        piece = _piece(encode_manifest(manifest))
        chunk = Chunk(piece.id, len(piece.data))
        self._parts.append(Part(chunk, len(manifest.entries), content_size(manifest)))
        self._manifests.append(piece)
        self._entries, self._chunks, self._part_bytes = [], [], 0


def build_file(data: bytes) -> tuple[Built, dict[ChunkId, bytes]]:
    """A file object made in memory: the object and all its chunks, its manifest among them."""
    builder = FileBuilder()
    chunks = builder.feed(data)
    last, built = builder.finish()
    return built, dict([*chunks, *last, *built.manifests])


def build_folder(files: Mapping[str, tuple[bytes, bool]]) -> tuple[Built, dict[ChunkId, bytes]]:
    """A folder object made in memory from path → (content, executable); as `FolderBuilder`."""
    builder = FolderBuilder()
    chunks: list[Piece] = []
    for path in sorted(files):
        data, executable = files[path]
        chunks += builder.begin(path, len(data), executable)
        chunks += builder.feed(data)
        chunks += builder.end()
    last, built = builder.finish()
    return built, dict([*chunks, *last, *built.manifests])


def check_size(path: str, size: int) -> None:
    """Raise `CollaError` (`file_too_large`) if a file of `size` bytes cannot be part of an object."""
    if size > FILE_BYTES_MAX:
        limit = f"A file may have {FILE_BYTES_MAX >> 30} GiB at most."
        named = f"The file {path!r}" if path else "The file"
        raise CollaError("file_too_large", f"{named} is too large.", limit)


def too_many_files() -> CollaError:
    """The folder has more files than an object can (`too_many_files`)."""
    return CollaError("too_many_files", f"The folder has more than {FILES_MAX} files.", "Divide it.")


def changed_meanwhile(path: str) -> CollaError:
    """A file changed while it was read (`changed_meanwhile`)."""
    return CollaError("changed_meanwhile", f"The file {path!r} changed while it was read.", "Try again.")


def _piece(data: bytes) -> Piece:
    return Piece(ChunkId(digest(data)), data)


def _cut(buffer: bytearray, chunks: list[Chunk]) -> Piece:
    piece = _piece(bytes(memoryview(buffer)[:CHUNK_BYTES_MAX]))
    del buffer[:CHUNK_BYTES_MAX]
    chunks.append(Chunk(piece.id, len(piece.data)))
    return piece


def _take(data: bytes, buffer: bytearray, chunks: list[Chunk]) -> list[Piece]:
    """Add `data` to what is gathered in `buffer`; the chunks that became full."""
    if not buffer and len(data) == CHUNK_BYTES_MAX:
        # The rule with large files: the bytes that were read are the chunk, and nothing is copied.
        piece = _piece(data)
        chunks.append(Chunk(piece.id, len(data)))
        return [piece]
    buffer += data
    full: list[Piece] = []
    while len(buffer) >= CHUNK_BYTES_MAX:
        full.append(_cut(buffer, chunks))
    return full
