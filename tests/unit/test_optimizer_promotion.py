"""Counts of loops as values: what is counted, what each way out adds, which loops stay."""

from __future__ import annotations

import pytest
from support.placed_code import code_of

from ebpfjit.optimizer.check import check
from ebpfjit.optimizer.promotion import MOST_VALUES, promote
from ebpfjit.optimizer.rules.selects import select
from ebpfjit.optimizer.text import from_text, to_text

SOURCE = "exit\n" * 20

LOOP = """\
entry 0: b0 (r1, r2)
b0 pc 0 (v0, v1):
  goto b1(v0)
b1 pc 1 (v2):
  pay 2 else leave 1 (r1 = v2, r2 = v1)
  count 0 += 1
  bound load v2 + 0..4 else leave 2 (r1 = v2, r2 = v1) ; 2
  v3 = *(u32 *)(v2 + 0)
  if v3 == 0 goto b3() else b2() ; 3
b2 pc 4 ():
  count 0 += 1
  bound load v3 + 0..4 else leave 5 (r1 = v2, r2 = v1) ; 5
  *(u32 *)(v3 + 0) = v1
  goto b3()
b3 pc 6 ():
  count 0 += 1
  v4 = v2 + 4
  if v4 != v1 goto b1(v4) else b4() ; 7
b4 pc 8 ():
  exit v4
"""

PROMOTED = """\
entry 0: b0 (r1, r2)
b0 pc 0 (v0, v1):
  goto b5(v0)
b1 pc 1 (v2, v7, v8):
  pay 2 else leave 1 (r1 = v2, r2 = v1) count 2 += 0 + v8, 8 += 0 + v7, 12 += 0 + v8
  v9 = v8 + 1
  bound load v2 + 0..4 else leave 2 (r1 = v2, r2 = v1) count 2 += 0 + v9, 8 += 0 + v7, 12 += -1 + v9 ; 2
  v3 = *(u32 *)(v2 + 0)
  if v3 == 0 goto b3(v7) else b2() ; 3
b2 pc 4 ():
  bound load v3 + 0..4 else leave 5 (r1 = v2, r2 = v1) count 2 += 0 + v9, 8 += 1 + v7, 12 += -1 + v9 ; 5
  *(u32 *)(v3 + 0) = v1
  v10 = v7 + 1
  goto b3(v10)
b3 pc 6 (v11):
  v4 = v2 + 4
  if v4 != v1 goto b1(v4, v11, v9) else b6(v11, v9) ; 7
b4 pc 8 ():
  exit v4
b5 pc 1 (v5):
  v6 = 0
  goto b1(v5, v6, v6)
b6 pc 8 (v12, v13):
  count 0 += v13 ; 1
  count 0 += v12 ; 4
  count 0 += v13 ; 6
  goto b4() ; 8
"""


def promoted(text: str) -> str:
    """The text of what becomes of a code, which is checked."""
    code = promote(code_of(text, SOURCE), set())
    check(code)
    return to_text(code)


def test_what_rounds_and_one_arm_say_tells_of_all_blocks() -> None:
    assert promoted(LOOP) == PROMOTED


def test_exits_that_count_are_read_as_they_are_written() -> None:
    assert to_text(from_text(PROMOTED, code_of(LOOP, SOURCE).verified)) == PROMOTED


def test_where_nobody_counts_nothing_is_done() -> None:
    code = code_of(LOOP, SOURCE)
    assert promote(code, None) is code


@pytest.mark.parametrize(
    ("why", "old", "new"),
    [
        ("nothing is counted", "  count 0 += 1\n", ""),
        ("it calls", "  *(u32 *)(v3 + 0) = v1", "  v30 = call 7(v0, v0, v0, v0, v0)"),
        ("a way leads into its middle", "goto b1(v0)", "if v0 != 0 goto b1(v0) else b3()"),
    ],
)
def test_loops_that_stay(why: str, old: str, new: str) -> None:
    code = from_text(LOOP.replace(old, new), code_of(LOOP, SOURCE).verified)
    assert promote(code, set()) is code


def with_arms(count: int) -> str:
    """The text of a loop whose rounds may come by so many blocks."""
    arms = "".join(
        f"b{n} pc {n} ():\n  count 0 += 1\n  if v0 == {n} goto b{n + 2}() else b{n + 1}()\n"
        f"b{n + 1} pc {n + 1} ():\n  count 0 += 1\n  goto b{n + 2}()\n"
        for n in range(2, 2 * count + 2, 2)
    )
    last = 2 * count + 2
    return (
        "entry 0: b0 (r1)\nb0 pc 0 (v0):\n  goto b1()\n"
        f"b1 pc 1 ():\n  pay 9 else leave 1 (r1 = v0)\n  goto b2()\n{arms}"
        f"b{last} pc 16 ():\n  if v0 != 9 goto b1() else b{last + 1}()\nb{last + 1} pc 17 ():\n  exit v0\n"
    )


def test_a_loop_of_many_ways_keeps_its_counts_in_memory() -> None:
    assert "count 0 += 1\n" not in promoted(with_arms(MOST_VALUES - 1))
    assert promoted(with_arms(MOST_VALUES)) == with_arms(MOST_VALUES)


ARMS = """\
entry 0: b0 (r1, r2)
b0 pc 0 (v0, v1):
  count 0 += 1
  if v0 > v1 goto b2(v0) else b1()
b1 pc 2 ():
  count 0 += 1
  goto b2(v1)
b2 pc 3 (v2):
  count 0 += 1
  exit v2
"""


def test_an_arm_that_counts_is_an_arm_of_a_choice() -> None:
    assert to_text(select(code_of(ARMS, SOURCE))) == (
        "entry 0: b0 (r1, r2)\n"
        "b0 pc 0 (v0, v1):\n"
        "  count 0 += 1\n"
        "  v3 = 1 ; 2\n"
        "  v4 = 0\n"
        "  v5 = v4 if v0 > v1 else v3 ; 0\n"
        "  count 0 += v5 ; 2\n"
        "  v6 = v0 if v0 > v1 else v1 ; 0\n"
        "  v2 = v6\n"
        "  count 0 += 1 ; 3\n"
        "  exit v2\n"
    )
