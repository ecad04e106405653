"""Image archives unpacked for the group: `docker save`, `podman save` (both formats) and OCI archives, compressed or not.

The result is a folder with `manifest.json` and the image's configuration and layers named by their SHA-256, so that images which share
layers share what travels and what is stored. Names and tags are left behind. Nothing of the archive is trusted: every file is
named by what it contains, and nothing is written but under such a name. Further files become a layer on top.
"""

from __future__ import annotations

import hashlib
import io
import posixpath
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Final, TypeVar

import msgspec

from colla.model.errors import CollaError

SUFFIXES: Final = (".tar", ".tar.gz", ".tgz", ".oci")
MEMBERS_MAX: Final = 2048
LAYERS_MAX: Final = 128
META_BYTES_MAX: Final = 4 << 20
BLOCK_BYTES: Final = 1 << 20
LINKS_MAX: Final = 8
HOW: Final = "Make one with `podman save -o image.tar NAME` or `docker save -o image.tar NAME`."
_INDEXES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)


T = TypeVar("T")


class _Saved(msgspec.Struct, rename="pascal"):
    """An entry of `manifest.json`, as `docker save` writes it."""

    config: str
    layers: list[str]


class _Descriptor(msgspec.Struct, rename="camel"):
    """A reference of the OCI image layout."""

    digest: str
    media_type: str = ""


class _Index(msgspec.Struct):
    manifests: list[_Descriptor]


class _Manifest(msgspec.Struct):
    config: _Descriptor
    layers: list[_Descriptor]


class AddedFile(msgspec.Struct, frozen=True):
    """A file that the image shall have besides its own: where, from its root on, what, and whose."""

    path: str
    data: bytes
    mode: int
    user: int = 0
    group: int = 0


def unpack_image(archive: Path, folder: Path) -> None:
    """Write the archive's one image into the empty `folder`. Raises `CollaError("bad_image")`."""
    try:
        with tarfile.open(archive, "r:*") as opened:
            members = {}
            for member in opened:
                members[posixpath.normpath(member.name)] = member
                if len(members) > MEMBERS_MAX:
                    raise _bad(archive, f"it has more than {MEMBERS_MAX} files")
            _Unpacking(archive, opened, members, folder).run()
    except tarfile.TarError as error:
        raise _bad(archive, f"it cannot be read ({error})") from None
    except OSError as error:
        raise CollaError("bad_image", f"{archive} cannot be unpacked: {error}.", HOW) from None


def add_files(folder: Path, files: Sequence[AddedFile]) -> None:
    """Put a layer with the files on top of the unpacked image. Raises `CollaError("bad_image")`.

    The same files make the same layer, so that an image that did not change does not travel again.
    """
    (entry,) = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=list[_Saved])
    about = _configuration(folder, entry)
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for file in files:
            member = tarfile.TarInfo(file.path.lstrip("/"))
            member.size, member.mode, member.uid, member.gid = (
                len(file.data),
                file.mode,
                file.user,
                file.group,
            )
            archive.addfile(member, io.BytesIO(file.data))
    rootfs = about.get("rootfs")
    digests = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(digests, list) or len(entry.layers) >= LAYERS_MAX:
        raise _bad(folder, "its configuration names no layers, or too many for one more")
    name = _keep(folder, layer.getvalue())
    digests.append(f"sha256:{name.rpartition('/')[2]}")
    if isinstance(about.get("history"), list):
        about["history"].append({"created_by": "colla deploy: configs of the Compose file"})
    config = _keep(folder, msgspec.json.encode(about))
    (folder / entry.config).unlink()
    saved = {"Config": config, "RepoTags": None, "Layers": [*entry.layers, name]}
    (folder / "manifest.json").write_bytes(msgspec.json.encode([saved]))


def volumes(folder: Path) -> tuple[str, ...]:
    """Where the unpacked image keeps what shall outlive a container: what each replica here loses. Raises `CollaError`."""
    (entry,) = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=list[_Saved])
    config = _configuration(folder, entry).get("config")
    kept = config.get("Volumes") if isinstance(config, dict) else None
    return tuple(sorted(map(str, kept))) if isinstance(kept, dict) else ()


