"""Finds in a syntax tree what the pure core must not do: look at the world, or iterate over a set.

No type inference: a name counts as a set where the same file says so, by an annotation or by an assignment from
an expression that makes one; an attribute, where every class of the core that declares it says so. What slips
through is caught at run time, by the simulator's runs under several hash seeds.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

# fmt: off
AMBIENT = frozenset({
    "asyncio", "concurrent", "ctypes", "getpass", "glob", "io", "locale", "logging", "multiprocessing", "os",
    "pathlib", "platform", "queue", "secrets", "select", "selectors", "shutil", "signal", "socket", "sqlite3", "ssl",
    "subprocess", "sys", "tempfile", "threading", "time", "urllib.request", "uuid", "warnings",
    "aiohttp", "anyio", "iroh", "platformdirs", "psutil", "rich", "segno", "typer", "zeroconf",
})
# fmt: on
CLOCKS = frozenset({"now", "utcnow", "today"})
AMBIENT_CALLS = frozenset({"breakpoint", "hash", "id", "input", "open", "print"})
SET_TYPES = frozenset({"set", "frozenset", "Set", "FrozenSet", "AbstractSet", "MutableSet"})
SET_MAKERS = frozenset({"set", "frozenset"})
SET_METHODS = frozenset({"union", "intersection", "difference", "symmetric_difference"})
SET_OPERATORS = (ast.BitOr, ast.BitAnd, ast.Sub, ast.BitXor)
ORDER_INDIFFERENT = frozenset({"sorted", "len", "any", "all", "min", "max", "set", "frozenset"})
ORDER_SENSITIVE = frozenset(
    {"list", "tuple", "iter", "enumerate", "zip", "map", "filter", "reversed", "dict", "sum"}
)


def ambient_use(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, what is wrong) for each look at the world beside the arguments."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                modules = [name.name for name in names]
            case ast.ImportFrom(module=str(module), names=names):
                modules = [module]
                if module == "random":
                    for name in names:
                        if name.name != "Random":
                            yield node.lineno, f"imports random.{name.name}: only Random is passed in"
            case ast.Attribute(value=ast.Name(id="random"), attr=attribute) if attribute != "Random":
                yield node.lineno, f"uses random.{attribute}: the module's own generator is ambient"
                continue
            case ast.Call(func=ast.Attribute(value=ast.Name(id="datetime" | "date"), attr=name)) if (
                name in CLOCKS
            ):
                yield node.lineno, f"asks a clock: {name}()"
                continue
            case ast.Call(func=ast.Name(id=name)) if name in AMBIENT_CALLS:
                yield node.lineno, f"calls {name}(), which looks at the process or the world"
                continue
            case ast.Call(func=ast.Name(id="Random") | ast.Attribute(attr="Random"), args=[]):
                yield node.lineno, "calls Random() without a seed"
                continue
            case _:
                continue
        for module in modules:
            if module in AMBIENT or module.split(".")[0] in AMBIENT:
                yield node.lineno, f"imports {module}"


def set_attributes(trees: Iterable[ast.Module]) -> frozenset[str]:
    """The attributes that are sets wherever the core declares them."""
    found: dict[str, bool] = {}
    for tree in trees:
        for node in ast.walk(tree):
            match node:
                case ast.ClassDef(body=body):
                    for each in body:
                        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                            name = each.target.id
                            found[name] = found.get(name, True) and is_set_type(each.annotation)
                case ast.AnnAssign(
                    target=ast.Attribute(value=ast.Name(id="self"), attr=name), annotation=kind
                ):
                    found[name] = found.get(name, True) and is_set_type(kind)
                case _:
                    pass
    return frozenset(name for name, always in found.items() if always)


def set_iteration(tree: ast.Module, attributes: frozenset[str]) -> Iterator[tuple[int, str]]:
    """(line, what is wrong) for each place where the order of a set's elements can be seen."""
    for scope in ast.walk(tree):
        if isinstance(scope, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef):
            sets = Sets(scope, attributes)
            for node in own_nodes(scope):
                yield from sets.seen_by(node)


def own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    """All nodes below `scope` that are not in a function of their own."""
    for child in ast.iter_child_nodes(scope):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from own_nodes(child)


def is_set_type(annotation: ast.expr | None) -> bool:
    match annotation:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in SET_TYPES
        case ast.Subscript(value=value):
            return is_set_type(value)
        case _:
            return False


class Sets:
    """Which names of one scope are sets, and where their order shows."""

    def __init__(
        self, scope: ast.Module | ast.FunctionDef | ast.AsyncFunctionDef, attributes: frozenset[str]
    ) -> None:
        self.attributes = attributes
        self.names: dict[str, None] = {}
        if not isinstance(scope, ast.Module):
            arguments = [*scope.args.posonlyargs, *scope.args.args, *scope.args.kwonlyargs]
            self.names |= {each.arg: None for each in arguments if is_set_type(each.annotation)}
        self.indifferent: list[ast.expr] = []
        """Expressions whose consumer does not care for their order."""
        for node in own_nodes(scope):
            match node:
                case ast.Call(func=ast.Name(id=name), args=[argument]) if name in ORDER_INDIFFERENT:
                    self.indifferent.append(argument)
                case ast.AnnAssign(target=ast.Name(id=name), annotation=kind) if is_set_type(kind):
                    self.names[name] = None
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if self.is_set(value):
                    self.names[name] = None
                case _:
                    pass

    def is_set(self, expression: ast.expr) -> bool:
        match expression:
            case ast.Set() | ast.SetComp():
                return True
            case ast.Name(id=name):
                return name in self.names
            case ast.Attribute(attr=name):
                return name in self.attributes
            case ast.Call(func=ast.Name(id=name)):
                return name in SET_MAKERS
            case ast.Call(func=ast.Attribute(value=value, attr=name)):
                return name in SET_METHODS or (name == "copy" and self.is_set(value))
            case ast.BinOp(left=left, op=op, right=right) if isinstance(op, SET_OPERATORS):
                return any(self.is_set(side) or is_keys_view(side) for side in (left, right))
            case _:
                return False

    def seen_by(self, node: ast.AST) -> Iterator[tuple[int, str]]:
        """(line, what is wrong) when `node` itself goes through a set in the set's order."""
        match node:
            case ast.For(iter=source):
                sources = [source]
            case ast.ListComp(generators=generators) | ast.DictComp(generators=generators):
                sources = [each.iter for each in generators]
            case ast.GeneratorExp(generators=generators) if node not in self.indifferent:
                sources = [each.iter for each in generators]
            case ast.Starred(value=source) | ast.YieldFrom(value=source):
                sources = [source]
            case ast.Call(func=ast.Name(id=name), args=arguments) if name in ORDER_SENSITIVE:
                sources = list(arguments)
            case ast.Call(func=ast.Attribute(attr="join" | "extend" | "fromkeys"), args=arguments):
                sources = list(arguments)
            case ast.Call(func=ast.Attribute(value=source, attr="pop"), args=[]):
                sources = [source]
            case _:
                return
        for source in sources:
            if self.is_set(source):
                yield source.lineno, f"goes through the set `{ast.unparse(source)}` in no certain order"


def is_keys_view(expression: ast.expr) -> bool:
    """Whether the expression is `x.keys()` or `x.items()`, whose operators make sets."""
    match expression:
        case ast.Call(func=ast.Attribute(attr="keys" | "items"), args=[]):
            return True
        case _:
            return False
