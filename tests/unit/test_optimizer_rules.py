"""Rewrites over values: text in, text out; and programs full of idioms, stage by stage."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache, partial

import pytest

from ebpfjit.analysis.accesses import Promises
from ebpfjit.analysis.verified import Verified, prepare
from ebpfjit.assembler import assemble
from ebpfjit.difftest.arena import arena
from ebpfjit.difftest.case import Input
from ebpfjit.difftest.engines import outcome_of
from ebpfjit.difftest.hostile import idioms
from ebpfjit.difftest.optimized import CodeState, stages
from ebpfjit.difftest.outcome import Outcome
from ebpfjit.errors import MemoryFault
from ebpfjit.interpreter import State, interpret
from ebpfjit.optimizer.check import check
from ebpfjit.optimizer.code import Code
from ebpfjit.optimizer.dead import remove_dead
from ebpfjit.optimizer.rules.addresses import displace, index
from ebpfjit.optimizer.rules.arithmetic import simplify
from ebpfjit.optimizer.rules.bytes import gather
from ebpfjit.optimizer.rules.divisions import divide
from ebpfjit.optimizer.rules.operands import use_memory
from ebpfjit.optimizer.rules.selects import select
from ebpfjit.optimizer.text import from_text, to_text
from ebpfjit.program import Program
from ebpfjit.runtime.execution import Execution
from tests.support.rows import over


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


@over(("before", "after"), [
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
        # remainders
        ("v3 = v0 / v1; v4 = v3 * v1; v5 = v0 - v4; exit v5", "v5 = v0 % v1; exit v5"),
        ("w3 = w0; w4 = w3 / w1; w5 = w1 * w4; w6 = w0 - w5; exit v6", "w6 = w0 % w1; exit v6"),
        ("w3 = w0 / w1; v4 = v3 * v1; v5 = v0 - v4; exit v5",) * 2,
        ("v3 = v0 / v1; v4 = v3 * v1; v5 = v1 - v4; exit v5",) * 2,
        ("v3 = v0 / v1; v4 = v3 * v1; v5 = v0 - v4; v6 = v5 ^ v3; exit v6",) * 2,  # the quotient is read
        # choices
        ("v3 = 5; v4 = v1 if v3 > v0 else v2; exit v4", "v4 = v1 if v0 < 5 else v2; exit v4"),
        ("v3 = v0 & 8; v4 = v1 if v3 == 0 else v2; exit v4", "v4 = v2 if v0 & 8 else v1; exit v4"),
        ("v3 = 9; v4 = v1 if v3 s> 8 else v2; exit v4", "exit v1"),
        ("v3 = v2; v4 = v2 if v0 s> 8 else v3; exit v4", "exit v2"),
        # what was made before
        ("v3 = v0 + v1; v4 = v3 * v2; v5 = v0 + v1; v6 = v4 ^ v5; v7 = v6 * v3; exit v7",
         "v3 = v0 + v1; v4 = v3 * v2; v6 = v4 ^ v3; v7 = v6 * v3; exit v7"),
        ("v3 = v0 + v1; v4 = v3 * v2; v5 = v0 + v1; v6 = v4 ^ v5; exit v6",) * 2,  # v3 would live longer
        # nobody reads it
        ("v3 = *(u8 *)(v0 + 0); v4 = v3 * v1; exit v0", "exit v0"),
        ("v3 = load_acquire((u8 *)(v0 + 0)); exit v0",) * 2,
        ("v3 = atomic_fetch_or((u64 *)(v0 + 0), v1); exit v0",) * 2,
    ])  # fmt: skip
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


def lines_of(code: Code, number: int = 0) -> list[str]:
    """The operations of a block."""
    check(code)
    text = to_text(code)
    assert from_text(text, program()) == code
    return [line.strip() for line in text.split("\nb")[number + 1].splitlines()[1:]]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("v3 = v0 + 16; v4 = *(u32 *)(v3 - 4); exit v4", "v4 = *(u32 *)(v0 + 12); exit v4"),
        ("v3 = v0 + 16; *(u32 *)(v3 + 4) = v3; exit v0",) * 2,  # it is read besides
        ("v3 = v0 + 16; bound store v3 + 0..4 else leave 0 (r1 = v0); *(u32 *)(v3 + 0) = 5; exit v0",
         "bound store v0 + 16..20 else leave 0 (r1 = v0); *(u32 *)(v0 + 16) = 5; exit v0"),
        ("v3 = v0 + 16; bound store v3 + 0..4 else leave 0 (r1 = v3); *(u32 *)(v3 + 0) = 5; exit v0",) * 2,
        ("v3 = v0 + 1073741824; v4 = *(u8 *)(v3 + 4); exit v4",) * 2,
        ("v3 = v0 + 1073741823; v4 = *(u8 *)(v3 + 4); exit v4",) * 2,
        ("w3 = w0 + 16; v4 = *(u8 *)(v3 + 4); exit v4",) * 2,  # it wraps at 32 bits
    ],
)  # fmt: skip
def test_displacements(before: str, after: str) -> None:
    assert lines_of(remove_dead(displace(block(*before.split("; "))))) == after.split("; ")


@over(("before", "after"), [
        ("v3 = v0 << 3; v4 = v3 + v1; exit v4", "v4 = v1 + v0 * 8 + 0; exit v4"),
        ("v3 = v0 << 4; v4 = v3 + v1; exit v4",) * 2,
        ("w3 = w0 << 2; v4 = v1 + v3; exit v4",) * 2,  # of other widths
        ("w3 = w0 << 2; w4 = w1 + w3; exit v4", "w4 = w1 + w0 * 4 + 0; exit v4"),
        ("v3 = v0 + v1; v4 = v3 + 9; exit v4", "v4 = v0 + v1 * 1 + 9; exit v4"),
        ("v3 = v0 + -7; v4 = v1 << 1; v5 = v3 + v4; v6 = v5 + 9; exit v6", "v6 = v0 + v1 * 2 + 2; exit v6"),
        ("v3 = v0 + v1; v4 = v3 + 9; v5 = v4 * v3; exit v5",) * 2,  # v3 is read besides
        ("v3 = v0 * 5; w4 = w3 * 9; exit v4", "v3 = v0 + v0 * 4 + 0; w4 = w3 + w3 * 8 + 0; exit v4"),
        ("v3 = v0 + v1; v4 = *(s16 *)(v3 + 4); *(u8 *)(v3 - 4) = v2; exit v4",
         "v4 = *(s16 *)(v0 + v1 * 1 + 4); *(u8 *)(v0 + v1 * 1 - 4) = v2; exit v4"),
        ("v3 = v1 << 3; v4 = v0 + v3; v5 = *(u64 *)(v4 + 8); *(u32 *)(v4 + 0) = 7; exit v5",
         "v5 = *(u64 *)(v0 + v1 * 8 + 8); *(u32 *)(v0 + v1 * 8 + 0) = 7; exit v5"),
        ("v3 = v0 + v1; bound load v3 + 4..8 else leave 0 (r1 = v0); v4 = *(u32 *)(v3 + 4); exit v4",
         "bound load v0 + v1 * 1 + 4..8 else leave 0 (r1 = v0); v4 = *(u32 *)(v0 + v1 * 1 + 4); exit v4"),
        ("v3 = v0 + v1; v4 = be16 *(u16 *)(v3 + 4); *(u32 *)(v3 + 0) = be32 v4; exit v4",
         "v4 = be16 *(u16 *)(v0 + v1 * 1 + 4); *(u32 *)(v0 + v1 * 1 + 0) = be32 v4; exit v4"),
        ("v3 = v0 + v1; *(u64 *)(v3 + 0) = v3; exit v0",) * 2,
        ("v3 = v0 + v1; lock *(u64 *)(v3 + 0) += v2; exit v0",) * 2,
        ("v3 = v0 + v1; v4 = load_acquire((u64 *)(v3 + 0)); exit v4",) * 2,
        ("w3 = w0 + w1; v4 = *(u32 *)(v3 + 4); exit v4",) * 2,
    ])  # fmt: skip
def test_indexes(before: str, after: str) -> None:
    assert lines_of(remove_dead(index(block(*before.split("; "))))) == after.split("; ")


@over("shift", [0, 3])
@over("times", [1, 2, 5])
@over("number", [0x7FFFFFFF, 0x40000000, -0x40000000, -0x80000000])
def test_far_from_the_start_of_the_argument(number: int, times: int, shift: int) -> None:
    """However far, its bounds are what a machine can say."""
    far = f"r4 += {number}\n" * times
    back = f"r5 = {number}\nr5 *= {-times}\n"  # so that what is read is there
    text = (
        f"r3 = *(u8 *)(r1 + 0)\n{back}r3 += r5\nr3 s>>= {shift}\nr4 = r1\n{far}r5 = r4\n"
        f"r3 <<= {shift}\nr4 += r3\nr0 = *(u8 *)(r4 + 1)\n*(u64 *)(r1 + 8) = r5\nexit"
    )
    program = Program.from_bytes(assemble(text))
    function = program.compile(optimize=True)
    assert function.explain().startswith("optimised code")
    for first in (0, 1, 14, 15, 255):
        memory = bytes([first, *range(1, 16)])
        endings = []
        for run in (function, program.compile(optimize=False)):
            buffer = bytearray(memory)
            try:
                endings.append((run(buffer), None))
            except MemoryFault as error:
                endings.append((None, error.pc))
        assert endings[0] == endings[1]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("v3 = v0 / 10; exit v3", "v4 = 14757395258967641293 ll; v5 = v0 mulhi v4; v3 = v5 >> 3; exit v3"),
        ("w3 = w0 / 7; exit v3", "w4 = w0; v5 = 2635249153387078803 ll; v3 = v4 mulhi v5; exit v3"),
        ("v3 = *(u32 *)(v0 + 0); v4 = v3 / 7; exit v4",
         "v3 = *(u32 *)(v0 + 0); v5 = 2635249153387078803 ll; v4 = v3 mulhi v5; exit v4"),
        ("v3 = v0 / 7; exit v3",) * 2,  # its reciprocal takes 65 bits
        ("w3 = w0 % 1000; exit v3",
         "w4 = w0; v5 = 18446744073709552 ll; v6 = v4 mulhi v5; v7 = v6 * 1000; v3 = v4 - v7; exit v3"),
        ("w3 = w0 % -1; exit v3",) * 2,
    ],
)  # fmt: skip
def test_divisions_by_constants(before: str, after: str) -> None:
    assert lines_of(divide(block(*before.split("; ")))) == after.split("; ")


BYTES = "v3 = *(u8 *)(v0 + 2); v4 = *(u8 *)(v0 + 3); v5 = {} << 8; v6 = v5 | {}; exit v6"
FOUR = "v3 = *(u16 *)(v0 + 0); v4 = *(u8 *)(v0 + 2); v5 = *(u8 *)(v0 + 3); w6 = w5 << 24; w7 = w4 << 16; {}"


@over(("before", "after"), [
        (BYTES.format("v4", "v3"), "v6 = *(u16 *)(v0 + 2); exit v6"),
        (BYTES.format("v3", "v4"), "v6 = be16 *(u16 *)(v0 + 2); exit v6"),
        (BYTES.format("v4", "v3").replace("|", "^"), "v6 = *(u16 *)(v0 + 2); exit v6"),
        (BYTES.format("v4", "v3").replace("v0 + 3", "v0 + 4"),) * 2,
        (BYTES.format("v4", "v3").replace("v0 + 3", "v1 + 3"),) * 2,
        (BYTES.format("v4", "v3").replace("8;", "9;"),) * 2,
        (BYTES.format("v4", "v3").replace("exit v6", "v7 = v6 + v4; exit v7"),) * 2,  # a byte is read besides
        (BYTES.format("v4", "v3").replace("v4 =", "*(u8 *)(v1 + 0) = v2; v4 ="),) * 2,  # which it may be
        (BYTES.format("v4", "v3").replace("v5 =", "*(u8 *)(v1 + 0) = v2; v5 ="),
         "v6 = *(u16 *)(v0 + 2); *(u8 *)(v1 + 0) = v2; exit v6"),
        (FOUR.format("w8 = w6 | w7; w9 = w8 + w3; exit v9"), "v9 = *(u32 *)(v0 + 0); exit v9"),
        (FOUR.format("w8 = w6 | w7; w9 = w8 + w3; v10 = be32 v9; exit v10"),
         "v10 = be32 *(u32 *)(v0 + 0); exit v10"),
        ("v3 = *(u64 *)(v0 + 0); v4 = be64 v3; v5 = bswap64 v4; exit v5", "v5 = *(u64 *)(v0 + 0); exit v5"),
        ("v3 = *(u64 *)(v0 + 0); v4 = be32 v3; exit v4",) * 2,
        ("v3 = be32 v1; *(u32 *)(v0 + 4) = v3; exit v0", "*(u32 *)(v0 + 4) = be32 v1; exit v0"),
        ("v3 = be32 v1; *(u64 *)(v0 + 4) = v3; exit v0",) * 2,
        ("v3 = be32 v1; *(u32 *)(v0 + 4) = v3; exit v3",) * 2,
    ])  # fmt: skip
def test_bytes(before: str, after: str) -> None:
    assert lines_of(remove_dead(gather(block(*before.split("; "))))) == after.split("; ")


def test_a_number_is_loaded_behind_the_bound_of_its_last_byte() -> None:
    bounds = [f"bound load v0 + {at}..{at + 1} else leave {at} (r1 = v0)" for at in (2, 3)]
    lines = [f"{bounds[0]}; v3 =", f"{bounds[1]}; v4 ="]
    text = BYTES.format("v4", "v3").replace("v3 =", lines[0]).replace("v4 =", lines[1])
    assert lines_of(remove_dead(gather(block(*text.split("; "))))) == [
        *bounds,
        "v6 = *(u16 *)(v0 + 2)",
        "exit v6",
    ]


CHOICE = """\
entry 0: b0 (r1, r2)
b0 pc 0 (v0, v1):
  pay 2
  if {condition} goto b{taken} else b{through}
