"""Facts about the host in words, for people and for records."""

from memtherm.linux.facts import HostFacts
from memtherm.units import format_size


def host_words(facts: HostFacts) -> dict[str, str]:
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
