"""Application-level multicast: everybody once, whatever the size of the group."""

from __future__ import annotations

from collections import Counter
from types import ModuleType
from typing import Any

import pytest

from colla.kernel.config import RecordConfig
from colla.kernel.effects import Send
from colla.model.ids import NodeId
from colla.protocol.multicast.multicast import Carried
from colla.protocol.records.writes import Held

NEWS = Held(b"l" * 16, (1,))


def spread(group: Any, *, unbarriered: bool = False) -> list[Send]:
    first = group.boxes[0]
    first.multicast.spread(NEWS, [box.id for box in group.boxes], group.now, unbarriered=unbarriered)
    first.take_up()
    return [effect for effect in first.queue if isinstance(effect, Send)]


@pytest.mark.parametrize("size", [2, 3, 5, 12, 40])
@pytest.mark.parametrize("direct", [2, 3, 64])
def test_everybody_is_handed_the_message_once(lab: ModuleType, size: int, direct: int) -> None:
    group = lab.Lab(size, config=RecordConfig(multicast_direct_max=direct))
    sent = spread(group)
    assert len(sent) == min(size - 1, direct)
    group.run()
    assert [len(box.spread_to_me) for box in group.boxes] == [0] + [1] * (size - 1)
    assert group.boxes[-1].spread_to_me == [NEWS]


def test_up_to_the_bound_the_author_sends_to_each_itself(lab: ModuleType) -> None:
    group = lab.Lab(5, config=RecordConfig(multicast_direct_max=4))
    assert [send.message.recipients for send in spread(group)] == [(), (), (), ()]


def test_beyond_it_the_parts_are_even(lab: ModuleType) -> None:
    group = lab.Lab(11, config=RecordConfig(multicast_direct_max=4))
    sent = spread(group)
    assert sorted(len(send.message.recipients) for send in sent) == [1, 1, 2, 2]
    everybody = Counter(
        [send.to for send in sent] + [node for send in sent for node in send.message.recipients]
    )
    assert set(everybody.values()) == {1} and len(everybody) == 10


def test_unbarriered_stays_so_at_every_hop(lab: ModuleType) -> None:
    group = lab.Lab(7, config=RecordConfig(multicast_direct_max=2))
    assert all(send.unbarriered for send in spread(group, unbarriered=True))
    group.perform_all()
    _, receiver, _ = group.deliver()
    onward = [effect for effect in receiver.queue if isinstance(effect, Send)]
    assert onward and all(send.unbarriered and send.message.unbarriered for send in onward)


def test_a_hop_that_is_gone_costs_its_part_only(lab: ModuleType) -> None:
    group = lab.Lab(7, config=RecordConfig(multicast_direct_max=2))
    dead = spread(group)[0].to
    group.lose = lambda sender, receiver, message: receiver.id == dead
    group.run()
    assert sum(len(box.spread_to_me) for box in group.boxes) == 3


@pytest.mark.parametrize("case", ["garbage", "nested", "short_recipient", "short_origin", "too_long"])
def test_bad_messages_are_dropped_and_noticed(lab: ModuleType, case: str) -> None:
    group = lab.Lab(3)
    first, second, third = group.boxes
    payload = group.codec.encode(NEWS)
    bad = {
        "garbage": Carried(first.id, b"\xc1"),
        "nested": Carried(first.id, group.codec.encode(Carried(first.id, payload)), (third.id,)),
        "short_recipient": Carried(first.id, payload, (NodeId(b"x"),)),
        "short_origin": Carried(NodeId(b""), payload, (third.id,)),
        "too_long": Carried(first.id, b"x" * (lab.FRAME_BYTES_MAX + 1)),
    }[case]
    second.receive(first.id, bad)
    assert second.spread_to_me == []
    group.run()
    assert second.notices == ["peer_misbehaved"]
    assert third.spread_to_me == []


def test_it_never_goes_back_or_to_itself(lab: ModuleType) -> None:
    group = lab.Lab(3)
    first, second, third = group.boxes
    payload = group.codec.encode(NEWS)
    second.receive(first.id, Carried(first.id, payload, (first.id, second.id, third.id, third.id)))
    assert [effect.to for effect in second.queue if isinstance(effect, Send)] == [third.id]


def test_a_payload_that_fits_no_frame_is_refused(lab: ModuleType) -> None:
    group = lab.Lab(2)
    with pytest.raises(ValueError, match="longer than a frame"):
        group.boxes[0].multicast.spread(
            Held(b"x" * (lab.FRAME_BYTES_MAX + 1), ()), [group.boxes[1].id], group.now
        )
