"""The executor's small pieces: the owner's will, back-off, and the table of replicas with its cells."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from colla.environments.protocol import Isolation
from colla.kernel.config import SupervisionConfig
from colla.kernel.durable import Durable
from colla.kernel.time import Instant
from colla.model.contribution import GIVES_NOTHING, gives_all
from colla.model.ids import MemberId, NodeId, ObjectId, ReplicaId, ServiceId
from colla.model.location import ReplicaPhase
from colla.model.service import Limits, Specification
from colla.model.willing import ISOLATIONS, weaker
from colla.protocol.running.backoff import Backoff
from colla.protocol.running.replicas import ReplicaTable, Stage, drop_cell, store_cell
from colla.protocol.running.willingness import Owner, over_limit, refuses_one_more, refuses_service
from colla.protocol.supervision.messages import Capacity

ME, OTHER = MemberId(b"m" * 32), MemberId(b"o" * 32)
SERVICE, REPLICA, NODE = ServiceId(b"s" * 16), ReplicaId(b"r" * 16), NodeId(b"n" * 32)
GIVES = gives_all(2.0, 1000, 1000, ("static",))
FREE = Capacity(2.0, 0.0, 1000, 0, 1000, 0, 4)
SPECIFICATION = Specification(
    name="site",
    owner=OTHER,
    version=1,
    object=ObjectId(b"o" * 32),
    object_bytes=100,
    environment="static",
    limits=Limits(0.5, 100),
    labels=(("site", "home"),),
)


def owner(**changes: object) -> Owner:
    given = msgspec.structs.replace(GIVES, **changes)
    return Owner(given, ("static",), ME, (("static", "bubblewrap"),))


def at(seconds: float) -> Instant:
    return Instant(seconds, seconds)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"paused": True}, "paused"),
        ({"agents": ()}, "no_executor"),
        ({"environments": ("wasm",)}, "environment_not_given"),
        ({"own_only": True}, "own_only"),
        ({"members": ("anna", "f" * 64)}, "member_not_allowed"),
        ({"denied_members": ("otto",)}, "member_denied"),
        ({"denied_members": (OTHER.hex(),), "members": ("otto",)}, "member_denied"),
        ({"only_labels": (("gpu", "yes"), ("site", "club"))}, "label_not_allowed"),
        ({"denied_labels": (("site", "home"),)}, "label_denied"),
        ({"strangers": "container"}, "isolation"),
        ({"strangers": "nothing-executed"}, "isolation"),
    ],
)
def test_what_the_owner_never_runs_has_its_code(changes: dict[str, object], code: str) -> None:
    refused = refuses_service(owner(**changes), SPECIFICATION, "otto")
    assert refused is not None and refused.code == code and refused.reason
    again = refuses_one_more(owner(**changes), SPECIFICATION, "otto", FREE, True)
    assert again == refused


@pytest.mark.parametrize(
    "changes",
    [
        {"denied_members": ("anna",)},
        {"only_labels": (("site", "home"), ("gpu", "yes"))},
        {"denied_labels": (("site", "club"), ("gpu", "yes"))},
        {"strangers": "bubblewrap"},
        {"strangers": "none"},
        {"strangers": "container", "members": ("otto",)},
    ],
)
def test_what_the_owner_said_of_others_concerns_nobody_else(changes: dict[str, object]) -> None:
    assert refuses_service(owner(**changes), SPECIFICATION, "otto") is None


def test_ones_own_services_need_no_isolation() -> None:
    own = msgspec.structs.replace(SPECIFICATION, owner=ME)
    assert refuses_service(owner(strangers="nothing-executed"), own, "me") is None


def test_an_environment_that_does_not_say_how_it_isolates_counts_as_the_weakest() -> None:
    wants = msgspec.structs.replace(owner(strangers="bubblewrap"), isolation=())
    refused = refuses_service(wants, SPECIFICATION, "otto")
    assert refused is not None and refused.code == "isolation"
    # While its program is brought back it is not known, and its replicas are left alone.
    assert refuses_service(msgspec.structs.replace(wants, environments=()), SPECIFICATION, "otto") is None
    assert weaker("of the future", "bubblewrap") and not weaker("webassembly", "bubblewrap")
    assert set(ISOLATIONS) == set(get_args(Isolation))


@pytest.mark.parametrize("listed", ["otto", OTHER.hex()])
def test_a_listed_member_is_welcome_by_name_or_id(listed: str) -> None:
    assert refuses_service(owner(members=(listed,)), SPECIFICATION, "otto") is None


@pytest.mark.parametrize(
    ("capacity", "code"),
    [
        ({"replicas": 4}, "replicas_max"),
        ({"cpus_reserved": 1.6}, "no_cpu"),
        ({"memory_reserved_bytes": 901}, "no_memory"),
        ({"disk_free_bytes": 99}, "no_disk"),
    ],
)
def test_what_is_full_has_its_code(capacity: dict[str, object], code: str) -> None:
    taken = msgspec.structs.replace(FREE, **capacity)
    refused = refuses_one_more(owner(), SPECIFICATION, "otto", taken, False)
    assert refused is not None and refused.code == code


def test_exactly_fitting_is_fitting() -> None:
    taken = msgspec.structs.replace(FREE, cpus_reserved=1.5, memory_reserved_bytes=900, disk_free_bytes=100)
    assert refuses_one_more(owner(), SPECIFICATION, "otto", taken, False) is None


def test_draining_refuses_more_but_lets_run() -> None:
    drains = owner(draining=True)
    assert refuses_service(drains, SPECIFICATION, "otto") is None
    refused = refuses_one_more(drains, SPECIFICATION, "otto", FREE, True)
    assert refused is not None and refused.code == "draining"


def test_a_given_but_detached_environment_refuses_more() -> None:
    detached = Owner(GIVES, (), ME)
    refused = refuses_one_more(detached, SPECIFICATION, "otto", FREE, True)
    assert refused is not None and refused.code == "environment_missing"


def test_who_gives_nothing_runs_nothing() -> None:
    refused = refuses_service(Owner(GIVES_NOTHING, ("static",), ME), SPECIFICATION, "otto")
    assert refused is not None


def test_the_newest_go_when_the_owner_gives_less() -> None:
    running = [SPECIFICATION] * 4
    assert over_limit(owner(), running) == []
    assert over_limit(owner(cpus=1.0), running) == [2, 3]
    assert over_limit(owner(memory_bytes=150), running) == [1, 2, 3]
    assert over_limit(owner(replicas_max=3), running) == [3]


def test_back_off_doubles_and_is_forgotten_after_good_running() -> None:
    backoff = Backoff(SupervisionConfig())
    pauses = [backoff.failed(SERVICE, 1, 0.0, at(10.0 * n)) for n in range(8)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff.left_s(SERVICE, 1, at(100.0)) == 30.0
    assert backoff.left_s(SERVICE, 2, at(100.0)) == 0.0
    assert backoff.failed(SERVICE, 1, 61.0, at(200.0)) == 1.0
    backoff.forget(SERVICE)
    assert backoff.left_s(SERVICE, 1, at(200.0)) == 0.0


def test_back_offs_are_bounded() -> None:
    backoff = Backoff(SupervisionConfig(backoffs_max=3))
    for version in range(5):
        backoff.failed(SERVICE, version, 0.0, at(0.0))
    assert [backoff.left_s(SERVICE, version, at(0.5)) for version in range(5)] == [0, 0, 0.5, 0.5, 0.5]


def test_cells_remember_a_replica_until_dropped() -> None:
    disk = Durable({}, {})
    disk.apply([store_cell(REPLICA, SERVICE, SPECIFICATION)])
    table = ReplicaTable(disk, 80)
    assert table.remembered[REPLICA].specification == SPECIFICATION
    assert table.all() == []
    disk.apply([drop_cell(REPLICA)])
    assert ReplicaTable(disk, 80).remembered == {}


def test_a_corrupt_cell_is_told() -> None:
    with pytest.raises(ValueError, match="corrupt"):
        ReplicaTable(Durable({}, {"replica/" + REPLICA.hex(): b"\xc1"}), 80)


def test_one_replica_per_service() -> None:
    table = ReplicaTable(Durable({}, {}), 80)
    table.add(REPLICA, SERVICE, SPECIFICATION, Stage.READY)
    with pytest.raises(AssertionError, match="at most one"):
        table.add(ReplicaId(b"q" * 16), SERVICE, SPECIFICATION, Stage.READY)


def test_the_service_with_the_fewest_living_replicas_starts_first() -> None:
    table = ReplicaTable(Durable({}, {}), 80)
    for number, living in enumerate([2, 0, 1, 0]):
        service = ServiceId(bytes([number]) * 16)
        own = table.add(ReplicaId(bytes([number]) * 16), service, SPECIFICATION, Stage.QUEUED)
        own.living = living
    order = []
    while (own := table.next_queued()) is not None:
        order.append(own.id[0])
        own.stage = Stage.LAUNCHING
    assert order == [1, 3, 2, 0]


def test_how_replicas_are_shown() -> None:
    table = ReplicaTable(Durable({}, {}), 10)
    own = table.add(REPLICA, SERVICE, SPECIFICATION, Stage.READY)
    assert table.shown(own, NODE, draining=False).phase is ReplicaPhase.READY
    assert table.shown(own, NODE, draining=True).phase is ReplicaPhase.DRAINING
    own.stage, own.detail = Stage.UNHEALTHY, "x" * 99
    shown = table.shown(own, NODE, draining=True)
    assert shown.phase is ReplicaPhase.UNHEALTHY and len(shown.detail) == 10
