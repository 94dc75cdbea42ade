"""The demo's program: memory with a known rhythm.  Run as a child; ends with its standard input.

Says once, as a JSON line, where its memory is and what of it is hot; then, for each line that it is
sent, how many passes over the hot pages it has made and the CPU time that they took.
"""

import json
import mmap
import select
import sys
import tempfile
import time

import numpy as np

PAGE = mmap.PAGESIZE
MIB = 1 << 20
ANONYMOUS_BYTES = 512 * MIB
FILE_BYTES = 128 * MIB
PERIOD_S = 0.003
_MADV_NOHUGEPAGE = 15
_SUMS = 3


def main() -> None:
    anonymous = mmap.mmap(-1, ANONYMOUS_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    anonymous.madvise(_MADV_NOHUGEPAGE)
    # /tmp may be a tmpfs, whose pages go to swap and not to a disk; /var/tmp never is.
    with tempfile.TemporaryFile(dir="/var/tmp") as file:
        for _ in range(FILE_BYTES // MIB):
            file.write(np.random.default_rng(1).bytes(MIB))
        file.flush()
        mapped = mmap.mmap(file.fileno(), FILE_BYTES, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    memory = np.frombuffer(anonymous, np.uint8)
    # Content that compresses about as real memory does, so that zram has something to do.
    memory.reshape(-1, PAGE)[:, : PAGE // 2] = np.random.default_rng(2).integers(0, 256, PAGE // 2, np.uint8)
    content = np.frombuffer(mapped, np.uint8)
    content[::PAGE].sum()

    stripes = [
        (memory, 96 * MIB, 32 * MIB),
        (memory, 320 * MIB, 32 * MIB),
        (content, 16 * MIB, 16 * MIB),
    ]
    print(
        json.dumps({"known": [_range(memory), _range(content)], "hot": [_stripe(*one) for one in stripes]}), flush=True
    )
    numbers = memory[96 * MIB : 104 * MIB].view(np.uint64)
    _work([array[offset : offset + length : PAGE] for array, offset, length in stripes], numbers)


def _work(
    hot: list[np.ndarray[tuple[int], np.dtype[np.uint8]]], numbers: np.ndarray[tuple[int], np.dtype[np.uint64]]
) -> None:
    """Touch each hot page, and compute with some of them: a program that does nothing but touch pages is none."""
    passes, worked_s = 0, 0.0
    while True:
        began_s = time.process_time()
        for pages in hot:
            pages.sum()
        for _ in range(_SUMS):
            numbers.sum()
        took_s = time.process_time() - began_s
        passes, worked_s = passes + 1, worked_s + took_s
        if select.select([sys.stdin], [], [], max(0.0, PERIOD_S - took_s))[0]:
            if not sys.stdin.readline():
                return
            print(json.dumps({"passes": passes, "worked_s": worked_s}), flush=True)


def _range(array: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> tuple[int, int]:
    start: int = array.__array_interface__["data"][0]
    return start, start + array.nbytes


def _stripe(array: np.ndarray[tuple[int], np.dtype[np.uint8]], offset: int, length: int) -> tuple[int, int]:
    start = _range(array)[0] + offset
    return start, start + length


if __name__ == "__main__":
    main()
