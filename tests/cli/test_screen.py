"""What `run` shows of a scheme: figures, limits, and what was left out and why."""

from dataclasses import replace

from memtherm.cli.screen import scheme_line, scheme_lines, snapshot_lines
from memtherm.core.plan import Refusal
from memtherm.core.report import QuotaReport, SchemeReport
from memtherm.core.scheme import Action, SchemeStatistics
from memtherm.core.snapshot import TargetInfo
from views.rows import MIB, snapshot

REPORT = SchemeReport(
    name="page out what is cold",
    action=Action.PAGEOUT,
    matched_bytes=512 * MIB,
    tried_bytes=160 * MIB,
    applied_bytes=127 * MIB,
    refused=(Refusal("dry run", 12 * MIB), Refusal("locked", 3 * MIB)),
    total=SchemeStatistics(tried_bytes=2304 * MIB, applied_bytes=2048 * MIB, refused_bytes=MIB),
)


def test_a_scheme_without_limits() -> None:
    assert scheme_lines(REPORT, width=100) == [
        "page out what is cold: matches 512 MiB, tried 160 MiB, applied 127 MiB (2.00 GiB in all)",
        "  left out 12.0 MiB: dry run",
        "  left out 3.00 MiB: locked",
        "  left out 18.0 MiB: not in memory, or no effect was found",
    ]


def test_limits() -> None:
    limited = replace(
        REPORT,
        refused=(),
        tried_bytes=0,
        applied_bytes=0,
        filtered_bytes=40 * MIB,
        is_active=False,
        state="rests: 62.0% of memory is free, and it starts below 40.0%",
        quota=QuotaReport(128 * MIB, 96 * MIB, 0.63),
        free_memory=0.62,
    )
    assert scheme_lines(limited, width=100)[1:] == [
        "  rests: 62.0% of memory is free, and it starts below 40.0%",
        "  quota: 96.0 MiB of 128 MiB used, goal: 63 % of it reached, 62 % of memory is free",
        "  left out 40.0 MiB: by filters",
    ]


def test_a_quota_that_limits_nothing() -> None:
    report = replace(REPORT, refused=(), applied_bytes=160 * MIB, quota=QuotaReport(2**64 // 10_000, MIB))
    assert scheme_lines(report, width=100)[1:] == ["  quota: 1.00 MiB of any amount used"]


def test_counting_has_no_effect_that_could_be_missed() -> None:
    assert len(scheme_lines(replace(REPORT, action=Action.STAT, refused=(), applied_bytes=0), width=100)) == 1


def test_no_line_is_longer_than_the_screen() -> None:
    report = replace(REPORT, name="n" * 60, refused=(Refusal("for a reason that needs many words " * 5, MIB),))
    lines = scheme_lines(report, width=80)
    assert max(map(len, lines)) <= 80
    assert all(line.startswith("  ") for line in lines[1:])


def test_the_sum() -> None:
    assert scheme_line(REPORT) == (
        "page out what is cold: matches 512 MiB now; since the start tried 2.25 GiB, applied 2.00 GiB, refused 1.00 MiB"
    )


def test_many_targets_are_not_all_named() -> None:
    shot = snapshot(*((target, 0, 1, 0.5, 0.0) for target in range(7)))
    shot = replace(shot, targets=tuple(TargetInfo(100 + number, "worker") for number in range(8)))
    lines = snapshot_lines(shot, width=100)
    assert lines[0].endswith("worker (pid 100), worker (pid 101), worker (pid 102), worker (pid 103), and 3 more")
    assert any(line.startswith("     106 ") for line in lines)
