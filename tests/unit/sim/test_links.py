"""Simulated links behave as iroh's were seen to: agreed on once, patient, silent about deaths."""

from __future__ import annotations

import pytest

from colla.kernel.messages import Message
from colla.model.ids import NodeId
from colla.sim.links import IDLE_TIMEOUT_S, REPLACED, STRANGER_S, WINDOW_BYTES, SimLinks
from colla.sim.network import LAN, Line, Losing, Network, OneWay, Partition, Verdict
from colla.sim.world import World


class Word(Message, frozen=True):
    text: str


class Place:
    """A computer with nothing but links, and a list of what they told."""

    def __init__(self, world: World, network: Network, name: str, line: Line = LAN) -> None:
        self.world, self.network = world, network
        self.name, self.address, self.line = name, f"10.0.0.1:{name}", line
        self.awake = True
        self.told: list[tuple[str, ...]] = []
        self.slow: list[str] = []
        self.links: SimLinks | None = None
        network.plug_in(self.address, self)
        self.begin()

    @property
    def node(self) -> NodeId:
        return NodeId(self.name.encode())

    def begin(self) -> SimLinks:
        if self.links is not None:
            self.links.die()
        self.links = SimLinks(self.world, self.network, self.node, self, self)
        self.network.changed()
        return self.links

    def end(self) -> None:
        assert self.links is not None
        self.links.die()
        self.links = None
        self.network.changed()

    def knows(self, *others: Place) -> None:
        assert self.links is not None
        for other in others:
            self.links.note_addresses(other.node, (other.address,))
            self.links.accept(other.node)

    def say(self, other: Place, text: str, *, datagram: bool = False) -> None:
        assert self.links is not None
        self.links.send(other.node, text.encode(), Word(text), datagram=datagram)

    def link_opened(self, peer: NodeId, addresses: tuple[str, ...]) -> None:
        self.told.append(("opened", peer.decode()))

    def link_closed(self, peer: NodeId, reason: str) -> None:
        self.told.append(("closed", peer.decode(), reason))

    def frame_received(self, peer: NodeId, frame: bytes) -> None:
        self.told.append(("frame", peer.decode(), frame.decode()))

    def dial_slow(self, peer: NodeId) -> None:
        self.slow.append(peer.decode())

    def frames(self) -> list[str]:
        return [told[2] for told in self.told if told[0] == "frame"]


@pytest.fixture
def a(world: World, network: Network) -> Place:
    return Place(world, network, "a")


@pytest.fixture
def b(world: World, network: Network, a: Place) -> Place:
    place = Place(world, network, "b")
    a.knows(place)
    place.knows(a)
    return place


def test_sending_dials_at_the_noted_addresses(world: World, a: Place, b: Place) -> None:
    for number in range(5):
        a.say(b, str(number))
    world.run(1.0)
    assert a.told == [("opened", "b")] and a.slow == []
    assert b.told == [("opened", "a"), *(("frame", "a", str(number)) for number in range(5))]
    b.say(a, "answer")
    world.run(1.0)
    assert a.frames() == ["answer"]


def test_nobody_is_dialled_without_an_address(world: World, network: Network, a: Place) -> None:
    c = Place(world, network, "c")
    a.say(c, "lost")
    world.run(10.0)
    assert a.told == [] and c.told == []
    assert a.links is not None and a.links.dropped == 1


def dialled(place: Place, other: Place) -> list[bool]:
    outcome: list[bool] = []
    assert place.links is not None
    place.links.dial(other.node, (other.address,), outcome.append)
    return outcome


def test_a_dial_of_nobody_fails_in_time(world: World, a: Place, b: Place) -> None:
    b.end()
    outcome = dialled(a, b)
    world.run(4.9)
    assert outcome == [] and a.slow == ["b"]
    world.run(0.2)
    assert outcome == [False]
    a.say(b, "at once")
    assert a.links is not None and a.links.dropped == 1, "a failed dial is not repeated by every frame"


