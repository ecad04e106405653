"""`configs` of a Compose file: small files that become a layer of the service's image.

So they need nothing of the computers that run it, and are a part of what is signed. Every member can read them, as the rest of the
image; secrets are something else. Paths of the file are taken from the folder of the Compose file.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from colla.client.images import AddedFile

CONFIGS_BYTES_MAX: Final = 1 << 20
"""Of all configs of one service."""
MODE_DEFAULT: Final = 0o444
MODE_MAX: Final = 0o777
ID_MAX: Final = 65_535
HIDDEN: Final = ("/dev", "/proc", "/run", "/sys", "/tmp", "/var/tmp")
"""Where a running container sees something else than its image."""
_SOURCE_KEYS: Final = frozenset(["file", "content", "name"])
_USE_KEYS: Final = frozenset(["source", "target", "uid", "gid", "mode"])


class BadConfig(Exception):
    """A config that cannot be given, and why."""


def read_configs(folder: Path, declared: dict[Any, Any], used: Any) -> Iterator[AddedFile]:
    """The files that a service's `configs` name, of those `declared` at the top. Raises `BadConfig`."""
    left = CONFIGS_BYTES_MAX
    for entry in used if isinstance(used, list) else [used]:
        use = entry if isinstance(entry, dict) else {"source": entry}
        _check_keys(use, _USE_KEYS)
        source = str(use.get("source", ""))
        data = _content(folder, source, declared.get(source), left)
        left -= len(data)
        yield AddedFile(
            path=_target(str(use.get("target") or f"/{source}")),
            data=data,
            mode=_number(use.get("mode", MODE_DEFAULT), 8, MODE_MAX, "mode"),
            user=_number(use.get("uid", 0), 10, ID_MAX, "uid"),
            group=_number(use.get("gid", 0), 10, ID_MAX, "gid"),
        )


def _content(folder: Path, name: str, declared: Any, bytes_max: int) -> bytes:
    if not isinstance(declared, dict):
        raise BadConfig(f"no config is called {name!r} at the top of the file")
    _check_keys(declared, _SOURCE_KEYS)
    if isinstance(content := declared.get("content"), str):
        data = content.encode()
    elif isinstance(path := declared.get("file"), str):
        try:
            with (folder / path).open("rb") as file:
                data = file.read(bytes_max + 1)
        except OSError as error:
            raise BadConfig(f"{folder / path} cannot be read ({error.strerror})") from None
    else:
        raise BadConfig(f"{name} says neither `file` nor `content`")
    if len(data) > bytes_max:
        raise BadConfig(
            f"the configs of a service may have {CONFIGS_BYTES_MAX >> 20} MiB; put {name} into the image"
        )
    return data


def _check_keys(found: dict[Any, Any], known: frozenset[str]) -> None:
    for key in found:
        if key not in known:
            raise BadConfig(f"colla has nothing like {key!r}; what is known: {', '.join(sorted(known))}")


def _target(text: str) -> str:
    path = posixpath.normpath(text)
    if (
        not path.startswith("/")
        or path.startswith("//")
        or path == "/"
        or "\0" in path
        or ".." in text.split("/")
    ):
        raise BadConfig(f"{text!r} is no whole path of a file")
    if any(path == each or path.startswith(f"{each}/") for each in HIDDEN):
        raise BadConfig(f"{text} would not be seen there; it may lie anywhere but below {', '.join(HIDDEN)}")
    return path


def _number(said: Any, base: int, most: int, what: str) -> int:
    """YAML has read `0440` as a number already, not so `"0440"` or `0o440`."""
    try:
        number = said if isinstance(said, int) else int(str(said), base)
    except ValueError:
        number = -1
    if not 0 <= number <= most:
        raise BadConfig(f"{said!r} is no {what}")
    return number
