"""Text from others, made safe to show: no character passes that a terminal obeys instead of showing it. Pure."""

from __future__ import annotations

import re

# Control characters (C0, DEL, C1), line and paragraph separators, and what turns the direction of text.
OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


def clean(text: str) -> str:
    """The text with everything escaped that a terminal would obey."""
    return OBEYED.sub(lambda match: _escape(match[0]), text)


def clean_json(text: str) -> str:
    """The same for JSON text, which stays the same JSON: such characters stand inside its strings only."""
    return OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
