"""Pictures show the numbers of views, at the right place, and the same way each time."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.image import imread

from memtherm.core.history import History
from memtherm.core.selection import Selection
from memtherm.errors import InvalidInput
from memtherm.plot.colours import heat_colours, heat_level
from memtherm.plot.figures import Frame, frame_of, save_distribution, save_heat_map, save_working_set
from memtherm.views.distribution import distribution
from memtherm.views.heatmap import HeatMap, heat_map
from memtherm.views.working_set import working_set
from support.history import ListHistory
from support.rich_run import rich_run

RUN = rich_run(windows=40)
REDIS = Selection(targets=frozenset({0}))


def draw(kind: str, path: Path, run: History = RUN) -> bytes:
    frame = frame_of(run)
    if kind == "heat":
        save_heat_map(heat_map(run, rows=120, columns=200, whole=True), path, frame=frame)
    elif kind == "working set":
        save_working_set(working_set(run), path, frame=frame)
    else:
        save_distribution(distribution(run), path, frame=frame)
    return path.read_bytes()


KINDS = pytest.mark.parametrize("kind", ["heat", "working set", "distribution"])


@KINDS
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_same_numbers_give_the_same_bytes(tmp_path: Path, kind: str, suffix: str) -> None:
    first = draw(kind, tmp_path / f"first{suffix}")
    assert draw(kind, tmp_path / f"second{suffix}") == first
    assert len(first) > 10_000
    assert b"dc:date" not in first


@KINDS
def test_pictures_are_large_enough_to_read(tmp_path: Path, kind: str) -> None:
    draw(kind, tmp_path / "a.png")
    pixels = imread(tmp_path / "a.png")
    assert pixels.shape[1] >= 1500
    assert pixels.shape[0] >= 550
    assert len(np.unique(np.rint(pixels[:, :, :3] * 255) @ np.array([65536, 256, 1]))) > 20


def pixel_rows(pixels: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """The rows of a picture in which most pixels between the axes have a colour."""
    inner = pixels[:, 300:1350, :3]
    return np.flatnonzero((np.abs(inner - colour / 255.0).max(axis=2) < 0.01).mean(axis=1) > 0.9)


def test_what_is_hot_all_the_time_is_a_bright_line_where_it_belongs(tmp_path: Path) -> None:
    found = heat_map(RUN, selection=REDIS, rows=200, columns=200, whole=True)
    save_heat_map(found, tmp_path / "a.png", frame=frame_of(RUN))
    pixels = imread(tmp_path / "a.png")
    bright = pixel_rows(pixels, heat_colours()[255])
    height = pixels.shape[0]
    bottom, axis = 0.085 * height, 0.845 * height
    # 16 MiB of 96 MiB of the lowest range, from a sixth of it on; the picture begins at the bottom.
    heap = found.ranges[0]
    share = (heap.end_row - heap.first_row) / len(found.row_start)
    assert len(bright) == pytest.approx(share / 6 * axis, rel=0.15)
    assert height - bright.mean() - bottom == pytest.approx(share * 0.25 * axis, rel=0.12)
    assert len(pixel_rows(pixels, heat_colours()[0])) > 50


def texts(path: Path) -> set[str]:
    """The comments in which matplotlib repeats each text that it draws as a path."""
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    tree = ElementTree.parse(path, parser)
    return {(one.text or "").strip() for one in tree.iter() if callable(one.tag)}


def test_axes_title_and_mappings_are_named(tmp_path: Path) -> None:
    draw("heat", tmp_path / "a.svg")
    found = texts(tmp_path / "a.svg")
    assert "redis-server (4242), postgres (977), python3 (31337), census by bpf" in found
    assert {"heap", "stack", "anonymous", "PostgreSQL.1804289383", "buffer.dat", "python3 (31337)"} <= found
    assert {"0 s", "10 s", "20 s", "time since the record began", "0 %", "100 %"} <= found
    assert any(text.startswith("access rate") for text in found)
    draw("working set", tmp_path / "b.svg")
    assert {"working set", "RSS", "watched", "512 MiB"} <= texts(tmp_path / "b.svg")
    draw("distribution", tmp_path / "c.svg")
    assert {"Access rate", "Idle time", "Temperature", "50 %"} <= texts(tmp_path / "c.svg")


def test_names_are_no_formulas_and_may_be_in_any_script(tmp_path: Path) -> None:
    names = ("$x^{$", "日本語 ♥ \U0001f9ca", "a\nb", "%s \\frac{", "$" * 80)
    mappings = [
        replace(table, path=tuple(names[index % 5] for index in range(len(table)))) for table in RUN.all_mappings
    ]
    targets = tuple(replace(target, name="$\\frac{1}{$") for target in RUN.targets)
    run = ListHistory(all_reports=RUN.all_reports, all_mappings=mappings, of_targets=targets)
    for kind in ("heat", "working set", "distribution"):
        for suffix in (".png", ".svg"):
            assert len(draw(kind, tmp_path / f"a{suffix}", run)) > 10_000


def test_one_window_of_one_region_is_drawn(tmp_path: Path) -> None:
    report = RUN.all_reports[0]
    snapshot = replace(report.snapshot, regions=report.snapshot.regions.take(slice(0, 1)))
    run = ListHistory(all_reports=[replace(report, snapshot=snapshot)], of_targets=RUN.targets)
    for kind in ("heat", "working set", "distribution"):
        assert len(draw(kind, tmp_path / "a.png", run)) > 5_000


def test_heat_in_hz_has_its_own_scale(tmp_path: Path) -> None:
    found = heat_map(RUN, rows=50, columns=50, unit="hz")
    save_heat_map(found, tmp_path / "a.svg", frame=Frame(title="in Hz"))
    assert any("Hz" in text for text in texts(tmp_path / "a.svg"))


@pytest.mark.parametrize("name", ["heat.pdf", "heat", "heat.html"])
def test_other_files_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match=r"png or a \.svg"):
        draw("heat", tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_it_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['matplotlib'] = None; sys.modules['matplotlib.figure'] = None\n"
        "from pathlib import Path\n"
        "from memtherm.errors import NotSupported\n"
        "from memtherm.plot.figures import Frame, save_heat_map\n"
        "try: save_heat_map(None, Path('a.png'), frame=Frame(title=''))\n"
        "except NotSupported as error: print(error.hint)\n"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 'pip install "memtherm[plot]"' in shown.stdout


def test_colours_are_those_of_the_levels() -> None:
    heat: HeatMap = heat_map(RUN, rows=20, columns=20, whole=True)
    level = heat_level(np.nan_to_num(heat.heat), top=1.0)
    assert ((level == 0) == (np.nan_to_num(heat.heat) == 0)).all()
