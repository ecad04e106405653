"""Commands about who belongs: what they ask of the node, what they say, how they end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

from colla.client import types

Colla = Callable[..., Result]
CHANGED = types.ChangedAnswer(2)


@pytest.mark.parametrize(
    ("words", "route", "body", "said"),
    [
        (("member", "role", "ben", "guest"), "POST members/ben/role", {"role": "guest"}, "ben is guest now"),
        (("member", "rename", "ben", "bo"), "POST members/ben/name", {"name": "bo"}, "called bo"),
        (("node", "rename", "nas", "attic"), "POST nodes/nas/name", {"name": "attic"}, "called attic"),
        (("node", "retire", "nas", "-y"), "DELETE nodes/nas", None, "nas does not belong"),
        (("member", "remove", "ben", "-y"), "DELETE members/ben", None, "ben does not belong"),
        (("revoke", "3fa85f64"), "DELETE tickets/3fa85f64", None, "Nobody can join with it"),
        (("rename", "blog", "diary"), "POST services/blog/name", {"name": "diary"}, "called diary"),
        (("adopt", "blog"), "POST services/blog/owner", {"member": ""}, "blog is yours"),
        (
            ("adopt", "blog", "--for", "cleo"),
            "POST services/blog/owner",
            {"member": "cleo"},
            "blog is cleo's",
        ),
        (
            ("delegate", "blog", "cleo"),
            "POST services/blog/delegates",
            {"members": ["cleo"]},
            "cleo may change",
        ),
        (("delegate", "blog"), "POST services/blog/delegates", {"members": []}, "Nobody else"),
    ],
)
def test_changes_ask_once_and_say_what_is_so_now(
    colla: Colla, node: Any, words: tuple[str, ...], route: str, body: Any, said: str
) -> None:
    node.answer(route, CHANGED)
    result = colla(*words)
    assert result.exit_code == 0 and said in result.stdout and "2 computers" in result.stdout
    assert node.bodies(route) == [body]


@pytest.mark.parametrize("words", [("member", "remove", "ben"), ("node", "retire", "nas")])
def test_what_is_for_good_is_confirmed(colla: Colla, node: Any, words: tuple[str, ...]) -> None:
    before = len(node.asked)
    assert colla(*words).exit_code == 1
    assert len(node.asked) == before


def test_a_refusal_says_what_to_do(colla: Colla, node: Any) -> None:
    node.answer("DELETE members/ben", types.ApiError("not_allowed", "Only administrators can.", "Ask anna."))
    result = colla("member", "remove", "ben", "--yes")
    assert result.exit_code == 1 and "Ask anna." in result.stderr


def test_tickets_show_who_can_still_join(colla: Colla, node: Any) -> None:
    def ticket(start: str, fate: str, **more: Any) -> types.TicketReport:
        told = {"role": "guest", "member": "", "uses": 3, "used_by": ("phone",), "mine": True} | more
        return types.TicketReport(start * 4, "anna", "attic", expires_s=2e9, fate=fate, **told)

    further = ticket("cdef", "open", role="", member="ben", uses=1, used_by=(), mine=False)
    node.answer("GET tickets", (ticket("abcd", "open"), ticket("ef01", "revoked"), further))
    rows = [line.split("\t") for line in colla("tickets").stdout.splitlines()]
    assert [(row[0], row[1], row[2], row[3]) for row in rows] == [
        ("abcdabcdab", "open", "guest", "1/3 phone"),
        ("cdefcdefcd", "open", "computers of ben", "0/1"),
    ]
    assert [row[5] for row in rows] == ["anna (you)", "anna"]
    assert len(colla("tickets", "--all").stdout.splitlines()) == 3


def test_former_members_are_told_with_the_reason(colla: Colla, node: Any) -> None:
    gone = types.FormerMemberReport(
        "1", "ben", "removed", "anna removed ben from the group: moved away.", 1e9
    )
    node.answer("GET members", ())
    node.answer("GET members/former", (gone,))
    (row,) = colla("members", "--former").stdout.splitlines()
    assert row.startswith("ben\tremoved\t2001-09-") and row.endswith("moved away.")
