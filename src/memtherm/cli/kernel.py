"""`memtherm kernel`: who uses the kernel's own DAMON, and its modules: looked at, and set where asked to."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from memtherm.cli.kernel_options import LRU_SORT, RECLAIM, change_options, parameter_options

if TYPE_CHECKING:
    from memtherm.kdamond.modules import Module, ModuleState, Reading, Write
    from memtherm.kdamond.ownership import TreeState
    from memtherm.views.kernel_stat import IdleRow


@click.group("kernel", short_help="The kernel's own DAMON: who uses it, and its modules.")
def command() -> None:
    """Show who uses the kernel's own DAMON, and show or set its modules.

    Nothing is written unless you say --apply, and nothing ever while somebody else has DAMON.
    """


@command.command("status", short_help="Who has DAMON, which kdamonds and modules there are.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(*, as_json: bool) -> None:
    """Show who has the kernel's DAMON, its kdamonds, its modules and what it can do.  Only reads."""
    from memtherm.kdamond.features import look
    from memtherm.kdamond.modules import Module, is_built, read_module
    from memtherm.kdamond.ownership import KdamondSlots

    slots = KdamondSlots()
    tree = slots.look()
    modules = {module: read_module(module) if is_built(module) else None for module in Module}
    kdamonds = [_plain_kdamond(slots.tree, one.index, one.thread) for one in tree.kdamonds]
    features = look(slots.tree) if tree.kdamonds else None
    present = sorted(features.present) if features else []
    absent = sorted(features.absent) if features else []
    operations = sorted(features.operations) if features and features.operations is not None else None
    if as_json:
        plain = {
            "holder": str(tree.holder),
            "sentence": tree.sentence,
            "hint": tree.hint,
            "kdamonds": kdamonds,
            "modules": {module.value: None if one is None else _plain_module(one) for module, one in modules.items()},
            "features": {"present": present, "absent": absent, "operations": operations},
        }
        print(json.dumps(plain))
        return
    _print_tree(tree, kdamonds)
    for module, state in modules.items():
        print()
        if state is None:
            print(f"{module.label}: not in this kernel")
        else:
            _print_module(state)
    if features is not None:
        print("\nWhat this DAMON can do, as far as the files tell")
        if operations is not None:
            print(f"  watches  {', '.join(operations) or 'nothing'}")
        print(f"  has      {', '.join(present) or 'nothing that is known'}")
        print(f"  lacks    {', '.join(absent) or 'nothing that is known'}")


@command.command("reclaim", short_help="DAMON_RECLAIM: pages out what nobody accesses.")
@parameter_options(RECLAIM)
@change_options
def reclaim(*, enable: bool | None, apply: bool, as_json: bool, **changes: Any) -> None:
    """Show or set DAMON_RECLAIM, which pages out the memory of all programs that nobody accesses.

    \b
    memtherm kernel reclaim
    memtherm kernel reclaim --min-age 2min --quota 128MiB --enable             # what would be written
    memtherm kernel reclaim --min-age 2min --quota 128MiB --enable --apply
    """
    from memtherm.kdamond.modules import Module

    _show_or_set(Module.RECLAIM, changes, enable=enable, apply=apply, as_json=as_json)


@command.command("lru-sort", short_help="DAMON_LRU_SORT: sorts memory for the kernel's reclaim.")
@parameter_options(LRU_SORT)
@change_options
def lru_sort(*, enable: bool | None, apply: bool, as_json: bool, **changes: Any) -> None:
    """Show or set DAMON_LRU_SORT, which tells the kernel's reclaim what is hot and what is cold.

    \b
    memtherm kernel lru-sort
    memtherm kernel lru-sort --hot-access-rate 50% --cold-min-age 2min --enable --apply
    """
    from memtherm.kdamond.modules import Module

    _show_or_set(Module.LRU_SORT, changes, enable=enable, apply=apply, as_json=as_json)


@command.command("stat", short_help="DAMON_STAT: idle times and bandwidth of all memory.")
@change_options
def stat(*, enable: bool | None, apply: bool, as_json: bool) -> None:
    """Show what DAMON_STAT knows of all memory: how long it has been idle, and how much is accessed a second.

    \b
    memtherm kernel stat
    memtherm kernel stat --disable --apply          # makes DAMON free for others
    """
    from memtherm.kdamond.modules import Module, read_percentiles
    from memtherm.views.kernel_stat import idle_rows, idle_shares

    if enable is not None:
        _show_or_set(Module.STAT, {}, enable=enable, apply=apply, as_json=as_json)
        return
    state = _read(Module.STAT)
    percentiles = read_percentiles(state) if state.is_running else ()
    rows = idle_rows(percentiles) if percentiles else ()
    shares = idle_shares(percentiles) if percentiles else ()
    if as_json:
        plain = {
            **_plain_module(state),
            "idle_ms_percentiles": list(percentiles),
            "idle_shares": [{"idle_s": one.idle_s, "share": one.share} for one in shares],
        }
        print(json.dumps(plain))
        return
    _print_head(state)
    for reading in state.statistics:
        if reading.name != "memory_idle_ms_percentiles":
            _print_reading(reading)
    if not percentiles:
        print("  it measures nothing; `memtherm kernel stat --enable --apply` starts it")
        return
    print("How long memory has not been accessed")
    for share in shares:
        print(f"  {share.idle_s:>6g} s or longer   {share.share:>4.0%}")
    print("The same by percentiles of the memory")
    for row in rows:
        print(f"  {row.percent:>3} %   {_idle_words(row)}")


