"""`memtherm doctor`: what this host offers, what not, and what would help."""

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from memtherm.probe.choose import Way


@click.command("doctor", short_help="What this host offers, what not, and what would help.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--stop-abandoned", is_flag=True, help="Stop kdamonds that a memtherm left behind when it died.")
def command(*, as_json: bool, stop_abandoned: bool) -> None:
    """Show each way to see accesses, each action and what goals can measure: usable or not, why, and what to do.

    Each usable way is tried on memory whose accesses are known, of a child process or of this one.  Changes nothing
    else, unless told to stop what a memtherm that was killed has left in the kernel.
    """
    from dataclasses import asdict

    from memtherm.act.choose import rank_actions
    from memtherm.cli.host import host_words
    from memtherm.kdamond.ownership import KdamondSlots
    from memtherm.linux.facts import probe_host
    from memtherm.probe.choose import rank_probes
    from memtherm.probe.own.choose import look_at_own_facts, own_canary_failure, rank_own_probes
    from memtherm.session.metrics import rank_metrics
    from memtherm.session.ways import canary_failure

    slots = KdamondSlots()
    done = slots.stop_abandoned() if stop_abandoned else ()
    facts, tree = probe_host(), slots.look()
    probes = [_tried(way, canary_failure) for way in rank_probes(facts)]
    own = [_tried(way, own_canary_failure) for way in rank_own_probes(facts, look_at_own_facts())]
    actions = [asdict(way) | {"action": str(way.action)} for way in rank_actions(facts)]
    metrics = [asdict(way) for way in rank_metrics(facts)]
    host = host_words(facts)
    abandoned = [one.index for one in tree.kdamonds if one.is_abandoned]
    if as_json:
        kernel = {"usable": tree.is_usable, "reason": tree.sentence, "remedy": tree.hint, "abandoned": abandoned}
        plain = {"host": host, "probes": probes, "own": own, "kdamond": kernel, "actions": actions, "metrics": metrics}
        print(json.dumps(plain | ({"stopped": list(done)} if stop_abandoned else {})))
        return
    for sentence in done or (["nothing was left behind"] if stop_abandoned else []):
        print(f"memtherm: {sentence}", file=sys.stderr)
    print("Host")
    for name, value in host.items():
        print(f"  {name:<16} {value}")
    print("Ways to see accesses, best first")
    for probe in probes:
        _print_way(probe["name"], probe)
        print(f"  {'':<18} canary on a child process: {probe['canary']}")
    print("Own memory: ways for a program to watch its arrays, best first")
    for probe in own:
        _print_way(probe["name"], probe, width=18)
        print(f"  {'':<20} canary on a mapping of its own: {probe['canary']}")
    print("The kernel's own DAMON")
    _print_way("kdamond", {"usable": tree.is_usable, "reason": tree.sentence, "remedy": tree.hint})
    if abandoned:
        indices = ", ".join(map(str, abandoned))
        print(f"  ! kdamond {indices} was left behind by a memtherm that died; doctor --stop-abandoned stops it")
    print("Actions on other processes")
    for action in actions:
        _print_way(action["action"], action)
    print("What goals of schemes can measure")
    for metric in metrics:
        _print_way(metric["name"], metric, width=27)


def _tried(way: "Way", canary_failure: Callable[[str], str]) -> dict[str, Any]:
    failure = canary_failure(way.name) if way.usable else ""
    canary = "not tried" if not way.usable else failure or "passed"
    return {
        "name": way.name,
        "usable": way.usable and not failure,
        "reason": way.reason,
        "remedy": way.remedy,
        "writes_only": way.writes_only,
        "canary": canary,
    }


def _print_way(name: str, way: dict[str, Any], *, width: int = 16) -> None:
    print(f"  {'✓' if way['usable'] else '✗'} {name:<{width}} {way['reason']}")
    if way["remedy"]:
        print(f"  {'':<{width + 2}} to change that: {way['remedy']}")
