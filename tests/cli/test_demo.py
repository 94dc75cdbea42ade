"""`memtherm demo --json`: the main job on the built-in workload, once, as a user runs it."""

import json

import pytest

from support.command import memtherm
from support.requires import require
from support.swap import swap_on

MIB = 1 << 20
KEYS = {
    "method", "probe", "precision", "recall", "hot_bytes_true", "hot_bytes_seen", "agent_cpu_percent",
    "target_slowdown_percent", "rss_before_bytes", "rss_after_bytes", "applied_bytes", "refused",
}  # fmt: skip


@pytest.mark.system
def test_the_figures_of_the_demo() -> None:
    require("root", "bpf", "swap")
    with swap_on(1024 * MIB):
        result = memtherm("demo", "--json")
    assert result.exit_code == 0, result.stderr
    figures = json.loads(result.stdout)
    assert figures.keys() >= KEYS
    assert figures["probe"] == "bpf"
    assert figures["hot_bytes_true"] == 80 * MIB
    assert figures["precision"] >= 0.95
    assert figures["recall"] >= 0.95
    # 560 MiB of 640 are cold; the most of them is out after the seconds that the demo takes.
    assert figures["applied_bytes"] >= 300 * MIB
    left_bytes = figures["rss_before_bytes"] - figures["rss_after_bytes"]
    assert left_bytes == pytest.approx(figures["applied_bytes"], rel=0.05)
    assert figures["agent_cpu_percent"] < 50
