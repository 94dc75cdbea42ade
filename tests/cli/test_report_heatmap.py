"""`memtherm report heatmap`: the picture in characters, in colour, in files; while the record grows; on a terminal."""

import os
import pty
import re
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from cli.report_scene import report, report_json, write_record
from memtherm.cli.report.drawing import Style, heat_lines
from memtherm.record.header import RecordHeader
from memtherm.record.writer import RecordWriter
from memtherm.views.heatmap import heat_map
from support.command import PATIENCE_S, assert_refused, command_line, memtherm, running
from support.rich_run import HEAP, HOT_BYTES, HOT_START, MIB, rich_run
from views.scene import BEGIN_S, mappings_of, run
from views.scene import report as window

HISTORY = rich_run(windows=60, regions_per_mapping=12)
FAR = 1 << 20


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_record(HISTORY, tmp_path_factory.mktemp("heat") / "run.memtherm")


def drawn(*, colour: bool = False, width: int = 80) -> list[str]:
    """Two windows of a hot and a cold page, a fold, and a page that comes late."""
    mappings = (mappings_of(0, (0, 4, "[heap]"), (FAR, FAR + 4, "/lib/libc.so.6")),)
    rows = [(0, 0, 2, 20, 0.0), (0, 2, 4, 0, 0.0)]
    history = run(rows, [*rows, (0, FAR, FAR + 4, 1, 0.0)], mappings=mappings)
    heat = heat_map(history, rows=8, columns=8, whole=True)
    return heat_lines(heat, style=Style(colour), width=width, target_names={}, begin_s=BEGIN_S)


def test_plain_characters_with_folds_names_axis_and_legend() -> None:
    lines = drawn(width=58)
    assert lines[0] == "libc.so.6  0x100000000..0x100004000, 16.0 KiB"
    assert lines[1] == f"libc.so.6 {' ' * 24}{'░' * 24}"
    assert re.fullmatch("┄+ 4.00 GiB folded away, not watched ┄+", lines[5])
    assert lines[6] == "heap  0x0..0x4000, 16.0 KiB"
    assert lines[7] == f"heap      {'·' * 48}"
    assert lines[9] == f"          {'█' * 48}"
    assert lines[11] == f"          └{'─' * 46}┘"
    assert lines[12].split() == ["0", "s", "500", "ms", "1.0", "s"]
    legend = " ".join(" ".join(lines[13:]).split())
    assert legend == (
        "· no access, ░ up to 6.2 %, ▒ up to 25 %, ▓ up to 56 %, █ up to 100 %, blank: not watched "
        "a column is 500 ms, drawn 24 characters wide, a row 4.00 KiB"
    )


def test_colour_draws_two_rows_in_a_line_and_resets_at_its_end() -> None:
    lines = drawn(colour=True)
    picture = [line for line in lines if "▀" in line and "up to" not in line]
    assert len(picture) == 4
    assert all(line.endswith("\x1b[0m") for line in picture)
    assert re.search(r"\x1b\[38;2;\d+;\d+;\d+m", picture[0])


@pytest.mark.parametrize("width", [40, 50, 60, 100])
def test_in_narrow_terminals_names_are_cut_and_nothing_is_wider(record: Path, width: int) -> None:
    text = memtherm(
        "report", "heatmap", str(record), "--whole", environment={"COLUMNS": str(width), "LINES": "24"}
    ).stdout
    assert max(len(line) for line in text.splitlines()) <= width
    beside = any(re.match(r"PostgreSQL?[.\d]* *[·░▒▓█]", line) for line in text.splitlines())
    assert beside


def test_the_hottest_stretch_is_named(record: Path) -> None:
    found = report_json(
        "heatmap", record, "--target", "redis-server", "--address", "heap", "--rows", "24", "--columns", "4"
    )
    heat = np.array(found["heat"])
    hot = np.array(found["row_start"]) >= HOT_START
    hot &= np.array(found["row_end"]) <= HOT_START + HOT_BYTES
    assert (heat[hot] == 1.0).all()
    assert (heat[~hot] < 0.2).all()
    assert [(one["name"], one["start"], one["size_bytes"]) for one in found["ranges"]] == [("heap", HEAP, 96 * MIB)]
    default = report("heatmap", record, "--target", "redis-server").stdout
    assert re.search(r"shown is the hottest of \d stretches; \d+ MiB are not shown: --whole shows all", default)
    whole = report("heatmap", record, "--whole").stdout
    assert "are not shown" not in whole
    for name in ("heap", "stack", "libc.so.6", "PostgreSQL.1804289383", "another process", "folded away, not watched"):
        assert name in whole


