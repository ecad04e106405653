"""The text of a Compose file read as values: its variables settled, its top level looked at, its services in order.

A function of the file alone: nothing is taken from the shell or an `.env`, so that the same file is the same service whoever
deploys it. `$$` is a dollar sign and `${NAME:-default}` the default, as in Compose; a variable without a default is refused by
the place where it stands. What stands below keys that begin with `x-`, except `x-colla`, is nobody's business.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import msgspec

from colla.model.errors import CollaError

FILE_BYTES_MAX: Final = 1 << 20
SERVICES_MAX: Final = 64
VALUES_MAX: Final = 100_000
DEPTH_MAX: Final = 32
NOT_TAKEN: Final = "nothing is taken from your shell or an .env"
OWN_KEY: Final = "x-colla"
TOP_NOTES: Final = {
    "networks": "services have no network between them, but reach those that they name in `x-colla: {uses: [NAME]}`",
    "volumes": "nothing is mounted: what a replica writes vanishes with it",
    "name": "each service has a name of its own in the group",
    "version": "it means nothing any more",
}
"""Keys at the top that change nothing here, and why. Where services use them, these say more."""
TOP_HANDLED: Final = frozenset(["services", "configs", "secrets"])
DONE_BEFORE: Final = "service_completed_successfully"
_VARIABLE: Final = re.compile(
    r"\$(?:(?P<dollar>\$)|(?P<plain>[A-Za-z_]\w*)|\{(?P<braced>[^{}]*)\}|(?P<odd>\{))"
)
_BRACED: Final = re.compile(r"[A-Za-z_]\w*:?-(?P<default>.*)", re.DOTALL)


class ComposeFile(msgspec.Struct, frozen=True):
    """What a Compose file says. `problems` and `notes` are about what is not inside of a service."""

    path: Path
    services: dict[Any, Any]
    order: tuple[Any, ...]
    """The names of the services, those that others depend on first."""
    configs: dict[Any, Any]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def read_file(path: Path) -> ComposeFile:
    """Read it. Raises `CollaError`: `bad_compose` (with the line), `not_installed`."""
    settling = _Settling(path)
    document = settling.settled(_load(path))
    problems, notes = settling.problems, settling.notes
    services = document.get("services")
    if not isinstance(services, dict) or not services or len(services) > SERVICES_MAX:
        raise bad_compose(path, f"it must have 1 to {SERVICES_MAX} `services`")
    for key, content in document.items():
        if key in TOP_NOTES:
            notes.append(f"{key}: {TOP_NOTES[key]}")
        elif key not in TOP_HANDLED and not str(key).startswith("x-"):
            problems.append(f"{key}: colla has nothing like it")
        elif not isinstance(content or {}, dict):
            raise bad_compose(path, f"`{key}` has to name things")
    order = tuple(_in_order(path, services, problems))
    configs = document.get("configs") or {}
    return ComposeFile(path, services, order, configs, tuple(problems), tuple(notes))


def bad_compose(path: Path, why: str) -> CollaError:
    """A Compose file that cannot be understood."""
    return CollaError("bad_compose", f"{path} is not right: {why}.", "Correct it, then deploy it again.")


def _load(path: Path) -> dict[Any, Any]:
    try:
        import yaml
    except ImportError:
        raise CollaError(
            "not_installed", "Compose files need PyYAML.", "pip install 'colla[container]'"
        ) from None
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise bad_compose(path, "it is too long")
        found = yaml.safe_load(data)
    except OSError as error:
        raise bad_compose(path, f"it cannot be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        raise bad_compose(path, " ".join(str(error).split())) from None
    if not isinstance(found, dict):
        raise bad_compose(path, "it has no `services`")
    return found


class _Settling:
    """Goes through all values once; aliases of YAML may make many of few."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left = VALUES_MAX
        self.problems: list[str] = []
        self.notes: list[str] = []

    def settled(self, value: Any, place: tuple[str, ...] = ()) -> Any:
        """The value with its variables settled; keys have none, as in Compose. Raises `CollaError("bad_compose")`."""
        self._left -= 1
        if self._left < 0 or len(place) > DEPTH_MAX:
            raise bad_compose(self._path, "it holds too much")
        if isinstance(value, str):
            return self._text(value, ".".join(place).removeprefix("services.").rstrip("."))
        if isinstance(value, list):
            return [self.settled(each, (*place, "")) for each in value]
        if not isinstance(value, dict):
            return value
        return {
            key: each
            if str(key).startswith("x-") and key != OWN_KEY
            else self.settled(each, (*place, str(key)))
            for key, each in value.items()
        }

    def _text(self, text: str, place: str) -> str:
        def settle(found: re.Match[str]) -> str:
            if found["dollar"]:
                return "$"
            if found["odd"]:
                self.problems.append(f"{place}: a variable within a variable, or one without an end")
                return found[0]
            default = _BRACED.fullmatch(found["braced"] or "")
            if default is None:
                self.problems.append(
                    f"{place}: {found[0]} has no value here: {NOT_TAKEN} (a dollar sign itself is $$)"
                )
                return found[0]
            self.notes.append(f"{place}: {found[0]} is {default['default']!r}: {NOT_TAKEN}")
            return default["default"]

        return _VARIABLE.sub(settle, text)


def _in_order(path: Path, services: dict[Any, Any], problems: list[str]) -> list[Any]:
    """Those that others depend on come first. Raises `CollaError` for a circle or an unknown name."""
    waiting = {name: _dependencies(name, service, services, problems) for name, service in services.items()}
    done: list[Any] = []
    while waiting:
        ready = [name for name, needs in waiting.items() if all(need in done for need in needs)]
        unknown = [need for needs in waiting.values() for need in needs if need not in services]
        if unknown or not ready:
            what = f"no service is called {unknown[0]}" if unknown else "its depends_on go in a circle"
            raise bad_compose(path, what)
        done += ready
        for name in ready:
            del waiting[name]
    return done


def _dependencies(name: Any, service: Any, services: dict[Any, Any], problems: list[str]) -> list[Any]:
    needs = service.get("depends_on") if isinstance(service, dict) else None
    if not isinstance(needs, dict):
        return [str(need) for need in needs] if isinstance(needs, list) else []
    wanted = []
    for need, how in needs.items():
        said = how if isinstance(how, dict) else {}
        if said.get("condition") == DONE_BEFORE:
            problems.append(
                f"{name}.depends_on.{need}: a service runs on and on, and nothing waits for its end"
            )
        if need in services or said.get("required", True):
            wanted.append(need)
    return wanted