def _idle_words(row: "IdleRow") -> str:
    from memtherm.units import format_time

    return f"idle for {format_time(row.idle_s)}" if row.idle_s >= 0 else f"accessed for {format_time(-row.idle_s)}"


def _read(module: "Module") -> "ModuleState":
    """A module; where this kernel lacks it, the complaint says also who has DAMON."""
    from memtherm.errors import NotSupported
    from memtherm.kdamond.modules import read_module
    from memtherm.kdamond.ownership import Holder, KdamondSlots

    try:
        return read_module(module)
    except NotSupported as problem:
        tree = KdamondSlots().look()
        if tree.holder is not Holder.OTHER:
            raise
        raise NotSupported(
            f"{problem.message}; {tree.sentence}",
            hint=f"{problem.hint}; memtherm's own engine needs neither: `memtherm monitor`, `memtherm run`",
        ) from problem


def _show_or_set(
    module: "Module", options: Mapping[str, Any], *, enable: bool | None, apply: bool, as_json: bool
) -> None:
    from memtherm.kdamond.modules import apply_writes, check_allowed, plan_writes
    from memtherm.kdamond.ownership import Holder, KdamondSlots

    changes = {name: value for name, value in options.items() if value is not None}
    is_asked = bool(changes) or enable is not None
    state = _read(module)
    writes = plan_writes(state, changes, enable=enable) if is_asked else ()
    tree = KdamondSlots().look()
    if apply:
        state = apply_writes(state, writes)
    else:
        check_allowed(state, writes, tree)
    if as_json:
        plain_writes = [{"path": str(one.path), "text": one.text} for one in writes]
        plain = {"writes": plain_writes, "is_applied": apply and is_asked, "tree": tree.sentence}
        print(json.dumps(_plain_module(state) | plain))
        return
    if tree.holder is Holder.OTHER:
        print(f"{tree.sentence[0].upper() + tree.sentence[1:]}: nothing can be set.\n")
    if is_asked:
        _print_writes(writes, apply=apply)
    _print_module(state)


def _print_writes(writes: "tuple[Write, ...]", *, apply: bool) -> None:
    if not writes:
        print("Nothing to write: all is as wanted.\n")
        return
    print("Written, and read back:" if apply else "A dry run; --apply would write:")
    for write in writes:
        print(f"  {write.command}    # {write.words}")
    print()


def _plain_kdamond(tree: Any, index: int, thread: int | None) -> dict[str, Any]:
    """A kdamond, whoever has it; by files that need no lock of the kernel, so that its owner is not disturbed."""
    contexts = []
    for number in tree.numbered(f"{index}/contexts"):
        base = f"{index}/contexts/{number}"
        intervals = f"{base}/monitoring_attrs/intervals"
        contexts.append(
            {
                "operations": tree.read(f"{base}/operations"),
                "sampling_interval_s": tree.read_number(f"{intervals}/sample_us") / 1e6,
                "aggregation_interval_s": tree.read_number(f"{intervals}/aggr_us") / 1e6,
                "nr_targets": tree.read_number(f"{base}/targets/nr_targets"),
                "schemes": [tree.read(f"{base}/schemes/{one}/action") for one in tree.numbered(f"{base}/schemes")],
            }
        )
    return {"index": index, "thread": thread, "contexts": contexts}


def _plain_module(state: "ModuleState") -> dict[str, Any]:
    def plain(readings: "tuple[Reading, ...]") -> dict[str, Any]:
        return {one.name: {"value": one.value, "text": one.text, "unit": str(one.unit)} for one in readings}

    return {
        "module": str(state.module),
        "is_running": state.is_running,
        "thread": state.thread,
        "parameters": plain(state.parameters),
        "statistics": plain(state.statistics),
    }


def _print_tree(tree: "TreeState", kdamonds: list[dict[str, Any]]) -> None:
    from memtherm.units import format_time

    print(tree.sentence[0].upper() + tree.sentence[1:])
    if tree.hint:
        print(f"  {tree.hint}")
    for one in kdamonds:
        thread = one["thread"]
        state = "busy" if thread is None else f"runs as thread {thread}" if thread >= 0 else "does not run"
        print(f"  kdamond {one['index']} {state}")
        for context in one["contexts"]:
            sampling, window = (format_time(context[key]) for key in ("sampling_interval_s", "aggregation_interval_s"))
            schemes = ", ".join(context["schemes"]) or "none"
            print(f"    {context['operations']}, looks every {sampling}, windows of {window}, schemes: {schemes}")


def _print_head(state: "ModuleState") -> None:
    thread = "" if state.thread is None else f" as thread {state.thread}"
    print(f"{state.module.label}: {f'runs{thread}' if state.is_running else 'off'}")


def _print_module(state: "ModuleState") -> None:
    _print_head(state)
    for readings, title in ((state.parameters, "Parameters"), (state.statistics, "Statistics")):
        if readings:
            print(f"  {title}")
            for reading in readings:
                if reading.name != "memory_idle_ms_percentiles":
                    _print_reading(reading)


def _print_reading(reading: "Reading") -> None:
    print(f"    {reading.name:<34} {reading.words}")
