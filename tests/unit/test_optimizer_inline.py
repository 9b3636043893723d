"""Functions of the program where they are called: which, what becomes of payments, and where code leaves."""

from __future__ import annotations

import random

import pytest
from support.placed_code import code_of, verified

from ebpfjit.analysis.verified import prepare
from ebpfjit.difftest.hostile import calls
from ebpfjit.isa.spec import Kind
from ebpfjit.optimizer import inline as module
from ebpfjit.optimizer.build import build
from ebpfjit.optimizer.check import check
from ebpfjit.optimizer.code import PAY, Code
from ebpfjit.optimizer.inline import inline
from ebpfjit.optimizer.text import to_text
from ebpfjit.program import Program

SOURCE = """
  mov r1, 5
  call f
  add r0, 1
  call f
  exit
f:
  mov r0, r1
  add r0, 7
  exit
"""


def inlined(source: str) -> Code:
    """Return a program as it is built, and inlined."""
    code = inline(build(verified(source)))
    check(code)
    return code


def calls_of(code: Code) -> list[int]:
    """Return the slots of the calls that are left."""
    return [op.pc for block in code.blocks for op in block.ops if op.row.kind is Kind.CALL_LOCAL]


BEFORE = """\
entry 0: b0 (r1, r2)
entry 5: b2 (r1, r2)
b0 pc 0 (v0, v1):
  pay 2
  v2 = v0 * 3 ; 0
  v3, v4, v5, v6, v7, v8 = function 5(v2, v1) else leave 1 (r1 = v2, r2 = v1) ; 1
  goto b1()
b1 pc 2 ():
  pay 3
  v9 = v3 + v5 ; 2
  exit v9 ; 4
b2 pc 5 (v10, v11):
  pay 2 else leave 5 (r1 = v10, r2 = v11)
  if v10 > 7 goto b3() else b4() ; 6
b3 pc 7 ():
  pay 4
  v12 = v10 + v11 ; 7
  exit v12, v10, v11, v11, v11, v11 ; 8
b4 pc 9 ():
  pay 1
  exit v11, v10, v11, v11, v11, v11 ; 9
"""
AFTER = """\
entry 0: b0 (r1, r2)
entry 5: b2 (r1, r2)
b0 pc 0 (v0, v1):
  pay 2
  v2 = v0 * 3
  pay 2 own 6 or else leave 1 (r1 = v2, r2 = v1) ; 5
  if v2 > 7 goto b5() else b6() ; 6
b1 pc 2 ():
  pay 3
  v9 = v3 + v5
  exit v9 ; 4
b2 pc 5 (v10, v11):
  pay 2 else leave 5 (r1 = v10, r2 = v11)
  if v10 > 7 goto b3() else b4() ; 6
b3 pc 7 ():
  pay 4
  v12 = v10 + v11
  exit v12, v10, v11, v11, v11, v11 ; 8
b4 pc 9 ():
  pay 1
  exit v11, v10, v11, v11, v11, v11
b5 pc 7 ():
  pay 4
  v13 = v2 + v1
  goto b7(v13, v2, v1, v1, v1, v1) ; 8
b6 pc 9 ():
  pay 1
  goto b7(v1, v2, v1, v1, v1, v1)
b7 pc 1 (v3, v4, v5, v6, v7, v8):
  goto b1()
"""
PROGRAM = (
    "mul r1, 3\ncall f\nadd r0, r2\nadd r0, 0\nexit\nf:\nmov r3, 0\njgt r1, 7, g\ng: mov r4, 0\nexit\nexit"
)


def test_a_function_stands_where_it_was_called() -> None:
    code = code_of(BEFORE, PROGRAM)
    assert code.verified.calls.frameless == {5}
    code = inline(code)
    check(code)
    assert to_text(code) == AFTER


def test_where_the_budget_is_looked_at_before_the_call_that_is_for_both() -> None:
    code = inlined(SOURCE)
    assert not calls_of(code)
    paid = [op for block in code.blocks if block.pc < 5 for op in block.ops if op.row is PAY]
    assert [(op.imm, op.offset, op.stores, op.exit and op.exit.pc) for op in paid] == [
        (2, 5, True, 0),
        (3, 0, False, None),
        (2, 0, False, None),  # nobody looks in the block that calls again
        (3, 3, True, 3),
        (1, 0, False, 4),
    ]


@pytest.mark.parametrize(
    ("function", "why"),
    [
        ("ldxb r0, [r1+0]\nexit", "it does more than arithmetic"),
        ("mov r0, r10\nexit", "it does more than arithmetic"),
        ("mov r0, 1\nL: sub r1, 1\njne r1, 0, L\nexit", "it has a loop"),
        ("mov r0, 1\n" + "mul r0, r1\n" * 24 + "exit", "it has more than 24 operations"),
        ("mov r0, 1\n" + "jeq r1, 1, +1\nmul r0, 5\ndiv r0, 7\n" * 5 + "exit", "it has more than 8 blocks"),
        ("mov r0, 1\njeq r1, 1, +1\ncall f\nexit", "nothing says how deep calls get"),
        ("mov r0, 1\ncall 5\nexit", "nothing says how deep calls get"),
    ],
)
def test_what_is_no_small_function_is_called(function: str, why: str) -> None:
    code = inlined(f"mov r1, 5\ncall f\nexit\nf: {function}")
    assert calls_of(code)
    assert [(each.by, each.pc, each.why) for each in code.remarks if each.by == "inline"] == [
        ("inline", 3, why)
    ]


def test_a_program_does_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    source = "mov r1, 5\n" + "call f\n" * 20 + "exit\nf: mov r0, 1\n" + "mul r0, r1\n" * 15 + "exit"
    code = inlined(source)
    before = build(verified(source))
    size, larger = (sum(len(block.ops) + 1 for block in each.blocks) for each in (before, code))
    assert 0 < len(calls_of(code)) < 20
    assert larger < 3 * size
    assert code.remarks[-1].why == "the program would be more than twice as long"
    monkeypatch.setattr(module, "MOST_GROWTH", 10)
    assert not calls_of(inlined(source))


def test_most_functions_of_programs_that_call_are_inlined() -> None:
    """So the fuzzer's source of that name has something to find."""
    called = left = 0
    for number in range(10):
        case = calls.case(random.Random(f"inline {number}"))
        code = build(prepare(Program.from_bytes(case.code)))
        called += len(calls_of(code))
        left += len(calls_of(inline(code)))
    assert left < called / 4
