"""The suite for authors of environments, on all of ours and on the example in another language."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import oci
import pytest
import pytest_asyncio
from samples import container_sample, wasm_sample

from colla.environments.bridge.fence import ABI_LEAST, landlock_abi
from colla.environments.conformance import CHECKS, Check, Sample, Subject, run_check
from colla.environments.conformance.running import run_alone

EXAMPLE = Path(__file__).parents[3] / "examples" / "environment-node"
OURS = (sys.executable, "-P", "-m", "colla.environments")
PROGRAMS = {
    "static": (*OURS, "static"),
    "process-bubblewrap": (*OURS, "process", "--isolation", "bubblewrap"),
    "process-none": (*OURS, "process", "--isolation", "none"),
    "process-landlock": (*OURS, "process", "--isolation", "landlock"),
    "wasm": (*OURS, "wasm"),
    "container": (*OURS, "container"),
    "node": ("node", str(EXAMPLE / "environment.mjs")),
}
SAMPLES = {
    "node": lambda base: Sample(EXAMPLE / "hello"),
    "wasm": wasm_sample,
    "container": container_sample,
}
# About a second and a half of processor time for every container: two minutes in all.
# Under Landlock the rules hold as they do without any isolation; what differs is in test_escapes.
SLOW = {"container": pytest.mark.slow, "process-landlock": pytest.mark.slow}
NODE_MAJOR_MIN = 18


def node_problem() -> str:
    """Why the example cannot run here; empty when it can."""
    if shutil.which("node") is None:
        return "Node.js is not installed"
    version = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout.strip()
    old = int(version.removeprefix("v").partition(".")[0]) < NODE_MAJOR_MIN
    return f"Node.js {version} is older than {NODE_MAJOR_MIN}" if old else ""


def subject_of(kind: str, base: Path) -> Subject:
    sample = SAMPLES[kind](base) if kind in SAMPLES else None
    return Subject(PROGRAMS[kind], base, sample)


@pytest.fixture(scope="module", params=[pytest.param(kind, marks=SLOW.get(kind, ())) for kind in PROGRAMS])
def program(
    request: pytest.FixtureRequest, bubblewrap: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    if request.param == "process-bubblewrap" and bubblewrap:
        pytest.skip(bubblewrap)
    if request.param == "process-landlock" and landlock_abi() < ABI_LEAST:
        pytest.skip("the kernel's Landlock is too old")
    if request.param == "wasm":
        pytest.importorskip("wasmtime", reason="wasmtime is not installed")
    if request.param == "node" and (problem := node_problem()):
        pytest.skip(problem)
    if request.param == "container" and (problem := oci.problem()):
        pytest.skip(problem)
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "container":
            for name, text in oci.podman_settings(tmp_path_factory.mktemp("podman")).items():
                patch.setenv(name, text)
        yield str(request.param)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(program: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Subject]:
    subject = subject_of(program, tmp_path_factory.mktemp(program) / "shared")
    subject.base.mkdir()
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
    told(await run_alone(check, subject))


def told(outcome):
    if outcome.verdict == "not here":
        pytest.skip(outcome.why)
    assert outcome.verdict == "passed", f"{outcome.rule} {outcome.why}"
