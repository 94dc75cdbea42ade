"""Time of `memtherm --help`, from start to end."""

import statistics
import subprocess
import sys
import time

from benchmarks.support.machine import conditions, save
from benchmarks.support.tables import tick_table

RUNS = 40


def main() -> None:
    began = conditions()
    times = []
    for _ in range(RUNS):
        began_s = time.perf_counter()
        subprocess.run([sys.executable, "-m", "memtherm", "--help"], check=True, stdout=subprocess.DEVNULL)
        times.append(1000 * (time.perf_counter() - began_s))
    rows = [
        {
            "part": "`memtherm --help` (bar: 150)",
            "median_ms": statistics.median(times),
            "p95_ms": statistics.quantiles(times, n=20)[-1],
        }
    ]
    print(tick_table(rows))
    save("start", began=began, is_quick=False, rows=rows)


if __name__ == "__main__":
    main()
