"""`memtherm monitor`: its lines, its words, its end."""

import subprocess

import pytest

from support.cgroups import fresh_cgroup, join
from support.children import Child
from support.command import assert_refused, forked, memtherm
from support.requires import require

_USER = 64_777  # one that nobody has

SNAPSHOT_KEYS = {"time_s", "targets", "working_set_bytes", "conditions", "regions"}
REGION_KEYS = {"target", "start", "end", "size_bytes", "nr_accesses", "access_rate", "rate_error", "age_s"}
CONDITION_KEYS = {
    "method", "probe", "clearing", "grain", "sampling_interval_s", "aggregation_interval_s", "samples", "late_samples",
    "window_s", "agent_cpu_s", "agent_cpu_percent", "unclear_share",
}  # fmt: skip


def test_json_is_a_line_for_each_snapshot(target: Child) -> None:
    result = memtherm("monitor", "--json", "-n", "2", "--pid", str(target.pid))
    assert result.exit_code == 0
    snapshots = result.json_lines()
    assert len(snapshots) == 2
    for snapshot in snapshots:
        assert snapshot.keys() == SNAPSHOT_KEYS
        assert snapshot["targets"][0]["pid"] == target.pid
        assert snapshot["conditions"].keys() >= CONDITION_KEYS
        assert snapshot["conditions"]["samples"] >= 1
        assert 0 <= snapshot["conditions"]["agent_cpu_percent"] <= 100
        assert snapshot["regions"][0].keys() == REGION_KEYS
        assert all(0 <= region["access_rate"] <= 1 for region in snapshot["regions"])
        assert snapshot["working_set_bytes"] > 0


def test_text_has_a_strip_and_rows(target: Child) -> None:
    result = memtherm("monitor", "-n", "1", "--pid", str(target.pid))
    assert result.exit_code == 0
    assert f"(pid {target.pid})" in result.stdout
    assert "cold │" in result.stdout
    assert "address       size    rate  age" in result.stdout
    assert "memtherm: watching by " in result.stderr


def test_intervals_are_as_asked(target: Child) -> None:
    words = ("--json", "-n", "1", "--probe", "smaps", "--sampling", "250ms", "--aggregation", "500ms")
    conditions = forked("monitor", *words, "--pid", str(target.pid)).json_lines()[0]["conditions"]
    assert conditions["probe"] == "smaps"
    assert conditions["grain"] == "mapping"
    assert conditions["sampling_interval_s"] == 0.25
    assert conditions["aggregation_interval_s"] == 0.5
    assert conditions["samples"] == 2


def test_a_longer_sampling_interval_alone_makes_longer_windows(target: Child) -> None:
    words = ("monitor", "--json", "-n", "1", "--sampling", "10ms", "--pid", str(target.pid))
    assert forked(*words).json_lines()[0]["conditions"]["aggregation_interval_s"] == pytest.approx(0.2)


def test_several_targets_by_name_and_pid(target: Child) -> None:
    with Child() as other:
        other.rename("mt-cli-other")
        words = ("--json", "-n", "1", "--pid", str(target.pid), "--name", "mt-cli-other")
        snapshot = forked("monitor", *words).json_lines()[0]
    assert {one["pid"] for one in snapshot["targets"]} == {target.pid, other.pid}
    assert {region["target"] for region in snapshot["regions"]} == {0, 1}


def test_a_pattern_and_children(target: Child) -> None:
    with Child() as parent:
        child = parent.fork()
        parent.rename("mt-cli-family")
        words = ("monitor", "--json", "-n", "1", "--name", "mt-cli-fam?ly", "--children")
        snapshot = forked(*words).json_lines()[0]
    assert [one["pid"] for one in snapshot["targets"]] == [parent.pid, child]
    assert [one["labels"] for one in snapshot["targets"]] == [["mt-cli-fam?ly"]] * 2
    # Of several targets, each row tells which one.
    with Child() as other:
        text = forked("monitor", "-n", "1", "--pid", str(target.pid), "--pid", str(other.pid)).stdout
    assert "     pid            address" in text
    assert f"\n{target.pid:>8}" in text


def test_a_user() -> None:
    require("root")
    with subprocess.Popen(["sleep", "60"], user=_USER) as theirs:
        try:
            snapshot = forked("monitor", "--json", "-n", "1", "--user", str(_USER)).json_lines()[0]
        finally:
            theirs.kill()
    assert [one["pid"] for one in snapshot["targets"]] == [theirs.pid]


def test_a_cgroup() -> None:
    require("root", "cgroup")
    with Child() as member, fresh_cgroup() as cgroup:
        join(cgroup, member.pid)
        result = forked("monitor", "--json", "-n", "1", "--cgroup", cgroup.path)
        member.end()
    assert [one["pid"] for one in result.json_lines()[0]["targets"]] == [member.pid]


def test_without_a_target() -> None:
    assert_refused(memtherm("monitor"), 2, "no target was named")


@pytest.mark.parametrize(
    ("words", "exit_code", "text"),
    [
        (["--pid", "0"], 2, "pid 0 cannot exist"),
        (["--pid", "-5"], 2, "-5"),
        (["--pid=-5"], 2, "pid -5 cannot exist"),
        (["--pid", "abc"], 2, "'abc' is not a valid integer"),
        (["--pid", "99999999"], 2, "pid 99999999 cannot exist"),
        (["--pid", "4194303"], 4, "process 4194303 is gone"),
        (["--pid", "2"], 2, "kernel thread"),
        (["--name", "no-such-name-at-all"], 4, "no process has the name"),
        (["--name", "no-such-name-*"], 4, "no process is called like"),
        (["--name", ""], 2, "the name of a target is empty"),
        (["--user", "no-such-user"], 2, "no user 'no-such-user'"),
        (["--cgroup", "/no/such/group"], 2, "no cgroup '/no/such/group'"),
        (["--children"], 2, "--children without processes"),
        (["--pid", "PID", "--sampling", "0"], 2, "leaves the monitor no rest"),
        (["--pid", "PID", "--sampling", "10us"], 2, "100 us is the least"),
        (["--pid", "PID", "--sampling", "-1s"], 2, "'-1s' is not a time"),
        (["--pid", "PID", "--sampling", "1x"], 2, "unknown time unit 'x'"),
        (["--pid", "PID", "--sampling", "5"], 2, "a time needs a unit"),
        (["--pid", "PID", "--sampling", "nan"], 2, "'nan' is not a time"),
        (["--pid", "PID", "--sampling", "1s", "--aggregation", "100ms"], 2, "is longer than the aggregation interval"),
        (["--pid", "PID", "--min-regions", "0"], 2, "--min-regions"),
        (["--pid", "PID", "--min-regions", "100", "--max-regions", "50"], 2, "min_nr_regions (100) is more than"),
        (["--pid", "PID", "--max-regions", "9999999999"], 2, "--max-regions"),
        (["--pid", "PID", "--limit", "0"], 2, "--limit"),
        (["--pid", "PID", "--probe", "magic"], 2, "magic"),
        (["--pid", "PID", "extra"], 2, "extra"),
    ],
)
def test_impossible_values(target: Child, words: list[str], exit_code: int, text: str) -> None:
    words = [str(target.pid) if word == "PID" else word for word in words]
    assert_refused(forked("monitor", *words), exit_code, text)
