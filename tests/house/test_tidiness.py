"""The house rules of CONTRIBUTING.md that a machine can check."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
# Written apart, so that this file does not find itself.
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b")
TEXT_SUFFIXES = (".py", ".md", ".toml", ".html", ".js", ".css", ".sh")
# Never a part of a name: they say nothing about what a thing is.
WORDS_NEVER = frozenset({"helper", "helpers", "util", "utils", "manager", "managers", "worker", "workers"})
# Never a whole name: too wide on their own, or kept for another concept (ARCHITECTURE.md).
WORDS_NEVER_ALONE = WORDS_NEVER | {"state", "task", "host", "server", "misc", "common"}
FOLDERS = ("src", "tests", "benchmarks", "tools", "docs")


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def words(name: str) -> list[str]:
    """`ReplicaReady` and `replica_ready` are both ["replica", "ready"]."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def badly_named(name: str) -> bool:
    return bool(WORDS_NEVER & set(words(name))) or name.lower().strip("_") in WORDS_NEVER_ALONE


def open_matches(tree: ast.Module) -> Iterator[int]:
    """Lines of `match` statements that choose by class and let what they do not know fall through silently."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Match):
            continue
        last = node.cases[-1]
        closed = last.guard is None and isinstance(last.pattern, ast.MatchAs) and last.pattern.pattern is None
        if not closed and any(by_class(case.pattern) for case in node.cases):
            yield node.lineno


def by_class(pattern: ast.pattern) -> bool:
    match pattern:
        case ast.MatchClass(cls=ast.Name(id=name)):
            return (
                not name.islower()
            )  # `str()` and the like are a choice by kind, and the rest goes on below.
        case ast.MatchClass():
            return True
        case ast.MatchOr(patterns=patterns):
            return any(by_class(each) for each in patterns)
        case ast.MatchAs(pattern=inner):
            return inner is not None and by_class(inner)
        case _:
            return False


def test_files_are_short(all_sources: list[Any]) -> None:
    long = {s.path: lines for s in all_sources if (lines := s.text.count("\n")) >= FILE_LINES_MAX}
    assert not long


def test_functions_are_short(all_sources: list[Any]) -> None:
    long = {
        f"{source.path}:{function.lineno} {function.name}": lines
        for source in all_sources
        for function in functions(source.tree)
        if (lines := (function.end_lineno or 0) - function.lineno + 1) >= FUNCTION_LINES_MAX
    }
    assert not long


def test_every_module_says_what_it_owns(all_sources: list[Any]) -> None:
    silent = [
        source.path for source in all_sources if source.text.strip() and not ast.get_docstring(source.tree)
    ]
    assert not silent


def test_nothing_is_left_for_later(root: Path) -> None:
    texts = sorted(
        path for folder in FOLDERS for path in (root / folder).rglob("*") if path.suffix in TEXT_SUFFIXES
    )
    assert texts
    found = [
        f"{path.relative_to(root)}:{number}: {line.strip()}"
        for path in [*texts, *sorted(root.glob("*.md"))]
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    assert not found, "\n".join(found)


def test_names_say_what_a_thing_is(product_sources: list[Any]) -> None:
    modules = [source.path for source in product_sources if badly_named(Path(source.path).stem)]
    classes = [
        f"{source.path}:{node.lineno} {node.name}"
        for source in product_sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef) and badly_named(node.name)
    ]
    assert not modules + classes


def test_choosing_by_class_leaves_nothing_out(product_sources: list[Any]) -> None:
    found = [f"{source.path}:{line}" for source in product_sources for line in open_matches(source.tree)]
    assert not found, "end these with `case _: assert_never(...)` or say what happens to the rest"


@pytest.mark.parametrize("name", ["ReplicaManager", "utils", "State", "string_helpers", "host", "Worker"])
def test_a_bad_name_is_found(name: str) -> None:
    assert badly_named(name)


@pytest.mark.parametrize(
    "name", ["StateOfReplica", "Hosting", "catalogue", "ServerSentEvents", "ReplicaReady"]
)
def test_a_good_name_is_left_alone(name: str) -> None:
    assert not badly_named(name)


@pytest.mark.parametrize(
    ("code", "open_ended"),
    [
        ("match x:\n  case A(): pass\n  case B() | C(): pass", True),
        ("match x:\n  case A() as a: pass\n  case _ if y: pass", True),
        ("match x:\n  case A(): pass\n  case _: assert_never(x)", False),
        ("match x:\n  case A(): pass\n  case other: assert_never(other)", False),
        ("match x:\n  case None: pass\n  case str(): pass", False),
        ("match x:\n  case 1: pass\n  case 2: pass", False),
    ],
)
def test_an_open_match_is_found(code: str, *, open_ended: bool) -> None:
    assert bool(list(open_matches(ast.parse(code)))) == open_ended


def test_the_lock_names_every_dependency_with_hashes_and_no_registry(root: Path) -> None:
    lock = (root / "requirements.lock").read_text("utf-8")
    assert not re.search(r"https?://|file://|--(extra-)?index-url|--find-links|--trusted-host", lock)
    entries = re.findall(
        r"^([a-z0-9-]+)==\S+.*\\\n((?:    --hash=sha256:[0-9a-f]{64}.*\n)*)", lock, re.MULTILINE
    )
    assert len(entries) == len(re.findall(r"^[a-z0-9]", lock, re.MULTILINE)), "an entry without a hash"
    assert all(hashes for _, hashes in entries)
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    asked = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    asked += [each for group in project["dependency-groups"].values() for each in group]
    names = {re.split(r"[<>=~!\[; ]", each)[0].lower() for each in asked}
    assert not names - {name for name, _ in entries}, "run `make lock`"


def test_every_dependency_has_a_licence_that_was_looked_at(root: Path) -> None:
    note = (root / "docs" / "decisions" / "0002-dependencies-and-licences.md").read_text("utf-8")
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    names = {re.split(r"[<>=~!\[; ]", each)[0] for each in project["project"]["dependencies"]}
    assert names == set(re.findall(r"^\| `([a-z0-9-]+)` \|", note, re.MULTILINE))
