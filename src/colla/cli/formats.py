"""How values look to a person, and how a person writes them. Pure."""

from __future__ import annotations

import math
import re

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?b)?", re.IGNORECASE)
DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d|w)?", re.IGNORECASE)
DURATION_S = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
SHORT_ID = 10


def size_text(size_bytes: float) -> str:
    """`1.5 GiB`."""
    for unit, name in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size_bytes >= unit:
            return f"{size_bytes / unit:.3g} {name}"
    return f"{size_bytes:.0f} B"


def duration_text(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min`, `5 h`, `2 d`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    for unit, limit, name in ((1, 120, "s"), (60, 7200, "min"), (3600, 172_800, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86400:.0f} d"


def parse_size(text: str) -> int:
    """Bytes from `10GB`, `512MiB`, `2G` or `0`: GB is 1000³, GiB and G are 1024³. Raises `ValueError`."""
    match = SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size: write it like 10GB, 512MiB or 0")
    base = 1000 if (match[3] or "").lower() == "b" else 1024
    size = float(match[1]) * base ** " kmgt".index((match[2] or " ").lower())
    if not math.isfinite(size):
        raise ValueError("there is no such size")
    return int(size)


def parse_duration(text: str) -> float:
    """Seconds from `90s`, `30m`, `12h`, `7d`, `2w`. Raises `ValueError`."""
    match = DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no duration: write it like 30m, 12h or 7d")
    return float(match[1]) * DURATION_S[(match[2] or "s").lower()]


def parse_pair(text: str) -> tuple[str, str]:
    """`KEY=VALUE`. Raises `ValueError`."""
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise ValueError(f"{text!r} is no pair: write it like KEY=VALUE")
    return key.strip(), value


def parse_pairs(texts: list[str]) -> dict[str, str]:
    """Several `KEY=VALUE`; the last of a key counts."""
    return dict(parse_pair(text) for text in texts)


def short_id(text: str) -> str:
    """The first digits of a long hexadecimal id."""
    return text[:SHORT_ID]


def list_text(items: tuple[str, ...] | list[str], empty: str = "–") -> str:
    """`a, b, c`, or a dash."""
    return ", ".join(items) or empty


def count_text(count: int, one: str, many: str = "") -> str:
    """`1 replica`, `3 replicas`."""
    return f"{count} {one if count == 1 else many or one + 's'}"
