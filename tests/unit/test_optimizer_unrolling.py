"""Loops that do several rounds before they come round: which, and what becomes of values and payments."""

from __future__ import annotations

import re

import pytest
from support.placed_code import code_of, verified

from ebpfjit import BudgetExhausted, EbpfVmNoData, Program
from ebpfjit.analysis.accesses import Promises
from ebpfjit.assembler import assemble
from ebpfjit.optimizer.check import check
from ebpfjit.optimizer.code import PAY, Code
from ebpfjit.optimizer.passes import stages
from ebpfjit.optimizer.text import to_text
from ebpfjit.optimizer.unrolling import unroll

SOURCE = "exit\n" * 20

LOOP = """\
entry 0: b0 (r1, r2)
b0 pc 0 (v0, v1):
  goto b1(v0)
b1 pc 1 (v2):
  pay 2 else leave 1 (r1 = v2, r2 = v1)
  v3 = v2 + 1 ; 1
  if v3 & v1 goto b1(v3) else b2() ; 2
b2 pc 3 ():
  exit v3
"""


def unrolled(text: str) -> Code:
    code = unroll(code_of(text, SOURCE))
    check(code)
    return code


def test_a_small_loop_does_four_rounds() -> None:
    code = unrolled(LOOP)
    rounds = [block for block in code.blocks if block.pc == 1]
    assert len(rounds) == 4
    first, *later = rounds
    assert first.ops[0].exit is not None
    assert (first.ops[0].imm, first.ops[0].offset, first.ops[0].stores) == (2, 8, True)  # it asks for all
    assert all(block.ops[0].exit is None and block.ops[0].imm == 2 for block in later)


def test_each_round_leaves_with_its_own_value() -> None:
    code = unrolled(LOOP)
    (behind,) = (block for block in code.blocks if block.pc == 3)
    (argument,) = behind.args
    assert behind.end.args == (argument,)
    number = code.blocks.index(behind)
    left = [way.args[0] for block in code.blocks for way in block.ways if way.block == number]
    assert len(set(left)) == 4
    made = {op.results[0] for block in code.blocks for op in block.ops if op.results}
    assert set(left) <= made


SIDE_BY_SIDE = """\
r3 = 5
r4 = 8
first: r3 >>= 1
if r3 != 0 goto first
second: r4 ^= 1
if r4 != 0 goto second
exit
"""


def test_a_loop_that_another_one_leads_to_is_none_of_its_rounds() -> None:
    """Copied with the rounds of the first, the second one's would be without a look at the budget."""
    for _, code, _ in stages(verified(SIDE_BY_SIDE), Promises()):
        check(code)
    machine = EbpfVmNoData(Program.from_bytes(assemble(SIDE_BY_SIDE)), optimize=True, instruction_limit=1000)
    machine.jit_compile()
    with pytest.raises(BudgetExhausted):
        machine.execute_program_jit()


MANY = "".join(f"  v{number} = v2 * {number}\n" for number in range(9, 34))
ENTERED = """\
entry 0: b0 (r1, r2)
entry 1: b1 (r1, r2)
b0 pc 0 (v0, v1):
  goto b1(v0, v1)
b1 pc 1 (v2, v4):
  pay 2 else leave 1 (r1 = v2, r2 = v4)
  v3 = v2 + 1
  if v3 & v4 goto b1(v3, v4) else b2() ; 2
b2 pc 3 ():
  exit v3
"""


@pytest.mark.parametrize(
    ("why", "text"),
    [
        ("it calls", LOOP.replace("v3 = v2 + 1", "v3 = call 5(v2, v2, v2, v2, v2)")),
        ("it is entered from outside", ENTERED),
        ("it has many operations", LOOP.replace("  v3 =", MANY + "  v3 =")),
        (
            "two blocks behind it read what it made",
            LOOP.replace("goto b1(v3) else b2() ; 2", "goto b3() else b2() ; 2").replace(
                "b2 pc 3", "b3 pc 4 ():\n  if v3 > 7 goto b1(v3) else b4()\nb4 pc 5 ():\n  exit v3\nb2 pc 3"
            ),
        ),
    ],
)  # fmt: skip
def test_loops_that_stay_as_they_are(why: str, text: str) -> None:
    code = code_of(_in_order(text), SOURCE)
    assert to_text(unroll(code)) == to_text(code), why


def _in_order(text: str) -> str:
    """Return the text with its blocks in the order of their numbers, as it is read."""
    head, *blocks = text.split("\nb")
    return "\nb".join([head, *sorted(blocks, key=lambda block: int(block.split()[0]))])


COUNTED = """\
entry 0: b0 (r1, r2, r3)
b0 pc 0 (v0, v1, v2):
  goto b1(v0, v1, v2)
b1 pc 1 (v3, v4, v5):
  pay 5 else leave 1 (r1 = v3, r2 = v4, r3 = v5)
  bound store v3 + 0..8 else leave 2 (r1 = v3, r2 = v4, r3 = v5) refund 4
  *(u64 *)(v3 + 0) = v5
  v6 = v3 + 8
  v7 = v5 * v4
  v8 = v4 + -1
  if v8 != 0 goto b1(v6, v8, v7) else b2()
b2 pc 7 ():
  exit v7
"""

FOUR = """\
b3 pc 1 (v9, v10, v11):
  if v10 > 4 goto b4(v9, v10, v11) else b1(v9, v10, v11)
b4 pc 1 (v12, v13, v14):
  pay 5 own 20 or else leave 1 (r1 = v12, r2 = v13, r3 = v14)
  bound store v12 + 0..8 else leave 2 (r1 = v12, r2 = v13, r3 = v14) refund 4
  *(u64 *)(v12 + 0) = v14
"""


def test_rounds_of_counted_loops_have_no_test_between_them() -> None:
    """Where four follow, and one more; what steps is counted from the first of them on."""
    code = unrolled(COUNTED)
    text = to_text(code)
    assert FOUR in text
    (rounds,) = (block for block in code.blocks if len(block.ops) > 10)
    pays = [(op.imm, op.exit is not None) for op in rounds.ops if op.row is PAY]
    assert pays == [(5, True), (5, False), (5, False), (5, False)]
    assert re.findall(r"v12 \+ (\d+)\n", text) == ["8", "16", "24", "32"]
    assert re.findall(r"v13 \+ (-\d+)\n", text) == ["-1", "-2", "-3", "-4"]
    assert text.count("v8 = v4 + -1") == 1  # in the loop, which does the last ones


def test_counted_loops_that_are_tested_in_each_round() -> None:
    """What the counter is compared with changes; the budget is looked at in the middle."""
    for old, new in (("v8 != 0", "v8 != v7"), ("  v7 =", "  pay 1 else leave 3 (r1 = v3)\n  v7 =")):
        assert "> 4 goto" not in to_text(unrolled(COUNTED.replace(old, new)))
