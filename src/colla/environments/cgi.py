"""The Common Gateway Interface (RFC 3875): a request as variables, and a program's output as an answer.

Pure functions. What a program writes is judged strictly, since it becomes the head of an HTTP answer: a header that
could smuggle another line, or an answer without a head, is no answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

HEAD_BYTES_MAX: Final = 64 << 10
HEADERS_MAX: Final = 128
VARIABLES_BYTES_MAX: Final = 128 << 10
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_STATUS = re.compile(r"([2-5]\d\d)(?:[ ](.*))?")
_ENDS = re.compile(rb"\r?\n\r?\n")
OF_THE_CONNECTION: Final = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "content-length",
    )
)
"""Headers that belong to the connection: the one who speaks HTTP sets them."""


class BadOutput(Exception):
    """What the program wrote is no answer; says why."""


class Answer(NamedTuple):
    """An answer to be sent."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def variables(
    method: str,
    path: str,
    query: str,
    version: str,
    host: str,
    headers: Iterable[tuple[str, str]],
    body_bytes: int,
) -> dict[str, str]:
    """The meta-variables of RFC 3875, section 4.1. `path` is decoded, `query` is not. Raises `ValueError` when too long."""
    name, _, port = host.partition(":")
    result = {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SERVER_SOFTWARE": "colla",
        "SERVER_PROTOCOL": version,
        "SERVER_NAME": name or "localhost",
        "SERVER_PORT": port or "80",
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "REMOTE_ADDR": "127.0.0.1",
    }
    if body_bytes:
        result["CONTENT_LENGTH"] = str(body_bytes)
    for field, value in headers:
        variable = field.upper().replace("-", "_")
        # `Proxy` would become HTTP_PROXY, which many programs take for their configuration (httpoxy, 2016).
        if variable == "PROXY" or field.lower() in OF_THE_CONNECTION:
            continue
        if variable == "CONTENT_TYPE":
            result["CONTENT_TYPE"] = value
            continue
        known = result.get(f"HTTP_{variable}")
        joint = "; " if variable == "COOKIE" else ", "
        result[f"HTTP_{variable}"] = value if known is None else f"{known}{joint}{value}"
    result = {name: text.replace("\0", "") for name, text in result.items()}
    if sum(len(name) + len(text) for name, text in result.items()) > VARIABLES_BYTES_MAX:
        raise ValueError("the request's headers are too long")
    return result


def understand(output: bytes) -> Answer:
    """Read what a program wrote: a head, an empty line, the body. Raises `BadOutput`."""
    end = _ENDS.search(output, 0, HEAD_BYTES_MAX)
    if end is None:
        what = "nothing" if not output else "no empty line after its headers"
        raise BadOutput(f"the program wrote {what}")
    lines = output[: end.start()].decode("latin-1").split("\n")
    if len(lines) > HEADERS_MAX:
        raise BadOutput("the program wrote too many headers")
    status, headers, typed, location = 0, [], False, False
    for line in lines:
        field = _FIELD.fullmatch(line.removesuffix("\r"))
        if field is None:
            raise BadOutput(f"the program wrote a malformed header: {line[:80]!r}")
        name, value = field[1], field[2].strip(" \t")
        lowered = name.lower()
        if lowered == "status":
            said = _STATUS.fullmatch(value)
            if said is None:
                raise BadOutput(f"the program wrote a malformed status: {value[:80]!r}")
            status = int(said[1])
        elif lowered not in OF_THE_CONNECTION:
            headers.append((name, value))
            typed |= lowered == "content-type"
            location |= lowered == "location"
    body = output[end.end() :]
    if not status:
        status = 302 if location else 200
    if body and not typed:
        raise BadOutput("the program wrote a body and no Content-Type")
    return Answer(status, tuple(headers), body)
