"""For each probe a process, real or imagined, that touches just the pages that a test says."""

import os
from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np

from memtherm.core.protocols import Probe
from memtherm.core.ranges import Addresses, Flags
from memtherm.linux.clear_refs import ClearKind, clear
from memtherm.linux.process import open_process
from memtherm.probe.bpf import BpfProbe
from memtherm.probe.simulated import HotRange, SimulatedProbe
from memtherm.probe.smaps import SmapsProbe
from memtherm.probe.softdirty import SoftDirtyProbe
from memtherm.testing import ScriptedProbe, VirtualClock
from support.children import MADV_NOHUGEPAGE, PAGE_SIZE, Child
from support.requires import require

PAGES = 200
_START = 0x7000_0000_0000
MADV_COLD = 20


def write_settled(child: Child, start: int, pages: int) -> None:
    """Write pages, and have the kernel list them for reclaim.

    The up to 31 pages that a processor has mapped last are listed by that processor for itself at first, and
    MADV_COLD by another one passes over them.  A MADV_COLD on the processor that mapped them empties its list.
    """
    os.sched_setaffinity(child.pid, {min(os.sched_getaffinity(0))})
    child.write(start, pages)
    child.madvise(start, pages * PAGE_SIZE, MADV_COLD)
    child.write(start, pages)


class Stage(Protocol):
    """Two mappings of PAGES pages each, all of them written once, and a probe on them."""

    probe: Probe
    starts: tuple[int, int]

    def touch(self, mapping: int, pages: Iterable[int]) -> None:
        """Touch these pages of one of the two mappings."""

    def map_more(self) -> int:
        """One more mapping, of a page; returns its address."""

    def exit(self) -> None:
        """The process ends."""

    def close(self) -> None: ...


def addresses(stage: Stage, mapping: int) -> Addresses:
    return stage.starts[mapping] + np.arange(PAGES, dtype=np.uint64) * np.uint64(PAGE_SIZE)


class ScriptedStage:
    def __init__(self) -> None:
        self.starts = (_START, _START + (1 << 30))
        self._probe = ScriptedProbe(
            [(start, start + PAGES * PAGE_SIZE) for start in self.starts], accessed=self._accessed
        )
        self.probe: Probe = self._probe
        self._touched: dict[int, int] = {}

    def _accessed(self, asked: Addresses) -> Flags:
        """Touched, and in no later clear."""
        return np.array([self._is_accessed(address) for address in asked.tolist()], np.bool_)

    def _is_accessed(self, address: int) -> bool:
        since = self._touched.get(address)
        return since is not None and not any(address in cleared for cleared in self._probe.cleared[since:])

    def touch(self, mapping: int, pages: Iterable[int]) -> None:
        for page in pages:
            self._touched[self.starts[mapping] + page * PAGE_SIZE] = len(self._probe.cleared)

    def map_more(self) -> int:
        start = self.starts[1] + (1 << 30)
        self._probe.mapped.append((start, start + PAGE_SIZE))
        return start

    def exit(self) -> None:
        self._probe.alive = False

    def close(self) -> None:
        self.probe.close()


class SimulatedStage:
    def __init__(self) -> None:
        self.starts = (_START, _START + (1 << 30))
        self._clock = VirtualClock()
        self._probe = SimulatedProbe(
            [(start, start + PAGES * PAGE_SIZE) for start in self.starts], hot=[], clock=self._clock
        )
        self.probe: Probe = self._probe

    def touch(self, mapping: int, pages: Iterable[int]) -> None:
        self._clock.sleep(1)
        now_s = self._clock.monotonic_s()
        for page in pages:
            start = self.starts[mapping] + page * PAGE_SIZE
            once = HotRange(start, start + PAGE_SIZE, period_s=1e9, begin_s=now_s)
            self._probe.hot = (*self._probe.hot, once)
        self._clock.sleep(1)

    def map_more(self) -> int:
        start = self.starts[1] + (1 << 30)
        self._probe.mapped.append((start, start + PAGE_SIZE))
        return start

    def exit(self) -> None:
        self._probe.alive = False

    def close(self) -> None:
        self.probe.close()


class ProcessStage:
    """A real child; `probe` is made by the subclasses."""

    probe: Probe

    def __init__(self) -> None:
        self.child = Child()
        self.process = open_process(self.child.pid)
        self.starts = (self._map(PAGES), self._map(PAGES))

    def _map(self, pages: int) -> int:
        start = self.child.map_aligned(pages * PAGE_SIZE)
        self.child.madvise(start, pages * PAGE_SIZE, MADV_NOHUGEPAGE)
        write_settled(self.child, start, pages)
        return start

    def touch(self, mapping: int, pages: Iterable[int]) -> None:
        for page in pages:
            self.child.read(self.starts[mapping] + page * PAGE_SIZE)

    def map_more(self) -> int:
        return self._map(1)

    def exit(self) -> None:
        self.child.kill()

    def close(self) -> None:
        self.probe.close()
        self.process.close()
        self.child.end()


class BpfStage(ProcessStage):
    def __init__(self) -> None:
        require("root", "bpf", "process_madvise")
        super().__init__()
        self.probe = BpfProbe(self.process)


class SmapsStage(ProcessStage):
    def __init__(self) -> None:
        super().__init__()
        self.probe = SmapsProbe(self.process)

    def touch(self, mapping: int, pages: Iterable[int]) -> None:
        # clear_refs flushes no TLB, and a page that is still in there leaves no mark.  Clearing soft-dirty bits does.
        clear(self.process, ClearKind.SOFT_DIRTY)
        super().touch(mapping, pages)


class SoftDirtyStage(ProcessStage):
    """An access is a write here."""

    def __init__(self) -> None:
        require("soft_dirty")
        super().__init__()
        self.probe = SoftDirtyProbe(self.process)

    def touch(self, mapping: int, pages: Iterable[int]) -> None:
        for page in pages:
            self.child.write(self.starts[mapping] + page * PAGE_SIZE, 1)


PROCESSES: dict[str, Callable[[], ProcessStage]] = {
    "bpf": BpfStage,
    "smaps": SmapsStage,
    "softdirty": SoftDirtyStage,
}
STAGES: dict[str, Callable[[], Stage]] = {"scripted": ScriptedStage, "simulated": SimulatedStage, **PROCESSES}
