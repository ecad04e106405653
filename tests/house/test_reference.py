"""The generated parts of the reference pages say what the program says; the Python example of the how-to guides works."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "reference.py"
EXAMPLE = ROOT / "docs" / "how-to" / "use-it-from-python.md"


def documents() -> ModuleType:
    name = "house_support_documents"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("support_documents.py"))
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOL.parent))
    return importlib.import_module("reference")


def test_the_reference_is_up_to_date() -> None:
    result = subprocess.run([sys.executable, str(TOOL), "--check"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_change_of_the_program_is_seen(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    page = "Before.\n<!-- generated: notices -->\nold\n<!-- end -->\nAfter.\n"
    new = tool.renewed(page)
    assert new.startswith("Before.\n") and new.endswith("After.\n") and "`took_over`" in new
    assert tool.renewed(new) == new
    monkeypatch.setitem(tool.words.NOTICES, "no_such_kind", "Nothing.")
    with pytest.raises(tool.Incomplete, match="exist no more: no_such_kind"):
        tool.renewed(page)
    monkeypatch.delitem(tool.words.NOTICES, "no_such_kind")
    monkeypatch.delitem(tool.words.NOTICES, "took_over")
    with pytest.raises(tool.Incomplete, match="does not say what these mean: took_over"):
        tool.renewed(page)


def test_an_unknown_part_is_told(tool: ModuleType) -> None:
    with pytest.raises(tool.Incomplete, match="no part 'weather'"):
        tool.renewed("<!-- generated: weather -->\n<!-- end -->")


def test_every_command_has_a_section(tool: ModuleType) -> None:
    names = [name for name, _ in tool.commands()]
    assert "colla group create" in names and "colla deploy" in names and len(names) == len(set(names))
    text = tool.command_line()
    assert all(f"### {name}\n" in text for name in names)


# It starts a node, so it takes turns with the other tests that do.
@pytest.mark.cluster
def test_the_python_example_runs(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```$", EXAMPLE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    script = tmp_path / "example.py"
    script.write_text(example, "utf-8")
    found = documents()
    with found.Session() as session:
        create = "colla group create our-club --computer attic --give all --no-lan"
        prepare = f"{create}\nmkdir site && echo '<h1>hello</h1>' > site/index.html"
        session.run(found.Block("example", 1, prepare))
        printed = session.run(found.Block("example", 2, f"python {script}"))
    assert "attic is present" in printed and "hello runs on attic" in printed
    assert re.search(r"replica_ready: .+", printed)
