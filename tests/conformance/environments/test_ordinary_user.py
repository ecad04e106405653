"""The built-in environments when they are started by somebody without any rights, where these tests themselves run as root.

What cannot be enforced then is not claimed: the rules of the suite hold all the same.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import oci
import pytest
from samples import container_sample, wasm_sample

import colla

NOBODY = 65534
AS_NOBODY = (
    "setpriv",
    f"--reuid={NOBODY}",
    f"--regid={NOBODY}",
    "--clear-groups",
    "env",
    "-i",
    "PATH=/usr/bin:/bin",
)
INTERPRETERS = (Path(sys.base_prefix) / "bin" / "python3", Path("/usr/bin/python3"))
CHECK_S_MAX = 300


class Nobody:
    """Starts Python as a user who owns nothing but one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings: dict[str, str] = {}

    def find_python(self) -> str:
        """Make a virtual environment that sees what this one sees; why that cannot be done, or ""."""
        said = "no interpreter"
        for interpreter in INTERPRETERS:
            shutil.rmtree(self.folder / "venv", ignore_errors=True)
            command = [str(interpreter), "-m", "venv", "--without-pip", str(self.folder / "venv")]
            if not interpreter.exists() or subprocess.run(command, capture_output=True).returncode != 0:
                continue
            name = f"python{sys.version_info.major}.{sys.version_info.minor}"
            packages = self.folder / "venv" / "lib" / name / "site-packages"
            if not packages.is_dir():
                said = f"{interpreter} is another version"
                continue
            sources = Path(colla.__file__).parent.parent
            (packages / "all.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sources}\n")
            tried = self.python("-c", "import colla.environments.client")
            if tried.returncode == 0:
                return ""
            said = tried.stderr.strip()[-200:]
        return said

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return self.run(*self.program(*arguments))

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run any program to its end."""
        own = {"HOME": str(self.folder), "TMPDIR": str(self.folder)} | self.settings
        variables = [f"{name}={value}" for name, value in own.items()]
        return subprocess.run(
            [*AS_NOBODY, *variables, *command], capture_output=True, text=True, timeout=CHECK_S_MAX
        )

    def program(self, *arguments: str) -> list[str]:
        """The command alone."""
        return [str(self.folder / "venv" / "bin" / "python"), *arguments]


@pytest.fixture(scope="module")
def nobody() -> Iterator[Nobody]:
    if sys.platform != "linux" or os.getuid() != 0:
        pytest.skip("not started by root: all other tests are about an ordinary user already")
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed")
    # Not below pytest's own folders, which are root's alone.
    with tempfile.TemporaryDirectory(prefix="colla-nobody-", dir="/tmp") as name:
        os.chown(name, NOBODY, NOBODY)
        Path(name).chmod(0o755)
        made = Nobody(Path(name))
        if why := made.find_python():
            pytest.skip(f"an ordinary user cannot start Python with colla here: {why}")
        yield made


def rules_hold(nobody: Nobody, *words: str, artifact: Path | None = None) -> None:
    """Those of the suite, for an environment that this user started."""
    options = [] if artifact is None else ["--artifact", str(artifact)]
    program = nobody.program("-P", "-m", "colla.environments", *words)
    done = nobody.python("-m", "colla.environments.conformance", *options, *program)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 do not" in done.stdout


def test_static(nobody: Nobody) -> None:
    rules_hold(nobody, "static")


@pytest.mark.slow  # A quarter of a minute each.
@pytest.mark.parametrize("isolation", ["auto", "none"])
def test_process(nobody: Nobody, isolation: str) -> None:
    rules_hold(nobody, "process", "--isolation", isolation)


@pytest.mark.slow
def test_wasm(nobody: Nobody) -> None:
    pytest.importorskip("wasmtime", reason="wasmtime is not installed")
    rules_hold(nobody, "wasm", artifact=wasm_sample(nobody.folder / "wasm").folder)


@pytest.mark.slow  # Two minutes.
@pytest.mark.timeout(400)
@pytest.mark.skipif(bool(oci.problem()), reason=oci.problem() or "podman works")
def test_container(nobody: Nobody) -> None:
    """Podman without root: the proxy enters the container's user namespace first."""
    nobody.settings = oci.podman_settings(nobody.folder / "podman")
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", str(nobody.folder / "podman")], check=True)
    tried = nobody.run("podman", "info")
    if tried.returncode != 0:
        pytest.skip(f"Podman does not work without root here: {tried.stderr.strip()[-200:]}")
    try:
        rules_hold(nobody, "container", artifact=container_sample(nobody.folder / "container").folder)
    finally:
        nobody.run("podman", "system", "migrate")  # Ends the process that keeps the user namespace.


def test_container_without_an_engine(nobody: Nobody) -> None:
    hidden = (
        f"import os; os.environ['PATH'] = '{nobody.folder}'; import colla.environments.__main__ as program; "
    )
    run = f"raise SystemExit(program.main(['container', '--runtime', '{nobody.folder}/bare']))"
    done = nobody.python("-c", hidden + run)
    assert done.returncode == 1
    assert done.stderr.strip() == "There is no container engine here. Install Podman or Docker."
