"""Image archives as engines and tools write them, and as nobody should."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from colla.client.images import AddedFile, add_files, unpack_image, volumes
from colla.client.staging import staged
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


def image_of(folder: Path, about: dict[str, Any]) -> Path:
    """An archive with one layer and this configuration."""
    encoded = json.dumps(about).encode()
    files = {"manifest.json": saved("c.json", "l.tar"), "c.json": encoded, "l.tar": LAYER}
    return write(folder / "image.tar", files)


def test_files_become_a_layer_on_top(tmp_path: Path) -> None:
    about = {
        "rootfs": {"type": "layers", "diff_ids": ["sha256:00"]},
        "history": [{}],
        "config": {"Cmd": ["a"]},
    }
    files = [AddedFile("/etc/shop.conf", b"red", 0o640, 103, 104), AddedFile("/page", b"", 0o444)]
    names = []
    for _ in range(2):
        with staged(image_of(tmp_path, about), files=files) as ready:
            assert not ready.warning
            (entry,) = json.loads((ready.folder / "manifest.json").read_bytes())
            config = json.loads((ready.folder / entry["Config"]).read_bytes())
            layer = (ready.folder / entry["Layers"][1]).read_bytes()
            blobs = {path.name for path in (ready.folder / "blobs" / "sha256").iterdir()}
        names.append(entry["Config"])
        assert blobs == {path.rpartition("/")[2] for path in (entry["Config"], *entry["Layers"])}
        assert config["rootfs"]["diff_ids"] == ["sha256:00", f"sha256:{sha(layer)}"]
        assert len(config["history"]) == 2
        assert config["config"] == {"Cmd": ["a"]}
        with tarfile.open(fileobj=io.BytesIO(layer)) as opened:
            (conf, page) = opened.getmembers()
            assert (conf.name, conf.mode, conf.uid, conf.gid) == ("etc/shop.conf", 0o640, 103, 104)
            assert opened.extractfile(conf).read() == b"red"  # type: ignore[union-attr]
            assert (page.name, page.size) == ("page", 0)
    assert names[0] == names[1], "the same files make the same image"


@pytest.mark.parametrize("about", [{}, {"rootfs": []}, {"rootfs": {"diff_ids": None}}])
def test_an_image_that_names_no_layers_gets_none(tmp_path: Path, about: dict[str, Any]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    unpack_image(image_of(tmp_path, about), folder)
    with pytest.raises(CollaError, match="names no layers"):
        add_files(folder, [AddedFile("/a", b"", 0o444)])


def test_what_an_image_would_lose_is_said(tmp_path: Path) -> None:
    with staged(image_of(tmp_path, {"config": {"Volumes": {"/var/lib/data": {}}}})) as ready:
        assert volumes(ready.folder) == ("/var/lib/data",)
        assert "/var/lib/data" in ready.warning and "lost" in ready.warning
    with staged(image_of(tmp_path, {"config": None})) as ready:
        assert not ready.warning
