"""Nothing grows past what a reader can hold: files, functions, parameter lists."""

import ast
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
FOLDERS = ("src", "tests", "benchmarks", "bpf", "scripts")
SUFFIXES = {".py", ".c", ".h", ".sh"}
MAX_FILE_LINES = 600
MAX_BODY_LINES = 60
MAX_PARAMETERS = 7

# "file" or "file::function" -> why it may be larger.
EXCEPTIONS = {
    "src/memtherm/session/open.py::monitor": "the one door of the API: a keyword for each thing that a user may choose",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def source_files() -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((REPOSITORY / folder).rglob("*")) if path.suffix in SUFFIXES]


def body_lines(function: Function) -> int:
    """Lines of the body without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def parameter_count(function: Function) -> int:
    given = function.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return (
        len(names)
        - (names[:1] in (["self"], ["cls"]))
        + sum(extra is not None for extra in (given.vararg, given.kwarg))
    )


def oversized(name: str, source: str) -> Iterator[tuple[str, str]]:
    """(where, what) for each thing over its limit."""
    if (lines := len(source.splitlines())) > MAX_FILE_LINES:
        yield name, f"{lines} lines"
    if not name.endswith(".py"):
        return
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Function):
            if (lines := body_lines(node)) > MAX_BODY_LINES:
                yield f"{name}::{node.name}", f"{lines} lines"
            if (count := parameter_count(node)) > MAX_PARAMETERS:
                yield f"{name}::{node.name}", f"{count} parameters"


def test_sizes_are_within_limits() -> None:
    found = [
        item
        for path in source_files()
        for item in oversized(path.relative_to(REPOSITORY).as_posix(), path.read_text(encoding="utf-8"))
    ]
    assert [f"{where}: {what}" for where, what in found if where not in EXCEPTIONS] == []
    assert EXCEPTIONS.keys() <= {where for where, _ in found}, "an exception that is no longer needed"


def test_what_is_too_large_is_found() -> None:
    parameters = ", ".join("abcdefgh")
    source = f"def many({parameters}): pass\ndef long():\n" + "    x = 1\n" * 61 + "#\n" * 600
    assert dict(oversized("a.py", source)) == {
        "a.py": "663 lines",
        "a.py::many": "8 parameters",
        "a.py::long": "61 lines",
    }


def test_what_just_fits_is_not() -> None:
    source = 'class A:\n    def fits(self, a, b, c, d, e, f, *, g):\n        """Doc."""\n' + "        x = 1\n" * 60
    assert list(oversized("a.py", source)) == []
