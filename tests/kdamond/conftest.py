"""A DAMON tree that behaves like the kernel's, in a folder of the test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from memtherm.kdamond.ownership import KdamondSlots
from memtherm.kdamond.registry import Registry
from support.children import Child
from support.fake_damon import FakeDamonTree


@pytest.fixture
def tree(tmp_path: Path) -> FakeDamonTree:
    return FakeDamonTree(tmp_path / "damon")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


@pytest.fixture
def slots(tree: FakeDamonTree, registry: Registry, tmp_path: Path) -> KdamondSlots:
    return KdamondSlots(tree, registry=registry, modules=tmp_path / "modules", nr_slots=3)


@pytest.fixture
def child() -> Iterator[Child]:
    with Child() as one:
        yield one
