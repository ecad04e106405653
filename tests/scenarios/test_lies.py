"""A running group is told nonsense: no exception escapes a node, and when the nonsense ends the group recovers.

Real messages of a simulated group are bent (numbers to their extremes, bytes to other lengths, lists emptied, doubled
and mixed up), and messages of every type are made up. Each goes through the codec as on the wire, then to a node as if
a member or a stranger had sent it.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import msgspec
import pytest

from colla.agents.requests import Written
from colla.agents.wire import MESSAGES
from colla.kernel.codec import Codec
from colla.kernel.effects import Effect, Send
from colla.kernel.events import Event, MessageReceived
from colla.model.ids import NodeId
from colla.model.location import TERM_MAX
from colla.protocol.views import Election
from colla.sim.computer import Computer
from colla.sim.group import SimGroup

FRAMES = 4000
FRAMES_PER_TURN = 20
TURN_S = 0.25
RECOVERED_S = 90.0
# A member may claim any term up to TERM_MAX, and one who does keeps a service without another master for ever: such a
# member must be removed. All that is beyond is no message.
EXTREMES: tuple[Any, ...] = (
    0, 1, -1, 2**31, TERM_MAX + 1, 2**63 - 1, -(2**63), 2**64 - 1, 0.0, -1.0, 1e308, -1e308, float("inf"), float("-inf"),
    float("nan"), "", "x", "\x00\x1b[31m\u202e", "é" * 300, b"", b"\x00", b"\xff" * 16, b"\x80" * 32, b"z" * 33,
    b"q" * 5000, None, True, False, [], [[]], {}, {"": 0},
)  # fmt: skip


class Overheard:
    """Keeps samples of what is really said, by kind."""

    KEPT = 40

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.by_kind: dict[str, list[Any]] = {}

    def will_step(self, computer: Computer, event: Event) -> None:
        pass

    def stepped(self, computer: Computer, event: Event, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                plain = msgspec.msgpack.decode(computer.core.codec.encode(effect.message))
                kept = self.by_kind.setdefault(plain[0], [])
                if len(kept) < self.KEPT:
                    kept.append(plain)
                else:
                    kept[self._rng.randrange(self.KEPT)] = plain

    def performed(self, computer: Computer, effect: Effect) -> None:
        pass


class Liar:
    """Makes frames that are wrong somewhere."""

    def __init__(self, rng: Random, overheard: Overheard, codec: Codec) -> None:
        self._rng = rng
        self._overheard = overheard
        self._codec = codec
        self._made_up = [self._sample(kind) for kind in MESSAGES]

    def frames(self, count: int) -> Iterator[bytes]:
        for _ in range(count):
            kinds = sorted(self._overheard.by_kind)
            samples = self._overheard.by_kind[self._rng.choice(kinds)]
            plain = self._rng.choice(samples) if self._rng.random() < 0.7 else self._rng.choice(self._made_up)
            plain = self._copy(plain)
            for _ in range(self._rng.choice((1, 1, 1, 2, 4))):
                self._bend(plain)
            try:
                frame = msgspec.msgpack.encode(plain)
            except OverflowError:
                continue
            if self._rng.random() < 0.05 and frame:
                broken = bytearray(frame)
                broken[self._rng.randrange(len(broken))] = self._rng.randrange(256)
                frame = bytes(
                    broken[: self._rng.randrange(len(broken) + 1)] if self._rng.random() < 0.3 else broken
                )
            yield frame

    def _copy(self, value: Any) -> Any:
        return msgspec.msgpack.decode(msgspec.msgpack.encode(value))

    def _bend(self, plain: Any) -> None:
        """Change one place, of any depth, of the same type where there is one."""
        places: list[tuple[Any, Any]] = []
        self._walk(plain, places)
        places = places[1:]
        if not places:
            return
        holder, key = self._rng.choice(places)
        old = holder[key]
        same = [value for value in EXTREMES if type(value) is type(old)] or list(EXTREMES)
        choice = self._rng.random()
        if isinstance(old, list) and old and choice < 0.5:
            holder[key] = self._rng.choice(([], old * 2, old * 200, list(reversed(old)), old[:1]))
        elif choice < 0.75:
            holder[key] = self._copy(self._rng.choice(same))
        elif choice < 0.85:
            holder[key] = self._copy(self._rng.choice(EXTREMES))
        else:
            other_holder, other_key = self._rng.choice(places)
            holder[key] = self._copy(other_holder[other_key])

    def _walk(self, value: Any, places: list[tuple[Any, Any]]) -> None:
        pairs = (
            enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
        )
        for key, inner in list(pairs):
            places.append((value, key))
            self._walk(inner, places)

    def _sample(self, kind: type) -> list[Any]:
        """A message of this kind with something of the right type in each field."""
        info = msgspec.inspect.type_info(kind)
        return [kind.__struct_config__.tag, *(self._value(field.type) for field in info.fields)]

    def _value(self, kind: Any) -> Any:
        inspect = msgspec.inspect
        match kind:
            case inspect.IntType():
                return self._rng.randrange(3)
            case inspect.FloatType():
                return self._rng.random()
            case inspect.BoolType():
                return self._rng.random() < 0.5
            case inspect.StrType():
                return "text"
            case inspect.BytesType():
                length = kind.min_length or self._rng.choice((0, 16, 32))
                return self._rng.randbytes(length)
            case inspect.EnumType():
                return self._rng.choice([member.value for member in kind.cls])
            case inspect.UnionType():
                return self._value(self._rng.choice(kind.types))
            case inspect.NoneType():
                return None
            case inspect.VarTupleType() | inspect.ListType():
                return [self._value(kind.item_type) for _ in range(self._rng.randrange(3))]
            case inspect.TupleType():
                return [self._value(item) for item in kind.item_types]
            case inspect.DictType():
                return {}
            case inspect.StructType():
                fields = {field.encode_name: self._value(field.type) for field in kind.fields}
                if kind.array_like:
                    return [*([kind.tag] if kind.tag is not None else []), *fields.values()]
                return fields
            case _:
                return None


def tell_lies(
    group: SimGroup, rng: Random, victims: list[Computer], senders: list[NodeId], frames: int
) -> int:
    """Tell the victims so many lies; how many of them were messages at all."""
    overheard = Overheard(rng)
    group.observers.append(overheard)
    group.run(8.0)
    liar = Liar(rng, overheard, victims[0].core.codec)
    told = 0
    for number, frame in enumerate(liar.frames(frames)):
        if number % FRAMES_PER_TURN == 0:
            group.run(TURN_S)
        victim = rng.choice(victims)
        try:
            message = victim.core.codec.decode(frame)
        except ValueError:
            continue
        told += 1
        sender = rng.choice(senders)
        if sender != victim.node:
            victim.post(MessageReceived(sender, message))
    group.observers.remove(overheard)
    return told


@pytest.mark.parametrize("election", list(Election))
def test_nonsense_from_everywhere_breaks_no_node(election: Election) -> None:
    group = SimGroup(1, election)
    group.grow(4)
    group.deploy("web", replicas=2)
    rng = Random(f"lies/{election}")
    senders = [*(computer.node for computer in group.computers), NodeId(rng.randbytes(32))]
    told = tell_lies(group, rng, group.computers, senders, FRAMES)
    assert told > FRAMES // 10
    group.run(30.0)


@pytest.mark.parametrize("election", list(Election))
def test_one_lying_member_harms_the_others_for_a_while_at_most(election: Election) -> None:
    group = SimGroup(2, election)
    group.grow(4)
    *honest, liar = group.computers
    web = group.deploy("web", replicas=2)
    rng = Random(f"liar/{election}")
    tell_lies(group, rng, honest, [liar.node, liar.node, liar.node, NodeId(rng.randbytes(32))], FRAMES)
    liar.power_off()
    group.until(lambda: len(group.masters(web)) == 1, RECOVERED_S, "one master")
    group.until(lambda: sum(one.serves(web) for one in honest) == 2, RECOVERED_S, "the full number")
    written = group.answer(honest[0], group.creation("other", honest[0]))
    assert isinstance(written, Written), written
