"""An environment that somebody else wrote is attached to a running node, runs what waited for it, and is let go."""

from __future__ import annotations

import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from computers import Computer, deploy, eventually, everything, located, page

from colla.model.errors import CollaError

EXAMPLE = Path(__file__).parents[2] / "examples" / "environment-node"
KIND = "node-functions"
NODE = shutil.which("node") or ""

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.skipif(not NODE, reason="Node.js is not installed"),
]


@pytest.fixture
async def attic(tmp_path: Path) -> AsyncIterator[Computer]:
    computer = Computer(tmp_path, "attic")
    # The example isolates nothing, so that its owner has to agree.
    computer.found("circle", "hashing", msgspec.structs.replace(everything(), unsandboxed=True))
    await computer.up()
    yield computer
    computer.unplug()


async def refused(computer: Computer, *command: str) -> str:
    with pytest.raises(CollaError) as raised:
        await computer.ask(lambda client: client.attach(command))
    return raised.value.code


async def test_an_environment_is_attached_while_the_node_runs(attic: Computer) -> None:
    await deploy(attic, EXAMPLE / "hello", "hello", 1, environment=KIND)

    async def unfit() -> bool:
        why = await attic.ask(lambda client: client.why("hello"))
        return [line.verdict for line in why.lines] == ["unfit"]

    await eventually(unfit, 30.0, "nobody can run it yet")
    command = (NODE, str(EXAMPLE / "environment.mjs"))
    attached = await attic.ask(lambda client: client.attach(command))
    assert (attached.kind, attached.command, attached.given) == (KIND, command, True)
    assert attached.attached and attached.needs_consent
    await eventually(lambda: page(attic, "hello"), 30.0, "what waited for it is placed and answers")

    assert await refused(attic, *command) == "kind_taken"
    assert await refused(attic, sys.executable, "-m", "colla.environments", "static") == "kind_taken"
    assert await refused(attic, shutil.which("true") or "") == "bad_program"
    kinds = {report.kind for report in await attic.ask(lambda client: client.environments())}
    assert kinds == {"static", KIND}, "what was refused has changed nothing"

    assert await attic.stop() == 0
    await attic.up()
    await eventually(lambda: page(attic, "hello"), 30.0, "the node has started it again")

    await attic.ask(lambda client: client.detach(KIND))

    async def gone() -> bool:
        return not await located(attic, "hello") and await unfit()

    await eventually(gone, 30.0, "its replicas stop")
    with pytest.raises(CollaError, match="No environment"):
        await attic.ask(lambda client: client.detach(KIND))
