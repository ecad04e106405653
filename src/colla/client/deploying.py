"""Recognising what a folder is: from its files to the request that deploys it.

A function of the folder and of what the caller says; nothing is stored or asked. What is said wins in this order: the
caller's own words, the folder's `colla.toml`, what the files show. Where the files show nothing or two things, the
error says how to say it. Invariant: a plan names an environment that exists, and its request needs only the object's
name to be complete.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from colla.client.folder_content import NOTHING, Content, read_content
from colla.client.images import SUFFIXES as IMAGE_SUFFIXES
from colla.client.images import AddedFile
from colla.client.staging import LOST, MODULE_SUFFIX
from colla.client.types import DeployRequest
from colla.client.wheels import PackagesWanted, PythonSettings, packages_wanted
from colla.model.errors import CollaError
from colla.model.secret import check_secret_names
from colla.model.service import (
    OUTGOING_USE,
    REPLICAS_MAX,
    USED_PATTERN,
    HealthCheck,
    Limits,
    check_kind,
    check_name,
)

SETTINGS_NAME = "colla.toml"
STATIC, PROCESS, WASM, CONTAINER = "static", "process", "wasm", "container"
PYTHON_STARTS = ("app.py", "main.py", "server.py", "__main__.py")
COMPOSE_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
BUILT_FOLDERS = ("dist", "public", "_site", "site", "build", "out", "html", "www")
NEEDS_SHELL = re.compile(r"[$&|;<>()*?~`\\]|^\w+=")
NAME_CHARACTERS_MAX = 63
REPLICAS_DEFAULT = 3


class LimitsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[limits]`: what one replica may use."""

    cpus: float = Limits().cpus
    memory_bytes: int = Limits().memory_bytes
    processes: int = Limits().processes


class HealthSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[health]`: how it is seen that a replica serves."""

    path: str = ""
    start_period_s: float = HealthCheck().start_period_s
    tcp: bool = False
    command: tuple[str, ...] = ()
    interval_s: float = HealthCheck().interval_s
    timeout_s: float = HealthCheck().timeout_s
    failures_max: int = HealthCheck().failures_max


class FolderSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a `colla.toml` in the folder may say."""

    name: str = ""
    environment: str = ""
    command: str | tuple[str, ...] = ()
    replicas: int | None = None
    env: dict[str, str | int | float | bool] = {}
    uses: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    """The names of those without which it must not start; their values are never in a file of the folder."""
    public: bool = False
    domains: tuple[str, ...] = ()
    stop_grace_s: float = 5.0
    labels: dict[str, str] = {}
    limits: LimitsSettings = LimitsSettings()
    health: HealthSettings = HealthSettings()
    python: PythonSettings = PythonSettings()


class Said(msgspec.Struct, frozen=True):
    """What the caller says; None and empty mean that the folder decides."""

    name: str | None = None
    environment: str | None = None
    command: str | None = None
    replicas: int | None = None
    activate: bool = True
    public: bool | None = None
    domains: tuple[str, ...] = ()
    env: dict[str, str] = {}
    health_path: str | None = None


NOTHING_SAID = Said()


class DeployPlan(msgspec.Struct, frozen=True):
    """What shall be deployed. `request` lacks the object only; `recognised` says what the folder was taken for."""

    path: Path
    """A folder, a WebAssembly module or an image's archive: `staging.staged` makes a folder of it."""
    recognised: str
    request: DeployRequest
    replicas_said: bool = False
    """Whether the caller or the folder asks for a number of replicas."""
    warnings: tuple[str, ...] = ()
    packages: PackagesWanted | None = None
    """The Python packages that have to travel with it."""
    files: tuple[AddedFile, ...] = ()
    """What an image shall have besides its own files."""

    def request_for(
        self, object_id: str, object_bytes: int, replicas_held: int | None = None
    ) -> DeployRequest:
        """The whole request, once the folder is stored as an object.

        `replicas_held` is what is wanted of the service now, if it exists: kept unless another number is asked for.
        """
        replicas = self.request.replicas if self.replicas_said or not replicas_held else replicas_held
        return msgspec.structs.replace(
            self.request, object=object_id, object_bytes=object_bytes, replicas=replicas
        )


def plan_deploy(path: Path, said: Said = NOTHING_SAID) -> DeployPlan:
    """Recognise the folder at `path`, or the one file that is a whole service: a module or an image's archive.

    Raises `CollaError`: `folder_missing`, `not_a_folder`, `folder_empty`, `unreadable`, `bad_colla_toml`, `bad_name`,
    `bad_replicas`, `not_recognised`, `ambiguous`, `not_supported`, `bad_command`, `bad_health`.
    """
    content = NOTHING if path.is_file() else read_content(path)
    settings = _read_settings(path) if SETTINGS_NAME in content.top else FolderSettings()
    command = _split(said.command) if said.command is not None else _command_of(settings)
    wanted = said.environment or settings.environment
    recognise = _recognise_file if path.is_file() else _recognise
    environment, command, recognised = recognise(path, content, wanted, command)
    asked = said.replicas if said.replicas is not None else settings.replicas
    replicas = REPLICAS_DEFAULT if asked is None else asked
    if not 1 <= replicas <= REPLICAS_MAX:
        raise CollaError(
            "bad_replicas", f"{replicas} is no number of replicas.", f"Choose 1 to {REPLICAS_MAX}."
        )
    request = DeployRequest(
        name=check_name(said.name or settings.name or _name_from(path)),
        object="",
        object_bytes=0,
        environment=environment,
        replicas=replicas,
        activate=said.activate,
        command=command,
        env={key: _text(value) for key, value in settings.env.items()} | said.env,
        uses=_check_uses(settings.uses),
        secrets=_secrets_of(settings, environment),
        public=settings.public if said.public is None else said.public,
        domains=said.domains or settings.domains,
        health_path=settings.health.path if said.health_path is None else said.health_path,
        start_period_s=settings.health.start_period_s,
        stop_grace_s=settings.stop_grace_s,
        cpus=settings.limits.cpus,
        memory_bytes=settings.limits.memory_bytes,
        processes=settings.limits.processes,
        labels=settings.labels,
        health_tcp=settings.health.tcp,
        health_command=settings.health.command,
        health_interval_s=settings.health.interval_s,
        health_timeout_s=settings.health.timeout_s,
        health_failures_max=settings.health.failures_max,
    )
    if sum((bool(request.health_path), request.health_tcp, bool(request.health_command))) > 1:
        raise CollaError(
            "bad_health", "A service's health is checked in one way.", "Choose one of path, tcp and command."
        )
    packages = None
    if environment == PROCESS and path.is_dir() and not content.brings_modules:
        packages = packages_wanted(path, content.top, settings.python)
    warnings = tuple(_warnings(path, content, environment))
    return DeployPlan(path, recognised, request, asked is not None, warnings, packages)


def _recognise_file(
    path: Path, content: Content, environment: str, command: tuple[str, ...]
) -> tuple[str, tuple[str, ...], str]:
    name = path.name.lower()
    if name.endswith(MODULE_SUFFIX) and environment in ("", WASM):
        return WASM, (path.name, *command), "a WebAssembly module"
    if name.endswith(IMAGE_SUFFIXES) and environment in ("", CONTAINER):
        return CONTAINER, command, "a container image"
    hint = "Unpack it and give the folder." if name.endswith(".zip") else f"Give its folder: {path.parent}"
    raise CollaError("not_a_folder", f"{path} is a file; a folder is deployed.", hint)


def _check_uses(uses: tuple[str, ...]) -> tuple[str, ...]:
    for use in uses:
        if not USED_PATTERN.fullmatch(use) and use != OUTGOING_USE:
            raise CollaError(
                "bad_colla_toml",
                f"{use!r} is nothing that a service can use.",
                f"Name services, or {OUTGOING_USE} for the Internet.",
            )
    return uses


def _read_settings(folder: Path) -> FolderSettings:
    path = folder / SETTINGS_NAME
    try:
        return msgspec.toml.decode(path.read_bytes(), type=FolderSettings)
    except OSError as error:
        raise CollaError("unreadable", f"{path} cannot be read: {error.strerror}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CollaError("bad_colla_toml", f"{path} is not right: {error}.", "Correct that line.") from None


def _secrets_of(settings: FolderSettings, environment: str) -> tuple[str, ...]:
    """The secrets that the service needs. Raises `CollaError`: `bad_secret_name`, `too_many_secrets`, `not_supported`."""
    names = check_secret_names(settings.secrets)
    both = sorted(set(names) & set(settings.env))
    if both:
        hint = "Take it out of `[env]`: what stands there can be read by every member."
        raise CollaError(
            "bad_colla_toml", f"{both[0]} is among the secrets and has a value in {SETTINGS_NAME}.", hint
        )
    if names and environment == STATIC:
        raise CollaError("not_supported", "A web site of files runs nothing that could read a secret.")
    return names


def _command_of(settings: FolderSettings) -> tuple[str, ...]:
    return _split(settings.command) if isinstance(settings.command, str) else settings.command


def _split(line: str) -> tuple[str, ...]:
    """A command as a person wrote it; by a shell where it needs one."""
    line = line.strip()
    if NEEDS_SHELL.search(line):
        # `exec` lets the program itself get the signals, where the line is a single command.
        single = not re.search(r"[&|;`()]|^\w+=", line)
        return ("/bin/sh", "-c", f"exec {line}" if single else line)
    try:
        return tuple(shlex.split(line))
    except ValueError as error:
        raise CollaError(
            "bad_command", f"The command {line!r} is not right: {error}.", "Close the quotes."
        ) from None


