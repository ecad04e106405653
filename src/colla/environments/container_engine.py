"""The container engine of this computer, Docker or Podman, behind one small interface (the Docker Engine API).

Where only Podman's program is installed, it is asked to serve its API for us, in a process that outlives this program as
containers do. Nothing is pulled: images come as objects of the group.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from colla.environments.container_commands import KILLED, UNIX, Found, found_of
from colla.environments.driver import fault
from colla.environments.folders import RuntimeFolder, write_whole
from colla.environments.images import Image
from colla.environments.processes import Identity, kill_tree
from colla.environments.protocol import EnvironmentFault, LimitName, Limits

if TYPE_CHECKING:
    from docker import DockerClient

LABEL: Final = "org.colla.replica"
API_TIMEOUT_S: Final = 120
SERVICE_START_S: Final = 10.0
SOCKET_NAME: Final = "podman.sock"
SERVICE_NAME: Final = "podman.json"
"""In the runtime folder: which process serves the API for us."""
TEMPORARY_BYTES_MAX: Final = 64 << 20
"""What a container may write to /tmp; it counts as its memory."""
OPEN_FILES_DEFAULT: Final = 4096
PROCESSES_DEFAULT: Final = 16384
"""Of all containers of one user together; `pids` bounds each."""
DOOR: Final = "/run/colla-group"
"""Where a container finds the folder with the group's socket, as programs in a sandbox do."""
ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
PODMAN_INIT: Final = "catatonit"
PODMAN_FOLDERS: Final = tuple(
    Path(folder)
    for folder in (
        "/usr/libexec/podman",
        "/usr/lib/podman",
        "/usr/local/libexec/podman",
        "/usr/local/lib/podman",
    )
)
"""Where Podman looks for programs of its own besides PATH."""
_LIMITS: Final[dict[LimitName, str]] = {
    "memory_bytes": "MemoryLimit",
    "cpus": "CpuCfsQuota",
    "pids": "PidsLimit",
}


def container_name(replica: str) -> str:
    """What the replica's container is called."""
    return f"colla-{replica}"


def engine_errors() -> tuple[type[Exception], ...]:
    """What the engine's client raises: an error of its own where the engine refuses, an `OSError` where it is gone."""
    from docker.errors import DockerException

    return DockerException, OSError


