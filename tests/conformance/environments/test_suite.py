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

from colla.environments.conformance import CHECKS, Check, Sample, Subject, run_check
from colla.environments.conformance.running import run_alone

EXAMPLE = Path(__file__).parents[3] / "examples" / "environment-node"
OURS = (sys.executable, "-P", "-m", "colla.environments")
PROGRAMS = {
    "static": (*OURS, "static"),
    "process-bubblewrap": (*OURS, "process", "--isolation", "bubblewrap"),
    "process-none": (*OURS, "process", "--isolation", "none"),
    "wasm": (*OURS, "wasm"),
    "container": (*OURS, "container"),
    "node": ("node", str(EXAMPLE / "environment.mjs")),
}
SAMPLES = {
    "node": lambda base: Sample(EXAMPLE / "hello"),
    "wasm": lambda base: wasm_sample(base),
    "container": lambda base: container_sample(base),
}
# About a second and a half of processor time for every container: two minutes in all.
SLOW = {"container": pytest.mark.slow}
# Answers with its variables, or with 404 when they say "nothing" anywhere (the path that the suite asks for).
WAT = """
(module
 (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
 (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
 (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
 (memory (export "memory") 2)
 (data (i32.const 1024) "Content-Type: text/plain\\n\\n")
 (data (i32.const 1100) "Status: 404 Not Found\\n\\n")
 (func $say (param $at i32) (param $length i32)
  (i32.store (i32.const 0) (local.get $at)) (i32.store (i32.const 4) (local.get $length))
  (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
 (func (export "_start") (local $at i32)
  (drop (call $sizes (i32.const 16) (i32.const 20)))
  (drop (call $environ (i32.const 2048) (i32.const 8192)))
  (local.set $at (i32.const 8192))
  (loop $on
   (if (i32.and (i32.eq (i32.load (local.get $at)) (i32.const 0x68746f6e))
                (i32.eq (i32.load offset=3 (local.get $at)) (i32.const 0x676e6968)))
    (then (call $say (i32.const 1100) (i32.const 23)) (return)))
   (local.set $at (i32.add (local.get $at) (i32.const 1)))
   (br_if $on (i32.lt_u (local.get $at) (i32.add (i32.const 8192) (i32.load (i32.const 20))))))
  (call $say (i32.const 1024) (i32.const 26))
  (call $say (i32.const 8192) (i32.load (i32.const 20)))))
"""
NODE_MAJOR_MIN = 18


def node_problem() -> str:
    """Why the example cannot run here; empty when it can."""
    if shutil.which("node") is None:
        return "Node.js is not installed"
    version = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout.strip()
    old = int(version.removeprefix("v").partition(".")[0]) < NODE_MAJOR_MIN
    return f"Node.js {version} is older than {NODE_MAJOR_MIN}" if old else ""


def wasm_sample(base: Path) -> Sample:
    from wasmtime import wat2wasm

    folder = base.parent / f"{base.name}-sample"
    folder.mkdir()
    (folder / "module.wasm").write_bytes(bytes(wat2wasm(WAT)))
    return Sample(folder)


def container_sample(base: Path) -> Sample:
    # Ends by SIGTERM, which the first process of a container does only when it says so.
    script = "trap 'exit 0' TERM; /bin/busybox httpd -f -p 127.0.0.1:8080 -h /www & wait"
    image = oci.image(["/bin/sh", "-c", script], {"www/index.html": b"here"})
    return Sample(oci.write_folder(base.parent / f"{base.name}-sample", image))


def subject_of(kind: str, base: Path) -> Subject:
    sample = SAMPLES[kind](base) if kind in SAMPLES else None
    return Subject(PROGRAMS[kind], base, sample)


@pytest.fixture(scope="module", params=[pytest.param(kind, marks=SLOW.get(kind, ())) for kind in PROGRAMS])
def program(
    request: pytest.FixtureRequest, bubblewrap: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    if request.param == "process-bubblewrap" and bubblewrap:
        pytest.skip(bubblewrap)
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
