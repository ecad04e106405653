"""Container images as folders: what `colla deploy` makes of an archive, and what an engine is given of it.

A folder holds `manifest.json` (as `docker save` writes it), the image's configuration and its layers as files named by
their SHA-256, so that images that share layers share their chunks. Invariant: what reaches the engine names nothing (no tag of the
owner's own images can be taken over), and every file is what its name says.
"""

from __future__ import annotations

import hashlib
import io
import posixpath
import re
import tarfile
from pathlib import Path
from typing import IO, Final

import msgspec

from colla.environments.driver import fault
from colla.environments.layers import BadLayer, measure

MANIFEST: Final = "manifest.json"
MANIFEST_BYTES_MAX: Final = 1 << 20
CONFIG_BYTES_MAX: Final = 1 << 20
LAYERS_MAX: Final = 128
UNPACKED_BYTES_MAX: Final = 16 << 30
"""Of all layers of an image together, in the engine's storage."""
ENTRIES_MAX: Final = 1_000_000
"""Files of an image; each takes an inode of the disk."""
VOLUMES_MAX: Final = 16
BLOCK_BYTES: Final = 1 << 20
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_VOLUME = re.compile(r"(/[\w@+-][\w.@+-]{0,127}){1,16}/?")
"""No part that begins with a dot, nor what separates options of mounts."""
PORT_DEFAULT: Final = 8080


class ManifestEntry(msgspec.Struct, frozen=True, rename="pascal"):
    """One image of an archive."""

    config: str
    layers: tuple[str, ...]


class _Settings(msgspec.Struct, frozen=True, rename="pascal"):
    exposed_ports: dict[str, object] | None = None
    volumes: dict[str, object] | None = None
    working_dir: str = ""


class _Config(msgspec.Struct, frozen=True):
    architecture: str = ""
    os: str = ""
    config: _Settings | None = None


class Image(msgspec.Struct, frozen=True):
    """The one image of a folder. `id` is how every engine names it: the hash of its configuration."""

    folder: Path
    id: str
    files: tuple[str, ...]
    """The configuration, then the layers from the lowest on."""
    architecture: str
    ports: tuple[int, ...]
    volumes: tuple[str, ...]

    @property
    def port(self) -> int:
        """Where its program listens unless it is told: the one port that it exposes, else 8080."""
        return self.ports[0] if len(self.ports) == 1 else PORT_DEFAULT

    def write_archive(self, file: IO[bytes]) -> None:
        """The archive that engines load, without any name. Raises `EnvironmentFault` when a file is not what it should be."""
        entry = {"Config": self.files[0], "RepoTags": None, "Layers": list(self.files[1:])}
        for name in dict.fromkeys(self.files):
            self._check(name)
        self._measure()
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            _add(archive, MANIFEST, msgspec.json.encode([entry]))
            for name in dict.fromkeys(self.files):
                with (self.folder / name).open("rb") as content:
                    about = tarfile.TarInfo(name)
                    about.size = (self.folder / name).stat().st_size
                    archive.addfile(about, content)

    def _measure(self) -> None:
        size_bytes = entries = 0
        for name in self.files[1:]:
            try:
                found = measure(self.folder / name, UNPACKED_BYTES_MAX - size_bytes, ENTRIES_MAX - entries)
            except BadLayer as why:
                text = f"A layer of the image cannot be given to the engine: {why}."
                raise fault(
                    "layer_refused", text, "Save the image anew with `docker save` or `podman save`."
                ) from None
            size_bytes, entries = size_bytes + found.size_bytes, entries + found.entries

    def _check(self, name: str) -> None:
        hasher = hashlib.sha256()
        with (self.folder / name).open("rb") as content:
            while block := content.read(BLOCK_BYTES):
                hasher.update(block)
        if hasher.hexdigest() != name.rpartition("/")[2]:
            raise fault("image_damaged", f"The file {name} of the image is not what its name says.")


def read_image(folder: Path) -> Image:
    """Understand the folder. Raises `EnvironmentFault`."""
    try:
        entries = msgspec.json.decode(_read(folder / MANIFEST, MANIFEST_BYTES_MAX), type=list[ManifestEntry])
    except (OSError, msgspec.DecodeError) as error:
        raise fault(
            "image_missing", f"The folder holds no image: {error}.", "Deploy the image's archive."
        ) from None
    if len(entries) != 1 or not 0 < len(entries[0].layers) <= LAYERS_MAX:
        raise fault("image_malformed", f"The folder must hold one image of at most {LAYERS_MAX} layers.")
    files = (entries[0].config, *entries[0].layers)
    for name in files:
        if not _BLOB.fullmatch(name) or not (folder / name).is_file() or (folder / name).is_symlink():
            raise fault(
                "image_malformed",
                f"The image names {name[:100]!r}, which is no file of it.",
                "Deploy it anew.",
            )
    data = _read(folder / files[0], CONFIG_BYTES_MAX)
    try:
        config = msgspec.json.decode(data, type=_Config)
    except msgspec.DecodeError as error:
        raise fault("image_malformed", f"The image's configuration cannot be read: {error}.") from None
    if config.os not in ("", "linux"):
        raise fault("image_not_linux", f"The image is for {config.os}, and only Linux images can be run.")
    settings = config.config or _Settings()
    _check_settings(settings)
    ports = [int(port.partition("/")[0]) for port in settings.exposed_ports or {} if _is_tcp(port)]
    return Image(
        folder=folder,
        id=f"sha256:{hashlib.sha256(data).hexdigest()}",
        files=files,
        architecture=config.architecture,
        ports=tuple(sorted(ports)),
        volumes=tuple(sorted(settings.volumes or {})),
    )


def _check_settings(settings: _Settings) -> None:
    """Refuse what only makes sense to break out with; engines of today refuse most of it too. Raises `EnvironmentFault`."""
    # runc before 1.1.12 entered /proc/self/fd/N as working folder, which led out of the container (CVE-2024-21626).
    folder = posixpath.normpath(posixpath.join("/", settings.working_dir)).lstrip("/")
    if folder.split("/", 1)[0] in ("proc", "sys", "dev"):
        raise fault("image_malformed", f"The image wants to work in {settings.working_dir[:100]!r}.")
    volumes = settings.volumes or {}
    if len(volumes) > VOLUMES_MAX or not all(_VOLUME.fullmatch(path) for path in volumes):
        raise fault("image_malformed", f"The image may name {VOLUMES_MAX} volumes, by whole plain paths.")


def _is_tcp(port: str) -> bool:
    number, _, kind = port.partition("/")
    return kind in ("", "tcp") and number.isdigit() and 0 < int(number) < 65536


def _read(path: Path, bytes_max: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise OSError(f"{path.name} has more than {bytes_max} bytes")
    return data


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    about = tarfile.TarInfo(name)
    about.size = len(data)
    archive.addfile(about, io.BytesIO(data))
