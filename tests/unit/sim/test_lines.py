"""Lines, distances, weather: what is sent waits for what was sent before, far is far, and rules strike their share."""

from __future__ import annotations

from random import Random

import pytest

from colla.kernel.messages import Message
from colla.model.ids import NodeId
from colla.sim.lines import LAN, LINES, WORLD_MAP, Line
from colla.sim.links import SimLinks
from colla.sim.network import Network, Rule
from colla.sim.rules import Delaying, Dropping, Duplicating, Reordering
from colla.sim.world import World


class Word(Message, frozen=True):
    number: int


class Place:
    """A computer that keeps what arrives, and when."""

    def __init__(self, world: World, network: Network, name: str, line: Line) -> None:
        self.world = world
        self.name, self.address, self.line, self.awake = name, f"10.0.0.1:{name}", line, True
        self.arrived: list[tuple[float, int]] = []
        self.links: SimLinks | None = SimLinks(world, network, NodeId(name.encode()), self, self)
        network.plug_in(self.address, self)

    def link_opened(self, peer: NodeId, addresses: tuple[str, ...]) -> None: ...
    def link_closed(self, peer: NodeId, reason: str) -> None: ...
    def dial_slow(self, peer: NodeId) -> None: ...
    def peer_found(self, peer: NodeId, address: str) -> None: ...

    def frame_received(self, peer: NodeId, frame: bytes) -> None:
        self.arrived.append((self.world.now_s, int(frame[:8])))

    def say(self, other: Place, number: int, size_bytes: int = 8, *, datagram: bool = False) -> None:
        assert self.links is not None
        frame = b"%08d" % number + bytes(size_bytes - 8)
        self.links.send(NodeId(other.name.encode()), frame, Word(number), datagram=datagram)

    @property
    def numbers(self) -> list[int]:
        return [number for _, number in self.arrived]


def linked(world: World, network: Network, one: Line, other: Line) -> tuple[Place, Place]:
    """Two computers with a link between them, before anything else was said."""
    a, b = Place(world, network, "a", one), Place(world, network, "b", other)
    for here, there in ((a, b), (b, a)):
        assert here.links is not None
        here.links.note_addresses(NodeId(there.name.encode()), (there.address,))
        here.links.accept(NodeId(there.name.encode()))
    a.say(b, 0)
    world.run(2.0)
    b.arrived.clear()
    return a, b


SLOW = Line(delay_s=0.0, jitter_s=0.0, upload_bytes_s=100_000.0)


def test_a_big_message_delays_those_behind_it(world: World, network: Network) -> None:
    a, b = linked(world, network, SLOW, SLOW)
    began_s = world.now_s
    a.say(b, 1, 50_000)
    a.say(b, 2)
    a.say(b, 3, datagram=True)
    world.run(2.0)
    assert b.numbers == [1, 2, 3]
    assert all(0.5 < at_s - began_s < 0.51 for at_s, _ in b.arrived)


def test_a_line_is_shared_by_all_that_leaves_it(world: World, network: Network) -> None:
    a, b = linked(world, network, SLOW, SLOW)
    c = Place(world, network, "c", SLOW)
    assert a.links is not None and c.links is not None
    a.links.note_addresses(NodeId(b"c"), (c.address,))
    c.links.accept(NodeId(b"a"))
    a.say(c, 0)
    world.run(1.0)
    began_s = world.now_s
    a.say(c, 1, 50_000)
    a.say(b, 2)
    world.run(2.0)
    assert 0.5 < b.arrived[0][0] - began_s < 0.51
    b.arrived.clear()
    began_s = world.now_s
    b.say(a, 3)
    world.run(1.0)
    assert a.arrived[-1][0] - began_s < 0.01, "the other direction is free"


def test_datagrams_do_not_wait_for_ever(world: World, network: Network) -> None:
    a, b = linked(world, network, SLOW, SLOW)
    a.say(b, 1, 200_000)
    a.say(b, 2, datagram=True)
    a.say(b, 3)
    world.run(5.0)
    assert b.numbers == [1, 3], "the datagram found the queue too long"


def test_far_is_far(world: World, network: Network) -> None:
    network.distances = WORLD_MAP
    line = Line(delay_s=0.0, jitter_s=0.0)
    a, b = linked(world, network, line.at("europe"), line.at("oceania"))
    began_s = world.now_s
    a.say(b, 1)
    world.run(1.0)
    assert b.arrived[0][0] - began_s == pytest.approx(0.135, abs=0.001)


def test_the_map_knows_every_pair() -> None:
    places = [LAN.at(region) for region in WORLD_MAP.regions]
    assert len(places) == 8
    for one in places:
        for other in places:
            delay_s = WORLD_MAP.delay_s(one, other)
            assert delay_s == WORLD_MAP.delay_s(other, one)
            assert (0.03 <= delay_s <= 0.21) if one is not other else delay_s < 0.01
            # Nothing is faster than light in glass around half of the world.
    assert WORLD_MAP.delay_s(LAN, places[0]) == 0.0
    assert all(line.upload_bytes_s <= line.download_bytes_s for line in LINES.values())


@pytest.mark.parametrize(
    ("kind", "arguments", "expected"),
    [
        (Dropping, (), lambda got: 40 < len(got) < 90 and got == sorted(got)),
        (
            Duplicating,
            (),
            lambda got: 110 < len(got) < 160 and dict.fromkeys(got) == dict.fromkeys(range(100)),
        ),
        (Delaying, (0.5,), lambda got: got == list(range(100))),
        (Reordering, (0.5,), lambda got: sorted(got) == list(range(100)) and got != sorted(got)),
    ],
)
def test_weather(world: World, network: Network, kind: type, arguments: tuple[float, ...], expected) -> None:
    a, b = linked(world, network, LAN, LAN)
    rule: Rule = kind(Random(5), *arguments, share=0.4, sources=["a"])
    network.add(rule)
    began_s = world.now_s
    for number in range(100):
        a.say(b, number)
    b.say(a, 7)
    world.run(5.0)
    assert expected(b.numbers) and a.numbers == [7]
    assert 20 < rule.struck < 60
    if arguments:
        assert 0.3 < max(at_s for at_s, _ in b.arrived) - began_s < 0.6
