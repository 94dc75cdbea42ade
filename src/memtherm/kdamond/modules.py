"""DAMON's own modules in the kernel, by /sys/module: DAMON_RECLAIM, DAMON_LRU_SORT and DAMON_STAT (damon-spec §4).

Which parameters there are is told by their files alone, since each release has others.  What runs is exclusive: a
module cannot start while any kdamond runs, nor the other way round.
"""

import errno
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path

from memtherm.errors import HostCannot, InvalidInput, MemthermError, NotPermitted, NotSupported, TargetBusy
from memtherm.kdamond.ownership import DEFAULT_MODULES, Holder, KdamondSlots, TreeState, how_to_disable
from memtherm.linux.hidden import is_hidden
from memtherm.units import exact_rate, exact_size, exact_time, format_size, format_time

NR_PERCENTILES = 101
_SWITCHES = {"Y": True, "N": False}
_MIN_NR_REGIONS = 3
# A kdamond that rests looks at its watermarks, and at commit_inputs, every 5 s unless told otherwise.
_COMMIT_PATIENCE_S = 15.0
_LOOK_AGAIN_S = 0.05


class Module(StrEnum):
    """A module of DAMON, by its directory in /sys/module."""

    RECLAIM = "damon_reclaim"
    LRU_SORT = "damon_lru_sort"
    STAT = "damon_stat"

    @property
    def label(self) -> str:
        return self.value.upper()


class Unit(StrEnum):
    """What the kernel counts a parameter in."""

    MICROSECONDS = "us"
    MILLISECONDS = "ms"
    BYTES = "bytes"
    BYTES_PER_S = "bytes/s"
    PERMIL = "1/1000"
    BASIS_POINTS = "1/10000"
    SWITCH = "Y/N"
    COUNT = "count"
    TEXT = "text"


_PER_ONE = {Unit.MICROSECONDS: 1_000_000, Unit.MILLISECONDS: 1000, Unit.PERMIL: 1000, Unit.BASIS_POINTS: 10_000}
_TIMES = (Unit.MICROSECONDS, Unit.MILLISECONDS)
_RATES = (Unit.PERMIL, Unit.BASIS_POINTS)

UNITS: dict[str, Unit] = {
    "enabled": Unit.SWITCH,
    "commit_inputs": Unit.SWITCH,
    "kdamond_pid": Unit.COUNT,
    "sample_interval": Unit.MICROSECONDS,
    "aggr_interval": Unit.MICROSECONDS,
    "aggr_interval_us": Unit.MICROSECONDS,
    "min_nr_regions": Unit.COUNT,
    "max_nr_regions": Unit.COUNT,
    "monitor_region_start": Unit.COUNT,
    "monitor_region_end": Unit.COUNT,
    "addr_unit": Unit.COUNT,
    "autotune_monitoring_intervals": Unit.SWITCH,
    "quota_ms": Unit.MILLISECONDS,
    "quota_sz": Unit.BYTES,
    "quota_reset_interval_ms": Unit.MILLISECONDS,
    "quota_mem_pressure_us": Unit.MICROSECONDS,
    "quota_autotune_feedback": Unit.BASIS_POINTS,
    "wmarks_interval": Unit.MICROSECONDS,
    "wmarks_high": Unit.PERMIL,
    "wmarks_mid": Unit.PERMIL,
    "wmarks_low": Unit.PERMIL,
    "min_age": Unit.MICROSECONDS,
    "skip_anon": Unit.SWITCH,
    "hot_thres_access_freq": Unit.PERMIL,
    "cold_min_age": Unit.MICROSECONDS,
    "active_mem_bp": Unit.BASIS_POINTS,
    "filter_young_pages": Unit.SWITCH,
    "estimated_memory_bandwidth": Unit.BYTES_PER_S,
    "memory_idle_ms_percentiles": Unit.TEXT,
}
_CONTROLS = ("enabled", "commit_inputs", "kdamond_pid")
_FOUND_BY_STAT = ("aggr_interval_us", "estimated_memory_bandwidth", "memory_idle_ms_percentiles")


