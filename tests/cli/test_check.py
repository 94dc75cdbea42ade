"""`memtherm check`: what a policy means, and all that is wrong with it."""

import json
from pathlib import Path

import pytest

from support.command import assert_refused, forked, memtherm


def test_a_good_policy_is_explained(good_policy: str) -> None:
    result = memtherm("check", good_policy)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert 'scheme "count what is cold"' in result.stdout
    assert "was not accessed for 1 second or longer" in result.stdout
    assert "warning" not in result.stdout


def test_all_problems_are_told_with_their_lines(bad_policy: str) -> None:
    result = memtherm("check", bad_policy)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    for line in (1, 4, 7, 8):
        assert f"{bad_policy}:{line}: " in result.stderr
    assert "did you mean version?" in result.stderr
    assert "100 us is the least" in result.stderr


def test_a_single_problem_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text('version = 1\n[[scheme]]\naction = "pageut"\n')
    result = forked("check", str(path))
    assert result.exit_code == 2
    assert result.stderr.count("pageut") == 1


def test_what_may_hurt_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text('version = 1\n[[scheme]]\naction = "pageout"\nage = ">= 5s"\n')
    result = forked("check", str(path))
    assert result.exit_code == 0
    assert "warning: " in result.stdout
    assert "hot memory" in result.stdout


def test_what_this_host_lacks_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text('version = 1\n[[scheme]]\naction = "cold"\naccess_rate = "0%"\nage = ">= 5s"\n')
    result = memtherm("check", str(path), environment={"MEMTHERM_WITHOUT": "process_madvise"})
    assert "warning: on this host: cold: this kernel has no process_madvise" in result.stdout


@pytest.mark.parametrize("path", ["/nonexistent/policy.toml", "/"])
def test_a_file_that_cannot_be_read(path: str) -> None:
    result = forked("check", path)
    assert result.exit_code == 2
    assert f"memtherm: error: {path}: cannot read it" in result.stderr


def test_no_policy() -> None:
    assert_refused(memtherm("check"), 2, "POLICY", "memtherm check --help")


def test_lines_of_seven_numbers(tmp_path: Path) -> None:
    path = tmp_path / "schemes"
    path.write_text("# cold\n4K max 0% 0% 2min max pageout\n4K max oops 0% 2min max pageout\n")
    result = forked("check", str(path))
    assert result.exit_code == 2
    assert f"{path}:3: min-rate: 'oops' is not a percentage" in result.stderr


def test_schemes_that_fight_and_nodes_that_do_not_exist_are_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(
        'version = 1\n[[scheme]]\nname = "out"\naction = "pageout"\naccess_rate = "0%"\nage = ">= 5s"\n'
        '[[scheme]]\nname = "in"\naction = "willneed"\nage = ">= 1min"\n'
        'goals = [{ metric = "free_memory", target = "20%", node = 1000 }]\n'
    )
    result = forked("check", str(path))
    assert result.exit_code == 0
    assert 'warning: schemes "out" and "in" act against each other on memory' in result.stdout
    assert 'warning: on this host: scheme "in": goal free_memory: this host has no memory node 1000' in result.stdout


def test_json_of_damo_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "schemes.json"
    path.write_text('[{"action": "stat", "access_pattern": {"nr_accesses": {"min": "0 %", "max": "0 %"}}}]')
    result = forked("check", str(path))
    assert result.exit_code == 0
    assert "counts memory in regions of any size that was not accessed in the last window" in result.stdout


def test_the_schema_is_json() -> None:
    result = forked("check", "--schema")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["title"] == "memtherm policy"


def test_physical_memory_is_explained_by_name(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text('version = 1\n[[target]]\nphysical = true\n[[scheme]]\naction = "stat"\n')
    result = memtherm("check", str(path), environment={"MEMTHERM_WITHOUT": "damon"})
    assert result.exit_code == 0
    assert "watches physical memory\n" in result.stdout
    assert "None" not in result.stdout
    assert "every page" not in result.stdout
    assert "where it runs: nowhere: only the kernel's DAMON sees physical memory" in result.stdout
    assert "DAMON is hidden by MEMTHERM_WITHOUT" in result.stdout


def test_what_is_left_out_of_damos_json_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "kdamonds.json"
    context = {"targets": [{"pid": 1}], "schemes": [{"action": "stat"}]}
    path.write_text(json.dumps({"kdamonds": [{"refresh_ms": 100, "contexts": [context]}]}))
    result = memtherm("check", str(path))
    assert "note: left out: kdamonds 1: refresh_ms ('100'): " in result.stdout
