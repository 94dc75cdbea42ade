"""Where somebody else has the kernel's DAMON: every command says so, and none opens anything of it for writing."""

import json
import re
from pathlib import Path

import pytest

from support.children import Child
from support.command import Result, assert_refused, memtherm
from support.requires import require

# Whatever makes, changes or removes a file, besides the ways to open one.
CALLS = (
    *("open", "openat", "openat2", "creat", "truncate", "rename", "renameat", "renameat2", "unlink", "unlinkat"),
    *("mkdir", "mkdirat", "rmdir", "link", "linkat", "symlink", "symlinkat", "chmod", "fchmodat", "chown", "fchownat"),
)
FORBIDDEN = ("/sys/kernel/mm/damon", "/sys/module/damon_")
WRITES = re.compile(r"\b(O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_APPEND)\b")
DIRECTORY = re.compile(r"\bopenat2?\((?:\d+<([^>]*)>|AT_FDCWD(?:<[^>]*>)?), \"([^\"]*)\"")


def traced(trace: Path, *words: str) -> tuple[Result, list[str]]:
    """Run a command under strace; its result, and every call with a path of DAMON's files."""
    options = ["-f", "-y", "-s", "4096", "--seccomp-bpf", "-e", f"trace={','.join(CALLS)}", "-o", str(trace)]
    result = memtherm(*words, prefix=["strace", *options, "--"])
    lines = trace.read_text().splitlines()
    assert any("openat(" in line for line in lines), "the trace saw the command"
    return result, [line for line in lines if any(path in full_path(line) for path in FORBIDDEN)]


def full_path(line: str) -> str:
    """A line of strace with the path of its directory in front of a relative name."""
    match = DIRECTORY.search(line)
    directory, name = (match[1] or "", match[2]) if match else ("", "")
    return f"{line} {directory}/{name}"


def writing(lines: list[str]) -> list[str]:
    """Calls that are no open, or open for more than reading."""
    return [line for line in lines if not re.search(r"\bopen(at2?)?\(", line) or WRITES.search(line)]


def test_the_sieve_holds_what_it_should() -> None:
    lines = [
        '12 openat(AT_FDCWD</root>, "/sys/kernel/mm/damon/admin/kdamonds/0/state", O_RDONLY|O_CLOEXEC) = 3</sys>',
        '12 openat(3</sys/kernel/mm/damon/admin/kdamonds>, "0/state", O_WRONLY|O_CLOEXEC) = 4</sys>',
        '12 openat(AT_FDCWD</root>, "/sys/module/damon_stat/parameters/enabled", O_RDWR) = -1 ENOENT (No such file)',
        '12 truncate("/sys/module/damon_reclaim/parameters/min_age", 0) = -1 ENOENT (No such file or directory)',
        '12 openat(AT_FDCWD</root>, "/var/x", O_WRONLY|O_CREAT, 0666) = 3</var/x>',
    ]
    touched = [line for line in lines if any(path in full_path(line) for path in FORBIDDEN)]
    assert touched == lines[:4]
    assert writing(touched) == lines[1:4]


@pytest.fixture(autouse=True)
def _occupied() -> None:
    require("root", "strace", "occupied")


@pytest.mark.parametrize(
    "words",
    [
        ("reclaim",),
        ("lru-sort", "--json"),
        ("stat",),
        ("reclaim", "--min-age", "2min", "--quota", "128MiB", "--enable", "--apply"),
        ("lru-sort", "--cold-min-age", "1min", "--disable", "--apply"),
        ("stat", "--enable", "--apply"),
    ],
)
def test_modules(tmp_path: Path, words: tuple[str, ...]) -> None:
    result, touched = traced(tmp_path / "trace", "kernel", *words)
    assert_refused(result, 3, "occupied by another owner", "memtherm monitor")
    assert touched, "it was looked at"
    assert writing(touched) == []


def test_status(tmp_path: Path) -> None:
    result, touched = traced(tmp_path / "trace", "kernel", "status", "--json")
    assert result.exit_code == 0
    plain = json.loads(result.stdout)
    assert "occupied by another owner" in plain["sentence"]
    assert plain["hint"]
    assert len(plain["kdamonds"]) == int(Path("/sys/kernel/mm/damon/admin/kdamonds/nr_kdamonds").read_text())
    assert len(touched) > 10
    assert writing(touched) == []


def test_doctor(tmp_path: Path) -> None:
    result, touched = traced(tmp_path / "trace", "doctor")
    assert result.exit_code == 0, result.stderr
    assert "occupied by another owner" in result.stdout
    assert touched
    assert writing(touched) == []


def test_watching_by_the_kernel(tmp_path: Path) -> None:
    with Child() as child:
        result, touched = traced(
            tmp_path / "trace", "monitor", "--pid", str(child.pid), "--method", "kdamond", "-n", "1"
        )
    assert_refused(result, 3, "occupied by another owner")
    assert "census" in result.stderr
    assert touched
    assert writing(touched) == []
