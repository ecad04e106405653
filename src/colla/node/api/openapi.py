"""The OpenAPI 3.1 description of the local API, generated from its routes and the structs that they name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

import colla
from colla.client import types
from colla.node.api.routes import STATUS_OF_CODE, Route

PATH: Final = "openapi.json"
"""Where the API serves it, below its version."""
PATH_SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "port": {"type": "integer", "minimum": 1, "maximum": 65535},
}
"""The variable parts of paths that are not just any text."""
ALWAYS: Final = ("bad_request", "not_allowed", "internal")
"""Errors that every route can answer with: a request that is none, a wrong token, a fault of colla's."""
_REFERENCE: Final = "#/components/schemas/{name}"


def document(routes: Sequence[Route[Any, Any]]) -> dict[str, Any]:
    """The whole document as plain values."""
    kinds: list[Any] = [types.ApiError]
    for route in routes:
        kinds += [route.answer] if route.request is None else [route.answer, route.request]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_REFERENCE)
    schema_of = {str(kind): schema for kind, schema in zip(kinds, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = f"/{types.API_VERSION}/{route.path}"
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, schema_of, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "colla local API",
            "version": colla.__version__,
            "description": "HTTP/1.1 on the Unix socket `api.sock` in the group's folder; the token is in `api.token`"
            " beside it. Streams are NDJSON: one value per line.",
        },
        "servers": [{"url": "http://colla"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(components.items())),
            "securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": types.TOKEN_HEADER}},
        },
    }


def _operation(
    route: Route[Any, Any], schema_of: dict[str, Any], components: dict[str, Any]
) -> dict[str, Any]:
    media = "application/x-ndjson" if route.streams else "application/json"
    operation: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{route.method.lower()}_{route.path}").strip("_"),
        "summary": route.summary,
        "responses": {
            "200": {"description": "Done", "content": {media: {"schema": schema_of[str(route.answer)]}}},
            **_errors(route, schema_of[str(types.ApiError)]),
        },
    }
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": PATH_SCHEMAS.get(name, {"type": "string"})}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    if route.request is not None and route.in_query:
        parameters += _query(components[route.request.__name__])
    elif route.request is not None:
        needed = any(field.required for field in msgspec.structs.fields(route.request))
        content = {"application/json": {"schema": schema_of[str(route.request)]}}
        operation["requestBody"] = {"required": needed, "content": content}
    if parameters:
        operation["parameters"] = parameters
    return operation


def _errors(route: Route[Any, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The codes of each status: those that every route has, and its own."""
    codes: dict[str, list[str]] = {}
    for code in (*ALWAYS, *route.errors):
        status = "500" if code == "internal" else str(STATUS_OF_CODE.get(code, 400))
        if code not in codes.setdefault(status, []):
            codes[status].append(code)
    content = {"application/json": {"schema": schema}}
    named = {
        status: {"description": ", ".join(each), "content": content} for status, each in sorted(codes.items())
    }
    return {**named, "default": {"description": "Any other error", "content": content}}


def _query(schema: dict[str, Any]) -> list[dict[str, Any]]:
    required = schema.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in required, "schema": each}
        for name, each in schema["properties"].items()
    ]
