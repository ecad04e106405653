"""What all tests share: markers, options, Hypothesis' profiles, and what a run must not leave out.

- `slow` tests run with `--run-long` only.
- `partition` tests cut real processes from each other in network namespaces. They are skipped, with the reason,
  where namespaces do not work. With `COLLA_REQUIRE_PARTITION=1` (as `.ci/run` sets it where they do work) the run
  fails if one of them was skipped, or if none ran.
- `nat` tests are partition tests that need a router as well. Where namespaces work but routers do not (no iptables),
  they are skipped without turning the run red.
- `cluster` tests and documents start real nodes, which share the machine's ports and processors: under pytest-xdist
  one process runs them all, one after another, and a second one those that live in network namespaces throughout.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Generator
from functools import cache
from typing import Any

import pytest
from hypothesis import settings

MARKERS = (
    "cluster: starts real nodes; never beside another such test",
    "partition: cuts real processes from each other in network namespaces; is a cluster test too",
    "nat: needs a router in a network namespace; is a partition test too",
    "slow: takes minutes; runs with --run-long",
)
APART = ("tests/cluster/test_partition.py", "tests/cluster/test_nat.py")
"""Nodes in network namespaces of their own, which mostly wait: they go on beside the other tests that start nodes."""
ONE_AFTER_ANOTHER = ("tests/cluster/", "tests/house/test_documentation.py", "tests/house/test_reference.py")
"""Where tests may start real nodes (they carry the marker `cluster`)."""
PROBE_TIMEOUT_S = 10
# A pair of linked interfaces in a network namespace of one's own is what every partition test is made of.
NAMESPACE_PROBE = ("unshare", "-Urn", "ip", "link", "add", "type", "veth")

settings.register_profile("people", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "people")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-long", action="store_true", help="run the tests marked slow as well")


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    if os.environ.get("COLLA_REQUIRE_PARTITION") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(PartitionWatch(), "partition-watch")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow") and not config.getoption("--run-long"):
            item.add_marker(pytest.mark.skip(reason="slow: run it with --run-long"))
        partition = item.get_closest_marker("partition")
        if partition and (why := why_no_namespaces()):
            item.add_marker(pytest.mark.skip(reason=f"no network namespaces here: {why}"))
        elif item.get_closest_marker("nat") and (why := why_no_routers()):
            item.add_marker(pytest.mark.skip(reason=f"no routers in network namespaces here: {why}"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Two processes for all tests that start nodes, and one process per file for the others.

    xdist's own groups do not work with pytest 9.2, whose items no longer take the name that xdist gives them.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            if nodeid.startswith(APART):
                return "namespaces"
            return "nodes" if nodeid.startswith(ONE_AFTER_ANOTHER) else nodeid.partition("::")[0]

    return Scheduling(config, log)


@cache
def why_no_namespaces() -> str:
    """Why partition tests cannot run here, or "" if they can."""
    for program in ("unshare", "ip"):
        if shutil.which(program) is None:
            return f"`{program}` is not installed (apt install util-linux iproute2)"
    probe = subprocess.run(NAMESPACE_PROBE, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S)
    if probe.returncode == 0:
        return ""
    return f"`{' '.join(NAMESPACE_PROBE)}` failed: {(probe.stderr or probe.stdout).strip()}"


@cache
def why_no_routers() -> str:
    """Why `nat` tests cannot run where namespaces work, or "" if they can."""
    from namespaces import IPTABLES, nat_program

    if nat_program():
        return ""
    return f"neither of {', '.join(IPTABLES)} can translate addresses (apt install iptables)"


class PartitionWatch:
    """Turns a run red whose partition tests were left out. Lives where the reports arrive, in the first process."""

    def __init__(self) -> None:
        self.ran = 0
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if "partition" not in report.keywords:
            return
        if report.when == "call" and not report.skipped:
            self.ran += 1
        elif report.skipped and not ("nat" in report.keywords and why_no_routers()):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.skipped.append(f"{report.nodeid}: {reason}")

    @property
    def complaint(self) -> str:
        """What is wrong with this run, or ""."""
        if self.skipped:
            return "network namespaces work here, but partition tests were skipped:\n  " + "\n  ".join(
                self.skipped
            )
        return "" if self.ran else "network namespaces work here, but no partition test ran"

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.complaint and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(wrapper=True)
    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter
    ) -> Generator[None, None, None]:
        outcome = yield
        if self.complaint:
            terminalreporter.section("partition tests left out", red=True)
            terminalreporter.line(self.complaint)
        return outcome
