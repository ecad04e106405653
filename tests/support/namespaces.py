"""Homes cut from each other: network namespaces joined by bridges, without root.

`unshare -Urn` gives a network of our own; in it live two bridges and, for each computer, a further namespace whose
cable (a veth pair) is plugged into the first bridge. Cutting moves cables to the second bridge, healing moves them
back. Everything ends with the one process that holds the outer namespaces.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

HOLD = ("sleep", "infinity")


class Network:
    """An island of namespaces. Use it as a context manager."""

    def __init__(self) -> None:
        self._holders: list[subprocess.Popen[bytes]] = []
        self._outer = 0
        self._cables: dict[str, str] = {}
        self.prefixes: dict[str, list[str]] = {}
        self.addresses: dict[str, str] = {}

    def __enter__(self) -> Network:
        holder = subprocess.Popen(["unshare", "-Urn", *HOLD])
        self._holders.append(holder)
        self._outer = holder.pid
        _wait_for_namespace(holder.pid)
        for bridge in ("bridge0", "bridge1"):
            self._ip("link", "add", bridge, "type", "bridge")
            self._ip("link", "set", bridge, "up")
        return self

    def __exit__(self, *_: object) -> None:
        for holder in reversed(self._holders):
            holder.kill()
            holder.wait()

    def add(self, name: str) -> list[str]:
        """A further computer; returns the prefix for commands that run on it."""
        number = len(self._cables) + 1
        enter = self._enter(self._outer)
        holder = subprocess.Popen([*enter, "unshare", "-n", *HOLD])
        self._holders.append(holder)
        _wait_for_namespace(holder.pid, not_like=self._outer)
        outside, inside = f"cable{number}", "home0"
        self._ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", str(holder.pid))
        self._ip("link", "set", outside, "master", "bridge0", "up")
        prefix = self._enter(holder.pid)
        address = f"10.77.0.{number}"
        for command in (
            ("ip", "link", "set", "lo", "up"),
            ("ip", "addr", "add", f"{address}/24", "dev", inside),
            ("ip", "link", "set", inside, "up"),
        ):
            _run([*prefix, *command])
        self._cables[name] = outside
        self.prefixes[name] = prefix
        self.addresses[name] = address
        return prefix

    def cut(self, names: Sequence[str]) -> None:
        """Cut these computers off from the others; among themselves they stay connected."""
        for name in names:
            self._ip("link", "set", self._cables[name], "master", "bridge1")

    def heal(self) -> None:
        """Plug every cable into the first bridge again."""
        for cable in self._cables.values():
            self._ip("link", "set", cable, "master", "bridge0")

    def _ip(self, *words: str) -> None:
        _run([*self._enter(self._outer), "ip", *words])

    def _enter(self, pid: int) -> list[str]:
        return ["nsenter", "--preserve-credentials", "-U", "-n", "-t", str(pid)]


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def _wait_for_namespace(pid: int, not_like: int | None = None) -> None:
    """Wait until the process has made its namespace: its network differs from ours (and from `not_like`'s)."""
    others = [Path("/proc/self/ns/net").readlink()]
    if not_like is not None:
        others.append(Path(f"/proc/{not_like}/ns/net").readlink())
    while Path(f"/proc/{pid}/ns/net").readlink() in others:
        pass
    # The user namespace is mapped right after the network was made; nsenter needs the map.
    while not Path(f"/proc/{pid}/uid_map").read_text().strip():
        pass