class Engine:
    """One engine, found when this program started. Every call raises `EnvironmentFault` where it is gone, unless it says otherwise."""

    def __init__(self, url: str) -> None:
        """Raises `EnvironmentFault` when it does not answer."""
        self.url = url
        self._client = connect(url)
        try:
            about: dict[str, Any] = self._client.info()
            version = self._client.version()
        except engine_errors() as error:
            raise engine_fault(error) from error
        self.is_podman = "podman" in str(version.get("Components", "")).lower()
        self.has_init = has_init(about, self.is_podman)
        # What an engine says of limits is what the computer's control groups let it enforce.
        self.limits: tuple[LimitName, ...] = (
            *(name for name, key in _LIMITS.items() if about.get(key)),
            "open_files",
        )

    def load(self, image: Image, scratch: Path) -> None:
        """Give the image to the engine unless it has it. Raises `EnvironmentFault`."""
        from docker.errors import DockerException, ImageNotFound

        wanted = ARCHITECTURES.get(platform.machine(), platform.machine())
        if image.architecture and image.architecture != wanted:
            text = f"The image is for {image.architecture}, and this computer is {wanted}."
            raise fault("image_other_architecture", text, "Build it for this architecture too.")
        try:
            self._client.images.get(image.id)
            return
        except ImageNotFound:
            pass
        except engine_errors() as error:
            raise engine_fault(error) from error
        with tempfile.TemporaryFile(dir=scratch) as file:
            image.write_archive(file)
            file.seek(0)
            try:
                self._client.images.load(file)
                self._client.images.get(image.id)
            except DockerException as error:
                raise fault(
                    "image_not_loaded", f"The container engine refused the image: {_text(error)}."
                ) from error
            except OSError as error:
                raise engine_fault(error) from error

    def remove(self, replica: str) -> None:
        """Kill and forget the replica's container, if there is one."""
        try:
            remove_container(self._client, replica)
        except engine_errors() as error:
            raise engine_fault(error) from error

    def usage(self, replica: str) -> tuple[float | None, int | None, int | None]:
        """Seconds of processor time, bytes of memory, processes; None for what cannot be told now."""
        try:
            said = self._client.containers.get(container_name(replica)).stats(stream=False)
        except engine_errors():
            return None, None, None
        nanoseconds = said.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage")
        seconds = None if nanoseconds is None else nanoseconds / 1e9
        return seconds, said.get("memory_stats", {}).get("usage"), said.get("pids_stats", {}).get("current")

    @property
    def runs_commands(self) -> bool:
        """Whether commands can be run in its containers: their output is read from its Unix socket."""
        return self.url.startswith(UNIX)

    def create_command(self, replica: str, command: tuple[str, ...]) -> str:
        """What the engine calls a command in the replica's container that can be started now. Raises `EnvironmentFault`."""
        from docker.errors import NotFound

        try:
            made = self._client.api.exec_create(container_name(replica), list(command), stdin=False)
        except NotFound:
            raise fault("exec_failed", "The container does not run.", retryable=True) from None
        except engine_errors() as error:
            raise fault("exec_failed", f"The container takes no commands: {_text(error)}.") from error
        return str(made["Id"])

    def find_command(self, number: str) -> Found:
        """How it is with that command; one that the engine does not know has ended. Raises `EnvironmentFault`."""
        from docker.errors import NotFound

        try:
            return found_of(self._client.api.exec_inspect(number))
        except NotFound:
            return Found(False, KILLED, 0)
        except engine_errors() as error:
            raise engine_fault(error) from error

    def first_process(self, replica: str) -> int:
        """Of the replica's container, on this computer; 0 where it does not run."""
        try:
            return int(self._client.containers.get(container_name(replica)).attrs["State"]["Pid"])
        except engine_errors():
            return 0


def remove_container(client: DockerClient, replica: str) -> None:
    """Kill and forget the replica's container, if there is one. Raises `engine_errors`.

    The runner and the environment may do so at the same time: who comes second finds that it is gone, or going.
    """
    from docker.errors import APIError, NotFound

    try:
        client.containers.get(container_name(replica)).remove(force=True, v=True)
    except NotFound:
        return
    except APIError as error:
        # Podman says so with status 500, Docker with 409.
        if not any(text in _text(error).lower() for text in ("no such container", "already in progress")):
            raise


def connect(url: str) -> DockerClient:
    """A client of the engine at `url`. Raises `EnvironmentFault`."""
    import docker

    try:
        client = docker.DockerClient(base_url=url, timeout=API_TIMEOUT_S)
        client.ping()
    except engine_errors() as error:
        raise engine_fault(error) from error
    return client


def engine_fault(error: Exception) -> Exception:
    """The engine did not do what it was asked."""
    return fault("engine_failed", f"The container engine failed: {_text(error)}.", retryable=True)


def _text(error: Exception) -> str:
    return " ".join(str(getattr(error, "explanation", "") or error).split())[:300].rstrip(".")


def find_engine(runtime: RuntimeFolder) -> Engine:
    """The engine of whoever runs this program: `DOCKER_HOST`, a running Podman or Docker, or Podman's own program.

    Raises `EnvironmentFault` that says what to install.
    """
    tried: list[str] = []
    for url in _known_urls(runtime):
        try:
            return Engine(url)
        except EnvironmentFault as error:
            tried.append(f"{url}: {error}")
    if shutil.which("podman"):
        return Engine(_serve_podman(runtime))
    what = f" ({'; '.join(tried)})" if tried else ""
    raise fault("no_engine", f"There is no container engine here{what}.", "Install Podman or Docker.")


def _known_urls(runtime: RuntimeFolder) -> list[str]:
    if said := os.environ.get("DOCKER_HOST"):
        return [said]
    own = os.environ.get("XDG_RUNTIME_DIR", "")
    paths = [runtime.sockets / SOCKET_NAME, Path(own) / "podman" / SOCKET_NAME if own else None]
    paths += [Path("/run/podman") / SOCKET_NAME if os.getuid() == 0 else None, Path("/var/run/docker.sock")]
    return [f"unix://{path}" for path in paths if path is not None and path.exists()]


