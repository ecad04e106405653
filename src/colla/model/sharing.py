"""Computed once for all nodes of a process: pure functions of bytes, where a simulation runs many nodes beside each other.

Every node of a group verifies and decodes what every other one does. In a simulation all of them live in one process: there
`begin_sharing` may be called, and from then on a `shared` function looks first whether it has the answer to the very
same arguments. A real node does not call it, and nothing is remembered.

Invariant: a shared function depends on nothing but its arguments and its answers are never changed, so that nobody can tell.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

ANSWERS_MAX = 32_768
"""Answers that one function remembers; then it forgets all of them at once."""

_sharing = False


def begin_sharing() -> None:
    """From now on answers are remembered, in this process, until it ends."""
    global _sharing
    _sharing = True


def shared(function: Callable[P, T]) -> Callable[P, T]:
    """Remember what this function answers, once sharing began. What it raises is not remembered."""
    return sharing(ANSWERS_MAX)(function)


def sharing(answers_max: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """As `shared`, for functions whose arguments or answers are large."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        answers: dict[Any, T] = {}

        @wraps(function)
        def call(*arguments: P.args, **named: P.kwargs) -> T:
            if not _sharing or named:
                return function(*arguments, **named)
            found = answers.get(arguments, answers)
            if found is not answers:
                return found  # type: ignore[return-value]
            answer = function(*arguments, **named)
            if len(answers) >= answers_max:
                answers.clear()
            answers[arguments] = answer
            return answer

        return call

    return decorate
