"""One event of the kernel, read without loss of its numbers from an instance of tracefs that is ours alone.

No perf, no trace-cmd: pages of the ring buffer come in binary, are decoded as columns and put in order of time, and
what the ring buffer lost is told.  Documentation/trace/ftrace.rst (instances, per_cpu/cpuN/trace_pipe_raw).
"""

import errno
import fcntl
import itertools
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from memtherm.errors import HostCannot, InvalidInput, NotPermitted, NotSupported
from memtherm.linux.trace_pages import (
    EventFormat,
    PageEvents,
    PageLayout,
    check_entry_header,
    decode_pages,
    parse_event_format,
    parse_page_layout,
)

_USUAL_ROOT = "/sys/kernel/tracing"
_INSTANCE = re.compile(r"memtherm-(?P<pid>\d+)-\d+")
_CLOCK = "mono"  # CLOCK_MONOTONIC, as time.monotonic_ns()
# An event has its time stamp a little before it can be read.
_BEING_WRITTEN_NS = 2_000_000
# Counters of per_cpu/cpuN/stats that count lost events.
_LOST_COUNTERS = ("overrun:", "commit overrun:", "dropped events:")
_numbers = itertools.count()


@dataclass(frozen=True)
class Loss:
    """Events of one processor that were lost, somewhere strictly between two times.

    Attributes:
        after_ns, before_ns: the last event before the gap (0: none) and the first after it.
        count: how many events, of any kind; -1 where the ring buffer does not say.
    """

    cpu: int
    after_ns: int
    before_ns: int
    count: int


@dataclass(frozen=True)
class TraceEvents:
    """What `EventStream.read` found, in order of time over all processors.

    Attributes:
        time_ns: CLOCK_MONOTONIC (int64).
        cpu: where it happened (int32).
        records: the event's fields by name, structured as its `format` file tells.
        losses: gaps; one is told at the latest with the first event that follows it on its processor.
        until_ns: every event before this time has been given by now, or is lost.
    """

    time_ns: NDArray[np.int64]
    cpu: NDArray[np.int32]
    records: NDArray[np.void]
    losses: tuple[Loss, ...]
    until_ns: int

    def __len__(self) -> int:
        return len(self.time_ns)


def find_tracefs(mounts: Path = Path("/proc/self/mounts")) -> Path:
    """Where tracefs is mounted; /sys/kernel/tracing if there are several places.  Raises NotSupported."""
    with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
        lines = [line.split() for line in file]
    places = [
        re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), place)
        for _, place, kind, *_ in lines
        if kind == "tracefs"
    ]
    if not places:
        has_tracefs = "\ttracefs\n" in Path("/proc/filesystems").read_text(encoding="ascii")
        raise NotSupported(
            "tracefs is not mounted" if has_tracefs else "this kernel has no tracefs",
            hint=f"mount -t tracefs nodev {_USUAL_ROOT}" if has_tracefs else "",
        )
    return Path(_USUAL_ROOT if _USUAL_ROOT in places else places[0])


