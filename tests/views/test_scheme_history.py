"""What schemes did over time, added up."""

from dataclasses import replace

import numpy as np

from memtherm.core.plan import Refusal
from memtherm.core.report import QuotaReport, SchemeReport
from memtherm.core.scheme import Action, SchemeStatistics
from memtherm.core.selection import Selection
from memtherm.views.scheme_history import SchemeState, scheme_histories
from views.scene import BEGIN_S, WINDOW_S, run

SCHEME = SchemeReport(
    name="page out",
    action=Action.PAGEOUT,
    matched_bytes=100,
    tried_bytes=60,
    applied_bytes=40,
    refused=(Refusal("locked", 15), Refusal("shared", 5)),
    total=SchemeStatistics(tried_bytes=60),
    filtered_bytes=7,
    quota=QuotaReport(1000, 60, 0.5),
)
RESTING = replace(
    SCHEME, tried_bytes=0, applied_bytes=0, refused=(Refusal("shared", 50),), is_active=False, state="rests", quota=None
)
OTHER = replace(SCHEME, name="", action=Action.STAT, refused=(), quota=None, matched_bytes=3)


def test_sums_reasons_and_series() -> None:
    history = run(*([] for _ in range(3)))
    schemes = ((SCHEME, OTHER), (RESTING, OTHER), ())
    reports = [replace(one, schemes=done) for one, done in zip(history.all_reports, schemes, strict=True)]
    first, second = scheme_histories(replace(history, all_reports=reports))
    assert (first.name, first.action, second.action) == ("page out", "pageout", "stat")
    assert first.time_s.tolist() == [BEGIN_S + WINDOW_S, BEGIN_S + 2 * WINDOW_S]
    assert first.matched_bytes.tolist() == [100, 100]
    assert first.tried_bytes.tolist() == [60, 0]
    assert first.applied_bytes.tolist() == [40, 0]
    assert first.refused_bytes.tolist() == [20, 50]
    assert first.filtered_bytes.tolist() == [7, 7]
    assert first.is_active.tolist() == [True, False]
    assert first.quota_bytes[0] == 1000
    assert np.isnan(first.quota_bytes[1])
    assert first.goal_score[0] == 0.5
    assert first.refused == (Refusal("shared", 55), Refusal("locked", 15))
    assert first.states == (SchemeState("rests", 1),)
    assert first.last == RESTING
    assert second.matched_bytes.tolist() == [3, 3]


def test_only_the_selected_time() -> None:
    history = run([], [])
    reports = [replace(one, schemes=(SCHEME,)) for one in history.all_reports]
    late = Selection(since_s=BEGIN_S + 1.5 * WINDOW_S)
    assert len(scheme_histories(replace(history, all_reports=reports), selection=late)[0].time_s) == 1
    assert scheme_histories(history) == ()
