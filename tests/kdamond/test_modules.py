"""DAMON's modules over a folder that behaves like /sys/module: units, what is written and in which order, refusals."""

from collections.abc import Mapping
from pathlib import Path

import click
import pytest

from memtherm.cli.kernel_options import RECLAIM
from memtherm.errors import HostCannot, InvalidInput, NotPermitted, NotSupported, TargetBusy
from memtherm.kdamond import modules
from memtherm.kdamond.modules import (
    Module,
    Write,
    apply_writes,
    check_allowed,
    plan_writes,
    read_module,
    read_percentiles,
)
from memtherm.kdamond.ownership import Holder, KdamondFacts, TreeState
from support.fake_modules import FakeKernel
from support.privileges import run_as_nobody
from support.requires import require

FREE = TreeState(holder=Holder.FREE, sentence="free")
OTHER = TreeState(holder=Holder.OTHER, sentence="the DAMON tree is occupied by another owner", hint="end it")


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    monkeypatch.delenv("MEMTHERM_WITHOUT", raising=False)
    kernel = FakeKernel(tmp_path)
    monkeypatch.setattr(modules, "_write", kernel.write)
    return kernel


def apply(kernel: FakeKernel, changes: Mapping[str, float], *, enable: bool | None = None) -> modules.ModuleState:
    state = read_module(Module.RECLAIM, kernel.root)
    return apply_writes(state, plan_writes(state, changes, enable=enable), look=lambda: FREE)


def test_values_have_units(kernel: FakeKernel) -> None:
    state = read_module(Module.RECLAIM, kernel.root)
    words = {one.name: one.words for one in state.readings}
    values = {one.name: one.value for one in state.readings}
    assert words["min_age"] == "2 min"
    assert words["quota_sz"] == "128 MiB"
    assert words["quota_ms"] == "10 ms"
    assert words["wmarks_high"] == "50 %"
    assert words["bytes_reclaimed_regions"] == "1.50 MiB"
    assert (values["min_age"], values["quota_sz"], values["wmarks_low"]) == (120.0, 134217728, 0.2)
    assert values["skip_anon"] is False
    # Nobody knows it yet, and it is shown as it is.
    assert (words["of_a_later_kernel"], values["of_a_later_kernel"]) == ("some words", "some words")
    assert {one.name for one in state.statistics} == {"bytes_reclaimed_regions", "nr_quota_exceeds"}
    assert "enabled" not in {one.name for one in state.parameters}
    assert (state.is_running, state.thread) == (False, None)


def test_percentiles(kernel: FakeKernel) -> None:
    state = read_module(Module.STAT, kernel.root)
    assert (state.is_running, state.thread) == (True, 56)
    assert read_percentiles(state) == tuple(range(-50, 51))
    (state.folder / "memory_idle_ms_percentiles").write_text("0\n")
    with pytest.raises(NotSupported, match="1 percentiles"):
        read_percentiles(read_module(Module.STAT, kernel.root))


def test_starting_with_new_values(kernel: FakeKernel) -> None:
    state = apply(kernel, {"min_age": 30.0, "quota_sz": 2**26, "skip_anon": True, "wmarks_low": 0.2}, enable=True)
    # What is as wanted is not written, and the module starts last.
    assert kernel.writes == [("min_age", "30000000"), ("quota_sz", "67108864"), ("skip_anon", "Y"), ("enabled", "Y")]
    assert (state.is_running, state.thread) == (True, 4242)
    assert state.text("min_age") == "30000000"


def test_new_values_while_it_runs_and_the_end(kernel: FakeKernel) -> None:
    apply(kernel, {}, enable=True)
    kernel.writes.clear()
    apply(kernel, {"quota_ms": 0.02})
    assert kernel.writes == [("quota_ms", "20"), ("commit_inputs", "Y")]
    kernel.writes.clear()
    assert apply(kernel, {"quota_ms": 0.02}, enable=True).is_running
    assert kernel.writes == []
    state = apply(kernel, {"min_age": 60.0}, enable=False)
    assert kernel.writes == [("enabled", "N"), ("min_age", "60000000")]
    assert not state.is_running


