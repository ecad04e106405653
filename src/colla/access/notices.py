"""What the gateway says when it answers by itself, and in which form a client wants it.

Pure, but for aiohttp's response type. Invariant: a contributed door tells nothing about the inside of the group.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import assert_never

from aiohttp import web

from colla.access.courier import Undelivered
from colla.access.interface import ListedService, Located
from colla.access.names import ByName, Meaning
from colla.access.pages import PAGE_HEADERS, Notice, notice_json, notice_page, notice_text

RETRY_AFTER_S = 2

HOST_MALFORMED = Notice(
    400,
    "host_malformed",
    "Not understood",
    "The request does not say clearly which service it is for.",
    "Send exactly one Host header, such as SERVICE.localhost.",
)
UPLOAD_FAILED = Notice(
    408, "upload_failed", "Nothing was sent", "The rest of the request did not arrive.", "Send it again."
)


def foreign(host: str) -> Notice:
    """For a Host that is not ours."""
    return Notice(
        421,
        "host_foreign",
        "Not the address of a service",
        f"This is a gateway, and {host} is not one of its names.",
        "Open http://SERVICE.localhost at the gateway's port, or see its front page at http://localhost.",
    )


def unknown(means: Meaning, services: Sequence[ListedService]) -> Notice:
    """For a name that no service has; `services` may offer similar names."""
    name = means.host_name if isinstance(means, ByName) else ""
    similar = difflib.get_close_matches(name, [service.host_name for service in services], n=3)
    hint = f"Did you mean {' or '.join(similar)}?" if similar else "Look at its spelling."
    text = f"There is no service called {name} here." if name else "There is no such service here."
    return Notice(404, "service_unknown", "No such service", text, hint)


def inactive(located: Located, tell: bool) -> Notice:
    """For a service that its owner has not activated."""
    hint = f"Its owner can start it: colla activate {located.name}" if tell else ""
    return Notice(503, "service_inactive", f"{located.name} is not active", "It is not running now.", hint)


def undelivered(failure: Undelivered, tell: bool) -> Notice:
    """For a request that no replica answered. `tell`: the reader may know what was tried."""
    name = failure.located.name
    details = tuple(failure.reasons) if tell else ()
    why = f"See what the group is doing about it: colla why {name}" if tell else ""
    match failure.kind:
        case "no_replica":
            text = "No replica of it is running yet. It is being started as soon as a computer takes it."
            if tell and failure.located.notice:
                text = failure.located.notice
            return Notice(503, failure.kind, f"{name} is starting", text, why, (), RETRY_AFTER_S)
        case "all_failed":
            text = "Its replicas could not be reached. The group is looking for a replacement."
            return Notice(502, failure.kind, f"{name} does not answer", text, why, details, RETRY_AFTER_S)
        case "timed_out":
            text = "Its replicas took too long to answer."
            return Notice(504, failure.kind, f"{name} does not answer", text, why, details, RETRY_AFTER_S)
        case "interrupted":
            text = "The replica broke off. What you sent may or may not have taken effect, so it was not repeated."
            return Notice(
                502, failure.kind, f"{name} broke off", text, "Look before you send it again.", details
            )
        case _:
            assert_never(failure.kind)


def response(request: web.BaseRequest, notice: Notice) -> web.Response:
    """The notice in the form that the client asked for: a page, JSON, or plain text."""
    accept = request.headers.get("Accept", "")
    if "text/html" in accept:
        # Reloading by itself would send a form again; only what was merely looked at is looked at again.
        reloading = notice.retry_after_s is not None and request.method == "GET"
        answer = html(notice_page(notice, reload=reloading), notice.status)
    elif "application/json" in accept:
        answer = web.Response(
            text=notice_json(notice),
            content_type="application/json",
            status=notice.status,
            headers=PAGE_HEADERS,
        )
    else:
        answer = web.Response(text=notice_text(notice), status=notice.status, headers=PAGE_HEADERS)
    answer.headers["X-Colla-Error"] = notice.code
    answer.headers["Server"] = "colla"
    if notice.retry_after_s is not None:
        answer.headers["Retry-After"] = str(notice.retry_after_s)
    return answer


def html(page: str, status: int = 200) -> web.Response:
    """A page of our own."""
    return web.Response(text=page, content_type="text/html", status=status, headers=PAGE_HEADERS)
