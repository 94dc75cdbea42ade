"""SIGHUP while schemes run: a new policy is taken over, a wrong one is not, a closed terminal ends the run."""

import json
import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support.children import Child
from support.command import PATIENCE_S, command_line, running

SHORT = ("--sampling", "10ms", "--aggregation", "50ms")
POLICY = 'version = 1\n[[scheme]]\nname = "{}"\naction = "stat"\n'


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY.format("first"))
    return path


def names(process: "subprocess.Popen[str]") -> list[str]:
    """The schemes of the next report."""
    assert process.stdout is not None
    return [scheme["name"] for scheme in json.loads(process.stdout.readline())["schemes"]]


def told(process: "subprocess.Popen[str]", text: str) -> str:
    """The next complaint with this text."""
    assert process.stderr is not None
    while text not in (line := process.stderr.readline()):
        assert line
    return line


def wait_for(process: "subprocess.Popen[str]", wanted: list[str]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while names(process) != wanted:
        assert time.monotonic() < end_s


def test_a_new_policy(target: Child, policy: Path) -> None:
    with running("run", str(policy), "--json", "--pid", str(target.pid), *SHORT) as process:
        assert names(process) == ["first"]
        policy.write_text(POLICY.format("second") + "[guard]\nmin_target_bytes = '1MiB'\n")
        process.send_signal(signal.SIGHUP)
        wait_for(process, ["second"])
        assert '"second"' in told(process, "was read again")
        told(process, "count from the next start on")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 143


def test_a_wrong_policy_changes_nothing(target: Child, policy: Path) -> None:
    with running("run", str(policy), "--json", "--pid", str(target.pid), *SHORT) as process:
        assert names(process) == ["first"]
        policy.write_text(POLICY.format("second") + 'action = "pageut"\n')
        process.send_signal(signal.SIGHUP)
        told(process, "the old schemes go on")
        # Nor does a file that is gone.
        policy.unlink()
        process.send_signal(signal.SIGHUP)
        assert "cannot read it" in told(process, "the old schemes go on")
        assert names(process) == ["first"]
        policy.write_text(POLICY.format("third"))
        process.send_signal(signal.SIGHUP)
        wait_for(process, ["third"])


def test_what_must_not_be_applied_is_not_taken_over(target: Child, policy: Path) -> None:
    with running("run", str(policy), "--apply", "--json", "--pid", str(target.pid), *SHORT) as process:
        assert names(process) == ["first"]
        policy.write_text(POLICY.format("second").replace("stat", "pageout"))
        process.send_signal(signal.SIGHUP)
        assert "upper bound" in told(process, "the old schemes go on")
        assert names(process) == ["first"]


def test_schemes_of_the_command_line_have_no_file_to_read(target: Child) -> None:
    words = ("run", "--scheme", "4K max 0% 0% 0 max stat", "--json", "--pid", str(target.pid), *SHORT)
    with running(*words) as process:
        names(process)
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 129


def test_a_terminal_that_is_closed_ends_the_run(target: Child, policy: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    words = command_line("run", str(policy), "--json", "--pid", str(target.pid), *SHORT)
    leader, follower = pty.openpty()
    with output.open("w") as file:
        process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *words], stdin=follower, stdout=file, stderr=subprocess.STDOUT
        )
    os.close(follower)
    try:
        end_s = time.monotonic() + PATIENCE_S
        while '"schemes"' not in output.read_text():
            assert time.monotonic() < end_s, output.read_text()
            select.select([], [], [], 0.05)
    finally:
        os.close(leader)
    assert process.wait(PATIENCE_S) in (129, 1)
    assert "was read again" not in output.read_text()
