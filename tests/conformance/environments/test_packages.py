"""A service that brings Python packages: installed offline, once, and seen by the program alone."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import sys
from pathlib import Path

import pytest
from wheels import make_wheel

from colla.environments.folders import RuntimeFolder
from colla.environments.packages import UNUSED_KEPT_MAX, PythonPackages
from colla.environments.protocol import EnvironmentFault
from colla.model.wheelhouse import LockedWheel, Target, write_lock
from colla.uv_program import find_uv

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(find_uv() is None, reason="uv is not installed"),
]
HERE = Target.of(sys.version_info[:2], sys.platform, platform.machine())
PROGRAM = """
    import greeting, json, os, pathlib, subprocess, sys
    said = subprocess.run(["greet"], capture_output=True, text=True).stdout.strip()
    try:
        pathlib.Path(greeting.__file__).write_text("x")
        written = True
    except OSError:
        written = False
    cached = sorted(path.suffix for path in (pathlib.Path(greeting.__file__).parent / "__pycache__").glob("greeting*"))
    print(json.dumps([greeting.hello, said, written, cached, sys.prefix == os.environ["VIRTUAL_ENV"]]))
"""


def furnish(folder: Path, target: Target, hello: str, broken: bool = False) -> None:
    """Give the folder a wheelhouse with one package, which has a command, too."""
    house = folder / "wheelhouse"
    command = f"print({hello!r})\n"
    files = {
        "greeting.py": f"hello = {hello!r}\n",
        "greeting-1.0.data/scripts/greet": f"#!python\n{command}",
    }
    wheel = make_wheel(house, "greeting", files)
    found = "0" * 64 if broken else hashlib.sha256(wheel.read_bytes()).hexdigest()
    (house / target.lock).write_text(write_lock([LockedWheel("greeting", "1.0", found, wheel.name)]))


async def test_packages_are_there_and_read_only(programs):
    artifact = programs.artifact(app_py=PROGRAM)
    furnish(artifact, HERE, f"hello {programs.kind}")
    told = []
    await programs.client.prepare(artifact, told.append)
    assert any("1 Python packages" in line.doing for line in told)
    told.clear()
    await programs.client.prepare(artifact, told.append)
    assert not any(line.doing for line in told)
    spec = programs.spec(artifact, listen="port")
    await programs.client.start(spec)
    exit = (await programs.exited(spec)).exit
    assert exit.code == 0, exit
    hello, said, written, cached, own = json.loads(exit.last_lines[-1])
    assert hello == said == f"hello {programs.kind}" and own
    if programs.kind == "process-bubblewrap":
        assert not written and cached == [".pyc"]


async def test_what_does_not_fit_is_refused_with_the_reason(programs):
    artifact = programs.artifact()
    house = artifact / "wheelhouse"
    house.mkdir()
    wheel = LockedWheel("a", "1", "0" * 64, "a-1-cp399-cp399-linux_riscv64.whl")
    (house / Target("3.99", "linux", "riscv64").lock).write_text(write_lock([wheel]))
    with pytest.raises(EnvironmentFault) as raised:
        await programs.client.start(programs.spec(artifact))
    assert raised.value.code == "packages_do_not_fit"
    assert "Python 3.99 on linux-riscv64" in str(raised.value) and str(HERE) in str(raised.value)


async def test_a_wheel_that_was_changed_is_not_installed(programs):
    if programs.kind == "process-none":
        pytest.skip("installing is the same")
    artifact = programs.artifact()
    furnish(artifact, HERE, "changed", broken=True)
    with pytest.raises(EnvironmentFault) as raised:
        await programs.client.start(programs.spec(artifact))
    assert raised.value.code == "packages_failed" and "hash" in raised.value.message.lower()


async def test_what_fits_everywhere_needs_no_lock_of_this_computer(tmp_path):
    packages = PythonPackages(RuntimeFolder(tmp_path / "runtime"), None)
    furnish(tmp_path, Target("3.99", "linux", "riscv64"), "anywhere")
    bundle = packages.bundle(tmp_path)
    assert bundle is not None and bundle.wheels[0].name == "greeting" and not packages.made(bundle)


async def test_unused_environments_go_and_held_ones_stay(tmp_path):
    packages = PythonPackages(RuntimeFolder(tmp_path / "runtime"), None)
    artifact = tmp_path / "artifact"
    made = []
    for number in range(UNUSED_KEPT_MAX + 2):
        shutil.rmtree(artifact, ignore_errors=True)
        furnish(artifact, HERE, f"number {number}")
        bundle = packages.bundle(artifact)
        assert bundle is not None
        if number == 0:
            packages.hold("replica", bundle)
            await packages.make(bundle)
        else:
            place = packages.path(bundle)
            place.mkdir(parents=True)
            (place.parent / "complete").touch()
        made.append(packages.path(bundle))
    packages.tidy()
    assert [path.exists() for path in made] == [True, False] + [True] * UNUSED_KEPT_MAX
    packages.release("replica")
    assert sum(path.exists() for path in made) == UNUSED_KEPT_MAX


async def test_a_wheel_writes_nowhere_else_and_runs_nothing(tmp_path):
    """Without a sandbox around the installer: paths that lead out, and code that Python would run when it starts."""
    outside = tmp_path / "outside"
    files = {
        "../../../../../outside": "x",
        "p.pth": f"import os; open({str(outside)!r}, 'w')\n",
        "a.py": "x = 1\n",
    }
    wheel = make_wheel(tmp_path / "wheelhouse", "sly", files)
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (wheel.parent / HERE.lock).write_text(write_lock([LockedWheel("sly", "1.0", found, wheel.name)]))
    packages = PythonPackages(RuntimeFolder(tmp_path / "runtime"), None)
    bundle = packages.bundle(tmp_path)
    assert bundle is not None
    made = await packages.make(bundle)
    assert list(made.rglob("a.py")) and not list(tmp_path.rglob("outside"))