def test_what_was_not_watched_is_null_and_hertz_are_hertz(record: Path) -> None:
    found = report_json("heatmap", record, "--target", "python3", "--rows", "4", "--columns", "60", "--unit", "hz")
    heat = [value for row in found["heat"] for value in row]
    assert None in heat
    assert max(value for value in heat if value is not None) <= 10.0 + 1e-6


@pytest.mark.parametrize(("name", "begin"), [("heat.png", b"\x89PNG"), ("heat.svg", b"<?xml")])
def test_pictures(name: str, begin: bytes, record: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = report("heatmap", record, "-o", tmp_path / name)
    assert f"written: {tmp_path / name}" in result.stdout
    assert (tmp_path / name).read_bytes().startswith(begin)


def test_a_picture_that_cannot_be(record: Path, tmp_path: Path) -> None:
    assert_refused(report("heatmap", record, "-o", tmp_path / "heat.pdf"), 2, "heat.pdf", ".png or .svg")
    assert_refused(report("heatmap", record, "--png", tmp_path / "heat.svg"), 2, "heat.svg", ".png")
    pytest.importorskip("matplotlib")
    assert_refused(report("heatmap", record, "-o", tmp_path / "none" / "heat.png"), 2, "heat.png: No such file")


def test_one_page_of_everything(record: Path, tmp_path: Path) -> None:
    result = report("html", record, "-o", tmp_path / "run.html", "--title", "a title")
    assert result.exit_code == 0, result
    assert f"written: {tmp_path / 'run.html'}" in result.stdout
    text = (tmp_path / "run.html").read_text()
    assert "<title>a title</title>" in text
    assert_refused(report("html", record, "-o", tmp_path / "none" / "run.html"), 2, "run.html: No such file")


def terminal_output(environment: dict[str, str], *words: str) -> str:
    """What the command writes to a terminal of its own."""
    master, slave = pty.openpty()
    clean = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLORTERM")}
    with subprocess.Popen(
        command_line("report", *words), stdin=subprocess.DEVNULL, stdout=slave, stderr=slave, env=clean | environment
    ) as process:
        os.close(slave)
        parts = []
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            parts.append(part)
        assert process.wait(PATIENCE_S) == 0
    os.close(master)
    return b"".join(parts).decode()


def test_colour_on_a_terminal_that_has_it_unless_it_is_not_wanted(record: Path) -> None:
    rich = {"COLORTERM": "truecolor", "COLUMNS": "80", "LINES": "24", "PYTHONIOENCODING": "utf-8"}
    assert "\x1b[38;2;" in terminal_output(rich, "heatmap", str(record))
    assert "\x1b[38;2;" not in terminal_output(rich | {"NO_COLOR": "1"}, "heatmap", str(record))
    assert "\x1b[38;2;" not in terminal_output(rich, "heatmap", str(record), "--plain")
    assert "\x1b[38;2;" not in terminal_output(rich | {"COLORTERM": ""}, "heatmap", str(record))


def test_it_is_shown_again_as_the_record_grows_and_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "growing.memtherm"
    with RecordWriter(path, RecordHeader(memtherm_version="0", created_s=BEGIN_S)) as writer:
        writer.add(window(0, [(0, 0, 4, 20, 0.0)]))
        writer.flush()
        with running("report", "wss", str(path), "--follow", "--json") as follower:
            assert follower.stdout is not None
            assert '"size_bytes": [16384]' in follower.stdout.readline()
            writer.add(window(1, [(0, 0, 8, 20, 0.0)]))
            writer.flush()
            assert '"size_bytes": [16384, 32768]' in follower.stdout.readline()
            writer.close()
            deadline = time.monotonic() + PATIENCE_S
            while follower.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            assert follower.returncode == 0
