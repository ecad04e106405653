"""Content keys are wrapped for every computer of the recipients, and for nobody else."""

from __future__ import annotations

import pytest

from colla.model.errors import CollaError
from colla.model.ids import GroupId, MemberId, NodeId, ObjectId
from colla.model.keys import SecretKey
from colla.node.files import keys as keys_module
from colla.node.files.keys import Keys
from colla.protocol.views import Identity, MemberInfo, NodeInfo

GROUP, OBJECT = GroupId(b"g" * 32), ObjectId(b"o" * 32)
CONTENT_KEY = bytes(range(32))
ANA, BEN, EVE = (MemberId(name * 32) for name in (b"a", b"b", b"e"))


def identity(number: int) -> Identity:
    return Identity(GROUP, SecretKey(bytes([number]) * 32))


class Members:
    """Ana has two computers, Ben and Eve one each."""

    def __init__(self) -> None:
        self.owners = {identity(number).node: owner for number, owner in enumerate((ANA, ANA, BEN, EVE))}

    def members(self) -> tuple[MemberInfo, ...]:
        return tuple(
            MemberInfo(one, name, "member", 0) for one, name in ((ANA, "ana"), (BEN, "ben"), (EVE, "eve"))
        )

    def nodes(self) -> tuple[NodeInfo, ...]:
        return tuple(NodeInfo(node, owner, "") for node, owner in self.owners.items())


def opens(number: int, sealing: object, object_id: ObjectId = OBJECT) -> bool:
    return Keys(identity(number)).open(sealing, object_id) == CONTENT_KEY  # type: ignore[arg-type]


def test_recipients_and_the_one_who_seals_can_open_on_every_computer() -> None:
    members = Members()
    keys = Keys(identity(0))
    to = keys.recipients(members, ("ben",), ANA)  # type: ignore[arg-type]
    assert to == (ANA, BEN)
    sealing = keys.seal_for(members, OBJECT, CONTENT_KEY, to)  # type: ignore[arg-type]
    assert [opens(number, sealing) for number in range(4)] == [True, True, True, False]
    assert not opens(1, sealing, ObjectId(b"x" * 32)), "a key opens the object that it was made for"
    assert not sealing.to_group


def test_the_group_is_whoever_belongs_and_newcomers_are_noticed() -> None:
    members = Members()
    keys = Keys(identity(0))
    sealing = keys.seal_for(members, OBJECT, CONTENT_KEY, None)  # type: ignore[arg-type]
    assert all(opens(number, sealing) for number in range(4))
    assert keys.lacking(members, sealing) == []  # type: ignore[arg-type]
    newcomer = identity(9).node
    members.owners[newcomer] = BEN
    assert keys.lacking(members, sealing) == [newcomer]  # type: ignore[arg-type]
    for_ana = keys.seal_for(members, OBJECT, CONTENT_KEY, (ANA,))  # type: ignore[arg-type]
    assert keys.lacking(members, for_ana) == []  # type: ignore[arg-type]
    members.owners[NodeId(identity(8).node)] = ANA
    assert keys.lacking(members, for_ana) == [identity(8).node]  # type: ignore[arg-type]


def test_unknown_members_and_too_many_computers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    members = Members()
    keys = Keys(identity(0))
    with pytest.raises(CollaError) as caught:
        keys.recipients(members, ("nobody",), ANA)  # type: ignore[arg-type]
    assert caught.value.code == "unknown_member"
    monkeypatch.setattr(keys_module, "RECIPIENTS_MAX", 3)
    with pytest.raises(CollaError) as caught:
        keys.seal_for(members, OBJECT, CONTENT_KEY, None)  # type: ignore[arg-type]
    assert caught.value.code == "too_many_recipients"
