"""Bytes that are loaded one by one and put together, or nearly: the result, and which byte is not there.

Optimised code loads them at once. Where memory ends between them the fault is that of the first that is
outside, with what was there until then.
"""

from __future__ import annotations

import pytest

from ebpfjit.assembler import assemble
from ebpfjit.difftest.case import Case, Input
from ebpfjit.difftest.check import Checker
from ebpfjit.difftest.children import run_forked

WORD = "ldxb r3, [r1+1]\nldxb r4, [r1+2]\nlsh r4, 8\nor r4, r3\n"
NETWORK = "ldxb r3, [r1+2]\nldxb r4, [r1+1]\nlsh r4, 8\nor r4, r3\n"
FOUR = (
    "ldxb r3, [r1+3]\nlsh32 r3, 24\nldxb r4, [r1+1]\nlsh32 r4, 8\nor32 r3, r4\n"
    "ldxb r4, [r1]\nor32 r3, r4\nldxb r4, [r1+2]\nlsh32 r4, 16\nor32 r3, r4\n"
)
EIGHT = "mov r0, 0\n" + "".join(f"ldxb r3, [r1+{i}]\nlsh r3, {8 * i}\nor r0, r3\n" for i in range(8))
RETURN, BOTH = "mov r0, r4\nexit", "mov r0, r4\nadd r0, r3\nexit"

PROGRAMS = {
    "two bytes": WORD + RETURN,
    "two bytes in network order": NETWORK + RETURN,
    "two bytes with add": WORD.replace("or ", "add ") + RETURN,
    "four bytes in any order": FOUR + "mov r0, r3\nexit",
    "four bytes, turned round": FOUR + "be32 r3\nmov r0, r3\nexit",
    "eight bytes": EIGHT + "exit",
    "eight bytes, turned round": EIGHT + "be64 r0\nexit",
    "two words": "ldxw r3, [r1]\nldxw r4, [r1+4]\nlsh r4, 32\nor r4, r3\n" + RETURN,
    "two words in network order": "ldxw r3, [r1+4]\nldxw r4, [r1]\nlsh r4, 32\nor r4, r3\n" + RETURN,
    "something else in between": (
        WORD.replace("lsh r4", "mov r5, 7\nldxb r6, [r1+9]\nlsh r4")
        + "mov r0, r4\nadd r0, r5\nadd r0, r6\nexit"
    ),
    "into the base": "mov r2, r1\nldxb r3, [r2]\nldxb r2, [r2+1]\nlsh r2, 8\nor r2, r3\nmov r0, r2\nexit",
    "a byte that is read besides": WORD + BOTH,
    "a byte that is read in between": WORD.replace("lsh r4", "mov r5, r3\nlsh r4") + "add r4, r5\n" + RETURN,
    "a store in between": WORD.replace("lsh r4", "stb [r1+1], 9\nlsh r4") + RETURN,
    "a store between the loads": WORD.replace("ldxb r4", "stb [r1+1], 9\nldxb r4") + RETURN,
    "a store to the byte that comes": WORD.replace("ldxb r4", "stb [r1+2], 9\nldxb r4") + RETURN,
    "a gap": WORD.replace("r1+2", "r1+3") + RETURN,
    "the same byte twice": WORD.replace("r1+2", "r1+1") + RETURN,
    "a shift by another number": WORD.replace(", 8", ", 9") + RETURN,
    "a shift that loses a byte": WORD.replace("lsh r4, 8", "lsh r4, 56") + RETURN,
    "a base that moves": WORD.replace("ldxb r4", "add r1, 1\nldxb r4") + RETURN,
    "a label in between": WORD.replace("ldxb r4", "jeq r2, 9, l\nl: ldxb r4") + RETURN,
    "in a loop": (
        "mov r0, 0\nmov r6, 5\nl: ldxb r3, [r1]\nldxb r4, [r1+1]\nlsh r3, 8\nor r3, r4\nadd r0, r3\n"
        "add r1, 2\nsub r6, 1\njne r6, 0, l\nexit"
    ),
    "a store of bytes turned round": "ldxw r3, [r1]\nbe32 r3\nstxw [r1+6], r3\nmov r0, r3\nexit",
    "a store of each byte": (
        "ldxw r3, [r1]\nstxb [r1+5], r3\nrsh r3, 8\nstxb [r1+6], r3\nrsh r3, 8\nstxb [r1+7], r3\nexit"
    ),
}


@pytest.mark.parametrize("build", ["native", "plain", "audit"])
def test_bytes_that_are_put_together(build: str) -> None:
    memory = bytes(range(0x81, 0x91))
    inputs = tuple(
        Input(memory[:size], None, read_only, guard)
        for size in range(len(memory) + 1)
        for read_only, guard in ((False, "after"), (False, "before"), (True, ""))
    )

    def work() -> list[str]:
        checker, found = Checker(("interpreter", "jit")), []
        for name, text in PROGRAMS.items():
            problem = checker.check(Case(assemble(text), inputs, build), sampled=False)
            found += [] if problem is None else [f"{name}: {problem}"]
        return found

    ended = run_forked(work, 60)
    assert ended.value == [], ended
