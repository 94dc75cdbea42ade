"""The host's limit of mappings, against sysctl's own file."""

from pathlib import Path

from memtherm.linux.map_count import read_max_map_count


def test_as_the_host_says() -> None:
    assert read_max_map_count() == int(Path("/proc/sys/vm/max_map_count").read_text().split()[0]) > 0
