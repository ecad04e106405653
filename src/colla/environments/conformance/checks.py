"""What a check is, how one is declared, and what it says when a rule does not hold."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal

import msgspec

from colla.environments.protocol import EnvironmentFault

if TYPE_CHECKING:
    from colla.environments.conformance.subject import Subject

Body = Callable[["Subject"], Awaitable[None]]


class NotHere(Exception):
    """The environment does not claim this, or it cannot be tried here: the check says nothing about it."""


class Check(msgspec.Struct, frozen=True):
    """One rule. Checks that are `alone` end the program, and each gets one of its own."""

    name: str
    rule: str
    run: Body
    capability: str = ""
    alone: bool = False


class Outcome(msgspec.Struct, frozen=True):
    """How one check ended; `why` tells what went wrong, or why it says nothing."""

    name: str
    rule: str
    verdict: Literal["passed", "failed", "not here"]
    why: str = ""


class Checks(list[Check]):
    """The checks of one area, each declared by decorating its body, whose docstring is the rule."""

    def declare(self, capability: str = "", *, alone: bool = False) -> Callable[[Body], Body]:
        """`capability` is what an environment must claim for the check to be asked of it."""

        def add(body: Body) -> Body:
            rule = " ".join((body.__doc__ or "").split())
            self.append(Check(body.__name__, rule, body, capability, alone))
            return body

        return add


def expect(found: object, wanted: object, what: str) -> None:
    """Raise `AssertionError` that says what differs."""
    if found != wanted:
        raise AssertionError(f"{what}: {found!r} instead of {wanted!r}")


def require(true: object, what: str) -> None:
    """Raise `AssertionError(what)` unless it is true."""
    if not true:
        raise AssertionError(what)


async def refused(asked: Awaitable[object], code: str) -> EnvironmentFault:
    """The fault that the call ends with. Raises `AssertionError` when it succeeds, or has another code."""
    try:
        answer = await asked
    except EnvironmentFault as error:
        expect(error.code, code, f"the code of the refusal ({error.message})")
        require(error.message, f"the refusal {code} has no message for people")
        return error
    raise AssertionError(f"it answered {answer!r} instead of refusing with {code}")
