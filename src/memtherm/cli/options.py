"""Options that several commands share, and the types that read text with units."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from memtherm.errors import InvalidInput
from memtherm.units import parse_size, parse_time

_Command = TypeVar("_Command", bound=Callable[..., Any])
_REGION_COUNT = click.IntRange(3, 1_000_000)


class Time(click.ParamType[float]):
    """`5ms`, `2s`, `10min` → seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            return parse_time(str(value))
        except InvalidInput as problem:
            self.fail(f"{problem}; {problem.hint}", param, ctx)


class Size(click.ParamType[int]):
    """`4KiB`, `2M`, `1.5 GiB` → bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_size(str(value))
        except InvalidInput as problem:
            self.fail(f"{problem}; {problem.hint}", param, ctx)


class AddressRange(click.ParamType[tuple[int, int]]):
    """`0x7f00000-0x7f80000` → start and end."""

    name = "range"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        from memtherm.policy.kinds import parse_addresses

        if isinstance(value, tuple):
            return value
        try:
            return parse_addresses(str(value))
        except InvalidInput as problem:
            self.fail(f"{problem}; {problem.hint}", param, ctx)


class WithProgram(click.Command):
    """A command that takes a program to start after `--`, as the parameter `program`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        program: tuple[str, ...] = ()
        if "--" in args:
            border = args.index("--")
            args, program = args[:border], tuple(args[border + 1 :])
            if not program:
                ctx.fail("no program after `--`")
        rest = super().parse_args(ctx, args)
        ctx.params["program"] = program
        return rest

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- PROGRAM ...]"]


def target_options(command: _Command) -> _Command:
    """`--pid`, `--name`, `--user` and the like: what to watch; see `cli.watch.selectors_from`."""
    for decorate in (
        click.option(
            "--range",
            "ranges",
            metavar="FROM-TO",
            multiple=True,
            type=AddressRange(),
            help="Only these addresses, such as 0x7f0000000000-0x7f8000000000, by the kernel's DAMON; may be repeated.",
        ),
        click.option("--physical", is_flag=True, help="All memory of the host, by the kernel's DAMON."),
        click.option("--children", is_flag=True, help="What these processes start, and have started, too."),
        click.option(
            "--cgroup",
            "cgroups",
            metavar="PATH",
            multiple=True,
            help="Processes in this control group and below it, such as /system.slice/db.service; may be repeated.",
        ),
        click.option("--user", "users", metavar="USER", multiple=True, help="Processes of this user; may be repeated."),
        click.option(
            "--name",
            "names",
            metavar="NAME",
            multiple=True,
            help="Processes with exactly this name, or of a pattern such as 'worker-*'; may be repeated.",
        ),
        click.option("--pid", "pids", metavar="PID", multiple=True, type=int, help="A process; may be repeated."),
    ):
        command = decorate(command)
    return command


def interval_options(command: _Command) -> _Command:
    """DAMON's intervals and limits; an option that is not given leaves the policy's or the default value."""
    for decorate in (
        click.option(
            "--max-regions", "max_nr_regions", type=_REGION_COUNT, metavar="N", help="Most regions.  [default: 1000]"
        ),
        click.option(
            "--min-regions", "min_nr_regions", type=_REGION_COUNT, metavar="N", help="Fewest regions.  [default: 10]"
        ),
        click.option(
            "--update",
            "regions_update_interval_s",
            type=Time(),
            help="Time between looks at the mappings.  [default: 1s]",
        ),
        click.option(
            "--aggregation",
            "aggregation_interval_s",
            type=Time(),
            help="Length of a window.  [default: fits itself]",
        ),
        click.option(
            "--sampling", "sampling_interval_s", type=Time(), help="Time between looks.  [default: it fits itself]"
        ),
        click.option(
            "--method",
            type=click.Choice(["auto", "census", "sampling", "smaps", "kdamond"]),
            help="Count every page, let one speak for its region, ask for whole mappings, or let the kernel's DAMON "
            "watch; auto counts while 1 % of a CPU is enough.",
        ),
    ):
        command = decorate(command)
    return command


def probe_option(command: _Command) -> _Command:
    option = click.option(
        "--probe",
        type=click.Choice(["auto", "bpf", "smaps", "softdirty"]),
        default="auto",
        show_default=True,
        help="The way to see accesses; auto takes the best that this host offers.  softdirty sees writes only.",
    )
    return option(command)
