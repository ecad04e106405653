"""Objects travel from holders that are there, in the time that a line takes; damage is seen when it is read."""

from __future__ import annotations

from random import Random

import pytest

from colla.kernel.effects import FetchObject
from colla.kernel.events import Event, FetchFailed, FetchProgressed, ObjectDamaged, ObjectFetched
from colla.model.ids import NodeId, ObjectId
from colla.sim.disk import Disk
from colla.sim.links import SimLinks
from colla.sim.network import Line, Network, Partition
from colla.sim.objects import PIECE_S, Objects
from colla.sim.world import World

SITE = ObjectId(b"site")
LINE = Line(delay_s=0.005, jitter_s=0.0, upload_bytes_s=1_000_000.0)


class Place:
    """A computer with a disk and objects."""

    def __init__(self, world: World, network: Network, name: str, places: dict[NodeId, Place]) -> None:
        self.name, self.address, self.line, self.awake = name, f"10.0.0.1:{name}", LINE, True
        self.heard: list[Event] = []
        self.progress: list[int] = []
        self.node = NodeId(name.encode())
        self.links: SimLinks | None = SimLinks(world, network, self.node, self, self)
        self.disk = Disk(world, Random(1))
        self.objects = Objects(world, network, self.disk, self, places.get, self.hear)
        places[self.node] = self

    def hear(self, event: Event) -> None:
        """How far a fetch is, is heard now and then; `heard` keeps what else there is."""
        if isinstance(event, FetchProgressed):
            self.progress.append(event.done_bytes)
        else:
            self.heard.append(event)

    def link_opened(self, peer: NodeId, addresses: tuple[str, ...]) -> None: ...
    def link_closed(self, peer: NodeId, reason: str) -> None: ...
    def frame_received(self, peer: NodeId, frame: bytes) -> None: ...
    def dial_slow(self, peer: NodeId) -> None: ...


@pytest.fixture
def places(world: World, network: Network) -> dict[str, Place]:
    by_node: dict[NodeId, Place] = {}
    return {name: Place(world, network, name, by_node) for name in "abc"}


def fetch(places: dict[str, Place], holders: str) -> None:
    nodes = tuple(places[name].node for name in holders)
    places["a"].objects.fetch(FetchObject(1, SITE, nodes), places["a"].hear)


def test_fetching_takes_as_long_as_the_line(world: World, places: dict[str, Place]) -> None:
    places["b"].objects.put(SITE, 2_000_000)
    fetch(places, "b")
    world.run(1.9)
    assert places["a"].heard == []
    world.run(0.5)
    assert places["a"].heard == [ObjectFetched(1, SITE, 2_000_000)]
    assert places["a"].objects.held() == [(SITE, 2_000_000)]
    assert places["a"].progress == sorted(places["a"].progress)
    assert 900_000 < places["a"].progress[0] < 1_200_000


def test_what_came_before_a_crash_need_not_come_again(world: World, places: dict[str, Place]) -> None:
    places["b"].objects.put(SITE, 2_000_000)
    fetch(places, "b")
    world.run(1.0)
    places["a"].objects.crash()
    assert places["a"].objects.remnants() == [SITE]
    fetch(places, "b")
    world.run(1.2)
    assert places["a"].heard == [ObjectFetched(1, SITE, 2_000_000)]
    assert places["a"].objects.remnants() == []


def test_the_next_holder_goes_on_where_one_broke_off(
    world: World, network: Network, places: dict[str, Place]
) -> None:
    for name in "bc":
        places[name].objects.put(SITE, 10_000_000)
    places["c"].line = Line(delay_s=0.05, jitter_s=0.0, upload_bytes_s=1_000_000.0)
    fetch(places, "bc")
    world.run(8.0)
    network.add(Partition(["a"], ["b"]))
    world.run(3.0)
    assert places["a"].heard == []
    world.run(1.0)
    assert places["a"].heard == [ObjectFetched(1, SITE, 10_000_000)]


def test_one_that_is_dead_delays_nothing(world: World, places: dict[str, Place]) -> None:
    places["b"].links = None
    places["c"].objects.put(SITE, 1000)
    fetch(places, "bc")
    world.run(0.5)
    assert places["a"].heard == [ObjectFetched(1, SITE, 1000)]


def test_nobody_has_it(world: World, places: dict[str, Place]) -> None:
    fetch(places, "bc")
    world.run(1.0)
    assert [type(event) for event in places["a"].heard] == [FetchFailed]


def test_nobody_can_be_reached(world: World, places: dict[str, Place]) -> None:
    places["b"].objects.put(SITE, 1000)
    places["b"].links = None
    fetch(places, "b")
    world.run(4.0)
    assert places["a"].heard == []
    world.run(2.0)
    assert [type(event) for event in places["a"].heard] == [FetchFailed]


def test_damage_is_seen_when_it_is_read(world: World, places: dict[str, Place]) -> None:
    for name in "bc":
        places[name].objects.put(SITE, 1000)
    places["b"].objects.damage(SITE)
    fetch(places, "bc")
    world.run(1.0)
    assert [type(event) for event in places["b"].heard] == [ObjectDamaged]
    assert places["b"].objects.held() == []
    assert places["a"].heard == [ObjectFetched(1, SITE, 1000)]


def test_a_crash_ends_a_transfer(world: World, places: dict[str, Place]) -> None:
    places["b"].objects.put(SITE, 2_000_000)
    fetch(places, "b")
    world.run(1.0)
    places["a"].objects.crash()
    world.run(60.0)
    assert places["a"].heard == [] and places["a"].objects.held() == []


def test_a_full_disk_takes_no_object(world: World, places: dict[str, Place]) -> None:
    places["b"].objects.put(SITE, 1000)
    places["a"].disk.fill()
    fetch(places, "b")
    world.run(1.0)
    (failed,) = places["a"].heard
    assert isinstance(failed, FetchFailed) and "full" in failed.why


def test_transfers_and_messages_share_the_line(
    world: World, network: Network, places: dict[str, Place]
) -> None:
    """A message waits for the piece that was handed to the line, not for the object; two objects take turns."""
    places["b"].objects.put(SITE, 1_000_000)
    fetch(places, "b")
    world.run(0.5)
    waited_s = network.upload_s(places["b"], places["c"], 1000)
    assert 0.0 < waited_s <= PIECE_S + 0.01
    places["c"].objects.fetch(FetchObject(2, SITE, (places["b"].node,)), places["c"].hear)
    world.run(0.9)
    assert places["a"].heard == [], "half of the line is not enough to be through by now"
    world.run(0.9)
    assert places["a"].heard and places["c"].heard


def test_a_narrow_way_in_is_slow_too(world: World, places: dict[str, Place]) -> None:
    places["b"].objects.put(SITE, 1_000_000)
    places["a"].line = Line(delay_s=0.0, jitter_s=0.0, download_bytes_s=250_000.0)
    fetch(places, "b")
    world.run(3.9)
    assert places["a"].heard == []
    world.run(0.3)
    assert places["a"].heard == [ObjectFetched(1, SITE, 1_000_000)]