def _configuration(folder: Path, entry: _Saved) -> dict[str, Any]:
    path = folder / entry.config
    try:
        if path.stat().st_size > META_BYTES_MAX:
            raise _bad(folder, "its configuration is too long")
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise _bad(folder, f"its configuration is not right ({error})") from None


def _keep(folder: Path, data: bytes) -> str:
    name = f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"
    (folder / name).write_bytes(data)
    return name


class _Unpacking:
    def __init__(
        self, archive: Path, opened: tarfile.TarFile, members: dict[str, tarfile.TarInfo], folder: Path
    ) -> None:
        self._archive = archive
        self._opened = opened
        self._members = members
        self._folder = folder
        self._written: dict[str, str] = {}

    def run(self) -> None:
        if "manifest.json" in self._members:
            saved = self._decoded("manifest.json", list[_Saved])
            if len(saved) != 1:
                raise _bad(self._archive, f"it holds {len(saved)} images, and one is deployed")
            config, layers = saved[0].config, saved[0].layers
        elif "index.json" in self._members:
            config, layers = self._of_layout(self._decoded("index.json", _Index))
        else:
            raise _bad(self._archive, "it is no image: neither manifest.json nor index.json is in it")
        if not 0 < len(layers) <= LAYERS_MAX:
            raise _bad(self._archive, f"it has {len(layers)} layers; 1 to {LAYERS_MAX} are possible")
        (self._folder / "blobs" / "sha256").mkdir(parents=True)
        entry = {
            "Config": self._write(config),
            "RepoTags": None,
            "Layers": [self._write(name) for name in layers],
        }
        (self._folder / "manifest.json").write_bytes(msgspec.json.encode([entry]))

    def _of_layout(self, index: _Index) -> tuple[str, list[str]]:
        """Follow the layout to its one image; nested indexes are followed once."""
        found = index.manifests
        if len(found) == 1 and found[0].media_type in _INDEXES:
            found = self._decoded(_blob(found[0].digest), _Index).manifests
        if len(found) != 1:
            raise _bad(
                self._archive,
                f"it holds {len(found)} images (for several architectures?), and one is deployed",
            )
        manifest = self._decoded(_blob(found[0].digest), _Manifest)
        return _blob(manifest.config.digest), [_blob(layer.digest) for layer in manifest.layers]

    def _decoded(self, name: str, kind: type[T]) -> T:
        with self._open(name) as file:
            data = file.read(META_BYTES_MAX + 1)
        if len(data) > META_BYTES_MAX:
            raise _bad(self._archive, f"{name} is too long")
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.DecodeError as error:
            raise _bad(self._archive, f"{name} is not right ({error})") from None

    def _open(self, name: str) -> IO[bytes]:
        """The content of a member; older `docker save` writes a layer that comes twice as a link."""
        path = posixpath.normpath(name)
        for _ in range(LINKS_MAX):
            member = self._members.get(path)
            if member is None or not (member.isfile() or member.issym()):
                break
            if member.isfile():
                opened = self._opened.extractfile(member)
                assert opened is not None, "a file of an archive has a content"
                return opened
            path = posixpath.normpath(posixpath.join(posixpath.dirname(path), member.linkname))
        raise _bad(self._archive, f"{name} is not in it")

    def _write(self, name: str) -> str:
        """Store a member under the hash of its content; returns that name."""
        if name in self._written:
            return self._written[name]
        fresh = self._folder / "blobs" / "new"
        hasher = hashlib.sha256()
        with self._open(name) as source, fresh.open("wb") as target:
            while block := source.read(BLOCK_BYTES):
                hasher.update(block)
                target.write(block)
        self._written[name] = f"blobs/sha256/{hasher.hexdigest()}"
        fresh.replace(self._folder / self._written[name])
        return self._written[name]


def _blob(digest: str) -> str:
    kind, _, value = digest.partition(":")
    return f"blobs/{kind}/{value}"


def _bad(archive: Path, why: str) -> CollaError:
    return CollaError("bad_image", f"{archive} cannot be deployed: {why}.", HOW)