def test_a_dial_finds_a_way_that_opens_in_time(world: World, network: Network, a: Place, b: Place) -> None:
    network.add(Partition(["a"], ["b"]))
    outcome = dialled(a, b)
    world.run(2.0)
    network.heal()
    world.run(2.0)
    assert outcome == [True]


def test_both_dial_and_one_link_results(world: World, a: Place, b: Place) -> None:
    outcomes = dialled(a, b), dialled(b, a)
    world.run(6.0)
    assert outcomes == ([True], [True])
    assert [told[0] for told in (*a.told, *b.told)] == ["opened", "opened"]
    a.say(b, "x")
    b.say(a, "y")
    world.run(1.0)
    assert (a.frames(), b.frames()) == (["y"], ["x"])


def test_frames_keep_their_order_through_losses(world: World, network: Network) -> None:
    rough = Line(delay_s=0.01, jitter_s=0.02, loss=0.15)
    a, b = Place(world, network, "a", rough), Place(world, network, "b", rough)
    a.knows(b)
    b.knows(a)
    for number in range(200):
        a.say(b, str(number))
    world.run(30.0)
    assert b.frames() == [str(number) for number in range(200)]


def test_datagrams_are_lost_and_overtake(world: World, network: Network) -> None:
    rough = Line(delay_s=0.01, jitter_s=0.02, loss=0.15)
    a, b = Place(world, network, "a", rough), Place(world, network, "b", rough)
    a.knows(b)
    b.knows(a)
    a.say(b, "first")
    world.run(2.0)
    b.told.clear()
    for number in range(400):
        a.say(b, str(number), datagram=True)
    world.run(30.0)
    got = [int(text) for text in b.frames()]
    assert 200 < len(got) < 360
    assert got != sorted(got)


def test_a_short_cut_only_delays(world: World, network: Network, a: Place, b: Place) -> None:
    a.say(b, "before")
    world.run(1.0)
    network.add(Partition(["a"], ["b"]))
    for text in "xyz":
        a.say(b, text)
    a.say(b, "gone", datagram=True)
    world.run(10.0)
    assert b.frames() == ["before"]
    network.heal()
    world.run(11.0)
    assert b.frames() == ["before", "x", "y", "z"]
    assert all(told[0] != "closed" for told in (*a.told, *b.told))


def test_a_long_cut_closes_both_ends(world: World, network: Network, a: Place, b: Place) -> None:
    a.say(b, "before")
    world.run(1.0)
    network.add(Partition(["a"], ["b"]))
    a.say(b, "gone")
    world.run(IDLE_TIMEOUT_S - 0.5)
    assert a.told[-1] == ("opened", "b")
    world.run(1.0)
    assert a.told[-1] == ("closed", "b", "timed out")
    assert b.told[-1] == ("closed", "a", "timed out")
    network.heal()
    world.run(5.0)
    a.say(b, "again")
    world.run(1.0)
    assert b.frames() == ["before", "again"]


def test_one_way(world: World, network: Network, a: Place, b: Place) -> None:
    a.say(b, "before")
    world.run(1.0)
    network.add(OneWay(["a"], ["b"]))
    a.say(b, "not heard", datagram=True)
    b.say(a, "heard", datagram=True)
    world.run(1.0)
    assert (a.frames(), b.frames()) == (["heard"], ["before"])
    world.run(IDLE_TIMEOUT_S)
    assert b.told[-1] == ("closed", "a", "timed out"), "who hears nothing gives up"
    assert a.told[-1][0] == "frame"
    world.run(IDLE_TIMEOUT_S)
    assert a.told[-1] == ("closed", "b", "timed out"), "and then says nothing either"


def test_a_death_is_told_to_nobody_and_a_restart_takes_over(world: World, a: Place, b: Place) -> None:
    a.say(b, "before")
    world.run(1.0)
    b.end()
    world.run(10.0)
    assert a.told == [("opened", "b")]
    b.begin()
    b.knows(a)
    b.say(a, "back")
    world.run(1.0)
    assert a.told[1:] == [("closed", "b", REPLACED), ("opened", "b"), ("frame", "b", "back")]
    a.say(b, "hello")
    world.run(1.0)
    assert b.frames() == ["before", "hello"]


