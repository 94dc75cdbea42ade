"""The objects that we ship: their layouts are Python's, and their source still gives them."""

import subprocess
from pathlib import Path

import pytest

from bpf.btf import Btf, elf_section
from memtherm.linux import page_entries
from support.requires import require

REPOSITORY = Path(__file__).parents[2]
OBJECTS = [REPOSITORY / "src" / "memtherm" / "linux" / name for name in ("walk.bpf.o", "walk_arm64.bpf.o")]
each_object = pytest.mark.parametrize("object_", OBJECTS, ids=lambda path: path.name)


@each_object
def test_shared_memory_is_laid_out_as_python_thinks(object_: Path) -> None:
    btf = Btf(object_)
    # Equal: the same names, offsets, formats and sizes, all the way down.
    assert btf.dtype("shared") == page_entries.SHARED
    assert btf.variables(".bss") == {"shared": (0, page_entries.SHARED.itemsize)}


@each_object
def test_capacities_are_those_of_the_arrays(object_: Path) -> None:
    shared = Btf(object_).dtype("shared")
    assert shared["addresses"].shape == (page_entries.ADDRESS_CAPACITY,)
    assert shared["ranges"].shape == (page_entries.RANGE_CAPACITY,)
    assert shared["units"].shape == (page_entries.UNIT_CAPACITY,)


@each_object
def test_enums_have_the_same_values(object_: Path) -> None:
    btf = Btf(object_)
    assert btf.enum("walk_status") == {f"WALK_{one.name}": one.value for one in page_entries.WalkStatus}
    assert btf.enum("unit_kind") == {f"UNIT_{one.name}": one.value for one in page_entries.UnitKind}


@each_object
def test_object_names_no_folder_and_its_licence(object_: Path) -> None:
    assert b"/walk.bpf.c" not in object_.read_bytes().replace(b"./walk.bpf.c", b"")
    assert elf_section(object_.read_bytes(), "license") == b"Dual MIT/GPL\0"


def test_source_gives_the_objects() -> None:
    require("clang")
    done = subprocess.run([REPOSITORY / "bpf" / "check.sh"], capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip(done.stderr)
    assert (done.returncode, done.stderr) == (0, "")
