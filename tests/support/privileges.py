"""Run a function as a user without any privilege, in a fork of the test, and get its answer or its error."""

import ctypes
import os
import pickle
import warnings
from collections.abc import Callable
from typing import TypeVar

NOBODY = 65534
PR_SET_DUMPABLE = 4

Answer = TypeVar("Answer")


def run_as_nobody(function: Callable[[], Answer], *, user_id: int = NOBODY) -> Answer:
    """What `function` returns or raises when called as `user_id`.  Needs root; the answer must pickle.

    A fork, not a new Python: the package need not be readable for that user.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns of forks in a process with threads (numpy's pool); the fork here takes no lock of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        _answer(function, user_id, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    os.waitpid(pid, 0)
    if not data:
        raise RuntimeError("the fork ended without an answer: it could not be pickled")
    is_error, value = pickle.loads(data)
    if is_error:
        raise value
    answer: Answer = value
    return answer


def become(user_id: int) -> None:
    """Give up all privilege, for good, and be that user."""
    os.setgroups([])
    os.setresgid(user_id, user_id, user_id)
    os.setresuid(user_id, user_id, user_id)
    # A change of user makes /proc/self unreadable for that user, unlike in a process of his own.
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1)


def _answer(function: Callable[[], object], user_id: int, writer: int) -> None:
    """Never returns: the fork must not go on as a second test run."""
    try:
        become(user_id)
        try:
            message = (False, function())
        except BaseException as error:  # pytest's failures are no Exception
            message = (True, error)
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(message, pipe)
    finally:
        os._exit(0)
