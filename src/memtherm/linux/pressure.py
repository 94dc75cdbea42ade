"""Pressure stall information (PSI): the share of time in which tasks waited for memory, processor or disk."""

import errno
from dataclasses import dataclass

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
    if is_hidden("psi"):
        return PressureReading(None, "hidden by MEMTHERM_WITHOUT=psi")
    path = f"{cgroup}/{resource}.pressure" if cgroup else f"/proc/pressure/{resource}"
    try:
        with open(path, encoding="ascii") as file:
            return PressureReading(parse_pressure(file.read()))
    except FileNotFoundError:
        return PressureReading(None, f"no {path}: the kernel was built without PSI, or booted with psi=0")
    except PermissionError:
        return PressureReading(None, f"{path} may not be read")
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENODEV):
            raise
        return PressureReading(None, "PSI is switched off: boot with psi=1")
