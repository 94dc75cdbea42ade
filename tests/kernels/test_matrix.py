"""The driver of the kernel matrix, without a guest: what it reads and says, and that it skips nothing silently."""

import json
import os
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from kernels import matrix
from kernels.matrix import Guest, Result, boot_command, read_guests, read_results, run_guest, table_lines

REPOSITORY = Path(__file__).parents[2]
MATRIX = Path(__file__).with_name("matrix.toml").read_text(encoding="utf-8")
GUEST = Guest(
    name="6.1-all",
    kernel="6.1",
    boot=("no5lvl",),
    require=("root", "bpf"),
    tests=("tests/bpf",),
    leave_out="fake",
    boot_s=50,
    limit_s=100,
)


def line(test: str, outcome: str, reason: str = "") -> str:
    return json.dumps({"test": test, "outcome": outcome, "reason": reason, "duration_s": 1.0, "uptime_s": 2.0})


def test_every_kernel_has_its_guests_and_every_named_test_is_there() -> None:
    guests = read_guests(MATRIX)
    assert {one.kernel for one in guests} == {"6.1", "6.12", "7.3"}
    assert len({one.name for one in guests}) == len(guests)
    for one in guests:
        assert one.tests
        assert {"root", "bpf"} <= set(one.require)
        assert [test for test in one.tests if not (REPOSITORY / test.partition("::")[0]).exists()] == []
    for kernel in ("6.1", "6.12", "7.3"):
        boots = [one.boot for one in guests if one.kernel == kernel]
        assert any("no5lvl" in boot for boot in boots), "4 levels"
        assert any("no5lvl" not in boot for boot in boots), "5 levels"


def test_results_are_counted_and_reasons_kept() -> None:
    text = "\n".join(
        [
            line("a", "passed"),
            line("b", "failed", "assert 1 == 2"),
            line("c", "passed"),
            line("c", "failed", "its teardown"),
            line("d", "skipped", "Skipped: numa: one memory node"),
            line("e", "skipped", "Skipped: numa: one memory node"),
            line("", "ended with 1"),
        ]
    )
    assert read_results(text) == (1, ("b", "c"), Counter({"Skipped: numa: one memory node": 2}))


def test_the_table_says_what_failed_and_why_others_were_skipped() -> None:
    good = Result(GUEST, "6.1.0-50-amd64", 12, (), Counter({"no PAGEMAP_SCAN": 2}), 61.4)
    bad = Result(GUEST, problem="it did not boot, 2 times: console")
    text = "\n".join(table_lines([good, bad]))
    for part in ("6.1.0-50-amd64", "12", "61", "skipped 2 × no PAGEMAP_SCAN", "PROBLEM it did not boot"):
        assert part in text
    assert good.is_good
    assert not bad.is_good
    assert not Result(GUEST, passed=3, failed=("a",)).is_good
    assert not Result(GUEST, skipped=Counter(all=9)).is_good, "nothing has passed"


def test_a_kernel_that_is_not_there_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMTHERM_KERNELS", str(tmp_path))
    result = run_guest(GUEST, tmp_path / "out")
    assert result.problem == f"there is no kernel 6.1 in {tmp_path}: see above"
    assert not result.is_good


def made_up_kernel(folder: Path, vng: str) -> None:
    """A cache of kernels whose virtme-ng is this shell script."""
    (folder / "6.1").mkdir()
    (folder / "6.1" / "vmlinuz").touch()
    program = folder / "venv" / "bin" / "vng"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n{vng}\n")
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("left", "told"),
    [
        ("exit 1", "it did not boot, 2 times"),
        ("touch OUT/started; exit 1", "it died while its tests ran"),
        ("touch OUT/started; echo 124 >OUT/exit", "its tests did not end within 100 s"),
        ("touch OUT/started; echo 4 >OUT/exit", "pytest ended with 4"),
        ("touch OUT/started; echo 0 >OUT/exit; cp LINES OUT/results.jsonl", ""),
    ],
)
def test_what_became_of_a_guest(left: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, lines = tmp_path / "out", tmp_path / "lines"
    lines.write_text(line("a", "passed") + "\n" + line("", "ended with 0") + "\n")
    made_up_kernel(tmp_path, left.replace("OUT", str(out)).replace("LINES", str(lines)))
    monkeypatch.setenv("MEMTHERM_KERNELS", str(tmp_path))
    result = run_guest(GUEST, out)
    assert result.problem.startswith(told)
    assert result.is_good == (told == "")
    assert result.passed == (told == "")


def test_how_a_guest_is_booted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMTHERM_KERNELS", str(tmp_path))
    for can, expected in ((True, 0), (False, 1)):
        monkeypatch.setattr(matrix, "can_virtualize", lambda can=can: can)
        command = boot_command(GUEST, tmp_path / "6.1", tmp_path / "out")
        assert command.count("--disable-kvm") == expected
        assert command[command.index("no5lvl") - 1] == "--append"
        # All of it stands in the kernel's command line, which holds 2048 bytes.
        assert len(command[-1]) < 500
        assert command[command.index("--rwdir") + 1] == str(tmp_path / "out")


def test_orders_are_read_by_a_shell_as_they_are_meant(tmp_path: Path) -> None:
    script = matrix.orders(GUEST, tmp_path) + 'printf "%s|" "$MEMTHERM_REQUIRE" "$LIMIT_S" "$@"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "root,bpf|100|-k|not (fake)|tests/bpf|"


def test_a_guest_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up_kernel(tmp_path, "sleep 600")
    monkeypatch.setenv("MEMTHERM_KERNELS", str(tmp_path))
    result = run_guest(replace(GUEST, boot_s=1), tmp_path / "out")
    assert result.problem.startswith("it did not boot, 2 times")
    assert result.seconds < 60


def test_without_a_mirror_each_kernel_is_said_to_be_missing(tmp_path: Path) -> None:
    script = tmp_path / "fetch.sh"
    text = Path(matrix.HERE, "fetch.sh").read_text(encoding="utf-8")
    script.write_text(text.replace("/etc/apt/sources.list.d/debian.sources", str(tmp_path / "none")))
    done = subprocess.run(
        ["bash", script, "6.1", "7.3"],
        env=os.environ | {"MEMTHERM_KERNELS": str(tmp_path / "cache")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    for version in ("6.1", "7.3"):
        assert f"kernels: {version}: cannot be had" in done.stderr
