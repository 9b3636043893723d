"""Code: how programs become values in blocks, what holds of them, their text, the interpreter running it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.vectors import all_vectors

from ebpfjit.analysis.verified import Verified, prepare
from ebpfjit.assembler import assemble
from ebpfjit.difftest.case import Case, Input
from ebpfjit.difftest.engines import on_interpreter, on_optimized
from ebpfjit.difftest.optimized import CodeState, WrongCode
from ebpfjit.elf.loader import load
from ebpfjit.errors import EbpfError, OptimizationError
from ebpfjit.interpreter import interpret
from ebpfjit.optimizer.build import build
from ebpfjit.optimizer.check import check
from ebpfjit.optimizer.code import BOUND, Code
from ebpfjit.optimizer.text import from_text, to_text
from ebpfjit.program import Program
from ebpfjit.runtime.execution import Execution
from ebpfjit.runtime.memory import Region
from tests.support.whole import WHOLE, part

KERNELS = sorted((Path(__file__).parents[2] / "ebpfjit" / "bench" / "kernels").rglob("*.o"))


def verified(source: str) -> Verified:
    return prepare(Program.from_bytes(assemble(source)))


LOOP = """
    r3 = 0
    r2 += r1
    if r1 == r2 goto out
    loop: r4 = *(u8 *)(r1 + 0)
    r3 += r4
    r1 += 1
    if r1 != r2 goto loop
    out: r0 = r3
    exit
"""
LOOP_AS_CODE = """\
entry 0: b0 (r1, r2)
b0 pc 0 (v0, v1):
  pay 3 else leave 0 (r1 = v0, r2 = v1)
  v2 = 0
  v3 = v1 + v0 ; 1
  if v0 == v3 goto b2(v2) else b1(v0, v2) ; 2
b1 pc 3 (v4, v5):
  pay 4 else leave 3 (r1 = v4, r2 = v3, r3 = v5)
  bound load v4 + 0..1 else leave 3 (r1 = v4, r2 = v3, r3 = v5) refund 4
  v6 = *(u8 *)(v4 + 0)
  v7 = v5 + v6 ; 4
  v8 = v4 + 1 ; 5
  if v8 != v3 goto b1(v8, v7) else b2(v7) ; 6
b2 pc 7 (v9):
  pay 2 else leave 7 (r3 = v9)
  exit v9 ; 8
"""


def test_a_loop() -> None:
    """Each block has what it reads and what differs by the way to it; its exits have what is read later."""
    program = verified(LOOP)
    assert to_text(build(program)) == LOOP_AS_CODE
    assert from_text(LOOP_AS_CODE, program) == build(program)


EVERYTHING = """
    r6 = r1
    w7 = w6
    r7 = (s8)r7
    r7 = be16 r7
    r7 = -r7
    r8 = 0x123456789abcdef0 ll
    r7 s>>= r8
    *(u32 *)(r10 - 4) = r7
    *(u16 *)(r10 - 8) = -3
    lock *(u64 *)(r10 - 16) += r7
    r7 = atomic_fetch_or((u64 *)(r10 - 16), r7)
    w7 = xchg32_32(r10 - 16, w7)
    r0 = cmpxchg_64(r10 - 16, r0, r8)
    r2 = load_acquire((u64 *)(r10 - 16))
    store_release((u8 *)(r10 - 1), r2)
    r3 = *(s32 *)(r10 - 4)
    r4 = 3
    r5 = 4
    call 7
    r0 = *(u16 *)skb[12]
    r0 = *(u8 *)skb[r6 + 3]
    may_goto +1
    if w0 & 5 goto +1
    call function
    r1 = function ll
    callx r1
    exit
    function: if r1 s< r2 goto -2
    exit
