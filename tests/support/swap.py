"""`with swap_on(size_bytes)`: some swap for one test, put back as it was."""

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ZRAM = Path("/sys/block/zram0")
FILE_FOLDER = Path("/var/tmp")  # /tmp may be tmpfs, which cannot hold a swap file


@dataclass(frozen=True)
class SwapDevice:
    """The swap that a test was given.

    Attributes:
        path: the device or the file.
        is_zram: compressed memory; else a file on a disk.
    """

    path: Path
    is_zram: bool


@contextmanager
def swap_on(size_bytes: int) -> Iterator[SwapDevice]:
    """Swap of `size_bytes`: zram0 where nobody uses it, else a file.  Needs `require("swap")`.

    One at a time on the host: a second test process waits for the first one, so that
    neither resets the other's device.
    """
    # Appended to, never truncated or removed: two processes must lock one and the same file.
    with open(Path(tempfile.gettempdir()) / "memtherm-test-swap.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with _zram(size_bytes) if _zram_is_free() else _file(size_bytes) as device:
            _run("mkswap", str(device.path))
            _run("swapon", "--priority", "1000", str(device.path))
            try:
                yield device
            finally:
                _run("swapoff", str(device.path))


def _zram_is_free() -> bool:
    return (ZRAM / "disksize").exists() and (ZRAM / "disksize").read_text().strip() == "0"


@contextmanager
def _zram(size_bytes: int) -> Iterator[SwapDevice]:
    (ZRAM / "disksize").write_text(str(size_bytes))
    try:
        yield SwapDevice(Path("/dev/zram0"), is_zram=True)
    finally:
        (ZRAM / "reset").write_text("1")


@contextmanager
def _file(size_bytes: int) -> Iterator[SwapDevice]:
    descriptor, name = tempfile.mkstemp(prefix="memtherm-swap-", dir=FILE_FOLDER)
    try:
        # A swap file must have no holes.
        os.posix_fallocate(descriptor, 0, size_bytes)
        os.close(descriptor)
        yield SwapDevice(Path(name), is_zram=False)
    finally:
        with suppress(FileNotFoundError):
            Path(name).unlink()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
