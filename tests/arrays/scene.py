"""Arrays that are accessed while they are watched, and what of it is in the maps of this process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIB = 1 << 20
# Starting an interpreter and its first canary, on a busy machine.
_LONGEST_S = 300


def table(rows: int = 4096, row_bytes: int = 4096) -> NDArray[np.uint8]:
    """All of it in memory."""
    from memtherm.arrays.allocate import allocate

    values: NDArray[np.uint8] = allocate((rows, row_bytes), "u1", huge_pages=False)
    values[:] = 1
    return values


@contextmanager
def accessing(values: NDArray[Any]) -> Iterator[None]:
    """Reads these again and again, in a thread."""
    stop = Event()

    def run() -> None:
        while not stop.wait(0.005):
            values.max()

    thread = Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def mappings_in(start: int, end: int) -> list[str]:
    """What smaps says of the mappings there, without figures: their borders, permissions and VmFlags."""
    found, lines = [], iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        first = line.split()[0]
        if not first.endswith(":"):
            low, high = (int(part, 16) for part in first.split("-"))
            header = line
        elif first == "VmFlags:" and low < end and start < high:
            found.append(f"{header} {line}")
    return found


def run_program(text: str) -> str:
    """What a new interpreter prints; it must end by itself, well, and say nothing on stderr."""
    preamble = "import gc, os, pathlib, sys, threading\nimport numpy as np\nimport memtherm\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", preamble + text],
        capture_output=True,
        text=True,
        timeout=_LONGEST_S,
        check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parent), "HOME": "/"},
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout
