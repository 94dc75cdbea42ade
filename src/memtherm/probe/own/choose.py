"""Facts about this process and its kernel → ways to watch own memory, best first; and the opening of the best one."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from memtherm.core.protocols import CensusProbe
from memtherm.core.regions import Range
from memtherm.errors import HostCannot, InvalidInput, NotSupported
from memtherm.linux.facts import HostFacts, probe_host
from memtherm.linux.hidden import is_hidden
from memtherm.probe.choose import WRITES_ONLY, Way, choose_probe, rank_probes
from memtherm.probe.own.canary import canary_problem
from memtherm.probe.own.hub import own_hub


@dataclass(frozen=True, kw_only=True)
class OwnFacts:
    """What decides which ways there are, besides the facts about the host.

    Attributes:
        no_userfaultfd: why reads and writes cannot be seen by userfaultfd; empty where they can.
        no_userfaultfd_writes: the same for writes alone.
        has_page_monitor: /proc/PID/clear_refs and smaps are there (CONFIG_PROC_PAGE_MONITOR).
    """

    no_userfaultfd: str
    no_userfaultfd_writes: str
    has_page_monitor: bool


@dataclass(frozen=True, kw_only=True)
class OwnWay:
    """How own memory is watched.

    Attributes:
        name: of the way.
        reasons: a sentence for it, and one for each better way that was passed over.
        writes_only: it does not see what is only read, so that no scheme may take memory for idle by it.
    """

    name: str
    reasons: tuple[str, ...]
    writes_only: bool


def open_own_probe(ranges: Sequence[Range], *, wanted: str = "auto") -> tuple[CensusProbe, OwnWay]:
    """The best way that works for these ranges of this process, begun; `close` of the probe undoes its changes.

    Each way is tried on a mapping of our own first, once a process; one that refuses these ranges is passed over.

    Args:
        ranges: page aligned, ascending, disjoint.
        wanted: a name of WAYS; `auto` takes the best of those that see reads.

    Raises:
        InvalidInput: not a way.
        NotSupported: no way works; the message has the reason of each.
        NotPermitted: the process may not read its own files in /proc.
    """
    if wanted not in ("auto", *WAYS):
        raise InvalidInput(f"{wanted!r} is no way to watch own memory", hint=f"use auto, {', '.join(WAYS)}")
    own_hub()  # without the files of /proc there is no way, and one reason
    opened: list[CensusProbe] = []

    def try_way(name: str) -> str:
        if problem := own_canary_failure(name):
            return problem
        try:
            opened.append(WAYS[name](ranges))
        except HostCannot as refusal:
            return refusal.message
        return ""

    name, reasons = choose_probe(rank_own_probes(probe_host(), look_at_own_facts()), wanted=wanted, canary=try_way)
    if not name:
        which = "no way to see accesses to own memory works" if wanted == "auto" else f"the way {wanted} does not work"
        raise NotSupported(
            f"{which} here: {'; '.join(reasons)}",
            hint="`memtherm doctor` shows each way of its section Own memory",
        )
    return opened[0], OwnWay(name=name, reasons=tuple(reasons), writes_only=name in WRITES_ONLY)


def rank_own_probes(facts: HostFacts, own: OwnFacts) -> list[Way]:
    """Every way, best first.  A pure function."""
    newer, no_monitor = "boot Linux {} or newer", "this kernel has no clear_refs and smaps (CONFIG_PROC_PAGE_MONITOR)"
    debian = "boot a kernel with this option, such as any of Debian's"
    return [
        _way(
            "userfaultfd",
            "sees single pages, read or written, without privilege: by userfaultfd read-write protection",
            (own.no_userfaultfd, newer.format("7.3")),
        ),
        _own_bpf(facts),
        _way(
            "smaps",
            "sees parts of 2 MiB, read or written, without privilege: by smaps, on mappings that are cut for it",
            ("" if own.has_page_monitor else no_monitor, debian),
        ),
        _way(
            "userfaultfd-writes",
            "sees writes only, page by page, without privilege; not taken unless asked for",
            (own.no_userfaultfd_writes, newer.format("6.7")),
            ("" if facts.has_pagemap_scan else "this kernel has no PAGEMAP_SCAN", newer.format("6.7")),
        ),
        _way(
            "softdirty",
            "sees writes only, page by page, without privilege; not taken unless asked for",
            ("" if own.has_page_monitor else no_monitor, debian),
            ("" if facts.has_soft_dirty else "this kernel has no soft-dirty bits (CONFIG_MEM_SOFT_DIRTY)", debian),
        ),
    ]


def look_at_own_facts() -> OwnFacts:
    """Asks the kernel.  Less than a millisecond."""
    from memtherm.linux.userfaultfd import Feature, supported_features

    try:
        found, refusal = supported_features(), ""
    except HostCannot as problem:
        found, refusal = Feature(0), problem.message
    tracks_all = Feature.ACCESS | Feature.ACCESS_ASYNC
    return OwnFacts(
        no_userfaultfd=refusal
        or ("" if found & tracks_all == tracks_all else "this kernel's userfaultfd cannot track reads"),
        no_userfaultfd_writes=refusal
        or ("" if Feature.WRITE_ASYNC in found else "this kernel's userfaultfd cannot track writes by itself"),
        has_page_monitor=not is_hidden("page_monitor")
        and all(Path(f"/proc/self/{name}").exists() for name in ("clear_refs", "smaps", "pagemap")),
    )


@functools.cache
def own_canary_failure(name: str) -> str:
    """Why this way fails on known memory of our own, or an empty text; tried once a process."""
    return canary_problem(WAYS[name], writes_only=name in WRITES_ONLY)


def _way(name: str, reason: str, *refusals: tuple[str, str]) -> Way:
    """Usable, unless there is one of these: each why not, empty where it does not hold, and the remedy."""
    for why_not, remedy in refusals:
        if why_not:
            return Way(name, False, why_not, remedy, writes_only=name in WRITES_ONLY)
    return Way(name, True, reason, writes_only=name in WRITES_ONLY)


def _own_bpf(facts: HostFacts) -> Way:
    return next(way for way in rank_probes(facts) if way.name == "bpf")


def _make_userfaultfd(ranges: Sequence[Range]) -> CensusProbe:
    from memtherm.probe.own.userfaultfd import RwpCensusProbe

    return RwpCensusProbe(ranges)


def _make_bpf(ranges: Sequence[Range]) -> CensusProbe:
    from memtherm.probe.own.bpf import OwnBpfCensusProbe

    return OwnBpfCensusProbe(ranges)


def _make_parts(ranges: Sequence[Range]) -> CensusProbe:
    from memtherm.probe.own.parts import PartsCensusProbe

    return PartsCensusProbe(ranges)


def _make_write_userfaultfd(ranges: Sequence[Range]) -> CensusProbe:
    from memtherm.probe.own.userfaultfd import WriteCensusProbe

    return WriteCensusProbe(ranges)


def _make_soft_dirty(ranges: Sequence[Range]) -> CensusProbe:
    from memtherm.probe.own.softdirty import SoftDirtyCensusProbe

    return SoftDirtyCensusProbe(ranges)


WAYS: dict[str, Callable[[Sequence[Range]], CensusProbe]] = {
    "userfaultfd": _make_userfaultfd,
    "bpf": _make_bpf,
    "smaps": _make_parts,
    "userfaultfd-writes": _make_write_userfaultfd,
    "softdirty": _make_soft_dirty,
}
"""The ways to watch own memory, by name, best first."""
