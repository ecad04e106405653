"""Container images for tests, made without any registry or engine: busybox and a few files, as `docker save` writes them.

And Podman with its storage in a folder of the test's own, so that nothing of it meets what else runs on the computer.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import shutil
import tarfile
from pathlib import Path
from typing import Any

CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
# The last line: where a user has one user id alone, files of images cannot have other owners.
STORAGE_CONF = """
[storage]
driver = "vfs"
graphroot = "{folder}/graph"
runroot = "{folder}/run"
[storage.options.vfs]
ignore_chown_errors = "true"
"""
BUSYBOX = Path("/bin/busybox")
APPLETS = (
    "sh",
    "httpd",
    "sleep",
    "echo",
    "id",
    "ls",
    "cat",
    "touch",
    "wget",
    "nc",
    "head",
    "tail",
    "yes",
    "dd",
    "true",
)
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def problem() -> str:
    """Why containers cannot be tested here; empty when they can."""
    if shutil.which("podman") is None:
        return "podman is not installed"
    return "" if BUSYBOX.exists() else "busybox-static is not installed"


def podman_settings(folder: Path) -> dict[str, str]:
    """Variables for whoever starts Podman, after whose settings everything of it stays in this folder."""
    folder.mkdir(exist_ok=True)
    settings = {"containers.conf": CONTAINERS_CONF, "storage.conf": STORAGE_CONF.format(folder=folder)}
    for name, text in settings.items():
        (folder / name).write_text(text)
    return {
        "CONTAINERS_CONF": str(folder / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
    }


def layer(files: dict[str, bytes]) -> bytes:
    """A layer with busybox and these files (paths without a leading slash)."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for folder in ("bin", "tmp", "www"):
            about = tarfile.TarInfo(folder)
            about.type, about.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(about)
        _add(archive, "bin/busybox", BUSYBOX.read_bytes(), 0o755)
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
        for name, content in files.items():
            _add(archive, name, content, 0o644)
    return data.getvalue()


def image(
    command: list[str], files: dict[str, bytes] | None = None, *, port: int | None = 8080, **config: Any
) -> dict[str, bytes]:
    """The files of an image's archive: `manifest.json`, the configuration, one layer."""
    content = layer(files or {})
    settings: dict[str, Any] = {"Cmd": command, "Env": ["PATH=/bin"]}
    if port is not None:
        settings["ExposedPorts"] = {f"{port}/tcp": {}}
    about = {
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_sha(content)}"]},
        "history": [{}],
    } | config
    encoded = json.dumps(about, sort_keys=True).encode()
    names = [f"blobs/sha256/{_sha(data)}" for data in (encoded, content)]
    manifest = [{"Config": names[0], "RepoTags": ["localhost/taken:latest"], "Layers": [names[1]]}]
    return {"manifest.json": json.dumps(manifest).encode(), names[0]: encoded, names[1]: content}


def with_layer(image: dict[str, bytes], content: bytes) -> dict[str, bytes]:
    """The image with one more layer on top."""
    (entry,) = json.loads(image["manifest.json"])
    about = json.loads(image[entry["Config"]])
    about["rootfs"]["diff_ids"].append(f"sha256:{_sha(content)}")
    about["history"].append({})
    encoded = json.dumps(about, sort_keys=True).encode()
    names = [f"blobs/sha256/{_sha(data)}" for data in (encoded, content)]
    manifest = [entry | {"Config": names[0], "Layers": [*entry["Layers"], names[1]]}]
    kept = {name: data for name, data in image.items() if name in entry["Layers"]}
    return kept | {"manifest.json": json.dumps(manifest).encode(), names[0]: encoded, names[1]: content}


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    """The archive unpacked."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def write_archive(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    """The archive as a file."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            _add(archive, name, data, 0o644)
    return path


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    about = tarfile.TarInfo(name)
    about.size, about.mode = len(data), mode
    archive.addfile(about, io.BytesIO(data))


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
