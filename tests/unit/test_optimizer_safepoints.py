"""One look at the budget in each round: which loops, and that runs end where they did."""

from __future__ import annotations

import pytest
from support.placed_code import MEMORY, agree, code_of, verified

from ebpfjit.analysis.accesses import Promises
from ebpfjit.difftest.case import Input
from ebpfjit.optimizer.check import check
from ebpfjit.optimizer.code import PAY, Code
from ebpfjit.optimizer.passes import PASSES, stages
from ebpfjit.optimizer.safepoints import look_once
from ebpfjit.optimizer.text import to_text

LOOP = """\
entry 0: b0 (r1)
b0 pc 0 (v0):
  goto b1(v0)
b1 pc 1 (v1):
  pay 2 else leave 1 (r1 = v1)
  v2 = v1 + 1
  if v2 > 5 goto b2() else b3() ; 2
b2 pc 3 ():
  pay 4 else leave 3 (r1 = v2)
  goto b3() ; 3
b3 pc 5 ():
  pay 1
  if v2 != 9 goto b1(v2) else b4() ; 5
b4 pc 6 ():
  pay 1
  exit v2 ; 6
"""
SOURCE = "exit\n" * 8


def test_the_start_of_a_round_asks_for_all_that_it_may_cost() -> None:
    before = code_of(LOOP, SOURCE)
    after = look_once(before)
    check(after)
    expected = to_text(before).replace("pay 2 else", "pay 2 own 7 or else")
    assert to_text(after) == expected.replace("pay 4 else leave 3 (r1 = v2)", "pay 4")


@pytest.mark.parametrize(
    "text",
    [
        LOOP.replace("pay 4 else leave 3 (r1 = v2)", "pay 4"),
        LOOP.replace("pay 2 else leave 1 (r1 = v1)", "pay 2").replace(
            "pay 1\n  if", "pay 1 else leave 5 (r1 = v2)\n  if"
        ),
        LOOP.replace("goto b3() ; 3", "if v0 > 5 goto b2() else b3() ; 3"),
    ],
    ids=["it looks once", "no exit", "a loop inside"],
)
def test_others_stay(text: str) -> None:
    code = code_of(text, SOURCE)
    assert look_once(code) is code


SEVERAL_JUMPS_BACK = """
    r0 = 0
    r6 = 9
    goto loop
    high: r4 = *(u8 *)(r1 + 5)
    r0 += r4
    goto next
    low: r0 *= 5
    *(u8 *)(r1 + 2) = r0
    next: r1 += 1
    r6 -= 1
    if r6 == 0 goto out
    loop: r2 = *(u8 *)(r1 + 1)
    if r2 > 50 goto high
    r0 += 1
    goto low
    out: exit
"""


def looks(code: Code) -> int:
    return sum(op.row is PAY and op.exit is not None for block in code.blocks for op in block.ops)


@pytest.mark.parametrize("left_out", [{"unroll"}, set[str]()], ids=["round by round", "unrolled"])
def test_runs_end_at_the_same_instruction(left_out: set[str]) -> None:
    """With every limit: the round that may not be paid for is done by baseline code."""
    found = dict[str, Code]()
    chosen = PASSES.keys() - left_out
    for name, code, _ in stages(verified(SEVERAL_JUMPS_BACK), Promises(), (), chosen):
        check(code)
        found[name] = code
    assert looks(found["safepoints"]) < looks(found["dead"])
    limits = [*range(1, 100), None]
    agree(found["payments"], [Input(MEMORY, limit) for limit in limits])
    agree(found["payments"], [Input(MEMORY[size:], limit) for size in (40, 52, 58) for limit in limits[::3]])
