"""Image archives as engines and tools write them, and as nobody should."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from colla.client.images import unpack_image
from colla.model.errors import CollaError

LAYER, CONFIG = b"a layer", b'{"architecture": "amd64"}'


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write(path: Path, files: dict[str, bytes | str], mode: str = "w") -> Path:
    """An archive; a text stands for a symbolic link to there."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            about = tarfile.TarInfo(name)
            if isinstance(content, str):
                about.type, about.linkname = tarfile.SYMTYPE, content
                archive.addfile(about)
            else:
                about.size = len(content)
                archive.addfile(about, io.BytesIO(content))
    return path


def saved(config: str, *layers: str) -> bytes:
    return json.dumps([{"Config": config, "RepoTags": ["shop:1"], "Layers": list(layers)}]).encode()


def layout(**more: Any) -> dict[str, bytes | str]:
    """An OCI image layout."""
    manifest = json.dumps(
        {"config": {"digest": f"sha256:{sha(CONFIG)}"}, "layers": [{"digest": f"sha256:{sha(LAYER)}"}]}
    ).encode()
    index = {
        "manifests": [
            {"digest": f"sha256:{sha(manifest)}", "mediaType": "application/vnd.oci.image.manifest.v1+json"}
        ]
    }
    blobs = {f"blobs/sha256/{sha(data)}": data for data in (manifest, CONFIG, LAYER)}
    return {"oci-layout": b"{}", "index.json": json.dumps(index | more).encode(), **blobs}


ARCHIVES: dict[str, dict[str, bytes | str]] = {
    "docker": {
        "manifest.json": saved(f"blobs/sha256/{sha(CONFIG)}", f"blobs/sha256/{sha(LAYER)}"),
        f"blobs/sha256/{sha(CONFIG)}": CONFIG,
        f"blobs/sha256/{sha(LAYER)}": LAYER,
    },
    "older docker": {
        "abc.json": CONFIG,
        "one/layer.tar": LAYER,
        "two/layer.tar": "../one/layer.tar",
        "manifest.json": saved("abc.json", "one/layer.tar", "two/layer.tar"),
    },
    "oci": layout(),
    "dotted": {f"./{name}": data for name, data in layout().items()},
}


@pytest.mark.parametrize("kind", ARCHIVES)
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_archive_becomes_files_named_by_their_content(tmp_path: Path, kind: str, mode: str) -> None:
    archive = write(tmp_path / "image.tar", ARCHIVES[kind], mode)
    folder = tmp_path / "folder"
    folder.mkdir()
    unpack_image(archive, folder)
    (entry,) = json.loads((folder / "manifest.json").read_bytes())
    assert entry["RepoTags"] is None
    assert entry["Config"] == f"blobs/sha256/{sha(CONFIG)}"
    assert entry["Layers"] == [f"blobs/sha256/{sha(LAYER)}"] * len(entry["Layers"])
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files == sorted({"manifest.json", entry["Config"], *entry["Layers"]})
    assert (folder / entry["Layers"][0]).read_bytes() == LAYER


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"a.txt": b""}, "it is no image"),
        ({"manifest.json": b"[]"}, "holds 0 images"),
        ({"manifest.json": b"{"}, "manifest.json is not right"),
        ({"manifest.json": saved("c.json")}, "0 layers"),
        ({"manifest.json": saved("c.json", "l.tar"), "c.json": CONFIG}, "l.tar is not in it"),
        ({"manifest.json": saved("c.json", "../../etc/passwd"), "c.json": CONFIG}, "is not in it"),
        ({"manifest.json": saved("c.json", "l"), "c.json": CONFIG, "l": "l"}, "l is not in it"),
        ({"manifest.json": saved("c.json", "l"), "c.json": CONFIG, "l": "/etc/passwd"}, "l is not in it"),
        ({"index.json": json.dumps({"manifests": []}).encode()}, "holds 0 images"),
    ],
)
def test_what_is_no_image(tmp_path: Path, files: dict[str, bytes | str], why: str) -> None:
    archive = write(tmp_path / "image.tar", files)
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(CollaError, match=why) as failed:
        unpack_image(archive, folder)
    assert failed.value.code == "bad_image"
    assert "save" in failed.value.hint


def test_what_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "image.tar").write_bytes(b"no archive at all")
    with pytest.raises(CollaError, match="cannot be read"):
        unpack_image(tmp_path / "image.tar", tmp_path)
