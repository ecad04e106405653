"""Images as folders: which are understood, and what an engine is given."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import oci
import pytest

from colla.environments.images import PORT_DEFAULT, read_image
from colla.environments.protocol import EnvironmentFault

pytestmark = pytest.mark.skipif(not oci.BUSYBOX.exists(), reason="busybox-static is not installed")


def test_an_image_is_understood(tmp_path: Path) -> None:
    image = read_image(oci.write_folder(tmp_path, oci.image(["/bin/true"], port=80)))
    assert image.id.startswith("sha256:")
    assert image.files[0].endswith(image.id.removeprefix("sha256:"))
    assert image.ports == (80,)
    assert image.port == 80


def test_the_port_is_guessed_only_where_one_is_exposed(tmp_path: Path) -> None:
    assert read_image(oci.write_folder(tmp_path, oci.image(["/bin/true"], port=None))).port == PORT_DEFAULT


def test_the_engine_is_told_no_names(tmp_path: Path) -> None:
    """An archive of a stranger must not take over the name of one of the owner's images."""
    image = read_image(oci.write_folder(tmp_path, oci.image(["/bin/true"])))
    file = io.BytesIO()
    image.write_archive(file)
    file.seek(0)
    with tarfile.open(fileobj=file) as archive:
        manifest = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
        assert sorted(archive.getnames()) == sorted({"manifest.json", *image.files})
    assert manifest[0]["RepoTags"] is None


def test_what_is_not_what_its_name_says(tmp_path: Path) -> None:
    image = read_image(oci.write_folder(tmp_path, oci.image(["/bin/true"])))
    with (tmp_path / image.files[1]).open("ab") as layer:
        layer.write(b"x")
    with pytest.raises(EnvironmentFault, match="not what its name says"):
        image.write_archive(io.BytesIO())


Spoil = Callable[[Path, list[dict[str, object]]], None]


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda folder, entries: (folder / "manifest.json").unlink(), "image_missing"),
        (lambda folder, entries: (folder / "manifest.json").write_text("{"), "image_missing"),
        (lambda folder, entries: entries.append(entries[0]), "image_malformed"),
        (lambda folder, entries: entries[0].update(Layers=[]), "image_malformed"),
        (lambda folder, entries: entries[0].update(Layers=["../../etc/passwd"]), "image_malformed"),
        (lambda folder, entries: entries[0].update(Config="/etc/passwd"), "image_malformed"),
        (lambda folder, entries: (folder / str(entries[0]["Config"])).write_text("no"), "image_malformed"),
    ],
)
def test_what_is_no_image(tmp_path: Path, spoil: Spoil, code: str) -> None:
    files = oci.image(["/bin/true"])
    oci.write_folder(tmp_path, files)
    entries = json.loads(files["manifest.json"])
    before = json.dumps(entries)
    spoil(tmp_path, entries)
    if json.dumps(entries) != before:
        (tmp_path / "manifest.json").write_text(json.dumps(entries))
    with pytest.raises(EnvironmentFault) as failed:
        read_image(tmp_path)
    assert failed.value.code == code


def test_images_for_other_systems(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="only Linux"):
        read_image(oci.write_folder(tmp_path, oci.image(["/bin/true"], os="windows")))
