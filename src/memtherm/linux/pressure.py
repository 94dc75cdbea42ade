"""Pressure stall information (PSI): the share of time in which tasks waited for memory, processor or disk."""

import errno
from dataclasses import dataclass
from pathlib import Path

from memtherm.linux.hidden import is_hidden


@dataclass(frozen=True)
class PressureLine:
    """One line of a pressure file.  Fractions are 0..1 of the time.

    Attributes:
        fraction_10s, fraction_60s, fraction_300s: averages over the last 10, 60, 300 seconds.
        total_s: waiting time since boot, or since the control group was made.
    """

    fraction_10s: float
    fraction_60s: float
    fraction_300s: float
    total_s: float


@dataclass(frozen=True)
class Pressure:
    """`some`: at least one task waited.  `full`: all of them did (absent for irq's `some` and old kernels' cpu)."""

    some: PressureLine | None
    full: PressureLine | None


@dataclass(frozen=True)
class PressureReading:
    """Either a value, or why there is none."""

    value: Pressure | None
    reason: str = ""


def parse_pressure(text: str) -> Pressure:
    """The text of a pressure file, such as `some avg10=0.12 avg60=… avg300=… total=1234` (percent, microseconds)."""
    lines = {}
    for line in text.splitlines():
        kind, *pairs = line.split()
        values = dict(pair.split("=") for pair in pairs)
        lines[kind] = PressureLine(
            fraction_10s=float(values["avg10"]) / 100,
            fraction_60s=float(values["avg60"]) / 100,
            fraction_300s=float(values["avg300"]) / 100,
            total_s=int(values["total"]) / 1e6,
        )
    return Pressure(some=lines.get("some"), full=lines.get("full"))


def read_pressure(resource: str, *, cgroup: str = "") -> PressureReading:
    """Pressure of `memory`, `cpu` or `io` of the host, or of the control group whose directory is `cgroup`."""
    return read_pressure_file(f"{cgroup}/{resource}.pressure" if cgroup else f"/proc/pressure/{resource}")


def read_pressure_file(path: str) -> PressureReading:
    """The pressure file at `path`, of the host or of a control group, or why there is no value."""
    if is_hidden("psi"):
        return PressureReading(None, "hidden by MEMTHERM_WITHOUT=psi")
    try:
        with open(path, encoding="ascii") as file:
            return PressureReading(parse_pressure(file.read()))
    except FileNotFoundError:
        return PressureReading(None, f"no {path}: {_why_absent(path)}")
    except PermissionError:
        return PressureReading(None, f"{path} may not be read")
    except OSError as error:
        if error.errno == errno.ENODEV:  # removed between open and read
            return PressureReading(None, f"no {path}: the control group is gone")
        if error.errno != errno.EOPNOTSUPP:
            raise
        return PressureReading(None, "PSI is switched off: boot with psi=1")


def _why_absent(path: str) -> str:
    if path.startswith("/proc/"):
        return "the kernel was built without PSI, or booted with psi=0"
    if not Path(path).parent.is_dir():
        return "the control group is gone"
    return "PSI is off for this control group, or for the host, or it is of version 1, which has none"
