"""What an owner may give: numbers that a computer can have, and no more text than an announcement carries."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from colla.model.contribution import BYTES_MAX, GIVES_NOTHING, Contribution, check_contribution, gives_all
from colla.model.errors import CollaError

ABSURD: list[dict[str, Any]] = [
    {"cpus": -0.5},
    {"cpus": float("nan")},
    {"cpus": float("inf")},
    {"cpus": 1e9},
    {"memory_bytes": -1},
    {"memory_bytes": BYTES_MAX + 1},
    {"memory_bytes": 10**40},
    {"disk_bytes": -1},
    {"disk_bytes": 2**64 - 1},
    {"replicas_max": -1},
    {"replicas_max": 10**6},
]
TOO_LONG: list[dict[str, Any]] = [
    {"labels": tuple((f"key{n}", "v" * 50) for n in range(100))},
    {"members": ("m" * 5000,)},
    {"environments": tuple(f"kind{n}" for n in range(1000))},
]


def test_what_is_reasonable_can_be_given() -> None:
    full = gives_all(64.0, 2**40, 2**50, ("static", "process"))
    for contribution in (full, GIVES_NOTHING):
        assert check_contribution(contribution) is contribution


@pytest.mark.parametrize("changes", [*ABSURD, *TOO_LONG], ids=lambda changes: ",".join(changes))
def test_what_no_computer_can_give_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(CollaError) as caught:
        check_contribution(msgspec.structs.replace(GIVES_NOTHING, **changes))
    assert caught.value.code == "bad_contribution"
    assert caught.value.hint


@pytest.mark.parametrize("changes", [c for c in ABSURD if 10**40 not in c.values()], ids=str)
def test_a_peer_that_announces_the_absurd_is_not_read(changes: dict[str, Any]) -> None:
    frame = msgspec.msgpack.encode(msgspec.structs.replace(GIVES_NOTHING, **changes))
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(frame, type=Contribution)
