"""What a record holds besides snapshots: the mappings of each target, and what targets, host and we use."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress

from memtherm.core.history import MappingTable, TargetVitals, Vitals
from memtherm.core.snapshot import TargetInfo
from memtherm.errors import HostCannot, TargetGone
from memtherm.linux.maps import Mappings, Permission, parse_maps
from memtherm.linux.pressure import read_pressure
from memtherm.linux.process import Process, open_process
from memtherm.linux.swap import read_meminfo

# Pss costs a walk of all pages, about 40 ms per GiB: it is read so seldom that it takes this share of a CPU.
_SHARE_FOR_PSS = 0.001
_PSS_AT_LEAST_EVERY_S = 10.0
_OWN_STATM = "/proc/self/statm"


class DetailReader:
    """Looks at the targets from outside, in the thread of whoever writes the record.

    A target that has gone, or that may not be looked at, gives nothing; it is no error here, because the monitor
    tells of it.
    """

    def __init__(self) -> None:
        self._held = ExitStack()
        self._targets: dict[int, _Target] = {}

    def close(self) -> None:
        self._held.close()
        self._targets.clear()

    def follow(self, targets: Sequence[TargetInfo]) -> None:
        """Look at these from now on; those that are known already stay."""
        for index in range(len(self._targets), len(targets)):
            self._targets[index] = _Target(index, self._open(targets[index]))

    def mappings(self) -> list[MappingTable]:
        """The mappings of each target whose mappings are others than when this was asked last."""
        found = (one.changed_mappings() for one in self._targets.values())
        return [table for table in found if table is not None]

    def vitals(self) -> Vitals:
        """What all use now."""
        found = (one.vitals() for one in self._targets.values())
        own = resource.getrusage(resource.RUSAGE_SELF)
        pressure = read_pressure("memory").value
        some, full = (pressure.some, pressure.full) if pressure is not None else (None, None)
        return Vitals(
            time_s=time.time(),
            targets=tuple(vitals for vitals in found if vitals is not None),
            agent_cpu_s=own.ru_utime + own.ru_stime,
            agent_resident_bytes=_own_resident_bytes(),
            free_memory_bytes=read_meminfo()["MemAvailable"],
            pressure_some_s=some.total_s if some is not None else None,
            pressure_full_s=full.total_s if full is not None else None,
        )

    def _open(self, info: TargetInfo) -> Process | None:
        if info.pid == 0:  # physical memory, which is no process
            return None
        with suppress(TargetGone, HostCannot):
            process = self._held.enter_context(open_process(info.pid))
            if process.identity.start_time_s == info.start_time_s:
                return process
        return None


class _Target:
    """One target: what it showed last, and when its Pss is due."""

    def __init__(self, index: int, process: Process | None) -> None:
        self._index = index
        self._process = process
        self._last_text = b""
        self._pss_due_s = 0.0

    def changed_mappings(self) -> MappingTable | None:
        if self._process is None:
            return None
        try:
            text = self._process.read_file("maps")
            self._process.check_alive()
        except (TargetGone, HostCannot):
            return None
        # Comparing text is a hundred times cheaper than reading it, and mappings change seldom.  Without any the
        # process is about to end: what was seen of it is told by those that it had.
        if not text or text == self._last_text:
            return None
        self._last_text = text
        return _table(self._index, parse_maps(text))

    def vitals(self) -> TargetVitals | None:
        if self._process is None:
            return None
        try:
            stat = self._process.stat()
            return TargetVitals(
                target=self._index,
                resident_bytes=self._process.rss_bytes(),
                swap_bytes=self._process.swap_bytes(),
                proportional_bytes=self._pss_bytes(self._process),
                cpu_s=stat.cpu_s,
            )
        except (TargetGone, HostCannot):
            return None

    def _pss_bytes(self, process: Process) -> int | None:
        began_s = time.monotonic()
        if began_s < self._pss_due_s:
            return None
        pss_bytes = process.proportional_bytes()
        cost_s = time.monotonic() - began_s
        self._pss_due_s = began_s + max(_PSS_AT_LEAST_EVERY_S, cost_s / _SHARE_FOR_PSS)
        return pss_bytes


def _table(target: int, mappings: Mappings) -> MappingTable:
    return MappingTable(
        time_s=time.time(),
        target=target,
        start=mappings.starts,
        end=mappings.ends,
        offset=mappings.offsets,
        permissions=tuple(_permission_texts(mappings.permissions.tolist())),
        path=tuple(mappings.names),
    )


def _permission_texts(permissions: Iterable[int]) -> Iterable[str]:
    for bits in permissions:
        yield "".join(
            (
                "r" if bits & Permission.READ else "-",
                "w" if bits & Permission.WRITE else "-",
                "x" if bits & Permission.EXECUTE else "-",
                "s" if bits & Permission.SHARED else "p",
            )
        )


def _own_resident_bytes() -> int:
    with open(_OWN_STATM, "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
