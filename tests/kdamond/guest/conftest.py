"""The kernel's own tree: only where it is free, and its use was allowed (see requires.py)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from memtherm.kdamond.ownership import Holder, KdamondSlots
from memtherm.kdamond.registry import Registry
from support.requires import require


@pytest.fixture(scope="session")
def allowed() -> None:
    """Once: to look at a host takes seconds in an emulated guest."""
    require("root", "kdamond")


@pytest.fixture
def slots(allowed: None, tmp_path: Path) -> Iterator[KdamondSlots]:  # noqa: ARG001 - it skips
    """Slots in the real tree, which is left empty."""
    slots = KdamondSlots(registry=Registry(tmp_path / "registry"), nr_slots=3)
    yield slots
    slots.stop_abandoned()
    assert slots.look().holder in (Holder.FREE, Holder.MODULE)
