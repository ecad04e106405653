"""The program of a replica: Radicale with the group's storage, on $HOST and $PORT."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from door import ChangedMeanwhile
from group_auth import EVERYONE
from radicale import config, httputils, log
from radicale.app import Application

CALENDAR = f"{EVERYONE}/calendar"
PROPS = {"tag": "VCALENDAR", "D:displayname": "Our calendar"}


class Calendars(Application):  # type: ignore[misc]
    """Radicale; what lost against a write through another replica is answered like an ETag that holds no more."""

    def found(self) -> None:
        """The calendar of the group, when its first replica starts. One that was deleted later stays deleted."""
        with self._storage.acquire_lock("w"):
            if not self._storage.look.has(EVERYONE):
                self._storage.found(CALENDAR, PROPS)
                self._storage.found(EVERYONE, {})


def _or_412(method: Callable[..., Any]) -> Callable[..., Any]:
    def answer(self: Calendars, *arguments: Any) -> Any:
        try:
            return method(self, *arguments)
        except ChangedMeanwhile:
            return httputils.PRECONDITION_FAILED

    return answer


for _verb in ("PUT", "DELETE", "MOVE", "PROPPATCH", "MKCOL", "MKCALENDAR"):
    setattr(Calendars, f"do_{_verb}", _or_412(getattr(Application, f"do_{_verb}")))


class Threads(ThreadingMixIn, WSGIServer):
    """A thread per request; what is being answered at SIGTERM is answered."""

    request_queue_size = 128


class Quiet(WSGIRequestHandler):
    """Radicale itself logs requests."""

    def address_string(self) -> str:
        return str(self.client_address[0])

    def log_message(self, format: str, *args: object) -> None:
        pass


def configured() -> config.Configuration:
    """Radicale's configuration: our storage, our members."""
    settings = {
        "auth": {"type": "group_auth", "delay": "0"},
        "rights": {"type": "authenticated"},
        "storage": {"type": "group_storage"},
        "web": {"type": "none"},
        "logging": {"level": os.environ.get("LOG_LEVEL", "warning")},
    }
    configuration = config.load()
    configuration.update(settings, "serve.py", privileged=True)
    return configuration


def main() -> None:
    """Serve until SIGTERM."""
    log.setup()
    configuration = configured()
    log.set_level(configuration.get("logging", "level"), False)
    calendars = Calendars(configuration)
    calendars.found()
    address = os.environ["HOST"], int(os.environ["PORT"])
    with make_server(*address, calendars, server_class=Threads, handler_class=Quiet) as server:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        server.serve_forever()


if __name__ == "__main__":
    main()
