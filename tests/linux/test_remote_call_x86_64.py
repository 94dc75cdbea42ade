"""Registers, signal frame and code patterns of x86-64, without a process; test_remote_call.py has the real ones."""

import errno

import pytest

from memtherm.linux import remote_call_x86_64 as machine


def test_a_32_bit_state_is_refused() -> None:
    registers = machine.Registers(cs=0x23)
    assert "32-bit" in machine.registers_refusal(registers, bytes(2696))
    registers.cs = 0x33
    assert machine.registers_refusal(registers, bytes(2696)) == ""
    assert "xsave" in machine.registers_refusal(registers, bytes(512))
    unknown = bytearray(2696)
    unknown[464 + 3] = 1
    assert "features 0x1000000" in machine.registers_refusal(registers, bytes(unknown))


@pytest.mark.parametrize(
    ("orig_rax", "rax", "wanted"),
    [
        (0, -512, (0, -2)),
        (0, -513, (0, -2)),
        (270, -514, (270, -2)),
        (35, -516, (-errno.EINTR, 0)),
        (0, -errno.EINTR, (-errno.EINTR, 0)),
        (-1, -512, (-512, 0)),
        (0, 5, (5, 0)),
    ],
)
def test_what_the_parachute_does_about_an_interrupted_call(orig_rax: int, rax: int, wanted: tuple[int, int]) -> None:
    registers = machine.Registers(orig_rax=orig_rax % 2**64, rax=rax % 2**64, rip=1000)
    resumed = machine._as_resumed(registers)
    assert resumed.rax == wanted[0] % 2**64
    assert resumed.rip == 1000 + wanted[1]


def test_only_a_made_again_call_has_its_interruption_hidden() -> None:
    code = b"\x0f\x05"
    epoll = machine.Registers(orig_rax=232, rax=-errno.EINTR % 2**64)
    assert machine.hide_interruption(epoll, code).rax == -514 % 2**64
    assert machine.hide_interruption(epoll, b"\xcd\x80").rax == epoll.rax
    connect = machine.Registers(orig_rax=42, rax=-errno.EINTR % 2**64)
    assert machine.hide_interruption(connect, code).rax == connect.rax
    outside = machine.Registers(orig_rax=2**64 - 1, rax=-errno.EINTR % 2**64)
    assert machine.hide_interruption(outside, code).rax == outside.rax


@pytest.mark.parametrize(
    ("number", "arguments", "wanted"),
    [
        (0, (0, 1, 1, 0, 0, 0), False),
        (1, (1, 1, 1, 0, 0, 0), True),
        (232, (3, 1, 1, 2**32 - 1, 0, 0), False),
        (232, (3, 1, 1, 1000, 0, 0), False),
        (281, (3, 1, 1, 1001, 0, 0), True),
        (441, (3, 1, 1, 0, 0, 0), False),
        (441, (3, 1, 1, 99, 0, 0), True),
        (45, (3, 1, 1, 0x100, 0, 0), True),
        (45, (3, 1, 1, 0, 0, 0), False),
        (47, (3, 1, 0x100, 0, 0, 0), True),
        (426, (3, 1, 1, 8, 0, 0), True),
        (128, (1, 1, 0, 8, 0, 0), False),
    ],
)
def test_which_waits_are_left_alone(number: int, arguments: tuple[int, ...], wanted: bool) -> None:
    assert machine.disturbs(number, arguments) == wanted


def test_both_spellings_of_the_signal_return_are_found() -> None:
    for code in machine._SIGNAL_RETURNS:
        found = machine.find_gadgets(b"\x90" * 3 + code + b"\x90" + b"\x0f\x05\xc3", 1000)
        assert found is not None
        assert found.signal_return == 1003
        assert found.call == 1003 + len(code) + 1
    assert machine.find_gadgets(b"\x0f\x05\xc3", 0) is None
    assert machine.find_gadgets(machine._SIGNAL_RETURNS[0], 0) is None


def test_the_second_mark_stands_where_each_kernel_looks_when_there_are_tile_registers() -> None:
    state = bytearray(11008)
    state[464:472] = (0x602E7).to_bytes(8, "little")
    mark = (0x46505845).to_bytes(4, "little")
    area = machine._frame_state(bytes(state))
    assert area[2696:2700] == area[11008:11012] == mark
    assert int.from_bytes(area[480:484], "little") == 2696
    state[512 + 2] = 0x06  # in use
    assert int.from_bytes(machine._frame_state(bytes(state))[480:484], "little") == 11008
