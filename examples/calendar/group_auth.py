"""Who asks: a member of the group, as the gateway on the member's own computer says. No password anywhere.

Replicas are reached through gateways only; these strip the header from what comes in, and set it where they know the member.
All members share the calendars of one user, so that every client finds them by itself.
"""

from __future__ import annotations

from typing import Any

from radicale.auth import BaseAuth

EVERYONE = "everyone"


class Auth(BaseAuth):
    """See the module."""

    def get_external_login(self, environ: dict[str, Any]) -> tuple[str, str]:
        return (EVERYONE if environ.get("HTTP_X_COLLA_MEMBER") else "", "")

    def _login(self, login: str, password: str) -> str:
        return login if login == EVERYONE else ""
