"""The bar of long reports: on a terminal only, and only when somebody has to wait."""

import io

import pytest

from memtherm.cli.report.progress import Progress, Watched
from memtherm.core.selection import Selection
from memtherm.views.working_set import working_set
from views.scene import BEGIN_S, run

HISTORY = run(*([(0, 0, 4, 20, 0.0)] for _ in range(12)))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, *, clock_s: float, selection: Selection) -> str:
    """What is written while a report reads, where reading each piece takes so long."""
    now_s = 0.0

    def tick() -> float:
        nonlocal now_s
        now_s += clock_s
        return now_s

    monkeypatch.setattr("memtherm.cli.report.progress.time.monotonic", tick)
    monkeypatch.setattr("memtherm.cli.report.progress.sys.stderr", stream)
    bar = Progress()
    working_set(Watched(HISTORY, bar), selection=selection)
    bar.close()
    return stream.getvalue()


def test_it_fills_and_is_wiped(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, Terminal(), clock_s=0.5, selection=Selection())
    assert "reading [" in text
    assert text.rindex("100%") < text.rindex("\r")
    assert text.endswith(" \r")
    assert not text.rpartition("\r")[0].rpartition("\r")[2].strip()


def test_a_part_of_the_record_is_all_of_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    half = Selection(until_s=BEGIN_S + 3.0)
    assert "100%" in shown(monkeypatch, Terminal(), clock_s=1.0, selection=half)


def test_nothing_where_it_is_quick_or_goes_to_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, Terminal(), clock_s=0.001, selection=Selection()) == ""
    assert shown(monkeypatch, io.StringIO(), clock_s=9.0, selection=Selection()) == ""