@dataclass(frozen=True)
class Reading:
    """One parameter.

    Attributes:
        name: of its file.
        text: as the kernel writes it.
        unit: of the text.
    """

    name: str
    text: str
    unit: Unit

    @property
    def value(self) -> float | int | bool | str:
        """Seconds, bytes, a fraction of 1, a count, a switch; the text where it is none of these."""
        return _value(self.text, self.unit)

    @property
    def words(self) -> str:
        """For people: `2 min`, `128 MiB`, `50 %`; what is measured is rounded, what is set is exact."""
        value = self.value
        if not self.is_statistic or isinstance(value, str):
            return _words(self.text, self.unit)
        if self.unit in _TIMES:
            return format_time(value)
        if self.unit in (Unit.BYTES, Unit.BYTES_PER_S):
            return format_size(value) + ("/s" if self.unit is Unit.BYTES_PER_S else "")
        return self.text

    @property
    def is_statistic(self) -> bool:
        """Whether the module tells it, and nobody sets it."""
        return self.name.startswith(("nr_", "bytes_")) or self.name in _FOUND_BY_STAT


@dataclass(frozen=True)
class ModuleState:
    """A module as it is now.

    Attributes:
        folder: its parameters directory.
        readings: all its files, in alphabetical order.
    """

    module: Module
    folder: Path
    readings: tuple[Reading, ...]

    def text(self, name: str) -> str | None:
        """As the kernel writes it; None where this kernel has no such parameter."""
        return next((one.text for one in self.readings if one.name == name), None)

    @property
    def thread(self) -> int | None:
        """The id of its kernel thread; None where it does not run, or the kernel does not tell."""
        number = int(self.text("kdamond_pid") or -1)
        return number if number >= 0 else None

    @property
    def is_running(self) -> bool:
        # Older kernels leave the switch as it was set even where the thread could not start.
        has_thread = self.text("kdamond_pid") is None or self.thread is not None
        return self.text("enabled") == "Y" and has_thread

    @property
    def parameters(self) -> tuple[Reading, ...]:
        """What can be set."""
        return tuple(one for one in self.readings if not one.is_statistic and one.name not in _CONTROLS)

    @property
    def statistics(self) -> tuple[Reading, ...]:
        return tuple(one for one in self.readings if one.is_statistic)


@dataclass(frozen=True)
class Write:
    """A text for a file, and what it means."""

    path: Path
    text: str
    words: str = ""

    @property
    def command(self) -> str:
        """What a person would type."""
        return f"echo {self.text} > {self.path}"


def is_built(module: Module, root: Path = DEFAULT_MODULES) -> bool:
    """Whether this kernel has the module, and may be asked for it."""
    return not is_hidden("damon") and (root / module / "parameters" / "enabled").exists()


def read_module(module: Module, root: Path = DEFAULT_MODULES) -> ModuleState:
    """A module with all its parameters; only reads.  Raises NotSupported (not in this kernel), NotPermitted."""
    folder = root / module / "parameters"
    if not is_built(module, root):
        raise NotSupported(
            f"this kernel has no {module.label} (no {folder.parent})", hint=f"see CONFIG_{module.label} of its build"
        )
    readings = []
    for file in sorted(folder.iterdir()):
        try:
            text = file.read_text(encoding="ascii").strip()
        except PermissionError as error:
            raise NotPermitted(
                f"may not read {file}", hint="run as root: DAMON's files belong to root alone"
            ) from error
        unit = UNITS.get(file.name)
        if unit is None:
            unit = Unit.BYTES if file.name.startswith("bytes_") else Unit.COUNT if text.isdigit() else Unit.TEXT
        readings.append(Reading(file.name, text, unit))
    return ModuleState(module, folder, tuple(readings))


def read_percentiles(state: ModuleState) -> tuple[int, ...]:
    """DAMON_STAT's idle times: for each hundredth of the memory from 0 to 100, milliseconds, ascending.

    Negative since Linux 6.18: for how long it has been accessed (damon-spec §4).  Raises NotSupported.
    """
    text = state.text("memory_idle_ms_percentiles")
    numbers = tuple(int(one) for one in (text or "").split(",") if one.strip())
    if len(numbers) != NR_PERCENTILES:
        raise NotSupported(f"{state.module.label} tells {len(numbers)} percentiles of idle time, not {NR_PERCENTILES}")
    return numbers