def _serve_podman(runtime: RuntimeFolder) -> str:
    """Start Podman's API in a session of its own; containers and whoever watches them need it when we are gone."""
    # Among the sockets, since the runtime folder itself may be deeper than a socket's path can be long.
    path, log_path = runtime.sockets / SOCKET_NAME, runtime.path / "podman.log"
    path.unlink(missing_ok=True)
    url = f"unix://{path}"
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            ["podman", "system", "service", "--time", "0", url],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=runtime.path,
            start_new_session=True,
        )
    write_whole(runtime.path / SERVICE_NAME, msgspec.json.encode(Identity.of(process.pid)))
    deadline = time.monotonic() + SERVICE_START_S
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists():
            with suppress(EnvironmentFault):  # It does not answer yet.
                connect(url).close()
                return url
        time.sleep(0.05)
    process.kill()
    process.wait()
    said = log_path.read_text(errors="replace").strip().splitlines()
    raise fault("no_engine", f"Podman does not serve its API: {said[-1] if said else 'it said nothing'}.")


def end_service(runtime: RuntimeFolder) -> None:
    """End the process that serves Podman's API for this runtime folder, if there is one: nobody needs it any more."""
    note = runtime.path / SERVICE_NAME
    with suppress(OSError, msgspec.DecodeError):
        # Killed: when it is asked to end, it first waits for connections that others keep open.
        kill_tree(msgspec.json.decode(note.read_bytes(), type=Identity))
    note.unlink(missing_ok=True)
    (runtime.sockets / SOCKET_NAME).unlink(missing_ok=True)


def has_init(about: dict[str, Any], is_podman: bool) -> bool:
    """Whether the engine can put a first process before a program; one that has none refuses a container that asks for it."""
    if not is_podman:
        return bool(about.get("InitBinary"))
    return shutil.which(PODMAN_INIT) is not None or any(
        (path / PODMAN_INIT).is_file() for path in PODMAN_FOLDERS
    )


def _within(wanted: int, limit: int) -> int:
    """No more than this process could have itself."""
    hard = resource.getrlimit(limit)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


def creation(
    image: Image,
    replica: str,
    command: tuple[str, ...],
    env: dict[str, str],
    limits: Limits,
    door: Path | None = None,
    init: bool = False,
) -> dict[str, Any]:
    """What the engine is asked for: nothing may be done but compute, answer, write to a small /tmp, and knock at the group's `door`.

    `init` puts a first process before the program, which passes signals on and reaps; only where the engine has one.
    """
    from docker.types import LogConfig, Mount, Ulimit

    files = _within(limits.open_files or OPEN_FILES_DEFAULT, resource.RLIMIT_NOFILE)
    processes = _within(PROCESSES_DEFAULT, resource.RLIMIT_NPROC)
    return {
        "image": image.id,
        "name": container_name(replica),
        "command": list(command) or None,
        "environment": env,
        "labels": {LABEL: replica},
        "network_mode": "none",
        "read_only": True,
        "tmpfs": {"/tmp": f"size={TEMPORARY_BYTES_MAX},mode=1777"} | dict.fromkeys(image.volumes, "size=16m"),
        "mounts": [] if door is None else [Mount(DOOR, str(door), type="bind", read_only=True)],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        # Programs in images like to listen on 80, as nobody in particular.
        "sysctls": {"net.ipv4.ip_unprivileged_port_start": "0"},
        "mem_limit": limits.memory_bytes,
        "memswap_limit": limits.memory_bytes,
        "nano_cpus": None if limits.cpus is None else round(limits.cpus * 1e9),
        "pids_limit": limits.pids,
        "ulimits": [
            Ulimit(name="nofile", soft=files, hard=files),
            # Said, since Podman's own default is more than an unprivileged computer allows.
            Ulimit(name="nproc", soft=processes, hard=processes),
        ],
        "log_config": LogConfig(type="none"),
        "stdin_open": False,
        "tty": False,
        "init": init,
        "detach": True,
    }
