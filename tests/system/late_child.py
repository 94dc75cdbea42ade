"""A program that starts another at each line of its input: 72 MiB of its own, of which it touches nothing again."""

import mmap
import os
import signal
import sys

SIZE = 72 << 20
PR_SET_PDEATHSIG = 1


def child(parent: int) -> None:
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    memory = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    for page in range(0, SIZE, 4096):
        memory[page] = 1
    print(os.getpid(), flush=True)
    while os.getppid() == parent:
        signal.pause()


print(os.getpid(), flush=True)
while sys.stdin.readline():
    if os.fork() == 0:
        child(os.getppid())
