"""`make test-kernels`: boots Debian's kernels one after the other, and runs in each the tests that matrix.toml names.

With virtme-ng, emulated where the host cannot virtualize: a guest then proves behaviour, neither speed nor accuracy.
What cannot be had, does not boot, or does not end in time is a failure, never a skip.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
END_S = 60
# QEMU 7.2 emulates AVX2 wrongly: numpy, which sorts with it, gave arrays out of order.
EMULATED_CPU = "max,-avx2"
BOOT_ATTEMPTS = 2
MEMORY = "2G"
# Drivers of what the emulated machine has and no test uses: to load them takes a quarter of the boot.
NEEDLESS_DRIVERS = (
    *("kvm_amd", "kvm_intel", "ahci", "sr_mod", "sg", "psmouse", "evdev", "i2c_i801", "iTCO_wdt", "i6300esb"),
    *("aesni_intel", "ghash_clmulni_intel", "polyval_clmulni", "sha1_ssse3", "sha256_ssse3", "sha512_ssse3"),
    *("crct10dif_pclmul", "crc32_pclmul", "button", "pcspkr", "intel_rapl_msr", "intel_rapl_common"),
)
# What costs an emulated processor most, and changes nothing that a test looks at: retpolines, and clearing twice.
QUICK = ("mitigations=off", "init_on_alloc=0", f"modprobe.blacklist={','.join(NEEDLESS_DRIVERS)}")
# The machine's files once more, for guest.sh to mount with a cache.
CACHED_FILES = "-virtfs local,path=/,mount_tag=cached,security_model=none,readonly=on,multidevs=remap"

# The process groups of guests.
_running: set[int] = set()


@dataclass(frozen=True)
class Guest:
    """One boot: a kernel, how it is booted, and what runs in it.

    Attributes:
        name: as the table tells it, such as `6.1 4-level`.
        kernel: Debian's version, such as `6.1`.
        boot: what is added to its command line.
        require: features that must be there: a test may not be skipped for lack of them.
        tests: for pytest.
        leave_out: a keyword expression of pytest for those of them that are left out.
        boot_s, limit_s: it must be up within this, and its tests must end within that.
    """

    name: str
    kernel: str
    boot: tuple[str, ...]
    require: tuple[str, ...]
    tests: tuple[str, ...]
    leave_out: str
    boot_s: int
    limit_s: int


@dataclass(frozen=True)
class Result:
    """What came of a guest.

    Attributes:
        problem: why there is no result, or not all of it; else empty.
        failed: names of tests.
        skipped: how often each reason was given.
    """

    guest: Guest
    release: str = ""
    passed: int = 0
    failed: tuple[str, ...] = ()
    skipped: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    problem: str = ""

    @property
    def is_good(self) -> bool:
        return not self.problem and not self.failed and self.passed > 0


def read_guests(text: str) -> list[Guest]:
    """The guests of a matrix.toml, in its order."""
    table = tomllib.loads(text)
    guests = []
    for one in table["guest"]:
        tests = [test for name in one["sets"] for test in table["set"][name]]
        guests.append(
            Guest(
                name=one["name"],
                kernel=one["kernel"],
                boot=tuple(one["boot"]),
                require=tuple(one["require"]),
                tests=tuple(dict.fromkeys(tests)),
                leave_out=table["leave_out"],
                boot_s=table["boot_s"],
                limit_s=table["limit_s"],
            )
        )
    return guests


def read_results(text: str) -> tuple[int, tuple[str, ...], Counter[str]]:
    """From a results.jsonl: how many tests passed, the names of those that did not, and why others were skipped."""
    outcomes = {(line["test"], line["outcome"]): line["reason"] for line in map(json.loads, text.splitlines())}
    failed = tuple(dict.fromkeys(test for test, outcome in outcomes if outcome == "failed"))
    passed = sum(outcome == "passed" and test not in failed for test, outcome in outcomes)
    skipped = Counter(reason for (_, outcome), reason in outcomes.items() if outcome == "skipped")
    return passed, failed, skipped


def table_lines(results: Iterable[Result]) -> list[str]:
    """The table, and under each guest what went wrong and what was skipped."""
    lines = [f"{'guest':<14} {'release':<24} {'passed':>6} {'failed':>6} {'skipped':>7} {'seconds':>7}"]
    for one in results:
        counts = f"{one.passed:>6} {len(one.failed):>6} {one.skipped.total():>7} {one.seconds:>7.0f}"
        lines.append(f"{one.guest.name:<14} {one.release or '-':<24} {counts}")
        lines += [f"    PROBLEM {one.problem}"] if one.problem else []
        lines += [f"    failed  {name}" for name in one.failed]
        lines += [f"    skipped {count} × {reason}" for reason, count in one.skipped.most_common()]
    return lines


def cache_folder() -> Path:
    """Where kernels and virtme-ng are kept, outside of the repository."""
    return Path(os.environ.get("MEMTHERM_KERNELS") or "/var/cache/memtherm/kernels")


def can_virtualize() -> bool:
    """A /dev/kvm alone is not enough: it is there, too, where the processor was given to us without its extensions."""
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split()
    return os.access("/dev/kvm", os.R_OK | os.W_OK) and ("vmx" in flags or "svm" in flags)


def _shared_folders(kernel: Path) -> list[Path]:
    """What a guest needs of this machine, wherever it is kept: /var/tmp and others are empty in a guest."""
    shared: list[Path] = []
    for folder in (kernel, Path("/lib/modules", kernel.name).resolve(), REPOSITORY, Path(sys.prefix)):
        if not any(folder.is_relative_to(one) for one in shared):
            shared.append(folder)
    return shared


def boot_command(guest: Guest, kernel: Path, out: Path) -> list[str]:
    """virtme-ng's command; its guest sees this machine's files, and may write `out`."""
    command = [str(cache_folder() / "venv" / "bin" / "vng"), "--run", str((kernel / "vmlinuz").resolve())]
    if can_virtualize():
        command += [f"--qemu-opts={CACHED_FILES}"]
    else:
        command += ["--disable-kvm", f"--qemu-opts={CACHED_FILES} -cpu {EMULATED_CPU}"]
    command += ["--memory", MEMORY, "--cpus", "2", "--user", "root", "--cwd", "/", "--verbose"]
    for option in ("loglevel=8", "panic=-1", *QUICK, *guest.boot):
        command += ["--append", option]
    for folder in _shared_folders(kernel.resolve()):
        command += ["--rodir", str(folder)]
    return [*command, "--rwdir", str(out), "--", f"bash {HERE / 'guest.sh'} {out}"]


def _cached_folders() -> list[Path]:
    """Where Python, its packages, our sources and the tools are; what lies within another one is left out."""
    folders = (Path("/usr"), *(Path(one) for one in (sys.base_prefix, sys.prefix)), REPOSITORY)
    return [one for one in folders if not any(one != other and one.is_relative_to(other) for other in folders)]


def orders(guest: Guest, out: Path) -> str:
    """What guest.sh reads: shell variables.  A kernel's command line, where virtme-ng puts its words, is too short."""
    settings = {
        "OUT": str(out),
        "PYTHON": sys.executable,
        "LIMIT_S": str(guest.limit_s),
        "CACHED": "\n".join(map(str, _cached_folders())),
        "MEMTHERM_REQUIRE": ",".join(guest.require),
    }
    words = ["-k", f"not ({guest.leave_out})", *guest.tests]
    lines = [f"export {name}={shlex.quote(value)}" for name, value in settings.items()]
    return "\n".join([*lines, f"set -- {shlex.join(words)}", ""])