def test_planning_writes_nothing(kernel: FakeKernel) -> None:
    state = read_module(Module.RECLAIM, kernel.root)
    (age, start) = plan_writes(state, {"min_age": 30.0}, enable=True)
    assert age.command == f"echo 30000000 > {kernel.root}/damon_reclaim/parameters/min_age"
    assert (age.words, start.words) == ("30 s", "start it")
    assert kernel.writes == []
    assert kernel.text(Module.RECLAIM, "min_age") == "120000000"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wmarks_low": 0.45}, r"wmarks_low \(45 %\) is above wmarks_mid \(40 %\)"),
        ({"sample_interval": 0.2}, "sample_interval"),
        ({"min_nr_regions": 2}, "below 3"),
        ({"max_nr_regions": 9}, "min_nr_regions"),
        ({"aggr_interval": 0.0, "sample_interval": 0.0}, "is 0"),
        ({"wmarks_high": 1.5}, "above 100 %"),
        ({"wmarks_high": 0.5004}, "1/1000"),
        ({"quota_ms": 0.0125}, "ms"),
        ({"monitor_region_start": 5}, "monitor_region_start"),
    ],
)
def test_values_that_cannot_be_meant(kernel: FakeKernel, changes: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as refused:
        plan_writes(read_module(Module.RECLAIM, kernel.root), changes)
    assert refused.value.hint


def test_what_this_kernel_lacks(kernel: FakeKernel) -> None:
    with pytest.raises(NotSupported, match="has no parameter quota_autotune_feedback"):
        plan_writes(read_module(Module.RECLAIM, kernel.root), {"quota_autotune_feedback": 0.5})
    with pytest.raises(NotSupported, match="this kernel has no DAMON_LRU_SORT"):
        read_module(Module.LRU_SORT, kernel.root)


def test_hidden(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMTHERM_WITHOUT", "damon")
    with pytest.raises(NotSupported):
        read_module(Module.RECLAIM, kernel.root)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (OTHER, "occupied by another owner"),
        (TreeState(holder=Holder.MODULE, sentence="s", modules=("damon_stat",)), "beside DAMON_STAT"),
        (TreeState(holder=Holder.OURS, sentence="ours", kdamonds=(KdamondFacts(0, 9),)), "1 kdamonds run"),
    ],
)
def test_somebody_else_is_never_disturbed(kernel: FakeKernel, tree: TreeState, message: str) -> None:
    state = read_module(Module.RECLAIM, kernel.root)
    with pytest.raises(TargetBusy, match=message) as refused:
        apply_writes(state, plan_writes(state, {"min_age": 30.0}, enable=True), look=lambda: tree)
    assert refused.value.hint
    assert kernel.writes == []


def test_values_without_starting_disturb_nobody_but_another_owner(kernel: FakeKernel) -> None:
    state = read_module(Module.RECLAIM, kernel.root)
    writes = plan_writes(state, {"min_age": 30.0})
    check_allowed(state, writes, TreeState(holder=Holder.MODULE, sentence="s", modules=("damon_stat",)))
    check_allowed(state, (), OTHER)
    with pytest.raises(TargetBusy):
        check_allowed(state, writes, OTHER)
    itself = TreeState(holder=Holder.MODULE, sentence="s", modules=("damon_reclaim",))
    check_allowed(state, plan_writes(state, {}, enable=True), itself)


def test_a_refusal_puts_back_what_was_written(kernel: FakeKernel) -> None:
    kernel.refuses["enabled"] = TargetBusy("DAMON is in use")
    with pytest.raises(TargetBusy):
        apply(kernel, {"min_age": 30.0, "skip_anon": True}, enable=True)
    assert kernel.text(Module.RECLAIM, "min_age") == "120000000"
    assert kernel.text(Module.RECLAIM, "skip_anon") == "N"


def test_a_module_that_does_not_start_is_told(kernel: FakeKernel) -> None:
    kernel.starts = False
    with pytest.raises(HostCannot, match="did not start"):
        apply(kernel, {}, enable=True)
    assert kernel.text(Module.RECLAIM, "enabled") == "N"


def test_a_module_that_stops_on_new_values_is_told(kernel: FakeKernel) -> None:
    apply(kernel, {}, enable=True)
    kernel.survives_commit = False
    with pytest.raises(HostCannot, match="stopped by itself"):
        apply(kernel, {"min_age": 30.0})


def test_new_values_that_are_not_taken_are_told(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    apply(kernel, {}, enable=True)
    monkeypatch.setattr(modules, "_write", kernel.write_file)
    state, now_s = read_module(Module.RECLAIM, kernel.root), [0.0]

    def sleep(time_s: float) -> None:
        now_s[0] += time_s

    with pytest.raises(HostCannot, match="has not taken"):
        apply_writes(
            state,
            plan_writes(state, {"min_age": 30.0}),
            look=lambda: FREE,
            sleep=sleep,
            monotonic_s=lambda: now_s[0],
        )
    assert now_s[0] >= 10


def test_errors_of_the_kernel_in_words() -> None:
    with pytest.raises(HostCannot, match="No such file"):
        modules._write(Write(Path("/proc/self/no_such_file"), "Y"))
    # Files that open but take no write, as the kernel refuses a value.
    with pytest.raises(InvalidInput, match="the kernel refuses echo x >"):
        modules._write(Write(Path("/proc/self/oom_score_adj"), "x"))


def test_who_may_not() -> None:
    require("root")
    with pytest.raises(NotPermitted, match="may not write"):
        run_as_nobody(lambda: modules._write(Write(Path("/proc/sys/vm/swappiness"), "x")))


def parsed(parameter: str, text: str) -> object:
    """What the command line makes of a parameter's option."""
    kind = next(kind for _, name, kind, _ in RECLAIM if name == parameter)
    assert kind is not None
    return kind.convert(text, None, None)


def test_a_goal_may_be_exceeded_which_lowers_the_quota() -> None:
    changes = {"quota_autotune_feedback": parsed("quota_autotune_feedback", "150%")}
    assert changes == {"quota_autotune_feedback": 1.5}
    for wrong in ("150", "-1%", "nan%", "inf%", "x%"):
        with pytest.raises(click.BadParameter, match="share of a goal"):
            parsed("quota_autotune_feedback", wrong)


def test_addresses_are_hexadecimal_where_they_say_so() -> None:
    assert parsed("monitor_region_start", "0x1000") == parsed("monitor_region_start", "4096") == 4096
    assert parsed("monitor_region_end", str(2**64 - 1)) == 2**64 - 1, "not by way of a float"
    for wrong in ("1000h", "-1", str(2**64)):
        with pytest.raises(click.BadParameter, match="no address"):
            parsed("monitor_region_start", wrong)
