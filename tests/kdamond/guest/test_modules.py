"""DAMON's modules in a real kernel, by our commands: one kdamond when on, none when off, and DAMON_STAT's view."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memtherm.errors import TargetBusy
from memtherm.kdamond.modules import Module, is_built, read_module
from memtherm.kdamond.ownership import KdamondSlots
from support.command import assert_refused, forked
from support.requires import require

COMMANDS = {Module.RECLAIM: "reclaim", Module.LRU_SORT: "lru-sort", Module.STAT: "stat"}


def kdamonds() -> list[int]:
    """The kernel's threads of DAMON, by their names."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                name = (process / "comm").read_text()
            except OSError:
                continue
            if name.startswith("kdamond"):
                found.append(int(process.name))
    return found


def kernel(*words: str) -> dict[str, Any]:
    done = forked("kernel", *words, "--json")
    assert done.exit_code == 0, done
    plain: dict[str, Any] = json.loads(done.stdout)
    return plain


@pytest.fixture(autouse=True)
def _rest() -> Iterator[None]:
    """No module runs, before and after; one that ran runs again afterwards."""
    require("root", "kdamond")
    ran = [module for module in Module if is_built(module) and read_module(module).is_running]
    for module in ran:
        kernel(COMMANDS[module], "--disable", "--apply")
    assert kdamonds() == []
    yield
    for module in Module:
        if is_built(module) and read_module(module).is_running:
            kernel(COMMANDS[module], "--disable", "--apply")
    for module in ran:
        kernel(COMMANDS[module], "--enable", "--apply")


@pytest.mark.parametrize("module", [Module.RECLAIM, Module.LRU_SORT])
def test_on_is_one_kdamond_and_off_is_none(slots: KdamondSlots, module: Module) -> None:
    assert is_built(module)
    age = {Module.RECLAIM: "--min-age", Module.LRU_SORT: "--cold-min-age"}[module]
    parameter = {Module.RECLAIM: "min_age", Module.LRU_SORT: "cold_min_age"}[module]
    before = read_module(module).text(parameter)
    planned = kernel(COMMANDS[module], age, "90s", "--enable")
    assert [one["text"] for one in planned["writes"]] == ["90000000", "Y"]
    assert kdamonds() == []
    assert read_module(module).text(parameter) == before
    done = kernel(COMMANDS[module], age, "90s", "--enable", "--apply")
    assert done["is_running"]
    assert kdamonds() == [done["thread"]]
    assert done["parameters"][parameter]["value"] == 90
    # Exclusive: nobody else starts, and both sides say who is in the way.
    with pytest.raises(TargetBusy, match=module.label):
        slots.claim()
    other = Module.LRU_SORT if module is Module.RECLAIM else Module.RECLAIM
    assert_refused(forked("kernel", COMMANDS[other], "--enable", "--apply"), 3, module.label)
    assert kernel("status")["modules"][module.value]["is_running"]
    changed = kernel(COMMANDS[module], age, "2min", "--quota-time", "20ms", "--apply")
    assert changed["is_running"]
    assert [one["text"] for one in changed["writes"]][-1] == "Y"
    assert (changed["parameters"][parameter]["value"], changed["parameters"]["quota_ms"]["value"]) == (120, 0.02)
    assert kdamonds() == [done["thread"]]
    kernel(COMMANDS[module], age, f"{int(before or 0)}us", "--quota-time", "10ms", "--disable", "--apply")
    assert kdamonds() == []


def test_idle_times_of_all_memory() -> None:
    if not is_built(Module.STAT):
        assert_refused(forked("kernel", "stat"), 3, "this kernel has no DAMON_STAT")
        pytest.skip("this kernel has no DAMON_STAT")
    assert kernel("stat")["idle_ms_percentiles"] == []
    assert "measures nothing" in forked("kernel", "stat").stdout
    kernel("stat", "--enable", "--apply")
    assert len(kdamonds()) == 1
    ends_s = time.monotonic() + 60
    percentiles: list[int] = []
    while time.monotonic() < ends_s and not any(percentiles):
        time.sleep(1)
        percentiles = kernel("stat")["idle_ms_percentiles"]
    assert len(percentiles) == 101
    assert any(percentiles)
    assert percentiles == sorted(percentiles)
    plain = kernel("stat")
    assert plain["statistics"]["estimated_memory_bandwidth"]["value"] >= 0
    assert plain["statistics"]["aggr_interval_us"]["value"] > 0
    text = forked("kernel", "stat").stdout
    assert "How long memory has not been accessed" in text
    assert "100 %" in text
    kernel("stat", "--disable", "--apply")
    assert kdamonds() == []
