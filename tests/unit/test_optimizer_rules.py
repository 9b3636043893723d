"""Rewrites over values: text in, text out; and programs full of idioms, stage by stage."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache, partial

import pytest

from ebpfjit.analysis.verified import Verified, prepare
from ebpfjit.assembler import assemble
from ebpfjit.difftest.arena import arena
from ebpfjit.difftest.case import Input
from ebpfjit.difftest.engines import outcome_of
from ebpfjit.difftest.hostile import idioms
from ebpfjit.difftest.optimized import CodeState, stages
from ebpfjit.difftest.outcome import Outcome
from ebpfjit.interpreter import State, interpret
from ebpfjit.optimizer.check import check
from ebpfjit.optimizer.code import Code
from ebpfjit.optimizer.dead import remove_dead
from ebpfjit.optimizer.rules.arithmetic import simplify
from ebpfjit.optimizer.text import from_text, to_text
from ebpfjit.program import Program
from ebpfjit.runtime.execution import Execution


@cache
def program() -> Verified:
    return prepare(Program.from_bytes(assemble("r0 = 0\nexit")))


def indented(*lines: str) -> str:
    return "".join(f"  {line}\n" for line in lines)


def block(*lines: str, args: str = "v0, v1, v2") -> Code:
    """One block, entered with its arguments in r1 and so on."""
    registers = ", ".join(f"r{number + 1}" for number in range(args.count("v")))
    return from_text(f"entry 0: b0 ({registers})\nb0 pc 0 ({args}):\n{indented(*lines)}", program())


def simplified(*lines: str) -> list[str]:
    """What is left of some operations, and of what they made before."""
    code = remove_dead(simplify(block(*lines)))
    check(code)
    return [line.strip() for line in to_text(code).splitlines()[2:]]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # constants
        ("v3 = 6; v4 = v3 * 7; exit v4", "v4 = 42; exit v4"),
        ("w3 = -1; v4 = v3 + 1; exit v4", "v4 = 4294967296 ll; exit v4"),
        ("v3 = 5; v4 = v3 - v0; exit v4", "v3 = 5; v4 = v3 - v0; exit v4"),
        ("v3 = 0; v4 = v3 - v0; exit v4", "v4 = -v0; exit v4"),
        ("v3 = 5; v4 = v3 + v0; exit v4", "v4 = v0 + 5; exit v4"),
        ("v3 = 1311768467463790320 ll; v4 = v0 ^ v3; exit v4",) * 2,
        ("v3 = 7; *(u16 *)(v0 + 4) = v3; exit v0", "*(u16 *)(v0 + 4) = 7; exit v0"),
        # nothing at all
        ("v3 = v0 + 0; v4 = v3 | 0; v5 = v4 * 1; exit v5", "exit v0"),
        ("v3 = v0 ^ v0; exit v3", "v3 = 0; exit v3"),
        ("v3 = v0 * 8; v4 = v3 / 16; exit v4", "v3 = v0 << 3; v4 = v3 >> 4; exit v4"),
        ("v3 = v0 % 32; exit v3", "v3 = v0 & 31; exit v3"),
        # chains
        ("v3 = v0 + 5; v4 = v3 + -7; exit v4", "v4 = v0 + -2; exit v4"),
        ("v3 = v0 << 3; v4 = v3 << 5; exit v4", "v4 = v0 << 8; exit v4"),
        ("v3 = v0 + 5; v4 = v3 + 7; v5 = v3 ^ v4; exit v5",) * 2,  # v0 would live longer
        # extensions
        ("v3 = v0 << 32; v4 = v3 >> 32; exit v4", "w4 = w0; exit v4"),
        ("v3 = v0 << 32; v4 = v3 s>> 32; exit v4", "v4 = (s32)v0; exit v4"),
        ("v3 = v0 << 56; v4 = v3 >> 56; exit v4", "v4 = v0 & 255; exit v4"),
        ("w3 = w0; w4 = w3; v5 = v4 << 32; v6 = v5 >> 29; exit v6", "w3 = w0; v6 = v3 << 3; exit v6"),
        ("w3 = w0 + 1; w4 = w3; exit v4", "w3 = w0 + 1; exit v3"),
        ("w3 = w0; w4 = w3 + w1; exit v4", "w4 = w0 + w1; exit v4"),
        ("v3 = v0 * v1; w4 = w3; exit v4", "w4 = w0 * w1; exit v4"),
        ("v3 = *(u16 *)(v0 + 0); v4 = v3 & 65535; exit v4", "v3 = *(u16 *)(v0 + 0); exit v3"),
        ("v3 = v0 & 255; *(u8 *)(v1 + 0) = v3; exit v0", "*(u8 *)(v1 + 0) = v0; exit v0"),
        # rotations
        ("v3 = v0 << 13; v4 = v0 >> 51; v5 = v4 | v3; exit v5", "v5 = v0 rotate 13; exit v5"),
        ("w3 = w0 << 7; w4 = w0 >> 25; w5 = w3 + w4; exit v5", "w5 = w0 rotate 7; exit v5"),
        ("w3 = w0 << 7; w4 = w0 >> 24; w5 = w3 + w4; exit v5",) * 2,
        ("w3 = w0 << 7; w4 = w0 >> 25; v5 = v3 | v4; exit v5", "w5 = w0 rotate 7; exit v5"),
        ("v3 = v0 << 7; v4 = v0 >> 25; w5 = w3 | w4; exit v5",) * 2,  # of more than the low half
        ("w3 = w0; v4 = v3 << 7; v5 = v3 >> 25; w6 = w4 | w5; exit v6", "w6 = w0 rotate 7; exit v6"),
        # what was made before
        ("v3 = v0 + v1; v4 = v3 * v2; v5 = v0 + v1; v6 = v4 ^ v5; v7 = v6 * v3; exit v7",
         "v3 = v0 + v1; v4 = v3 * v2; v6 = v4 ^ v3; v7 = v6 * v3; exit v7"),
        ("v3 = v0 + v1; v4 = v3 * v2; v5 = v0 + v1; v6 = v4 ^ v5; exit v6",) * 2,  # v3 would live longer
        # nobody reads it
        ("v3 = *(u8 *)(v0 + 0); v4 = v3 * v1; exit v0", "exit v0"),
        ("v3 = load_acquire((u8 *)(v0 + 0)); exit v0",) * 2,
        ("v3 = atomic_fetch_or((u64 *)(v0 + 0), v1); exit v0",) * 2,
    ],
)  # fmt: skip
def test_arithmetic(before: str, after: str) -> None:
    assert simplified(*before.split("; ")) == after.split("; ")


def test_a_bound_stays_and_what_its_exit_names() -> None:
    lines = [
        "v3 = v0 * v1",
        "v4 = v3 + 0",
        "bound load v2 + 0..8 else leave 0 (r1 = v4)",
        "v5 = *(u64 *)(v2 + 0)",
        "exit v0",
    ]
    assert simplified(*lines) == [lines[0], lines[2].replace("v4", "v3"), "exit v0"]


BRANCHES = """\
entry 0: b0 (r1, r2)
b0 pc 0 (v0, v1):
{lines}b1 pc 1 ():
  exit v0
