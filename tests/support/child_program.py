"""The other half of children.py: obeys one JSON command a line, answers one JSON line.

Standard library only: it is started from its text, also as a user who may not read the test tree.
"""

import ctypes
import json
import os
import select
import signal
import sys
import time
import zlib
from collections.abc import Callable
from typing import Any

PAGE_SIZE = 4096
PR_SET_PDEATHSIG = 1

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
for name in ("madvise", "mprotect", "munmap", "mlock"):
    function = getattr(libc, name)
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *((ctypes.c_int,) if name[:2] in ("ma", "mp") else ()))


def checked(result: int | None) -> int:
    if result in (-1, None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(result or 0)


def pages_of(address: int, pages: int, step: int) -> memoryview:
    """The first byte of every `step`-th page of `pages` pages."""
    memory = (ctypes.c_ubyte * (pages * PAGE_SIZE)).from_address(address)
    return memoryview(memory).cast("B")[:: step * PAGE_SIZE]


def touch(address: int, pages: int, step: int = 1, write: bool = False) -> int:
    view = pages_of(address, pages, step)
    if write:
        view[:] = b"\1" * len(view)
    else:
        view.tobytes()
    return len(view)


def fill(address: int, length: int) -> None:
    """Bytes that no compressor makes small, so that zram really holds them."""
    for offset in range(0, length, 1 << 20):
        part = min(1 << 20, length - offset)
        ctypes.memmove(address + offset, os.urandom(part), part)


def map_memory(length: int, protection: int, flags: int, path: str, at: int) -> int:
    descriptor = os.open(path, os.O_RDWR) if path else -1
    address = checked(libc.mmap(at or None, length, protection, flags, descriptor, 0))
    if path:
        os.close(descriptor)
    return address


def stripe(address: int, pages: int) -> None:
    """Every other page read-only: as many mappings as pages."""
    for page in range(0, pages, 2):
        checked(libc.mprotect(address + page * PAGE_SIZE, PAGE_SIZE, 1))


def keep_touching(ranges: list[list[int]], write: bool, pause_s: float) -> int:
    """Touch `ranges` (address, pages, step) round after round, until the next command comes."""
    rounds = 0
    while not select.select([0], [], [], 0)[0]:
        for address, pages, step in ranges:
            touch(address, pages, step, write)
        rounds += 1
        if pause_s:
            time.sleep(pause_s)
    return rounds


def fork() -> int:
    """A child that shares all pages and waits to be killed; it goes with us."""
    pid = os.fork()
    if pid == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        while True:
            signal.pause()
    return pid


def reap(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def rename(name: str) -> None:
    libc.prctl(15, ctypes.c_char_p(name.encode()), 0, 0, 0)


COMMANDS: dict[str, Callable[..., Any]] = {
    "mmap": map_memory,
    "munmap": lambda address, length: checked(libc.munmap(address, length)),
    "madvise": lambda address, length, advice: checked(libc.madvise(address, length, advice)),
    "mprotect": lambda address, length, protection: checked(libc.mprotect(address, length, protection)),
    "mlock": lambda address, length: checked(libc.mlock(address, length)),
    "stripe": stripe,
    "touch": touch,
    "fill": fill,
    "digest": lambda address, length: zlib.crc32((ctypes.c_ubyte * length).from_address(address)),
    "keep_touching": keep_touching,
    "fork": fork,
    "reap": reap,
    "rename": rename,
    "exec": lambda arguments: os.execv(arguments[0], arguments),
    "pid": os.getpid,
}


def next_line() -> bytes:
    """One byte at a time: what a buffer has read ahead would be invisible to the select() of keep_touching."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return b""
        line += byte
    return line


def main() -> None:
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    while line := next_line():
        command = json.loads(line)
        name = command.pop("do")
        try:
            answer = {"result": COMMANDS[name](**command)}
        except OSError as error:
            answer = {"errno": error.errno, "message": str(error)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


main()
