"""A folder that behaves like DAMON's sysfs tree (damon-spec §3), for any number of processes at once.

`FakeDamonTree` is a DamonTree whose two lowest calls do what the kernel would: writing `nr_*` makes directories anew,
values are checked, `state` takes commands.  What lies in the folder is the tree; what begins with a dot is the kernel.
"""

import errno
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from memtherm.kdamond.tree import DamonTree, Patience

RELEASES: tuple[str, ...] = (
    "5.18",
    "5.19",
    "6.0",
    "6.2",
    "6.3",
    "6.6",
    "6.7",
    "6.8",
    "6.9",
    "6.10",
    "6.11",
    "6.12",
    "6.14",
    "6.15",
)
RELEASES += ("6.16", "6.17", "6.18", "6.19", "7.0", "7.1", "7.2", "7.3")
THREAD = 900_000  # ids of the kernel's threads begin here

# path -> (text of a fresh file, release, is it for reading only)
Template = dict[str, tuple[str, str, bool]]


def _new(since: str = "5.18", **files: str) -> Template:
    return {path.replace("__", "/"): (text, since, False) for path, text in files.items()}


def _only_read(since: str = "5.18", **files: str) -> Template:
    return {path: (text, since, True) for path, (text, _, _) in _new(since, **files).items()}


_KDAMOND = _new(state="off", contexts__nr_contexts="0") | _only_read(pid="-1") | _new("6.17", refresh_ms="0")
_ATTRIBUTES = "monitoring_attrs__"
_CONTEXT = (
    _new(operations="vaddr", targets__nr_targets="0", schemes__nr_schemes="0")
    | _only_read("5.19", avail_operations="vaddr\nfvaddr\npaddr")
    | _new("6.18", addr_unit="1")
    | _new("7.2", pause="N", **{f"{_ATTRIBUTES}probes__nr_probes": "0"})
    | _new(
        **{
            f"{_ATTRIBUTES}intervals__sample_us": "5000",
            f"{_ATTRIBUTES}intervals__aggr_us": "100000",
            f"{_ATTRIBUTES}intervals__update_us": "60000000",
            f"{_ATTRIBUTES}nr_regions__min": "10",
            f"{_ATTRIBUTES}nr_regions__max": "1000",
        }
    )
    | _new(
        "6.15",
        **{
            f"{_ATTRIBUTES}intervals__intervals_goal__{name}": "0"
            for name in ("access_bp", "aggrs", "min_sample_us", "max_sample_us")
        },
    )
)
_TARGET = _new(pid_target="0", regions__nr_regions="0") | _new("6.19", obsolete_target="N")
_SCHEME = (
    _new(action="stat", quotas__ms="0", quotas__bytes="0", quotas__reset_interval_ms="0", watermarks__metric="none")
    | _new(**{f"quotas__weights__{name}_permil": "0" for name in ("sz", "nr_accesses", "age")})
    | _new(**{f"access_pattern__{one}__{end}": "0" for one in ("sz", "nr_accesses", "age") for end in ("min", "max")})
    | _new(**{f"watermarks__{name}": "0" for name in ("interval_us", "high", "mid", "low")})
    | _new("6.11", target_nid="-1")
    | _new("6.7", apply_interval_us="0")
    | _only_read("6.9", quotas__effective_bytes="0")
    | _new("7.1", quotas__goal_tuner="consist")
    | _new("7.2", quotas__fail_charge_num="0", quotas__fail_charge_denom="0")
    | _new("6.8", quotas__goals__nr_goals="0")
    | _new("6.3", filters__nr_filters="0")
    | _new("6.15", core_filters__nr_filters="0", ops_filters__nr_filters="0")
    | _new("6.17", dests__nr_dests="0")
    | _only_read(**{f"stats__{name}": "0" for name in ("nr_tried", "sz_tried", "nr_applied", "sz_applied")})
    | _only_read(stats__qt_exceeds="0")
    | _only_read("6.14", stats__sz_ops_filter_passed="0")
    | _only_read("7.0", stats__nr_snapshots="0")
    | _new("7.0", stats__max_nr_snapshots="0")
    | _only_read("6.6", tried_regions__total_bytes="0")
)
_FILTER = (
    _new("6.3", type="anon", matching="N", memcg_path="")
    | _new("6.6", addr_start="0", addr_end="0", damon_target_idx="0")
    | _new("6.14", allow="N")
    | _new("6.15", min="0", max="0")
)
_TEMPLATES: dict[str, Template] = {
    "nr_kdamonds": _KDAMOND,
    "nr_contexts": _CONTEXT,
    "nr_targets": _TARGET,
    "nr_regions": _new(start="0", end="0"),
    "nr_schemes": _SCHEME,
    "nr_goals": _new(target_value="0", current_value="0")
    | _new("6.9", target_metric="user_input")
    | _new("6.16", nid="0")
    | _new("6.19", path=""),
    "nr_filters": _FILTER,
    "nr_dests": _new(id="0", weight="0"),
    "nr_probes": _new(filters__nr_filters="0") | _new("7.3", weight="0"),
}
_PROBE_FILTER = _new(type="anon", matching="N", allow="N", path="")

