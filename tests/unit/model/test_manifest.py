"""Manifests: equal files give equal objects, and nothing malformed gets through."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colla.model.errors import CollaError
from colla.model.ids import digest
from colla.model.manifest import (
    CHUNK_BYTES_MAX,
    COMPONENT_BYTES_MAX,
    DEPTH_MAX,
    MANIFEST_VERSION,
    PATH_BYTES_MAX,
    SMALL_FILE_BYTES_MAX,
    BadManifest,
    BadPath,
    Built,
    Chunk,
    ChunkId,
    Entry,
    FileManifest,
    FolderManifest,
    Part,
    PartsManifest,
    build_file,
    build_folder,
    check_path,
    content_size,
    decode_manifest,
    decode_part,
    encode_manifest,
    file_count,
    file_slices,
    join_parts,
)

A = Chunk(ChunkId(digest(b"a")), 1)

names = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="/\\:"), min_size=1, max_size=8
)
paths = st.lists(names.filter(lambda name: name not in (".", "..")), min_size=1, max_size=3).map("/".join)
contents = st.one_of(
    st.binary(max_size=64),
    st.integers(0, 3 * SMALL_FILE_BYTES_MAX).map(lambda size: bytes([size % 251]) * size),
)
folders = st.dictionaries(paths, st.tuples(contents, st.booleans()), min_size=1, max_size=8)


def read_back(built: Built, chunks: dict[ChunkId, bytes]) -> dict[str, tuple[bytes, bool]]:
    """The files of a folder object, by a way of their own: concatenate all, then cut by the lengths."""
    manifest = decode_manifest(chunks[ChunkId(built.object)])
    parts = [manifest] if isinstance(manifest, FolderManifest) else []
    if isinstance(manifest, PartsManifest):
        parts = [decode_part(chunks[part.manifest.id], part) for part in manifest.parts]
        join_parts(parts)
    files: dict[str, tuple[bytes, bool]] = {}
    for part in parts:
        stream = b"".join(chunks[chunk.id] for chunk in part.chunks)
        for entry in part.entries:
            files[entry.path] = (stream[: entry.size], entry.executable)
            stream = stream[entry.size :]
        assert not stream
    return files


@given(folders)
def test_a_folder_comes_back_as_it_was_or_is_refused_for_its_names(
    files: dict[str, tuple[bytes, bool]],
) -> None:
    try:
        built, chunks = build_folder(files)
    except BadPath:
        folded = [path.casefold() for path in files]
        clash = any(one != other and (other + "/").startswith(one) for one in folded for other in folded)
        assert clash or len(dict.fromkeys(folded)) < len(folded) or not all(path.isascii() for path in files)
        return
    assert read_back(built, chunks) == files
    assert all(digest(data) == chunk and 0 < len(data) <= CHUNK_BYTES_MAX for chunk, data in chunks.items())
    assert built.size == sum(len(data) for data, _ in files.values())
    assert built.files == len(files)


@given(folders, st.randoms())
def test_the_order_in_which_files_are_found_does_not_matter(files, random) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(files.items())
    random.shuffle(shuffled)
    try:
        expected = build_folder(files)
    except BadPath:
        return
    assert build_folder(dict(shuffled)) == expected


@given(folders)
def test_slices_name_the_bytes_of_each_file(files: dict[str, tuple[bytes, bool]]) -> None:
    try:
        built, chunks = build_folder(files)
    except BadPath:
        return
    manifest = decode_manifest(chunks[ChunkId(built.object)])
    assert isinstance(manifest, FolderManifest)
    for entry, slices in file_slices(manifest):
        assert (
            b"".join(chunks[piece.chunk.id][piece.start : piece.end] for piece in slices)
            == files[entry.path][0]
        )
        if entry.size <= SMALL_FILE_BYTES_MAX:
            assert len(slices) <= 1


@given(st.binary(max_size=300))
def test_bytes_that_are_no_manifest_are_refused_or_canonical(data: bytes) -> None:
    try:
        manifest = decode_manifest(data)
    except BadManifest:
        return
    assert encode_manifest(manifest) == data


@given(folders, st.data())
def test_a_manifest_with_one_byte_changed_is_another_object_or_refused(files, data) -> None:  # type: ignore[no-untyped-def]
    try:
        built, _ = build_folder(files)
    except BadPath:
        return
    encoded = bytearray(built.manifests[-1].data)
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        manifest = decode_manifest(bytes(encoded))
    except BadManifest:
        return
    assert digest(encode_manifest(manifest)) != built.object


def test_many_small_files_are_few_chunks() -> None:
    files = {f"pages/{number:03}.html": (b"%d" % number * 2000, False) for number in range(300)}
    built, chunks = build_folder(files)
    assert len(built.manifests) == 1
    assert len(chunks) < 40


def test_changing_one_file_leaves_most_chunks_as_they_are() -> None:
    files = {f"pages/{number:03}.html": (b"%d" % number * 2000, False) for number in range(300)}
    _, before = build_folder(files)
    files["pages/150.html"] = (b"something new and longer" * 999, False)
    _, after = build_folder(files)
    changed = [chunk for chunk in after if chunk not in before]
    assert len(changed) == 2  # The chunk around the file, and the manifest.


def test_a_large_file_has_chunks_of_its_own() -> None:
    video = b"".join(digest(number.to_bytes(4, "big")) for number in range(80 * 1024))
    _, alone = build_folder({"video": (video, False)})
    _, beside = build_folder({"a": (b"x", False), "video": (video, False), "z": (b"y", False)})
    assert len(alone) == 3 + 1  # The manifest.
    assert len([chunk for chunk in alone if chunk in beside]) == 3


def test_a_folder_beyond_one_manifest_is_a_manifest_of_manifests() -> None:
    files = {f"{'long-name' * 20}/{number:05}-{'x' * 200}": (b"%d" % number, False) for number in range(4000)}
    built, chunks = build_folder(files)
    assert len(built.manifests) > 2
    assert all(len(piece.data) <= CHUNK_BYTES_MAX for piece in built.manifests)
    whole = decode_manifest(chunks[ChunkId(built.object)])
    assert isinstance(whole, PartsManifest)
    assert (file_count(whole), content_size(whole)) == (4000, built.size)
    assert read_back(built, chunks) == files


def test_a_file_of_several_chunks() -> None:
    data = b"0123456789abcdef" * (CHUNK_BYTES_MAX // 16) + b"end"
    built, chunks = build_file(data * 2)
    manifest = decode_manifest(chunks[ChunkId(built.object)])
    assert isinstance(manifest, FileManifest)
    assert b"".join(chunks[chunk.id] for chunk in manifest.chunks) == data * 2
    assert build_file(b"")[0].size == 0


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "..",
        "../x",
        "a/../../x",
        "a/..",
        ".",
        "./a",
        "a/./b",
        "a//b",
        "a/",
        "a\0b",
        "a\nb",
        "a\x1b[31m",
        "..\\x",
        "a\\b",
        "C:x",
        "c:/windows",
        "\udcff",
        "x" * (COMPONENT_BYTES_MAX + 1),
        "é" * 200,
        "/".join("x" for _ in range(DEPTH_MAX + 1)),
        "/".join("x" * 200 for _ in range(PATH_BYTES_MAX // 200 + 1)),
    ],
)
def test_names_that_could_lead_elsewhere_are_refused(path: str) -> None:
    with pytest.raises(BadPath):
        check_path(path)
    with pytest.raises(CollaError):
        build_folder({path: (b"a", False)})
    try:
        forged = msgspec.msgpack.encode(["folder", MANIFEST_VERSION, [[path, 1, False]], [[A.id, 1]]])
    except UnicodeEncodeError:
        return
    with pytest.raises(BadManifest):
        decode_manifest(forged)


@pytest.mark.parametrize(
    "path", ["a", ".hidden", "a b", "ä/ö.txt", "...", "a..b", "x" * COMPONENT_BYTES_MAX, "Ωmega: 1"]
)
def test_ordinary_names_are_fine(path: str) -> None:
    check_path(path)


@pytest.mark.parametrize(
    "pair",
    [
        ("README", "readme"),
        ("dir/A", "dir/a"),
        ("é", "e\u0301"),
        ("straße", "STRASSE"),
        ("a", "a/b"),
        ("A", "a/b"),
        ("a", "a/b/c"),
    ],
)
def test_names_that_are_one_file_on_some_computers_are_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(BadPath):
        build_folder(dict.fromkeys(pair, (b"", False)))


@pytest.mark.parametrize(
    "forged",
    [
        b"",
        b"\xc1",
        b"\x93\xa4file\x01" + b"\x91" * 5000,
        b"\x94\xa6folder\x01\x91\x93\xa1\xff\x00\xc2\x90",
        b"\xdf\xff\xff\xff\xff",
        b"\x93\xa4file\x01\xdd\xff\xff\xff\xff",
        ["file", 1],
        ["file", 0, []],
        ["file", 1, [], "more"],
        ["other", 1, []],
        ["file", 1, [[b"short", 1]]],
        ["file", 1, [[A.id, 0]]],
        ["file", 1, [[A.id, CHUNK_BYTES_MAX + 1]]],
        ["folder", 1, [], []],
        ["folder", 1, [["a", 2, False]], [[A.id, 1]]],
        ["folder", 1, [["a", -1, False]], []],
        ["folder", 1, [["b", 1, False], ["a", 0, False]], [[A.id, 1]]],
        ["parts", 1, [[[A.id, 1], 1, 1]]],
    ],
)
def test_malformed_manifests_are_refused(forged: object) -> None:
    data = forged if isinstance(forged, bytes) else msgspec.msgpack.encode(forged)
    with pytest.raises(BadManifest):
        decode_manifest(data)


def test_what_is_not_canonical_is_refused() -> None:
    data = encode_manifest(FileManifest(MANIFEST_VERSION, (A,)))
    with pytest.raises(BadManifest):
        decode_manifest(data + b"\0")
    longer_integer = data[:-1] + b"\xcc\x01"
    with pytest.raises(BadManifest, match="canonical"):
        decode_manifest(longer_integer)


def test_a_manifest_too_long_is_refused_unread() -> None:
    with pytest.raises(BadManifest, match="at most"):
        decode_manifest(bytes(CHUNK_BYTES_MAX + 1))


def test_a_newer_version_says_so() -> None:
    with pytest.raises(BadManifest) as caught:
        decode_manifest(msgspec.msgpack.encode(["folder", MANIFEST_VERSION + 1, {"anything": 1}, 5]))
    assert caught.value.code == "manifest_too_new"


def test_parts_have_to_be_what_their_whole_says() -> None:
    one = FolderManifest(MANIFEST_VERSION, (Entry("a", 1, False),), (A,))
    two = FolderManifest(MANIFEST_VERSION, (Entry("b", 1, False),), (A,))
    data = encode_manifest(one)
    chunk = Chunk(ChunkId(digest(data)), len(data))
    assert decode_part(data, Part(chunk, 1, 1)) == one
    with pytest.raises(BadManifest):
        decode_part(data, Part(chunk, 2, 1))
    with pytest.raises(BadManifest):
        decode_part(encode_manifest(FileManifest(MANIFEST_VERSION, (A,))), Part(chunk, 1, 1))
    join_parts([one, two])
    with pytest.raises(BadManifest):
        join_parts([two, one])
    with pytest.raises(BadManifest):
        join_parts([one, one])


def test_an_empty_folder_is_refused() -> None:
    with pytest.raises(CollaError) as caught:
        build_folder({})
    assert caught.value.code == "folder_empty"
