"""What must not be in the repository: traces of one machine, promises, unreadable files, units in disguise."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
BINARY_SUFFIXES = {".o", ".png", ".memtherm"}

# The patterns are written so that they do not find themselves.
FORBIDDEN = {
    "a path of one machine": r"(?<![\w.])/(?:work|root|home|Users|farm|mnt|opt)/[a-zA-Z]",
    "a path of one session": r"(?<![\w.])/tmp/[a-z]",
    "a package mirror": r"(?i)index[-_]url|find[-_]links|trusted[-_]host|artifactor[y]|pkg[.]dev|/simple[/]",
    "a promise instead of the thing": r"\b(?:TO[D]O|FIX[M]E|XX[X])\b",
}
FORBIDDEN_IN = {
    "tests/core/": {"sleep in a test of virtual time": r"\btime[.]sleep\b"},
    "tests/policy/": {"sleep in a test of pure values": r"\btime[.]sleep\b"},
}
# Seconds and bytes are the only units inside; other ones stay behind an underscore.  Nanoseconds may pass:
# the kernel's start time of a process is compared to the last digit, which a float of seconds has not.
FOREIGN_UNIT = re.compile(r"_(?:us|ms|min|bp|permil|kb|kib|mb|mib|gb|gib)$", re.IGNORECASE)


def tracked_files() -> list[Path]:
    """Files of the repository, also ones that are not added yet."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git clone")
    # CI may have cloned as another user.
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True).stdout.decode()
    return [path for name in listing.split("\0") if name and (path := REPOSITORY / name).is_file()]


def text_files() -> Iterator[tuple[str, str]]:
    for path in tracked_files():
        if path.suffix not in BINARY_SUFFIXES:
            yield path.relative_to(REPOSITORY).as_posix(), path.read_text(encoding="utf-8")


def forbidden_in(name: str, text: str) -> Iterator[str]:
    patterns = dict(FORBIDDEN)
    for folder, more in FORBIDDEN_IN.items():
        patterns |= more if name.startswith(folder) else {}
    for number, line in enumerate(text.splitlines(), 1):
        yield from (f"{name}:{number}: {what}" for what, pattern in patterns.items() if re.search(pattern, line))


def public_definitions(tree: ast.AST) -> Iterator[str]:
    """Names of functions, parameters, and what modules and classes define."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
            given = node.args
            yield from (argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs))
        if isinstance(node, ast.Module | ast.ClassDef):
            for statement in node.body:
                targets = (
                    statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
                )
                yield from (target.id for target in targets if isinstance(target, ast.Name))


def foreign_units(source: str) -> set[str]:
    return {
        name for name in public_definitions(ast.parse(source)) if FOREIGN_UNIT.search(name) and not name.startswith("_")
    }


def test_files_hold_nothing_that_must_not_be_there() -> None:
    assert [problem for name, text in text_files() for problem in forbidden_in(name, text)] == []


def test_text_is_utf8_and_ends_with_a_newline() -> None:
    assert [name for name, text in text_files() if text and not text.endswith("\n")] == []


# The tree of DAMON counts in these units, and a commit must change nothing by a rounding there and back.
NAMED_AS_IN_THE_KERNEL = {"src/memtherm/kdamond/parameters.py"}


def test_public_names_have_no_foreign_units() -> None:
    sources = [
        (name, text)
        for name, text in text_files()
        if name.startswith("src/") and name.endswith(".py") and name not in NAMED_AS_IN_THE_KERNEL
    ]
    assert {name: found for name, text in sources if (found := foreign_units(text))} == {}


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("a.py", "path = '" + "/ho" + "me/me/memtherm'"),
        ("a.toml", "--extra-index" + "-url https://example.org"),
        ("a.c", "// TO" + "DO: later"),
        ("tests/core/test_a.py", "time" + ".sleep(1)"),
    ],
)
def test_what_must_not_be_there_is_found(name: str, line: str) -> None:
    assert len(list(forbidden_in(name, line))) == 1


def test_foreign_units_are_found() -> None:
    source = "class A:\n    wait_ms: int\nLIMIT_KB = 3\n_raw_us = 1\ndef f(size_bytes, *, rate_bp=0): x_us = 1"
    assert foreign_units(source) == {"wait_ms", "LIMIT_KB", "rate_bp"}
