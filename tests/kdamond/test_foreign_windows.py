"""A kdamond of somebody else on this machine: its windows are heard, and nothing of it is touched."""

from pathlib import Path

import pytest

from memtherm.kdamond.ownership import KdamondSlots
from support.requires import require
from support.trace_text import assert_windows_are_as_told, listen
from support.tracefs import tracefs_root

LONGEST_WINDOW_S = 6.0


def test_windows_of_a_running_kdamond_are_those_of_the_kernels_text(tmp_path: Path) -> None:
    require("root", "tracefs", "damon")
    slots = KdamondSlots()
    running = [one for one in slots.look().kdamonds if one.is_running]
    if not running:
        pytest.skip("no kdamond runs here")
    base = f"{running[0].index}/contexts/0"
    window_s = slots.tree.read_number(f"{base}/monitoring_attrs/intervals/aggr_us") / 1e6
    if window_s > LONGEST_WINDOW_S or slots.tree.read_number(f"{base}/targets/nr_targets") != 1:
        pytest.skip(f"its windows take {window_s:g} s, or it has several targets")
    (tmp_path / "tracing").mkdir()
    with tracefs_root(tmp_path / "tracing") as root:
        heard = listen(root, running[0].thread or -1, nr_windows=2, limit_s=8 * window_s + 5)
    assert len(heard.windows) >= 2
    assert_windows_are_as_told(heard)
    distance_s = (heard.windows[1].time_ns - heard.windows[0].time_ns) / 1e9
    # The kernel does not make up for sleeping too long, as it does on a busy machine.
    assert 0.9 * window_s < distance_s < 3 * window_s
