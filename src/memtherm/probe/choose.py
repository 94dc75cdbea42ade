"""Facts about the host → ways to see accesses, best first, each with its reason.  A pure function."""

from collections.abc import Callable
from dataclasses import dataclass

from memtherm.linux.facts import HostFacts
from memtherm.linux.walk_machine import walk_refusal

WRITES_ONLY = frozenset({"softdirty", "userfaultfd-writes"})
"""Names of the probes that do not see what is only read: to them memory that is read looks idle."""

_BPF_CAPABILITIES = ("CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_SYS_NICE", "CAP_SYS_ADMIN")


@dataclass(frozen=True)
class Way:
    """One probe on this host.

    Attributes:
        name: the probe's.
        usable: whether it can be tried; the canary has the last word.
        reason: why it is usable or not.
        remedy: what would make it usable; empty where it is.
        writes_only: it does not see what is only read; taken only where it is asked for by name.
    """

    name: str
    usable: bool
    reason: str
    remedy: str = ""
    writes_only: bool = False


def rank_probes(facts: HostFacts) -> list[Way]:
    """Every probe, best first."""
    return [_bpf(facts), _smaps(), _soft_dirty(facts)]


def _bpf(facts: HostFacts) -> Way:
    unknown_tables = walk_refusal(facts.machine, facts.page_size_bytes)
    missing = [name for name in _BPF_CAPABILITIES if name not in facts.capabilities]
    needs = [
        (not unknown_tables, unknown_tables, "use smaps"),
        (facts.has_bpf, "this kernel has no BPF", "boot a kernel with CONFIG_BPF_SYSCALL, Linux 6.1 or newer"),
        (
            facts.has_btf,
            "this kernel has no type information (/sys/kernel/btf/vmlinux)",
            "boot a kernel with CONFIG_DEBUG_INFO_BTF, such as any of Debian's",
        ),
        (
            facts.lockdown != "confidentiality",
            "kernel lockdown (confidentiality) forbids BPF to read memory",
            "boot without lockdown=confidentiality",
        ),
        (facts.has_libbpf, "libbpf.so.1 is not installed", "apt-get install libbpf1"),
        (facts.has_process_madvise, "this kernel has no process_madvise", "boot Linux 6.1 or newer"),
        (not missing, f"missing {', '.join(missing)}", "run as root, or grant these capabilities"),
        (
            facts.is_initial_user_namespace,
            "the capabilities here count in this user namespace only",
            "run outside of it, as root of the host",
        ),
    ]
    for is_there, reason, remedy in needs:
        if not is_there:
            return Way("bpf", False, reason, remedy)
    return Way("bpf", True, "sees single pages, read or written, by a walk of the page table")


def _smaps() -> Way:
    return Way("smaps", True, "sees whole mappings, without privilege those of your own processes")


def _soft_dirty(facts: HostFacts) -> Way:
    if not facts.has_soft_dirty:
        return Way(
            "softdirty",
            False,
            "this kernel has no soft-dirty bits",
            "boot a kernel with CONFIG_MEM_SOFT_DIRTY, such as any of Debian's",
            writes_only=True,
        )
    return Way(
        "softdirty",
        True,
        "sees writes only, page by page, without privilege those to your own processes; not taken unless asked for",
        writes_only=True,
    )


Canary = Callable[[str], str]
"""Tries a probe by its name on known memory; returns why it failed, or an empty text."""


def choose_probe(ways: list[Way], *, wanted: str, canary: Canary) -> tuple[str, list[str]]:
    """The best usable way that passes its canary, or the wanted one.

    Returns:
        Its name, empty where there is none, and a sentence for it and for each way that was passed over.
    """
    reasons = []
    for way in ways:
        if wanted != way.name and (wanted != "auto" or way.writes_only):
            continue
        if not way.usable:
            reasons.append(f"not by {way.name}: {way.reason} ({way.remedy})")
            continue
        failure = canary(way.name)
        if failure:
            reasons.append(f"not by {way.name}: {failure}")
            continue
        reasons.append(f"watching by {way.name}: {way.reason}")
        return way.name, reasons
    return "", reasons