"""


@pytest.mark.parametrize(
    ("source", "leaves"),
    [
        # the address is made again, of what it is made of
        ("r4 = r1\n r4 += r2\n r0 = *(u8 *)(r4 + 0)", "leave 1 (r1 = v0, r2 = v1)"),
        ("r4 = r2\n r4 <<= 3\n r4 += r1\n *(u64 *)(r4 + 8) = 7", "leave 1 (r0 = v2, r1 = v0, r2 = v1)"),
        ("r1 += r2\n r1 += 8\n r0 = *(u8 *)(r1 + 0)", "leave 1 (r1 = v0, r2 = v1)"),
        ("r2 <<= 3\n r4 = r1\n r4 += r2\n r0 = *(u8 *)(r4 + 0)", "leave 1 (r1 = v0, r2 = v1)"),
        ("r4 = r1\n r4 += r2\n r4 += r4\n r0 = *(u8 *)(r4 + 0)\n r0 += r4", "leave 1 (r1 = v0, r2 = v1)"),
        # but for what is read behind the access,
        ("r2 <<= 3\n r4 = r1\n r4 += r2\n r0 = *(u8 *)(r4 + 0)\n r0 += r2", "leave 2 (r1 = v0, r2 = v3)"),
        # what was in a register before a copy,
        (
            "r4 = r1\n r5 = 7\n r4 += r5\n r5 = r2\n r5 += r4\n r0 = *(u8 *)(r5 + 0)",
            "leave 4 (r2 = v1, r4 = v4)",
        ),
        # what an access does not do by itself,
        ("r2 &= 7\n r1 += r2\n r0 = *(u8 *)(r1 + 0)", "leave 2 (r1 = v0, r2 = v3)"),
        ("w1 += w2\n r0 = *(u8 *)(r1 + 0)", "leave 2 (r1 = v3)"),
        # what is between them,
        ("r1 += r2\n r3 += 1\n r0 = *(u8 *)(r1 + 0)\n r0 += r3", "leave 3 (r1 = v4, r3 = v5)"),
        # and what is too far
        ("r1 += r2\n r1 += 1\n r1 += 1\n r1 += 1\n r1 += 1\n r0 = *(u8 *)(r1 + 0)", "leave 2 (r1 = v3)"),
    ],
)
def test_bounds_leave_to_where_their_address_is_made(source: str, leaves: str) -> None:
    text = to_text(build(verified(f"r0 = 1\n{source}\nexit")))
    assert re.findall(r"^  bound .* else (.*\))", text, re.MULTILINE) == [leaves]


def test_where_a_block_starts_what_is_paid_for_it_goes_back() -> None:
    text = to_text(build(verified("r1 += r2\n r0 = *(u8 *)(r1 + 0)\n exit")))
    assert "bound load v2 + 0..1 else leave 0 (r1 = v0, r2 = v1) refund 3" in text


def test_every_kind_of_operation_is_text_and_back() -> None:
    program = verified(EVERYTHING)
    for entries in ((), program.tested):
        code = build(program, entries)
        check(code)
        assert from_text(to_text(code), program) == code


@pytest.mark.parametrize(
    "text",
    ["b0 pc 0 ():\n  v1 = 5 +\n  exit v1", "b1 pc 0 ():\n  exit v1", "b0 pc 0 ():", "b0 pc 0 ():\n  goto 5"],
)
def test_what_is_no_code_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"v1 = 5|b1 pc 0|no end|'5'"):
        from_text(text, verified("exit"))


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_kernels_become_code_whose_text_is_that_code(path: Path) -> None:
    (only,) = load(path).programs.values()
    program = prepare(only)
    code = build(program)
    check(code)
    assert from_text(to_text(code), program) == code
    assert len(code.blocks) == len(program.blocks)  # clang leaves none that nothing comes to


def test_vectors_on_code() -> None:
    """All that the vectors say of instructions, faults and limits holds of Code as well."""
    complaints, run = [], 0
    for case in (case for vector in all_vectors() for case in part(vector.cases, 3)):
        if case.error in ("VerifierError", "LoadError") or case.references:
            continue
        one = Case(case.code, (Input(case.memory or b"", 2000, read_only=case.read_only),))
        try:
            ready = prepare(Program.from_bytes(case.code))
        except EbpfError:
            continue
        expected, got = (engine(one, ready)(one.inputs[0]) for engine in (on_interpreter, on_optimized))
        run += 1
        if expected.differing(got):
            complaints.append(f"{case.name}: {expected}, not {got}")
    assert not complaints, "\n".join(complaints[:20])
    assert run > (700 if WHOLE else 300)


def test_programs_that_analysis_does_not_know_are_refused() -> None:
    program = replace(verified(LOOP), kernel_loads=frozenset({3}))
    with pytest.raises(OptimizationError, match="analysis knows nothing"):
        build(program)


def changed(old: str, new: str) -> str:
    assert old in LOOP_AS_CODE
    return LOOP_AS_CODE.replace(old, new, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (changed("v6 = *(u8", "v5 = *(u8"), "defined twice"),
        (changed("v7 = v5 + v6", "v7 = v5 + v9"), "v9 is not defined before it"),
        (changed("b1(v8, v7)", "b1(v8)"), "b1 does not take 1 arguments"),
        (changed("goto b2(v2)", "goto b7(v2)"), "there is no b7"),
        (changed(" else leave 3 (r1 = v4, r2 = v3, r3 = v5) refund 4", ""), "an exit too many or too few"),
        (changed("(r1, r2)", "(r1)"), "b0 does not take 1 registers"),
        (changed("r3 = v9)", "r3 = v6)"), "v6 is not defined before it"),
    ],
)
def test_what_does_not_hold_is_said(text: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check(from_text(text, verified(LOOP)))


def without_bounds(code: Code) -> Code:
    blocks = tuple(
        replace(block, ops=tuple(op for op in block.ops if op.row is not BOUND)) for block in code.blocks
    )
    return replace(code, blocks=blocks)


def test_an_access_without_its_bound_is_wrong_code() -> None:
    """And no fault of the program's, which the interpreter would raise."""
    program = verified("r0 = *(u64 *)(r1 + 4096)\nexit")
    code = without_bounds(build(program))

    with pytest.raises(WrongCode, match="LDXDW at pc 0 without a bound that holds"):
        on_code(code, bytearray(8))


