"""What every probe keeps to: the real ones, the simulated one, and the fake that is public."""

from collections.abc import Iterator

import numpy as np
import pytest

from memtherm.core.ranges import Addresses, Flags
from memtherm.errors import TargetGone
from probe.stages import PAGES, PROCESSES, STAGES, Stage, addresses
from support.children import PAGE_SIZE

TOUCHED = (3, 5, 8, 13, 21, 34, 55, 89, 144)
NOTHING = np.zeros(0, np.uint64)


@pytest.fixture(params=STAGES)
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    one = STAGES[request.param]()
    try:
        yield one
    finally:
        one.close()


def expected(stage: Stage, *pages: int) -> Flags:
    """What is to be seen of the mapping where these pages were touched."""
    seen = np.zeros(PAGES, np.bool_)
    seen[list(pages)] = True
    if stage.probe.grain == "mapping":
        seen[:] = seen.any()
    return seen


def clear_both(stage: Stage) -> None:
    stage.probe.clear(np.concatenate([addresses(stage, 0), addresses(stage, 1)]))


def read(stage: Stage, mapping: int) -> Flags:
    return stage.probe.read(addresses(stage, mapping))


def test_what_is_left_alone_is_not_accessed(stage: Stage) -> None:
    for _ in range(3):
        clear_both(stage)
        assert not read(stage, 0).any()
        assert not read(stage, 1).any()


def test_only_what_was_accessed_since_the_clear_is_seen(stage: Stage) -> None:
    clear_both(stage)
    stage.touch(0, TOUCHED)
    np.testing.assert_array_equal(read(stage, 0), expected(stage, *TOUCHED))
    assert not read(stage, 1).any()


def test_a_look_forgets_nothing(stage: Stage) -> None:
    clear_both(stage)
    stage.touch(0, TOUCHED)
    for _ in range(2):
        np.testing.assert_array_equal(read(stage, 0), expected(stage, *TOUCHED))


def test_a_clear_forgets(stage: Stage) -> None:
    clear_both(stage)
    stage.touch(0, TOUCHED)
    clear_both(stage)
    assert not read(stage, 0).any()
    stage.touch(1, (7,))
    assert not read(stage, 0).any()
    np.testing.assert_array_equal(read(stage, 1), expected(stage, 7))


def test_one_page_is_enough(stage: Stage) -> None:
    clear_both(stage)
    stage.touch(1, (PAGES - 1,))
    np.testing.assert_array_equal(read(stage, 1), expected(stage, PAGES - 1))


def test_answers_stand_in_the_order_of_the_question(stage: Stage) -> None:
    clear_both(stage)
    stage.touch(0, TOUCHED)
    order = np.random.default_rng(1).permutation(np.arange(PAGES).repeat(2))
    np.testing.assert_array_equal(stage.probe.read(addresses(stage, 0)[order]), expected(stage, *TOUCHED)[order])


def test_addresses_inside_of_pages_mean_their_pages(stage: Stage) -> None:
    clear_both(stage)
    stage.touch(0, TOUCHED)
    if stage.probe.name != "scripted":
        np.testing.assert_array_equal(stage.probe.read(addresses(stage, 0) + 123), expected(stage, *TOUCHED))


def test_no_addresses(stage: Stage) -> None:
    stage.probe.clear(NOTHING)
    assert len(stage.probe.read(NOTHING)) == 0


def test_addresses_that_nothing_maps_are_not_accessed(stage: Stage) -> None:
    outside: Addresses = np.array([PAGE_SIZE, stage.starts[0] + PAGES * PAGE_SIZE, (1 << 47) - PAGE_SIZE], np.uint64)
    stage.probe.clear(outside)
    assert not stage.probe.read(outside[:2]).any()


def test_ranges_ascend_and_hold_what_is_mapped(stage: Stage) -> None:
    start, end = (np.array(column) for column in zip(*stage.probe.ranges(), strict=True))
    assert (start < end).all()
    assert (end[:-1] <= start[1:]).all()
    assert not (start % PAGE_SIZE).any()
    assert not (end % PAGE_SIZE).any()
    for first in stage.starts:
        assert ((start <= first) & (first + PAGES * PAGE_SIZE <= end)).any()


def test_what_is_mapped_later_is_in_the_next_ranges(stage: Stage) -> None:
    stage.probe.ranges()
    added = stage.map_more()
    assert any(start <= added < end for start, end in stage.probe.ranges())
    here: Addresses = np.array([added], np.uint64)
    stage.probe.clear(here)
    assert not stage.probe.read(here).any()


def test_it_says_what_it_is(stage: Stage) -> None:
    probe = stage.probe
    assert probe.name
    assert probe.grain in ("page", "mapping")
    assert probe.clearing in ("cold", "clear_refs", "none")
    assert 0 <= probe.unclear_share <= 1
    assert probe.min_sampling_interval_s >= 0
    assert probe.generation == 0


def test_a_target_that_has_exited_is_gone(stage: Stage) -> None:
    clear_both(stage)
    stage.exit()
    for call in (stage.probe.ranges, lambda: clear_both(stage), lambda: read(stage, 0)):
        with pytest.raises(TargetGone) as caught:
            call()
        assert "exited" in str(caught.value) or "gone" in str(caught.value)


def test_close_may_be_called_again(stage: Stage) -> None:
    stage.probe.close()
    stage.probe.close()


@pytest.mark.parametrize("name", PROCESSES)
def test_after_exec_the_new_program_is_watched(name: str) -> None:
    stage = PROCESSES[name]()
    try:
        clear_both(stage)
        stage.child.exec("/bin/sleep", "60")
        while stage.process.stat().name != "sleep":
            pass
        read(stage, 0)
        starts: Addresses = np.array([start for start, _ in stage.probe.ranges()], np.uint64)
        stage.probe.clear(starts)
        assert len(stage.probe.read(starts)) == len(starts)
        if stage.probe.grain == "page":
            assert stage.probe.generation == 1
    finally:
        stage.close()
