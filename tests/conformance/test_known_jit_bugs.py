"""Mistakes that other eBPF JITs made, each as a test on every engine.

Programs are written on one line, with `; ` between instructions. All of them run in one
child: several of these mistakes end a process (SIGFPE, SIGSEGV).
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from functools import cache

import pytest
from support.machines import ENGINES, Job, Outcome, run_jobs, run_python

from ebpfjit.assembler import assemble

# What is compiled for all of its tests is compiled once.
pytestmark = pytest.mark.xdist_group("known bugs")

MIN64, MIN32, MAX64 = 1 << 63, 1 << 31, (1 << 64) - 1


@dataclass(frozen=True)
class Bug:
    """A program, the r0 it must give, and the memory it must leave."""

    name: str
    asm: str
    r0: int
    memory: bytes | None = None
    after: bytes | None = None

    @property
    def code(self) -> bytes:
        return lines(self.asm)


def lines(asm: str) -> bytes:
    return assemble(asm.replace("; ", "\n"))


def bugs(mistake: str, *found: tuple[str, str, int]) -> list[Bug]:
    return [Bug(f"{mistake}: {name}", asm, r0) for name, asm, r0 in found]


def in_turn(registers: tuple[int, ...], asm: str, r0: int, name: str) -> list[tuple[str, str, int]]:
    """Return the program with `D` and `S` as every two of `registers`, where they differ."""
    return [
        (f"{name}, r{d} and r{s}", asm.replace("D", str(d)).replace("S", str(s)), r0)
        for d in registers
        for s in registers
        if d != s
    ]


# uBPF 2016-2023, rbpf: a 32-bit comparison or division looked at all 64 bits of the register.
ZERO_TESTS = bugs(
    "a 32-bit zero test that looks at 64 bits",
    ("division", "r0 = 7; r1 = 0xffffffff00000000 ll; w0 /= w1; exit", 0),
    ("modulo", "r0 = 0xffffffff00000007 ll; r1 = 0xffffffff00000000 ll; w0 %= w1; exit", 7),
    ("signed division", "r0 = -7; r1 = 0xffffffff00000000 ll; w0 s/= w1; exit", 0),
    ("signed modulo", "r0 = -7; r1 = 0xffffffff00000000 ll; w0 s%= w1; exit", 0xFFFFFFF9),
    ("a 64-bit divisor with a zero low half", "r0 = 0x700000000 ll; r1 = 0x100000000 ll; r0 /= r1; exit", 7),
    ("jeq32", "r1 = 0xffffffff00000000 ll; r0 = 1; if w1 == 0 goto +1; r0 = 2; exit", 1),
    ("jne32", "r1 = 0xffffffff00000000 ll; r0 = 1; if w1 != 0 goto +1; r0 = 2; exit", 2),
    ("jset32", "r1 = 0xffffffff00000000 ll; r0 = 1; if w1 & -1 goto +1; r0 = 2; exit", 2),
    (
        "jset32, upper halves in common",
        "r1 = -1; r2 = 0xffffffff00000000 ll; r0 = 1; if w1 & w2 goto +1; r0 = 2; exit",
        2,
    ),
)  # fmt: skip

IMMEDIATES = bugs(
    "an immediate zero-extended where it is signed",
    ("jeq", "r1 = -1; r0 = 1; if r1 == -1 goto +1; r0 = 2; exit", 1),
    ("jeq, zero-extended would be equal", "r1 = 0xffffffff ll; r0 = 1; if r1 == -1 goto +1; r0 = 2; exit", 2),
    ("jne", "r1 = 0xffffffff ll; r0 = 1; if r1 != -1 goto +1; r0 = 2; exit", 1),
    ("jgt", "r1 = 0x100000000 ll; r0 = 1; if r1 > -1 goto +1; r0 = 2; exit", 2),
    ("jlt", "r1 = 0x100000000 ll; r0 = 1; if r1 < -1 goto +1; r0 = 2; exit", 1),
    ("jge", "r1 = 0x90000000 ll; r0 = 1; if r1 >= -0x80000000 goto +1; r0 = 2; exit", 2),
    ("jsgt", "r1 = 0; r0 = 1; if r1 s> -1 goto +1; r0 = 2; exit", 1),
    ("jset", "r1 = 0x100000000 ll; r0 = 1; if r1 & -0x80000000 goto +1; r0 = 2; exit", 1),
    ("jset, small", "r1 = 0x100000000 ll; r0 = 1; if r1 & -1 goto +1; r0 = 2; exit", 1),
    ("store of a double word", "*(u64 *)(r10 - 8) = -2; r0 = *(u64 *)(r10 - 8); exit", MAX64 - 1),
    ("store of a word, no more", "*(u32 *)(r10 - 8) = -2; r0 = *(u64 *)(r10 - 8); exit", 0xFFFFFFFE),
    ("move", "r0 = -0x80000000; exit", 0xFFFFFFFF80000000),
    ("32-bit move", "w0 = -0x80000000; exit", 0x80000000),
    ("or", "r0 = 0; r0 |= -1; exit", MAX64),
    ("and", "r0 = -1; r0 &= -16; exit", MAX64 - 15),
    ("xor", "r0 = 0; r0 ^= -1; exit", MAX64),
    ("multiplication", "r0 = 3; r0 *= -1; exit", MAX64 - 2),
    ("division", "r0 = -1; r0 /= -1; exit", 1),
    ("modulo", "r0 = 5; r0 %= -1; exit", 5),
)  # fmt: skip

IMM_ZERO = bugs(
    "register or immediate decided by imm == 0",
    ("add", "r0 = 5; r1 = 7; r0 += 0; exit", 5),
    ("mov", "r0 = 5; r0 = 0; exit", 0),
    ("mov32", "r0 = -1; w0 = 0; exit", 0),
    ("and", "r0 = -1; r0 &= 0; exit", 0),
    ("mul", "r0 = 9; r0 *= 0; exit", 0),
    ("lsh", "r0 = 9; r0 <<= 0; exit", 9),
    ("arsh32", "r0 = 0xffffffff80000000 ll; w0 s>>= 0; exit", 0x80000000),
    ("div", "r0 = 9; r0 /= 0; exit", 0),
    ("mod", "r0 = 9; r0 %= 0; exit", 9),
    ("mod32", "r0 = 0x900000009 ll; w0 %= 0; exit", 9),
    ("jeq", "r0 = 0; if r0 == 0 goto +1; r0 = 7; exit", 0),
    ("jset never jumps", "r1 = -1; r0 = 1; if r1 & 0 goto +1; r0 = 2; exit", 2),
    ("stdw", "*(u64 *)(r10 - 8) = -1; *(u64 *)(r10 - 8) = 0; r0 = *(u64 *)(r10 - 8); exit", 0),
    ("ldxb with offset 0", "*(u8 *)(r10 - 1) = 7; r1 = r10; r1 += -1; r0 = *(u8 *)(r1 + 0); exit", 7),
)  # fmt: skip

COUNT_REGISTERS = (0, 1, 2, 3, 4, 5, 6)
ARSH = "rD = -4096; rS = 68; rD s>>= rS; rD += rS; r0 = rD; exit"
SHIFTS = bugs(
    "shifts where the count is in rcx, or is the destination",
    *in_turn(COUNT_REGISTERS, "rD = 1; rS = 12; rD <<= rS; rD += rS; r0 = rD; exit", 4096 + 12, "lsh"),
    *in_turn(COUNT_REGISTERS, "rD = -4096; rS = 4; wD >>= wS; rD += rS; r0 = rD; exit", 0x0FFFFF04, "rsh32"),
    *in_turn(COUNT_REGISTERS, ARSH, -188 & MAX64, "arsh"),
    *((f"r{r} by itself", f"r{r} = 3; r{r} <<= r{r}; r0 = r{r}; exit", 24) for r in COUNT_REGISTERS),
    *((f"w{r} by itself", f"r{r} = -1; w{r} >>= w{r}; r0 = r{r}; exit", 1) for r in COUNT_REGISTERS),
    *(
        (f"r4 survives a shift of r{r}", f"r4 = 0x12345; r{r} = 2; r{r} <<= r5; r0 = r4; exit", 0x12345)
        for r in (0, 1, 2, 3, 6)
    ),
)  # fmt: skip

DIVISION_REGISTERS = (0, 1, 2, 3, 4, 6)
SDIV = "rD = -100; rS = 7; rD s/= rS; rD *= 10; rD += rS; r0 = rD; exit"
SMOD32 = "rD = -100; rS = 7; wD s%= wS; wD *= 10; wD += wS; r0 = rD; exit"
DIVISIONS = bugs(
    "division where operands are in rax or rdx, or the same",
    *in_turn(DIVISION_REGISTERS, "rD = 100; rS = 7; rD /= rS; rD *= 10; rD += rS; r0 = rD; exit", 147, "div"),
    *in_turn(DIVISION_REGISTERS, "rD = 100; rS = 7; rD %= rS; rD *= 10; rD += rS; r0 = rD; exit", 27, "mod"),
    *in_turn(DIVISION_REGISTERS, SDIV, -133 & MAX64, "sdiv"),
    *in_turn(DIVISION_REGISTERS, SMOD32, 0xFFFFFFF3, "smod32"),
    *((f"r{r} by itself", f"r{r} = 9; r{r} /= r{r}; r0 = r{r}; exit", 1) for r in DIVISION_REGISTERS),
    *((f"r{r} modulo itself", f"r{r} = 9; r{r} %= r{r}; r0 = r{r}; exit", 0) for r in DIVISION_REGISTERS),
    *((f"r{r}, zero, by itself", f"r{r} = 0; r{r} s/= r{r}; r0 = r{r}; exit", 0) for r in DIVISION_REGISTERS),
    *(
        (
            f"r{kept} survives r{d} {op} r5",
            f"r{kept} = 0x1122334455667788 ll; r{d} = -100; r5 = 7; r{d} {op} r5; r0 = r{kept}; exit",
            0x1122334455667788,
        )
        for op in ("/=", "%=", "s/=", "s%=")
        for kept in (0, 3, 4)
        for d in (0, 1, 3, 4)
        if kept != d
    ),
)  # fmt: skip

OVERFLOWS = bugs(
    "INT_MIN / -1 raises SIGFPE",
    ("sdiv", f"r0 = {MIN64} ll; r1 = -1; r0 s/= r1; exit", MIN64),
    ("sdiv imm", f"r0 = {MIN64} ll; r0 s/= -1; exit", MIN64),
    ("smod", f"r0 = {MIN64} ll; r1 = -1; r0 s%= r1; exit", 0),
    ("smod imm", f"r0 = {MIN64} ll; r0 s%= -1; exit", 0),
    ("sdiv32", f"r0 = {MIN32} ll; r1 = 0xffffffff ll; w0 s/= w1; exit", MIN32),
    ("sdiv32 imm", f"r0 = {MIN32} ll; w0 s/= -1; exit", MIN32),
    ("smod32", f"r0 = {MIN32} ll; r1 = -1; w0 s%= w1; exit", 0),
    ("smod32 imm", f"r0 = {MIN32} ll; w0 s%= -1; exit", 0),
    ("sdiv32 with other upper halves", "r0 = 0x1180000000 ll; r1 = 0x22ffffffff ll; w0 s/= w1; exit", MIN32),
    ("a large unsigned quotient", f"r0 = {MAX64} ll; r1 = 1; r0 /= r1; exit", MAX64),
    ("unsigned, by -1", f"r0 = {MIN64} ll; r1 = -1; r0 /= r1; exit", 0),
    ("unsigned, garbage in r3", f"r3 = -1; r0 = {MAX64} ll; r1 = 1; r0 /= r1; exit", MAX64),
)  # fmt: skip

BYTE_ORDER = bugs(
    "le16 and le32 do not truncate",
    ("le16", "r0 = 0x1122334455667788 ll; r0 = le16 r0; exit", 0x7788),
    ("le32", "r0 = 0x1122334455667788 ll; r0 = le32 r0; exit", 0x55667788),
    ("le64", "r0 = 0x1122334455667788 ll; r0 = le64 r0; exit", 0x1122334455667788),
    ("be16 clears above", "r0 = 0x1122334455667788 ll; r0 = be16 r0; exit", 0x8877),
    ("be32 clears above", "r0 = 0x1122334455667788 ll; r0 = be32 r0; exit", 0x88776655),
    ("bswap16 clears above", "r6 = -256; r6 = bswap16 r6; r0 = r6; exit", 0x00FF),
    *((f"le16 of r{r}", f"r{r} = -2; r{r} = le16 r{r}; r0 = r{r}; exit", 0xFFFE) for r in range(10)),
    *((f"le32 of r{r}", f"r{r} = -2; r{r} = le32 r{r}; r0 = r{r}; exit", 0xFFFFFFFE) for r in range(10)),
)  # fmt: skip


FETCHES = {"add": ("+", 17), "or": ("|", 13), "and": ("&", 4), "xor": ("^", 9)}
"""Each operation, its operator, and what it makes of 12 and 5."""

#  what                                program, on a double word in memory that holds 12      r0  memory after
ON_TWELVE: list[tuple[str, str, int, int]] = [
    ("xchg, src is r0", "r0 = 5; r0 = xchg_64(r1 + 0, r0); exit", 12, 5),
    ("xchg, base is r0", "r0 = r1; r2 = 5; r2 = xchg_64(r0 + 0, r2); r0 = r2; exit", 12, 5),
    ("cmpxchg, src is r0, equal", "r0 = 12; r0 = cmpxchg_64(r1 + 0, r0, r0); exit", 12, 12),
    ("cmpxchg, src is r0, different", "r0 = 5; r0 = cmpxchg_64(r1 + 0, r0, r0); exit", 12, 12),
    ("cmpxchg, equal", "r0 = 12; r2 = 5; r0 = cmpxchg_64(r1 + 0, r0, r2); exit", 12, 5),
    ("cmpxchg, different", "r0 = 11; r2 = 5; r0 = cmpxchg_64(r1 + 0, r0, r2); exit", 12, 12),
    ("cmpxchg, base is r0", "r0 = r1; r2 = 5; r0 = cmpxchg_64(r0 + 0, r0, r2); exit", 12, 12),
    (
        "cmpxchg32 clears the upper half of r0, equal",
        "r0 = 0xff0000000c ll; r2 = 5; w0 = cmpxchg32_32(r1 + 0, w0, w2); exit",
        12,
        5,
    ),
    (
        "cmpxchg32 clears the upper half of r0, different",
        "r0 = 0xff00000005 ll; r2 = 5; w0 = cmpxchg32_32(r1 + 0, w0, w2); exit",
        12,
        12,
    ),
]
for _op, (_operator, _new) in FETCHES.items():
    _fetch = f"atomic_fetch_{_op}"
    ON_TWELVE += [
        (f"{_op}, src is r0", f"r0 = 5; lock *(u64 *)(r1 + 0) {_operator}= r0; exit", 5, _new),
        (f"fetch {_op}, src is r0", f"r0 = 5; r0 = {_fetch}((u64 *)(r1 + 0), r0); exit", 12, _new),
        (f"fetch {_op}, r0 is kept", f"r0 = 77; r2 = 5; r2 = {_fetch}((u64 *)(r1 + 0), r2); exit", 77, _new),
        (
            f"fetch {_op}, base is r0",
            f"r0 = r1; r2 = 5; r2 = {_fetch}((u64 *)(r0 + 0), r2); r0 = r2; exit",
            12,
            _new,
        ),
        (
            f"fetch {_op}, 32 bits, src is r0",
            f"r0 = 0xff00000005 ll; w0 = {_fetch}((u32 *)(r1 + 0), w0); exit",
            12,
            _new,
        ),
    ]
ATOMICS = [
    Bug(
        f"cmpxchg or fetch where an operand is r0: {name}",
        asm,
        r0,
        (12).to_bytes(8, "little"),
        after.to_bytes(8, "little"),
    )
    for name, asm, r0, after in ON_TWELVE
]

JUMPS = bugs(
    "a jump to the first instruction",
    ("conditional", "top: r0 += 1; if r0 != 3 goto top; exit", 3),
    ("conditional, 32 bits", "top: w0 += 1; if w0 != 3 goto top; exit", 3),
    ("unconditional", "top: r0 += 1; if r0 == 3 goto +1; goto top; exit", 3),
    ("long", "top: r0 += 1; if r0 == 3 goto +1; gotol top; exit", 3),
    ("r10 and r1 are not set up anew", "top: r0 += 1; r1 += 10; if r0 != 3 goto top; r0 = r1; exit", 30),
    (
        "the stack stays as it is",
        "top: r6 = *(u64 *)(r10 - 8); r6 += 1; *(u64 *)(r10 - 8) = r6; "
        "r0 += 1; if r0 < 4 goto top; r0 = r6; exit",
        4,
    ),
    ("a jump over the last instruction's neighbour", "goto +1; exit; r0 = 4; goto -3", 4),
)  # fmt: skip

# aligned_helper.c: r1 + r3 + 2 * (r2 + r4) + 4 * r5
ARGUMENTS = "r1 = 1; r2 = 10; r3 = 100; r4 = 1000; r5 = 10000; "
ALIGNED = 1 + 100 + 2 * (10 + 1000) + 4 * 10000


def nested(depth: int) -> str:
    """A program that calls the helper in a frame `depth` calls down, and again on the way back."""
    functions = [f"f{n}: call f{n + 1}; r6 = r0; {ARGUMENTS}call 9; r0 += r6; exit" for n in range(depth)]
    return "; ".join([*functions, f"f{depth}: {ARGUMENTS}call 9; exit"])


ALIGNMENT = bugs(
    "the stack is not aligned to 16 bytes at a helper call",
    *((f"{depth} local calls down", nested(depth), ALIGNED * (depth + 1)) for depth in range(8)),
    ("through callx", f"r3 = f ll; callx r3; r0 += 1; exit; f: {ARGUMENTS}call 9; exit", ALIGNED + 1),
    ("twice", f"{ARGUMENTS}call 9; r6 = r0; {ARGUMENTS}call 9; r0 += r6; exit", 2 * ALIGNED),
    ("in a branch", f"if r1 != 0 goto +7; {ARGUMENTS}call 9; r0 += 1; exit", ALIGNED + 1),
    (
        "after a division and a shift",
        f"r0 = 9; r4 = 2; r0 /= r4; r0 <<= r4; r6 = r0; {ARGUMENTS}call 9; r0 += r6; exit",
        ALIGNED + 16,
    ),
)  # fmt: skip

SET = "r6 = 6; r7 = 70; r8 = 800; r9 = 9000; "
SPOIL = "r6 = -1; r7 = -1; r8 = -1; r9 = -1; r0 = 0; exit"
SUM = "r0 += r6; r0 += r7; r0 += r8; r0 += r9; exit"
SAVED = bugs(
    "r6 to r9 across local calls",
    ("one call", f"{SET}call f; {SUM}; f: {SPOIL}", 9876),
    ("two calls", f"{SET}call f; call f; {SUM}; f: {SPOIL}", 9876),
    ("calls in calls", f"{SET}call f; {SUM}; f: {SET.replace(' = ', ' = 1')}call g; exit; g: {SPOIL}", 9876),
    ("callx", f"{SET}r3 = f ll; callx r3; {SUM}; f: {SPOIL}", 9876),
    ("the callee sees them", f"{SET}call f; exit; f: r0 = 0; {SUM}", 9876),
    (
        "r10 too",
        f"*(u64 *)(r10 - 8) = 5; call f; r0 = *(u64 *)(r10 - 8); exit; f: *(u64 *)(r10 - 8) = 6; {SPOIL}",
        5,
    ),
    ("a helper in the callee", f"{SET}call f; r0 = 0; {SUM}; f: call 5; {SPOIL}", 9876),
    (
        "recursion",
        "r6 = 5; r1 = 3; call f; r0 += r6; exit; "
        "f: r6 = r1; r0 = 0; if r1 == 0 goto +3; r1 -= 1; call f; r0 += r6; exit",
        11,
    ),
)  # fmt: skip

ALL = [
    *ZERO_TESTS, *IMMEDIATES, *IMM_ZERO, *SHIFTS, *DIVISIONS, *OVERFLOWS, *BYTE_ORDER,
    *ATOMICS, *JUMPS, *ALIGNMENT, *SAVED,
]  # fmt: skip
MISTAKES = list(dict.fromkeys(bug.name.partition(":")[0] for bug in ALL))


@cache
def outcomes() -> dict[str, dict[str, Outcome]]:
    found = run_jobs(Job(bug.name, bug.code, (bug.memory,)) for bug in ALL)
    return {
        bug.name: {engine: runs[0] for engine, runs in by_engine.items()}
        for bug, by_engine in zip(ALL, found, strict=True)
    }


def complaint(bug: Bug, outcome: Outcome) -> str:
    if outcome.error or outcome.value != bug.r0:
        return f"got {outcome}, expected r0 = {bug.r0:#x}"
    if bug.after is not None and outcome.memory != bug.after:
        return f"memory is {outcome.memory.hex(' ')}, expected {bug.after.hex(' ')}"
    return ""


@pytest.mark.parametrize("mistake", MISTAKES)
def test_known_jit_bug(mistake: str) -> None:
    of_this_kind = [bug for bug in ALL if bug.name.startswith(f"{mistake}:")]
    complaints = [
        f"{bug.name}: {engine}: {text}"
        for bug in of_this_kind
        for engine, outcome in outcomes()[bug.name].items()
        if (text := complaint(bug, outcome))
    ]
    assert not complaints, "\n".join(complaints)
    assert all(set(outcomes()[bug.name]) == set(ENGINES) for bug in of_this_kind)


def test_names_are_unique() -> None:
    assert len({bug.name for bug in ALL}) == len(ALL)


MISALIGNED = """
from ebpfjit.jit.code_buffer import CodeBuffer
from ebpfjit.runtime.execution import NativeHelper
from support.machines import ALIGNED_HELPER
helper = bytes.fromhex(ALIGNED_HELPER.read_text())
prelude = bytes.fromhex({prelude!r})
buffer = CodeBuffer(prelude + helper)
print(NativeHelper(buffer.address)(1, 10, 100, 1000, 10000))
"""


@pytest.mark.parametrize(
    ("prelude", "status"),
    [
        ("50 e8 02 00 00 00 59 c3", 0),  # push rax; call helper; pop rcx; ret
        ("e8 01 00 00 00 c3", -signal.SIGSEGV),  # call helper; ret: 8 bytes off
    ],
    ids=["aligned", "misaligned"],
)
def test_the_aligned_helper_notices(prelude: str, status: int) -> None:
    """What the helper tests rest on: where the stack is not aligned, the helper faults."""
    child = run_python(MISALIGNED.format(prelude=prelude))
    assert child.returncode == status
    assert child.stdout.split() == ([str(ALIGNED).encode()] if status == 0 else [])


def test_a_crash_is_reported_and_the_rest_still_runs() -> None:
    """The child is what these tests trust: a store through a wild pointer, unchecked, kills it."""
    wild = lines("r1 = 8; *(u64 *)(r1 + 0) = 1; r0 = 3; exit")
    fine = lines("r0 = 4; exit")
    engines = ("checked", "unchecked", "unchecked-plain", "interpreter")
    before, crash, after = run_jobs(
        [Job("fine", fine), Job("wild", wild, engines=engines), Job("fine", fine)]
    )
    assert [runs[0].error for runs in crash.values()] == ["MemoryFault", "crash", "crash", "MemoryFault"]
    assert crash["unchecked"][0].message == "SIGSEGV"
    for result in (before, after):
        assert {engine: runs[0].value for engine, runs in result.items()} == dict.fromkeys(ENGINES, 4)
