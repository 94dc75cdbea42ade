"""Facts about the host → ways to see accesses, best first, each with its reason.  A pure function."""

from collections.abc import Callable
from dataclasses import dataclass

from memtherm.linux.facts import HostFacts

_BPF_CAPABILITIES = ("CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_SYS_NICE", "CAP_SYS_ADMIN")


@dataclass(frozen=True)
class Way:
    """One probe on this host.

    Attributes:
        name: the probe's.
        usable: whether it can be tried; the canary has the last word.
        reason: why it is usable or not.
        remedy: what would make it usable; empty where it is.
    """

    name: str
    usable: bool
    reason: str
    remedy: str = ""


def rank_probes(facts: HostFacts) -> list[Way]:
    """Every probe, best first."""
    return [_bpf(facts), _smaps()]


def _bpf(facts: HostFacts) -> Way:
    missing = [name for name in _BPF_CAPABILITIES if name not in facts.capabilities]
    needs = [
        (facts.machine == "x86_64", f"the walk knows x86-64 page tables, not {facts.machine}", "use smaps"),
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


Canary = Callable[[str], str]
"""Tries a probe by its name on known memory; returns why it failed, or an empty text."""


def choose_probe(ways: list[Way], *, wanted: str, canary: Canary) -> tuple[str, list[str]]:
    """The best usable way that passes its canary, or the wanted one.

    Returns:
        Its name, empty where there is none, and a sentence for it and for each way that was passed over.
    """
    reasons = []
    for way in ways:
        if wanted not in ("auto", way.name):
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
