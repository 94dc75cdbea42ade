"""`memtherm doctor`: each way and each action, usable or not, why, and what to do."""

import json

import pytest

from memtherm.core.scheme import Action
from support.command import assert_refused, forked, memtherm
from support.requires import require

WITHOUT_EACH = {
    "bpf": "this kernel has no BPF",
    "btf": "no type information",
    "libbpf": "libbpf.so.1 is not installed",
    "process_madvise": "no process_madvise",
    "CAP_BPF": "missing CAP_BPF",
}


def test_json_is_one_object() -> None:
    result = memtherm("doctor", "--json")
    assert result.exit_code == 0
    assert result.stderr == ""
    report = json.loads(result.stdout)
    assert report.keys() == {"host", "probes", "kdamond", "actions", "metrics"}
    assert [probe["name"] for probe in report["probes"]] == ["bpf", "smaps", "softdirty"]
    assert [action["action"] for action in report["actions"]] == list(Action)
    for way in report["probes"] + report["actions"] + report["metrics"]:
        assert way["reason"]
        assert way["usable"] or way["remedy"]
    for probe in report["probes"]:
        assert probe["usable"] == (probe["canary"] == "passed")


def test_text_says_the_same() -> None:
    result = memtherm("doctor")
    assert result.exit_code == 0
    assert "canary on a child process: passed" in result.stdout
    assert "✓ smaps" in result.stdout
    assert "✗ lru_prio" in result.stdout
    assert "✓ memory of the host" in result.stdout


def test_hugepage_is_opt_in() -> None:
    require("root", "ptrace", "thp")
    ways = {one["action"]: one for one in json.loads(forked("doctor", "--json").stdout)["actions"]}
    assert ways["hugepage"]["usable"]
    assert "allow_ptrace" in ways["hugepage"]["reason"]


def test_goals_without_psi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMTHERM_WITHOUT", "psi")
    metrics = {one["name"]: one for one in json.loads(forked("doctor", "--json").stdout)["metrics"]}
    assert not metrics["memory_pressure"]["usable"]
    assert metrics["memory_pressure"]["remedy"]
    assert metrics["memory of the host"]["usable"]


def test_bpf_is_usable_here() -> None:
    require("root", "bpf", "process_madvise")
    probe = json.loads(memtherm("doctor", "--json").stdout)["probes"][0]
    assert (probe["name"], probe["usable"], probe["canary"]) == ("bpf", True, "passed")


def test_what_is_missing_is_named_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    require("root", "bpf", "process_madvise")
    for feature, reason in WITHOUT_EACH.items():
        monkeypatch.setenv("MEMTHERM_WITHOUT", feature)
        probe = json.loads(forked("doctor", "--json").stdout)["probes"][0]
        assert not probe["usable"], feature
        assert reason in probe["reason"]
        assert probe["remedy"]
        assert probe["canary"] == "not tried"


def test_a_misspelt_feature() -> None:
    assert_refused(memtherm("doctor", environment={"MEMTHERM_WITHOUT": "bfp"}), 2, "unknown feature bfp")
