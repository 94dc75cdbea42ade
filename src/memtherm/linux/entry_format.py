"""Which bits of a page-table entry say what, on each architecture that the walk knows.  Pure numpy.

x86-64: manuals of Intel and AMD, Linux's arch/x86.  arm64, with pages of 4 KiB: Arm Architecture Reference Manual
D8 (VMSAv8-64), Linux's arch/arm64.  The program of bpf/ has the same bits, as far as it needs them (bpf/entry_*.h).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ARM64_ADDRESS_BITS = 50
"""Physical addresses above these stand elsewhere in an arm64 entry (LPA2); nothing here reads them."""

# Entries that are present but not valid (PROT_NONE, a block being split) have a bit that swap entries have not:
# since Linux 6.10 this one, not-global in a valid entry; before, 58 or (a block) 59, which swap entries leave clear.
_ARM64_PRESENT_INVALID = 11
_ARM64_PROT_NONE_BEFORE_6_10 = 58
_ARM64_SPLITTING_BEFORE_6_10 = 59


@dataclass(frozen=True, kw_only=True)
class EntryFormat:
    """The bits of one architecture, and of one kernel where those differ.

    Attributes:
        valid: hardware follows the entry.
        present_invalid: where `valid` is clear, any of these says that memory stands behind the entry.
        prot_none_shift: the lowest-level one of these, as a number, for the program of bpf/.
        accessed: set by hardware or by the kernel at an access.
        dirty: any of these: written since it was last cleaned.
        written_set, written_clear: the same where all of the first are set and none of the second; 0: no such way.
        leaf_set, leaf_clear: above the lowest level: a huge page where any of the first and none of the second is.
        contiguous: the entry is one of 16 that map neighbouring memory, accessed or not as one; 0: no such groups.
        special: in the lowest level: no page of ordinary memory stands behind it.
    """

    valid: int
    present_invalid: int
    prot_none_shift: int
    accessed: int
    dirty: int
    written_set: int
    written_clear: int
    leaf_set: int
    leaf_clear: int
    contiguous: int
    special: int

    def is_present(self, entry: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Of lowest-level entries."""
        return _has(entry, self.valid | self.present_invalid)

    def is_leaf(self, entry: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Of entries above the lowest level."""
        return _has(entry, self.leaf_set) & ~_has(entry, self.leaf_clear)

    def is_accessed(self, entry: NDArray[np.uint64]) -> NDArray[np.bool_]:
        return _has(entry, self.accessed)

    def is_dirty(self, entry: NDArray[np.uint64]) -> NDArray[np.bool_]:
        return _has(entry, self.dirty) | (_has(entry, self.written_set) & ~_has(entry, self.written_clear))

    def is_invalid(self, entry: NDArray[np.uint64]) -> NDArray[np.bool_]:
        return ~_has(entry, self.valid)

    def is_contiguous(self, entry: NDArray[np.uint64]) -> NDArray[np.bool_]:
        return _has(entry, self.contiguous)


def _has(entry: NDArray[np.uint64], any_of: int) -> NDArray[np.bool_]:
    return (entry & np.uint64(any_of)).astype(np.bool_)


X86_64 = EntryFormat(
    valid=1 << 0,
    present_invalid=1 << 8,  # PROT_NONE; "global" in a valid entry
    prot_none_shift=8,
    accessed=1 << 5,
    dirty=1 << 6,  # of a shadow stack the kernel saves it elsewhere: not looked at
    written_set=0,
    written_clear=0,
    leaf_set=1 << 7,  # also of a page being split, whose bits 0 and 8 are clear; in the lowest level it is PAT
    leaf_clear=0,
    contiguous=0,
    special=1 << 9,
)


def _arm64(prot_none_shift: int, present_invalid: int) -> EntryFormat:
    return EntryFormat(
        valid=1 << 0,
        present_invalid=present_invalid,
        prot_none_shift=prot_none_shift,
        accessed=1 << 10,
        dirty=1 << 55,
        written_set=1 << 51,  # may be written; hardware that tracks writes clears the next one at the first
        written_clear=1 << 7,
        leaf_set=1 << 0 | present_invalid,
        leaf_clear=1 << 1,  # a table
        contiguous=1 << 52,
        special=1 << 56,
    )


ARM64 = _arm64(_ARM64_PRESENT_INVALID, 1 << _ARM64_PRESENT_INVALID)
ARM64_BEFORE_6_10 = _arm64(
    _ARM64_PROT_NONE_BEFORE_6_10, 1 << _ARM64_PROT_NONE_BEFORE_6_10 | 1 << _ARM64_SPLITTING_BEFORE_6_10
)


def arm64_format_by(prot_none_entry: int) -> EntryFormat | None:
    """The format in which this entry, that of a PROT_NONE page with memory behind it, is one; None: in no one."""
    if prot_none_entry & ARM64.valid:
        return None
    # The older kernels set bit 11 there, too.
    for one in (ARM64_BEFORE_6_10, ARM64):
        if prot_none_entry >> one.prot_none_shift & 1:
            return one
    return None
