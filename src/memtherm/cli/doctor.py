"""`memtherm doctor`: what this host offers, what not, and what would help."""

import json
from typing import TYPE_CHECKING, Any

import click

from memtherm.units import format_size

if TYPE_CHECKING:
    from memtherm.linux.facts import HostFacts


@click.command("doctor", short_help="What this host offers, what not, and what would help.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(*, as_json: bool) -> None:
    """Show each way to see accesses, each action and what goals can measure: usable or not, why, and what to do.

    Each usable way is tried on a child process whose accesses are known.  Changes nothing else.
    """
    from dataclasses import asdict

    from memtherm.act.choose import rank_actions
    from memtherm.linux.facts import probe_host
    from memtherm.probe.choose import rank_probes
    from memtherm.session.metrics import rank_metrics
    from memtherm.session.open import canary_failure

    facts = probe_host()
    probes = []
    for way in rank_probes(facts):
        failure = canary_failure(way.name) if way.usable else ""
        canary = "not tried" if not way.usable else failure or "passed"
        probes.append(asdict(way) | {"canary": canary, "usable": way.usable and not failure})
    actions = [asdict(way) | {"action": str(way.action)} for way in rank_actions(facts)]
    metrics = [asdict(way) for way in rank_metrics(facts)]
    host = _host(facts)
    if as_json:
        print(json.dumps({"host": host, "probes": probes, "actions": actions, "metrics": metrics}))
        return
    print("Host")
    for name, value in host.items():
        print(f"  {name:<16} {value}")
    print("Ways to see accesses, best first")
    for probe in probes:
        _print_way(probe["name"], probe)
        print(f"  {'':<18} canary on a child process: {probe['canary']}")
    print("Actions on other processes")
    for action in actions:
        _print_way(action["action"], action)
    print("What goals of schemes can measure")
    for metric in metrics:
        _print_way(metric["name"], metric, width=27)


def _host(facts: "HostFacts") -> dict[str, str]:
    """What is worth knowing about the host, in words."""
    swap, thp, psi, damon = facts.swap, facts.huge_pages, facts.memory_pressure, facts.damon
    zram = ", zram among it" if facts.has_zram else ""
    return {
        "kernel": f"{facts.kernel_release} on {facts.machine}, {facts.cpu_count} CPUs",
        "memory": format_size(facts.memory_bytes),
        "user": "root" if facts.effective_user_id == 0 else f"uid {facts.effective_user_id}",
        "swap": f"{format_size(swap.free_bytes)} free of {format_size(swap.total_bytes)}{zram}"
        if swap.total_bytes
        else "none",
        "huge pages": f"{thp.mode}, shared memory {thp.shared_memory_mode}",
        "memory pressure": "measured (PSI)" if psi.value is not None else f"not measured: {psi.reason}",
        "PAGEMAP_SCAN": "yes" if facts.has_pagemap_scan else "no: page maps are read page by page",
        "kernel's DAMON": _damon_words(damon.is_present, damon.kdamonds),
    }


def _damon_words(is_present: bool, kdamonds: int | None) -> str:
    if not is_present:
        return "not in this kernel"
    if kdamonds is None:
        return "present, and may not be looked at"
    return f"present, occupied by another owner ({kdamonds} kdamonds)" if kdamonds else "present, free"


def _print_way(name: str, way: dict[str, Any], *, width: int = 16) -> None:
    print(f"  {'✓' if way['usable'] else '✗'} {name:<{width}} {way['reason']}")
    if way["remedy"]:
        print(f"  {'':<{width + 2}} to change that: {way['remedy']}")
