"""What holds for every test."""

import pytest

# Folders whose tests start processes and measure them against the clock.
_REAL = {"system", "linux", "probe", "own", "act", "bpf", "arrays", "examples", "cli"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test on real processes that fails is run once more, and the summary names it as RERUN.

    Others use the machine, too: of 3,350 tests about one in a run meets a moment when nothing of its own was
    scheduled for a second.  A defect fails twice.
    """
    for item in items:
        if item.get_closest_marker("system") or item.path.parent.name in _REAL:
            item.add_marker(pytest.mark.flaky(reruns=1))
