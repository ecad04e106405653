"""Radicale on named objects: two replicas of `examples/calendar` in this process, on one door that is a dictionary."""

from __future__ import annotations

import io
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[3] / "examples" / "calendar"
MODULES = ("door", "group_auth", "group_storage", "serve")
EVENT = (
    "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:test\r\nBEGIN:VEVENT\r\nUID:{uid}\r\nDTSTAMP:20261122T120000Z\r\n"
    "DTSTART:20261201T180000Z\r\nSUMMARY:{summary}\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
)
HREF = "/everyone/calendar/lunch.ics"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The example's modules, which are found by their bare names where it runs."""
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(FOLDER))
    import door
    import group_storage
    import serve

    yield door, group_storage, serve
    for name in MODULES:
        sys.modules.pop(name, None)


class Names:
    """The group's names as two replicas see them at once; `before_write` happens just before a write arrives."""

    def __init__(self, door: Any) -> None:
        self._door = door
        self.content: dict[str, bytes] = {}
        self.before_write: Any = None

    def object(self, name: str) -> str:
        return sha256(self.content[name]).hexdigest() if name in self.content else ""

    def names(self) -> list[Any]:
        return [self._door.Name(name, self.object(name), 1e9) for name in sorted(self.content)]

    def read(self, name: str) -> tuple[str, bytes]:
        return self.object(name), self.content[name]

    def write(self, name: str, content: bytes, expected: str | None = None) -> str:
        self._check(name, expected)
        self.content[name] = content
        return self.object(name)

    def remove(self, name: str, expected: str | None = None) -> None:
        self._check(name, expected)
        del self.content[name]

    def _check(self, name: str, expected: str | None) -> None:
        happens, self.before_write = self.before_write, None
        if happens is not None:
            happens()
        if expected is not None and self.object(name) != expected:
            raise self._door.ChangedMeanwhile(name)


class Replica:
    """Radicale, asked as its web server would."""

    def __init__(self, modules: Any, names: Names) -> None:
        _, storage, serve = modules
        self._application = serve.Calendars(serve.configured())
        self._application._storage = storage.Storage(self._application.configuration, names)
        self._application.found()

    def ask(
        self, method: str, path: str, body: str = "", member: str = "anna", **headers: str
    ) -> tuple[int, str, Any]:
        raw = body.encode()
        environ = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "SERVER_PROTOCOL": "HTTP/1.1",
            "SERVER_NAME": "calendar.localhost",
            "SERVER_PORT": "80",
            "CONTENT_LENGTH": str(len(raw)),
            "wsgi.input": io.BytesIO(raw),
            "wsgi.url_scheme": "http",
            "wsgi.errors": sys.stderr,
        }
        environ |= {f"HTTP_{name.upper()}": value for name, value in headers.items()}
        environ |= {"HTTP_X_COLLA_MEMBER": member} if member else {}
        told: list[Any] = []
        answer = b"".join(
            self._application(environ, lambda status, heads: told.append((status, dict(heads))))
        )
        ((status, heads),) = told
        return int(status.split()[0]), answer.decode(), heads

    def put(self, summary: str, href: str = HREF, uid: str = "lunch", **headers: str) -> int:
        return self.ask("PUT", href, EVENT.format(uid=uid, summary=summary), **headers)[0]


@pytest.fixture
def names(modules: Any) -> Names:
    return Names(modules[0])


@pytest.fixture
def replicas(modules: Any, names: Names, monkeypatch: pytest.MonkeyPatch) -> tuple[Replica, Replica]:
    monkeypatch.setenv("COLLA_GROUP_SOCKET", "/nowhere")
    monkeypatch.setenv("COLLA_GROUP_TOKEN", "none")
    return Replica(modules, names), Replica(modules, names)


def test_what_one_replica_wrote_another_shows(replicas: tuple[Replica, Replica], names: Names) -> None:
    one, two = replicas
    assert one.put("Lunch", If_None_Match="*") == 201
    status, text, heads = two.ask("GET", HREF)
    assert status == 200 and "SUMMARY:Lunch" in text and heads["ETag"] == one.ask("GET", HREF)[2]["ETag"]
    assert two.put("Late lunch", If_Match=heads["ETag"]) == 204
    assert "SUMMARY:Late lunch" in one.ask("GET", HREF)[1]
    assert one.put("Lunch", If_Match=heads["ETag"]) == 412
    # A UID is in a calendar once (RFC 4791, 5.3.2.1), whoever wrote it.
    assert one.put("Other", "/everyone/calendar/other.ics") == 409
    assert (
        two.ask("MOVE", HREF, Destination="http://calendar.localhost/everyone/calendar/M%C3%BCsli%20x.ics")[0]
        == 201
    )
    assert one.ask("GET", HREF)[0] == 404
    assert sorted(names.content) == [
        "everyone/.props",
        "everyone/calendar/.props",
        "everyone/calendar/M%C3%BCsli x.ics",
    ]
    assert one.ask("DELETE", "/everyone/calendar/")[0] == 200
    assert two.ask("GET", "/everyone/calendar/")[0] == 404
    assert sorted(names.content) == ["everyone/.props"]


def test_a_write_that_comes_too_late_is_refused(replicas: tuple[Replica, Replica], names: Names) -> None:
    one, two = replicas
    one.put("Lunch")
    names.before_write = lambda: two.put("Ben was faster")
    assert one.put("Lunch with Anna") == 412
    assert "Ben was faster" in one.ask("GET", HREF)[1]
    names.before_write = lambda: two.put("Ben was faster again")
    assert one.ask("DELETE", HREF)[0] == 412
    assert "again" in one.ask("GET", HREF)[1]


def test_only_members_get_in(replicas: tuple[Replica, Replica]) -> None:
    one, _ = replicas
    one.put("Lunch")
    assert one.ask("GET", HREF, member="")[0] == 403
    assert one.ask("GET", HREF, member="", Authorization="Basic ZXZlcnlvbmU6eA==")[0] == 403
    assert one.put("Lunch by nobody", member="") == 403


def test_sync_tokens_hold_at_every_replica_that_saw_them(replicas: tuple[Replica, Replica]) -> None:
    def sync(replica: Replica, token: str) -> tuple[int, str, str]:
        body = (
            '<sync-collection xmlns="DAV:"><sync-level>1</sync-level><prop><getetag/></prop>'
            f"<sync-token>{token}</sync-token></sync-collection>"
        )
        status, text, _ = replica.ask("REPORT", "/everyone/calendar/", body)
        new = text.partition("<sync-token>")[2].partition("</sync-token>")[0]
        return status, new, text

    one, two = replicas
    one.put("Lunch")
    _, token, text = sync(one, "")
    assert "lunch.ics" in text and sync(two, "")[1] == token
    one.put("Dinner", "/everyone/calendar/dinner.ics", "dinner")
    one.ask("DELETE", HREF)
    status, later, text = sync(two, token)
    assert status == 207 and later != token and "dinner.ics" in text and "404 Not Found" in text
    assert sync(one, later)[0] == 403  # This replica never told it: the client looks at everything again.
