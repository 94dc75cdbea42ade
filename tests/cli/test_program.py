"""A program after `--`: started, watched, ended; its exit status becomes ours."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.command import PATIENCE_S, assert_refused, forked, memtherm, running

# Says its pid on its output, then sleeps.
SLEEPER = (sys.executable, "-S", "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)")
STUBBORN = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(os.getpid(), flush=True)"


def is_running(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_a_program_is_ended_with_the_monitor() -> None:
    result = memtherm("monitor", "--json", "-n", "2", "--", *SLEEPER)
    assert result.exit_code == 0
    snapshots = result.json_lines()  # so what the program printed is not among them
    pid = snapshots[0]["targets"][0]["pid"]
    assert str(pid) in result.stderr
    assert not is_running(pid)


def test_the_exit_status_becomes_ours() -> None:
    short = ("--sampling", "10ms", "--aggregation", "50ms")
    result = memtherm("monitor", "--json", *short, "--", "sh", "-c", "sleep 1; exit 3")
    assert result.exit_code == 3
    assert result.json_lines()
    assert "Traceback" not in result.stderr


def test_a_program_that_ends_well() -> None:
    assert forked("run", "--scheme", "4K max 0% 0% 0 max stat", "--", "sleep", "0.4").exit_code == 0


def test_a_program_that_is_killed() -> None:
    assert forked("monitor", "--json", "--", "sh", "-c", "sleep 0.4; kill -9 $$").exit_code == 128 + signal.SIGKILL


def test_a_program_that_ends_at_once() -> None:
    result = memtherm("monitor", "--json", "--", "sh", "-c", "exit 3")
    assert result.exit_code == 3
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", [["monitor"], ["run", "--scheme", "4K max 0% 0% 0 max stat"]])
def test_a_program_that_cannot_be_run(command: list[str]) -> None:
    assert_refused(forked(*command, "--", "/nonexistent/program"), 2, "cannot run '/nonexistent/program'")


def test_a_file_that_is_no_program(good_policy: str) -> None:
    assert_refused(forked("monitor", "--", good_policy), 2, "Permission denied")


def test_no_program_after_the_dashes() -> None:
    assert_refused(forked("monitor", "--"), 2, "no program after `--`")


def test_a_program_and_a_pid() -> None:
    assert_refused(forked("monitor", "--pid", str(os.getpid()), "--", "true"), 2, "both a program")


def test_children_of_the_program_are_followed() -> None:
    words = ("--children", "--json", "-n", "60", "--sampling", "20ms", "--aggregation", "100ms")
    result = forked("monitor", *words, "--", "sh", "-c", "sleep 60 & sleep 61; exit 0")
    assert result.exit_code == 0
    names = [target["name"] for target in result.json_lines()[-1]["targets"]]
    assert sorted(names) == ["sh", "sleep", "sleep"]
    assert len({tuple(target["labels"]) for target in result.json_lines()[-1]["targets"]}) == 1


def test_options_of_the_program_are_its_own() -> None:
    result = forked("monitor", "--json", "-n", "1", "--", "sleep", "--help")
    assert "Usage: sleep" in result.stderr


def test_memory_of_any_heat_is_refused_before_the_program_starts(tmp_path: Path) -> None:
    words = ("run", "--apply", "--scheme", "4K max min max 2s max pageout", "--")
    assert_refused(forked(*words, "touch", str(tmp_path / "was-started")), 2, "upper bound")
    assert not (tmp_path / "was-started").exists()


def started_program(process: "subprocess.Popen[str]") -> int:
    """The pid that the program wrote, once the command prints snapshots."""
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith("{")
    while not (line := process.stderr.readline()).strip().isdigit():
        assert line
    return int(line)


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_command_and_the_program(number: signal.Signals, exit_code: int) -> None:
    with running("monitor", "--json", "--", *SLEEPER) as process:
        pid = started_program(process)
        process.send_signal(number)
        _, complaints = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == exit_code
    assert complaints == ""
    assert not is_running(pid)


def test_a_signal_during_a_long_interval_is_obeyed_at_once() -> None:
    with running("monitor", "--json", "--sampling", "1min", "--", *SLEEPER) as process:
        assert process.stderr is not None
        while "watching" not in process.stderr.readline():
            pass
        began_s = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert time.monotonic() - began_s < 5


def test_a_program_that_ignores_the_request_is_killed() -> None:
    stubborn = (sys.executable, "-S", "-c", f"{STUBBORN}; time.sleep(60)")
    with running("monitor", "--json", "--", *stubborn) as process:
        pid = started_program(process)
        process.send_signal(signal.SIGTERM)
        # A second one must not break off what the first began.
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 143
    assert not is_running(pid)
