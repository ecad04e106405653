"""Letters open for their recipients' computers, and only in the record that they were written into."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from colla.model.ids import GroupId, MemberId, NodeId, digest
from colla.model.keys import SecretKey
from colla.model.record import TOPIC_MESSAGES, Key, Log, Payload, Stamp, sign_record
from colla.model.sealing import derive_decryption_key
from colla.protocol.messaging.bodies import (
    Content,
    Letter,
    check_message_record,
    decode_letter,
    encode,
    letter_key,
)
from colla.protocol.messaging.letters import is_for, open_letter, seal_message

GROUP = GroupId(digest(b"group"))
SECRETS = [SecretKey(digest(b"node %d" % number)) for number in range(5)]
NODES = [NodeId(secret.public) for secret in SECRETS]
KEYS = [derive_decryption_key(secret.seed) for secret in SECRETS]
MESSAGE = bytes(16)
CONTENT = Content("See you at eight.", b"r" * 16)


def letters(recipients: list[int], keys_max: int = 10) -> list[Letter]:
    nodes = [NODES[number] for number in recipients]
    items = seal_message(GROUP, NODES[0], MESSAGE, (), nodes, CONTENT, keys_max, Random(1))
    assert [key for key, _ in items] == [letter_key(MESSAGE, part) for part in range(len(items))]
    return [decode_letter(body) for _, body in items]


def test_recipients_read_it_and_others_do_not() -> None:
    (letter,) = letters([0, 1, 2])
    for number in (0, 1, 2):
        assert is_for(letter, NODES[number])
        assert open_letter(GROUP, NODES[0], letter, NODES[number], KEYS[number]) == CONTENT
    assert not is_for(letter, NODES[3])
    assert open_letter(GROUP, NODES[0], letter, NODES[3], KEYS[3]) is None
    # Another's part does not open with one's own key.
    assert open_letter(GROUP, NODES[0], letter, NODES[1], KEYS[3]) is None
    assert b"eight" not in encode(letter)


def test_a_letter_put_into_anothers_record_does_not_open() -> None:
    (letter,) = letters([1])
    assert open_letter(GROUP, NODES[4], letter, NODES[1], KEYS[1]) is None
    assert open_letter(GroupId(digest(b"other")), NODES[0], letter, NODES[1], KEYS[1]) is None
    moved = msgspec.structs.replace(letter, message=b"m" * 16)
    assert open_letter(GROUP, NODES[0], moved, NODES[1], KEYS[1]) is None


def test_what_is_damaged_or_is_no_content_is_not_read() -> None:
    (letter,) = letters([1])
    damaged = msgspec.structs.replace(letter, sealed=letter.sealed[:-1] + b"x")
    assert open_letter(GROUP, NODES[0], damaged, NODES[1], KEYS[1]) is None


def test_many_recipients_need_several_letters_with_one_content() -> None:
    several = letters([0, 1, 2, 3, 4], keys_max=2)
    assert [len(letter.keys) for letter in several] == [2, 2, 1]
    assert len({letter.sealed for letter in several}) == 1
    assert open_letter(GROUP, NODES[0], several[2], NODES[4], KEYS[4]) == CONTENT


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc0",
        msgspec.msgpack.encode((b"short", (), (), b"")),
        msgspec.msgpack.encode((bytes(16), (b"x",), (), b"")),
    ],
)
def test_a_malformed_letter_is_refused(body: bytes) -> None:
    log = Log(NODES[0], bytes(16), TOPIC_MESSAGES)  # type: ignore[arg-type]
    record = sign_record(GROUP, SECRETS[0], Payload(log, 1, letter_key(MESSAGE, 0), Stamp(1), (), body))
    with pytest.raises(ValueError):
        check_message_record(record)


def test_kinds_of_later_versions_pass() -> None:
    log = Log(NODES[0], bytes(16), TOPIC_MESSAGES)  # type: ignore[arg-type]
    check_message_record(sign_record(GROUP, SECRETS[0], Payload(log, 1, Key("new"), Stamp(1), (), b"\xc1")))


def test_the_largest_message_fits_one_record() -> None:
    from colla.kernel.config import Config

    config = Config()
    text = "x" * config.messaging.text_bytes_max
    to = tuple(
        MemberId(digest(b"member %d" % number)) for number in range(config.messaging.recipients_named_max)
    )
    nodes = [
        NodeId(SecretKey(digest(b"n%d" % number)).public)
        for number in range(config.messaging.keys_per_letter_max)
    ]
    ((_, body),) = seal_message(
        GROUP, NODES[0], MESSAGE, to, nodes, Content(text, bytes(16)), len(nodes), Random(1)
    )
    assert len(body) <= config.records.body_bytes_max
