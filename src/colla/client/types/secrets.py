"""Types of the local API about secrets of services. No answer ever has a value."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from colla.model.secret import SECRETS_MAX


class SecretsRequest(msgspec.Struct, frozen=True):
    """Give these secrets new values, by their names. What runs is replaced, one replica after the other."""

    secrets: Annotated[dict[str, str], Meta(min_length=1, max_length=SECRETS_MAX)]

    def __repr__(self) -> str:
        return f"SecretsRequest({', '.join(sorted(self.secrets))})"


class SecretReport(msgspec.Struct, frozen=True):
    """One secret: set, or needed and not set. `computers` could read it from the start: those of the owner and of who set it.

    `needed`: without it no replica starts. `set_at_s` is 0 while it is not set.
    """

    name: str
    is_set: bool
    needed: bool
    set_at_s: float = 0.0
    set_by: str = ""
    computers: tuple[str, ...] = ()
