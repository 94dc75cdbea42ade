"""CPU time of one sampling tick over 1000 regions of a 1 GiB process: clear, read, bookkeeping."""

import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from benchmarks.support.machine import conditions, save
from benchmarks.support.tables import tick_table

from memtherm.core.attributes import MonitoringAttributes
from memtherm.core.sampling import Sampler
from memtherm.linux.process import open_process
from memtherm.probe.bpf import BpfProbe
from support.workload import workload

REGIONS = 1000
SIZE_BYTES = 1 << 30
HOT = [(200 << 20, 64 << 20), (700 << 20, 64 << 20)]
TICKS = 400


def cpu_ms(step: Callable[[], object]) -> tuple[float, object]:
    began_s = time.thread_time()
    result = step()
    return 1000 * (time.thread_time() - began_s), result


def next_window(sampler: Sampler) -> None:
    sampler.close_window()
    sampler.regions()
    sampler.open_window()


def main() -> None:
    began = conditions()
    attributes = MonitoringAttributes(min_nr_regions=REGIONS, max_nr_regions=REGIONS)
    with workload(size_bytes=SIZE_BYTES, hot=HOT, period_s=0.002) as child, open_process(child.pid) as process:
        probe = BpfProbe(process)
        sampler = Sampler(attributes, rng=np.random.default_rng(1))
        sampler.set_ranges([(child.start, child.end)])
        rows: dict[str, list[float]] = {name: [] for name in ("draw", "clear", "read", "record", "window")}
        for _ in range(TICKS):
            cost, addresses = cpu_ms(sampler.draw_addresses)
            rows["draw"].append(cost)
            assert isinstance(addresses, np.ndarray)
            rows["clear"].append(cpu_ms(partial(probe.clear, addresses))[0])
            time.sleep(attributes.sampling_interval_s)
            cost, accessed = cpu_ms(partial(probe.read, addresses))
            rows["read"].append(cost)
            assert isinstance(accessed, np.ndarray)
            rows["record"].append(cpu_ms(partial(sampler.record, accessed))[0])
            if sampler.window_is_complete:
                rows["window"].append(cpu_ms(partial(next_window, sampler))[0])
        probe.close()
    rows["a tick in all (bar: 4)"] = list(
        map(sum, zip(rows["draw"], rows["clear"], rows["read"], rows["record"], strict=True))
    )
    rows["of it bookkeeping, draw and record (bar: 0.5)"] = list(
        map(sum, zip(rows["draw"], rows["record"], strict=True))
    )
    table = [
        {"part": name, "median_ms": statistics.median(values), "p95_ms": float(np.percentile(values, 95))}
        for name, values in rows.items()
    ]
    print(tick_table(table))
    save("sampling_tick", began=began, is_quick=False, rows=table)


if __name__ == "__main__":
    main()
