"""Loops that put elements together, many rounds at once: which, and what becomes of checks and payments."""

from __future__ import annotations

import pytest
from support.placed_code import code_of

from ebpfjit import EbpfVmRaw
from ebpfjit.assembler import assemble
from ebpfjit.optimizer.check import check
from ebpfjit.optimizer.text import to_text
from ebpfjit.optimizer.vectors import vectorise

SOURCE = "exit\n" * 20

LOOP = """\
entry 0: b0 (r1, r2, r3)
b0 pc 0 (v0, v1, v2):
  goto b1(v0, v1, v2)
b1 pc 1 (v3, v4, v5):
  pay 5 else leave 1 (r1 = v3, r2 = v4, r3 = v5)
  bound load v3 + 4..8 else leave 2 (r1 = v3, r2 = v4, r3 = v5) refund 4 ; 2
  v6 = *(u32 *)(v3 + 4)
  w7 = w5 + w6 ; 3
  v8 = v3 + 4 ; 4
  v9 = v4 + 1 ; 5
  if v9 < v1 goto b1(v8, v9, v7) else b2() ; 6
b2 pc 7 ():
  exit v7
"""

ROUNDS = """\
b3 pc 1 (v10, v11, v12):
  v13 = v1 + -16
  if v1 < 16 goto b1(v10, v11, v12) else b4()
b4 pc 1 ():
  if v11 < v13 goto b5(v10, v11, v12) else b1(v10, v11, v12)
b5 pc 1 (v14, v15, v16):
  pay 80 or else leave 1 (r1 = v14, r2 = v15, r3 = v16)
  bound load v14 + 4..68 else leave 1 (r1 = v14, r2 = v15, r3 = v16) refund 80
  w17 = reduce + 16 *(u32 *)(v14 + 4)
  w18 = w16 + w17
  v19 = v14 + 64
  v20 = v15 + 16
  if v20 < v13 goto b5(v19, v20, v18) else b1(v19, v20, v18)
"""


def rounds_of(text: str) -> str:
    """The blocks that a text gets, without the pcs of their operations."""
    code = code_of(text, SOURCE)
    new = vectorise(code)
    check(new)
    if new is code:
        return ""
    *_, last = to_text(code).split("\nb")
    blocks = to_text(new).split(f"\nb{last.rstrip()}\n")[1]
    return "\n".join(line.split(" ; ")[0] for line in blocks.splitlines()) + "\n"


def test_rounds_are_paid_asked_for_and_done_at_once_where_one_more_follows() -> None:
    assert rounds_of(LOOP) == ROUNDS


INDEX = """\
  w20 = w4 + w2 ; 2
  v21 = v20 << 2
  v22 = v0 + v21
  v6 = *(u32 *)(v22 + 0)
"""


@pytest.mark.parametrize(
    ("old", "new", "has"),
    [
        ("if v9 < v1", "if v9 != v1", ["if v1 < 16", "if v11 < v13"]),
        ("if v9 < v1", "if v9 != -5", ["v14 = v13 - v11", "if v14 > 16 goto b4"]),
        ("if v9 < v1", "if v9 s< v1", ["if v1 s< 16", "if v11 s< v13"]),
        ("if v9 < v1", "if v4 < v1", ["if v1 < 15", "v13 = v1 + -15"]),
        ("if v9 < v1", "if v1 > v9", ["if v11 < v13"]),
        ("if v9 < v1", "if v9 < 100", ["if v11 < 84 goto b4"]),
        ("w7 = w5 + w6", "v7 = v6 ^ v5", ["v17 = reduce ^ 16 *(u32 *)(v14 + 4)", "v18 = v16 ^ v17"]),
        (
            "  w7 = w5 + w6",
            "  v23 = *(u32 *)(v3 + 0)\n  w24 = w6 * w23\n  w7 = w5 + w24",
            ["w32 = reduce * 16 *(u32 *)(v29 + 4), *(u32 *)v29"],
        ),
        (
            "  v6 = *(u32 *)(v3 + 4)\n",
            INDEX,
            ["w30 = w28 + w2", "if w30 > -16 goto b1(v27, v28, v29) else b6()"],
        ),
    ],
)
def test_tests_and_addresses(old: str, new: str, has: list[str]) -> None:
    rounds = rounds_of(LOOP.replace(old, new))
    for line in has:
        assert line in rounds, rounds


@pytest.mark.parametrize(
    ("why", "old", "new"),
    [
        ("it stores", "  v8 =", "  *(u32 *)(v0 + 0) = v6\n  v8 ="),
        ("the next element lies elsewhere", "v8 = v3 + 4", "v8 = v3 + 8"),
        ("the order counts", "w7 = w5 + w6", "w7 = w5 - w6"),
        ("what is added is what there is", "w7 = w5 + w6", "w7 = w5 + w5"),
        ("it goes on where they are equal", "if v9 < v1", "if v9 == v1"),
        ("too few rounds ever follow", "if v9 < v1", "if v9 < 16"),
        ("what it is compared with changes", "if v9 < v1", "if v9 < v8"),
        ("it ends in two ways", "goto b1(v8, v9, v7) else b2()", "goto b1(v8, v9, v7) else b1(v3, v9, v7)"),
        ("a counter of 32 bits is compared as 64", "v9 = v4 + 1", "w9 = w4 + 1"),
        ("nobody looks at the budget", " else leave 1 (r1 = v3, r2 = v4, r3 = v5)", ""),
    ],
)
def test_loops_that_stay_as_they_are(why: str, old: str, new: str) -> None:
    assert rounds_of(LOOP.replace(old, new)) == "", why


PRODUCTS = """
    r6 = r1
    r7 = r2
    r7 >>= 3
    w8 = *(u32 *)(r1 + 0)
    r0 = 0
    r3 = 0
    loop: w4 = w3
    w4 += w8
    r4 <<= 2
    r4 += r1
    w4 = *(u32 *)(r4 + 0)
    w5 = *(u32 *)(r6 + 0)
    w4 *= w5
    w0 += w4
    r6 += 4
    r3 += 1
    if r3 != r7 goto loop
    exit
"""


@pytest.mark.parametrize("start", [0, 3, 90, 0xFFFFFFF0])
@pytest.mark.parametrize("limit", [None, 300, 350, 1000])
def test_results_faults_and_limits_are_the_interpreters(start: int, limit: int | None) -> None:
    """Indexes from `start` on, of 32 bits: in the memory, past its end, or wrapping."""
    memory = bytearray(start.to_bytes(4, "little") + bytes(range(3, 252)) * 4)
    said = []
    for run in ("execute_program", "execute_program_jit"):
        machine = EbpfVmRaw(assemble(PRODUCTS), optimize=True, instruction_limit=limit)
        if run == "execute_program_jit":
            machine.jit_compile()
            assert "pmuludq" in machine.listing()
        try:
            said.append(str(getattr(machine, run)(memory)))
        except Exception as error:
            said.append(f"{type(error).__name__}: {error}")
    assert said[0] == said[1]
