"""Types of the local API about execution environments."""

from __future__ import annotations

import msgspec


class EnvironmentReport(msgspec.Struct, frozen=True):
    """An execution environment of this computer. `command` is empty when it is built in; `given` tells whether the
    contribution names it, `attached` whether its program works now, and `problem` why not. `not_contained` says what it does
    not keep a program from, as ends of sentences; `secrets_kept` who else writes services' secrets to this computer's disk, if
    anybody does.
    """

    kind: str
    command: tuple[str, ...]
    given: bool
    attached: bool
    problem: str
    replicas: int
    version: str
    isolation: str
    limits_enforced: tuple[str, ...]
    capabilities: tuple[str, ...]
    needs_consent: str
    not_contained: tuple[str, ...] = ()
    secrets_kept: str = ""


class AttachRequest(msgspec.Struct, frozen=True):
    """Attach the environment that this command starts; the first word is the program, with its whole path."""

    command: tuple[str, ...]
