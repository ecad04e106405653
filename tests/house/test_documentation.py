"""Every shell block of the README and the tutorial works when it is typed in, and every link leads somewhere."""

from __future__ import annotations

import importlib.util
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
# The only commands that may stand in a block that is not run here: they fetch and install the project,
# run all tests (and so these), or take minutes and are run elsewhere.
NEED_NOT_RUN = re.compile(
    r"(git clone .*|cd colla|make( (demo|test|check|bench|clean)( \w+=\S+)*)?)\s*(#.*)?"
)
LINK = re.compile(r"\[[^\]]*\]\((?!https?:|mailto:|#)([^)#\s]+)(?:#[^)]*)?\)")


def load() -> ModuleType:
    """The support module; needed already when tests are collected, before there are fixtures."""
    name = "house_support_documents"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("support_documents.py"))
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


documents = load()


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs" / "tutorial").rglob("*.md"))]


def blocks() -> Iterator[Any]:
    for page in pages():
        name = page.relative_to(ROOT).as_posix()
        for block in documents.read_blocks(name, page.read_text("utf-8")):
            skip = [pytest.mark.skip(reason=f"not run: {block.not_run}")] if block.not_run else []
            yield pytest.param(name, block, marks=skip, id=f"{name}:{block.line}")


@pytest.fixture(scope="module")
def sessions() -> Iterator[dict[str, Any]]:
    """The open session of the document being read: its blocks share one shell."""
    opened: dict[str, Any] = {}
    yield opened
    for session in opened.values():
        session.close()


# The documents start nodes, so they take turns with the other tests that do.
@pytest.mark.cluster
@pytest.mark.timeout(documents.BLOCK_TIMEOUT_S + documents.STOP_TIMEOUT_S * 3)
@pytest.mark.parametrize(("document", "block"), list(blocks()))
def test_block_runs(document: str, block: Any, sessions: dict[str, Any]) -> None:
    if document not in sessions:
        while sessions:
            sessions.popitem()[1].close()
        sessions[document] = documents.Session()
    sessions[document].run(block)


def test_only_what_runs_elsewhere_is_not_run() -> None:
    left_out = [
        f"{page.name}:{block.line}: {line}"
        for page in pages()
        for block in documents.read_blocks(page.name, page.read_text("utf-8"))
        for line in block.commands.splitlines()
        if block.not_run and line.strip() and not NEED_NOT_RUN.fullmatch(line.strip())
    ]
    assert not left_out, "these commands may not be left out"


def test_links_lead_somewhere() -> None:
    texts = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
    dead = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in texts
        for target in LINK.findall(page.read_text("utf-8"))
        if not (page.parent / target).exists()
    ]
    assert not dead


PAGE = """# A page
```sh
cd "$(mktemp -d)"
NAME=colla
```
<!-- not run: takes an hour -->
```sh
make bench
```
Then:
```console
$ echo "$NAME" \\
>   again
colla again
```
```python
not a shell block
```
<!--
```sh
a draft
```
-->
  ```bash
  true
  ```
"""


def test_blocks_are_read_in_order() -> None:
    found = list(documents.read_blocks("page.md", PAGE))
    assert [(block.line, block.commands, block.not_run) for block in found] == [
        (2, 'cd "$(mktemp -d)"\nNAME=colla', ""),
        (7, "make bench", "takes an hour"),
        (11, 'echo "$NAME" \\\n  again', ""),
        (24, "true", ""),
    ]


def test_blocks_share_a_shell_and_begin_in_an_empty_home() -> None:
    with documents.Session() as session:
        assert session.run(block("pwd; ls -A")).strip() == str(session.home)
        session.run(block("mkdir site; cd site; NAME=colla"))
        assert session.run(block('echo "$NAME in ${PWD##*/}"')) == "colla in site\n"
        assert session.run(block("command -v pytest")).strip() == str(
            Path(sys.executable).with_name("pytest")
        )


@pytest.mark.parametrize(
    "commands", ["false\ntrue", "true | false | true", "no-such-program", "exit 3", "if"]
)
def test_a_block_that_fails_is_told_with_what_it_printed(commands: str) -> None:
    with documents.Session() as session:
        with pytest.raises(documents.BlockFailed, match=r"(?s)page\.md:1 failed.*said before"):
            session.run(
                block(f"echo said before\n{commands}" if commands != "if" else "echo said before; false")
            )
        with pytest.raises(documents.BlockFailed, match="was not reached"):
            session.run(block("true"))


def test_a_block_that_hangs_is_told() -> None:
    with documents.Session() as session, pytest.raises(documents.BlockFailed, match="took over"):
        session.run(block("sleep 60"), timeout_s=0.3)


def test_nothing_outlives_its_session() -> None:
    with documents.Session() as session:
        started = session.run(
            block("sleep 300 & echo $!\nsetsid sleep 300 & echo $!\nenv -i sleep 300 & echo $!")
        )
        processes = [psutil.Process(int(pid)) for pid in started.split()]
        assert all(process.is_running() for process in processes)
    deadline = time.monotonic() + 10
    while alive := [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < deadline, alive
        psutil.wait_procs(alive, timeout=0.1)


def block(commands: str) -> Any:
    return documents.Block("page.md", 1, commands)