def plan_writes(
    state: ModuleState, changes: Mapping[str, float | int | bool], *, enable: bool | None = None
) -> tuple[Write, ...]:
    """What must be written for new values, in order; nothing where all is as wanted.

    Args:
        changes: by the name of the parameter: seconds, bytes, a fraction of 1, a count, a switch.
        enable: start or stop the module; None: leave it as it is.

    Raises:
        NotSupported: this kernel's module lacks a parameter.
        InvalidInput: a value that the kernel cannot take, or that it takes and then does not start with.
    """
    texts = {}
    for name, value in changes.items():
        if state.text(name) is None:
            raise NotSupported(
                f"{state.module.label} of this kernel has no parameter {name}", hint="a newer kernel may have it"
            )
        texts[name] = _kernel_text(name, value)
    merged = {one.name: one.text for one in state.parameters} | texts
    _check(merged)
    will_run = state.is_running if enable is None else enable
    writes = []
    if state.is_running and not will_run:
        writes.append(Write(state.folder / "enabled", "N", "stop it"))
    changed = {name: text for name, text in texts.items() if text != state.text(name)}
    writes += [Write(state.folder / name, text, _words(text, UNITS[name])) for name, text in changed.items()]
    if will_run and state.is_running and changed:
        writes.append(Write(state.folder / "commit_inputs", "Y", "take the new values while it runs"))
    if will_run and not state.is_running:
        writes.append(Write(state.folder / "enabled", "Y", "start it"))
    return tuple(writes)


def check_allowed(state: ModuleState, writes: Sequence[Write], tree: TreeState) -> None:
    """Raises TargetBusy or NotPermitted unless nobody else is in the way.

    Where another owner has the tree nothing is written at all; otherwise only starting needs everybody else to rest.
    """
    if not writes:
        return
    if tree.holder in (Holder.OTHER, Holder.NOT_PERMITTED):
        tree.require_usable()
    if not any(write.path.name == "enabled" and write.text == "Y" for write in writes):
        return
    others = [name for name in tree.modules if name != state.module]
    if others:
        titles = " and ".join(name.upper() for name in others)
        raise TargetBusy(
            f"{state.module.label} cannot start beside {titles}, a module of the kernel",
            hint="; ".join(how_to_disable(name, state.folder.parent.parent) for name in others),
        )
    if running := [one for one in tree.kdamonds if one.is_running]:
        raise TargetBusy(
            f"{state.module.label} cannot start while {len(running)} kdamonds run: {tree.sentence}",
            hint="a module is exclusive: end the memtherm processes that use DAMON first",
        )


def apply_writes(
    state: ModuleState,
    writes: Sequence[Write],
    *,
    look: Callable[[], TreeState] | None = None,
    sleep: Callable[[float], None] = time.sleep,
    monotonic_s: Callable[[], float] = time.monotonic,
) -> ModuleState:
    """Write, and read back what has become of it.  Where something is refused, what was written is put back.

    Args:
        look: tells who has the tree.
        sleep, monotonic_s: for waiting until new values are taken.

    Raises:
        TargetBusy: see `check_allowed`.
        InvalidInput: the kernel refuses a value.
        HostCannot: it took something and did something else.
        NotPermitted: not root.
    """
    check_allowed(state, writes, (look or KdamondSlots().look)())
    done: list[Write] = []
    try:
        for write in writes:
            done.append(write)
            _write(write)
            if write.path.name == "commit_inputs":
                _await_commit(write.path, sleep, monotonic_s)
        return _checked(state, writes)
    except MemthermError:
        for write in reversed(done):
            text = state.text(write.path.name)
            if text is not None and write.path.name != "commit_inputs":
                with suppress(MemthermError):
                    _write(Write(write.path, text))
        raise


def _checked(before: ModuleState, writes: Sequence[Write]) -> ModuleState:
    """The state afterwards.  Raises HostCannot unless it is what was written."""
    after = read_module(before.module, before.folder.parent.parent)
    for write in writes:
        name = write.path.name
        if name == "enabled":
            if after.is_running != (write.text == "Y"):
                verb = "start" if write.text == "Y" else "stop"
                raise HostCannot(f"{before.module.label} did not {verb}", hint="see dmesg")
        elif name != "commit_inputs" and _value(after.text(name) or "", UNITS[name]) != _value(write.text, UNITS[name]):
            raise HostCannot(f"{write.path} is {after.text(name)} after {write.text} was written", hint="see dmesg")
    if any(write.path.name == "commit_inputs" for write in writes) and not after.is_running:
        raise HostCannot(f"{before.module.label} stopped by itself on the new values", hint="they do not fit together")
    return after


