"""How values look and are written; what a terminal would obey is never shown as it is."""

from __future__ import annotations

import json

import pytest

from colla.cli import formats
from colla.client.text import clean, clean_json


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("10GB", 10**10),
        ("512MiB", 512 << 20),
        ("2G", 2 << 30),
        ("1.5 kb", 1500),
        ("7", 7),
        ("1T", 1 << 40),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert formats.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1", "1XB", "1 2"])
def test_what_is_no_size_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="like 10GB"):
        formats.parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("30m", 1800), ("12h", 43200), ("7d", 604800), ("1.5h", 5400)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert formats.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1d", "1 year"])
def test_what_is_no_duration_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="like 30m"):
        formats.parse_duration(text)


def test_pairs_are_read() -> None:
    assert formats.parse_pairs(["A=1", "B=x=y", "A=2", "C="]) == {"A": "2", "B": "x=y", "C": ""}
    for text in ("A", "=1"):
        with pytest.raises(ValueError, match="KEY=VALUE"):
            formats.parse_pair(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (10**10, "9.31 GiB"), (3 << 40, "3 TiB")],
)
def test_sizes_are_shown(size: int, text: str) -> None:
    assert formats.size_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.42, "0.4 s"), (12, "12 s"), (180, "3 min"), (7200, "2 h"), (200_000, "2 d")]
)
def test_durations_are_shown(seconds: float, text: str) -> None:
    assert formats.duration_text(seconds) == text


OBEYED = "\x1b[31m\r\n\t\x07\x7f\x9b\u202e\u2066\u2028\ufeff"


def test_nothing_reaches_the_terminal_that_it_obeys() -> None:
    shown = clean(f"a{OBEYED}b")
    assert shown.isprintable() and shown.startswith("a\\x1b[31m\\x0d") and shown.endswith("b")
    assert clean("äöü 漢字 – ok") == "äöü 漢字 – ok"


def test_cleaned_json_is_the_same_json() -> None:
    value = {"name": f"a{OBEYED}b", "ok": "ü"}
    text = clean_json(json.dumps(value, ensure_ascii=False))
    assert text.isprintable() and json.loads(text) == value


def test_counts_are_words() -> None:
    assert formats.count_text(1, "copy", "copies") == "1 copy"
    assert formats.count_text(0, "copy", "copies") == "0 copies"
    assert formats.count_text(2, "replica") == "2 replicas"