_KEYWORDS: dict[str, dict[str, str]] = {  # file -> word -> release
    "operations": dict.fromkeys(("vaddr", "fvaddr", "paddr"), "5.18"),
    "action": dict.fromkeys(("willneed", "cold", "pageout", "hugepage", "nohugepage", "stat"), "5.18")
    | dict.fromkeys(("lru_prio", "lru_deprio"), "6.0")
    | dict.fromkeys(("migrate_hot", "migrate_cold"), "6.11")
    | {"collapse": "7.2"},
    "metric": dict.fromkeys(("none", "free_mem_rate"), "5.18"),
    "goal_tuner": dict.fromkeys(("consist", "temporal"), "7.1"),
    "target_metric": {"user_input": "6.9", "some_mem_psi_us": "6.9"}
    | dict.fromkeys(("node_mem_used_bp", "node_mem_free_bp"), "6.16")
    | dict.fromkeys(("node_memcg_used_bp", "node_memcg_free_bp"), "6.19")
    | dict.fromkeys(("active_mem_bp", "inactive_mem_bp"), "7.0")
    | {"node_eligible_mem_bp": "7.2"},
    "type": {"anon": "6.3", "memcg": "6.3", "addr": "6.6", "target": "6.6", "young": "6.10"}
    | dict.fromkeys(("hugepage_size", "unmapped", "active"), "6.15"),
}
_FLAGS = {"matching", "allow", "obsolete_target", "pause"}
_INTS = {"nid", "target_nid", "damon_target_idx", "pid_target"}
_UINTS = {"sz_permil", "nr_accesses_permil", "age_permil", "id", "weight", "refresh_ms"} | {
    "fail_charge_num",
    "fail_charge_denom",
}
_PATHS = {"memcg_path", "path"}


def _is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


