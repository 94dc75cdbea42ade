"""What the examples measure with: memory and swap as the kernel counts them, and work in a second."""

import mmap
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

MIB = 1 << 20
PAGE = mmap.PAGESIZE
# As memtherm's own exit code: what this host lacks is no failure of the program.
HOST_CANNOT = 3


@dataclass(frozen=True)
class Pace:
    """How much was done in a second.

    Attributes:
        per_s: of time.
        per_cpu_s: of CPU time of the thread that works: page faults are in it, waiting for a CPU is not.
    """

    per_s: float
    per_cpu_s: float


def pace(step: Callable[[], int], *, seconds: float) -> Pace:
    """Call `step`, which returns how much it did, for some seconds."""
    done, began_s, began_cpu_s = 0, time.perf_counter(), time.thread_time()
    while (passed_s := time.perf_counter() - began_s) < seconds:
        done += step()
    return Pace(done / passed_s, done / (time.thread_time() - began_cpu_s))


def resident_bytes(array: NDArray[Any]) -> int:
    """Memory of an array that is in RAM now: bit 63 of the pagemap entry of each page."""
    start = array.ctypes.data // PAGE
    end = -(-(array.ctypes.data + array.nbytes) // PAGE)
    with open("/proc/self/pagemap", "rb", buffering=0) as file:
        file.seek(8 * start)
        entries = np.frombuffer(file.read(8 * (end - start)), np.uint64)
    return int((entries >> np.uint64(63)).sum()) * PAGE


def process_bytes() -> int:
    """All memory of this process that is in RAM now."""
    return _rollup("Rss")


def huge_bytes() -> int:
    """What of it is in huge pages: its arrays, as only they ask for them."""
    return _rollup("AnonHugePages")


def _rollup(name: str) -> int:
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"the kernel does not tell {name}")


def refuse_without_swap(needed_bytes: int) -> None:
    """Exit where cold memory would have nowhere to go."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free_bytes = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("SwapFree:"))
    if free_bytes < needed_bytes:
        refuse(
            f"needs {needed_bytes // MIB} MiB of free swap for cold memory, and there are {free_bytes // MIB} MiB",
            hint="as root: modprobe zram; echo 2G > /sys/block/zram0/disksize; mkswap /dev/zram0; swapon /dev/zram0",
        )


def refuse(what: str, *, hint: str) -> NoReturn:
    """Exit: this host lacks something."""
    print(f"{Path(sys.argv[0]).name}: {what}\n  hint: {hint}", file=sys.stderr)
    sys.exit(HOST_CANNOT)


def compressed_bytes() -> int:
    """Memory that zram takes for what all programs have paged out to it."""
    devices = [Path(line.split()[0]).name for line in Path("/proc/swaps").read_text().splitlines()[1:]]
    zram = [name for name in devices if name.startswith("zram")]
    return sum(int(Path(f"/sys/block/{name}/mm_stat").read_text().split()[2]) for name in zram)


def mebibytes(size_bytes: float) -> str:
    return f"{size_bytes / MIB:,.0f} MiB"
