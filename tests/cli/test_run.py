"""`memtherm run`: what it acts with, what it refuses, what it says."""

import signal
import time
from pathlib import Path

import pytest

from support.children import Child
from support.command import PATIENCE_S, assert_refused, forked, memtherm, running

REPORT_KEYS = {"time_s", "targets", "nr_regions", "working_set_bytes", "schemes", "events", "conditions"}
SCHEME_KEYS = {
    "name", "action", "is_active", "state", "matched_bytes", "tried_bytes", "applied_bytes", "refused",
    "filtered_bytes", "quota", "free_memory", "total",
}  # fmt: skip
TOTAL_KEYS = {
    "nr_tried", "tried_bytes", "nr_applied", "applied_bytes", "refused_bytes", "filtered_bytes", "nr_quota_exceeded",
    "nr_snapshots",
}  # fmt: skip
LIMITED_POLICY = """\
version = 1

[[scheme]]
name = "a little at a time"
access_rate = "0%"
age = ">= 100ms"
action = "stat"
quota = { bytes = "1MiB", every = "10s" }

[[scheme]]
name = "only when memory is short"
action = "stat"
watermarks = { metric = "free_memory", high = "0.2%", mid = "0.1%", low = "0%", every = "5s" }
"""
STAT_LINE = "4K max 0% 0% 0 max stat"
UNBOUNDED_LINE = "4K max min max 2s max {}"

SHORT = ("--sampling", "10ms", "--aggregation", "50ms")


def test_a_policy_file(target: Child, good_policy: str) -> None:
    short = ("--sampling", "10ms", "--aggregation", "50ms", "--duration", "500ms")
    result = memtherm("run", good_policy, "--json", *short, "--pid", str(target.pid))
    assert result.exit_code == 0
    assert "dry run: nothing is changed without --apply" in result.stderr
    reports = result.json_lines()
    assert len(reports) >= 2
    for report in reports:
        assert report.keys() == REPORT_KEYS
        assert report["schemes"][0].keys() == SCHEME_KEYS
        assert report["schemes"][0]["total"].keys() == TOTAL_KEYS
        assert report["schemes"][0]["name"] == "count what is cold"


