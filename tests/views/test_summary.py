"""What a report says of the run that it is about."""

from memtherm.core.selection import Selection
from memtherm.views.summary import summary
from views.scene import BEGIN_S, run, with_doubts


def test_time_targets_method_and_doubts() -> None:
    history = with_doubts(run(*([(0, 0, 1, 1, 0.0)] for _ in range(5))), "9 % of the looks came late")
    found = summary(history)
    assert (found.since_s, found.until_s, found.targets) == (BEGIN_S, BEGIN_S + 2.5, (0, 1))
    assert found.methods == ("sampling by simulated",)
    assert found.nr_windows == 5
    assert found.doubts == (("9 % of the looks came late", 1),)


def test_only_what_is_selected() -> None:
    history = with_doubts(run(*([(0, 0, 1, 1, 0.0)] for _ in range(5))), "late")
    early = summary(history, selection=Selection(until_s=BEGIN_S + 1.2, targets=frozenset({1})))
    assert (early.until_s, early.targets, early.nr_windows, early.doubts) == (BEGIN_S + 1.2, (1,), 2, ())
    assert summary(run()).nr_windows == 0