def test_closing_sends_what_was_queued_and_tells_why(world: World, a: Place, b: Place) -> None:
    a.say(b, "before")
    world.run(1.0)
    assert a.links is not None
    a.say(b, "last")
    a.links.close_link(b.node, "enough")
    assert a.told[-1] == ("closed", "b", "enough")
    world.run(1.0)
    assert b.told[-2:] == [("frame", "a", "last"), ("closed", "a", "enough")]


def test_strangers_are_sent_away(world: World, network: Network, a: Place) -> None:
    c = Place(world, network, "c")
    c.knows(a)
    c.say(a, "let me in")
    world.run(STRANGER_S - 1)
    assert a.told == [("opened", "c"), ("frame", "c", "let me in")]
    world.run(2.0)
    assert c.told[-1] == ("closed", "a", "not accepted in time")


def test_a_sleeper_gets_frames_when_it_wakes_and_no_datagrams(
    world: World, network: Network, a: Place, b: Place
) -> None:
    a.say(b, "before")
    world.run(1.0)
    b.awake = False
    network.changed()
    a.say(b, "kept")
    a.say(b, "gone", datagram=True)
    world.run(5.0)
    b.awake = True
    network.changed()
    world.run(6.0)
    assert b.frames() == ["before", "kept"]


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (Verdict(copies=0), []),
        (Verdict(copies=2), ["x", "x"]),
        (Verdict(delay_s=3.0), ["x"]),
    ],
)
def test_verdicts_on_parcels(
    world: World, network: Network, a: Place, b: Place, verdict: Verdict, expected: list[str]
) -> None:
    a.say(b, "before")
    world.run(1.0)
    network.add(Losing((Word,), targets=["b"], count=1, verdict=verdict))
    a.say(b, "x", datagram=True)
    world.run(2.0)
    assert b.frames()[1:] == ([] if verdict.delay_s else expected)
    world.run(2.0)
    assert b.frames()[1:] == expected
    a.say(b, "free")
    world.run(1.0)
    assert b.frames()[-1] == "free"


def test_idle_links_are_closed_but_those_to_keep(world: World, network: Network, a: Place, b: Place) -> None:
    c = Place(world, network, "c")
    a.knows(c)
    c.knows(a)
    for other in (b, c):
        a.say(other, "hello")
    world.run(40.0)
    assert a.links is not None
    a.links.close_idle([c.node])
    assert a.links.peers() == (c.node,)


@pytest.mark.parametrize("datagram", [False, True])
def test_what_a_cut_delayed_comes_as_soon_as_something_newer_gets_through(
    world: World, network: Network, a: Place, b: Place, datagram: bool
) -> None:
    """It waited for the next probe, although the acknowledgement of the newer packet shows what was lost before."""
    a.say(b, "before")
    world.run(1.0)
    cut = network.add(Partition(["a"], ["b"]))
    world.run(1.0)
    a.say(b, "during")
    world.run(25.0)
    network.remove(cut)
    a.say(b, "after", datagram=datagram)
    world.run(1.0)
    assert sorted(b.frames()) == ["after", "before", "during"]


def test_what_a_cut_delayed_waits_for_a_probe_when_too_much_is_unacknowledged(
    world: World, network: Network, a: Place, b: Place
) -> None:
    a.say(b, "before")
    world.run(1.0)
    cut = network.add(Partition(["a"], ["b"]))
    world.run(1.0)
    for number in range(WINDOW_BYTES // 1000 + 1):
        a.say(b, f"{number}" * 1000)
    world.run(25.0)
    network.remove(cut)
    a.say(b, "after")
    world.run(0.1)
    assert b.frames() == ["before"]
    world.run(30.0)
    assert b.frames()[-1] == "after"
