"""DAMON_STAT's percentiles as rows."""

import pytest

from memtherm.views.kernel_stat import idle_rows, idle_shares

# The specification's vector: four regions of equal size, accessed for 1 s and 0.5 s, idle for 0.1 s and 10 s.
PERCENTILES = [-1000] * 25 + [-500] * 25 + [100] * 25 + [10000] * 26


def test_rows() -> None:
    rows = idle_rows(PERCENTILES, shown=(0, 25, 50, 100))
    assert [(row.percent, row.idle_s) for row in rows] == [(0, -1.0), (25, -0.5), (50, 0.1), (100, 10.0)]
    assert len(idle_rows(PERCENTILES)) == 11


def test_shares() -> None:
    shares = idle_shares(PERCENTILES, times_s=(0.0, 0.1, 0.2, 10.0, 10.1))
    assert [share.share for share in shares] == pytest.approx([0.5, 0.5, 0.25, 0.25, 0.0])
    assert idle_shares([5000] * 101, times_s=(5.0,))[0].share == 1.0
