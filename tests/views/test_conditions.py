"""The conditions of a run are those of its windows, taken together."""

from dataclasses import replace

import pytest

from memtherm.core.selection import Selection
from memtherm.views.conditions import Share, conditions_of_run
from support.history import ListHistory
from support.rich_run import BEGIN_S, DOUBT, TARGETS, WINDOW_S, rich_run

RUN = rich_run(windows=40, regions_per_mapping=2)


def test_sums_and_bounds() -> None:
    found = conditions_of_run(RUN)
    assert (found.nr_windows, found.window_s) == (40, 20.0)
    assert found.methods == (Share("census", 40),)
    assert found.probes == (Share("bpf", 40),)
    assert found.sampling_interval_s == (0.1, 0.1)
    assert (found.samples, found.late_samples) == (200, 4)
    assert found.agent_cpu_percent == pytest.approx(0.8)
    assert found.doubts == (Share(DOUBT, 4),)
    assert found.nr_doubted == 4


def test_what_changes_is_told_with_its_windows() -> None:
    reports = list(RUN.all_reports)
    for index in range(30, 40):
        snapshot = reports[index].snapshot
        conditions = replace(
            snapshot.conditions,
            method="sampling",
            sampling_interval_s=0.2,
            unclear_share=0.3,
            doubts=(f"{index} % came late", "<0.1 % came late", "the canary failed"),
        )
        reports[index] = replace(reports[index], snapshot=replace(snapshot, conditions=conditions))
    found = conditions_of_run(ListHistory(all_reports=reports))
    assert found.methods == (Share("census", 30), Share("sampling", 10))
    assert found.sampling_interval_s == (0.1, 0.2)
    assert found.unclear_share == 0.3
    assert set(found.doubts) == {Share("<0.1 % came late", 20), Share("the canary failed", 10), Share(DOUBT, 4)}
    assert found.nr_doubted == 14


def test_only_what_is_selected_counts() -> None:
    found = conditions_of_run(RUN, selection=Selection(until_s=BEGIN_S + 3 * WINDOW_S))
    assert (found.nr_windows, found.doubts) == (3, ())


def test_an_empty_run_has_no_conditions() -> None:
    found = conditions_of_run(ListHistory(all_reports=(), of_targets=TARGETS))
    assert (found.nr_windows, found.methods, found.sampling_interval_s) == (0, (), (0.0, 0.0))
    assert found.agent_cpu_percent == 0.0
