"""Loading: each function declared, each reason why it cannot be done told apart."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from memtherm.errors import HostCannot, NotPermitted, NotSupported
from memtherm.linux import libbpf, page_table
from memtherm.linux.libbpf import BpfObject
from memtherm.linux.page_table import PageTableWalker
from support.privileges import run_as_nobody
from support.requires import require

OBJECT = Path(page_table.__file__).with_name("walk.bpf.o")


@pytest.fixture
def fresh_library() -> Iterator[None]:
    libbpf._libbpf.cache_clear()
    yield
    libbpf._libbpf.cache_clear()


def test_every_function_that_is_used_is_declared() -> None:
    source = Path(libbpf.__file__).read_text()
    used = set(re.findall(r"(?:library|_libbpf\(\))\.(\w+)", source))
    assert used == set(libbpf.DECLARATIONS)


def test_declarations_are_whole() -> None:
    for name, (result, arguments, check) in libbpf.DECLARATIONS.items():
        assert isinstance(arguments, tuple), name
        # libbpf answers with a number below 0, or with no pointer; what returns neither cannot fail.
        unchecked = {"libbpf_set_print", "bpf_object__close", "bpf_map__value_size"}
        assert (check is None) == (name in unchecked), name
        assert result is not None or name == "bpf_object__close"


def test_declarations_are_applied() -> None:
    require("libbpf")
    library = libbpf._libbpf()
    for name, (result, arguments, _check) in libbpf.DECLARATIONS.items():
        function = getattr(library, name)
        assert (function.restype, tuple(function.argtypes)) == (result, arguments)


@pytest.mark.usefixtures("fresh_library")
def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    require("btf")
    monkeypatch.setattr(libbpf, "_LIBRARY", "libbpf.so.none")
    with pytest.raises(NotSupported, match=r"libbpf\.so\.none") as caught:
        BpfObject(b"")
    assert "apt-get install libbpf1" in caught.value.hint


def test_without_kernel_types(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(libbpf, "KERNEL_BTF", tmp_path / "vmlinux")
    with pytest.raises(NotSupported, match="does not describe its types") as caught:
        BpfObject(b"")
    assert "CONFIG_DEBUG_INFO_BTF" in caught.value.hint


@pytest.mark.parametrize("feature", ["bpf", "btf", "libbpf"])
def test_hidden_feature_is_not_used(monkeypatch: pytest.MonkeyPatch, feature: str) -> None:
    monkeypatch.setenv("MEMTHERM_WITHOUT", feature)
    with pytest.raises(NotSupported):
        PageTableWalker()


def test_what_is_no_object_is_refused_with_the_reason_of_libbpf() -> None:
    require("libbpf", "btf")
    with pytest.raises(NotSupported, match=r"libbpf: .*ELF"):
        BpfObject(b"no object" * 100)


def test_what_the_kernel_refuses_is_told_with_its_log() -> None:
    require("bpf", "root")
    # A program that the verifier cannot take: its licence does not allow to read kernel memory.
    spoilt = OBJECT.read_bytes().replace(b"Dual MIT/GPL\0", b"Proprietary_\0")
    with pytest.raises(HostCannot, match="GPL") as caught:
        BpfObject(spoilt)
    assert caught.value.hint


def load_as_nobody() -> str:
    BpfObject(OBJECT.read_bytes()).close()
    return "loaded"


def test_without_privilege() -> None:
    require("bpf", "root")
    with pytest.raises(Exception, match="does not let this process use BPF") as caught:
        run_as_nobody(_describe_refusal)
    assert "CAP_BPF and CAP_PERFMON" in str(caught.value)


def _describe_refusal() -> None:
    try:
        load_as_nobody()
    except NotPermitted as error:
        raise RuntimeError(f"{error.message} ({error.hint})") from error


@pytest.mark.parametrize("name", ["walk.bpf.o", "walk_arm64.bpf.o"])
def test_this_kernel_takes_the_objects_of_all_architectures(name: str) -> None:
    """The verifier looks at the same program everywhere; only the tables that it would meet are others'."""
    require("bpf", "root")
    BpfObject(OBJECT.with_name(name).read_bytes()).close()


def test_closing_twice_is_one_closing() -> None:
    require("bpf", "root")
    with BpfObject(OBJECT.read_bytes()) as loaded:
        loaded.close()
