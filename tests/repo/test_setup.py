"""scripts/setup.sh on hosts that lack something, with made-up programs instead of the host's."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
TOOLS = ("bash", "cat", "cmp", "dirname", "grep", "id", "mkdir", "chmod", "cp", "uname")
# Stands for python3: usable, makes environments whose python is itself, and writes down what it was asked.
PYTHON = """#!/bin/sh
echo "$*" >>"$LOG"
[ "$1 $2 $3" != "-m venv --clear" ] || { mkdir -p "$4/bin" && cp "$0" "$4/bin/python" && chmod +x "$4/bin/python"; }
"""


class Host:
    """A clone and a PATH of its own."""

    def __init__(self, folder: Path) -> None:
        self.clone = folder / "clone"
        self.programs = folder / "programs"
        self.log = folder / "log"
        (self.clone / "scripts").mkdir(parents=True)
        self.programs.mkdir()
        self.log.touch()
        shutil.copy(REPOSITORY / "scripts" / "setup.sh", self.clone / "scripts")
        shutil.copy(REPOSITORY / "pyproject.toml", self.clone)
        for tool in TOOLS:
            (self.programs / tool).symlink_to(shutil.which(tool) or "not-there")
        self.add("ldconfig", "echo 'libbpf.so.1 (libc6,x86-64) => made up'")

    def add(self, name: str, text: str) -> None:
        program = self.programs / name
        program.write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)

    def setup(self, level: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "scripts/setup.sh", level],
            cwd=self.clone,
            env={"PATH": str(self.programs), "LOG": str(self.log), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def pip_installs(self) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if "pip install" in line]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_says_what_to_install_where_there_is_no_apt(host: Host) -> None:
    for name in ("python3", "python3.14", "python3.13", "python3.12", "python3.11"):
        host.add(name, "exit 1")
    # The script's last resort is Debian's own python3, by its path; that one is real and may be fit.
    text = host.clone / "scripts" / "setup.sh"
    text.write_text(text.read_text().replace(" /usr/bin/python3;", ";"))
    done = host.setup("run")
    assert done.returncode == 1
    assert "to install: apt-get install --no-install-recommends python3 python3-venv" in done.stderr
    assert "cannot go on: no Python 3.11 or newer with venv" in done.stderr


def test_an_ordinary_user_is_told_the_command(host: Host) -> None:
    host.add("id", "echo 1000")
    host.add("apt-get", 'echo "apt-get $*" >>"$LOG"')
    host.add("python3", PYTHON)
    host.add("ldconfig", "exit 0")
    # Only what is optional is missing: it is said, and the rest is done.
    done = host.setup("test")
    assert done.returncode == 0
    assert "to install: apt-get install --no-install-recommends libbpf1" in done.stderr
    assert "going on without: the tests of the bpf probe" in done.stderr
    assert "to install: apt-get install --no-install-recommends gcc libc6-dev" in done.stderr
    assert "apt-get" not in host.log.read_text()
    assert len(host.pip_installs()) == 1


def test_root_installs_what_is_missing_and_only_that(host: Host) -> None:
    host.add("id", "echo 0")
    host.add("python3", PYTHON)
    host.add("cc", "exit 0")
    host.add("ldconfig", f"[ ! -e {host.log}.installed ] || echo 'libbpf.so.1 (libc6) => made up'")
    host.add("apt-get", f'echo "apt-get $*" >>"$LOG"; [ "$1" != install ] || : >{host.log}.installed')
    assert host.setup("test").returncode == 0
    assert host.setup("test").returncode == 0
    asked = [line for line in host.log.read_text().splitlines() if line.startswith("apt-get")]
    assert [line.split()[1] for line in asked] == ["update", "install"]
    assert asked[1].endswith(" libbpf1")


def test_clang_is_fetched_only_for_those_who_require_it(host: Host) -> None:
    host.add("id", "echo 0")
    host.add("python3", PYTHON)
    host.add("cc", "exit 0")
    host.add("apt-get", 'echo "apt-get $*" >>"$LOG"')
    host.setup("test")
    assert "clang" not in host.log.read_text()
    done = host.setup("test", MEMTHERM_REQUIRE="root,clang")
    assert "clang llvm libbpf-dev" in host.log.read_text()
    assert "going on without: the test that builds the BPF object" in done.stderr
    assert host.setup("bpf").returncode == 1


def test_the_environment_is_made_once_for_one_pyproject(host: Host) -> None:
    host.add("python3", PYTHON)
    host.add("cc", "exit 0")
    assert host.setup("test").returncode == 0
    done = host.setup("test")
    assert (done.returncode, done.stderr, len(host.pip_installs())) == (0, "", 1)
    # The test environment has all that running needs.
    assert host.setup("run").returncode == 0
    assert len(host.pip_installs()) == 1
    with (host.clone / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    assert host.setup("test").returncode == 0
    assert len(host.pip_installs()) == 2


def test_pip_that_fails_leaves_no_stamp(host: Host) -> None:
    host.add("python3", PYTHON.replace('echo "$*" >>"$LOG"', 'case "$*" in *install*) exit 1 ;; esac'))
    host.add("cc", "exit 0")
    for _ in range(2):
        done = host.setup("run")
        assert done.returncode == 1
        assert "pip failed" in done.stderr


def test_kernels_need_root_and_qemu(host: Host, tmp_path: Path) -> None:
    kernels = str(tmp_path / "kernels")
    host.add("python3", PYTHON)
    host.add("cc", "exit 0")
    host.add("id", "echo 1000")
    done = host.setup("kernels", MEMTHERM_KERNELS=kernels)
    assert done.returncode == 1
    assert "as root" in done.stderr
    host.add("id", "echo 0")
    host.add("apt-get", 'echo "apt-get $*" >>"$LOG"')
    done = host.setup("kernels", MEMTHERM_KERNELS=kernels)
    assert done.returncode == 1
    assert "qemu-system-x86 kmod cpio zstd busybox-static" in host.log.read_text()
    assert "cannot go on: no QEMU" in done.stderr
    for tool in ("qemu-system-x86_64", "busybox", "cpio", "zstd", "depmod"):
        host.add(tool, "exit 0")
    done = host.setup("kernels", MEMTHERM_KERNELS=kernels)
    assert "installing virtme-ng into " + kernels in done.stderr


def test_an_unknown_level_is_refused(host: Host) -> None:
    assert host.setup("everything").returncode == 2


def test_scripts_may_be_run() -> None:
    scripts = [*(REPOSITORY / "scripts").glob("*.sh"), *(REPOSITORY / "tests" / "kernels").glob("*.sh")]
    scripts.append(REPOSITORY / ".ci" / "run")
    assert [script.name for script in scripts if not os.access(script, os.X_OK)] == []
