"""Working sets: by hand, against loops, per target, with their bounds, beside RSS."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memtherm.core.selection import Selection
from memtherm.errors import InvalidInput
from memtherm.views.working_set import weighted_percentiles, working_set
from support.history import ListHistory
from views.scene import BEGIN_S, LOOKS, PAGE, run, runs, vitals


@settings(deadline=None)
@given(runs(), st.integers(0, LOOKS))
def test_it_is_what_snapshots_say(history: ListHistory, hits: int) -> None:
    found = working_set(history, min_access_rate=hits / LOOKS)
    snapshots = [one.snapshot for one in history.all_reports]
    expected = [one.working_set_bytes(min_access_rate=hits / LOOKS) for one in snapshots]
    assert found.of_target(None, found.size_bytes).tolist() == expected
    assert found.of_target(None, found.watched_bytes).tolist() == [
        int(one.regions.size_bytes.sum()) for one in snapshots
    ]
    for target in (0, 1):
        alone = (
            working_set(history, selection=Selection(targets=frozenset({target})), min_access_rate=hits / LOOKS)
            if any((one.regions.target == target).any() for one in snapshots)
            else None
        )
        if alone is not None:
            assert (
                alone.of_target(target, alone.size_bytes).tolist() == found.of_target(target, found.size_bytes).tolist()
            )


def test_targets_are_counted_apart() -> None:
    found = working_set(run([(0, 0, 2, 5, 0.0), (0, 2, 6, 0, 0.0), (1, 0, 3, 1, 0.0)]))
    assert (found.size_bytes / PAGE).tolist() == [[2.0, 3.0]]
    assert found.percentiles(0, points=(50.0,)).size_bytes == (2 * PAGE,)
    assert found.percentiles(None, points=(50.0,)).size_bytes == (5 * PAGE,)


def test_what_counts_for_sure_and_what_may() -> None:
    history = run([(0, 0, 1, 20, 0.0), (0, 1, 3, 6, 0.0), (0, 3, 7, 4, 0.0), (0, 7, 15, 0, 0.0)], error=0.1)
    found = working_set(history, min_access_rate=0.3)
    assert (found.size_bytes[0, 0] / PAGE, found.sure_bytes[0, 0] / PAGE, found.possible_bytes[0, 0] / PAGE) == (
        3,
        1,
        7,
    )
    anything = working_set(history)
    assert anything.sure_bytes[0, 0] == 7 * PAGE
    assert anything.possible_bytes[0, 0] == 15 * PAGE


def test_percentiles_weigh_windows_by_their_length() -> None:
    sizes, lengths = np.array([10, 30, 20]), np.array([8.0, 1.0, 1.0])
    assert weighted_percentiles(sizes, lengths, (0.0, 50.0, 80.0, 81.0, 90.0, 91.0, 100.0)) == (
        10,
        10,
        10,
        20,
        20,
        30,
        30,
    )
    assert weighted_percentiles(sizes, np.zeros(3), (50.0,)) == (20,)


def test_resident_memory_stands_beside_it() -> None:
    history = replace(run([(0, 0, 2, 5, 0.0)], [(0, 0, 2, 5, 0.0)]), all_vitals=[vitals(0, 100, 10), vitals(1, 200)])
    found = working_set(history)
    assert found.resident_of(None).tolist() == [110.0, 200.0]
    assert found.resident_of(0).tolist() == [100.0, 200.0]
    assert np.isnan(found.resident_of(1)).tolist() == [False, True]
    assert np.isnan(found.proportional_bytes).all()


def test_a_selected_time_and_wrong_words() -> None:
    history = run([(0, 0, 2, 5, 0.0)], [(0, 0, 9, 5, 0.0)])
    late = working_set(history, selection=Selection(since_s=BEGIN_S + 0.9))
    assert late.size_bytes.tolist() == [[9 * PAGE, 0]]
    with pytest.raises(InvalidInput, match="access rate of"):
        working_set(history, min_access_rate=1.5)
    with pytest.raises(InvalidInput, match="percentile"):
        late.percentiles(points=(101.0,))
