from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfjit import DecodeError, EbpfVmRaw, Program, classic
from ebpfjit.program import decode, encode

LDDW = bytes.fromhex("18000000887766550000000044332211")
EXIT = bytes.fromhex("9500000000000000")


def test_lddw_is_one_instruction_of_two_slots() -> None:
    program = Program.from_bytes(LDDW + EXIT)
    lddw, exit_ = program.instructions
    assert (lddw.pc, lddw.slots, lddw.imm64) == (0, 2, 0x1122334455667788)
    assert exit_.pc == 2
    assert program.slots == (lddw, None, exit_)
    assert len(program) == 3


@pytest.mark.parametrize("size", [1, 7, 9, 15])
def test_a_length_that_is_no_multiple_of_eight(size: int) -> None:
    with pytest.raises(DecodeError, match="multiple of 8") as caught:
        Program.from_bytes(bytes(size))
    assert caught.value.pc == size // 8


def test_an_lddw_without_its_second_half() -> None:
    with pytest.raises(DecodeError, match="pc 1: lddw takes two slots"):
        Program.from_bytes(EXIT + LDDW[:8])


@given(st.binary(max_size=200))
def test_any_bytes_decode_and_encode_back(data: bytes) -> None:
    code = data[: len(data) // 8 * 8]
    try:
        instructions = decode(code)
    except DecodeError as error:
        assert "lddw" in str(error)  # noqa: PT017 - the only other reason at this length
    else:
        assert encode(instructions) == code


def test_functions_are_local_call_targets() -> None:
    call = bytes.fromhex("8510000001000000")
    program = Program.from_bytes(call + EXIT + EXIT)
    assert program.functions == {0: "main", 2: "function_2"}
    assert program.instructions[0].target == 2


def test_bytes_come_back() -> None:
    assert Program.from_bytes(bytearray(LDDW + EXIT), name="f", type="xdp").to_bytes() == LDDW + EXIT


def test_the_collector_waits_while_a_program_is_decoded() -> None:
    phases: list[str] = []

    def look(phase: str, _: dict[str, int]) -> None:
        phases.append(phase)

    gc.collect()
    gc.callbacks.append(look)
    try:
        assert len(decode(EXIT * 5000)) == 5000
    finally:
        gc.callbacks.remove(look)
    assert phases.count("start") <= 1  # when it is done; else for each 700
    assert gc.isenabled()


@pytest.mark.parametrize("code", ["mov r0, 1", 16, None, [149, 0, 0, 0, 0, 0, 0, 0]])
@pytest.mark.parametrize("take", [Program, Program.from_bytes, EbpfVmRaw().set_program, classic.check])
def test_what_is_no_buffer_is_no_bytecode(take: Callable[[Any], object], code: Any) -> None:
    with pytest.raises(TypeError, match="a bytes-like object is required"):
        take(code)
