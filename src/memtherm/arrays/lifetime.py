"""The watches of this process: which memory is taken, and what becomes of them at a fork and at the exit."""

from __future__ import annotations

import atexit
import functools
import os
import threading
from typing import Protocol

from memtherm.core.regions import Range
from memtherm.errors import InvalidInput
from memtherm.probe.own.hub import own_hub

# A fork waits for the step that each watch is in, and no longer than this.
_LONGEST_WAIT_S = 10.0


class Watch(Protocol):
    """A watch that has begun."""

    @property
    def name(self) -> str: ...

    @property
    def range(self) -> Range:
        """Its pages."""

    def pause(self, *, timeout_s: float) -> bool:
        """Let no step run from now on; whether that came about in time."""

    def go_on(self) -> None:
        """After `pause` did."""

    def end_in_child(self, *, is_whole: bool) -> None:
        """This is the child of a fork; `is_whole`: no step was being done in the parent."""

    def close(self) -> None: ...


beginning = threading.RLock()
"""Held while a watch begins, so that no two begin on the same memory, and no fork comes between."""

_watches: dict[int, Watch] = {}
_paused: list[Watch] = []


def begin(watch: Watch) -> None:
    """Take the memory of a watch, which lives from here on until `end`; hold `beginning`.

    Raises InvalidInput where some of it is watched already.
    """
    _register()
    start, end = watch.range
    for other in list(_watches.values()):
        if other is not watch and start < other.range[1] and other.range[0] < end:
            raise InvalidInput(
                f'"{watch.name}" lies on memory that "{other.name}" watches already',
                hint="two watches would take accesses from each other: end the first one, or watch both arrays by one",
            )
    _watches[id(watch)] = watch


def end(watch: Watch) -> None:
    """Give it free.  May be called again, and at any point of the program, as by the garbage collector: no lock."""
    _watches.pop(id(watch), None)


@functools.cache
def _register() -> None:
    # What the ways to watch share begins anew in a child, and has to do so before the watches end there.
    own_hub()
    os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
    atexit.register(_close_all)


def _before_fork() -> None:
    beginning.acquire()
    _paused.extend(watch for watch in list(_watches.values()) if watch.pause(timeout_s=_LONGEST_WAIT_S))


def _after_in_parent() -> None:
    while _paused:
        _paused.pop().go_on()
    beginning.release()


def _after_in_child() -> None:
    """The watching threads are the parent's; its watches go on there."""
    for watch in list(_watches.values()):
        watch.end_in_child(is_whole=any(watch is one for one in _paused))
    _watches.clear()
    _paused.clear()
    beginning.release()


def _close_all() -> None:
    for watch in list(_watches.values()):
        watch.close()
