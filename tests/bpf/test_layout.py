"""The object that we ship: its layouts are Python's, and its source still gives it."""

import subprocess
from pathlib import Path

import pytest

from bpf.btf import Btf, elf_section
from memtherm.linux import page_entries
from support.requires import require

REPOSITORY = Path(__file__).parents[2]
OBJECT = REPOSITORY / "src" / "memtherm" / "linux" / "walk.bpf.o"


def test_shared_memory_is_laid_out_as_python_thinks() -> None:
    btf = Btf(OBJECT)
    # Equal: the same names, offsets, formats and sizes, all the way down.
    assert btf.dtype("shared") == page_entries.SHARED
    assert btf.variables(".bss") == {"shared": (0, page_entries.SHARED.itemsize)}


def test_capacities_are_those_of_the_arrays() -> None:
    shared = Btf(OBJECT).dtype("shared")
    assert shared["addresses"].shape == (page_entries.ADDRESS_CAPACITY,)
    assert shared["ranges"].shape == (page_entries.RANGE_CAPACITY,)
    assert shared["units"].shape == (page_entries.UNIT_CAPACITY,)


def test_enums_have_the_same_values() -> None:
    btf = Btf(OBJECT)
    assert btf.enum("walk_status") == {f"WALK_{one.name}": one.value for one in page_entries.WalkStatus}
    assert btf.enum("unit_kind") == {f"UNIT_{one.name}": one.value for one in page_entries.UnitKind}


def test_object_names_no_folder_and_its_licence() -> None:
    assert b"/walk.bpf.c" not in OBJECT.read_bytes().replace(b"./walk.bpf.c", b"")
    assert elf_section(OBJECT.read_bytes(), "license") == b"Dual MIT/GPL\0"


def test_source_gives_the_object() -> None:
    require("clang")
    done = subprocess.run([REPOSITORY / "bpf" / "check.sh"], capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip(done.stderr)
    assert (done.returncode, done.stderr) == (0, "")
