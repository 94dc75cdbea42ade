"""A child process whose memory a test commands: it maps, writes, reads, advises, forks, execs, dies."""

import contextlib
import json
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PROGRAM = Path(__file__).with_name("child_program.py")
PAGE_SIZE = 4096
HUGE_PAGE_SIZE = 2 << 20

MAP_NORESERVE = 0x4000
MAP_FIXED = 0x10
MADV_HUGEPAGE = 14
MADV_NOHUGEPAGE = 15
MADV_DONTNEED = 4
ANONYMOUS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
SHARED = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS
PROT_NONE = 0  # mmap has no name for it
READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE


class Child:
    """One commanded process; a context manager that ends it, by its pid, and reaps it."""

    def __init__(self, *, user_id: int | None = None) -> None:
        self._touching = False
        self._process = subprocess.Popen(
            # From its text and without the virtual environment: either may be out of reach for another user.
            [os.path.realpath(sys.executable), "-I", "-S", "-c", PROGRAM.read_text()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            user=user_id,
        )
        self.pid: int = self._ask("pid")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def _send(self, do: str, **arguments: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()

    def _receive(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ProcessLookupError("the child has ended")
        answer = json.loads(line)
        if "errno" in answer:
            raise OSError(answer["errno"], answer["message"])
        return answer["result"]

    def _ask(self, do: str, **arguments: Any) -> Any:
        self.stop_touching(next_command=(do, arguments))
        return self._receive()

    def map(
        self, length: int, *, flags: int = ANONYMOUS, protection: int = READ_WRITE, at: int = 0, path: str = ""
    ) -> int:
        """Map `length` bytes; with `path`, that file (from its start).  Returns the address."""
        return int(self._ask("mmap", length=length, flags=flags, protection=protection, at=at, path=path))

    def map_aligned(self, length: int, *, flags: int = ANONYMOUS) -> int:
        """Map `length` bytes on a 2 MiB border, apart: closed memory on both sides keeps it a mapping of its own."""
        room = self.map(length + 2 * HUGE_PAGE_SIZE, flags=flags)
        address = (room + PAGE_SIZE + HUGE_PAGE_SIZE - 1) // HUGE_PAGE_SIZE * HUGE_PAGE_SIZE
        self.mprotect(room, address - room, PROT_NONE)
        end = address + length
        self.mprotect(end, room + length + 2 * HUGE_PAGE_SIZE - end, PROT_NONE)
        return address

    def unmap(self, address: int, length: int) -> None:
        self._ask("munmap", address=address, length=length)

    def madvise(self, address: int, length: int, advice: int) -> None:
        self._ask("madvise", address=address, length=length, advice=advice)

    def mprotect(self, address: int, length: int, protection: int) -> None:
        self._ask("mprotect", address=address, length=length, protection=protection)

    def stripe(self, address: int, pages: int) -> None:
        """Make every other page read-only, so that there are as many mappings as pages."""
        self._ask("stripe", address=address, pages=pages)

    def mlock(self, address: int, length: int) -> None:
        self._ask("mlock", address=address, length=length)

    def write(self, address: int, pages: int = 1, *, step: int = 1) -> int:
        """Write one byte of every `step`-th of `pages` pages.  Returns how many pages were written."""
        return int(self._ask("touch", address=address, pages=pages, step=step, write=True))

    def read(self, address: int, pages: int = 1, *, step: int = 1) -> int:
        """Read one byte of every `step`-th of `pages` pages.  Returns how many pages were read."""
        return int(self._ask("touch", address=address, pages=pages, step=step, write=False))

    def fill(self, address: int, length: int) -> None:
        """Random bytes, which zram cannot compress."""
        self._ask("fill", address=address, length=length)

    def digest(self, address: int, length: int) -> int:
        """A checksum of the content; reads all of it."""
        return int(self._ask("digest", address=address, length=length))

    def keep_touching(
        self, ranges: Sequence[tuple[int, int, int]], *, write: bool = False, pause_s: float = 0.0
    ) -> None:
        """Touch `ranges` of (address, pages, step) round after round until the next command, whatever it is."""
        self.stop_touching()
        self._send("keep_touching", ranges=list(ranges), write=write, pause_s=pause_s)
        self._touching = True

    def stop_touching(self, *, next_command: tuple[str, dict[str, Any]] = ("", {})) -> int:
        """End keep_touching.  Returns its rounds, 0 if there was none."""
        name, arguments = next_command
        was_touching, self._touching = self._touching, False
        if name or was_touching:
            self._send(name or "pid", **arguments)
        rounds = int(self._receive()) if was_touching else 0
        if was_touching and not name:
            self._receive()
        return rounds

    def fork(self) -> int:
        """A sleeping child of the child that shares its pages.  Returns its pid."""
        return int(self._ask("fork"))

    def reap(self, pid: int) -> None:
        """End the child of the child with that pid."""
        self._ask("reap", pid=pid)

    def rename(self, name: str) -> None:
        """Set the name in /proc/PID/comm (15 characters)."""
        self._ask("rename", name=name)

    def exec(self, *arguments: str) -> None:
        """Become another program.  No command can follow."""
        self.stop_touching()
        self._send("exec", arguments=list(arguments))

    def kill(self) -> None:
        """End it but leave the zombie, as a parent does that does not look."""
        self._process.kill()
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)

    def end(self) -> None:
        """End and reap it.  May be called again."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


@contextlib.contextmanager
def memory_child(*, user_id: int | None = None) -> Iterator[Child]:
    """A fresh Child, ended afterwards."""
    with Child(user_id=user_id) as child:
        yield child


@contextlib.contextmanager
def on_one_processor() -> Iterator[None]:
    """Keep this thread, and the children that it starts, on one processor.

    For exact numbers after MADV_COLD and MADV_PAGEOUT: they skip the pages faulted in last (up to 31) that
    wait in a processor's own list to be put on the LRU, and empty only the list of the caller's processor.
    """
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, processors)
