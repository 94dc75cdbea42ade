"""What a run changes on the host, and puts back: zram as swap, and the mode of huge pages."""

import fcntl
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.schemes.processes import BenchmarkError

_DEVICE = Path("/dev/zram0")
_ZRAM = Path("/sys/block/zram0")
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
# The one that tests/support/swap.py takes: a test and a benchmark must not share a device.
_LOCK = "memtherm-test-swap.lock"


def chosen(text: str) -> str:
    """The word in brackets of a file in /sys that offers several."""
    return next((word.strip("[]") for word in text.split() if word.startswith("[")), text.strip())


def huge_pages_mode() -> str:
    return chosen(_HUGE_PAGES.read_text())


@contextmanager
def huge_pages(mode: str) -> Iterator[None]:
    """The mode of transparent huge pages of the whole host, while the block runs."""
    before = huge_pages_mode()
    try:
        _HUGE_PAGES.write_text(mode)
        yield
    finally:
        _HUGE_PAGES.write_text(before)


@contextmanager
def zram_swap(size_bytes: int, algorithm: str | None) -> Iterator[str]:
    """zram0 as swap before all other; yields its algorithm.

    Raises:
        BenchmarkError: there is no zram, somebody uses it, or it has not this algorithm.
    """
    # Appended to, never truncated or removed: two processes must lock one and the same file.
    with open(Path(tempfile.gettempdir()) / _LOCK, "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another process that uses swap", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        _check_zram(algorithm)
        before = chosen((_ZRAM / "comp_algorithm").read_text())
        try:
            if algorithm is not None:
                (_ZRAM / "comp_algorithm").write_text(algorithm)
            (_ZRAM / "disksize").write_text(str(size_bytes))
            _command("mkswap", str(_DEVICE))
            _command("swapon", "--priority", "1000", str(_DEVICE))
            yield chosen((_ZRAM / "comp_algorithm").read_text())
        finally:
            if _is_swap():
                _command("swapoff", str(_DEVICE))
            (_ZRAM / "reset").write_text("1")
            (_ZRAM / "comp_algorithm").write_text(before)


def _check_zram(algorithm: str | None) -> None:
    if not _ZRAM.exists():
        raise BenchmarkError("there is no zram0 here: modprobe zram")
    if (_ZRAM / "disksize").read_text().strip() != "0":
        raise BenchmarkError("zram0 is in use: swapoff /dev/zram0 and write 1 to /sys/block/zram0/reset")
    offered = (_ZRAM / "comp_algorithm").read_text().replace("[", "").replace("]", "").split()
    if algorithm is not None and algorithm not in offered:
        raise BenchmarkError(f"zram offers {', '.join(offered)}, not {algorithm}")


def _is_swap() -> bool:
    return any(line.split()[0] == str(_DEVICE) for line in Path("/proc/swaps").read_text().splitlines()[1:])


def _command(*arguments: str) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"{' '.join(arguments)}: {done.stderr.strip()}")
