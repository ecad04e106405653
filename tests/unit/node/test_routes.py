"""The routes of the local API: what their description promises about errors."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from colla.node.api import ROUTES, openapi
from colla.node.api.routes import STATUS_OF_CODE, WRITE_ERRORS, Route

WRITES_NO_RECORD = (
    "connect",
    "contribute",
    "environments",
    "forwards",
    "leave",
    "objects/check",
    "objects/get",
    "shut-down",
    "subscribers/",
    "transfers/",
    "/exec",
)
"""Parts of the paths whose POST or DELETE changes this computer only, or, as leaving, works with nobody in reach."""


def changing() -> Sequence[str]:
    return [
        f"{route.method} {route.path}"
        for route in ROUTES
        if route.method in ("POST", "PUT", "DELETE")
        and not any(part in route.path for part in WRITES_NO_RECORD)
    ]


@pytest.mark.parametrize("name", changing())
def test_what_writes_a_record_says_that_there_is_a_bound(name: str) -> None:
    (route,) = [route for route in ROUTES if f"{route.method} {route.path}" == name]
    assert isinstance(route, Route)
    assert set(WRITE_ERRORS) <= set(route.errors)
    document = openapi.document([route])
    (operation,) = (each for path in document["paths"].values() for each in path.values())
    assert "quota_reached" in operation["responses"][str(STATUS_OF_CODE["quota_reached"])]["description"]
