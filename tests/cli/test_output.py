"""Where output goes, and what happens when it cannot."""

import subprocess

import pytest

from support.children import Child
from support.command import PATIENCE_S, command_line, memtherm


def shell(line: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """A line of bash in which "$@" is the command."""
    return subprocess.run(
        ["bash", "-c", line, "bash", *command_line(*words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.parametrize("options", [["--json"], ["--every", "0"]])
def test_a_reader_that_has_enough(target: Child, options: list[str]) -> None:
    done = shell('"$@" | head -1; exit ${PIPESTATUS[0]}', "monitor", *options, "--pid", str(target.pid))
    assert done.returncode == 141
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_a_full_disk() -> None:
    done = shell('"$@" > /dev/full', "doctor", "--json")
    assert done.returncode == 1
    assert done.stderr == "memtherm: error: No space left on device\n"


def test_no_output_at_all() -> None:
    assert shell('"$@" >&-', "doctor").returncode == 0


def test_a_terminal_of_another_character_set(target: Child) -> None:
    result = memtherm("monitor", "-n", "1", "--pid", str(target.pid), environment={"PYTHONIOENCODING": "ascii"})
    assert result.exit_code == 0
    assert "cold ?" in result.stdout
