"""Opens a record, computes a report and shows it: once, or again and again as the record grows."""

import json
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from memtherm.cli.report.choose import choose
from memtherm.cli.report.opened import others_of, with_record
from memtherm.cli.report.options import OutputWords, SelectionWords
from memtherm.cli.report.plain import clean, wrapped
from memtherm.cli.report.progress import Progress, Watched
from memtherm.core.history import History
from memtherm.core.selection import Selection
from memtherm.core.snapshot import TargetInfo
from memtherm.errors import InvalidInput
from memtherm.record.reader import Record
from memtherm.units import format_time
from memtherm.views.summary import Summary, summary

if TYPE_CHECKING:
    from memtherm.plot.figures import Frame

_Result = TypeVar("_Result")

_CLEAR = "\x1b[H\x1b[2J"
_LOOK_EVERY_S = 1.0
# A report that takes long is not made again at once.
_REST = 3.0
_MOST_NAMES = 4
_WIDEST = 160


@dataclass(frozen=True)
class Scene:
    """What a report needs to know of the record besides its numbers."""

    path: str
    targets: tuple[TargetInfo, ...]
    begin_s: float
    selection: Selection
    width: int
    problems: tuple[str, ...] = ()
    other_files: tuple[Path, ...] = ()

    @property
    def table_width(self) -> int:
        """What tables may be wide; 0, no limit, where nobody says how wide the terminal is."""
        return self.width if sys.stdout.isatty() or os.environ.get("COLUMNS") else 0

    def target_name(self, target: int) -> str:
        return clean(f"{self.targets[target].name} ({self.targets[target].pid})")

    def since_begin(self, time_s: float) -> str:
        """A moment, as time since the begin of the record."""
        return format_time(max(0.0, time_s - self.begin_s)) if time_s > self.begin_s else "0 s"


@dataclass(frozen=True)
class Kind(Generic[_Result]):
    """A kind of report: how it is computed, and its faces."""

    compute: Callable[[History, Selection], _Result]
    lines: Callable[[_Result, Scene], list[str]]
    plain: Callable[[_Result], dict[str, Any]]
    draw: "Callable[[_Result, Path, Frame], None] | None" = None


def show(path: str, words: SelectionWords, output: OutputWords, kind: Kind[_Result]) -> None:
    """Show a report of a record; where pictures are wanted, these instead of text.

    Raises:
        InvalidInput: no record, or words that mean nothing in it.
    """

    def use(record: Record) -> None:
        while output.follow and record.time_span_s == (0.0, 0.0) and record.is_growing:
            _wait(record, _LOOK_EVERY_S)
        while True:
            begin_s = time.monotonic()
            _show_once(path, record, words, output, kind)
            if not output.follow:
                return
            if not _wait(record, max(_LOOK_EVERY_S, _REST * (time.monotonic() - begin_s))):
                return

    with_record(path, use, follow=output.follow)


def _wait(record: Record, rest_s: float) -> bool:
    """Until the record has grown; false where it will not any more."""
    time.sleep(rest_s)
    while not record.refresh():
        if not record.is_growing:
            return record.refresh()
        time.sleep(_LOOK_EVERY_S)
    return True


def _show_once(path: str, record: Record, words: SelectionWords, output: OutputWords, kind: Kind[_Result]) -> None:
    selection = choose(record, words)
    progress = Progress()
    try:
        result = kind.compute(Watched(record, progress), selection)
        about = summary(record, selection=selection)
    finally:
        progress.close()
    scene = scene_of(path, record, selection)
    if output.pictures:
        _draw(record, selection, result, output, kind)
    if output.as_json:
        plain = {"record": plain_summary(about, scene), "files": [str(picture) for picture in output.pictures]}
        print(json.dumps(plain | kind.plain(result), allow_nan=False), flush=True)
        return
    if output.pictures:
        print(
            "\n".join([*head_lines(about, scene), *(f"written: {picture}" for picture in output.pictures)]), flush=True
        )
        return
    lines = [*head_lines(about, scene), "", *wrapped(kind.lines(result, scene), scene.table_width)]
    is_again = output.follow and sys.stdout.isatty()
    print((_CLEAR if is_again else "") + "\n".join(lines), flush=True)


def _draw(record: Record, selection: Selection, result: _Result, output: OutputWords, kind: Kind[_Result]) -> None:
    from memtherm.plot.figures import frame_of

    assert kind.draw is not None
    frame = frame_of(record, selection=selection)
    for picture in output.pictures:
        with writing(picture):
            kind.draw(result, picture, frame)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises InvalidInput, with the name of the file, where it cannot be written."""
    try:
        yield
    except OSError as problem:
        raise InvalidInput(f"{path}: {problem.strerror or problem}", hint="name a file that can be written") from None


def scene_of(path: str, record: Record, selection: Selection) -> Scene:
    width = min(_WIDEST, shutil.get_terminal_size().columns)
    return Scene(path, record.targets, record.time_span_s[0], selection, width, record.problems, others_of(record))


def head_lines(about: Summary, scene: Scene) -> list[str]:
    """What the report is about, and whether it can be believed."""
    names = [scene.target_name(target) for target in about.targets]
    more = [f"and {len(names) - _MOST_NAMES} more"] if len(names) > _MOST_NAMES else []
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(about.since_s))
    methods = f", {', '.join(about.methods)}" if about.methods else ""
    head = (
        f"{scene.path}: {', '.join([*names[:_MOST_NAMES], *more])}, "
        f"{format_time(about.until_s - about.since_s)} from {clock}{methods}"
    )
    doubts = [f"do not believe {_of_windows(count, about.nr_windows)}: {doubt}" for doubt, count in about.doubts]
    lines = [head, *(doubts or (["can be believed"] if about.nr_windows else []))]
    return [part for line in lines for part in textwrap.wrap(line, max(20, scene.width), subsequent_indent="  ")]


def _of_windows(count: int, nr_windows: int) -> str:
    return "this" if count == nr_windows else f"{count} of {nr_windows} windows"


def plain_summary(about: Summary, scene: Scene) -> dict[str, Any]:
    """The head of every JSON report."""
    return {
        "path": scene.path,
        "problems": list(scene.problems),
        "other_files": [str(one) for one in scene.other_files],
        "since_s": about.since_s,
        "until_s": about.until_s,
        "begin_s": scene.begin_s,
        "targets": [
            {"index": target, "pid": scene.targets[target].pid, "name": scene.targets[target].name}
            for target in about.targets
        ],
        "methods": list(about.methods),
        "nr_windows": about.nr_windows,
        "nr_doubted": about.nr_doubted,
        "doubts": [{"text": text, "nr_windows": count} for text, count in about.doubts],
        "believable": about.nr_windows > 0 and not about.doubts,
    }
