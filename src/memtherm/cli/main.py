"""The `memtherm` command: finds the subcommand, and turns errors into one line and an exit code."""

import os
import signal
import sys
from typing import Any

import click

from memtherm.cli.lazy import LazyGroup
from memtherm.errors import HostCannot, InvalidInput, MemthermError, TargetGone

# Subcommand → module; imported when it is asked for, so that `--help` stays fast.
_COMMANDS = {
    "doctor": "memtherm.cli.doctor",
    "demo": "memtherm.cli.demo",
    "monitor": "memtherm.cli.monitor",
    "record": "memtherm.cli.record",
    "run": "memtherm.cli.run",
    "check": "memtherm.cli.check",
    "report": "memtherm.cli.report.group",
    "convert": "memtherm.cli.convert",
    "kernel": "memtherm.cli.kernel",
}

EXIT_CODES = {InvalidInput: 2, HostCannot: 3, TargetGone: 4, MemthermError: 1}
_EXIT_FAILED = 1
_EXIT_BROKEN_PIPE = 141
_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Commands(LazyGroup):
    """All commands; a reader that goes away ends them silently."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # click would make a plain failure of it
            _leave_without_output(_EXIT_BROKEN_PIPE)


@click.group(
    cls=Commands,
    modules=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong input, 3 this host cannot or may not, 4 the target is gone.",
)
@click.version_option(package_name="memtherm")
def cli() -> None:
    """See which memory of a running program is hot and which is cold, and act on it.

    Nothing is changed unless you say --apply.
    """


def report_problem(problem: MemthermError) -> None:
    """What, where, why and what to do, on stderr."""
    _complain(str(problem), hint=problem.hint)


def _complain(message: str, *, hint: str) -> None:
    lines = [f"memtherm: error: {message}"]
    print("\n".join([*lines, f"  hint: {hint}"] if hint else lines), file=sys.stderr)


def _leave_without_output(exit_code: int) -> None:
    """Exit where nobody takes our output, as in `memtherm monitor | head`; else Python complains when it flushes."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(exit_code)


def _end(signal_number: int, _frame: object) -> None:
    """Unwind, so that a program that we started is ended; a second signal does not break that off."""
    for number in _ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + signal_number)


def _prepare_process() -> None:
    for number in _ENDING_SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, _end)
    if sys.stdout is None:  # closed by the shell: `>&-`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # for the rest of the process
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            # A terminal of another character set shows `?` for what it lacks.
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]


def main() -> None:
    """Entry point; always leaves by sys.exit."""
    _prepare_process()
    try:
        status = cli.main(args=sys.argv[1:] or ["--help"], standalone_mode=False)
        sys.stdout.flush()
        sys.exit(status)
    except click.ClickException as problem:
        context = getattr(problem, "ctx", None)
        hint = f"`{context.command_path if context else 'memtherm'} --help` shows what it takes"
        _complain(problem.format_message(), hint=hint)
        sys.exit(problem.exit_code)
    except BrokenPipeError:
        _leave_without_output(_EXIT_BROKEN_PIPE)
    except MemthermError as problem:
        report_problem(problem)
        sys.exit(next(code for kind, code in EXIT_CODES.items() if isinstance(problem, kind)))
    except OSError as problem:  # such as a full disk behind our output
        _complain(problem.strerror or str(problem), hint="")
        _leave_without_output(_EXIT_FAILED)


if __name__ == "__main__":
    main()
