"""Which registers may still be read: through calls of functions of the program."""

from __future__ import annotations

import pytest

from ebpfjit.analysis.liveness import Liveness, live_after, live_before
from ebpfjit.analysis.verified import prepare
from ebpfjit.assembler import assemble
from ebpfjit.program import Program


def liveness(source: str) -> Liveness:
    """Return what is live in a program."""
    return prepare(Program.from_bytes(assemble(source))).liveness


def names(mask: int) -> set[int]:
    """Return the registers of a mask, without r10."""
    return {number for number in range(10) if mask >> number & 1}


CALL = """
  mov r6, 1
  call f
  {behind}
  exit
f:
  mov r0, r2
  mov r7, r8
  mov r3, 4
  exit
"""


def test_a_call_reads_what_the_function_reads_and_keeps_what_is_read_behind_it() -> None:
    known = liveness(CALL.format(behind="add r0, r6"))
    before, after = live_before(known), live_after(known)
    assert names(before[1]) == {2, 6, 8}
    assert names(after[1]) == {0, 6}
    assert names(before[3]) == {0}
    assert names(before[4]) == {2, 8}
    assert names(before[7]) == {0}


def test_what_is_read_behind_a_call_is_handed_on_by_functions() -> None:
    known = liveness(CALL.format(behind="add r0, r4"))
    before = live_before(known)
    assert names(before[1]) == {1, 2, 4, 5, 8}  # of these the function hands on what it does not write
    assert names(before[7]) == {0, 1, 2, 3, 4, 5}
    assert names(live_after(known)[1]) >= {0, 4}


def test_functions_that_call_each_other() -> None:
    known = liveness(
        "mov r1, 9\ncall f\nexit\nf: jeq r1, 0, out\nsub r1, 1\nmov r3, r2\ncall f\nout: mov r0, 0\nexit"
    )
    before = live_before(known)
    assert names(before[1]) == {1, 2}
    assert names(before[6]) == {1, 2}


@pytest.mark.parametrize("other", ["callx r9", "ldabsb 0"])
def test_where_functions_are_not_known_all_is_read(other: str) -> None:
    known = liveness(CALL.format(behind=f"mov r9, 0\n{other}"))
    assert names(live_before(known)[1]) == {*range(10)}
    assert names(live_before(known)[-1]) == {*range(6)}
