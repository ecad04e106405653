"""Exactly one link per pair: every interleaving of two dials, losses and restarts, exhaustively."""

from __future__ import annotations

import itertools

import pytest

from colla.node.links.agreement import (
    HELLO_BYTES,
    REPLY_BYTES,
    Agreement,
    Hello,
    Reply,
    Verdict,
    decode_hello,
    decode_reply,
)

LOW, HIGH = b"\x01" * 32, b"\x02" * 32


class Side:
    """One node's agreement, and the connection that it takes for the link."""

    def __init__(self, my_id: bytes, peer_id: bytes, incarnation: bytes) -> None:
        serials = itertools.count(1)
        self.agreement = Agreement(my_id, peer_id, incarnation, lambda: next(serials))
        self.link: str | None = None


class Dial:
    """A dial as its three steps: hello, answer, conclusion."""

    def __init__(self, name: str, dialler: Side, dialled: Side, forced: bool = False) -> None:
        self.name, self.dialler, self.dialled, self.forced = name, dialler, dialled, forced
        self.step = 0
        self.abandoned = False
        self.hello: Hello | None = None
        self.reply: Reply | None = None

    def advance(self) -> None:
        self.step += 1
        if self.abandoned:
            return
        if self.step == 1:
            self.abandoned = self.dialler.agreement.up
            if not self.abandoned:
                self.hello = decode_hello(self.dialler.agreement.hello(forced=self.forced).encode())
        elif self.step == 2:
            assert self.hello is not None
            self.reply = decode_reply(self.dialled.agreement.answer(self.hello).encode())
            if self.reply.verdict is Verdict.GRANTED:
                self.dialled.link = self.name
        else:
            assert self.reply is not None
            if self.dialler.agreement.concluded(self.reply):
                self.dialler.link = self.name


def sides() -> tuple[Side, Side]:
    return Side(LOW, HIGH, b"l" * 8), Side(HIGH, LOW, b"h" * 8)


@pytest.mark.parametrize("order", sorted(set(itertools.permutations("aaabbb"))), ids="".join)
def test_two_dials_at_once_end_in_one_link_whatever_the_order(order: tuple[str, ...]) -> None:
    low, high = sides()
    dials = {"a": Dial("a", low, high), "b": Dial("b", high, low)}
    for name in order:
        dials[name].advance()
    assert low.link is not None and low.link == high.link
    assert low.agreement.serial == high.agreement.serial


@pytest.mark.parametrize("order", sorted(set(itertools.permutations("aaabbb"))), ids="".join)
def test_a_link_granted_is_never_replaced_by_a_simultaneous_one(order: tuple[str, ...]) -> None:
    low, high = sides()
    dials = {"a": Dial("a", low, high), "b": Dial("b", high, low)}
    seen: list[str] = []
    for name in order:
        dials[name].advance()
        seen += [side.link for side in (low, high) if side.link is not None]
    assert len(set(seen)) == 1


def linked(name: str = "first") -> tuple[Side, Side]:
    low, high = sides()
    dial = Dial(name, low, high)
    for _ in range(3):
        dial.advance()
    assert low.link == high.link == name
    return low, high


@pytest.mark.parametrize("loser", [0, 1])
def test_who_lost_the_link_gets_a_new_one_though_the_other_still_believes_in_it(loser: int) -> None:
    pair = linked()
    pair[loser].agreement.lost()
    again = Dial("again", pair[loser], pair[1 - loser])
    for _ in range(3):
        again.advance()
    assert pair[0].link == pair[1].link == "again"


@pytest.mark.parametrize("restarted", [0, 1])
def test_who_restarted_gets_a_new_link(restarted: int) -> None:
    pair = list(linked())
    ids = (LOW, HIGH)
    pair[restarted] = Side(ids[restarted], ids[1 - restarted], b"newborn!")
    again = Dial("again", pair[restarted], pair[1 - restarted])
    for _ in range(3):
        again.advance()
    assert pair[0].link == pair[1].link == "again"


@pytest.mark.parametrize("restarted", [0, 1])
def test_who_restarted_can_be_dialled_by_the_other(restarted: int) -> None:
    pair = list(linked())
    ids = (LOW, HIGH)
    pair[restarted] = Side(ids[restarted], ids[1 - restarted], b"newborn!")
    pair[1 - restarted].agreement.lost()
    again = Dial("again", pair[1 - restarted], pair[restarted])
    for _ in range(3):
        again.advance()
    assert pair[0].link == pair[1].link == "again"


def test_a_reply_lost_is_mended_by_insisting() -> None:
    low, high = sides()
    lost = Dial("lost", high, low)
    lost.advance()
    lost.advance()
    high.agreement.withdraw()
    polite = Dial("polite", high, low)
    for _ in range(3):
        polite.advance()
    assert high.link is None and low.link == "lost"
    insisting = Dial("insisting", high, low, forced=True)
    for _ in range(3):
        insisting.advance()
    assert low.link == high.link == "insisting"


def test_a_hello_delayed_from_before_the_link_is_refused() -> None:
    low, high = sides()
    late = low.agreement.hello(forced=False)
    low.agreement.withdraw()
    for dial in (Dial("newer", low, high),):
        for _ in range(3):
            dial.advance()
    assert high.agreement.answer(late).verdict is Verdict.DUPLICATE


@pytest.mark.parametrize("data", [b"", b"x" * HELLO_BYTES, b"colla", bytes(HELLO_BYTES + 1)])
def test_what_is_no_hello_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode_hello(data)


def test_a_reply_tells_where_the_dialler_is_seen_or_nothing() -> None:
    for seen in ("", "192.0.2.7:4100", "[2001:db8::1]:4100"):
        reply = Reply(Verdict.GRANTED, b"8 bytes!", 7, seen)
        assert decode_reply(reply.encode()) == reply
    assert decode_reply(Reply(Verdict.GRANTED, b"8 bytes!", 7, "x" * 65).encode()).seen == ""


@pytest.mark.parametrize("data", [b"", b"\x09" + bytes(REPLY_BYTES - 1), bytes(REPLY_BYTES + 1)])
def test_what_is_no_reply_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode_reply(data)
