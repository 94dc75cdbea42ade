"""Moving pages to memory nodes with weighted destinations (damon-spec §2.4, §5.8), and on which node they are then."""

import errno
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memtherm.act.effect import Subject
from memtherm.act.pieces import Pieces
from memtherm.core.ranges import Addresses, Counts, join_adjacent
from memtherm.core.scheme import Destination
from memtherm.errors import InvalidInput
from memtherm.linux.capabilities import missing
from memtherm.linux.maps import DetailedMappings, MappingKind, Mappings
from memtherm.linux.move_pages import move_pages, nodes_of
from memtherm.linux.nodes import read_nodes
from memtherm.linux.pagemap import PageCategory, Pagemap
from memtherm.linux.process import Process
from memtherm.units import HUGE_PAGE_SIZE, PAGE_SIZE

_HUGE_ORDER = 9
_PAGE_SHIFT = 12
# Moved before we look again whether to go on: some tens of milliseconds.
_BATCH_BYTES = 64 << 20


def destination_refusal(destinations: tuple[Destination, ...], process: Process | None = None) -> str:
    """Why memory cannot be moved there, or an empty text.

    With a process also whether it may have memory there (its cpuset): move_pages asks the target's leave, not ours.

    Raises TargetGone.
    """
    if not destinations:
        return "no destination is given, so nothing would move"
    with_memory = {node.number for node in read_nodes() if node.total_bytes}
    wanted = sorted({one.node for one in destinations if one.weight})
    absent = [node for node in wanted if node not in with_memory]
    if absent:
        return (
            f"memory node {_listed(absent)} does not exist or has no memory; nodes with memory: {_listed(with_memory)}"
        )
    if process is None:
        return ""
    allowed = _allowed_nodes(process)
    closed = [] if allowed is None else [node for node in wanted if node not in allowed]
    if closed:
        return f"the target's cpuset keeps its memory off node {_listed(closed)}"
    return ""


def choose_nodes(
    pages: Addresses,
    mapping_starts: Addresses,
    mapping_offsets: Addresses,
    orders: Counts,
    destinations: tuple[Destination, ...],
) -> NDArray[np.int32]:
    """The node for each page: interleaved by weight along the file or the memory, as kernel DAMON does.

    Stable from call to call, and while a mapping grows, shrinks or is split.

    Args:
        mapping_starts, mapping_offsets: of the mapping that each page is in; bytes.
        orders: of each page's folio, as a power of two of pages.
    """
    order = orders.astype(np.uint64)
    shift = np.uint64(_PAGE_SHIFT) + order
    index = (mapping_offsets >> shift) + ((pages - mapping_starts) >> shift)
    borders = np.cumsum([one.weight for one in destinations], dtype=np.uint64)
    chosen = np.searchsorted(borders, index % borders[-1], side="right")
    nodes: NDArray[np.int32] = np.array([one.node for one in destinations], np.int32)[chosen]
    return nodes


