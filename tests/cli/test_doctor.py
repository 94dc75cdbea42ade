"""`memtherm doctor`: each way and each action, usable or not, why, and what to do."""

import json

import pytest

from memtherm.core.scheme import Action
from memtherm.probe.own import bpf, parts, userfaultfd
from support.command import assert_refused, forked, memtherm
from support.privileges import NOBODY
from support.requires import require

# What a fork without any privilege could not load.
LOADED = (bpf, parts, userfaultfd)
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
    assert report.keys() == {"host", "probes", "own", "kdamond", "actions", "metrics"}
    assert [probe["name"] for probe in report["probes"]] == ["bpf", "smaps", "softdirty"]
    assert [action["action"] for action in report["actions"]] == list(Action)
    own = [probe["name"] for probe in report["own"]]
    assert own == ["userfaultfd", "bpf", "smaps", "userfaultfd-writes", "softdirty"]
    for way in report["probes"] + report["own"] + report["actions"] + report["metrics"]:
        assert way["reason"]
        assert way["usable"] or way["remedy"]
    for probe in report["probes"] + report["own"]:
        assert probe["usable"] == (probe["canary"] == "passed")


def test_text_says_the_same() -> None:
    result = memtherm("doctor")
    assert result.exit_code == 0
    assert "canary on a child process: passed" in result.stdout
    assert "✓ smaps" in result.stdout
    assert "✗ lru_prio" in result.stdout
    assert "✓ memory of the host" in result.stdout


def test_own_memory_has_a_section_of_its_own() -> None:
    text = memtherm("doctor").stdout
    section = text[text.index("Own memory: ") : text.index("The kernel's own DAMON")]
    assert "✓ smaps" in section
    assert "canary on a mapping of its own: passed" in section
    for name in ("userfaultfd", "bpf", "userfaultfd-writes", "softdirty"):
        assert f" {name} " in section


def test_own_memory_needs_no_privilege() -> None:
    require("root")
    report = json.loads(forked("doctor", "--json", user_id=NOBODY).stdout)
    ways = {probe["name"]: probe for probe in report["own"]}
    assert (ways["smaps"]["usable"], ways["smaps"]["canary"]) == (True, "passed")
    assert not ways["bpf"]["usable"]
    assert "CAP_BPF" in ways["bpf"]["reason"]
    assert [name for name, way in ways.items() if way["writes_only"]] == ["userfaultfd-writes", "softdirty"]


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
