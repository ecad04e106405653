"""The OpenAPI 3.1 document of the environment protocol, generated from its structs and its table of calls.

`openapi.json` beside this module is its output; a test keeps the two equal.
"""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from colla.environments.group import GROUP_CALLS, TOKEN_HEADER
from colla.environments.protocol import CALLS, PROTOCOL_VERSION, Call, Handshake, Problem

QUERY_SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "follow": {"enum": ["0", "1"]},
    "after": {"type": "integer", "minimum": 0},
    "timeout_s": {"type": "number", "minimum": 0},
    "instance": {"type": "string"},
    "prefix": {"type": "string"},
    "start_after": {"type": "string"},
}
_REFERENCE = "#/components/schemas/{name}"


def document() -> dict[str, Any]:
    """The whole document as plain values."""
    types: list[Any] = [Handshake, Problem]
    calls = [*CALLS.values(), *GROUP_CALLS.values()]
    for call in calls:
        types += [call.answer] if call.body is None else [call.answer, call.body]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    schema_of = dict(zip(map(str, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for call in calls:
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "colla environment protocol",
            "version": str(PROTOCOL_VERSION),
            "description": "An environment is a program that prints one line of JSON on stdout (Handshake) and serves"
            " these calls over the Unix socket that the line names. Streams are NDJSON: one value per line; an empty"
            " line says that the other side lives. A call with x-capability is served by environments that claim it."
            " What begins with /v1/group is the other direction: the agent serves it on the socket of ReplicaSpec.group,"
            " and X-Colla-Token says which replica asks.",
        },
        "paths": paths,
        "components": {"schemas": dict(sorted(components.items()))},
    }


def _operation(call: Call, schema_of: dict[str, Any]) -> dict[str, Any]:
    media = "application/x-ndjson" if call.streams else _media(call.answer)
    operation: dict[str, Any] = {
        "operationId": call.name,
        "summary": call.summary,
        **({"x-capability": call.capability} if call.capability else {}),
        "responses": {
            "200": {"description": "Done", "content": {media: {"schema": schema_of[str(call.answer)]}}},
            "default": {
                "description": "Refused or failed",
                "content": {"application/json": {"schema": schema_of[str(Problem)]}},
            },
        },
    }
    parameters: list[dict[str, Any]] = []
    if "{replica}" in call.path:
        pattern = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
        parameters.append({"name": "replica", "in": "path", "required": True, "schema": pattern})
    if "{name}" in call.path:
        parameters.append({"name": "name", "in": "path", "required": True, "schema": {"type": "string"}})
    if call.path.startswith("/v1/group/"):
        parameters.append(
            {"name": TOKEN_HEADER, "in": "header", "required": True, "schema": {"type": "string"}}
        )
    for name in call.query:
        parameters.append({"name": name, "in": "query", "schema": QUERY_SCHEMAS[name]})
    if parameters:
        operation["parameters"] = parameters
    if call.body is not None:
        content = {_media(call.body): {"schema": schema_of[str(call.body)]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _media(kind: object) -> str:
    return "application/octet-stream" if kind is msgspec.Raw else "application/json"


def text() -> str:
    """The document as it is stored."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"
