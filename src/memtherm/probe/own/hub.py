"""What the watches of one process share: its /proc files, and what clears the marks of all of its memory at once.

clear_refs knows no ranges: one watch that clears would take the accesses from every other.  So the others collect
what they have not seen yet before.  A child of fork begins with a hub of its own, without watches.
"""

import os
import threading
import time
from typing import Protocol

from memtherm.errors import NotPermitted
from memtherm.linux.clear_refs import ClearKind, clear
from memtherm.linux.map_count import read_max_map_count
from memtherm.linux.mapping_cuts import Scratch
from memtherm.linux.maps import DetailedMappings, parse_smaps
from memtherm.linux.process import Process, open_process

# Watches that look at about the same time share a reading; what is accessed meanwhile, the next look finds.
_SHARED_S = 0.02
# All parts of all arrays may have this share of the mappings that a process may have.
_SHARE_OF_MAPPINGS = 8


class Watch(Protocol):
    """One that a clearing of everything would take accesses from."""

    @property
    def clears(self) -> ClearKind:
        """Which marks it sees."""

    def collect(self) -> None:
        """Take in what was accessed so far: it is about to be cleared."""


class Hub:
    """Made by `own_hub`.  Whoever uses more than one of its parts in a row holds `lock`.

    Attributes:
        process: this one.
        lock: for looks and clears; may be taken again by its thread.
    """

    def __init__(self) -> None:
        """Raises NotPermitted where the process may not read its own files in /proc."""
        _check_readable()
        self.process: Process = open_process(os.getpid())
        self.lock = threading.RLock()
        self._watches: list[Watch] = []
        self._nr_parts: dict[int, int] = {}
        self._scratch = Scratch()
        self._reading: DetailedMappings | None = None
        self._read_at_s = 0.0

    def join(self, watch: Watch) -> None:
        with self.lock:
            self._watches.append(watch)

    def leave(self, watch: Watch) -> None:
        """May be called again."""
        with self.lock:
            self._watches = [one for one in self._watches if one is not watch]
            self._nr_parts.pop(id(watch), None)

    def parts_left(self) -> int:
        """How many parts a new watch may cut its mappings into."""
        with self.lock:
            return max(1, read_max_map_count() // _SHARE_OF_MAPPINGS - sum(self._nr_parts.values()))

    def note_parts(self, watch: Watch, count: int) -> None:
        with self.lock:
            self._nr_parts[id(watch)] = count

    def smaps(self, *, not_before_s: float) -> DetailedMappings:
        """The own mappings with their figures; perhaps read for another watch a moment ago.

        Args:
            not_before_s: on the monotonic clock; when the watch looked or cleared last.

        Raises NotSupported without smaps.
        """
        with self.lock:
            if self._reading is None or self._read_at_s < max(not_before_s, time.monotonic() - _SHARED_S):
                self._read_at_s = time.monotonic()
                # Only private and shared memory are told apart here, so that no device has to be looked up.
                self._reading = parse_smaps(self.process.read_file("smaps"))
            return self._reading

    def clear_everything(self, kind: ClearKind, watch: Watch) -> None:
        """Clear these marks of all memory of the process; its other watches have seen theirs before."""
        with self.lock:
            for other in self._watches:
                if other is not watch and other.clears == kind:
                    other.collect()
            clear(self.process, kind)
            if kind != ClearKind.SOFT_DIRTY:  # that one flushes by itself
                self._scratch.flush_tlb()
            self._reading = None

    def empty_lists(self) -> None:
        """After MADV_COLD: what this processor still has in its list could not be cleared at the next look."""
        self._scratch.empty_lists()


def _check_readable() -> None:
    try:
        os.close(os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC))
    except PermissionError as error:
        raise NotPermitted(
            "this process may not read its own /proc/self: it has changed its user, or its program is not readable",
            hint="prctl(PR_SET_DUMPABLE, 1) after the change of user lets it, or start it as that user",
        ) from error
    except FileNotFoundError:  # the ways that need it say so
        return


class _Keeper:
    """The one hub of this process, made when it is asked for."""

    def __init__(self) -> None:
        self._hub: Hub | None = None
        self._making = threading.Lock()
        self._is_registered = False

    def hub(self) -> Hub:
        with self._making:
            if not self._is_registered:
                os.register_at_fork(after_in_child=self._forget)
                self._is_registered = True
            if self._hub is None:
                self._hub = Hub()
            return self._hub

    def _forget(self) -> None:
        """In the child of a fork: the hub, and a lock that a thread of the parent may hold, are the parent's."""
        self._hub, self._making = None, threading.Lock()


_keeper = _Keeper()


def own_hub() -> Hub:
    """The hub of this process."""
    return _keeper.hub()
