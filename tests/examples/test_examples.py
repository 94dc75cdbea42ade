"""The examples as an ordinary user runs them, small: what they print, and that memory comes back."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.examples import EXAMPLES, NOBODY, run_example
from support.requires import require
from support.swap import swap_on

MIB = 1 << 20
PROGRAMS = ("embedding_table", "time_series_cache", "sparse_matrix")
# The machine may be busy with other tests; benchmarks/arrays.py holds the rates to their bars.
FASTER_THAN_NOTHING = 0.3


@pytest.mark.system
@pytest.mark.parametrize("user_id", [NOBODY, 0], ids=["as an ordinary user", "as root"])
def test_cold_rows_of_an_embedding_table_are_given_back(user_id: int) -> None:
    require("root", "swap")
    with swap_on(1024 * MIB):
        words = ("--size", "512", "--seconds", "1", "--interval", "0.2")
        figures = figures_of("embedding_table", *words, user_id=user_id)[0]
    assert figures["table_bytes"] == 512 * MIB
    assert figures["before_bytes"] == 512 * MIB
    assert figures["given_back"] >= 0.6
    # The kernel's count of the whole process is the second witness; the watch takes some memory itself.
    freed_bytes = figures["process_before_bytes"] - figures["process_after_bytes"]
    assert freed_bytes == pytest.approx(figures["given_back"] * 512 * MIB, abs=48 * MIB)
    assert figures["kept_rate_of_cpu"] > FASTER_THAN_NOTHING


@pytest.mark.system
def test_old_columns_of_a_time_series_cache_are_given_back() -> None:
    require("root", "swap")
    with swap_on(512 * MIB):
        figures = figures_of("time_series_cache", "--size", "192", "--seconds", "1", "--settle", "10", user_id=NOBODY)[
            0
        ]
    assert figures["columns"] == 192
    # 16 are read, and about as many were within the seconds that are looked at; a part is two columns.
    assert 16 <= figures["columns_in_use"] <= 64
    assert figures["given_back"] >= 0.4
    assert figures["applied_bytes"] >= 0.4 * 192 * MIB
    assert figures["kept_rate_of_cpu"] > FASTER_THAN_NOTHING


@pytest.mark.system
def test_a_sparse_matrix_gets_huge_pages_only_where_they_pay() -> None:
    require("root", "thp")
    if "[always]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text():
        pytest.skip("all memory gets huge pages here")
    words = ("--size", "256", "--active", "64", "--seconds", "1", "--settle", "8")
    small, everywhere, before, after = figures_of("sparse_matrix", *words, user_id=NOBODY)
    assert (small["huge_bytes"], before["huge_bytes"]) == (0, 0)
    assert everywhere["huge_bytes"] == everywhere["resident_bytes"] == 256 * MIB
    # All of the active block but for a few units, and next to nothing else.
    assert 48 * MIB <= after["huge_bytes"] <= 72 * MIB
    assert after["resident_bytes"] <= before["resident_bytes"] + 8 * MIB


@pytest.mark.system
@pytest.mark.parametrize("name", ["embedding_table", "time_series_cache"])
def test_an_example_says_that_it_lacks_swap(name: str) -> None:
    # No host has that much.
    result = run_example(name, "--size", str(1 << 40))
    assert result.exit_code == 3
    assert result.stdout == ""
    assert result.stderr.startswith(f"{name}.py: needs ")
    assert "swap" in result.stderr
    assert "hint: " in result.stderr


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_example_explains_itself(name: str) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), "--help"], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.startswith(f"usage: {name}.py")
    assert "--way" in done.stdout


def figures_of(name: str, *words: str, user_id: int) -> list[dict[str, Any]]:
    result = run_example(name, *words, "--json", user_id=user_id)
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]