def run_guest(guest: Guest, out: Path) -> Result:
    """Boot, and read what the tests left in `out`."""
    out.mkdir()
    (out / "orders").write_text(orders(guest, out), encoding="utf-8")
    kernel = cache_folder() / guest.kernel
    if not (kernel / "vmlinuz").exists():
        return Result(guest, problem=f"there is no kernel {guest.kernel} in {cache_folder()}: see above")
    began_s = time.monotonic()
    environment = os.environ | {"PATH": f"{cache_folder() / 'venv' / 'bin'}:{os.environ['PATH']}"}
    for attempt in range(BOOT_ATTEMPTS):
        with (
            (out / f"console.{attempt}").open("wb") as console,
            subprocess.Popen(
                boot_command(guest, kernel, out),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env=environment,
                start_new_session=True,
            ) as process,
        ):
            _running.add(process.pid)
            _wait(process, guest, out / "started")
            _running.discard(process.pid)
        # An emulated boot fails now and then before our tests begin; tests that had begun are not repeated.
        if (out / "started").exists():
            break
    return _result(guest, out, seconds=time.monotonic() - began_s)


def _stop(number: int, _frame: object) -> None:
    """With us our guests end, which a terminal's signal does not reach."""
    for pid in tuple(_running):
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    os._exit(128 + number)


