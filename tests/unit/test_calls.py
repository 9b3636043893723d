"""What is known of local calls, and that both engines agree where a call saves less."""

from __future__ import annotations

import pytest

from ebpfjit import EbpfVmNoData, Program
from ebpfjit.analysis.calls import UNKNOWN, Calls
from ebpfjit.analysis.verified import prepare
from ebpfjit.assembler import assemble
from ebpfjit.errors import CallDepthExceeded


def calls_of(text: str, frame: int = 512) -> Calls:
    return prepare(Program.from_bytes(assemble(text)), lambda _, pc: frame).calls


def test_functions_that_touch_their_frame_have_one() -> None:
    calls = calls_of(
        "call local f\nexit\nf: mov r7, 1\ncall local g\nexit\ng: add r9, 1\nldxb r8, [r10-1]\nexit"
    )
    assert calls.bounded
    assert calls.frameless == frozenset()


def test_arithmetic_needs_no_frame() -> None:
    calls = calls_of("call local f\nexit\nf: jeq r1, 0, l\nmov r0, r1\nl: exit")
    assert calls.frameless == {2}


@pytest.mark.parametrize(
    "body", ["mov r0, r10", "add r10, 8", "ldxb r0, [r1]", "call local g", "call 1", "ldabsb 0"]
)
def test_what_needs_a_frame(body: str) -> None:
    assert calls_of(f"call local f\nexit\nf: {body}\nexit\ng: exit").frameless <= {4}


UNBOUNDED = {
    "a helper, which may call": "call local f\nexit\nf: call 1\nexit",
    "too many": "call local a1\nexit\n"
    + "".join(f"a{n}: call local a{n + 1}\nexit\n" for n in range(1, 8))
    + "a8: exit",
}


@pytest.mark.parametrize("name", UNBOUNDED)
def test_calls_that_must_be_counted(name: str) -> None:
    assert not calls_of(UNBOUNDED[name], frame=0).bounded


def test_as_many_as_fit_need_not_be_counted() -> None:
    text = (
        "call local a1\nexit\n"
        + "".join(f"a{n}: call local a{n + 1}\nexit\n" for n in range(1, 7))
        + "a7: exit"
    )
    assert calls_of(text).bounded
    assert not calls_of(text, frame=1024).bounded


@pytest.mark.parametrize(
    "text", ["call local f\nexit\nf: call local f\nexit", "call local f\nf: callx r1\nexit"]
)
def test_nothing_is_known_of_recursion_and_calls_by_address(text: str) -> None:
    assert calls_of(text) == UNKNOWN


def both(text: str) -> int:
    vm = EbpfVmNoData(assemble(text))
    expected = vm.execute_program()
    vm.jit_compile()
    assert vm.execute_program_jit() == expected
    return expected


def test_registers_survive_calls() -> None:
    body = "".join(f"mov r{n}, {n}\n" for n in range(6, 10))
    total = "mov r0, r6\n" + "".join(f"lsh r0, 8\nadd r0, r{n}\n" for n in range(7, 10))
    for written in range(16):
        change = "".join(f"mov r{n}, 99\n" for n in range(6, 10) if written >> (n - 6) & 1)
        for call in ("", "stdw [r10-8], 1\n", "call local g\n"):
            text = f"{body}call local f\n{total}exit\nf: {change}{call}exit\ng: mov r8, 5\nexit"
            assert both(text) == 0x06070809


def test_too_deep_is_found_out_in_the_last_call() -> None:
    text = UNBOUNDED["too many"]
    vm = EbpfVmNoData(assemble(text))
    vm.jit_compile()
    for run in (vm.execute_program, vm.execute_program_jit):
        with pytest.raises(CallDepthExceeded) as caught:
            run()
        assert caught.value.pc == 14