def _write(write: Write) -> None:
    try:
        descriptor = os.open(write.path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(descriptor, write.text.encode("ascii"))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _in_words(error, write) from error


def _in_words(error: OSError, write: Write) -> MemthermError:
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return NotPermitted(f"may not write {write.path}", hint="run as root, outside of containers")
    if error.errno == errno.EBUSY:
        return TargetBusy(
            f"DAMON is in use: {write.command} was refused", hint="`memtherm kernel status` tells by whom"
        )
    if error.errno in (errno.EINVAL, errno.ERANGE):
        return InvalidInput(f"the kernel refuses {write.command}", hint="the values do not fit together, or are wrong")
    return HostCannot(f"{write.path}: {os.strerror(error.errno or 0)}", hint="see dmesg")


def _await_commit(path: Path, sleep: Callable[[float], None], monotonic_s: Callable[[], float]) -> None:
    """Older kernels take new values at the end of a window, or where the module rests at its next look."""
    ends_s = monotonic_s() + _COMMIT_PATIENCE_S
    while path.read_text(encoding="ascii").strip() == "Y":
        if monotonic_s() >= ends_s:
            raise HostCannot(f"{path.parent.parent.name} has not taken the new values", hint="it may rest; try again")
        sleep(_LOOK_AGAIN_S)


def _value(text: str, unit: Unit) -> float | int | bool | str:
    if unit is Unit.SWITCH:
        return _SWITCHES.get(text, text)
    try:
        number = int(text)
    except ValueError:
        return text
    return number / _PER_ONE[unit] if unit in _PER_ONE else number


def _words(text: str, unit: Unit) -> str:
    value = _value(text, unit)
    if isinstance(value, str) or unit in (Unit.SWITCH, Unit.COUNT, Unit.TEXT):
        return text
    if unit in _TIMES:
        return exact_time(value)
    if unit in _RATES:
        return exact_rate(value)
    return exact_size(int(value)) + ("/s" if unit is Unit.BYTES_PER_S else "")


def _kernel_text(name: str, value: float | int | bool) -> str:
    unit = UNITS[name]
    if unit is Unit.SWITCH:
        return "Y" if value else "N"
    number = round(value * _PER_ONE.get(unit, 1))
    if unit in _PER_ONE and abs(number / _PER_ONE[unit] - value) > 1e-9:
        raise InvalidInput(f"{name}: the kernel counts it in {unit}", hint="give a multiple of that")
    return str(number)


def _check(texts: Mapping[str, str]) -> None:
    """What the kernel takes silently and then does not run with, or not as meant (damon-spec §1.3, §2.8)."""
    numbers = {name: int(text) for name, text in texts.items() if text.isdigit()}

    def in_order(*names: str) -> None:
        for low, high in pairwise(names):
            if low in numbers and high in numbers and numbers[low] > numbers[high]:
                low_words, high_words = (_words(texts[name], UNITS[name]) for name in (low, high))
                raise InvalidInput(f"{low} ({low_words}) is above {high} ({high_words})", hint="give both")

    in_order("sample_interval", "aggr_interval")
    in_order("min_nr_regions", "max_nr_regions")
    in_order("wmarks_low", "wmarks_mid", "wmarks_high")
    in_order("monitor_region_start", "monitor_region_end")
    if numbers.get("min_nr_regions", _MIN_NR_REGIONS) < _MIN_NR_REGIONS:
        raise InvalidInput("min_nr_regions is below 3", hint="DAMON needs at least 3 regions")
    for name in ("sample_interval", "aggr_interval", "addr_unit"):
        if numbers.get(name) == 0:
            raise InvalidInput(f"{name} is 0", hint="the module does not start with it")
    for name, unit in UNITS.items():
        limit = _PER_ONE.get(unit, 0) if unit in _RATES and name != "quota_autotune_feedback" else None
        if limit is not None and numbers.get(name, 0) > limit:
            raise InvalidInput(f"{name} is above 100 %", hint="a share is from 0% to 100%")
