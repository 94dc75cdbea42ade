"""`memtherm kernel` over a folder that behaves like /sys/module: shown, planned by a dry run, done by --apply."""

import json
from pathlib import Path

import pytest

from memtherm.cli import kernel as _loaded_once  # noqa: F401
from memtherm.kdamond import modules
from memtherm.kdamond.modules import Module
from memtherm.kdamond.ownership import Holder, KdamondSlots, TreeState
from support.command import assert_refused, forked, memtherm
from support.fake_modules import FakeKernel

FREE = TreeState(holder=Holder.FREE, sentence="the DAMON tree is free")
OTHER = TreeState(holder=Holder.OTHER, sentence="the DAMON tree is occupied by another owner", hint="end it")


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    monkeypatch.delenv("MEMTHERM_WITHOUT", raising=False)
    kernel = FakeKernel(tmp_path)
    read_module, is_built = modules.read_module, modules.is_built
    monkeypatch.setattr(modules, "read_module", lambda module, root=kernel.root: read_module(module, root))
    monkeypatch.setattr(modules, "is_built", lambda module, root=kernel.root: is_built(module, root))
    monkeypatch.setattr(modules, "_write", kernel.write)
    monkeypatch.setattr(KdamondSlots, "look", lambda _: FREE)
    return kernel


def test_status_shows_each_module(kernel: FakeKernel) -> None:
    done = forked("kernel", "status")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("The DAMON tree is free\n")
    for text in ("DAMON_RECLAIM: off", "DAMON_LRU_SORT: not in this kernel", "DAMON_STAT: runs as thread 56"):
        assert text in done.stdout
    plain = json.loads(forked("kernel", "status", "--json").stdout)
    assert plain["modules"]["damon_lru_sort"] is None
    assert plain["modules"]["damon_stat"]["is_running"]
    assert (plain["holder"], plain["kdamonds"]) == ("free", [])
    assert kernel.text(Module.RECLAIM, "enabled") == "N"


def test_parameters_with_units(kernel: FakeKernel) -> None:
    lines = [line.split(maxsplit=1) for line in forked("kernel", "reclaim").stdout.splitlines()]
    for name, words in {"min_age": "2 min", "quota_sz": "128 MiB", "wmarks_high": "50 %", "quota_ms": "10 ms"}.items():
        assert [name, words] in lines
    plain = json.loads(forked("kernel", "reclaim", "--json").stdout)
    assert plain["parameters"]["min_age"] == {"value": 120.0, "text": "120000000", "unit": "us"}
    assert plain["statistics"]["nr_quota_exceeds"]["value"] == 3
    assert (plain["writes"], plain["is_applied"]) == ([], False)
    assert kernel.text(Module.RECLAIM, "min_age") == "120000000"


def test_a_dry_run_says_what_it_would_write(kernel: FakeKernel) -> None:
    words = ("kernel", "reclaim", "--min-age", "30s", "--quota", "64MiB", "--watermark-low", "10%", "--skip-anon")
    done = forked(*words, "--enable")
    assert done.exit_code == 0, done.stderr
    head, *lines = done.stdout.split("\n\n")[0].splitlines()
    assert "dry run" in head
    folder = kernel.root / "damon_reclaim" / "parameters"
    assert [line.split("    #")[0].strip() for line in lines] == [
        f"echo 30000000 > {folder}/min_age",
        f"echo 67108864 > {folder}/quota_sz",
        f"echo 100 > {folder}/wmarks_low",
        f"echo Y > {folder}/skip_anon",
        f"echo Y > {folder}/enabled",
    ]
    assert kernel.text(Module.RECLAIM, "min_age") == "120000000"
    assert kernel.text(Module.RECLAIM, "enabled") == "N"


def test_apply_and_the_way_back(kernel: FakeKernel) -> None:
    plain = json.loads(forked("kernel", "reclaim", "--min-age", "30s", "--enable", "--apply", "--json").stdout)
    assert (plain["is_running"], plain["thread"], plain["is_applied"]) == (True, 4242, True)
    assert kernel.text(Module.RECLAIM, "min_age") == "30000000"
    done = forked("kernel", "reclaim", "--quota-time", "20ms", "--apply")
    assert "Written, and read back:" in done.stdout
    assert "DAMON_RECLAIM: runs as thread 4242" in done.stdout
    assert "Nothing to write" in forked("kernel", "reclaim", "--enable", "--apply").stdout
    assert forked("kernel", "reclaim", "--disable", "--apply").exit_code == 0
    assert kernel.text(Module.RECLAIM, "enabled") == "N"


def test_idle_times(kernel: FakeKernel) -> None:
    done = forked("kernel", "stat")
    assert done.exit_code == 0, done.stderr
    assert "DAMON_STAT: runs as thread 56" in done.stdout
    assert "3.26 MiB/s" in done.stdout
    assert "accessed for 50 ms" in done.stdout
    assert "idle for 50 ms" in done.stdout
    plain = json.loads(forked("kernel", "stat", "--json").stdout)
    assert plain["idle_ms_percentiles"] == list(range(-50, 51))
    assert plain["idle_shares"][0] == {"idle_s": 1.0, "share": 0.0}
    assert forked("kernel", "stat", "--disable", "--apply").exit_code == 0
    assert "measures nothing" in forked("kernel", "stat").stdout
    assert not json.loads(forked("kernel", "stat", "--json").stdout)["idle_ms_percentiles"]
    assert kernel.text(Module.STAT, "enabled") == "N"


@pytest.mark.parametrize(
    ("words", "exit_code", "texts"),
    [
        (("reclaim", "--quota", "5 parsecs"), 2, ("--quota", "parsecs")),
        (("reclaim", "--min-age", "5"), 2, ("a time needs a unit",)),
        (("reclaim", "--watermark-low", "45%"), 2, ("wmarks_low (45 %) is above wmarks_mid (40 %)",)),
        (("reclaim", "--autotune"), 3, ("has no parameter autotune_monitoring_intervals",)),
        (("lru-sort", "--enable", "--apply"), 3, ("this kernel has no DAMON_LRU_SORT",)),
        (("nonsense",), 2, ("nonsense",)),
    ],
)
def test_refusals(kernel: FakeKernel, words: tuple[str, ...], exit_code: int, texts: tuple[str, ...]) -> None:
    assert_refused(forked("kernel", *words), exit_code, *texts)
    assert kernel.text(Module.RECLAIM, "enabled") == "N"


@pytest.mark.parametrize("apply", [(), ("--apply",)])
def test_another_owner_is_left_alone(
    kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch, apply: tuple[str, ...]
) -> None:
    monkeypatch.setattr(KdamondSlots, "look", lambda _: OTHER)
    refused = forked("kernel", "reclaim", "--min-age", "30s", *apply)
    assert_refused(refused, 3, "occupied by another owner", "end it")
    assert_refused(forked("kernel", "lru-sort", *apply), 3, "no DAMON_LRU_SORT", "occupied by another owner")
    # To look is no harm.
    assert forked("kernel", "reclaim").exit_code == 0
    assert kernel.text(Module.RECLAIM, "min_age") == "120000000"


def test_help() -> None:
    text = memtherm("kernel", "--help").stdout
    for name in ("status", "reclaim", "lru-sort", "stat"):
        assert f"\n  {name} " in text
    assert "--min-age" in memtherm("kernel", "reclaim", "--help").stdout
    assert "--cold-min-age" in memtherm("kernel", "lru-sort", "--help").stdout
