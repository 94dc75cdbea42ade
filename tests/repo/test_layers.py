"""The import rules of ARCHITECTURE.md, checked from source text; nothing is imported."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "memtherm"

BASE = {"errors", "units"}
MAY_IMPORT = {  # room -> the other rooms that it may import
    "errors": set[str](),
    "units": {"errors"},
    "core": BASE,
    "linux": BASE,
    "probe": BASE | {"core", "linux"},
    "act": BASE | {"core", "linux"},
    "kdamond": BASE | {"core", "linux"},
    "record": BASE | {"core"},
    "policy": BASE | {"core"},
    "views": BASE | {"core"},
    "plot": BASE | {"core", "views"},
    "session": BASE | {"core", "linux", "probe", "act", "kdamond", "record", "policy"},
    "arrays": BASE | {"core", "linux", "probe", "act", "policy", "session"},
    "testing": BASE | {"core"},
    "cli": BASE | {"core", "linux", "probe", "act", "kdamond", "record", "policy", "views", "plot", "session"},
}
# The package root only hands names on, lazily; nobody inside imports it.
ROOT = {"__init__", "__main__"}
PURE = {"errors", "units", "core", "views"}
PURE_MAY_USE = {
    *("__future__", "abc", "bisect", "collections", "dataclasses", "decimal", "enum", "functools", "itertools", "math"),
    *("numpy", "operator", "re", "typing"),
}
ONLY_IN = {
    "ctypes": {"linux"},
    "click": {"cli"},
    "pydantic": {"policy"},
    "pydantic_core": {"policy"},
    "nanoarrow": {"record"},
    "backports": {"record"},
    "pyarrow": {"record"},
    "matplotlib": {"plot"},
    "rich": {"cli"},
}
# Whoever is not the command line answers with values and exceptions.
ONLY_CLI_CALLS = {"print", "exit", "quit", "sys.exit", "SystemExit"}
# Modules that are also a program of their own, run as a child.
PROGRAMS = {"memtherm.linux.known_child"}
# Files, and numbers that nobody gave.
PURE_NEVER_CALLS = {"open", "input", "np.random.default_rng", "np.random.seed", "np.load", "np.fromfile", "np.memmap"}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}


def imported_names(node: ast.AST) -> list[str]:
    """The full names that an import statement names; of a relative one, its dots."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return ["." * node.level] if node.level else [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def import_complaint(room: str, name: str) -> str:
    top, *rest = name.split(".")
    if not top:
        return "absolute imports only"
    if top == "memtherm":
        # `from memtherm import core` runs the root as well; `memtherm.core` cannot be told from it here, see below.
        if not rest or rest[0] not in MAY_IMPORT:
            return "imports the package root"
        return "" if rest[0] == room or rest[0] in MAY_IMPORT[room] else f"{room} must not import {rest[0]}"
    if room in PURE and top not in PURE_MAY_USE:
        return f"{room} is pure: no {top}"
    if room not in ONLY_IN.get(top, {room}):
        return f"{top} belongs in {', '.join(sorted(ONLY_IN[top]))} only"
    return ""


def call_complaint(room: str, name: str) -> str:
    if room != "cli" and name in ONLY_CLI_CALLS:
        return f"{name} belongs in cli only"
    if room in PURE and name in PURE_NEVER_CALLS:
        return f"{room} is pure: no {name}"
    return ""


def complaints(module: str, source: str) -> Iterator[str]:
    room = module.split(".")[1]
    for node in ast.walk(ast.parse(source)):
        found = [import_complaint(room, name) for name in imported_names(node)]
        if isinstance(node, ast.ImportFrom) and node.module == "memtherm":
            found = ["imports the package root"]
        if isinstance(node, ast.Call) and module not in PROGRAMS:
            found.append(call_complaint(room, ast.unparse(node.func)))
        yield from (f"{module}:{getattr(node, 'lineno', 0)}: {problem}" for problem in found if problem)


def statements_at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """What runs when a module is imported: no function bodies, nothing for type checkers only."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from statements_at_import(node.orelse)
            continue
        yield node
        for part in ("body", "orelse", "finalbody"):
            yield from statements_at_import(getattr(node, part, []))
        for handler in getattr(node, "handlers", []):
            yield from statements_at_import(handler.body)


def import_graph(sources: dict[str, str]) -> dict[str, set[str]]:
    """Module -> the modules of the package that it imports when it is imported."""
    graph: dict[str, set[str]] = {}
    for module, source in sources.items():
        names = [name for node in statements_at_import(ast.parse(source).body) for name in imported_names(node)]
        # `from memtherm.core.plan import Plan` names a thing in a module, `from memtherm.core import plan` a module.
        modules = {name if name in sources else name.rpartition(".")[0] for name in names}
        graph[module] = modules & sources.keys() - {module}
    return graph


def cycle_in(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_room_has_its_rules() -> None:
    rooms = {module.split(".")[1] for module in SOURCES if "." in module}
    assert rooms - ROOT <= MAY_IMPORT.keys()


def test_rooms_import_only_what_they_may() -> None:
    rooms = {name: text for name, text in SOURCES.items() if "." in name and name.split(".")[1] not in ROOT}
    assert [problem for module, source in rooms.items() for problem in complaints(module, source)] == []


def test_the_rules_themselves_have_no_cycle() -> None:
    assert cycle_in(MAY_IMPORT) == []


def test_no_module_imports_itself_in_a_circle() -> None:
    assert cycle_in(import_graph(SOURCES)) == []


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("core.a", "import os", "core is pure: no os"),
        ("core.a", "from memtherm.linux.maps import read", "core must not import linux"),
        ("core.a", "def f():\n    import time", "core is pure: no time"),
        ("core.a", "rng = np.random.default_rng()", "core is pure: no np.random.default_rng"),
        ("core.a", "open('f')", "core is pure: no open"),
        ("linux.a", "from memtherm.core.regions import Range", "linux must not import core"),
        ("probe.a", "import ctypes", "ctypes belongs in linux only"),
        ("probe.a", "from memtherm.act import guard", "probe must not import act"),
        ("act.a", "import click.core", "click belongs in cli only"),
        ("session.a", "from pydantic import BaseModel", "pydantic belongs in policy only"),
        ("session.a", "print(1)", "print belongs in cli only"),
        ("session.a", "raise SystemExit(1)", "SystemExit belongs in cli only"),
        ("views.a", "from memtherm.session.loop import run", "views must not import session"),
        ("cli.a", "import memtherm", "imports the package root"),
        ("cli.a", "from memtherm import core", "imports the package root"),
        ("cli.a", "from memtherm import monitor", "imports the package root"),
        ("cli.a", "from .main import main", "absolute imports only"),
    ],
)
def test_a_breach_is_found(module: str, source: str, expected: str) -> None:
    found = [problem.split(": ", 1)[1] for problem in complaints(f"memtherm.{module}", source)]
    assert found == [expected]


def test_a_circle_is_found_and_type_checking_makes_none() -> None:
    sources = {
        "memtherm.core.a": "from memtherm.core.b import B",
        "memtherm.core.b": "try:\n    from memtherm.core import c\nexcept ImportError:\n    pass",
        "memtherm.core.c": "if TYPE_CHECKING:\n    from memtherm.core.a import A",
    }
    assert cycle_in(import_graph(sources)) == []
    sources["memtherm.core.c"] = "import memtherm.core.a"
    assert set(cycle_in(import_graph(sources))) == sources.keys()