def _recognise(
    path: Path, content: Content, environment: str, command: tuple[str, ...]
) -> tuple[str, tuple[str, ...], str]:
    """The environment, the command, and what the folder is, in words."""
    modules = [name for name in sorted(content.top) if name.endswith(MODULE_SUFFIX)]
    if environment == WASM or (modules and not environment and not command):
        return _recognise_modules(path, modules, environment, command)
    if environment == CONTAINER and "manifest.json" in content.top:
        return CONTAINER, command, "an unpacked container image"
    if environment == CONTAINER:
        raise _not_an_image(path)
    if environment not in ("", STATIC, PROCESS):
        # A kind that somebody attached: only its own program knows what it needs of the folder.
        check_kind(environment)
        return environment, command, f"a service of the environment {environment}"
    if environment == STATIC:
        if command:
            hint = "Leave the command out, or choose the environment process."
            raise CollaError("bad_command", "A static web site runs no command.", hint)
        return STATIC, (), "a web site"
    if command:
        return PROCESS, command, "a program"
    ways = list(_program_ways(path, content))
    site = "index.html" in content.top
    if not ways:
        if site and not environment:
            return STATIC, (), "a web site (index.html)"
        raise _not_recognised(path, content, environment)
    if len(ways) > 1 or (site and not environment and not ways[0].settled):
        names = [way.source for way in ways] + (["index.html"] if site and not environment else [])
        raise CollaError(
            "ambiguous",
            f"{path} can be run in several ways: {', '.join(names)}.",
            "Say which: --command 'python3 app.py', or --environment static, or a Procfile with a line `web: …`.",
        )
    return PROCESS, ways[0].command, f"a program ({ways[0].source})"


def _recognise_modules(
    path: Path, modules: list[str], environment: str, command: tuple[str, ...]
) -> tuple[str, tuple[str, ...], str]:
    """A folder with a module at its top; its other files are what the module reads."""
    if command and command[0] not in modules:
        hint = f"Name one of: {', '.join(modules)}." if modules else "Put the module at its top."
        raise CollaError("bad_command", f"{path} has no module {command[0]!r} at its top.", hint)
    if not command and len(modules) != 1:
        hint = "Say which: --environment wasm --command NAME.wasm"
        what = f"has several modules: {', '.join(modules)}" if modules else "has no .wasm module at its top"
        raise CollaError("ambiguous" if modules else "not_recognised", f"{path} {what}.", hint)
    return WASM, command or (modules[0],), f"a WebAssembly module ({(command or modules)[0]})"


def _not_an_image(path: Path) -> CollaError:
    hint = (
        "Build the image, save it, and deploy the archive: podman build -t it . && podman save -o it.tar it"
    )
    return CollaError("not_recognised", f"{path} is no image of a container.", hint)


class Way(msgspec.Struct, frozen=True):
    """A command that the file `source` suggests; `settled` when that file leaves no doubt."""

    command: tuple[str, ...]
    source: str
    settled: bool = False


def _program_ways(path: Path, content: Content) -> Iterator[Way]:
    if "Procfile" in content.top:
        yield Way(_procfile_command(path / "Procfile"), "Procfile", True)
        return
    if "package.json" in content.top:
        line = _node_start(path / "package.json")
        if line:
            yield Way(_node_command(path, _split(line)), "package.json")
    for name in PYTHON_STARTS:
        if name in content.top:
            yield Way(("python3", "." if name == "__main__.py" else name), name)


