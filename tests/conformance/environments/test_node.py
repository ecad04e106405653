"""A Node.js program with its modules: recognised as `colla deploy` does, and run as any program, within its limits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from colla.client.deploying import plan_deploy
from colla.environments.protocol import Limits

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed"),
]
SERVE = """#!/usr/bin/env node
const { createServer } = require("node:http");
const words = require("./words.js");
createServer((_, response) => response.end(words.hello)).listen(process.env.PORT, process.env.HOST);
process.on("SIGTERM", () => process.exit(0));
"""


def project(folder: Path) -> Path:
    """A folder as npm leaves it: the start script is a command of a module, found by a link."""
    module = folder / "node_modules" / "serving"
    (folder / "node_modules" / ".bin").mkdir(parents=True)
    module.mkdir()
    (module / "serve.js").write_text(SERVE)
    (module / "words.js").write_text('exports.hello = "from a module";\n')
    (module / "serve.js").chmod(0o755)
    (folder / "node_modules" / ".bin" / "serve").symlink_to("../serving/serve.js")
    package = {"name": "shop", "scripts": {"start": "serve"}, "dependencies": {"serving": "1"}}
    (folder / "package.json").write_text(json.dumps(package))
    return folder


async def test_modules_are_found_and_a_memory_limit_is_no_harm(programs, get, tmp_path):
    plan = plan_deploy(project(tmp_path / "shop"))
    assert (plan.request.environment, plan.warnings) == ("process", ())
    # Objects have no links: what the link leads to lies there as a file of its own.
    artifact = shutil.copytree(tmp_path / "shop", programs.folder / "shop")
    spec = programs.spec(artifact, command=plan.request.command, limits=Limits(memory_bytes=256 << 20))
    assert await get(await programs.ready(spec)) == (200, b"from a module")
    await programs.client.stop(spec.replica_id, 5.0)
    exit = (await programs.exited(spec)).exit
    assert (exit.reason, exit.code) == ("stopped", 0), exit
    await programs.client.delete(spec.replica_id)
