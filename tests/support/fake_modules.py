"""A folder that behaves like /sys/module with DAMON_RECLAIM, which is off, and DAMON_STAT, which runs."""

from collections.abc import Mapping
from pathlib import Path

from memtherm.errors import MemthermError
from memtherm.kdamond import modules
from memtherm.kdamond.modules import Module, Write

# As Linux 6.12 shows them.
RECLAIM = {
    "enabled": "N", "commit_inputs": "N", "kdamond_pid": "-1", "sample_interval": "5000", "aggr_interval": "100000",
    "min_nr_regions": "10", "max_nr_regions": "1000", "min_age": "120000000", "quota_ms": "10",
    "quota_sz": "134217728", "quota_reset_interval_ms": "1000", "quota_mem_pressure_us": "0", "skip_anon": "N",
    "wmarks_interval": "5000000", "wmarks_high": "500", "wmarks_mid": "400", "wmarks_low": "200",
    "monitor_region_start": "0", "monitor_region_end": "0", "bytes_reclaimed_regions": "1572864",
    "nr_quota_exceeds": "3", "of_a_later_kernel": "some words",
}  # fmt: skip
STAT = {
    "enabled": "Y", "kdamond_pid": "56", "aggr_interval_us": "50242560", "estimated_memory_bandwidth": "3419219",
    "memory_idle_ms_percentiles": ",".join(str(number) for number in range(-50, 51)),
}  # fmt: skip


class FakeKernel:
    """The kernel behind the files: starts and stops threads, takes new values, refuses.  `write` is its `_write`.

    Attributes:
        writes: what was written, in order.
        refuses: by file, the error that writing it meets.
        starts: whether enabling starts a thread.
        survives_commit: whether the module goes on with new values.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write_file = modules._write
        self.writes: list[tuple[str, str]] = []
        self.refuses: dict[str, MemthermError] = {}
        self.starts = self.survives_commit = True
        self._add(Module.RECLAIM, RECLAIM)
        self._add(Module.STAT, STAT)

    def _add(self, module: Module, files: Mapping[str, str]) -> None:
        folder = self.root / module / "parameters"
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name).write_text(text + "\n")

    def write(self, write: Write) -> None:
        name, folder = write.path.name, write.path.parent
        self.writes.append((name, write.text))
        if name in self.refuses:
            raise self.refuses.pop(name)
        self.write_file(write)
        if name == "enabled" and (folder / "kdamond_pid").exists():
            (folder / "kdamond_pid").write_text("4242" if write.text == "Y" and self.starts else "-1")
        if name == "commit_inputs" and not self.survives_commit:
            (folder / "kdamond_pid").write_text("-1")
        if name == "commit_inputs":
            write.path.write_text("N")

    def text(self, module: Module, name: str) -> str:
        return (self.root / module / "parameters" / name).read_text().strip()
