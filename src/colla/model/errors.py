"""The errors that callers meet. Each says what to do next, in one sentence that a person can act on.

Four kinds exist (see CONTRIBUTING.md): misuse by the caller raises `CollaError`; a bad peer is dropped,
counted and noticed; a failing world is an event; a broken invariant raises `InvariantViolation`.
"""

from __future__ import annotations

import msgspec

UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""All that msgspec raises for bytes that are not what they should be: wrong, not UTF-8, or nested too deeply."""


class CollaError(Exception):
    """Something that the caller asked for cannot be done.

    `code` is stable and machine-readable (`name_taken`), `message` is for people, `hint` says what to do.
    """

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class InvariantViolation(AssertionError):
    """A promise that the code makes to itself was broken: a bug. Carries the story of how it came about."""

    def __init__(self, message: str, story: str = "") -> None:
        super().__init__(f"{message}\n{story}" if story else message)
        self.story = story
