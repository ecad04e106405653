"""`send`, `inbox`, `events` and `presence`: for people, in pipes, as JSON, and what they ask of the node."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from typer.testing import Result

from colla.client import types

Colla = Callable[..., Result]

ID = "ab" * 16


def message(place: int, text: str = "hello", **more: Any) -> types.MessageReport:
    at = {
        "id": f"{place:02x}" * 16,
        "sender": "ben",
        "computer": "vps",
        "to": ("ana",),
        "at_s": 1000.0,
    } | more
    return types.MessageReport(place=place, text=text, **at)


def page(*messages: types.MessageReport) -> types.MessagesReport:
    return types.MessagesReport(messages, messages[-1].place if messages else 0, True)


def presence(member: str, here: bool = True, **more: Any) -> types.PresenceReport:
    values = {
        "role": "member", "me": False, "since_s": 1000.0, "seen_s": 1000.0, "computers": ("vps",) if here else (),
        "computers_away": () if here else ("old",), "cpus": 2.0 if here else 0.0, "memory_bytes": 0, "disk_bytes": 0,
        "environments": (),
    }  # fmt: skip
    return types.PresenceReport(member=member, here=here, **(values | more))


def sending(node: Any) -> Any:
    node.answer("POST messages", types.SendAnswer(ID, 2, 2))
    return node.answer("GET presence", (presence("ben"), presence("carla", here=False)))


def test_the_last_word_is_the_text(colla: Colla, node: Any) -> None:
    sending(node)
    result = colla("send", "ben", "carla", "See you.")
    assert (result.exit_code, result.stdout) == (0, "Sent to ben, carla.\n")
    assert "waits for their return: carla" in result.stderr and "ben" not in result.stderr
    assert colla("send", "--all", "The site is up.").stdout == "Sent to all.\n"
    first, second = node.bodies("POST messages")
    assert (first["to"], first["text"], first["to_all"]) == (["ben", "carla"], "See you.", False)
    assert (second["to"], second["text"], second["to_all"]) == ([], "The site is up.", True)


def test_a_text_from_another_program(colla: Colla, node: Any) -> None:
    sending(node)
    for words in (("ben", "-"), ("ben",)):
        assert colla("send", *words, input="one\ntwo\n").exit_code == 0
    assert [body["text"] for body in node.bodies("POST messages")] == ["one\ntwo"] * 2
    assert json.loads(colla("send", "ben", "x", "--json").stdout) == {
        "message": ID,
        "computers": 2,
        "copies": 2,
    }


def test_an_answer_goes_to_who_wrote(colla: Colla, node: Any) -> None:
    sending(node).answer("GET messages", page(message(1), message(2, sender="carla")))
    assert colla("send", "--reply", "02020202", "Yes.").stdout == "Sent to carla.\n"
    (body,) = node.bodies("POST messages")
    assert (body["to"], body["reply_to"]) == (["carla"], "02" * 16)
    for unknown in ("0202", "ffffffff"):
        result = colla("send", "--reply", unknown, "Yes.")
        assert result.exit_code == 4 and "inbox --all" in result.stderr


def test_unread_messages_are_shown_once_and_marked(colla: Colla, node: Any) -> None:
    node.answer("GET messages", page(message(1), message(2, "line one\nline two", to=())), page())
    node.answer("POST messages/read", types.MarkReadAnswer(2))
    lines = colla("inbox").stdout.splitlines()
    assert [line.split("\t")[1:] for line in lines] == [
        ["01010101", "ben", "ana", "hello"],
        ["02020202", "ben", "all", "line one\\x0aline two"],
    ]
    assert node.bodies("POST messages/read") == [{"messages": ["01" * 16, "02" * 16]}]
    assert "No new messages" in colla("inbox").stderr


def test_looking_without_being_noticed(colla: Colla, node: Any) -> None:
    node.answer("GET messages", page(message(1), message(2, read=True)))
    shown = json.loads(colla("inbox", "--keep-unread", "--json").stdout)
    assert [each["place"] for each in shown] == [1, 2]
    assert node.bodies("POST messages/read") == []


def test_what_became_of_sent_messages(colla: Colla, node: Any) -> None:
    sent = message(
        1, sender="ana", to=("ben", "eve"), delivered_s={"ben": 1.0, "eve": 1.0}, read_s={"ben": 2.0}
    )
    node.answer("GET messages", page(sent))
    assert colla("inbox", "--sent").stdout.rstrip().split("\t")[-2:] == ["read by ben", "came to eve"]
    assert "read by ben" in colla("inbox", "--sent", terminal=True).stdout


def test_messages_do_nothing_to_the_terminal(colla: Colla, node: Any) -> None:
    node.answer("GET messages", page(message(1, "evil\x1b[2J\x07", sender="x\x1b]0;y\x07")))
    node.answer("POST messages/read", types.MarkReadAnswer(1))
    for options in ({}, {"terminal": True}):
        text = (
            colla("inbox", **options)
            .stdout.replace("\x1b[1m", "")
            .replace("\x1b[0m", "")
            .replace("\x1b[2m", "")
        )
        assert "\x1b" not in text and "\x07" not in text


def test_following_the_inbox(colla: Colla, node: Any) -> None:
    node.answer("GET messages", page(message(1))).answer("GET messages/follow", [message(2, "later")])
    node.answer("POST messages/read", types.MarkReadAnswer(1))
    result = colla("inbox", "--follow", "--json")
    assert [json.loads(line)["text"] for line in result.stdout.splitlines()] == ["hello", "later"]
    assert result.exit_code == 3 and len(node.bodies("POST messages/read")) == 2


def event(place: int, **more: Any) -> types.EventReport:
    values = {
        "topic": "shop.orders",
        "data": {"n": place},
        "member": "ben",
        "computer": "vps",
        "at_s": 1000.0,
    }
    return types.EventReport(id=f"{place:02x}" * 16, place=place, **(values | more))


def test_events_newest_last(colla: Colla, node: Any) -> None:
    happened = event(3, topic="group", data=None, kind="joined", text="eve joined with pi")
    node.answer("GET events", types.EventsReport((event(1), event(2), happened), 3, True))
    lines = [line.split("\t")[1:] for line in colla("events", "-n", "2").stdout.splitlines()]
    assert lines == [["shop.orders", "ben", '{"n":2}'], ["joined", "ben", "eve joined with pi"]]
    node.answer("GET events/follow", [event(4)])
    result = colla("events", "--follow", "--json", "-n", "0")
    assert [json.loads(line)["place"] for line in result.stdout.splitlines()] == [4] and result.exit_code == 3


def test_a_subscriber_takes_what_it_is_shown(colla: Colla, node: Any) -> None:
    node.answer(
        "GET events",
        types.EventsReport((event(1),), 1, False),
        types.EventsReport((event(2),), 9, True),
    ).answer("POST subscribers/books/taken", types.SubscriberReport("books", 9))
    assert len(colla("events", "--subscriber", "books").stdout.splitlines()) == 2
    assert [body["place"] for body in node.bodies("POST subscribers/books/taken")] == [1, 9]


def test_publishing(colla: Colla, node: Any) -> None:
    node.answer("POST events", types.PublishAnswer(ID, 3))
    result = colla("events", "--topic", "shop.orders", "--publish", '{"n": 1}')
    assert result.exit_code == 0 and "safe on 3 computers" in result.stderr
    colla("events", "--topic", "shop.orders", "--publish", "just text")
    assert [body["data"] for body in node.bodies("POST events")] == [{"n": 1}, "just text"]
    assert colla("events", "--publish", "x").exit_code == 2


def test_who_is_here(colla: Colla, node: Any) -> None:
    node.answer("GET presence", (presence("ana", me=True), presence("ben", here=False)))
    lines = [line.split("\t") for line in colla("presence").stdout.splitlines()]
    assert lines[0][:2] == ["ana (you)", "here"] and lines[0][3] == "vps" and lines[0][5].startswith("2 CPUs")
    assert lines[1][:2] == ["ben", "away"] and lines[1][2].startswith("seen ") and lines[1][4] == "old"
    assert len(json.loads(colla("presence", "--json").stdout)) == 2
    node.answer(
        "GET presence/follow", [presence("ana", me=True), presence("ben"), presence("ben", since_s=1001.0)]
    )
    result = colla("presence", "--watch")
    changes = result.stdout.splitlines()[2:]
    assert len(changes) == 1 and changes[0].split("\t")[1:3] == ["ben", "here"] and result.exit_code == 3
