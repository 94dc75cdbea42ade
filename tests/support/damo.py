"""damo as a judge: `damo("report", "wss", …)`, a program of its own that cannot reach this machine's DAMON.

Much of damo edits DAMON's files only to look.  For root it runs in a mount namespace where empty and read-only
folders lie over them; anybody else may not write them anyhow.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

PATIENCE_S = 120.0
_HIDE = """
set -e
for folder in /sys/kernel/mm/damon /sys/module/damon_* /sys/kernel/debug /sys/kernel/tracing; do
    if [ -d "$folder" ]; then mount -t tmpfs -o ro,size=4k none "$folder"; fi
done
exec "$@"
"""
# As newer versions of `file` answer.
_FILE = """#!/bin/sh
for path; do :; done
case "$(head -c 1 "$path")" in
    "[" | "{") echo "JSON data" ;;
    *) exec /usr/bin/file "$@" ;;
esac
"""


def damo_path() -> Path:
    """The program beside this Python; `require("damo")` says whether it is there."""
    return Path(sys.executable).parent / "damo"


def without_damon(*words: str) -> list[str]:
    """The command line that runs a program where no DAMON is."""
    if os.geteuid() != 0:
        return list(words)
    return ["unshare", "--mount", "--propagation", "private", "--", "sh", "-c", _HIDE, "sh", *words]


def damo(*words: str | Path, calls_json: bool = True) -> "subprocess.CompletedProcess[str]":
    """Run damo to its end, with a home of its own: it keeps what it finds out about the kernel there.

    Args:
        calls_json: whether the command `file` calls JSON as damo wants it; that of Debian does not.
    """
    with tempfile.TemporaryDirectory() as home:
        path = os.environ["PATH"]
        if calls_json:
            command = Path(home) / "file"
            command.write_text(_FILE)
            command.chmod(0o755)
            path = f"{home}:{path}"
        return subprocess.run(
            without_damon(str(damo_path()), *(str(word) for word in words)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
            cwd=home,
            env=os.environ | {"HOME": home, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        )


def damo_output(*words: str | Path) -> str:
    """What damo prints; it must end well."""
    done = damo(*words)
    assert done.returncode == 0, (done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout
