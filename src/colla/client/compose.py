"""Compose files (compose-spec.io) read as services of a group: what can be kept is translated, everything else is named.

A function of the file. Nothing is silently left out: what colla does anyway or in another way is a note, what it cannot
give is a refusal that names the service and the key. `depends_on` gives the order of deploying; there is no private network
between services, so that one which needs another reaches it through `uses`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from colla.client.compose_configs import BadConfig, read_configs
from colla.client.compose_file import OWN_KEY, ComposeFile, bad_compose, read_file
from colla.client.deploying import CONTAINER, NOTHING_SAID, DeployPlan, Said
from colla.client.images import AddedFile
from colla.client.types import DeployRequest
from colla.model.errors import CollaError
from colla.model.secret import check_secret_names
from colla.model.service import (
    OUTGOING_USE,
    REPLICAS_MAX,
    USED_PATTERN,
    HealthCheck,
    Limits,
    check_name,
)

NAMES: Final = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
HANDLED: Final = frozenset(
    [
        "image",
        "build",
        "command",
        "environment",
        "ports",
        "expose",
        "healthcheck",
        "deploy",
        "depends_on",
        "labels",
        "stop_grace_period",
        "cpus",
        "mem_limit",
        "pids_limit",
        "scale",
        "secrets",
        "configs",
    ]
)
ANYWAY: Final = {
    "container_name": "each replica has a name of its own",
    "restart": "a replica that ends is always started again",
    "read_only": "the root of a container is always read-only",
    "cap_drop": "a container never has any capability",
    "security_opt": "a container never gains privileges",
    "init": "a container has a first process that passes signals on wherever the engine brings one",
    "hostname": "services are reached by their names",
    "platform": "the image says which computers it runs on",
    "pull_policy": "nothing is pulled",
    "logging": "`colla logs` shows what is written",
    "profiles": "all services of the file are deployed",
}
"""Keys that change nothing here, and why."""
REFUSED: Final = {
    "volumes": "a replica keeps nothing: its files vanish with it. Use the group's objects, or a database outside",
    "networks": "services have no network between them: name those that it needs in `x-colla: {uses: [NAME]}`",
    "env_file": "write its variables under `environment`, and secrets with `colla secret set`",
}
"""Keys with an answer of their own; others are refused as unknown."""
UNKNOWN: Final = "colla has nothing like it"
SHAPES: Final[dict[str, tuple[type, ...]]] = {
    "image": (str,),
    "command": (str, list),
    "environment": (dict, list),
    "ports": (list,),
    "expose": (list,),
    "labels": (dict, list),
    "depends_on": (dict, list),
    "secrets": (list,),
    "configs": (list,),
}
"""What the values of keys are, where a table is not asked for."""
SHELL: Final = ("/bin/sh", "-c")
OWN_KEYS: Final = frozenset(["uses", "public", "domains", "labels"])
START_INTERVAL: Final = "start_interval"
HEALTH_KEYS: Final = frozenset(
    ["test", "disable", "interval", "timeout", "retries", "start_period", START_INTERVAL]
)
DEPLOY_KEYS: Final = frozenset(["replicas", "resources", "mode"])
DECIDED: Final = frozenset(
    ["endpoint_mode", "labels", "placement", "restart_policy", "rollback_config", "update_config"]
)
"""Below `deploy`: what colla decides itself."""
LIMIT_KEYS: Final = frozenset(["cpus", "memory", "pids"])
FAILURES_MAX: Final = 1000
SECRETS_FOLDER: Final = "/run/secrets/"
FILE_SUFFIX: Final = "_FILE"
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)b?", re.IGNORECASE)
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?")
_ASKING = re.compile(
    r"(?:curl|wget)(?: -(?:[fsSLqI]+|q?O-|nv|-fail|-silent|-show-error|-spider|-quiet|-tries=1))* [\"']?http://(?:localhost|127\.0\.0\.1|\[::1\])(?::(\d+))?(/[^\s\"'$;&|]*)?[\"']?"
    r"(?: *(?:>|1>) */dev/null)?(?: *\|\| *(?:exit 1|false))?"
)
"""A check that does nothing but ask for a page, and the port and path of that."""
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


class ComposeService(msgspec.Struct, frozen=True):
    """One service of the file. `image` is the name of an image that the local engine has."""

    image: str
    plan: DeployPlan
    notes: tuple[str, ...]


def is_compose_file(path: Path) -> bool:
    """Whether the path is to be read as a Compose file."""
    return path.is_file() and path.suffix in (".yaml", ".yml")


def read_compose(path: Path, said: Said = NOTHING_SAID) -> tuple[ComposeService, ...]:
    """The services in the order in which they are deployed.

    Raises `CollaError`: `bad_compose` (with the line), `compose_unsupported` (names every key), `bad_name`, `not_installed`.
    """
    file = read_file(path)
    problems = list(file.problems)
    read = []
    for name in file.order:
        service = _Service(file, str(name), file.services[name])
        read.append(service.read(said))
        problems += service.problems
    if problems:
        raise CollaError(
            "compose_unsupported",
            f"{path} asks for what colla cannot give:\n  " + "\n  ".join(problems),
            "Take these out of the file, or deploy the image by itself: podman save, then colla deploy.",
        )
    first = msgspec.structs.replace(read[0], notes=(*file.notes, *read[0].notes))
    return (first, *read[1:])


class _Service:
    """Translates one service; what cannot be translated is collected in `problems`."""

    def __init__(self, file: ComposeFile, name: str, content: Any) -> None:
        if not isinstance(content, dict):
            raise bad_compose(file.path, f"the service {name} has no content")
        self._file = file
        self._name = name
        self._content = dict(content)
        self.problems: list[str] = []
        self.notes: list[str] = []

    def read(self, said: Said) -> ComposeService:
        self._look_at_keys()
        content = self._content
        own = self._table(OWN_KEY, content.get(OWN_KEY), OWN_KEYS)
        limits, replicas = self._deploy()
        environment, secrets = self._secrets(self._environment())
        health = self._health(environment.get("PORT", ""))
        request = DeployRequest(
            name=check_name(self._name),
            object="",
            object_bytes=0,
            environment=CONTAINER,
            replicas=replicas or 1,
            activate=said.activate,
            command=self._command(),
            env=environment | said.env,
            secrets=secrets,
            uses=self._uses(own),
            public=self._public(own) if said.public is None else said.public,
            domains=said.domains or self._names(own, "domains"),
            health_path=health.path,
            health_command=health.command,
            health_interval_s=health.interval_s,
            health_timeout_s=health.timeout_s,
            health_failures_max=health.failures_max,
            start_period_s=health.start_period_s,
            stop_grace_s=self._seconds("stop_grace_period", content.get("stop_grace_period"), 5.0),
            cpus=limits.cpus,
            memory_bytes=limits.memory_bytes,
            processes=limits.processes,
            labels=self._labels(own),
        )
        path = self._file.path
        recognised = f"a service of {path.name}"
        plan = DeployPlan(path, recognised, request, replicas is not None, files=self._configs())
        return ComposeService(self._image(), plan, tuple(self.notes))

    def _refuse(self, key: str, why: str) -> None:
        self.problems.append(f"{self._name}.{key}: {why}")

    def _look_at_keys(self) -> None:
        for key, value in list(self._content.items()):
            if value is not None and not isinstance(value, SHAPES.get(key, object)):
                self._refuse(key, "it has another form than in Compose files")
                self._content[key] = None
            elif key in HANDLED or str(key).startswith("x-"):
                continue
            elif key in ANYWAY:
                self.notes.append(f"{self._name}.{key}: {ANYWAY[key]}")
            else:
                self._refuse(str(key), REFUSED.get(str(key), UNKNOWN))
        if self._content.get("depends_on"):
            self.notes.append(
                f"{self._name}.depends_on: it is deployed after those, and waits for none of them later"
            )

    def _table(self, key: str, found: Any, known: frozenset[str]) -> dict[Any, Any]:
        """What stands below a key; what is not known there is refused."""
        if not isinstance(found or {}, dict):
            self._refuse(key, "it has names and values below it in Compose files")
            return {}
        for each in found or ():
            if each not in known:
                self._refuse(f"{key}.{each}", UNKNOWN)
        return found or {}

    def _names(self, own: dict[Any, Any], key: str) -> tuple[str, ...]:
        found = own.get(key) or []
        if not isinstance(found, list):
            self._refuse(f"{OWN_KEY}.{key}", "it is a list: [NAME]")
            return ()
        return tuple(str(name) for name in found)

    def _uses(self, own: dict[Any, Any]) -> tuple[str, ...]:
        names = self._names(own, "uses")
        for name in names:
            if not USED_PATTERN.fullmatch(name) and name != OUTGOING_USE:
                self._refuse(f"{OWN_KEY}.uses", f"{name!r} is no service, nor {OUTGOING_USE}")
        return names

    def _public(self, own: dict[Any, Any]) -> bool:
        public = own.get("public", False)
        if not isinstance(public, bool):
            self._refuse(f"{OWN_KEY}.public", "it is true or false")
        return public is True

    def _configs(self) -> tuple[AddedFile, ...]:
        used = self._content.get("configs")
        try:
            files = tuple(read_configs(self._file.path.parent, self._file.configs, used)) if used else ()
        except BadConfig as why:
            self._refuse("configs", str(why))
            return ()
        if files:
            self.notes.append(
                f"{self._name}.configs: they become a part of its image, which every member of the group can read"
            )
        return files

    def _image(self) -> str:
        image = self._content.get("image")
        if self._content.get("build") is not None:
            text = "build the image first, then give its name as `image` (podman build -t NAME .)"
            if not image:
                self._refuse("build", text)
            self.notes.append(f"{self._name}.build: the image that is there is deployed, nothing is built")
        elif not image:
            self._refuse("image", "it is missing")
        return str(image or "")

    def _command(self) -> tuple[str, ...]:
        command = self._content.get("command")
        if command is None:
            return ()
        if isinstance(command, str):
            try:
                return tuple(shlex.split(command))
            except ValueError as error:
                self._refuse("command", f"{error}")
                return ()
        return tuple(str(word) for word in command)

    def _environment(self) -> dict[str, str]:
        found = self._content.get("environment") or {}
        pairs: dict[str, str] = {}
        if isinstance(found, list):
            split = [str(pair).partition("=") for pair in found]
            found = {name: value if equals else None for name, equals, value in split}
        for name, value in found.items():
            if value is None:
                self._refuse(
                    f"environment.{name}", "it has no value here, and nothing is taken from your shell"
                )
            else:
                pairs[str(name)] = str(value).lower() if isinstance(value, bool) else str(value)
        port = self._port()
        return pairs if port is None or "PORT" in pairs else pairs | {"PORT": str(port)}

    def _secrets(self, variables: dict[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
        """The other variables, and the names of the secrets, which come as variables: there is no /run/secrets.

        `X_FILE=/run/secrets/NAME`, as many images have it, becomes the secret `X`; else NAME in capitals is its name.
        """
        found: list[str] = []
        for entry in self._content.get("secrets") or []:
            detailed = entry if isinstance(entry, dict) else {"source": entry}
            source = str(detailed.get("source", ""))
            path = SECRETS_FOLDER + str(detailed.get("target") or source)
            readers = [
                name for name, value in variables.items() if value == path and name.endswith(FILE_SUFFIX)
            ]
            names = [name.removesuffix(FILE_SUFFIX) for name in readers] or [
                re.sub(r"\W", "_", source).upper()
            ]
            variables = {name: value for name, value in variables.items() if name not in readers}
            found += names
            self.notes.append(
                f"{self._name}.secrets: {source} comes as the variable {', '.join(names)}, not as a file:"
                f" `colla secret set {self._name} {' '.join(names)}`"
            )
        try:
            return variables, check_secret_names(found)
        except CollaError as error:
            self._refuse("secrets", error.message)
            return variables, ()

    def _port(self) -> int | None:
        """Where the program listens inside: the target of the one port that it publishes or exposes."""
        targets: list[int] = []
        for entry in [*(self._content.get("ports") or []), *(self._content.get("expose") or [])]:
            if isinstance(entry, dict):
                text = f"{entry.get('target', '')}/{entry.get('protocol', 'tcp')}"
            else:
                text = str(entry).rpartition(":")[2]
            number, _, kind = text.partition("/")
            if kind not in ("", "tcp") or not number.isdigit():
                self._refuse("ports", f"{entry!r} is not one TCP port")
            elif int(number) not in targets:
                targets.append(int(number))
        if len(targets) > 1:
            self._refuse("ports", f"a service answers on one port, not on {len(targets)}")
        if self._content.get("ports"):
            self.notes.append(f"{self._name}.ports: each member reaches it through their own gateway")
        return targets[0] if targets else None

    def _health(self, port: str) -> HealthCheck:
        """What is unsaid is as colla has it, also where Compose has other numbers."""
        default = HealthCheck()
        check = self._table("healthcheck", self._content.get("healthcheck"), HEALTH_KEYS)
        if not check:
            return default
        words = () if check.get("disable") else self._health_words(check.get("test"))
        if not words:
            return default
        failures_max = check.get("retries", default.failures_max)
        if not (isinstance(failures_max, int) and 1 <= failures_max <= FAILURES_MAX):
            self._refuse("healthcheck.retries", f"1 to {FAILURES_MAX} are possible")
            failures_max = default.failures_max
        if START_INTERVAL in check:
            self.notes.append(
                f"{self._name}.healthcheck.{START_INTERVAL}: a replica that is not ready yet is checked often anyway"
            )
        path = self._path_asked(words, port)
        if path:
            self.notes.append(f"{self._name}.healthcheck: colla asks for {path} itself")
        return HealthCheck(
            path=path,
            interval_s=self._health_seconds(check, "interval", default.interval_s),
            timeout_s=self._health_seconds(check, "timeout", default.timeout_s),
            start_period_s=self._health_seconds(check, "start_period", default.start_period_s),
            command=() if path else words,
            failures_max=failures_max,
        )

    def _health_words(self, test: Any) -> tuple[str, ...]:
        """The command, to be run in the container; nothing for `NONE`."""
        if isinstance(test, str) and test:
            return (*SHELL, test)
        match [str(word) for word in test] if isinstance(test, list) else []:
            case ["NONE"]:
                return ()
            case ["CMD", first, *rest] if first:
                return (first, *rest)
            case ["CMD-SHELL", line] if line:
                return (*SHELL, line)
        self._refuse("healthcheck.test", "it is a line, or a list that begins with CMD, CMD-SHELL or NONE")
        return ()

    def _path_asked(self, words: tuple[str, ...], port: str) -> str:
        """The page of the service's own port, where the check asks for nothing else: that needs no program in the image."""
        line = words[-1] if words[:-1] == SHELL else " ".join(words)
        found = _ASKING.fullmatch(line.strip())
        if found is None or (found[1] and found[1] != (port or found[1])):
            return ""
        return found[2] or "/"

    def _health_seconds(self, check: dict[Any, Any], key: str, default: float) -> float:
        seconds = self._seconds(f"healthcheck.{key}", check.get(key), default)
        # No time to start at all is how Compose says that nothing is known.
        return seconds or default

    def _deploy(self) -> tuple[Limits, int | None]:
        deploy = self._table("deploy", self._content.get("deploy"), DEPLOY_KEYS | DECIDED)
        for key in deploy:
            if key in DECIDED:
                self.notes.append(f"{self._name}.deploy.{key}: colla decides that itself")
        if deploy.get("mode", "replicated") != "replicated":
            self._refuse("deploy.mode", "only `replicated` can be kept")
        within = "deploy.resources"
        resources = self._table(within, deploy.get("resources"), frozenset(["limits", "reservations"]))
        limits = self._table(f"{within}.limits", resources.get("limits"), LIMIT_KEYS)
        reserved = self._table(f"{within}.reservations", resources.get("reservations"), LIMIT_KEYS)
        if reserved:
            self.notes.append(f"{self._name}.deploy.resources.reservations: the limits are reserved")
        default = Limits()
        cpus = limits.get("cpus", self._content.get("cpus"))
        memory = limits.get("memory", self._content.get("mem_limit"))
        processes = limits.get("pids", self._content.get("pids_limit"))
        if cpus is not None:
            self.notes.append(f"{self._name}.cpus: they are reserved; a share below 1 is not a bound")
        replicas = deploy.get("replicas", self._content.get("scale"))
        if replicas is not None and not (isinstance(replicas, int) and 1 <= replicas <= REPLICAS_MAX):
            self._refuse(
                "deploy.replicas", f"1 to {REPLICAS_MAX} are possible; `colla deactivate` is for none"
            )
            replicas = 1
        try:
            return (
                Limits(
                    cpus=default.cpus if cpus is None else float(cpus),
                    memory_bytes=default.memory_bytes if memory is None else _size(str(memory)),
                    processes=default.processes if processes is None else int(processes),
                ),
                replicas,
            )
        except (OverflowError, TypeError, ValueError) as error:
            self._refuse("deploy.resources", str(error))
            return default, replicas

    def _labels(self, own: dict[Any, Any]) -> dict[str, str]:
        if self._content.get("labels"):
            self.notes.append(
                f"{self._name}.labels: labels say here where a service may run; these are left out"
            )
        labels = own.get("labels") or {}
        if not isinstance(labels, dict):
            self._refuse(f"{OWN_KEY}.labels", "it has names and values: {NAME: VALUE}")
            return {}
        return {str(name): str(value) for name, value in labels.items()}

    def _seconds(self, key: str, said: Any, default: float) -> float:
        if said is None:
            return default
        found = _DURATION.fullmatch(str(said))
        if found is None or not str(said):
            self._refuse(key, f"{said!r} is no time, as 1m30s")
            return default
        hours, minutes, seconds, thousandths = (float(part or 0) for part in found.groups())
        return hours * 3600 + minutes * 60 + seconds + thousandths / 1000


def _size(text: str) -> int:
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no amount of memory, as 512M")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def describe(services: tuple[ComposeService, ...]) -> Iterator[str]:
    """The notes of all services, one line each."""
    for service in services:
        yield from service.notes
