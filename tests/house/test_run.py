"""A run of the tests tells what it left out, and CI fails where partition tests were left out for no reason."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SKIPPED_PARTITION = """
import pytest

@pytest.mark.partition
def test_both_sides_keep_the_service():
    pytest.skip("no patience")
"""
NO_PARTITION = "def test_something():\n    pass\n"


@pytest.fixture
def project(tmp_path: Path, root: Path) -> Path:
    """A project with our conftest and settings, and no tests yet."""
    shutil.copy(root / "tests" / "conftest.py", tmp_path)
    settings = (root / "pyproject.toml").read_text("utf-8")
    (tmp_path / "pyproject.toml").write_text(settings.replace('testpaths = ["tests"]', ""), "utf-8")
    return tmp_path


def run_tests(project: Path, code: str, *arguments: str, **environment: str) -> tuple[int, str]:
    (project / "test_it.py").write_text(code, "utf-8")
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COLLA"))
    }
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    ended = subprocess.run(command, cwd=project, env=inherited | environment, capture_output=True, text=True)
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.parametrize("arguments", [(), ("-n", "1", "--dist", "loadgroup")], ids=["alone", "xdist"])
def test_ci_fails_when_a_partition_test_was_skipped(project: Path, arguments: tuple[str, ...]) -> None:
    status, printed = run_tests(project, SKIPPED_PARTITION, *arguments, COLLA_REQUIRE_PARTITION="1")
    assert status == 1
    assert "partition tests were skipped" in printed
    assert "1 skipped" in printed.splitlines()[-1], "pytest's counts end the output"


def test_ci_fails_when_no_partition_test_ran(project: Path) -> None:
    status, printed = run_tests(project, NO_PARTITION, COLLA_REQUIRE_PARTITION="1")
    assert status == 1
    assert "no partition test ran" in printed


def test_elsewhere_a_skipped_partition_test_is_listed_with_its_reason(project: Path) -> None:
    status, printed = run_tests(project, SKIPPED_PARTITION)
    assert status == 0
    assert re.search(r"SKIPPED .*test_both_sides_keep_the_service.*: \S", printed)


def test_partition_tests_are_skipped_where_there_are_no_namespaces(project: Path) -> None:
    status, printed = run_tests(project, SKIPPED_PARTITION, PATH="/nonexistent")
    assert status == 0
    assert "no network namespaces here: `unshare` is not installed" in printed


def test_a_slow_test_runs_when_asked_for(project: Path) -> None:
    code = "import pytest\n\n@pytest.mark.slow\ndef test_long():\n    pass\n"
    assert "1 skipped" in run_tests(project, code)[1]
    assert "1 passed" in run_tests(project, code, "--run-long")[1]


def test_the_readme_names_the_command_that_ci_runs(root: Path) -> None:
    find = re.search(r"^test_command=\$\((.*)\)$", (root / ".ci" / "run").read_text("utf-8"), re.MULTILINE)
    assert find is not None
    found = subprocess.run(["bash", "-c", find[1]], cwd=root, capture_output=True, text=True)
    assert found.stdout == "make test\n"
