"""The Common Gateway Interface: what a program is told, and what it may answer."""

from __future__ import annotations

import pytest

from colla.environments.cgi import VARIABLES_BYTES_MAX, BadOutput, understand, variables


def told(headers: list[tuple[str, str]], body_bytes: int = 0) -> dict[str, str]:
    return variables("GET", "/a b", "q=1%20", "HTTP/1.1", "site.localhost:8642", headers, body_bytes)


def test_a_program_is_told_the_request() -> None:
    env = told([("Accept", "text/html"), ("Content-Type", "text/plain"), ("X-Colla-Member", "ana")], 5)
    assert env["REQUEST_METHOD"] == "GET"
    assert env["PATH_INFO"] == "/a b"
    assert env["QUERY_STRING"] == "q=1%20"
    assert env["SERVER_NAME"] == "site.localhost"
    assert env["SERVER_PORT"] == "8642"
    assert env["CONTENT_TYPE"] == "text/plain"
    assert env["CONTENT_LENGTH"] == "5"
    assert env["HTTP_ACCEPT"] == "text/html"
    assert env["HTTP_X_COLLA_MEMBER"] == "ana"


def test_repeated_headers_are_joined() -> None:
    env = told([("Accept", "a"), ("Accept", "b"), ("Cookie", "x=1"), ("Cookie", "y=2")])
    assert env["HTTP_ACCEPT"] == "a, b"
    assert env["HTTP_COOKIE"] == "x=1; y=2"


@pytest.mark.parametrize("name", ["Proxy", "Connection", "Transfer-Encoding", "Content-Length"])
def test_headers_that_are_not_for_programs(name: str) -> None:
    assert told([(name, "evil")]) == told([])


def test_too_many_headers() -> None:
    with pytest.raises(ValueError, match="too long"):
        told([("X", "a" * VARIABLES_BYTES_MAX)])


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_an_answer(line_end: bytes) -> None:
    lines = [b"Status: 404 Not Found", b"Content-Type: text/plain", b"X-A:  b ", b"", b"gone\n\nfor good"]
    answer = understand(line_end.join(lines))
    assert answer.status == 404
    assert answer.headers == (("Content-Type", "text/plain"), ("X-A", "b"))
    assert answer.body == b"gone\n\nfor good"


def test_a_redirection_says_only_where_to() -> None:
    answer = understand(b"Location: /there\n\n")
    assert (answer.status, answer.body) == (302, b"")


def test_the_program_does_not_frame_the_answer() -> None:
    answer = understand(b"Content-Type: a/b\nContent-Length: 1\nTransfer-Encoding: chunked\n\nabc")
    assert answer.headers == (("Content-Type", "a/b"),)


@pytest.mark.parametrize(
    ("output", "why"),
    [
        (b"", "wrote nothing"),
        (b"<h1>hello</h1>", "no empty line"),
        (b"no header\n\nbody", "malformed header"),
        (b"X-A: b\x00c\n\n", "malformed header"),
        (b"X-A: b\rSet-Cookie: x\n\n", "malformed header"),
        (b"Status: 99\n\n", "malformed status"),
        (b"Status: 100 Continue\n\n", "malformed status"),
        (b"X-A: b\n\nbody", "no Content-Type"),
        (b"X: y\n" * 200 + b"\n", "too many headers"),
    ],
)
def test_what_is_no_answer(output: bytes, why: str) -> None:
    with pytest.raises(BadOutput, match=why):
        understand(output)
