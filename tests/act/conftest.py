"""Fixtures of the actions: a child on one processor, held as a target, and a file on a disk."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from act.scene import MIB
from memtherm.linux.process import Process, open_process
from support.children import Child, memory_child, on_one_processor
from support.requires import require


@pytest.fixture
def child() -> Iterator[Child]:
    require("root", "process_madvise")
    with on_one_processor(), memory_child() as fresh:
        yield fresh


@pytest.fixture
def process(child: Child) -> Iterator[Process]:
    with open_process(child.pid) as opened:
        yield opened


@pytest.fixture
def file() -> Iterator[Path]:
    """16 MiB of clean pages of a file on a disk; the default folder may be in memory."""
    with tempfile.NamedTemporaryFile(prefix="memtherm-act-", dir="/var/tmp") as opened:
        for _ in range(16):
            opened.write(os.urandom(MIB))
        opened.flush()
        os.fsync(opened.fileno())
        yield Path(opened.name)