class MigrateEffect:
    """Pages that are on the node now on which they should be, and were not before.

    Looked at are present pages, without the shared page of zeros, by asking move_pages where they are.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        candidates = _find_pages(subject.pagemap, subject.pieces, subject.mappings, subject.destinations)
        where = nodes_of(subject.process.pid, candidates.address)
        self._pages = candidates.take((where >= 0) & (where != candidates.node))
        self.possible_bytes: Counts = self._pages.bytes_of(np.ones(len(self._pages), np.bool_), len(subject.pieces))

    def possible_runs(self) -> tuple[Addresses, Addresses, Counts]:
        pages, pieces = self._pages, self._subject.pieces
        start, end = join_adjacent(pages.address, pages.address + pages.size_bytes.astype(np.uint64))
        start, end, _, piece = pieces.parts_of(start, end)
        return start, end, piece

    def applied_bytes(self) -> Counts:
        now = nodes_of(self._subject.process.pid, self._pages.address)
        return self._pages.bytes_of(now == self._pages.node, len(self._subject.pieces))


def migrate(
    process: Process,
    pieces: Pieces,
    destinations: tuple[Destination, ...],
    mappings: DetailedMappings,
    *,
    stopped: Callable[[], bool] = lambda: False,
) -> int:
    """Move what is present of the pieces, each page to its node, in batches.  Returns the bytes that a stop left.

    Pages that other processes map too move only with CAP_SYS_NICE; without it they stay, which shows as not applied,
    as does what the kernel finds busy.  Of a huge page one page is named: it moves whole.  Folios of sizes in
    between are named page by page, as nothing tells of them here, and end up where their last page belongs.

    The kernel takes a pid here, and no pidfd.  Before each batch the pidfd tells that the process lives; if it exits,
    is reaped, and another one gets its pid within the batch, the rest of the batch would move pages of that one, if
    we may trace it: to a node where they are as good as before.

    Args:
        stopped: asked between batches, whether to leave the rest.

    Raises TargetGone, NotPermitted (needs ptrace read access), NotSupported.
    """
    process.check_alive()
    with Pagemap(process) as pagemap:
        pages = _find_pages(pagemap, pieces, mappings, destinations)
    move_shared = not missing(("CAP_SYS_NICE",))
    batch = np.cumsum(pages.size_bytes) // _BATCH_BYTES
    is_left = np.ones(len(pages), np.bool_)
    for number in np.unique(batch).tolist():
        process.check_alive()
        if stopped():
            return int(pages.size_bytes[is_left].sum())
        mine = is_left & (batch == number)
        try:
            answers = move_pages(process.pid, pages.address[mine], pages.node[mine], move_shared=move_shared)
        except InvalidInput:
            # A node went offline, or the cpuset changed, since destination_refusal: what did not move is not applied.
            process.check_alive()
            break
        # The other batches need not find out again that a node is full.
        full = np.unique(pages.node[mine][answers == -errno.ENOMEM])
        is_left &= (batch > number) & ~np.isin(pages.node, full)
    return 0


@dataclass(frozen=True)
class _Pages:
    """Pages and huge pages: address, size, wanted node and piece of each; a huge page may come page by page."""

    address: Addresses
    size_bytes: Counts
    node: NDArray[np.int32]
    piece: Counts

    def __len__(self) -> int:
        return len(self.address)

    def take(self, which: NDArray[np.bool_]) -> "_Pages":
        return _Pages(self.address[which], self.size_bytes[which], self.node[which], self.piece[which])

    def bytes_of(self, which: NDArray[np.bool_], nr_pieces: int) -> Counts:
        """For each piece the bytes of those of its pages that are picked."""
        counts = np.zeros(nr_pieces, np.int64)
        np.add.at(counts, self.piece[which], self.size_bytes[which])
        return counts


def _find_pages(
    pagemap: Pagemap, pieces: Pieces, mappings: DetailedMappings, destinations: tuple[Destination, ...]
) -> _Pages:
    """The present pages; of each huge page only the first that lies in its piece, with the bytes that do."""
    runs = pagemap.scan(
        pieces.start, pieces.end, any_of=PageCategory.PRESENT, report=PageCategory.HUGE | PageCategory.ZERO
    )
    real = (runs.categories & np.uint64(PageCategory.ZERO)) == 0
    start, end, run, piece = pieces.parts_of(runs.starts[real], runs.ends[real])
    is_huge = (runs.categories[real][run] & np.uint64(PageCategory.HUGE)) != 0
    unit = np.where(is_huge, HUGE_PAGE_SIZE, PAGE_SIZE).astype(np.uint64)
    first = start // unit
    count = ((end - np.uint64(1)) // unit - first + np.uint64(1)).astype(np.int64)
    row = np.repeat(np.arange(len(start)), count)
    block = first[row] + (np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)).astype(np.uint64)
    address = np.maximum(start[row], block * unit[row])
    behind = np.minimum(end[row], (block + np.uint64(1)) * unit[row])
    mapping = pieces.mapping[piece[row]]
    orders = np.where(is_huge[row], _HUGE_ORDER, 0)
    if not pagemap.uses_scan:
        # Before 6.7 nothing tells which pages are huge: where some are, each block of 2 MiB goes to one node whole.
        orders = np.where((mappings.anonymous_huge_bytes + mappings.file_huge_bytes)[mapping] > 0, _HUGE_ORDER, 0)
    starts, offsets = mappings.mappings.starts[mapping], _page_offsets(mappings.mappings)[mapping]
    node = choose_nodes(address, starts, offsets, orders, destinations)
    return _Pages(address, (behind - address).astype(np.int64), node, piece[row])


def _page_offsets(mappings: Mappings) -> Addresses:
    """Where each mapping begins in its file; of memory without a file, as in the kernel, its address."""
    # maps shows 0 for it.  The kernel keeps the address of its first mapping, which mremap does not change.
    anonymous = (mappings.inodes == 0) & (mappings.kinds == MappingKind.PRIVATE_ANONYMOUS)
    return np.where(anonymous, mappings.starts, mappings.offsets)


def _allowed_nodes(process: Process) -> set[int] | None:
    """By the target's cpuset; None where the kernel has no cpusets."""
    for line in process.read_file("status").decode(errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key == "Mems_allowed_list":
            return _parse_list(value.strip())
    process.check_alive()
    return None


def _parse_list(text: str) -> set[int]:
    """`0-2,5` → {0, 1, 2, 5}."""
    numbers: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return numbers


def _listed(numbers: set[int] | list[int]) -> str:
    return ", ".join(str(number) for number in sorted(numbers))