b1 pc 0 ():
{one}  goto b3(v0, v{given})
b2 pc 0 ():
{two}  goto b3(v0, v1)
b3 pc 4 (v2, v3):
  pay 5
  v4 = v2 + v3
  exit v4
"""


@pytest.mark.parametrize(
    ("parts", "after"),
    [
        # one arm, and both
        ({"through": "3(v0, v1)"}, "v5 = v0 if v0 > v1 else v1; v2 = v0; v3 = v5"),
        ({"taken": "3(v0, v0)"}, "v5 = v0 if v0 > v1 else v1; v2 = v0; v3 = v5"),
        ({}, "v5 = v0 if v0 > v1 else v1; v2 = v0; v3 = v5"),
        ({"condition": "w0 & 5"}, "v5 = v0 if w0 & 5 else v1; v2 = v0; v3 = v5"),
        # something is done in an arm
        ({"one": "  v6 = 7\n", "given": 6}, "v6 = 7; v7 = v6 if v0 > v1 else v1; v2 = v0; v3 = v7"),
        ({"one": "  v6 = v0 / v1\n", "given": 6}, None),
        ({"one": "  v6 = *(u8 *)(v0 + 0)\n", "given": 6}, None),
        ({"one": indented("pay 1")}, None),
    ],
)
def test_choices(parts: dict[str, str], after: str | None) -> None:
    usual = {"condition": "v0 > v1", "taken": "1()", "through": "2()", "one": "", "two": "", "given": 0}
    code = from_text(CHOICE.format(**(usual | parts)), program())
    chosen = select(remove_dead(code))
    joined = ["pay 5 ; 4", "v4 = v2 + v3", "exit v4"]
    wanted = lines_of(remove_dead(code)) if after is None else ["pay 2", *after.split("; "), *joined]
    assert lines_of(remove_dead(chosen)) == wanted


NESTED = """\
entry 0: b0 (r1, r2)
b0 pc 0 (v0, v1):
  pay 6
  if v0 > v1 goto b3(v0) else b1()