def test_limits_are_told(target: Child, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(LIMITED_POLICY)
    words = ("run", str(path), "--pid", str(target.pid), *SHORT, "--duration", "1500ms")
    quota, rests = forked(*words, "--json").json_lines()[-1]["schemes"]
    assert quota["quota"] == {"effective_bytes": 1 << 20, "charged_bytes": 1 << 20, "goal_score": None}
    assert quota["total"]["tried_bytes"] == 1 << 20
    assert (quota["is_active"], quota["free_memory"]) == (True, None)
    assert (rests["is_active"], rests["tried_bytes"], rests["quota"]) == (False, 0, None)
    assert 0 < rests["free_memory"] <= 1
    assert "of memory is free" in rests["state"]
    text = forked(*words, "--every", "0").stdout
    assert "  quota: 1.00 MiB of 1.00 MiB used\n" in text
    assert "  rests: " in text


def test_tried_regions(target: Child) -> None:
    words = ("run", "--scheme", "min max min max min max stat", "--pid", str(target.pid), *SHORT, "-n", "1", "--json")
    scheme = forked(*words, "--tried-regions").json_lines()[0]["schemes"][0]
    assert sum(region["size_bytes"] for region in scheme["tried_regions"]) >= scheme["tried_bytes"] > 8 << 20
    assert "tried_regions" not in forked(*words).json_lines()[0]["schemes"][0]


def test_a_scheme_for_a_target_that_is_not_there(target: Child, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    text = f'version = 1\n[[target]]\npid = {target.pid}\nlabel = "db"\n'
    path.write_text(text + '[[scheme]]\nname = "s"\naction = "stat"\ntargets = ["db"]\n')
    words = ("run", str(path), "--json", "-n", "1", *SHORT)
    own = forked(*words)
    assert own.json_lines()[0]["targets"][0]["labels"] == ["db"]
    assert own.json_lines()[0]["schemes"][0]["tried_bytes"] > 0
    assert "it does nothing" not in own.stderr
    other = forked(*words, "--pid", str(target.pid))
    assert other.json_lines()[0]["schemes"][0]["tried_bytes"] == 0
    assert 'scheme "s" is for db, and no target of the command line is called so' in other.stderr


def test_what_this_host_lacks_is_warned_of(target: Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMTHERM_WITHOUT", "psi")
    path = tmp_path / "policy.toml"
    goals = 'quota = { bytes = "1MiB" }\ngoals = [{ metric = "memory_pressure", target = "10ms" }]\n'
    path.write_text('version = 1\n[[scheme]]\naction = "stat"\n' + goals)
    result = forked("run", str(path), "--json", "-n", "1", *SHORT, "--pid", str(target.pid))
    assert "memtherm: warning: " in result.stderr
    assert "memory pressure is not measured" in result.stderr
    assert "memory pressure is not measured" in result.json_lines()[0]["schemes"][0]["state"]


def test_schemes_of_the_command_line(target: Child) -> None:
    words = ("--scheme", STAT_LINE, "--scheme", "2M max 50 max 0 max stat", "--duration", "200ms")
    result = forked("run", *words, "--json", "--pid", str(target.pid))
    assert result.exit_code == 0
    assert [scheme["name"] for scheme in result.json_lines()[-1]["schemes"]] == ["scheme 1 (stat)", "scheme 2 (stat)"]


def test_text_sums_up(target: Child) -> None:
    result = memtherm("run", "--scheme", STAT_LINE, "--duration", "200ms", "--pid", str(target.pid))
    assert result.exit_code == 0
    assert "in all:\nscheme 1 (stat): matches " in result.stdout


def test_the_policy_names_the_target(target: Child, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(f'version = 1\n[[target]]\npid = {target.pid}\n[[scheme]]\naction = "stat"\n')
    result = forked("run", str(path), "--json", "--duration", "100ms")
    assert result.exit_code == 0
    assert result.json_lines()[0]["targets"][0]["pid"] == target.pid


def test_a_dry_run_changes_nothing_and_says_what_it_would_do(target: Child) -> None:
    words = ("--scheme", "4K max 0% 0% 100ms max cold", "--json", "--duration", "600ms", "--pid", str(target.pid))
    schemes = [report["schemes"][0] for report in forked("run", *words).json_lines()]
    assert all(scheme["applied_bytes"] == 0 for scheme in schemes)
    reasons = {refusal["reason"] for scheme in schemes for refusal in scheme["refused"]}
    assert len(reasons) == 1
    assert "targets below 64.0 MiB are left alone" in reasons.pop()


def test_neither_policy_nor_scheme(target: Child) -> None:
    assert_refused(forked("run", "--pid", str(target.pid)), 2, "neither a policy file nor --scheme")


def test_both_policy_and_scheme(target: Child, good_policy: str) -> None:
    words = ("run", good_policy, "--scheme", STAT_LINE, "--pid", str(target.pid))
    assert_refused(forked(*words), 2, "both a policy file and --scheme")


def test_a_wrong_policy_starts_nothing(bad_policy: str, tmp_path: Path) -> None:
    result = memtherm("run", bad_policy, "--", "touch", str(tmp_path / "was-started"))
    assert result.exit_code == 2
    assert "problems" in result.stderr
    assert not (tmp_path / "was-started").exists()


def test_a_wrong_scheme(target: Child) -> None:
    words = ("run", "--scheme", "4K max 10% 5% 2min max pageut", "--pid", str(target.pid))
    assert_refused(forked(*words), 2, "min-rate 10% is above max-rate 5%", "'pageut' is not an action")


def test_no_target(good_policy: str) -> None:
    assert_refused(forked("run", good_policy), 2, "no target was named")


@pytest.mark.parametrize("action", ["pageout", "cold"])
def test_memory_of_any_heat_is_not_acted_on_by_mistake(target: Child, action: str) -> None:
    words = ("run", "--scheme", UNBOUNDED_LINE.format(action), "--pid", str(target.pid))
    assert_refused(forked(*words, "--apply"), 2, "without an upper bound of the access rate", "0% 0%", "100%")
    dry = forked(*words, "--duration", "100ms")
    assert dry.exit_code == 0
    assert "warning: " in dry.stderr
    assert "hot memory" in dry.stderr


def test_memory_of_any_heat_where_it_is_meant(target: Child) -> None:
    # The target is below the size that anything is done to.
    words = ("--scheme", "4K max 0% 100% 100ms max cold", "--apply", "--duration", "100ms", "--pid", str(target.pid))
    assert forked("run", *words).exit_code == 0


def test_the_duration_does_not_wait_for_a_long_window(target: Child) -> None:
    words = ("--scheme", STAT_LINE, "--method", "sampling", "--sampling", "1s", "--aggregation", "1s")
    began_s = time.monotonic()
    result = forked("run", *words, "--update", "1s", "--duration", "1500ms", "--json", "--pid", str(target.pid))
    assert result.exit_code == 0
    assert len(result.json_lines()) == 1
    assert time.monotonic() - began_s < 20


def test_the_sum_is_told_after_an_interrupt_too(target: Child) -> None:
    with running("run", "--scheme", "min max min max min max stat", "--pid", str(target.pid), *SHORT) as process:
        assert process.stdout is not None
        while "regions" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "in all:" in output


def test_a_limit_of_windows(target: Child) -> None:
    result = forked(
        "run", "--scheme", "min max min max min max stat", "--pid", str(target.pid), "--json", "-n", "2", *SHORT
    )
    assert (result.exit_code, len(result.json_lines())) == (0, 2)


def test_an_action_that_cannot_be_done_is_not_applied_in_silence(target: Child) -> None:
    line = "2M max 80 max 2s max hugepage"
    result = forked("run", "--scheme", line, "--pid", str(target.pid), "--apply")
    assert_refused(result, 2, 'scheme "scheme 1 (hugepage)": hugepage stops the target', "allow_ptrace")
    assert forked("run", "--scheme", line, "--pid", str(target.pid), "-n", "1", *SHORT).exit_code == 0