b2 pc 2 ():
  exit v1
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("v2 = 5; if v0 > v2 goto b1() else b2()", "if v0 > 5 goto b1() else b2()"),
        ("v2 = 5; if v2 > v0 goto b1() else b2()", "if v0 < 5 goto b1() else b2()"),
        ("v2 = v0 & 8; if v2 == 0 goto b1() else b2()", "if v0 & 8 goto b2() else b1()"),
        ("w2 = w0 & w1; if v2 != 0 goto b1() else b2()", "if w0 & w1 goto b1() else b2()"),
        ("w2 = w0; if v2 > 8 goto b1() else b2()", "if w0 > 8 goto b1() else b2()"),
        ("w2 = w0; if v2 s> 8 goto b1() else b2()",) * 2,
    ],
)
def test_branches(before: str, after: str) -> None:
    code = remove_dead(simplify(from_text(BRANCHES.format(lines=indented(*before.split("; "))), program())))
    check(code)
    assert to_text(code) == BRANCHES.format(lines=indented(*after.split("; ")))


def test_a_branch_that_always_goes_one_way_leaves_no_other() -> None:
    text = BRANCHES.format(lines=indented("v2 = 5", "if v2 > 4 goto b1() else b2()"))
    code = remove_dead(simplify(from_text(text, program())))
    assert to_text(code).split("\n")[1:] == [
        "b0 pc 0 (v0, v1):",
        "  goto b1()",
        "b1 pc 1 ():",
        "  exit v0",
        "",
    ]


def test_arguments_that_nobody_reads_go_with_what_is_given_for_them() -> None:
    text = """\
entry 0: b0 (r1, r2)
b0 pc 0 (v0, v1):
  v2 = v1 * v1
  goto b1(v0, v2)
b1 pc 1 (v3, v4):
  v5 = v4 + 1
  v6 = v3 - 1
  if v6 != 0 goto b1(v6, v5) else b2()
b2 pc 4 ():
  exit v6
"""
    assert (
        to_text(remove_dead(from_text(text, program())))
        == """\
entry 0: b0 (r1, r2)
b0 pc 0 (v0, v1):
  goto b1(v0)
b1 pc 1 (v3):
  v6 = v3 - 1
  if v6 != 0 goto b1(v6) else b2()
b2 pc 4 ():
  exit v6
"""
    )


@pytest.mark.parametrize("seed", range(60))
def test_each_stage_does_what_the_program_does(seed: int) -> None:
    case = idioms.case(random.Random(f"rules {seed}"))
    verified, place = prepare(Program.from_bytes(case.code)), arena()

    def outcome(given: Input, machine: Callable[[Execution], State] | None = None) -> Outcome:
        return outcome_of(partial(interpret, verified, machine=machine), place.start(given), place)

    for given in case.inputs:
        wanted = outcome(given)
        for number, code in enumerate(stages(verified, ())):
            assert outcome(given, partial(CodeState, code)) == wanted, f"stage {number}"
