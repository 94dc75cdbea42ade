"""The mappings of a process as numpy columns: /proc/PID/maps and /proc/PID/smaps (damon-spec §5.4)."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from memtherm.linux.process import Process

_NEWLINE, _SPACE, _DASH, _COLON = b"\n -:"
# Value of each character as a digit, for the ones that are.
_DIGITS = np.zeros(256, np.uint64)
_DIGITS[list(b"0123456789abcdef")] = np.arange(16)
_SHARED_MEMORY_NAMES = ("/dev/zero", "/memfd:", "/SYSV", "/dev/shm/", "/anon_hugepage", "[anon_shmem:")
_SPECIAL_NAMES = ("[vdso", "[vvar", "[vsyscall", "[vectors", "[sigpage")


class Permission(IntEnum):
    """Bits of Mappings.permissions."""

    READ = 1
    WRITE = 2
    EXECUTE = 4
    SHARED = 8


class MappingKind(IntEnum):
    """What lies behind a mapping, which decides where its pages go when they leave memory."""

    PRIVATE_ANONYMOUS = 0  # to swap
    PRIVATE_FILE = 1  # written pages to swap, the others are dropped
    SHARED_FILE = 2  # to their file
    SHARED_MEMORY = 3  # to swap: tmpfs, memfd, System V, shared anonymous
    SPECIAL = 4  # made by the kernel: vdso, vvar


@dataclass(frozen=True)
class Mappings:
    """The mappings of one moment, ascending and disjoint; one element each.

    Attributes:
        starts, ends: uint64, bytes.
        permissions: uint8, bits of Permission.
        offsets: uint64, bytes into the file.
        devices: uint64, major << 32 | minor of the file's device; 0 for none.
        inodes: uint64; 0 for none.
        kinds: uint8, MappingKind.
        names: path or `[heap]` and the like; empty for none.
    """

    starts: NDArray[np.uint64]
    ends: NDArray[np.uint64]
    permissions: NDArray[np.uint8]
    offsets: NDArray[np.uint64]
    devices: NDArray[np.uint64]
    inodes: NDArray[np.uint64]
    kinds: NDArray[np.uint8]
    names: list[str]

    def __len__(self) -> int:
        return len(self.starts)

    def has_permission(self, permission: Permission) -> NDArray[np.bool_]:
        """For each mapping whether it has `permission`."""
        has: NDArray[np.bool_] = (self.permissions & permission) != 0
        return has

    def select(self, wanted: NDArray[np.bool_] | NDArray[np.int64]) -> "Mappings":
        """Only the mappings that `wanted` (mask or indices) picks."""
        indices = np.arange(len(self))[wanted]
        return Mappings(
            starts=self.starts[indices],
            ends=self.ends[indices],
            permissions=self.permissions[indices],
            offsets=self.offsets[indices],
            devices=self.devices[indices],
            inodes=self.inodes[indices],
            kinds=self.kinds[indices],
            names=[self.names[index] for index in indices],
        )


def read_maps(process: Process, *, shared_memory_devices: frozenset[int] | None = None) -> Mappings:
    """The mappings of now.

    The kernel writes them page by page: with a target that maps meanwhile, parts are of different moments.
    `shared_memory_devices` is as from shared_memory_devices(process), which is asked where it is None.

    Raises TargetGone, NotPermitted (needs ptrace read access).
    """
    text = process.read_file("maps")
    process.check_alive()  # the kernel shows an ended process as one without mappings
    if shared_memory_devices is None:
        shared_memory_devices = find_shared_memory_devices(process)
    return parse_maps(text, shared_memory_devices=shared_memory_devices)


def find_shared_memory_devices(process: Process) -> frozenset[int]:
    """Devices (major << 32 | minor) whose files are memory: each tmpfs that `process` sees, and the kernel's own.

    The names in maps do not tell: a file on a tmpfs looks like one on a disk, but needs swap to leave memory.
    """
    own = os.memfd_create("memtherm")  # lies on the kernel's own tmpfs, which is mounted nowhere
    try:
        device = os.fstat(own).st_dev
    finally:
        os.close(own)
    devices = {os.major(device) << 32 | os.minor(device)}
    for line in process.read_file("mountinfo").splitlines():
        head, _, tail = line.partition(b" - ")
        if tail.split(b" ", 1)[0] == b"tmpfs":
            major, _, minor = head.split()[2].partition(b":")
            devices.add(int(major) << 32 | int(minor))
    return frozenset(devices)


def parse_maps(text: bytes, *, shared_memory_devices: frozenset[int] = frozenset()) -> Mappings:
    """The text of /proc/PID/maps.

    Leaves out `[vsyscall]`, which is no mapping of the process but one of the kernel for all (damon-spec §1.7).
    Devices beyond `shared_memory_devices` are judged by the mapping's name.
    """
    mappings = _parse_headers(text, shared_memory_devices)
    return mappings.select(_valid_rows(mappings))


def _valid_rows(mappings: Mappings) -> NDArray[np.int64]:
    """Indices of the rows that are mappings of the process, and overlap no earlier one.

    A mapping that grows while the text is read can come twice; the second is left for the next reading.
    """
    reached = np.maximum.accumulate(np.concatenate(([np.uint64(0)], mappings.ends)))[:-1]
    is_valid = (mappings.starts >= reached) & (mappings.ends > mappings.starts)
    for index, name in enumerate(mappings.names[-2:], start=max(len(mappings) - 2, 0)):
        if name == "[vsyscall]":
            is_valid[index] = False
    return np.flatnonzero(is_valid)


class _Lines:
    """A text as numpy bytes with the borders of its lines; a last line without its line feed is left out."""

    def __init__(self, text: bytes) -> None:
        # The padding keeps a look behind the end inside, and finds no digit there.
        self.data = np.frombuffer(text + b"\n" * 32, np.uint8)
        self.ends = np.flatnonzero(self.data[: len(text)] == _NEWLINE)
        self.starts = np.concatenate(([0], self.ends[:-1] + 1)) if len(self.ends) else self.ends

    def positions(self, character: int) -> NDArray[np.int64]:
        """Where `character` stands, and once behind the end."""
        return np.append(np.flatnonzero(self.data == character), len(self.data) - 1)

    def numbers(self, starts: NDArray[np.int64], ends: NDArray[np.int64], *, base: int = 16) -> NDArray[np.uint64]:
        """The numbers written in [start, end) of each; all characters there are digits, in lower case."""
        lengths = ends - starts
        values = np.zeros(len(starts), np.uint64)
        shortest = int(lengths.min(initial=64))
        for place in range(int(lengths.max(initial=0))):
            if place < shortest:
                values *= np.uint64(base)
                values += _DIGITS[self.data[starts + place]]
            else:
                longer = np.flatnonzero(lengths > place)
                values[longer] = values[longer] * np.uint64(base) + _DIGITS[self.data[starts[longer] + place]]
        return values

    def beginning_with(self, key: bytes, *, among: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those lines of `among` that begin with `key`."""
        # From the end: keys share their beginnings.
        for place, character in reversed(list(enumerate(key))):
            among = among[self.data[self.starts[among] + place] == character]
        return among

    def kibibytes(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The bytes that the lines tell that end in a number and ` kB`."""
        last = self.ends[rows] - len(b" kB") - 1
        values = np.zeros(len(rows), np.int64)
        is_digit = np.ones(len(rows), np.bool_)
        for place in range(18):
            character = self.data[last - place]
            is_digit &= (character >= ord("0")) & (character <= ord("9"))
            if not is_digit.any():
                break
            values[is_digit] += (character[is_digit].astype(np.int64) - ord("0")) * 10**place
        return values * 1024


def _parse_headers(text: bytes, shared_memory_devices: frozenset[int]) -> Mappings:
    """Lines `start-end rwxp offset major:minor inode   name`, of maps and of smaps alike."""
    lines = _Lines(text)
    every_space = lines.positions(_SPACE)
    first = np.searchsorted(every_space, lines.starts)
    spaces = [
        np.minimum(every_space[np.minimum(first + index, len(every_space) - 1)], lines.ends) for index in range(5)
    ]
    dash, colon = (
        everywhere[np.searchsorted(everywhere, since)]
        for everywhere, since in ((lines.positions(_DASH), lines.starts), (lines.positions(_COLON), spaces[2]))
    )
    names = [
        text[begin:end].strip().decode(errors="surrogateescape") if end - begin > 1 else ""
        for begin, end in zip(spaces[4].tolist(), lines.ends.tolist(), strict=True)
    ]
    permissions = np.zeros(len(lines.starts), np.uint8)
    for place, letter, bit in ((1, b"r", Permission.READ), (2, b"w", Permission.WRITE), (3, b"x", Permission.EXECUTE)):
        permissions |= (lines.data[spaces[0] + place] == letter[0]) * np.uint8(bit)
    permissions |= (lines.data[spaces[0] + 4] == b"s"[0]) * np.uint8(Permission.SHARED)
    devices = lines.numbers(spaces[2] + 1, colon) << np.uint64(32) | lines.numbers(colon + 1, spaces[3])
    inodes = lines.numbers(spaces[3] + 1, spaces[4], base=10)
    return Mappings(
        starts=lines.numbers(lines.starts, dash),
        ends=lines.numbers(dash + 1, spaces[0]),
        permissions=permissions,
        offsets=lines.numbers(spaces[1] + 1, spaces[2]),
        devices=devices,
        inodes=inodes,
        kinds=_kinds(permissions, devices, inodes, names, shared_memory_devices),
        names=names,
    )


def _kinds(
    permissions: NDArray[np.uint8],
    devices: NDArray[np.uint64],
    inodes: NDArray[np.uint64],
    names: list[str],
    shared_memory_devices: frozenset[int],
) -> NDArray[np.uint8]:
    is_shared = (permissions & Permission.SHARED) != 0
    is_file = inodes != 0
    kinds = np.where(is_file, MappingKind.PRIVATE_FILE, MappingKind.PRIVATE_ANONYMOUS).astype(np.uint8)
    kinds[is_shared] = MappingKind.SHARED_FILE
    in_memory = np.isin(devices, np.array(sorted(shared_memory_devices), np.uint64))
    for index in np.flatnonzero(is_shared & ~in_memory).tolist():
        in_memory[index] = names[index].startswith(_SHARED_MEMORY_NAMES)
    kinds[is_shared & in_memory] = MappingKind.SHARED_MEMORY
    for index in np.flatnonzero(~is_file).tolist():
        if names[index].startswith(_SPECIAL_NAMES):
            kinds[index] = MappingKind.SPECIAL
    return kinds


@dataclass(frozen=True)
class DetailedMappings:
    """Mappings with what smaps tells of each; one element each, int64 bytes, rounded by the kernel to KiB.

    Attributes:
        mappings: the mappings.
        rss_bytes: resident; hugetlb pages are not in it.
        pss_bytes: resident, a shared page counted as its share.
        shared_bytes, private_bytes: resident, mapped by more than one process, by this one alone.
        referenced_bytes: resident and accessed since the last clear, by anyone who uses the page.
        anonymous_bytes: resident and of no file.
        anonymous_huge_bytes, file_huge_bytes: mapped as huge pages.
        swap_bytes: in swap; for shared memory too.
        locked_bytes: resident and locked by mlock.
        flags: VmFlags of each, two-letter codes; unknown ones are kept.
    """

    mappings: Mappings
    rss_bytes: NDArray[np.int64]
    pss_bytes: NDArray[np.int64]
    shared_bytes: NDArray[np.int64]
    private_bytes: NDArray[np.int64]
    referenced_bytes: NDArray[np.int64]
    anonymous_bytes: NDArray[np.int64]
    anonymous_huge_bytes: NDArray[np.int64]
    file_huge_bytes: NDArray[np.int64]
    swap_bytes: NDArray[np.int64]
    locked_bytes: NDArray[np.int64]
    flags: tuple[frozenset[str], ...]

    def __len__(self) -> int:
        return len(self.mappings)

    def has_flag(self, code: str) -> NDArray[np.bool_]:
        """For each mapping whether its VmFlags have `code`, such as `lo`."""
        return np.fromiter((code in flags for flags in self.flags), np.bool_, len(self.flags))

    def has_any_flag(self, codes: Sequence[str]) -> NDArray[np.bool_]:
        """For each mapping whether its VmFlags have one of `codes`."""
        wanted = frozenset(codes)
        return np.fromiter((not wanted.isdisjoint(flags) for flags in self.flags), np.bool_, len(self.flags))


# Column → the lines that are summed up in it.
_SUMS = {
    "rss_bytes": (b"Rss:",),
    "pss_bytes": (b"Pss:",),
    "shared_bytes": (b"Shared_Clean:", b"Shared_Dirty:"),
    "private_bytes": (b"Private_Clean:", b"Private_Dirty:"),
    "referenced_bytes": (b"Referenced:",),
    "anonymous_bytes": (b"Anonymous:",),
    "anonymous_huge_bytes": (b"AnonHugePages:",),
    "file_huge_bytes": (b"FilePmdMapped:", b"ShmemPmdMapped:"),
    "swap_bytes": (b"Swap:",),
    "locked_bytes": (b"Locked:",),
}


def read_smaps(process: Process, *, shared_memory_devices: frozenset[int] | None = None) -> DetailedMappings:
    """The mappings of now with their figures, as read_maps.

    The kernel looks at every page for it: 38 ms per GiB of 4 KiB pages on 6.18.  Raises as read_maps does.
    """
    text = process.read_file("smaps")
    process.check_alive()
    if shared_memory_devices is None:
        shared_memory_devices = find_shared_memory_devices(process)
    return parse_smaps(text, shared_memory_devices=shared_memory_devices)


def parse_smaps(text: bytes, *, shared_memory_devices: frozenset[int] = frozenset()) -> DetailedMappings:
    """The text of /proc/PID/smaps.  Lines of unknown keys are skipped; a key that is not there counts 0."""
    lines = _Lines(text)
    first = lines.data[lines.starts]
    # Keys begin with a capital letter, and a mapping with an address.
    headers = np.flatnonzero((first < ord("A")) | (first >= ord("a")))
    header_text = b"".join(
        text[start : end + 1]
        for start, end in zip(lines.starts[headers].tolist(), lines.ends[headers].tolist(), strict=True)
    )
    mappings = _parse_headers(header_text, shared_memory_devices)
    valid = _valid_rows(mappings)
    sums = {name: np.zeros(len(mappings), np.int64) for name in _SUMS}
    candidates = {
        letter: np.flatnonzero(first == letter) for letter in {key[0] for keys in _SUMS.values() for key in keys}
    }
    for name, keys in _SUMS.items():
        for key in keys:
            rows = lines.beginning_with(key, among=candidates[key[0]])
            sums[name][np.searchsorted(headers, rows) - 1] += lines.kibibytes(rows)
    flags = _flags(text, lines, headers)
    return DetailedMappings(
        mappings=mappings.select(valid),
        **{name: values[valid] for name, values in sums.items()},
        flags=tuple(flags[index] for index in valid.tolist()),
    )


def _flags(text: bytes, lines: _Lines, headers: NDArray[np.int64]) -> list[frozenset[str]]:
    key = b"VmFlags:"
    rows = lines.beginning_with(key, among=np.flatnonzero(lines.data[lines.starts] == key[0]))
    flags = [frozenset[str]()] * len(headers)
    known: dict[bytes, frozenset[str]] = {}  # few different ones in a process
    owners = (np.searchsorted(headers, rows) - 1).tolist()
    for owner, start, end in zip(owners, lines.starts[rows].tolist(), lines.ends[rows].tolist(), strict=True):
        line = text[start:end]
        if line not in known:
            known[line] = frozenset(line[len(key) :].decode(errors="replace").split())
        flags[owner] = known[line]
    return flags
