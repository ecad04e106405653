"""The service's own named objects, asked of the group through the door that colla gives every replica.

All replicas of a service see the same names, and no other service does. A name leads to an immutable object, whose id
is its ETag; `expected` makes a change only if the name still leads where the caller saw it. See the environment
protocol of colla, calls `/v1/group/…`.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

TIMEOUT_S = 30
NOTHING = ""
"""As `expected`: the name must lead nowhere."""


class ChangedMeanwhile(Exception):
    """The name leads elsewhere by now: somebody else was faster, here or through another replica."""


class DoorError(Exception):
    """The group could not do it now."""


@dataclass(frozen=True)
class Name:
    """A name, the object it leads to, and when that was written (Unix time), alike at every replica."""

    name: str
    object: str
    written_at: float


class Door:
    """Blocking calls; any thread may use it."""

    def __init__(self, path: str, token: str) -> None:
        self._path, self._token = path, token

    @classmethod
    def of_replica(cls) -> Door:
        """The door of the replica that runs this program."""
        return cls(os.environ["COLLA_GROUP_SOCKET"], os.environ["COLLA_GROUP_TOKEN"])

    def names(self) -> list[Name]:
        """All names, in their order."""
        found: list[Name] = []
        while True:
            query = urlencode({"start_after": found[-1].name if found else ""})
            answer = json.loads(self._ask("GET", f"names?{query}")[1])
            page = [Name(one["name"], one["object"], one["written_at"]) for one in answer["names"]]
            found += page
            if not page or not answer.get("more"):
                return found

    def read(self, name: str) -> tuple[str, bytes]:
        """The object that the name leads to now, and its content. Raises `KeyError` when that is nothing."""
        response, content = self._ask("GET", f"names/{quote(name)}")
        return response.headers["ETag"].strip('"'), content

    def write(self, name: str, content: bytes, expected: str | None = None) -> str:
        """Let the name lead to this content; the object. Raises `ChangedMeanwhile`."""
        _, answer = self._ask("PUT", f"names/{quote(name)}", content, _condition(expected))
        return str(json.loads(answer)["object"])

    def remove(self, name: str, expected: str | None = None) -> None:
        """Let the name lead nowhere. Raises `ChangedMeanwhile`, `KeyError`."""
        self._ask("DELETE", f"names/{quote(name)}", b"", _condition(expected))

    def _ask(
        self, method: str, path: str, body: bytes = b"", condition: dict[str, str] | None = None
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection = _Connection(self._path)
        headers = {"X-Colla-Token": self._token} | (condition or {})
        try:
            connection.request(method, f"/v1/group/{path}", body, headers)
            response = connection.getresponse()
            answer = response.read()
        except OSError as error:
            raise DoorError(f"the group's door is closed: {error}") from error
        finally:
            connection.close()
        if response.status == 412:
            raise ChangedMeanwhile(path)
        if response.status == 404:
            raise KeyError(path)
        if response.status != 200:
            raise DoorError(f"{method} {path}: {response.status} {answer.decode(errors='replace')}")
        return response, answer


def _condition(expected: str | None) -> dict[str, str]:
    if expected is None:
        return {}
    return {"If-None-Match": "*"} if expected == NOTHING else {"If-Match": f'"{expected}"'}


class _Connection(http.client.HTTPConnection):
    """HTTP over the door's Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("group", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        sock: Any = socket.socket(socket.AF_UNIX)
        self.sock = sock
        sock.settimeout(TIMEOUT_S)
        sock.connect(self._path)
