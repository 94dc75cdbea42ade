"""`memtherm run`: let schemes act; a dry run unless told to apply."""

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from memtherm.cli.options import Time, WithProgram, interval_options, probe_option, target_options
from memtherm.cli.reload import Reloading

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from memtherm.core.attributes import MonitoringAttributes
    from memtherm.policy.values import Policy, TargetSelector
    from memtherm.record.writer import RecordWriter
    from memtherm.session.session import Session


@click.command("run", cls=WithProgram, short_help="Let schemes act; a dry run unless told to apply.")
@click.argument("policy_path", metavar="[POLICY]", required=False)
@click.option(
    "--scheme",
    "lines",
    metavar="LINE",
    multiple=True,
    help="A scheme: 'min-size max-size min-rate max-rate min-age max-age action'; may be repeated.",
)
@target_options
@click.option("--apply", is_flag=True, help="Act.  Without it nothing is changed.")
@click.option("-n", "--limit", type=click.IntRange(min=1), metavar="N", help="Stop after N windows.")
@click.option("--duration", "duration_s", type=Time(), help="Stop after this time, but not before one window.")
@interval_options
@probe_option
@click.option("--record", "record_path", metavar="FILE", help="Keep all that was seen and done in a record, too.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line for each window.")
@click.option("--tried-regions", is_flag=True, help="With --json: the regions that each scheme was tried on, too.")
@click.option("--every", "every_s", type=Time(), default="1s", show_default=True, help="Time between screens of text.")
def command(*, policy_path: str | None, lines: tuple[str, ...], apply: bool, **options: Any) -> None:
    """Let the schemes of a POLICY file, or those of --scheme, act on a program.

    \b
    memtherm run policy.toml                             # dry run on the policy's targets
    memtherm run policy.toml --pid 4242 --apply
    memtherm run policy.toml --cgroup /system.slice/db.service --children --apply
    memtherm run --scheme '4K max 0% 0% 2min max pageout' --name server --apply
    memtherm run policy.toml --apply -- ./server --port 80

    In a scheme line `min`, `max` and a bare `0` mean no bound; `0%` means never accessed.
    A program given after `--` is ended with the run.  Its output goes to standard error; where it ends by
    itself, its exit status becomes ours.  After SIGHUP the schemes of the POLICY file are read again.
    """
    from memtherm.cli.child import exit_status, started
    from memtherm.cli.watch import TargetWords, attributes_from, planned_selectors, selector_of_program, selectors_from
    from memtherm.session.open import monitor
    from memtherm.session.ways import choose_way

    words = TargetWords.take(options)
    show = _Show(**{name: options.pop(name) for name in ("as_json", "tried_regions", "every_s", "duration_s", "limit")})
    record_path = options.pop("record_path")
    probe = options.pop("probe")
    policy = _policy(policy_path, lines)
    _warn(policy, apply=apply)
    attributes = attributes_from(options, policy.attributes)
    targets = selectors_from(words)
    # A program is started only when it can be watched at once.
    choose_way(
        probe, attributes=attributes, policy=policy, apply=apply, selectors=planned_selectors(words) or policy.targets
    )
    with started(words.program) as child:
        if child is not None:
            targets = (selector_of_program(child.pid, words),)
        _warn_of_labels(policy, targets)
        with (
            _recording(record_path, policy_path, lines, attributes) as writer,
            monitor(targets=targets, policy=policy, apply=apply, attributes=attributes, probe=probe) as session,
            Reloading(policy_path, policy, session) as reloading,
        ):
            show.all(session, between=reloading.look, writer=writer)
        if child is not None:
            sys.exit(exit_status(child, has_ended=session.all_gone))


def _policy(path: str | None, lines: tuple[str, ...]) -> "Policy":
    """The policy of the file, or one of the lines."""
    from memtherm.errors import InvalidInput
    from memtherm.policy.file import load_policy
    from memtherm.policy.scheme_line import parse_scheme_lines
    from memtherm.policy.values import Policy

    if (path is None) == (not lines):
        what = "both a policy file and --scheme were given" if lines else "neither a policy file nor --scheme was given"
        raise InvalidInput(what, hint="give one of the two, such as --scheme '4K max 0% 0% 2min max pageout'")
    if path is not None:
        return load_policy(path)
    return Policy(schemes=parse_scheme_lines("\n".join(lines), source="--scheme"))


def _recording(
    record_path: str | None, policy_path: str | None, lines: tuple[str, ...], attributes: "MonitoringAttributes"
) -> "AbstractContextManager[RecordWriter | None]":
    """The record that was asked for, with the text of the policy in it."""
    from memtherm.cli.recorder import recording

    if record_path is None:
        return nullcontext()
    text = "\n".join(lines) if policy_path is None else Path(policy_path).read_text(encoding="utf-8")
    return recording(record_path, attributes=attributes, policy=text)


def _warn(policy: "Policy", *, apply: bool) -> None:
    from memtherm.policy.warnings import warnings
    from memtherm.session.host_check import host_warnings

    for warning in [*warnings(policy), *host_warnings(policy)]:
        print(f"memtherm: warning: {warning}", file=sys.stderr)
    if not apply:
        print("memtherm: dry run: nothing is changed without --apply", file=sys.stderr)


def _warn_of_labels(policy: "Policy", targets: "tuple[TargetSelector, ...]") -> None:
    """Targets of the command line take the place of the policy's, which some schemes may be meant for."""
    labels = {target.label for target in targets}
    for scheme in policy.schemes if targets else ():
        if scheme.targets and not labels & set(scheme.targets):
            print(
                f'memtherm: warning: scheme "{scheme.name}" is for {", ".join(scheme.targets)}, '
                "and no target of the command line is called so: it does nothing",
                file=sys.stderr,
            )


class _Show:
    """Prints a session's reports until it ends or its time is up."""

    def __init__(
        self, *, as_json: bool, tried_regions: bool, every_s: float, duration_s: float | None, limit: int | None
    ) -> None:
        self._as_json = as_json
        self._tried_regions = tried_regions
        self._every_s = every_s
        self._duration_s = duration_s
        self._limit = limit

    def all(self, session: "Session", *, between: "Callable[[], None]", writer: "RecordWriter | None") -> None:
        """Everything, and into a record where there is a writer; `between` is called after each report."""
        from memtherm.cli.duration import reports_until
        from memtherm.cli.screen import Screen, print_events, scheme_line
        from memtherm.session.recording import record_session
        from memtherm.views.plain import plain_report

        screen = Screen(every_s=self._every_s)
        for reason in session.reasons:
            print(f"memtherm: {reason}", file=sys.stderr)
        report = None
        try:
            reports = reports_until(session, limit=self._limit, duration_s=self._duration_s)
            for report in reports if writer is None else record_session(session, reports, writer):
                print_events(report.events)
                if self._as_json:
                    print(json.dumps(plain_report(report, tried_regions=self._tried_regions)), flush=True)
                else:
                    screen.show(report)
                between()
        finally:
            # Also after Ctrl-C, which is how most runs end.  What is undone at the end is told, too.
            session.close()
            print_events(session.last_events)
            if report is not None and not self._as_json:
                print("in all:")
                for scheme in session.last_schemes:
                    print(scheme_line(scheme))
