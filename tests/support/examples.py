"""The programs of examples/, in a fork: so as an ordinary user, too, who need not be able to read Python's files."""

import importlib
import importlib.util
import os
import pkgutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import memtherm
from support.command import Result
from support.privileges import NOBODY, become

__all__ = ["EXAMPLES", "NOBODY", "load_everything", "load_example", "run_example"]

EXAMPLES = Path(__file__).parents[2] / "examples"
_ROOMS = ("core", "linux", "probe", "act", "policy", "session", "arrays")


def run_example(name: str, *words: str, user_id: int | None = None) -> Result:
    """What `examples/NAME.py` with these words does and says; as that user, where one is given.  Needs root for it."""
    main = load_example(name)
    load_everything()
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        with warnings.catch_warnings():
            # Python 3.12 warns of forks in a process with threads (numpy's pool); the fork takes no lock of theirs.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            _run_and_exit(main, [f"{name}.py", *words], (stdout.fileno(), stderr.fileno()), user_id)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        for file in (stdout, stderr):
            file.seek(0)
        return Result(status, stdout.read(), stderr.read())


def load_example(name: str) -> Callable[[], None]:
    """Its `main`."""
    if str(EXAMPLES) not in sys.path:
        sys.path.append(str(EXAMPLES))  # where Python looks for `measure` when it runs an example
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    main: Callable[[], None] = module.main
    return main


def load_everything() -> None:
    """What a watch needs, of memtherm and of Python, so that nothing is read from files later."""
    import encodings.ascii  # noqa: F401 - Python loads it at the first use

    for room in _ROOMS:
        package = importlib.import_module(f"memtherm.{room}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    for name in memtherm.__all__:
        getattr(memtherm, name)


def _run_and_exit(
    main: Callable[[], None], command: Sequence[str], outputs: tuple[int, int], user_id: int | None
) -> None:
    """Never returns: the fork must not go on as a second test run."""
    status = 0
    try:
        for number, output in enumerate(outputs, start=1):
            os.dup2(output, number)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        sys.argv = list(command)
        if user_id is not None:
            become(user_id)
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        status = 99
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
