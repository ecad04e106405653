"""The suite for authors of environments, on all of ours and on the example in another language."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from colla.environments.conformance import CHECKS, Check, Sample, Subject, run_check
from colla.environments.conformance.running import run_alone

EXAMPLE = Path(__file__).parents[3] / "examples" / "environment-node"
OURS = (sys.executable, "-P", "-m", "colla.environments")
PROGRAMS = {
    "static": (*OURS, "static"),
    "process-bubblewrap": (*OURS, "process", "--isolation", "bubblewrap"),
    "process-none": (*OURS, "process", "--isolation", "none"),
    "node": ("node", str(EXAMPLE / "environment.mjs")),
}
SAMPLES = {"node": Sample(EXAMPLE / "hello")}
NODE_MAJOR_MIN = 18


def node_problem() -> str:
    """Why the example cannot run here; empty when it can."""
    if shutil.which("node") is None:
        return "Node.js is not installed"
    version = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout.strip()
    old = int(version.removeprefix("v").partition(".")[0]) < NODE_MAJOR_MIN
    return f"Node.js {version} is older than {NODE_MAJOR_MIN}" if old else ""


def subject_of(kind: str, base: Path) -> Subject:
    base.mkdir(exist_ok=True)
    return Subject(PROGRAMS[kind], base, SAMPLES.get(kind))


@pytest.fixture(scope="module", params=PROGRAMS)
def program(request: pytest.FixtureRequest, bubblewrap: str) -> str:
    if request.param == "process-bubblewrap" and bubblewrap:
        pytest.skip(bubblewrap)
    if request.param == "node" and (problem := node_problem()):
        pytest.skip(problem)
    return str(request.param)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(program: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Subject]:
    subject = subject_of(program, tmp_path_factory.mktemp(program) / "shared")
    await subject.open()
    yield subject
    await subject.close()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("check", [each for each in CHECKS if not each.alone], ids=lambda each: each.name)
async def test_a_rule(shared: Subject, check: Check) -> None:
    told(await run_check(check, shared))


@pytest.mark.parametrize("check", [each for each in CHECKS if each.alone], ids=lambda each: each.name)
async def test_a_rule_about_ends(program: str, check: Check, tmp_path: Path) -> None:
    subject = subject_of(program, tmp_path / "alone")
    subject.base.rmdir()
    told(await run_alone(check, subject))


def told(outcome):
    if outcome.verdict == "not here":
        pytest.skip(outcome.why)
    assert outcome.verdict == "passed", f"{outcome.rule} {outcome.why}"