def _procfile_command(path: Path) -> tuple[str, ...]:
    kinds = []
    for line in path.read_text("utf-8", "replace").splitlines():
        kind, separator, command = line.partition(":")
        if separator and kind.strip() == "web" and command.strip():
            return _split(command)
        if separator and not line.lstrip().startswith("#"):
            kinds.append(kind.strip())
    found = f" (it has: {', '.join(kinds)})" if kinds else ""
    raise CollaError(
        "not_recognised", f"{path} has no line `web: COMMAND`{found}.", "Add one, or give --command."
    )


def _node_start(path: Path) -> str:
    """The command of `npm start`, or "" when there is none (a front end with a package.json is no program)."""
    scripts = _node_package(path).get("scripts")
    start = scripts.get("start") if isinstance(scripts, dict) else None
    return start if isinstance(start, str) else ""


def _node_command(path: Path, command: tuple[str, ...]) -> tuple[str, ...]:
    """With the file itself where npm would find the command among the bundled packages.

    It lies there as a link to a file that asks for its neighbours; objects have no links, so that the copy would miss them.
    """
    link = path / "node_modules" / ".bin" / command[0] if command and "/" not in command[0] else path
    if not link.is_symlink() or not link.resolve().is_relative_to(path.resolve()):
        return command
    return ("node", link.resolve().relative_to(path.resolve()).as_posix(), *command[1:])


def _node_package(path: Path) -> dict[str, Any]:
    try:
        package: Any = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CollaError(
            "unreadable", f"{path} cannot be read: {error}.", "Correct it, or give --command."
        ) from None
    return package if isinstance(package, dict) else {}


def _not_recognised(path: Path, content: Content, environment: str) -> CollaError:
    composed = [name for name in COMPOSE_NAMES if name in content.top]
    if composed:
        hint = f"Deploy that file: colla deploy {shlex.quote(str(path / composed[0]))}"
        return CollaError("not_recognised", f"{path} is a Compose project.", hint)
    if "Dockerfile" in content.top or "Containerfile" in content.top:
        return _not_an_image(path)
    archives = [name for name in sorted(content.top) if name.endswith(IMAGE_SUFFIXES)]
    if archives:
        hint = f"If it is a container image, deploy that file: colla deploy {shlex.quote(str(path / archives[0]))}"
        return CollaError("not_recognised", f"{path} has an archive at its top and nothing to run.", hint)
    if environment == PROCESS:
        return CollaError(
            "not_recognised",
            f"Nothing in {path} says which command starts the program.",
            "Give --command 'python3 app.py', or a Procfile with a line `web: …`.",
        )
    for name in BUILT_FOLDERS:
        if f"{name}/index.html" in content.second:
            hint = f"Deploy that folder: colla deploy {shlex.quote(str(path / name))}"
            return CollaError("not_recognised", f"{path} has its index.html in {name}/.", hint)
    return CollaError(
        "not_recognised",
        f"{path} has no index.html, Procfile, app.py or package.json with a start command at its top.",
        "Serve its files as they are with --environment static, or run a program with --command 'python3 app.py'.",
    )


def _warnings(path: Path, content: Content, environment: str) -> Iterator[str]:
    if environment == PROCESS and content.databases:
        names = _some(content.databases)
        yield f"SQLite: {names}. {LOST}"
    if environment == STATIC and content.databases:
        yield f"SQLite: {_some(content.databases)}. Everybody who may read the site can fetch it."
    if content.private:
        yield f"{_some(content.private)} will be stored too, and every member can read it. Is that meant?"
    brings_none = "package.json" in content.top and "node_modules" not in content.top
    if environment == PROCESS and brings_none and _node_package(path / "package.json").get("dependencies"):
        yield "node_modules is not there, and the computers do not install it: run `npm install` before."


def _some(names: tuple[str, ...], shown: int = 3) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _name_from(path: Path) -> str:
    """A DNS label from the name of the folder or file; raises `CollaError("bad_name")` when nothing is left of it."""
    called = path.resolve().name.partition(".")[0] if path.is_file() else path.resolve().name
    name = re.sub(r"[^a-z0-9]+", "-", called.lower()).strip("-")[:NAME_CHARACTERS_MAX].strip("-")
    if not name:
        raise CollaError(
            "bad_name", f"The name of {path} makes no name for a service.", "Give one with --name."
        )
    return name


def _text(value: str | int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
