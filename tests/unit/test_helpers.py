from __future__ import annotations

import time

import pytest

from ebpfjit import EbpfVmRaw, MemoryFault, address_of, helpers
from ebpfjit.assembler import assemble


def test_the_numbers_are_those_of_linux() -> None:
    assert (helpers.BPF_KTIME_GETNS_IDX, helpers.BPF_TRACE_PRINTK_IDX) == (5, 6)


def test_time_is_the_monotonic_clock() -> None:
    before = time.monotonic_ns()
    assert before <= helpers.bpf_time_getns(0, 0, 0, 0, 0) <= time.monotonic_ns()


def test_trace_printf_prints_as_rbpf(capsys: pytest.CaptureFixture[str]) -> None:
    line = "bpf_trace_printf: 0x1, 0xf, 0x20\n"
    assert helpers.bpf_trace_printf(0, 0, 1, 15, 32) == len(line)
    assert capsys.readouterr().out == line


def test_gather_bytes() -> None:
    assert helpers.gather_bytes(0x11, 0x22, 0x33, 0x44, 0x55) == 0x1122334455


def test_memfrob_is_its_own_inverse() -> None:
    data = bytearray((0x112233).to_bytes(8, "little"))
    helpers.memfrob(address_of(data), 8, 0, 0, 0)
    assert int.from_bytes(data, "little") == 0x2A2A2A2A2A3B0819
    helpers.memfrob(address_of(data), 8, 0, 0, 0)
    assert int.from_bytes(data, "little") == 0x112233


@pytest.mark.parametrize(("value", "root"), [(9, 3), (0, 0), (15, 3), (2**64 - 1, 2**32)])
def test_sqrti(value: int, root: int) -> None:
    assert helpers.sqrti(value, 0, 0, 0, 0) == root


def test_strcmp() -> None:
    a, b = b"This is a string.\0", b"This is another sting.\0"
    assert helpers.strcmp(address_of(a), address_of(a), 0, 0, 0) == 0
    assert helpers.strcmp(address_of(a), address_of(b), 0, 0, 0) == ord("n") - ord(" ")
    assert helpers.strcmp(0, address_of(b), 0, 0, 0) == 2**64 - 1


def test_rand_stays_in_its_range() -> None:
    assert {helpers.rand(3, 6, 0, 0, 0) for _ in range(300)} == {3, 4, 5, 6}
    assert 0 <= helpers.rand(9, 3, 0, 0, 0) < 2**64


@pytest.mark.parametrize("engine", ["execute_program", "execute_program_jit"])
def test_memfrob_does_not_leave_the_programs_memory(engine: str) -> None:
    """A wild length faults before the first byte is touched, with the pc of the call."""
    vm = EbpfVmRaw(assemble("mov r2, 9\ncall 7\nexit"))
    vm.register_helper(7, helpers.memfrob)
    vm.jit_compile()
    data = bytearray(b"abcdefgh")
    with pytest.raises(MemoryFault, match="pc 1: store of 9 bytes") as caught:
        getattr(vm, engine)(data)
    assert caught.value.pc == 1
    assert data == b"abcdefgh"
