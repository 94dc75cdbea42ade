"""Precision and recall in bytes, of the first target, where the truth is known."""

from memtherm.views.accuracy import accuracy
from views.rows import MIB, snapshot

KNOWN = [(0, 100 * MIB)]


def in_mib(*ranges: tuple[int, int]) -> list[tuple[int, int]]:
    return [(start * MIB, end * MIB) for start, end in ranges]


def test_seen_and_true_overlap() -> None:
    seen = snapshot((0, 0, 10, 0.0, 0), (0, 10, 30, 0.9, 0), (0, 30, 100, 0.1, 0))
    found = accuracy(seen, hot=in_mib((20, 60)), within=KNOWN, min_access_rate=0.5)
    assert (found.true_bytes, found.seen_bytes, found.both_bytes) == (40 * MIB, 20 * MIB, 10 * MIB)
    assert (found.precision, found.recall) == (0.5, 0.25)


def test_a_rate_at_the_threshold_counts() -> None:
    seen = snapshot((0, 0, 10, 0.5, 0))
    assert accuracy(seen, hot=in_mib((0, 10)), within=KNOWN, min_access_rate=0.5).recall == 1


def test_what_lies_outside_of_the_known_does_not_count() -> None:
    seen = snapshot((0, 90, 150, 0.9, 0))
    found = accuracy(seen, hot=in_mib((90, 100)), within=KNOWN, min_access_rate=0.5)
    assert (found.precision, found.recall) == (1, 1)


def test_other_targets_do_not_count() -> None:
    seen = snapshot((0, 0, 10, 0.9, 0), (1, 0, 100, 0.9, 0))
    assert accuracy(seen, hot=in_mib((0, 10)), within=KNOWN, min_access_rate=0.5).precision == 1


def test_overlapping_truths_count_once() -> None:
    seen = snapshot((0, 0, 10, 0.9, 0))
    assert accuracy(seen, hot=in_mib((0, 6), (4, 10)), within=KNOWN, min_access_rate=0.5).true_bytes == 10 * MIB


def test_nothing_seen_and_nothing_hot() -> None:
    found = accuracy(snapshot(), hot=[], within=KNOWN, min_access_rate=0.5)
    assert (found.precision, found.recall) == (1, 1)
