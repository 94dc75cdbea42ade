"""Watches a process by a kdamond of ours: one line of JSON for each window, a list of (start, end, nr_accesses).

Run with its pid, an empty folder for the registry, the number of windows, the sampling interval and the aggregation
interval in seconds.
"""

import json
import sys
import time
from pathlib import Path

from memtherm.kdamond import control
from memtherm.kdamond.aggregated import AggregatedStream
from memtherm.kdamond.ownership import KdamondSlots
from memtherm.kdamond.parameters import Context, Intervals, Kdamond, KernelTarget
from memtherm.kdamond.registry import Registry


def main(pid: int, registry: Path, nr_windows: int, sampling_interval_s: float, aggregation_interval_s: float) -> None:
    intervals = Intervals(sampling_interval_s=sampling_interval_s, aggregation_interval_s=aggregation_interval_s)
    parameters = Kdamond(context=Context(targets=(KernelTarget(pid=pid),), intervals=intervals))
    with control.start(parameters, slots=KdamondSlots(registry=Registry(registry))) as running:
        thread = running.thread()
        assert thread is not None
        with AggregatedStream(kdamond_pid=thread) as stream:
            told = 0
            while told < nr_windows:
                time.sleep(aggregation_interval_s)
                for window in stream.read():
                    regions = window.regions
                    columns = (regions.start, regions.end, regions.nr_accesses)
                    rows = list(zip(*(column.tolist() for column in columns), strict=True))
                    print(json.dumps(rows), flush=True)
                    told += 1


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5]))
