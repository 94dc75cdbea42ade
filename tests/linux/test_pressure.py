"""PSI: text, the host's files, and each reason for none."""

import os
from pathlib import Path

import pytest

from memtherm.linux.pressure import parse_pressure, read_pressure, read_pressure_file
from support.requires import require

TEXT = "some avg10=12.50 avg60=1.00 avg300=0.25 total=2500000\nfull avg10=100.00 avg60=0.00 avg300=0.00 total=1\n"


def test_text_of_a_pressure_file() -> None:
    pressure = parse_pressure(TEXT)
    assert pressure.some is not None
    assert pressure.full is not None
    assert (pressure.some.fraction_10s, pressure.some.fraction_60s) == (0.125, 0.01)
    assert (pressure.some.fraction_300s, pressure.some.total_s) == (0.0025, 2.5)
    assert (pressure.full.fraction_10s, pressure.full.total_s) == (1.0, 1e-6)
    assert parse_pressure(TEXT.splitlines()[0]).full is None


@pytest.mark.parametrize("resource", ["memory", "cpu", "io"])
def test_the_host(resource: str) -> None:
    require("psi")
    reading = read_pressure(resource)
    assert reading.reason == ""
    assert reading.value is not None
    assert reading.value.some is not None
    assert 0 <= reading.value.some.fraction_10s <= 1
    text = Path(f"/proc/pressure/{resource}").read_text()
    assert reading.value.some.total_s <= int(text.split()[4].removeprefix("total=")) / 1e6


def test_a_control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEMTHERM_WITHOUT", raising=False)
    (tmp_path / "memory.pressure").write_text(TEXT)
    assert read_pressure("memory", cgroup=str(tmp_path)).value == parse_pressure(TEXT)
    absent = read_pressure("io", cgroup=str(tmp_path))
    assert absent.value is None
    assert "io.pressure" in absent.reason


def test_a_file_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEMTHERM_WITHOUT", raising=False)
    file = tmp_path / "memory.pressure"
    file.write_text(TEXT)
    assert read_pressure_file(str(file)).value == parse_pressure(TEXT)
    file.unlink()
    assert "PSI is off" in read_pressure_file(str(file)).reason
    assert read_pressure_file(str(tmp_path / "gone" / "memory.pressure")).reason.endswith("the control group is gone")
    assert "built without PSI" in read_pressure_file("/proc/pressure/nothing").reason


def test_a_control_group_that_goes_while_we_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(19, os.strerror(19))  # ENODEV

    monkeypatch.delenv("MEMTHERM_WITHOUT", raising=False)
    monkeypatch.setattr("builtins.open", refuse)
    reading = read_pressure("memory", cgroup="/nothing")
    monkeypatch.undo()
    assert reading.reason == "no /nothing/memory.pressure: the control group is gone"


def test_psi_that_is_built_but_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(95, os.strerror(95))  # EOPNOTSUPP

    monkeypatch.delenv("MEMTHERM_WITHOUT", raising=False)
    monkeypatch.setattr("builtins.open", refuse)
    reading = read_pressure("memory")
    monkeypatch.undo()
    assert reading.value is None
    assert reading.reason == "PSI is switched off: boot with psi=1"


def test_hidden_psi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMTHERM_WITHOUT", "psi")
    assert read_pressure("memory").value is None
