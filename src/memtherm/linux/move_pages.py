"""move_pages(2): ask on which memory node pages of a process are, and move them (damon-spec §5.8)."""

import errno

import numpy as np
from numpy.typing import NDArray

from memtherm.errors import InvalidInput, MemthermError, NotPermitted, NotSupported, TargetGone
from memtherm.linux import libc
from memtherm.linux.nodes import read_nodes
from memtherm.linux.process import parse_stat

_MOVE = 1 << 1  # MPOL_MF_MOVE
_MOVE_ALL = 1 << 2  # MPOL_MF_MOVE_ALL
# While a call moves pages, the kernel does without its lists of fresh pages for each processor, on the whole host.
_CALL_PAGES = 4096
# No node, and no errno: what the kernel has not written.
_UNWRITTEN = np.iinfo(np.int32).min


def nodes_of(pid: int, pages: NDArray[np.uint64]) -> NDArray[np.int32]:
    """The node of each page, or -errno: -ENOENT not in memory, -EFAULT not mapped, or the shared page of zeros.

    `pages` are addresses in process `pid`.

    Raises:
        TargetGone, NotPermitted (needs ptrace read access), NotSupported, InvalidInput (a kernel thread).
    """
    _check_pid(pid)
    pages = np.ascontiguousarray(pages, np.uint64)
    status = np.full(len(pages), -errno.ENOENT, np.int32)
    for first in range(0, len(pages), _CALL_PAGES):
        part, answer = pages[first : first + _CALL_PAGES], status[first : first + _CALL_PAGES]
        try:
            libc.move_pages(
                pid,
                count=len(part),
                pages_address=part.ctypes.data,
                nodes_address=0,
                status_address=answer.ctypes.data,
                flags=0,
            )
        except OSError as error:
            raise _problem(error, pid, node=0) from error
    return status


def move_pages(
    pid: int, pages: NDArray[np.uint64], nodes: NDArray[np.int32], *, move_shared: bool = False
) -> NDArray[np.int32]:
    """Move each page to its node.  Returns for each its node where it is there now, else -errno.

    -ENOENT not in memory, -EFAULT not mapped or the shared page of zeros, -EBUSY could not be taken or moved,
    -EACCES mapped by other processes too (`move_shared` moves those as well), -ENOMEM the node is full, after
    which no more pages are tried there.  A huge page moves whole with any page of it.

    `pid` is not held: make sure that it is still the process that you mean.

    Raises:
        InvalidInput: a node has no memory, or the target's cpuset forbids it; pages for other nodes may have moved.
        TargetGone, NotSupported.
        NotPermitted: needs ptrace read access, and CAP_SYS_NICE for `move_shared`.
    """
    _check_pid(pid)
    pages, nodes = np.ascontiguousarray(pages, np.uint64), np.asarray(nodes, np.int32)
    if pages.shape != nodes.shape or pages.ndim != 1:
        raise InvalidInput(f"{pages.shape} pages and {nodes.shape} nodes", hint="give one node for each page")
    status = np.empty(len(pages), np.int32)
    for node in np.unique(nodes).tolist():
        members = np.flatnonzero(nodes == node)
        is_full = False
        for first in range(0, len(members), _CALL_PAGES):
            part = members[first : first + _CALL_PAGES]
            if not is_full:
                status[part], is_full = _move_to(node, pid, pages[part], _MOVE_ALL if move_shared else _MOVE)
            else:
                status[part] = -errno.ENOMEM
    # Of a huge page only the first page is told to have moved, and of a run that failed in part no page is.
    doubtful = np.flatnonzero((status == -errno.EBUSY) | (status == -errno.ENOMEM))
    arrived = doubtful[nodes_of(pid, pages[doubtful]) == nodes[doubtful]]
    status[arrived] = nodes[arrived]
    return status


def _move_to(node: int, pid: int, pages: NDArray[np.uint64], flags: int) -> tuple[NDArray[np.int32], bool]:
    """The status of each page, and whether the node is full.

    The kernel queues pages, and moves the queue where a page cannot be queued and at the end.  Where a queue
    does not move completely, it gives up: that queue and what comes after have no status.  So go on behind it.
    """
    wanted = np.full(len(pages), node, np.int32)
    status = np.full(len(pages), _UNWRITTEN, np.int32)
    position = 0
    while position < len(pages):
        rest = status[position:]
        try:
            unmoved = libc.move_pages(
                pid,
                count=len(rest),
                pages_address=pages[position:].ctypes.data,
                nodes_address=wanted.ctypes.data,
                status_address=rest.ctypes.data,
                flags=flags,
            )
        except OSError as error:
            if error.errno != errno.ENOMEM:
                raise _problem(error, pid, node=node) from error
            rest[rest == _UNWRITTEN] = -errno.ENOMEM
            return status, True
        unwritten = np.flatnonzero(rest == _UNWRITTEN)
        if not unmoved or not len(unwritten):
            break
        queued = int(unwritten[0])
        behind = np.flatnonzero(rest[queued:] != _UNWRITTEN)
        stop = queued + int(behind[0]) if len(behind) else len(rest)
        rest[queued:stop] = -errno.EBUSY
        position += stop
    status[status == _UNWRITTEN] = -errno.EBUSY
    return status, False


def _check_pid(pid: int) -> None:
    # The kernel would take 0 for the caller.
    if not 0 < pid < 2**31:
        raise InvalidInput(f"{pid} is not a process id", hint="give the number that ps or pgrep shows")


def _problem(error: OSError, pid: int, *, node: int) -> MemthermError | OSError:
    """What a refused call means; `node` is the one asked for."""
    if error.errno == errno.ESRCH or (error.errno == errno.EINVAL and not _is_kernel_thread(pid)):
        return TargetGone(f"process {pid} is gone", hint="it exited, or the pid is wrong; see ps or pgrep")
    if error.errno == errno.EINVAL:
        return InvalidInput(f"pid {pid} has no memory of its own: it is a kernel thread", hint="name a program")
    if error.errno == errno.EPERM:
        return NotPermitted(
            f"move_pages: not permitted on process {pid}", hint="run as root, or with CAP_SYS_PTRACE and CAP_SYS_NICE"
        )
    if error.errno == errno.ENODEV:
        known = ", ".join(str(one.number) for one in read_nodes() if one.total_bytes)
        return InvalidInput(f"node {node} has no memory", hint=f"nodes with memory: {known}")
    if error.errno == errno.EACCES:
        return InvalidInput(
            f"node {node} is outside the target's cpuset", hint=f"see Mems_allowed_list in /proc/{pid}/status"
        )
    if error.errno == errno.ENOSYS:
        return NotSupported("this kernel has no move_pages", hint="it is built with CONFIG_NUMA and CONFIG_MIGRATION")
    return error


def _is_kernel_thread(pid: int) -> bool:
    """Else what has no memory is a process on its way out."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = parse_stat(file.read())
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.is_kernel_thread
