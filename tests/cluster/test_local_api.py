"""The running local API keeps to its own OpenAPI description: schemathesis asks it everything, rightly and wrongly.

One real node serves the API; the requests come from its description alone, in the same order every time.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import socket
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from computers import Computer, deploy, everything
from hypothesis import HealthCheck, Phase, given, settings
from requests.adapters import BaseAdapter, HTTPAdapter
from schemathesis import GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    negative_data_rejection,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from urllib3 import HTTPResponse

from colla.client import types
from colla.node.api import ROUTES, openapi

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(60)]

LEFT_OUT = {
    "post_leave": "the node would end",
    "post_shut_down": "the node would end",
    "post_contribute": "the node would stop serving what the other requests ask for",
    "get_notices": "the answer has no end",
    "get_messages_follow": "the answer has no end",
    "get_events_follow": "the answer has no end",
    "get_presence_follow": "the answer has no end",
}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]
REQUEST_TIMEOUT_S = 45.0
EXAMPLES = 10
"""Of each operation, right ones and as many wrong ones."""
SERVICE = "web"
DOCUMENT = json.loads(json.dumps(openapi.document(ROUTES)))
OPERATIONS: dict[str, Any] = {
    operation.definition.raw["operationId"]: operation
    for result in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations()
    for operation in [result.ok()]
}
SETTINGS = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


class SocketAdapter(BaseAdapter):
    """Carries requests over a Unix socket, whatever the address says."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = str(path)
        self._building = HTTPAdapter()

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        with closing(HTTPConnection("colla")) as connection:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(REQUEST_TIMEOUT_S)
            connection.sock.connect(self._path)
            connection.request(str(request.method), request.path_url, request.body, dict(request.headers))
            answer = connection.getresponse()
            raw = HTTPResponse(
                io.BytesIO(answer.read()),
                headers=answer.getheaders(),
                status=answer.status,
                reason=answer.reason,
                version=11,
                preload_content=False,
            )
        return self._building.build_response(request, raw)

    def close(self) -> None:
        self._building.close()


@pytest.fixture(scope="module")
def computer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Computer]:
    base = tmp_path_factory.mktemp("api")
    computer = Computer(base, "attic")
    computer.found("circle", "hashing", everything())
    site = base / SERVICE
    site.mkdir()
    (site / "index.html").write_text("<h1>here</h1>")

    async def begin() -> None:
        await computer.up()
        await deploy(computer, site, SERVICE, 1)

    try:
        asyncio.run(begin())
        yield computer
    finally:
        computer.unplug()


@pytest.fixture(scope="module")
def session(computer: Computer) -> requests.Session:
    session = requests.Session()
    session.adapters.clear()
    session.mount("http://", SocketAdapter(computer.folder / types.SOCKET_NAME))
    return session


@pytest.fixture(scope="module")
def token(computer: Computer) -> dict[str, str]:
    return {types.TOKEN_HEADER: (computer.folder / types.TOKEN_NAME).read_text()}


def test_the_node_serves_this_description(session: requests.Session, token: dict[str, str]) -> None:
    assert session.get("http://colla/v1/openapi.json", headers=token).json() == DOCUMENT


@pytest.mark.parametrize("wrong", [{}, {types.TOKEN_HEADER: "x"}, {types.TOKEN_HEADER: "\xff"}])
def test_no_route_answers_without_the_token(session: requests.Session, wrong: dict[str, str]) -> None:
    for route in ROUTES:
        path = re.sub(r"{\w+}", "1", route.path)
        answer = session.request(route.method, f"http://colla/v1/{path}", headers=wrong)
        assert (answer.status_code, answer.json()["code"]) == (403, "not_allowed"), route.path


def test_the_routes_that_are_left_out_exist() -> None:
    assert set(LEFT_OUT) < set(OPERATIONS)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in LEFT_OUT])
def test_the_api_does_what_its_description_says(
    name: str, mode: GenerationMode, session: requests.Session, token: dict[str, str], computer: Computer
) -> None:
    @given(case=OPERATIONS[name].as_strategy(generation_mode=mode))
    @settings(SETTINGS, max_examples=EXAMPLES)
    def ask(case: schemathesis.Case) -> None:
        with_what_exists(name, case, computer)
        case.call_and_validate(session=session, base_url="http://colla", headers=token, checks=CHECKS)

    ask()


def with_what_exists(name: str, case: schemathesis.Case, computer: Computer) -> None:
    """Chance names nothing that exists, and files of this computer only by accident: none of those is to be read."""
    if len(str(case.path_parameters.get("name", ""))) % 2 and name != "delete_services_name":
        case.path_parameters["name"] = SERVICE
    if case.query and case.query.get("follow") in (True, "true"):
        case.query["follow"] = False  # What is followed has no end.
    body = case.body if isinstance(case.body, dict) else {}
    there: dict[str, Any] = {
        "path": str(computer.home.parent / SERVICE),
        "service": SERVICE,
        "object": "00" * 32,
    }
    there |= {"name": "another", "replicas": 1}
    for key in there:
        if type(body.get(key)) is type(there[key]) and len(str(body[key])) % 3 < 2:
            body[key] = there[key]
    if isinstance(path := body.get("path"), str) and path.startswith("/"):
        body["path"] = there["path"]
