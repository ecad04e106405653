"""The demo as a person runs it: no request fails while a replica lives, and both services outlive everything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(400)]

DEMO_TIMEOUT_S = 300


@pytest.mark.parametrize("election", ["hashing", "contention"])
def test_the_demo_keeps_its_promises(tmp_path: Path, election: str) -> None:
    command = [sys.executable, "-m", "colla", "demo", "--json", "--election", election]
    environment = {"HOME": str(tmp_path), "PATH": "/usr/local/bin:/usr/bin:/bin", "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEMO_TIMEOUT_S, env=environment)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert json.loads(done.stdout.splitlines()[-1])
