"""A pinboard: notes that every replica shows, as an ASGI application. What it keeps lies in the group, as named objects."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

NOTE_CHARS_MAX = 2000


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    """The group's door, for as long as the replica lives."""
    door = httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(uds=os.environ["COLLA_GROUP_SOCKET"]),
        base_url="http://group/v1/group/",
        headers={"X-Colla-Token": os.environ["COLLA_GROUP_TOKEN"]},
        timeout=30,
    )
    async with door:
        yield {"door": door}


async def ask(request: Request, method: str, path: str, **more: Any) -> httpx.Response:
    """One call of the group; what it refuses becomes our answer."""
    answer: httpx.Response = await request.state.door.request(method, path, **more)
    if answer.status_code == 404:
        raise HTTPException(404, "There is no such note.")
    if answer.is_error:
        raise HTTPException(503, f"The group cannot do it now: {answer.text}")
    return answer


async def listed(request: Request) -> Response:
    """The names of all notes."""
    names: list[str] = []
    more = True
    while more:
        params = {"prefix": "notes/", "start_after": names[-1] if names else ""}
        page = (await ask(request, "GET", "names", params=params)).json()
        names += [one["name"] for one in page["names"]]
        more = page.get("more", False)
    return JSONResponse({"notes": [f"/{name}" for name in names]})


async def pinned(request: Request) -> Response:
    """Pin a note: the text is the body, its author the member who asks."""
    text = (await request.body()).decode(errors="replace")
    if not 1 <= len(text) <= NOTE_CHARS_MAX:
        raise HTTPException(400, f"A note has 1 to {NOTE_CHARS_MAX} characters.")
    note = {"text": text, "by": request.headers.get("X-Colla-Member", "somebody")}
    name = f"notes/{secrets.token_hex(8)}"
    await ask(
        request, "PUT", f"names/{name}", content=JSONResponse(note).body, headers={"If-None-Match": "*"}
    )
    return JSONResponse(note, 201, {"Location": f"/{name}"})


async def shown(request: Request) -> Response:
    """One note."""
    answer = await ask(request, "GET", f"names/notes/{quote(request.path_params['note'])}")
    return Response(answer.content, media_type="application/json", headers={"ETag": answer.headers["ETag"]})


async def taken_down(request: Request) -> Response:
    """Take a note down. Done twice it is as well: a gateway may ask a second replica when the first one is slow."""
    try:
        await ask(request, "DELETE", f"names/notes/{quote(request.path_params['note'])}")
    except HTTPException as error:
        if error.status_code != 404:
            raise
    return Response(status_code=204)


async def refused(request: Request, error: Exception) -> Response:
    """Errors as JSON, like everything else."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)


app = Starlette(
    lifespan=lifespan,
    exception_handlers={HTTPException: refused},
    routes=[
        Route("/", listed),
        Route("/notes", pinned, methods=["POST"]),
        Route("/notes/{note}", shown),
        Route("/notes/{note}", taken_down, methods=["DELETE"]),
    ],
)
