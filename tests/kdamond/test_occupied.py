"""This machine's own tree, where somebody else uses it: nothing there is opened for writing, whatever is asked."""

import subprocess
import sys
from pathlib import Path

import pytest

from memtherm.kdamond.ownership import Holder, KdamondSlots
from support.requires import require

PROGRAM = """
from pathlib import Path
from memtherm.errors import MemthermError
from memtherm.kdamond import control, features
from memtherm.kdamond.ownership import KdamondSlots
from memtherm.kdamond.parameters import Context, Kdamond, KernelTarget, Operations
from memtherm.kdamond.registry import Registry
from memtherm.kdamond.tree import DamonTree
import sys

slots = KdamondSlots(registry=Registry(Path(sys.argv[1])))
print(slots.look().sentence)
features.look(DamonTree())
slots.abandoned()
slots.stop_abandoned()
paddr = Kdamond(context=Context(operations=Operations.PADDR, targets=(KernelTarget(regions=((0, 4096),)),)))
for attempt in (slots.claim, lambda: control.start(paddr, slots=slots)):
    try:
        attempt()
    except MemthermError as error:
        print(type(error).__name__, error, error.hint)
"""


def test_an_occupied_tree_is_looked_at_and_never_opened_for_writing(tmp_path: Path) -> None:
    require("root", "damon", "strace")
    if KdamondSlots().look().holder not in (Holder.OTHER, Holder.MODULE):
        pytest.skip("the DAMON tree is not in use by others")
    trace = tmp_path / "trace"
    calls = "trace=open,openat,openat2,creat,truncate,rename,unlink,mkdir"
    command = ["strace", "-f", "-y", "-s", "200", "-e", calls, "-o", str(trace), sys.executable, "-c", PROGRAM]
    done = subprocess.run([*command, str(tmp_path / "registry")], capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    assert "occupied by" in said[0]
    assert [line.split()[0] for line in said[1:]] == ["TargetBusy", "TargetBusy"]
    opened = [line for line in trace.read_text().splitlines() if "/kernel/mm/damon" in line or "/module/damon" in line]
    assert len(opened) > 5, "the trace saw that it was looked at"
    assert [line for line in opened if "O_WRONLY" in line or "O_RDWR" in line or "O_CREAT" in line] == []
    assert all("open" in line for line in opened), "nothing was made, removed or renamed there"
