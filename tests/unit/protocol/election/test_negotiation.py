"""The negotiation of the contention election: exactly one of any contenders goes on, whatever they draw."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from colla.kernel.config import Config
from colla.kernel.effects import Send
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.ids import NodeId, ServiceId
from colla.protocol.election.contention import Negotiation
from colla.protocol.election.echoes import Echoes
from colla.protocol.election.messages import Contention

SERVICE = ServiceId(b"s" * 16)


class Contender:
    """One dispatcher; `deaf` ones send but hear nothing."""

    def __init__(self, number: int, wait_s: float, deaf: bool) -> None:
        self.id = NodeId(bytes([number]) * 32)
        self.wait_s, self.deaf = wait_s, deaf
        self.silenced = False
        presence = SimpleNamespace(echoed_s=lambda node, now_s: None)
        self.outbox = Outbox(1)
        setting = SimpleNamespace(
            me=self.id, config=Config(), rng=Random(number), outbox=self.outbox, presence=presence
        )
        self.echoes = Echoes(setting)  # type: ignore[arg-type]
        self.negotiation = Negotiation(setting, self.echoes)  # type: ignore[arg-type]


def negotiate(waits: list[float], deaf: set[int], seed: int) -> list[int]:
    """Everybody contends at once; messages arrive in any order. Returns who is not silenced."""
    now, rng = Instant(1.0, 1.0), Random(seed)
    contenders = {c.id: c for c in (Contender(n, wait_s, n in deaf) for n, wait_s in enumerate(waits))}
    for contender in contenders.values():
        others = tuple(node for node in contenders if node != contender.id)
        contender.negotiation.begin(SERVICE, contender.wait_s, others, now)
    for _ in range(1000):
        waiting = [
            (sender, effect)
            for sender in contenders.values()
            for effect in sender.outbox.drain()
            if isinstance(effect, Send)
        ]
        if not waiting:
            return [c.id[0] for c in contenders.values() if not c.silenced]
        rng.shuffle(waiting)
        for sender, effect in waiting:
            receiver, message = contenders[effect.to], effect.message
            if receiver.deaf:
                continue
            assert isinstance(message, Contention)
            receiver.echoes.heard(sender.id, message.nonce, message.echo, now)
            until_s = receiver.negotiation.heard(sender.id, message, now)
            receiver.silenced |= until_s is not None and not receiver.deaf
    raise AssertionError("they talk without end")


@given(st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3]), min_size=1, max_size=6), st.integers(0, 99))
def test_the_smallest_wait_wins_and_only_it(waits: list[float], seed: int) -> None:
    winner = min(range(len(waits)), key=lambda number: (waits[number], number))
    assert negotiate(waits, set(), seed) == [winner]


@given(st.integers(0, 99))
def test_who_cannot_hear_silences_nobody(seed: int) -> None:
    assert negotiate([0.0, 0.2, 0.3], {0}, seed) == [0, 1]


def test_a_dispatcher_that_has_not_begun_holds_back_for_one_that_hears_it() -> None:
    now = Instant(5.0, 5.0)
    quiet = Contender(1, 0.0, deaf=False)
    peer = NodeId(b"p" * 32)
    assert quiet.negotiation.heard(peer, Contention(SERVICE, 0.3, 1, 0), now) is None
    nonce = quiet.echoes.nonce(now)
    quiet.echoes.heard(peer, 1, nonce, now)
    until_s = quiet.negotiation.heard(peer, Contention(SERVICE, 0.3, 1, nonce), now)
    assert until_s is not None and 5.3 < until_s < 6.5
    absurd = quiet.negotiation.heard(peer, Contention(SERVICE, 1e9, 1, nonce), now)
    assert absurd is not None and absurd < 7.0, "nobody can hold others back for long"
