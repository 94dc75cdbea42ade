"""`--help` of each command, and that it loads next to nothing."""

import re
import subprocess
import sys

import pytest

from memtherm import __version__
from support.command import assert_refused, memtherm

COMMANDS = ("doctor", "demo", "monitor", "run", "check")
HEAVY = ("numpy", "pydantic", "rich", "ctypes", "tomllib")


@pytest.mark.parametrize("words", [["--help"], ["-h"], []])
def test_help_names_each_command(words: list[str]) -> None:
    result = memtherm(*words)
    assert result.exit_code == 0
    assert result.stderr == ""
    for command in COMMANDS:
        assert re.search(rf"^  {command} +\w", result.stdout, re.MULTILINE)
    assert "Exit codes: 0 done" in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(command: str) -> None:
    result = memtherm(command, "--help")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert f"Usage: memtherm {command}" in result.stdout.replace("python -m ", "")
    assert "--json" in result.stdout or command == "check"


@pytest.mark.parametrize("command", ["monitor", "run"])
def test_the_ways_to_name_a_target(command: str) -> None:
    options = memtherm(command, "--help").stdout
    for option in ("--pid PID", "--name NAME", "--user USER", "--cgroup PATH", "--children"):
        assert option in options


def test_version() -> None:
    assert memtherm("--version").stdout.split()[-1] == __version__


def test_help_loads_nothing_heavy() -> None:
    program = f"import sys, memtherm.cli.main; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_no_such_command() -> None:
    assert_refused(memtherm("montor"), 2, "No such command 'montor'")


def test_no_such_option() -> None:
    assert_refused(memtherm("monitor", "--pids", "7"), 2, "--pids", "memtherm monitor --help")