def on_code(code: Code, memory: bytearray) -> int:
    region = Region.of_buffer("mem", memory)
    execution = Execution((region.start, region.size), [region])
    return interpret(code.verified, execution, machine=lambda each: CodeState(code, each))


def test_a_wrong_operation_is_seen() -> None:
    program = verified(LOOP)
    wrong = from_text(changed("v7 = v5 + v6", "v7 = v5 - v6"), program)
    check(wrong)
    assert [on_code(code, bytearray(b"\1\2\3")) for code in (build(program), wrong)] == [6, 2**64 - 6]


def test_a_loop_that_is_entered_at_its_end_gets_a_copy_of_that() -> None:
    """Runs come in for pc 1, where the loop comes round; its header is pc 3, and nothing else leads there."""
    source = """
        goto head
        latch: r3 += 1
        if r3 == r2 goto out
        head: r0 += r3
        if r0 != 7 goto latch
        out: exit
    """
    program = verified(source)
    code = build(program, {1})
    check(code)
    entry, plain = code.entries[1].block, build(program)
    (copy,) = [way.block for way in code.blocks[entry].ways]
    assert code.blocks[copy].pc == 1
    assert len(code.blocks) == len(plain.blocks) + 2
    leading = [
        number for number, block in enumerate(code.blocks) if copy in [way.block for way in block.ways]
    ]
    assert leading == [entry]


def test_behind_an_instruction_that_nothing_runs_there_is_nothing() -> None:
    """A write to r10 does not end a basic block, and no run comes to what follows."""
    program = verified("r3 = 0\nif r0 == 0 goto +3\nr10 = 0\nr3 = 1\nif r1 == 0 goto +1\nr4 = r3\nexit")
    code = build(program, program.tested)
    check(code)
    assert "leave 2 (" in to_text(code)
    assert on_code(code, bytearray(8)) == 0
