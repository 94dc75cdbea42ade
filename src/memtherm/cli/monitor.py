"""`memtherm monitor`: see, live; nothing is changed."""

import json
import sys
from typing import Any

import click

from memtherm.cli.options import Time, WithProgram, interval_options, probe_option, target_options


@click.command("monitor", cls=WithProgram, short_help="See, live, which memory is hot and which is cold.")
@target_options
@interval_options
@probe_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line for each snapshot.")
@click.option("-n", "--limit", type=click.IntRange(min=1), metavar="N", help="Stop after N snapshots.")
@click.option("--every", "every_s", type=Time(), default="1s", show_default=True, help="Time between screens of text.")
def command(
    *,
    probe: str,
    as_json: bool,
    limit: int | None,
    every_s: float,
    **options: Any,
) -> None:
    """Show which memory of a program is hot and which is cold.  Changes nothing.

    \b
    memtherm monitor --pid 4242
    memtherm monitor --name redis-server --json -n 10
    memtherm monitor --name 'worker-*' --user www-data --children
    memtherm monitor -- ./program its arguments

    A program given after `--` is ended with the monitor.  Its output goes to standard error; where it ends
    by itself, its exit status becomes ours.
    """
    from memtherm.cli.child import exit_status, started
    from memtherm.cli.screen import Screen, print_events
    from memtherm.cli.watch import TargetWords, attributes_from, planned_selectors, selector_of_program, selectors_from
    from memtherm.core.attributes import TUNED
    from memtherm.policy.values import Policy
    from memtherm.session.open import monitor
    from memtherm.session.ways import choose_way
    from memtherm.views.plain import plain_snapshot

    words = TargetWords.take(options)
    attributes = attributes_from(options, TUNED)
    targets = selectors_from(words)
    # A program is started only when it can be watched.
    choose_way(probe, attributes=attributes, policy=Policy(), selectors=planned_selectors(words))
    with started(words.program) as child:
        if child is not None:
            targets = (selector_of_program(child.pid, words),)
        with monitor(targets=targets, attributes=attributes, probe=probe) as session:
            screen = Screen(every_s=every_s)
            for reason in session.reasons:
                print(f"memtherm: {reason}", file=sys.stderr)
            for report in session.reports(limit=limit):
                print_events(report.events)
                if as_json:
                    print(json.dumps(plain_snapshot(report.snapshot)), flush=True)
                else:
                    screen.show(report)
            print_events(session.last_events)
        if child is not None:
            sys.exit(exit_status(child, has_ended=session.all_gone))
