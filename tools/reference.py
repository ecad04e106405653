"""Writes the generated parts of the reference pages from the program itself.

    python tools/reference.py [--check]

Owns what stands between `<!-- generated: NAME -->` and `<!-- end -->` in docs/reference/*.md and
docs/decisions/index.md; everything else on those pages is written by hand. With `--check` nothing is written, and
what is out of date is named (exit code 1): tests/house runs that. What a name means to people, which no code says,
stands in `reference_words.py`; a name without a meaning, or a meaning without a name, is an error, so that neither is forgotten.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any, get_args

import diagrams
import msgspec
import reference_words as words
import typer.main

from colla.cli.app import EPILOG, app
from colla.cli.command import EXIT_CODES, SHARED_PANEL
from colla.client import deploying, types, wheels
from colla.environments import group as environment_group
from colla.environments import protocol
from colla.kernel import config
from colla.model.contribution import Contribution
from colla.node.api import ROUTES
from colla.node.settings import AttachedProgram, Peer, Settings
from colla.sim.lines import Line
from colla.sim.scenario.acts.people import Gives
from colla.sim.scenario.patterns import PresencePattern
from colla.sim.scenario.scenario import AnyAct, FirstService, NodeGives, Scenario

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("docs/reference", "docs/decisions/index.md")
REGION = re.compile(r"(?P<begin><!-- generated: (?P<name>[^\n]+?) -->\n).*?(?P<end><!-- end -->)", re.DOTALL)
PANELS = ("Group", "Services", "Use", "Share", "My computer", "Lab")


class Incomplete(Exception):
    """A part cannot be written: words and program do not fit together."""


# -- tables ---------------------------------------------------------------------------------------------------


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def code(text: str) -> str:
    return f"`{text}`" if text else "–"


def meanings(names: Sequence[str], said: dict[str, str], what: str) -> list[str]:
    """The meaning of each name. Raises `Incomplete` unless the two are the same set."""
    if missing := [name for name in names if name not in said]:
        raise Incomplete(
            f"{what}: tools/reference_words.py does not say what these mean: {', '.join(missing)}"
        )
    if gone := [name for name in said if name not in names]:
        raise Incomplete(f"{what}: these exist no more: {', '.join(gone)}")
    return [said[name] for name in names]


def type_text(kind: Any) -> str:
    """A type as the source says it, without module names."""
    plain = isinstance(kind, type) and not hasattr(kind, "__origin__")
    text = kind if isinstance(kind, str) else kind.__name__ if plain else str(kind)
    text = re.sub(r"\bAnnotated\[([^\[\]]+?), \w*Meta\(.*?\)\]", r"\1", text)
    return re.sub(r"\b[\w.]+\.(?=\w)", "", text)


def default_text(field: msgspec.structs.FieldInfo) -> str:
    if field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if isinstance(value, msgspec.Struct):
        return "see below"
    if value is msgspec.UNSET:
        return "unset"
    return code(msgspec.json.encode(value).decode())


def fields(struct: type[msgspec.Struct]) -> list[tuple[str, str, str]]:
    """Name, type and default of each field."""
    annotations: dict[str, str] = {}
    for base in reversed(struct.__mro__):
        annotations |= {name: type_text(kind) for name, kind in vars(base).get("__annotations__", {}).items()}
    infos = {field.name: field for field in msgspec.structs.fields(struct)}
    return [(name, annotations[name], default_text(infos[name])) for name in infos]


def described(struct: type[msgspec.Struct], said: dict[str, str]) -> str:
    """A table of settings with their meanings."""
    known = fields(struct)
    told = meanings([name for name, _, _ in known], said, struct.__name__)
    rows = [
        (code(name), code(kind), default, text)
        for (name, kind, default), text in zip(known, told, strict=True)
    ]
    return table(("key", "type", "default", "meaning"), rows)


def structs_of(module: ModuleType) -> Iterator[type[msgspec.Struct]]:
    """The structs that a module defines, in its order."""
    for value in vars(module).values():
        if (
            isinstance(value, type)
            and issubclass(value, msgspec.Struct)
            and value.__module__ == module.__name__
        ):
            yield value


def flowing(text: str | None) -> str:
    return " ".join((text or "").split())


def struct_section(struct: type[msgspec.Struct]) -> str:
    rows = [(code(name), code(kind), default) for name, kind, default in fields(struct)]
    head = f"### {struct.__name__}\n\n{flowing(struct.__doc__)}\n\n"
    return head + (table(("field", "type", "default"), rows) if rows else "No fields.\n")


# -- the command line -----------------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, Any]]:
    """All visible commands with their whole names."""

    def walk(prefix: str, group: Any) -> Iterator[tuple[str, Any]]:
        for name, each in group.commands.items():
            if each.hidden:
                continue
            if hasattr(each, "commands"):
                yield from walk(f"{prefix} {name}", each)
            else:
                yield f"{prefix} {name}", each

    yield from walk("colla", typer.main.get_command(app))


def command_line() -> str:
    known = list(commands())
    panels = {panel: [] for panel in PANELS}
    for name, each in known:
        panels[each.rich_help_panel].append(command_section(name, each))
    return "\n".join(f"## {panel}\n\n" + "\n".join(sections) for panel, sections in panels.items())


def command_section(name: str, command: Any) -> str:
    options = [each for each in command.params if each.opts[0].startswith("-")]
    places = [each for each in command.params if each not in options]
    own = [each for each in options if each.rich_help_panel != SHARED_PANEL and each.name != "help"]
    usage = " ".join([name, *(["[OPTIONS]"] if options else []), *(place_text(each) for each in places)])
    examples = [
        line[2:].replace("\\[", "[") for line in (command.epilog or "").split("\n\n") if line.startswith("$ ")
    ]
    text = f"### {name}\n\n{command.help}\n\n    {usage}\n\n"
    rows = [(code(place_text(each)), each.help or "") for each in places]
    rows += [(option_text(each), option_help(each)) for each in own]
    if rows:
        text += table(("argument or option", "meaning"), rows) + "\n"
    return text + "Examples:\n\n" + "".join(f"    $ {line}\n" for line in examples)


def place_text(argument: Any) -> str:
    name = (argument.metavar or argument.name).upper()
    name += "..." if argument.nargs == -1 or argument.multiple else ""
    return name if argument.required else f"[{name}]"


def option_text(option: Any) -> str:
    text = ", ".join(option.opts)
    if option.secondary_opts:
        text += " / " + ", ".join(option.secondary_opts)
    elif not option.is_flag:
        text += f" {option.name.upper()}"
    return code(text)


def option_help(option: Any) -> str:
    default = option.default
    if option.is_flag or default in (None, (), []) or not option.show_default:
        return option.help or ""
    return f"{option.help} Default: {getattr(default, 'value', default)}."


def exit_codes() -> str:
    meaning = dict(
        re.findall(r"(\d+) ([a-z][^·\n]*[a-z])", EPILOG.partition("Exit codes")[2].partition("In scripts")[0])
    )
    because: dict[str, list[str]] = {number: [] for number in meaning}
    for error, number in EXIT_CODES.items():
        because[str(number)].append(code(error))
    rows = [(code(number), text, ", ".join(because[number]) or "–") for number, text in meaning.items()]
    return table(("code", "meaning", "error codes"), rows)


# -- the local API --------------------------------------------------------------------------------------------


def client_calls() -> dict[tuple[str, str], str]:
    """From (method, path) to the method of `colla.Client`, read from its source."""
    found = {}
    for path in sorted((ROOT / "src/colla/client").glob("*calls.py")):
        for method in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(method, ast.AsyncFunctionDef):
                continue
            named = {
                target.id: each.value
                for each in ast.walk(method)
                if isinstance(each, ast.Assign)
                for target in each.targets
                if isinstance(target, ast.Name)
            }
            for call in ast.walk(method):
                if isinstance(call, ast.Call) and ast.unparse(call.func) in ("self._call", "self._lines"):
                    path = call.args[1]
                    path = named[path.id] if isinstance(path, ast.Name) else path
                    found[ast.literal_eval(call.args[0]), path_text(path)] = method.name
    return found


def path_text(node: ast.expr) -> str:
    if isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
        return "".join(map(str, parts)).partition("?")[0]
    return str(ast.literal_eval(node))


def api_calls() -> str:
    calls = client_calls()
    rows = []
    for route in ROUTES:
        try:
            name = calls.pop((route.method, re.sub(r"\{\w+\}", "{}", route.path)))
        except KeyError:
            raise Incomplete(f"colla.Client has no method for {route.method} {route.path}") from None
        request = "–" if route.request is None else type_text(route.request)
        answer = type_text(route.answer) + (", lines" if route.streams else "")
        path = code(f"/{types.API_VERSION}/{route.path}")
        errors = ", ".join(map(code, route.errors)) or "–"
        rows.append((code(route.method), path, code(name), request, answer, route.summary, errors))
    if calls:
        raise Incomplete(f"colla.Client calls what the API does not have: {list(calls)}")
    return table(("method", "path", "`colla.Client`", "request", "answer", "what it does", "errors"), rows)


def api_types() -> str:
    names = [types.__name__, *(f"{types.__name__}.{each.name}" for each in iter_modules(types.__path__))]
    modules = [sys.modules[each] for each in names]
    return "\n".join(struct_section(each) for module in modules for each in structs_of(module))


# -- the rest -------------------------------------------------------------------------------------------------


def environment_calls(calls: dict[str, protocol.Call]) -> str:
    rows = [
        (code(each.method), code(each.path + "".join(f"{'?&'[n > 0]}{key}=" for n, key in enumerate(each.query))),
         body_text(each.body), body_text(each.answer) + (", lines" if each.streams else ""),
         each.summary + (f" (capability `{each.capability}`)" if each.capability else ""))
        for each in calls.values()
    ]  # fmt: skip
    return table(("method", "path", "request", "answer", "what it does"), rows)


def body_text(kind: Any) -> str:
    return "–" if kind is None else "bytes" if kind is msgspec.Raw else type_text(kind)


def environment_types(module: ModuleType) -> str:
    shown = [
        each for each in structs_of(module) if issubclass(each, protocol.Wire) and each is not protocol.Wire
    ]
    return "\n".join(struct_section(each) for each in shown)


def bounds() -> str:
    notes = attribute_notes(ROOT / "src/colla/kernel/config.py")
    parts = []
    for struct in structs_of(config):
        rows = [
            (code(name), default, notes.get((struct.__name__, name), ""))
            for name, _, default in fields(struct)
            if default != "see below"
        ]
        doc = re.sub(r" \(DESIGN [^)]*\)", "", flowing(struct.__doc__))
        parts.append(f"## {struct.__name__}\n\n{doc}\n\n" + table(("name", "value", "note"), rows))
    return "\n".join(parts)


def attribute_notes(path: Path) -> dict[tuple[str, str], str]:
    """The texts that stand below attributes, by class and attribute."""
    found = {}
    for owner in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(owner, ast.ClassDef):
            for before, after in zip(owner.body, owner.body[1:], strict=False):
                if isinstance(before, ast.AnnAssign) and isinstance(after, ast.Expr):
                    found[owner.name, ast.unparse(before.target)] = flowing(ast.literal_eval(after.value))
    return found


def notice_kinds() -> list[str]:
    """The kinds of all notices in the source: the first argument of `notify` and of `Notice` or `NoticeReport`."""
    kinds: dict[str, None] = {}
    for path in sorted((ROOT / "src/colla").rglob("*.py")):
        if "access" in path.parts or "sim" in path.parts:
            continue  # A gateway's pages are called notices too.
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(call, ast.Call) and call.args:
                name = ast.unparse(call.func).rpartition(".")[2]
                first = call.args[1] if name == "NoticeReport" and len(call.args) > 1 else call.args[0]
                if name in ("notify", "_notify", "Notice", "NoticeReport"):
                    kinds |= dict.fromkeys(texts_of(first))
    return sorted(kinds)


def texts_of(node: ast.expr) -> list[str]:
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.IfExp(body=body, orelse=orelse):
            return [*texts_of(body), *texts_of(orelse)]
        case ast.JoinedStr(values=[ast.Constant(value="node_"), *_]):
            return [f"node_{phase}" for phase in ("present", "suspected", "absent", "left")]
        case _:
            return []


def notices() -> str:
    kinds = notice_kinds()
    told = meanings(kinds, words.NOTICES, "notices")
    return table(
        ("kind", "what happened"), [(code(kind), text) for kind, text in zip(kinds, told, strict=True)]
    )


def scenario_keys() -> str:
    """The keys of a scenario file, each struct with what it says of itself."""
    return "\n".join(map(struct_section, (Scenario, FirstService, NodeGives, Gives, PresencePattern, Line)))


def scenario_acts() -> str:
    """Every kind of act that a scenario can name."""
    rows = []
    for kind in get_args(AnyAct):
        keys = ", ".join(
            f"{code(name)} ({type_said.removesuffix(' | None')})"
            + ("" if default in ("required", "`null`") else f" = {default}")
            for name, type_said, default in fields(kind)
            if name != "at_s"
        )
        rows.append((code(kind.__struct_config__.tag), flowing(kind.__doc__), keys))
    return table(("act", "what happens", "its keys besides `at_s`"), rows)


def benchmark(name: str) -> str:
    """The method of one benchmark, from its own docstring."""
    doc = ast.get_docstring(ast.parse((ROOT / "benchmarks" / f"{name}.py").read_text("utf-8"))) or ""
    return f"{doc}\n"


def benchmark_parts() -> list[str]:
    return [f"benchmark {path.stem}" for path in sorted((ROOT / "benchmarks").glob("[a-z]*.py"))]


def add_new_benchmarks() -> None:
    """A benchmark that has no section yet gets one at the end of the page; its figures are written by hand."""
    page = ROOT / "docs/reference/benchmarks.md"
    text = page.read_text("utf-8")
    for name in benchmark_parts():
        begin = f"<!-- generated: {name} -->"
        if begin not in text:
            text += f"\n## {name.partition(' ')[2]}\n\n{begin}\n<!-- end -->\n"
    page.write_text(text, "utf-8")


def decisions() -> str:
    rows = []
    for path in sorted((ROOT / "docs/decisions").glob("[0-9]*.md")):
        number, title = path.name[:4], path.read_text("utf-8").partition("\n")[0].lstrip("# ")
        rows.append((f"[{number}]({path.name})", re.sub(r"^\d+[.:]?\s*", "", title)))
    return table(("note", "decision"), rows)


PARTS: dict[str, Callable[[], str]] = {
    "commands": command_line,
    "exit codes": exit_codes,
    "settings": lambda: described(Settings, words.SETTINGS),
    "settings peers": lambda: described(Peer, words.PEER),
    "settings programs": lambda: described(AttachedProgram, words.PROGRAM),
    "settings contribution": lambda: described(Contribution, words.CONTRIBUTION),
    "colla.toml": lambda: described(deploying.FolderSettings, words.FOLDER),
    "colla.toml limits": lambda: described(deploying.LimitsSettings, words.LIMITS),
    "colla.toml health": lambda: described(deploying.HealthSettings, words.HEALTH),
    "colla.toml python": lambda: described(wheels.PythonSettings, words.PYTHON),
    "API calls": api_calls,
    "API types": api_types,
    "environment calls": lambda: environment_calls(protocol.CALLS),
    "environment types": lambda: environment_types(protocol),
    "group calls": lambda: environment_calls(environment_group.GROUP_CALLS),
    "group types": lambda: environment_types(environment_group),
    "bounds": bounds,
    "scenario keys": scenario_keys,
    "scenario acts": scenario_acts,
    "notices": notices,
    "decisions": decisions,
    "state machines": diagrams.state_machines,
}


def pages() -> list[Path]:
    return [
        page
        for place in PAGES
        for page in ([ROOT / place] if place.endswith(".md") else sorted((ROOT / place).glob("*.md")))
    ]


def part(name: str) -> str:
    """The text of one generated part. Raises `Incomplete`."""
    if name.startswith("benchmark "):
        return benchmark(name.removeprefix("benchmark "))
    if name not in PARTS:
        raise Incomplete(f"there is no part {name!r}")
    return PARTS[name]()


def renewed(text: str) -> str:
    """The page with its generated parts as they are now."""
    return REGION.sub(
        lambda region: f"{region['begin']}\n{part(region['name']).strip()}\n\n{region['end']}", text
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the generated parts of the reference pages.")
    parser.add_argument("--check", action="store_true", help="write nothing, name what is out of date")
    options = parser.parse_args()
    if not options.check:
        add_new_benchmarks()
    used = [region["name"] for page in pages() for region in REGION.finditer(page.read_text("utf-8"))]
    problems = [
        f"no page has the part {name!r}: run `make reference`"
        for name in (*PARTS, *benchmark_parts())
        if name not in used
    ]
    for page in pages():
        text = page.read_text("utf-8")
        try:
            new = renewed(text)
        except (Incomplete, OSError) as error:
            problems.append(f"{page.relative_to(ROOT)}: {error}")
            continue
        if new != text and options.check:
            problems.append(f"{page.relative_to(ROOT)} is out of date: run `make reference`")
        elif new != text:
            page.write_text(new, "utf-8")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
