"""The protocol's values, its table of calls and the stored OpenAPI document."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from colla.environments import openapi, protocol
from colla.environments.group import GROUP_CALLS
from colla.environments.program import Program
from colla.environments.protocol import CALLS, EnvironmentEvent, Exit, ReplicaExited, ReplicaSpec


def test_the_stored_document_is_the_generated_one():
    stored = Path(openapi.__file__).with_name("openapi.json").read_text()
    assert stored == openapi.text(), (
        "run: python -m colla.environments openapi > src/colla/environments/openapi.json"
    )


def test_the_document_is_whole():
    document = json.loads(openapi.text())
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert sorted(operation["operationId"] for operation in operations) == sorted([*CALLS, *GROUP_CALLS])
    references = [
        part.split('"')[0].rpartition("/")[2] for part in openapi.text().split('"#/components/schemas/')[1:]
    ]
    assert references and set(references) <= set(document["components"]["schemas"])
    for call in CALLS.values():
        assert set(call.query) <= set(openapi.QUERY_SCHEMAS)


def test_every_call_has_its_handler():
    for name in CALLS:
        assert callable(getattr(Program, f"on_{name}"))


def test_an_event_survives_the_wire():
    event = ReplicaExited(
        replica="ab" * 16,
        instance="x",
        number=3,
        at=1.5,
        exit=Exit(reason="killed", signal=9, last_lines=("a",)),
    )
    raw = msgspec.json.encode(event)
    assert json.loads(raw)["type"] == "exited"
    assert msgspec.json.decode(raw, type=EnvironmentEvent) == event


def test_newer_fields_are_ignored_and_wrong_types_are_not():
    raw = {"replica": "ab" * 16, "service": "s", "artifact": "/a", "new": 1}
    spec = msgspec.convert(raw, ReplicaSpec)
    assert spec.replica_id == b"\xab" * 16
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(raw | {"command": "python3 app.py"}, ReplicaSpec)
    with pytest.raises(ValueError, match="replica id"):
        _ = msgspec.convert(raw | {"replica": "abc"}, ReplicaSpec).replica_id


def test_every_public_struct_says_what_it_is():
    for name, value in vars(protocol).items():
        if isinstance(value, type) and issubclass(value, msgspec.Struct) and not name.startswith("_"):
            assert value.__doc__ and value.__doc__.strip(), name
            assert value.__struct_config__.frozen, name
