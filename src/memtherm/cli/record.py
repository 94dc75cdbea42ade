"""`memtherm record`: watch, and keep what was seen in a file."""

import json
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from memtherm.cli.options import Size, Time, WithProgram, interval_options, probe_option, target_options
from memtherm.units import format_size, format_time

if TYPE_CHECKING:
    from memtherm.core.report import Report

DEFAULT_RECORD = "record.memtherm"


@click.command("record", cls=WithProgram, short_help="Watch, and keep what was seen in a file for reports.")
@target_options
@interval_options
@probe_option
@click.option(
    "-o", "--output", "path", default=DEFAULT_RECORD, show_default=True, metavar="FILE", help="The record to write."
)
@click.option("--duration", "duration_s", type=Time(), help="Stop after this time.")
@click.option("-n", "--snapshots", "limit", type=click.IntRange(min=1), metavar="N", help="Stop after N snapshots.")
@click.option("--every", "every_s", type=Time(), help="Keep one snapshot each such time.  [default: all]")
@click.option("--rotate-size", "rotate_bytes", type=Size(), help="Begin a new file when one has this size.")
@click.option("--rotate-every", "rotate_s", type=Time(), help="Begin a new file after this time.")
@click.option("--keep", type=click.IntRange(min=1), metavar="N", help="Of the files of a rotation keep the last N.")
@click.option("--json", "as_json", is_flag=True, help="At the end print one JSON object about the record.")
def command(*, path: str, as_json: bool, **options: Any) -> None:
    """Watch a program and write a record, which `memtherm report` makes answers of.  Changes nothing else.

    \b
    memtherm record -- ./server its arguments
    memtherm record --pid 4242 --duration 1min -o server.memtherm
    memtherm record --cgroup system.slice/db.service --every 10s --rotate-every 1d --keep 7
    memtherm report heatmap

    A record is whole at each moment: it can be read while it grows, and after a crash.  A record that is in the
    way is kept as FILE.old.
    """
    from memtherm.cli.child import exit_status, started
    from memtherm.cli.duration import reports_until
    from memtherm.cli.recorder import Rotation, recording
    from memtherm.cli.screen import print_events
    from memtherm.cli.watch import TargetWords, attributes_from, planned_selectors, selector_of_program, selectors_from
    from memtherm.core.attributes import TUNED
    from memtherm.policy.values import Policy
    from memtherm.session.open import monitor
    from memtherm.session.recording import record_session
    from memtherm.session.ways import choose_way

    _check(options)
    words = TargetWords.take(options)
    probe, every_s, limit = options.pop("probe"), options.pop("every_s"), options.pop("limit")
    duration_s = options.pop("duration_s")
    rotation = Rotation(**{name: options.pop(name) for name in ("rotate_bytes", "rotate_s", "keep")})
    attributes = attributes_from(options, TUNED)
    targets = selectors_from(words)
    # A program is started only when it can be watched.
    choose_way(probe, attributes=attributes, policy=Policy(), selectors=planned_selectors(words))
    with (
        recording(path, attributes=attributes, rotation=rotation) as writer,
        started(words.program) as child,
    ):
        if child is not None:
            targets = (selector_of_program(child.pid, words),)
        summary = _Summary()
        with monitor(targets=targets, attributes=attributes, probe=probe) as session:
            for reason in session.reasons:
                print(f"memtherm: {reason}", file=sys.stderr)
            try:
                reports = reports_until(session, limit=None, duration_s=duration_s)
                with closing(record_session(session, reports, writer, every_s=every_s or 0.0, limit=limit)) as written:
                    for report in written:
                        print_events(report.events)
                        summary.count(report)
            finally:
                # Also after Ctrl-C, which is how most recordings end.
                session.close()
                writer.close()
                print_events(session.last_events)
                summary.print(writer.files, as_json=as_json)
        if child is not None:
            sys.exit(exit_status(child, has_ended=session.all_gone))


def _check(options: dict[str, Any]) -> None:
    """Raises InvalidInput where an option would make no record, or would do nothing."""
    from memtherm.errors import InvalidInput

    for option, name, example in (
        ("--duration", "duration_s", "1min"),
        ("--every", "every_s", "10s"),
        ("--rotate-size", "rotate_bytes", "100MiB"),
        ("--rotate-every", "rotate_s", "1h"),
    ):
        if options[name] == 0:
            raise InvalidInput(
                f"{option} is 0", hint=f"give more than that, such as {option} {example}, or leave it out"
            )
    if options["keep"] is not None and options["rotate_bytes"] is None and options["rotate_s"] is None:
        raise InvalidInput(
            "--keep is for the files of a rotation, and there is none",
            hint="say when to begin a new file: --rotate-size or --rotate-every",
        )


class _Summary:
    """What was written, told at the end."""

    def __init__(self) -> None:
        self._snapshots = self._regions = 0
        self._first_s = self._last_s = 0.0

    def count(self, report: "Report") -> None:
        self._snapshots += 1
        self._regions += len(report.snapshot.regions)
        self._last_s = report.snapshot.time_s
        if self._snapshots == 1:
            self._first_s = report.snapshot.time_s - report.snapshot.conditions.window_s

    def print(self, files: Sequence[Path], *, as_json: bool) -> None:
        """The last of the files has the name that was asked for."""
        size_bytes, time_s = sum(file.stat().st_size for file in files), self._last_s - self._first_s
        *earlier, path = map(str, files)
        if as_json:
            plain = {"path": path, "earlier": earlier, "snapshots": self._snapshots, "regions": self._regions}
            print(json.dumps(plain | {"time_s": round(time_s, 3), "size_bytes": size_bytes}))
            return
        more = (
            f" and {len(earlier)} earlier file{'s' if len(earlier) > 1 else ''} from {earlier[0]} on" if earlier else ""
        )
        print(
            f"{path}{more}: {self._snapshots} snapshots of {format_time(time_s)}, {self._regions} regions, "
            f"{format_size(size_bytes)}"
        )
        if self._snapshots:
            name = "" if path == DEFAULT_RECORD else f" {path}"
            print(f"see it: memtherm report heatmap{name}")
