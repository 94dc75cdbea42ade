"""`memtherm.__all__` is the contract: sorted, complete, documented, and cheap to import."""

import inspect
import subprocess
import sys
from dataclasses import is_dataclass

import pytest

import memtherm

# Names that users were promised in the README and the design.
PROMISED = {"MemthermError", "Scheme", "load_policy", "monitor", "probe_host"}


def has_own_docstring(thing: object) -> bool:
    text = inspect.getdoc(thing) or ""
    # A dataclass without one is given its signature.
    made = is_dataclass(thing) and text.startswith(f"{getattr(thing, '__name__', '')}(")
    return bool(text) and not made


def test_all_is_sorted_and_has_what_was_promised() -> None:
    assert list(memtherm.__all__) == sorted(set(memtherm.__all__))
    assert set(memtherm.__all__) >= PROMISED


@pytest.mark.parametrize("name", getattr(memtherm, "__all__", ()))
def test_a_public_name_is_there_and_documented(name: str) -> None:
    thing = getattr(memtherm, name)
    assert isinstance(thing, str) or has_own_docstring(thing)


def test_dir_shows_the_public_names() -> None:
    assert set(dir(memtherm)) >= set(memtherm.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        memtherm.no_such_name  # noqa: B018 - the look-up is what is tested


@pytest.mark.parametrize("module", ["memtherm", "memtherm.cli.main"])
def test_importing_it_loads_nothing_heavy(module: str) -> None:
    heavy = ("numpy", "pydantic", "memtherm.linux", "memtherm.session")
    program = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
