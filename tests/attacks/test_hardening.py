"""Hardened code holds no immediate of the program, nor a number that analysis makes of several."""

from __future__ import annotations

import pytest

from ebpfjit.analysis.verified import prepare
from ebpfjit.assembler import assemble
from ebpfjit.jit.entry import compile_program
from ebpfjit.options import Options
from ebpfjit.program import Program

CHOSEN = 0x5EC2E7A1
SLACK = 64
"""A size, a step or an offset may be added to the number that a check compares with."""
HALF = CHOSEN // 2

PROGRAMS = {
    "constants added": f"mov r3, {HALF}\nadd r3, {CHOSEN - HALF}\nadd r3, r1\nldxb r0, [r3+0]\nexit",
    "a distance": f"mov r4, r1\nadd r4, {HALF}\nadd r4, {CHOSEN - HALF}\nldxw r0, [r4+0]\nexit",
    "a bound": f"ldxdw r3, [r1+0]\njgt r3, {CHOSEN}, +3\nmov r4, r1\nadd r4, r3\nldxb r0, [r4+0]\nexit",
    "a mask": f"ldxdw r3, [r1+0]\nand r3, {CHOSEN}\nadd r3, r1\nldxb r0, [r3+0]\nstb [r3+1], 1\nexit",
    "a length": f"jlt r2, {CHOSEN}, +1\nldxb r0, [r1+9]\nexit",
    "rounds": f"mov r3, 0\nmov r4, r3\nadd r4, r1\nldxb r0, [r4+0]\nadd r3, 1\njlt r3, {CHOSEN}, -5\nexit",
    "rounds by a step": (
        "mov r3, 0\nmov r4, r3\nlsh r4, 3\nadd r4, r1\n"
        f"ldxb r0, [r4+0]\nadd r3, 1\njlt r3, {CHOSEN >> 3}, -6\nexit"
    ),
    "a helper": f"call {CHOSEN}\nexit",
    "bytes gathered": (
        f"ldxb r3, [r1+0]\nldxb r4, [r1+1]\nlsh r4, 8\nor r3, r4\njne r3, {CHOSEN}, +1\nmov r0, 1\nexit"
    ),
}


def _near(code: bytes) -> list[str]:
    """The numbers close to the chosen one, or to its negative, that stand anywhere in the code."""
    numbers = {
        sign * (CHOSEN + distance) & 0xFFFFFFFF for sign in (1, -1) for distance in range(-SLACK, SLACK + 1)
    }
    return [hex(number) for number in sorted(numbers) if number.to_bytes(4, "little") in code]


def _code(name: str, *, optimize: bool, harden: bool) -> bytes:
    verified = prepare(Program.from_bytes(assemble(PROGRAMS[name])))
    helpers = {CHOSEN: lambda *_: 0}
    return compile_program(verified, Options(optimize=optimize, harden=harden), helpers).image.code


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("name", PROGRAMS)
def test_what_is_made_of_immediates_is_not_in_hardened_code(name: str, optimize: bool) -> None:
    for _ in range(4):  # keys are drawn anew
        assert _near(_code(name, optimize=optimize, harden=True)) == []


def test_plain_code_holds_such_numbers() -> None:
    """Else the test above looks at nothing."""
    found = {name for name in PROGRAMS if _near(_code(name, optimize=True, harden=False))}
    assert {"a distance", "a bound", "a mask", "a length", "rounds"} <= found
