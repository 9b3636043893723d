"""How soon values are read again, over blocks and loops."""

from __future__ import annotations

import pytest
from support.placed_code import code_of

from ebpfjit.optimizer.code import Code
from ebpfjit.optimizer.last_use import LastUse
from ebpfjit.optimizer.next_use import FAR, NEVER, NextUse

SOURCE = "exit\n" * 20


def next_use(code: Code) -> NextUse:
    return NextUse(code, code.shape.order, LastUse(code, code.shape.order).live)


def depths(text: str) -> tuple[list[int], set[int]]:
    code = code_of(text, SOURCE)
    return code.shape.loops


NESTED = """\
entry 0: b0 (r1, r2)
b0 pc 0 (v0, v1):
  goto b1(v0)
b1 pc 1 (v2):
  v3 = v2 + 1
  goto b2(v3)
b2 pc 2 (v4):
  v5 = v4 + -1
  if v5 != 0 goto b2(v5) else b3()
b3 pc 3 ():
  v6 = v3 + v1
  if v6 > 9 goto b1(v6) else b4()
b4 pc 4 ():
  v7 = v0 + v6
  exit v7
"""


def test_loops_in_loops() -> None:
    assert depths(NESTED) == ([0, 1, 2, 1, 0], {1, 2})


def test_a_loop_that_is_entered_in_the_middle() -> None:
    """Two ways in: the block that comes first in the order is where it starts; the way back counts."""
    text = (
        "entry 0: b0 (r1)\nb0 pc 0 (v0):\n  if v0 > 5 goto b1() else b2()\n"
        "b1 pc 1 ():\n  if v0 > 6 goto b2() else b3()\nb2 pc 2 ():\n  goto b1()\nb3 pc 3 ():\n  exit v0"
    )
    found, headers = depths(text)
    assert len(headers) == 1
    assert found[0] == found[3] == 0
    assert found[1] == found[2] == 1


def test_blocks_that_nothing_leads_to_are_no_part_of_a_loop() -> None:
    text = (
        "entry 0: b0 (r1)\nb0 pc 0 (v0):\n  if v0 > 5 goto b0(v0) else b2()\nb1 pc 1 (v1):\n  goto b0(v1)\n"
    )
    assert depths(f"{text}b2 pc 2 ():\n  exit v0") == ([1, 0, 0], {0})


def test_operations_are_counted_on_the_way() -> None:
    """From the start of the block: 2 operations of b1 and its end, 2 of b2, and b3's first."""
    found = next_use(code_of(NESTED, SOURCE)).at
    assert found[2][1] >= FAR  # v1 is read behind the loop only
    assert (found[3][1], found[3][3], found[3][0]) == (0, 0, FAR + 2)  # v0: behind the outer loop
    assert found[1][1] == FAR + 2 + 2


def test_what_the_next_round_reads_is_near() -> None:
    """It is known behind the second walk: at the end of b3 the loop begins again with v1, two blocks on."""
    found = next_use(code_of(NESTED, SOURCE))
    behind = found.behind(3)
    assert behind[1] == FAR + 4
    assert behind[6] == 0  # as v2, by the start of b1, and by b4, which is out of the loop
    assert behind[0] == FAR


def test_what_only_exits_read_is_never_near() -> None:
    text = (
        "entry 0: b0 (r1, r2)\nb0 pc 0 (v0, v1):\n  goto b1()\n"
        "b1 pc 1 ():\n  bound load v0 + 0..1 else leave 1 (r1 = v0, r2 = v1)\n  exit v0"
    )
    found = next_use(code_of(text, SOURCE)).at
    assert found[1] == {0: 0, 1: NEVER + 2}


@pytest.mark.parametrize("count", [1, 60])
def test_many_loops_in_one_another(count: int) -> None:
    """Where there are too many blocks to look at loops count as none: no deeper than they are."""
    lines = ["entry 0: b0 (r1)", "b0 pc 0 (v0):", "  goto b1()"]
    for number in range(1, count + 1):
        lines += [f"b{number} pc 0 ():", f"  goto b{number + 1}()"]
    for number in range(count + 1, 2 * count + 1):
        lines += [f"b{number} pc 0 ():", f"  if v0 > 1 goto b{2 * count + 1 - number}() else b{number + 1}()"]
    found, headers = depths("\n".join([*lines, f"b{2 * count + 1} pc 0 ():", "  exit v0"]))
    assert headers == {*range(1, count + 1)}
    assert found[count] <= count
    assert found[0] == found[2 * count + 1] == 0
