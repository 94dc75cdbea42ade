"""The architectures that the page-table walk knows, and where the kernel of each keeps memory and tables."""

import os
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass

from memtherm.errors import NotSupported
from memtherm.linux.entry_format import ARM64_ADDRESS_BITS
from memtherm.units import PAGE_SIZE, exact_size

_FIRST_4_LEVEL_KERNEL_ADDRESS = 0xFFFF_8000_0000_0000
# Linux's Documentation/arch/arm64/memory.rst: the kernel's half begins with the linear map, which takes half of it.
_ARM64_FIRST_3_LEVEL_ADDRESS = -(1 << 39) % (1 << 64)
_ARM64_FIRST_4_LEVEL_ADDRESS = -(1 << 48) % (1 << 64)
_ARM64_TAG = 0xFF << 56


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One architecture.

    Attributes:
        name: as uname tells it.
        object_name: the file of its BPF object.
        physical_mask: () → the bits of an entry that are a physical address.
        levels: kernel address of a top table → the possible numbers of levels, likeliest first.
        highest_page_offset: kernel address of a top table, end of RAM → `page_offset` is not above this.
    """

    name: str
    object_name: str
    physical_mask: Callable[[], int]
    levels: Callable[[int], tuple[int, ...]]
    highest_page_offset: Callable[[int, int], int]


def parse_physical_bits(cpuinfo: str) -> int:
    """Physical address bits in the text of /proc/cpuinfo, less those that memory encryption takes."""
    found = re.search(r"^address sizes\s*:\s*(\d+) bits physical", cpuinfo, re.MULTILINE)
    if not found:
        raise NotSupported("/proc/cpuinfo names no physical address size", hint="x86-64 kernels do")
    return int(found[1])


def _x86_64_physical_mask() -> int:
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        return (1 << parse_physical_bits(file.read())) - PAGE_SIZE


def _x86_64_levels(top_table: int) -> tuple[int, ...]:
    # Below that address the kernel half of a 4-level table does not exist; but both are tried.
    return (4, 5) if top_table >= _FIRST_4_LEVEL_KERNEL_ADDRESS else (5, 4)


def _arm64_levels(top_table: int) -> tuple[int, ...]:
    """From 39, 48 and 52 bits of address.  With 52, randomisation may place memory as high as with 48."""
    if top_table >= _ARM64_FIRST_3_LEVEL_ADDRESS:
        return (3,)
    return (4, 5) if top_table >= _ARM64_FIRST_4_LEVEL_ADDRESS else (5,)


def _arm64_highest_page_offset(top_table: int, end_of_ram: int) -> int:
    """No guess may lead behind the linear map: devices may be mapped there, and to read one may change it."""
    top_table |= _ARM64_TAG  # memory tagging may have another tag there
    is_small = top_table >= _ARM64_FIRST_3_LEVEL_ADDRESS
    end_of_linear_map = -(1 << (38 if is_small else 47)) % (1 << 64)
    return min(top_table, end_of_linear_map - end_of_ram)


_MACHINES = {
    "x86_64": Machine(
        name="x86_64",
        object_name="walk.bpf.o",
        physical_mask=_x86_64_physical_mask,
        levels=_x86_64_levels,
        # The kernel leaves an unmapped gap behind physical memory.
        highest_page_offset=lambda top_table, _end_of_ram: top_table,
    ),
    "aarch64": Machine(
        name="aarch64",
        object_name="walk_arm64.bpf.o",
        physical_mask=lambda: (1 << ARM64_ADDRESS_BITS) - PAGE_SIZE,
        levels=_arm64_levels,
        highest_page_offset=_arm64_highest_page_offset,
    ),
}


def walk_refusal(machine: str, page_size_bytes: int) -> str:
    """Why the walk does not know the page tables of such a host; empty where it does."""
    if machine not in _MACHINES:
        return f"the page-table walk is not made for this architecture: it knows x86-64 and arm64, not {machine}"
    if page_size_bytes != PAGE_SIZE:
        return (
            f"the page-table walk knows pages of {exact_size(PAGE_SIZE)} only, "
            f"and this {machine} kernel has pages of {exact_size(page_size_bytes)}"
        )
    return ""


def this_machine() -> Machine:
    """The machine that this process runs on.  Raises NotSupported where the walk does not know it."""
    machine = platform.machine()
    refusal = walk_refusal(machine, os.sysconf("SC_PAGE_SIZE"))
    if refusal:
        raise NotSupported(refusal, hint="use another probe")
    return _MACHINES[machine]
