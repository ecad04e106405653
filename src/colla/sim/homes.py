"""Homes: computers behind one router share its line and its public address, and it lets in only answers.

What home routers do (RFC 4787): one that *keeps* ports (endpoint-independent mapping, address- and port-dependent
filtering) shows a computer at the same address to everybody, and lets packets in from whom the computer sent one to
within `MAPPING_S`. A *symmetric* one draws another port for everybody it sends to: nobody can use the address that
somebody else saw. One that *forwards* a port lets everybody in. None leads out and in again (no hairpin); within a home
computers reach each other at their inner addresses, as on a LAN.

A router matters when a link is made. Once it stands, its keep-alives hold the way open.
"""

from __future__ import annotations

from enum import StrEnum

from colla.sim.lines import HOME, Line

MAPPING_S = 30.0
"""A router remembers an unanswered packet so long (Linux's default for UDP; the RFC asks for two minutes)."""
MAPPINGS_MAX = 1024
"""The oldest are forgotten beyond this, as small routers do."""
PORT = 4000


class Nat(StrEnum):
    """What a home's router does with packets from outside."""

    FORWARDING = "forwarding"
    KEEPING = "keeping"
    SYMMETRIC = "symmetric"


class Home:
    """One home. Made by `Network.build_home`."""

    def __init__(self, number: int, nat: Nat, line: Line = HOME) -> None:
        self.number = number
        self.nat = nat
        self.line = line
        self.inner: dict[str, str] = {}
        """Of each computer that lives here, its address at home."""
        self.outer: dict[str, str] = {}
        """Where everybody outside sees them; empty behind a symmetric router."""
        self._sent_s: dict[tuple[str, str], float] = {}
        self._drawn = 0
        self._moved_in = 0

    def move_in(self, name: str) -> tuple[str, str]:
        """A computer moves in; its inner address, and the one at which others see it (empty: each another one)."""
        self._moved_in += 1
        number = self._moved_in
        self.outer[name] = "" if self.nat is Nat.SYMMETRIC else f"{self._public_ip()}:{PORT + number}"
        self.inner[name] = f"192.168.{self.number}.{number}:{PORT}"
        return self.inner[name], self.outer[name]

    def move_out(self, name: str) -> tuple[str, str]:
        """The computer moves out; the two addresses that it had."""
        return self.inner.pop(name), self.outer.pop(name)

    def draw_address(self) -> str:
        """Where one more peer sees a computer of a symmetric router."""
        self._drawn += 1
        return f"{self._public_ip()}:{20_000 + self._drawn % 40_000}"

    def sent(self, inner: str, outer: str, now_s: float) -> None:
        """A packet of the computer `inner` leaves for `outer`."""
        self._sent_s.pop((inner, outer), None)
        self._sent_s[inner, outer] = now_s
        if len(self._sent_s) > MAPPINGS_MAX:
            del self._sent_s[next(iter(self._sent_s))]

    def lets_in(self, inner: str, outer: str, outer_port_known: bool, now_s: float) -> bool:
        """Whether a packet of `outer` gets to `inner`. `outer_port_known`: it comes from where `inner` sent to."""
        if self.nat is Nat.FORWARDING:
            return True
        if self.nat is Nat.SYMMETRIC or not outer_port_known:
            return False
        return now_s - self._sent_s.get((inner, outer), float("-inf")) <= MAPPING_S

    def _public_ip(self) -> str:
        return f"203.0.{self.number // 250}.{self.number % 250 + 1}"