def _wait(process: subprocess.Popen[bytes], guest: Guest, started: Path) -> None:
    """Until it ends; ends it where it does not boot, or does not come to an end, in time."""
    for patience_s, goes_on in ((guest.boot_s, started.exists), (guest.limit_s + END_S, lambda: False)):
        end_s = time.monotonic() + patience_s
        while time.monotonic() < end_s and not goes_on():
            if process.poll() is not None:
                return
            time.sleep(0.2)
        if not goes_on():
            os.killpg(process.pid, signal.SIGKILL)
            return


def _result(guest: Guest, out: Path, *, seconds: float) -> Result:
    exit_code = _text(out / "exit")
    passed, failed, skipped = read_results(_text(out / "results.jsonl"))
    if not (out / "started").exists():
        problem = f"it did not boot, {BOOT_ATTEMPTS} times: {out}/console.*"
    elif exit_code in ("124", "137"):
        problem = f"its tests did not end within {guest.limit_s} s: {out / 'log'}"
    elif not exit_code:
        problem = f"it died while its tests ran: {out / 'log'}, {out}/console.*"
    else:
        problem = "" if exit_code in ("0", "1") else f"pytest ended with {exit_code}: {out / 'log'}"
    return Result(guest, _text(out / "release"), passed, failed, skipped, seconds, problem)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.exists() else ""


def _fetch(kernels: Sequence[str]) -> None:
    """What it cannot get it says, and the guests of that kernel fail for it."""
    subprocess.run([HERE / "fetch.sh", *kernels], stdin=subprocess.DEVNULL, check=False)


def _wanted(guests: Sequence[Guest], arguments: argparse.Namespace) -> list[Guest]:
    chosen = [one for one in guests if not arguments.kernels or {one.name, one.kernel} & set(arguments.kernels)]
    if arguments.tests:
        chosen = [replace(one, tests=tuple(arguments.tests.split())) for one in chosen]
    patience = arguments.patience
    return [replace(one, boot_s=one.boot_s * patience, limit_s=one.limit_s * patience) for one in chosen]


def _collect(guests: Sequence[Guest]) -> bool:
    """Whether all tests are there.  Leaves compiled files behind, which a guest can read, and cannot write.

    Without them each start of Python in a guest took twice as long.
    """
    tests = dict.fromkeys(test for one in guests for test in one.tests)
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}
    for words in (
        ["compileall", "-q", str(REPOSITORY / "src"), str(REPOSITORY / "tests")],
        ["pytest", "--collect-only", "--quiet", "-p", "no:cacheprovider", *tests],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        if done.returncode:
            print(done.stdout, done.stderr, file=sys.stderr)
            return False
    return True


def main() -> int:
    """0 where every guest ran all of its tests, and none failed."""
    guests = read_guests((HERE / "matrix.toml").read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(prog="make test-kernels", description="Run the tests in guests of real kernels.")
    parser.add_argument("kernels", nargs="*", help="such as 6.1, or the name of one guest; default: all")
    parser.add_argument("--jobs", type=int, default=2, help="guests at a time (default: 2)")
    parser.add_argument("--patience", type=int, default=1, metavar="N", help="N times as long, on a busy machine")
    parser.add_argument("--tests", help="other tests than those of matrix.toml, for pytest")
    arguments = parser.parse_args()
    known = {name for one in guests for name in (one.name, one.kernel)}
    if unknown := sorted(set(arguments.kernels) - known):
        parser.error(f"unknown: {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    wanted = _wanted(guests, arguments)
    if not _collect(wanted):
        return 1
    _fetch(list(dict.fromkeys(one.kernel for one in wanted)))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    logs = Path(tempfile.mkdtemp(prefix="memtherm-kernels-"))
    print(f"{len(wanted)} guests, {arguments.jobs} at a time; logs are kept in {logs}", flush=True)
    results = []
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for one in pool.map(lambda guest: run_guest(guest, logs / guest.name.replace(" ", "-")), wanted):
            results.append(one)
            print("\n".join(table_lines([one])[1:]), flush=True)
    print("\n".join(["", *table_lines(results), f"logs: {logs}"]))
    return 0 if all(one.is_good for one in results) else 1


if __name__ == "__main__":
    sys.exit(main())
