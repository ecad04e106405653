"""Homes cut from each other: network namespaces joined by bridges, without root.

`unshare -Urn` gives a network of our own; in it live two bridges and, for each computer, a further namespace whose
cable (a veth pair) is plugged into the first bridge. Cutting moves cables to the second bridge, healing moves them
back. Everything ends with the one process that holds the outer namespaces.

A *home* is a router, in a namespace of its own, between the bridge and the home's own network. It behaves as
routers do: it passes nothing from outside that nobody inside asked for, and hides the home behind its one address.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from computers import Computer

HOLD = ("sleep", "infinity")
INTERNET = "192.88.99"
"""Real global addresses, or nodes would not take them for public. Nobody has them any more (RFC 7526)."""
IPTABLES = ("iptables", "iptables-legacy")
NAT_RULE = ("-t", "nat", "-A", "POSTROUTING", "-o", "wan0", "-j", "MASQUERADE")
FORWARDING = "/proc/sys/net/ipv4/ip_forward"
FETCH = """
import sys, urllib.request
request = urllib.request.Request(sys.argv[1], headers={"Host": sys.argv[2]})
sys.stdout.write(urllib.request.urlopen(request, timeout=5).read().decode())
"""


@cache
def nat_program() -> str:
    """The program that makes a router of a namespace, or "" where none can."""
    for name in IPTABLES:
        # Not everybody's PATH has the folders of the system's own programs.
        program = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if program is None:
            continue
        script = f"echo 1 > {FORWARDING} && {program} {' '.join(NAT_RULE)} --random-fully"
        probe = subprocess.run(["unshare", "-Urn", "sh", "-c", script], capture_output=True)
        if probe.returncode == 0:
            return program
    return ""


class Network:
    """An island of namespaces. Use it as a context manager."""

    def __init__(self, prefix: str = "10.77.0") -> None:
        """`prefix` is the first three bytes of the addresses of computers and routers on the bridges."""
        self._prefix = prefix
        self._holders: list[subprocess.Popen[bytes]] = []
        self._outer = 0
        self._cables: dict[str, str] = {}
        self.prefixes: dict[str, list[str]] = {}
        self.addresses: dict[str, str] = {}
        self.homes: dict[str, Home] = {}

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
        pid = self._namespace()
        return self._plug(name, pid, "home0")

    def add_home(self, name: str, *, symmetric: bool = False) -> Home:
        """A home behind a router of its own.

        The router keeps the ports of those inside; a `symmetric` one draws another port for everybody they speak to.
        """
        pid = self._namespace()
        prefix = self._plug(name, pid, "wan0")
        home = Home(self, pid, prefix, f"10.{len(self.homes) + 1}.0", symmetric)
        self.homes[name] = home
        return home

    def cut(self, names: Sequence[str]) -> None:
        """Cut these computers and homes off from the others; among themselves they stay connected."""
        for name in names:
            self._ip("link", "set", self._cables[name], "master", "bridge1")

    def heal(self) -> None:
        """Plug every cable into the first bridge again."""
        for cable in self._cables.values():
            self._ip("link", "set", cable, "master", "bridge0")

    def _namespace(self) -> int:
        """A further network namespace; returns the process that holds it."""
        holder = subprocess.Popen([*self._enter(self._outer), "unshare", "-n", *HOLD])
        self._holders.append(holder)
        _wait_for_namespace(holder.pid, not_like=self._outer)
        return holder.pid

    def _plug(self, name: str, pid: int, inside: str) -> list[str]:
        """Lay a cable from the first bridge into that namespace; returns the prefix to enter it."""
        number = len(self._cables) + 1
        outside = f"cable{number}"
        self._ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", str(pid))
        self._ip("link", "set", outside, "master", "bridge0", "up")
        prefix = self._enter(pid)
        self.addresses[name] = f"{self._prefix}.{number}"
        _run([*prefix, "ip", "link", "set", "lo", "up"])
        _bring_up(prefix, inside, self.addresses[name])
        self._cables[name] = outside
        self.prefixes[name] = prefix
        return prefix

    def _ip(self, *words: str) -> None:
        _run([*self._enter(self._outer), "ip", *words])

    def _enter(self, pid: int) -> list[str]:
        return ["nsenter", "--preserve-credentials", "-U", "-n", "-t", str(pid)]


class Home:
    """A router and the computers behind it."""

    def __init__(
        self, network: Network, pid: int, prefix: list[str], inner_prefix: str, symmetric: bool
    ) -> None:
        self._network = network
        self._pid = pid
        self._router = prefix
        self._inner_prefix = inner_prefix
        self._count = 1
        program = nat_program()
        for command in (
            ("ip", "link", "add", "lan0", "type", "bridge"),
            ("ip", "addr", "add", f"{inner_prefix}.1/24", "dev", "lan0"),
            ("ip", "link", "set", "lan0", "up"),
            ("sh", "-c", f"echo 1 > {FORWARDING}"),
            (program, *NAT_RULE, *(("--random-fully",) if symmetric else ())),
        ):
            _run([*prefix, *command])
        # Without the drop on INPUT the router would remember who knocked in vain, and find the port taken when
        # the computer inside knocks back: real routers have that rule.
        for chain in ("INPUT", "FORWARD"):
            known = ("-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT")
            _run([*prefix, program, "-A", chain, "-i", "wan0", *known])
            _run([*prefix, program, "-A", chain, "-i", "wan0", "-j", "DROP"])

    def add(self, name: str) -> list[str]:
        """A further computer at home; returns the prefix for commands that run on it."""
        network = self._network
        self._count += 1
        pid = network._namespace()
        prefix = network._enter(pid)
        inside = ("type", "veth", "peer", "name", "home0", "netns", str(pid))
        _run([*self._router, "ip", "link", "add", f"seat{self._count}", *inside])
        _run([*self._router, "ip", "link", "set", f"seat{self._count}", "master", "lan0", "up"])
        _run([*prefix, "ip", "link", "set", "lo", "up"])
        address = f"{self._inner_prefix}.{self._count}"
        _bring_up(prefix, "home0", address)
        _run([*prefix, "ip", "route", "add", "default", "via", f"{self._inner_prefix}.1"])
        network.prefixes[name] = prefix
        network.addresses[name] = address
        return prefix


async def fetch(computer: Computer, service: str) -> str | None:
    """What the computer's own gateway answers for the service, from inside its network; None unless that is a page."""
    report = await computer.ask(lambda client: client.node())
    url = f"http://{report.gateway}/"
    running = await asyncio.create_subprocess_exec(
        *computer.prefix,
        *("python3", "-c", FETCH, url, f"{service}.localhost"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, _ = await running.communicate()
    return out.decode() if running.returncode == 0 else None


def _bring_up(prefix: Sequence[str], device: str, address: str) -> None:
    _run([*prefix, "ip", "addr", "add", f"{address}/24", "dev", device])
    _run([*prefix, "ip", "link", "set", device, "up"])


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