def remove_leftovers(root: Path) -> tuple[str, ...]:
    """Remove the instances of memtherm processes that died without cleaning up; their names.

    One that lives holds a lock on its instance, so that it is known from any pid namespace.
    """
    removed = []
    for instance in sorted((root / "instances").iterdir()):
        match = _INSTANCE.fullmatch(instance.name)
        if match is None or Path("/proc", match["pid"]).exists():
            continue
        with suppress(OSError):  # in use after all, or another memtherm was faster
            directory = os.open(instance, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                instance.rmdir()
                removed.append(instance.name)
            finally:
                os.close(directory)
    return tuple(removed)


class EventStream:
    """The records of one trace event from now on.  A context manager; a thread may use it at a time.

    Attributes:
        event: its format.
        instance: the directory of our instance, for who wants a second look.
    """

    def __init__(self, event: str, *, filter_text: str = "", buffer_bytes: int = 1 << 18, root: Path | None = None):
        """Make an instance and enable the event there.

        Args:
            event: such as `damon:damon_aggregated`.
            filter_text: in the kernel's language, such as `common_pid == 42`; events that fail it cost nothing.
            buffer_bytes: size of the ring buffer of each processor.
            root: where tracefs is; found if not given.

        Raises NotSupported (no tracefs, no such event), NotPermitted (needs root), InvalidInput (the filter).
        """
        root = find_tracefs() if root is None else root
        self.instance = Path()
        self._lock = -1
        self._files: dict[int, int] = {}
        with _InWords(root):
            definition = root / "events" / event.replace(":", "/", 1) / "format"
            if not definition.exists():
                raise NotSupported(f"this kernel has no trace event {event}", hint="see available_events in tracefs")
            self.event: EventFormat = parse_event_format(definition.read_text(encoding="ascii"))
            check_entry_header((root / "events/header_event").read_text(encoding="ascii"))
            self._layout: PageLayout = parse_page_layout((root / "events/header_page").read_text(encoding="ascii"))
            remove_leftovers(root)
            try:
                self._make_instance(root)
                self._enable(event, filter_text, buffer_bytes)
            except BaseException:
                self.close()
                raise
        self._last_ns = dict.fromkeys(self._files, 0)
        self._open_gaps: dict[int, int] = {}
        self._held: list[tuple[int, PageEvents]] = []

    def _make_instance(self, root: Path) -> None:
        while True:
            instance = root / "instances" / f"memtherm-{os.getpid()}-{next(_numbers)}"
            try:
                instance.mkdir()
            except FileExistsError:  # of a memtherm in another pid namespace
                continue
            break
        self.instance = instance
        self._lock = os.open(instance, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _enable(self, event: str, filter_text: str, buffer_bytes: int) -> None:
        enabled = self.instance / "events" / event.replace(":", "/", 1)
        _write(self.instance / "trace_clock", _CLOCK)
        _write(self.instance / "buffer_size_kb", str(-(-buffer_bytes // 1024)))
        # Names of threads are not needed, and the kernel would look at every context switch for them.
        _write(self.instance / "trace_options", "norecord-cmd")
        if filter_text:
            try:
                _write(enabled / "filter", filter_text)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                raise InvalidInput(f"the kernel refuses the event filter {filter_text!r}") from error
        for directory in (self.instance / "per_cpu").iterdir():
            cpu = int(directory.name.removeprefix("cpu"))
            self._files[cpu] = os.open(directory / "trace_pipe_raw", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        _write(enabled / "enable", "1")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Disable the event and remove the instance.  May be called again."""
        for file in self._files.values():
            os.close(file)
        self._files = {}
        if self._lock < 0:
            return
        # Somebody who looks into it keeps it there; without its event it costs nothing, and is a leftover then.
        for name in ("tracing_on", "events/enable"):
            with suppress(OSError):
                _write(self.instance / name, "0")
        with suppress(OSError):
            self.instance.rmdir()
        os.close(self._lock)
        self._lock = -1

    def read(self) -> TraceEvents:
        """All events since the last time.  Does not wait; one system call a page and one more a processor."""
        until_ns = time.monotonic_ns() - _BEING_WRITTEN_NS
        losses: list[Loss] = []
        for cpu, file in self._files.items():
            pages = _pages(file, self._layout.size_bytes)
            if not pages:
                continue
            found = decode_pages(pages, self._layout, self.event)
            self._note_losses(cpu, found, losses)
            if len(found.time_ns):
                self._last_ns[cpu] = int(found.time_ns[-1])
                self._held.append((cpu, found))
        return self._in_order(until_ns, losses)

    def _note_losses(self, cpu: int, found: PageEvents, losses: list[Loss]) -> None:
        """The gaps that an event follows; one that none follows yet waits for it."""
        gaps = list(found.gaps)
        if cpu in self._open_gaps:
            gaps.insert(0, (0, self._open_gaps.pop(cpu)))
        for index, count in gaps:
            if index == len(found.time_ns):
                self._open_gaps[cpu] = count
                continue
            after_ns = int(found.time_ns[index - 1]) if index else self._last_ns[cpu]
            losses.append(Loss(cpu, after_ns, int(found.time_ns[index]), count))

    def _in_order(self, until_ns: int, losses: list[Loss]) -> TraceEvents:
        """What is held up to a time; what is later stays, since another processor may have something before it."""
        held = self._held
        times = np.concatenate([part.time_ns for _, part in held]) if held else np.empty(0, np.int64)
        records = np.concatenate([part.records for _, part in held]) if held else np.empty(0, self.event.dtype)
        cpus = np.repeat(
            np.array([cpu for cpu, _ in held], np.int32), np.array([len(part.time_ns) for _, part in held], np.int64)
        )
        if (times[1:] < times[:-1]).any():
            order = np.argsort(times, kind="stable")
            times, records, cpus = times[order], records[order], cpus[order]
        count = int(np.searchsorted(times, until_ns))
        self._held = [
            (cpu, PageEvents(times[count:][rows], records[count:][rows]))
            for cpu in np.unique(cpus[count:]).tolist()
            for rows in (cpus[count:] == cpu,)
        ]
        return TraceEvents(times[:count], cpus[:count], records[:count], tuple(losses), until_ns)

    def lost_events(self) -> int:
        """How many events the ring buffer has lost since the beginning, by its own counters.

        Exact, while `Loss.count` is -1 where a page has no room for it; about 10 µs for each processor.
        """
        lost = 0
        for cpu in self._files:
            text = (self.instance / f"per_cpu/cpu{cpu}/stats").read_text(encoding="ascii")
            lost += sum(int(line.split()[-1]) for line in text.splitlines() if line.startswith(_LOST_COUNTERS))
        return lost


def _pages(file: int, size_bytes: int) -> list[bytes]:
    """The pages that one processor has for us now, the last of them as far as it is filled."""
    pages = []
    with suppress(BlockingIOError):
        while page := os.read(file, size_bytes):
            pages.append(page)
    return pages


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)


class _InWords:
    """Turns errors of tracefs into those of memtherm."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, OSError) or isinstance(error, HostCannot | InvalidInput):
            return
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise NotPermitted(
                f"may not use tracefs at {self._root}: {os.strerror(error.errno)}",
                hint="run as root; a locked-down kernel forbids it to everybody",
            ) from error
        raise NotSupported(f"tracefs at {self._root}: {os.strerror(error.errno or 0)}") from error
