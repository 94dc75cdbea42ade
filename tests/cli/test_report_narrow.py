"""`memtherm report` on narrow terminals: tables lose columns and say which, sentences are wrapped, names are cut."""

import re
from pathlib import Path

import pytest

from cli.report_scene import report, write_record
from memtherm.cli.report.plain import table_lines, wrapped
from support.rich_run import rich_run

HISTORY = rich_run(windows=60, regions_per_mapping=12)
HEAD = ("size", "warm", "idle", "mapping")
ROWS = [("1.00 MiB", "–", "5 ms", "a-library-with-a-long-name.so.6"), ("7 B", "1 B", "2 s", "heap")]


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_record(HISTORY, tmp_path_factory.mktemp("narrow") / "run.memtherm")


def test_a_table_with_room_is_whole() -> None:
    assert table_lines(HEAD, ROWS) == table_lines(HEAD, ROWS, width=60, spare=("warm",))
    assert table_lines(HEAD, ROWS)[1] == "1.00 MiB     –  5 ms  a-library-with-a-long-name.so.6"


def test_columns_that_may_go_are_named_below() -> None:
    assert table_lines(HEAD, ROWS, width=32, spare=("warm", "idle")) == [
        "    size  mapping",
        "1.00 MiB  a-library-with-a-long…",
        "     7 B  heap",
        "no room for: warm, idle",
    ]


def test_sentences_are_wrapped_and_pictures_are_not() -> None:
    lines = ["  a sentence that is long", "a  table  that  is  as  wide", "··░▒▓█ ·░▒▓█ ·░▒▓█ ·░▒▓█"]
    assert wrapped(lines, 20) == ["  a sentence that is", "    long", *lines[1:]]
    assert wrapped(lines, 0) == lines


@pytest.mark.parametrize("width", [40, 48, 60])
@pytest.mark.parametrize("kind", ["heatmap", "wss", "distribution", "regions", "mappings", "schemes", "diff"])
def test_nothing_is_wider_than_the_terminal(
    kind: str, width: int, record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.chdir(record.parent)
    result = report(kind, *(["run.memtherm"] * (2 if kind == "diff" else 1)))
    assert (result.exit_code, result.stderr) == (0, "")
    assert [line for line in result.stdout.splitlines() if len(line) > width] == []
    if kind in ("mappings", "diff"):
        assert "heap" in result.stdout
        assert re.search(r" hot |hotter", result.stdout)
        assert width > 40 or "no room for: " in result.stdout


def test_where_nobody_says_how_wide_it_is_tables_are_whole(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    result = report("mappings", record)
    assert "not watched" in result.stdout
    assert "no room" not in result.stdout
