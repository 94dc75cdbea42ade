"""What the numbers of a benchmark belong to: machine, kernel, versions, command; and where results are kept."""

import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
RESULTS = REPOSITORY / "build" / "bench"


def _field(path: str, name: str) -> str:
    lines = Path(path).read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "unknown")


def available_bytes() -> int:
    """Memory that can be had without swapping."""
    return int(_field("/proc/meminfo", "MemAvailable").split()[0]) * 1024


def _commit() -> str:
    command = ["git", "-c", "safe.directory=*", "describe", "--always", "--dirty"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _other_monitors() -> str:
    """The kernel's own DAMON, where it runs: it takes accesses away from every other way of seeing them."""
    names = sorted(path.read_text().strip() for path in Path("/proc").glob("[0-9]*/comm") if _is_kdamond(path))
    return f"{', '.join(names)} of the kernel clears accessed bits of some pages now and then" if names else ""


def _is_kdamond(path: Path) -> bool:
    try:
        return path.read_text().startswith("kdamond")
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return False


def conditions() -> dict[str, str]:
    """As text, in the order in which they are printed."""
    return {
        "machine": f"{_field('/proc/cpuinfo', 'model name')}, {os.cpu_count()} CPUs, "
        f"{_field('/proc/meminfo', 'MemTotal')} memory",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "memtherm": f"{importlib.metadata.version('memtherm')}, commit {_commit()}",
        "versions": f"Python {platform.python_version()}, numpy {importlib.metadata.version('numpy')}",
        "command": shlex.join(["PYTHONPATH=tests:.", "python", *sys.argv]),
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "noise": _other_monitors() or "no other monitor of accesses",
        "began": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def save(name: str, *, began: dict[str, str], is_quick: bool, rows: list[dict[str, Any]]) -> Path:
    """Write the rows of a benchmark to build/bench/NAME.json."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    result = {"conditions": began, "is_quick": is_quick, "rows": rows}
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def load(name: str) -> dict[str, Any]:
    """What `save` wrote last."""
    result: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return result