class FakeDamonTree(DamonTree):
    """DAMON as it was in `release`, in the folder `root`, which is made where it is not there.

    Attributes:
        writes: (path, text) of all that was written through this object, in order.
    """

    def __init__(self, root: Path, *, release: str = "7.3", patience: Patience | None = None, **clock: Any) -> None:
        super().__init__(root, patience=patience, **clock)
        self._rank = RELEASES.index(release)
        self._folder = self.kdamonds
        self.writes: list[tuple[str, str]] = []
        for name in (".running", ".removed", ".committed"):
            (root / name).mkdir(parents=True, exist_ok=True)
        if not self._folder.exists():
            self._folder.mkdir()
            (self._folder / "nr_kdamonds").write_text("0")

    # What a test does to the kernel.

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Another's command holds the kernel's lock."""
        with self._lock():
            yield

    def set_module_running(self, is_running: bool) -> None:
        """A module of DAMON has the kernel's monitor for itself."""
        path = self.root / ".module"
        path.touch() if is_running else path.unlink(missing_ok=True)

    def set_results(self, **results: Any) -> None:
        """What commands bring: `stats` and `effective_bytes` by file, `regions` as rows, `tuned` (sample, aggr)."""
        (self.root / ".results").write_text(json.dumps(results))

    def fail_next(self, command: str, number: int) -> None:
        """The next such command fails with this errno."""
        (self.root / ".fails").write_text(json.dumps([command, number]))

    def set_resting(self, is_resting: bool) -> None:
        """All schemes rest by their watermarks: before 6.14 a commit waits until they do not, or `off`."""
        path = self.root / ".resting"
        path.touch() if is_resting else path.unlink(missing_ok=True)

    def end(self, index: int) -> None:
        """The thread of a kdamond ends by itself."""
        self._running_file(self._folder / str(index)).unlink()

    def rewrite(self, count: int) -> None:
        """Another program writes nr_kdamonds."""
        with self._lock():
            self._make_directories(self._folder / "nr_kdamonds", str(count))

    def committed(self, index: int) -> dict[str, str]:
        """Path → text of the files of a kdamond when they were taken in last, by `on` or a commit."""
        file = self.root / ".committed" / str((self._folder / str(index)).stat().st_ino)
        files: dict[str, str] = json.loads(file.read_text())
        return files

    # What the kernel does.

    def _read_file(self, path: str, directory: int | None) -> str:
        place = self._real(path, directory)
        if place.name not in ("state", "pid"):
            return super()._read_file(path, directory)
        os.close(os.open(path, os.O_RDONLY, dir_fd=directory))
        with self._lock():
            is_running = self._is_running(place.parent)
        if place.name == "state":
            return "on" if is_running else "off"
        return str(THREAD + int(place.parent.name)) if is_running else "-1"

    def _write_file(self, path: str, directory: int, content: bytes) -> None:
        place = self._real(path, directory)
        # As the kernel would look for it: a directory that was removed has no files.
        os.close(os.open(path, os.O_WRONLY, dir_fd=directory))
        if not place.stat().st_mode & 0o200:
            raise PermissionError(errno.EACCES, "read only", path)
        text = content.decode()
        self.writes.append((str(place.relative_to(self._folder)), text))
        if place.name in _TEMPLATES:
            with self._lock():
                self._make_directories(place, text)
        elif place.name == "state":
            if text == "commit" and not self._has("6.14"):
                while (self.root / ".resting").exists() and self._is_running(place.parent):
                    time.sleep(0.01)  # of the kernel: its lock is free meanwhile
            with self._lock():
                self._obey(place.parent, text.strip())
        else:
            place.write_text(self._checked(place, text))

    def _real(self, path: str, directory: int | None) -> Path:
        base = Path() if directory is None else Path(f"/proc/self/fd/{directory}").readlink()
        return base / path

    @contextmanager
    def _lock(self) -> Iterator[None]:
        lock = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise OSError(errno.EBUSY, "locked") from error
        finally:
            os.close(lock)

    def _has(self, release: str) -> bool:
        return RELEASES.index(release) <= self._rank

    def _number(self, text: str, low: int, high: int) -> int:
        match = re.fullmatch(r"(-?)(0x[0-9a-f]+|0[0-7]*|[1-9][0-9]*)\n?", text, re.IGNORECASE)
        if match is None:
            raise OSError(errno.EINVAL, text)
        digits = match[2]
        value = int(digits, 16 if digits[:2].lower() == "0x" else 8 if digits[0] == "0" else 10)
        value = -value if match[1] else value
        if value < low:
            raise OSError(errno.EINVAL, text)
        if value > high:
            raise OSError(errno.ERANGE, text)
        return value

    def _checked(self, place: Path, text: str) -> str:
        """What a file reads as after it took `text`."""
        name, word = place.name, text.removesuffix("\n")
        if name in _PATHS:
            return text
        if name in _FLAGS:
            if word not in ("Y", "N", "y", "n", "1", "0", "on", "off"):
                raise OSError(errno.EINVAL, text)
            return "Y" if word in ("Y", "y", "1", "on") else "N"
        if name in _KEYWORDS and not (name == "metric" and place.parent.name != "watermarks"):
            self._check_word(place, word)
            return word
        limits = (-(2**31), 2**31 - 1) if name in _INTS else (0, 2**32 - 1) if name in _UINTS else (0, 2**64 - 1)
        return str(self._number(text, *limits))

    def _check_word(self, place: Path, word: str) -> None:
        since = _KEYWORDS[place.name].get(word)
        is_core = word in ("addr", "target")
        group = place.parent.parent.name
        is_wrong_group = (group == "core_filters" and not is_core) or (group == "ops_filters" and is_core)
        is_of_probe = "probes" in place.parts and word not in ("anon", "memcg")
        if since is None or not self._has(since) or (place.name == "type" and (is_wrong_group or is_of_probe)):
            raise OSError(errno.EINVAL, word)

    def _make_directories(self, place: Path, text: str) -> None:
        count = self._number(text, 0, 2**31 - 1)
        most = {"nr_contexts": 1, "nr_probes": 4}.get(place.name, 2**31)
        if count > most:
            raise OSError(errno.EINVAL, text)
        old = [path for path in place.parent.iterdir() if path.name.isdigit()]
        if place.name == "nr_kdamonds" and any(self._is_running(path) for path in old):
            raise OSError(errno.EBUSY, "a kdamond runs")
        for path in old:
            self._remove(path, is_kept=place.name == "nr_kdamonds")
        is_of_probe = place.name == "nr_filters" and "probes" in place.parts
        template = _PROBE_FILTER if is_of_probe else _TEMPLATES[place.name]
        for index in range(count):
            self._unfold(place.parent / str(index), template)
        place.write_text(str(count))

    def _remove(self, path: Path, *, is_kept: bool) -> None:
        if not is_kept:
            shutil.rmtree(path)
            return
        # Kept without its files, so that no later directory has its inode: the kernel gives none twice.
        for child in path.iterdir():
            shutil.rmtree(child) if child.is_dir() else child.unlink()
        path.rename(self.root / ".removed" / str(path.stat().st_ino))

    def _unfold(self, folder: Path, template: Template) -> None:
        folder.mkdir()
        for path, (text, since, is_only_read) in template.items():
            if self._has(since):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_text(text)
                (folder / path).chmod(0o400 if is_only_read else 0o600)
        if template is _SCHEME and self._has("6.2"):
            (folder / "tried_regions").mkdir(exist_ok=True)

    def _running_file(self, kdamond: Path) -> Path:
        return self.root / ".running" / str(kdamond.stat().st_ino)

    def _is_running(self, kdamond: Path) -> bool:
        """Whether its thread runs, which ends when all its processes have."""
        file = self._running_file(kdamond)
        if not file.exists() or file.read_text() == "stopped":
            return False
        pids = json.loads(file.read_text())
        return not pids or any(_is_alive(pid) for pid in pids)

    def _obey(self, kdamond: Path, command: str) -> None:
        fails = self.root / ".fails"
        if fails.exists() and json.loads(fails.read_text())[0] == command:
            number = json.loads(fails.read_text())[1]
            fails.unlink()
            raise OSError(number, command)
        running = self._running_file(kdamond)
        if command == "on":
            self._start(kdamond, running)
            return
        if command == "off":
            if not running.exists():
                raise OSError(errno.EINVAL, command)
            running.write_text("stopped")
            return
        if not self._is_running(kdamond):
            raise OSError(errno.ECANCELED if running.exists() else errno.EINVAL, command)
        self._bring(kdamond, command)

    def _start(self, kdamond: Path, running: Path) -> None:
        if self._is_running(kdamond) or (self.root / ".module").exists():
            raise OSError(errno.EBUSY, "running")
        if not (kdamond / "contexts/0").is_dir():
            raise OSError(errno.EINVAL, "no context")
        self._take_in(kdamond)
        running.write_text(json.dumps(self._pids(kdamond)))

    def _pids(self, kdamond: Path) -> list[int]:
        if (kdamond / "contexts/0/operations").read_text() == "paddr":
            return []
        return [int(file.read_text()) for file in sorted(kdamond.glob("contexts/0/targets/*/pid_target"))]

    def _take_in(self, kdamond: Path) -> None:
        if any(not _is_alive(pid) for pid in self._pids(kdamond)):
            raise OSError(errno.EINVAL, "no such process")
        for start in kdamond.glob("contexts/0/schemes/*/*filters/*/addr_start"):
            if int(start.read_text()) > int(start.with_name("addr_end").read_text()):
                raise OSError(errno.ENOMEM, "filter")
        files = {str(file.relative_to(kdamond)): file.read_text() for file in kdamond.rglob("*") if file.is_file()}
        (self.root / ".committed" / str(kdamond.stat().st_ino)).write_text(json.dumps(files))

    def _bring(self, kdamond: Path, command: str) -> None:
        results = self.root / ".results"
        values: Mapping[str, Any] = json.loads(results.read_text()) if results.exists() else {}
        schemes = sorted((kdamond / "contexts/0/schemes").glob("[0-9]*"))
        if command in ("commit", "commit_schemes_quota_goals"):
            self._take_in(kdamond)
        elif command == "update_schemes_stats":
            for scheme in schemes:
                for name, value in values.get("stats", {}).items():
                    _force(scheme / "stats" / name, value)
        elif command == "update_schemes_effective_quotas" and self._has("6.9"):
            for scheme in schemes:
                _force(scheme / "quotas/effective_bytes", values.get("effective_bytes", 0))
        elif command == "update_tuned_intervals" and self._has("6.15"):
            folder = kdamond / "contexts/0/monitoring_attrs/intervals"
            if "tuned" in values:
                _force(folder / "sample_us", values["tuned"][0])
                _force(folder / "aggr_us", values["tuned"][1])
        elif command in ("update_schemes_tried_bytes", "update_schemes_tried_regions", "clear_schemes_tried_regions"):
            self._bring_regions(schemes, command, values.get("regions", []))
        else:
            raise OSError(errno.EINVAL, command)

    def _bring_regions(self, schemes: list[Path], command: str, rows: list[list[int]]) -> None:
        if not schemes and command.startswith("update"):
            raise OSError(errno.ECANCELED, "no schemes")
        for scheme in schemes:
            folder = scheme / "tried_regions"
            for old in folder.glob("[0-9]*"):
                shutil.rmtree(old)
            total = 0 if command.startswith("clear") else sum(row[1] - row[0] for row in rows)
            _force(folder / "total_bytes", total)
            for index, row in enumerate(rows if command == "update_schemes_tried_regions" else []):
                names = ("start", "end", "nr_accesses", "age", *("sz_filter_passed",) * self._has("6.14"))
                (folder / str(index)).mkdir()
                for name, value in zip(names, [*row, 0], strict=False):
                    (folder / str(index) / name).write_text(str(value))


def _force(path: Path, value: int) -> None:
    """Write what only the kernel writes."""
    path.write_text(str(value))
