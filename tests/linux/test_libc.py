"""Every ctypes function is declared in full, and its error names it."""

import ctypes
import errno

import pytest

from memtherm.linux import libc


@pytest.mark.parametrize("name", sorted(libc.FUNCTIONS))
def test_each_function_is_declared(name: str) -> None:
    function = libc.FUNCTIONS[name]
    assert function.argtypes
    assert function.restype in (ctypes.c_int, ctypes.c_long)
    assert function.errcheck is not None
    assert function.__name__ == name


def test_an_error_carries_the_errno_and_names_the_call() -> None:
    with pytest.raises(OSError, match=r"^\[Errno 9\] process_madvise: Bad file descriptor$") as caught:
        libc.process_madvise(-1, 0, 0, 20)
    assert caught.value.errno == errno.EBADF


def test_pidfd_open_of_no_process() -> None:
    with pytest.raises(ProcessLookupError, match="pidfd_open"):
        libc.pidfd_open(2**31 - 1)