b1 pc 0 ():
{more}  v2 = v0 & v1
  if v2 == 0 goto b3(v1) else b2()
b2 pc 0 ():
  v3 = v1 + 1
  goto b3(v3)
b3 pc 0 (v4):
  exit v4
"""


def test_choices_in_choices() -> None:
    """As in `a > b ? a : a & b ? b + 1 : b`; an arm that does more stays one."""
    code = remove_dead(select(from_text(NESTED.format(more=""), program())))
    wanted = "v2 = v0 & v1; v3 = v1 + 1; v5 = v1 if v2 == 0 else v3; v6 = v0 if v0 > v1 else v5; v4 = v6"
    assert lines_of(code) == ["pay 6", *wanted.split("; "), "exit v4"]
    more = indented("v7 = v0 & 3", "v8 = v7 + v1", "*(u8 *)(v0 + 0) = v8")
    code = select(from_text(NESTED.format(more=more), program()))
    assert "if v0 > v1 goto b2(v0) else b1()" in lines_of(code)


@over(("before", "after"), [
        ("v3 = *(u64 *)(v0 + 8); v4 = v1 + v3; exit v4", "v4 = v1 + *(u64 *)(v0 + 8); exit v4"),
        ("v3 = *(u64 *)(v0 + 8); v4 = v3 * v1; exit v4", "v4 = v1 * *(u64 *)(v0 + 8); exit v4"),
        ("v3 = *(u64 *)(v0 + 8); v4 = v3 - v1; exit v4",) * 2,
        ("v3 = *(u64 *)(v0 + 8); v4 = v1 << v3; exit v4",) * 2,
        ("v3 = *(u32 *)(v0 + 8); v4 = v1 + v3; exit v4",) * 2,  # of other sizes
        ("v3 = *(s32 *)(v0 + 8); w4 = w1 + w3; exit v4",) * 2,
        ("v3 = *(u32 *)(v0 + v2 * 4 + 8); w4 = w1 ^ w3; exit v4",
         "w4 = w1 ^ *(u32 *)(v0 + v2 * 4 + 8); exit v4"),
        ("v3 = *(u64 *)(v0 + 8); v4 = v1 + v3; v5 = v4 + v3; exit v5",) * 2,  # it is read twice
        ("v3 = *(u64 *)(v0 + 8); *(u8 *)(v2 + 0) = 1; v4 = v1 + v3; exit v4",) * 2,
        ("v3 = *(u64 *)(v0 + 8); bound load v2 + 0..1 else leave 0 (); v4 = v1 + v3; exit v4",) * 2,
        ("v3 = *(u64 *)(v0 + 8); v4 = v1 + v3; bound load v2 + 0..1 else leave 0 (r1 = v3); exit v4",) * 2,
        # in memory
        ("v3 = *(u64 *)(v0 + 8); v4 = v3 - v1; *(u64 *)(v0 + 8) = v4; exit v0",
         "*(u64 *)(v0 + 8) -= v1; exit v0"),
        ("v3 = *(u64 *)(v0 + 8); v4 = v1 - v3; *(u64 *)(v0 + 8) = v4; exit v0",
         "v4 = v1 - *(u64 *)(v0 + 8); *(u64 *)(v0 + 8) = v4; exit v0"),
        ("v3 = *(u64 *)(v0 + 8); v4 = v1 | v3; *(u64 *)(v0 + 8) = v4; exit v0",
         "*(u64 *)(v0 + 8) |= v1; exit v0"),
        ("v3 = *(u32 *)(v0 + v2 * 4 + 8); w4 = w3 + w1; *(u32 *)(v0 + v2 * 4 + 8) = v4; exit v0",
         "*(u32 *)(v0 + v2 * 4 + 8) += v1; exit v0"),
        ("v3 = *(u64 *)(v0 + 8); v4 = v1 | v3; *(u8 *)(v2 + 0) = 1; *(u64 *)(v0 + 8) = v4; exit v0",
         "v4 = v1 | *(u64 *)(v0 + 8); *(u8 *)(v2 + 0) = 1; *(u64 *)(v0 + 8) = v4; exit v0"),
        ("v3 = *(u8 *)(v0 + v1 * 2 + 8); v4 = v3 ^ -1; *(u8 *)(v0 + v1 * 2 + 8) = v4; exit v0",
         "*(u8 *)(v0 + v1 * 2 + 8) ^= -1; exit v0"),
        ("v3 = *(u8 *)(v0 + 8); v4 = v3 + 1; *(u8 *)(v0 + 9) = v4; exit v0",) * 2,
        ("v3 = *(u8 *)(v0 + 8); v4 = v3 + 1; *(u16 *)(v0 + 8) = v4; exit v0",) * 2,
        ("v3 = *(u64 *)(v0 + 8); w4 = w3 + 1; *(u64 *)(v0 + 8) = v4; exit v0",) * 2,
        ("v3 = *(u8 *)(v0 + 8); v4 = v3 + 1; *(u8 *)(v1 + 0) = 5; *(u8 *)(v0 + 8) = v4; exit v0",) * 2,
        ("v3 = *(u8 *)(v0 + 8); v4 = v3 + 1; *(u8 *)(v0 + 8) = v4; exit v4",) * 2,
    ])  # fmt: skip
def test_operands_in_memory(before: str, after: str) -> None:
    assert lines_of(use_memory(block(*before.split("; ")))) == after.split("; ")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("v2 = *(u64 *)(v0 + 0); if v2 s> v1 goto", "if *(u64 *)(v0 + 0) s> v1 goto"),
        ("v2 = *(u64 *)(v0 + 0); if v1 s> v2 goto", "if *(u64 *)(v0 + 0) s< v1 goto"),
        ("v2 = *(u8 *)(v0 + 0); if v2 == 45 goto", "if *(u8 *)(v0 + 0) == 45 goto"),
        ("v2 = *(u8 *)(v0 + 0); if v2 s> 255 goto", "if *(u8 *)(v0 + 0) > 255 goto"),
        ("v2 = *(u8 *)(v0 + 0); if v2 == 256 goto",) * 2,
        ("v2 = *(u8 *)(v0 + 0); if v2 == v1 goto",) * 2,
        ("v2 = *(s8 *)(v0 + 0); if v2 == 5 goto",) * 2,
        ("v2 = *(u32 *)(v0 + 0); if w2 s< -5 goto", "if *(u32 *)(v0 + 0) s< -5 goto"),
        ("v2 = *(u32 *)(v0 + 0); if v2 s< -5 goto",) * 2,
        ("v3 = *(u8 *)(v1 + 0); v2 = *(u8 *)(v0 + 0); if v2 != v3 goto",
         "v3 = *(u8 *)(v1 + 0); if *(u8 *)(v0 + 0) != v3 goto"),
        ("v2 = *(u64 *)(v0 + 0); if v2 & v2 goto",) * 2,
    ],
)  # fmt: skip
def test_comparisons_with_memory(before: str, after: str) -> None:
    ways = " b1() else b2()"
    code = use_memory(from_text(BRANCHES.format(lines=indented(*(before + ways).split("; "))), program()))
    assert lines_of(code) == (after + ways).split("; ")


@over("seed", range(60))
def test_each_stage_does_what_the_program_does(seed: int) -> None:
    case = idioms.case(random.Random(f"rules {seed}"))
    verified, place = prepare(Program.from_bytes(case.code)), arena()

    def outcome(given: Input, machine: Callable[[Execution], State] | None = None) -> Outcome:
        return outcome_of(partial(interpret, verified, machine=machine), place.start(given), place)

    for given in case.inputs:
        wanted = outcome(given)
        for number, code in enumerate(stage.code for stage in stages(verified, (), Promises())):
            differing = {*outcome(given, partial(CodeState, code)).differing(wanted)} - {"stack"}
            assert not differing, f"stage {number}"  # slots of the frame are values
