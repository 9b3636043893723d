"""A few instructions in a row that the machine does as one or two.

Each matcher looks at the instructions from one on, all in one basic block and none touching memory,
and returns how many it replaces and by what; None where they are something else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ebpfjit.program import Instruction
from ebpfjit.translators.x86_64.target import Context, register

LONGEST = 5
STARTS = frozenset({"MOV64_X", "MOV32_X", "LSH64_K"})
"""The rows, by name, that a fusion may begin with."""
LEFT, RIGHT = "LSH", "RSH"


@dataclass(frozen=True, slots=True)
class Fusion:
    """`count` instructions that `emit` translates together."""

    count: int
    emit: Callable[[Context], None]


Window = Sequence[Instruction]
Matcher = Callable[[Window, Sequence[int]], Fusion | None]


def fuse(window: Window, live_after: Sequence[int]) -> Fusion | None:
    """Return the first fusion that the instructions of `window` begin with.

    `live_after` gives for each of them the registers (bit n: rn) that are read later.
    """
    for matcher in MATCHERS:
        fusion = matcher(window, live_after)
        if fusion is not None:
            return fusion
    return None


def _is(insn: Instruction, *operations: str) -> bool:
    return insn.row is not None and insn.row.operation in operations


def _is_x(insn: Instruction, *operations: str) -> bool:
    return _is(insn, *operations) and insn.row is not None and insn.row.uses_src


def _is_k(insn: Instruction, *operations: str) -> bool:
    return _is(insn, *operations) and insn.row is not None and not insn.row.uses_src


def _rotate(window: Window, live_after: Sequence[int]) -> Fusion | None:
    """Two shifts and an or of one value, the other half's register not read later.

    t = a;  t >>= n;  a <<= 64 - n;  a |= t            rol a, 64 - n
    t = a;  t >>= n;  d = a;  d <<= 64 - n;  d |= t    mov d, a;  rol d, 64 - n   (rorx d, a, n)
    """
    if len(window) < 4 or not _is_x(window[0], "MOV64", "MOV32"):
        return None
    bits = 64 if _is(window[0], "MOV64") else 32
    copy, first = window[0], window[1]
    other, value = copy.dst_reg, copy.src_reg
    has_copy = _is_x(window[2], f"MOV{bits}") and window[2].src_reg == value
    count = 5 if has_copy else 4
    if len(window) < count:
        return None
    second, join = window[count - 2], window[count - 1]
    target = window[2].dst_reg if has_copy else value
    shifts = {f"LSH{bits}", f"RSH{bits}"}
    if not (_is_k(first, *shifts) and _is_k(second, *shifts)) or _is(first, _operation(second)):
        return None
    if (first.dst_reg, second.dst_reg) != (other, target) or other in (value, target):
        return None
    joins = (f"OR{bits}", f"XOR{bits}", f"ADD{bits}")
    if not 0 < first.imm < bits or first.imm + second.imm != bits or not _is_x(join, *joins):
        return None
    result, dropped = join.dst_reg, join.src_reg
    if {result, dropped} != {other, target} or live_after[count - 1] >> dropped & 1:
        return None
    if not has_copy and result == other:
        return None  # the value's own register was shifted, and is not the result
    left = first.imm if _is(first, f"LSH{bits}") else second.imm

    def emit(cx: Context) -> None:
        to, source = register(result, bits), register(value, bits)
        if "bmi2" in cx.settings.features and result != value:
            cx.emit(f"rorx {to}, {source}, $imm", imm=bits - left)
            return
        if result != value:
            cx.emit(f"mov {to}, {source}")
        cx.emit(f"rol {to}, $imm", imm=left)

    return Fusion(count, emit)


def _operation(insn: Instruction) -> str:
    return insn.row.operation if insn.row is not None else ""


def _extend(window: Window, live_after: Sequence[int]) -> Fusion | None:
    """The low 32 bits, extended and scaled by shifting up and down again.

    d = s;  d <<= 32;  d >>= 30     mov d32, s32;     shl d, 2
    d = s;  d <<= 32;  d s>>= 30    movsxd d, s32;    shl d, 2
    """
    start = 1 if _is_x(window[0], "MOV64", "MOV32") else 0
    if len(window) < start + 2:
        return None
    up, down = window[start], window[start + 1]
    if not _is_k(up, "LSH64") or not _is_k(down, "RSH64", "ARSH64"):
        return None
    target = up.dst_reg
    if up.imm != 32 or not 0 < down.imm <= 32 or down.dst_reg != target:
        return None
    if start and window[0].dst_reg != target:
        return None
    source = window[0].src_reg if start else target
    signed = _is(down, "ARSH64")

    def emit(cx: Context) -> None:
        if signed:
            cx.emit(f"movsxd {register(target)}, {register(source, 32)}")
        else:
            cx.emit(f"mov {register(target, 32)}, {register(source, 32)}")
        if down.imm < 32:
            cx.emit(f"shl {register(target)}, $imm", imm=32 - down.imm)

    return Fusion(start + 2, emit)


def _sum(window: Window, live_after: Sequence[int]) -> Fusion | None:
    """A copy and an addition.

    d = s;  d += t     lea d, [s+t];     d = s;  d += 5     lea d, [s+5]
    """
    if len(window) < 2 or not _is_x(window[0], "MOV64") or not _is(window[1], "ADD64"):
        return None
    copy, addition = window[0], window[1]
    target, base = copy.dst_reg, register(copy.src_reg)
    if addition.dst_reg != target or target == copy.src_reg:
        return None
    if _is_k(addition, "ADD64"):
        return Fusion(2, lambda cx: cx.emit(f"lea {register(target)}, [{base}+$offset]", offset=addition.imm))
    if addition.src_reg == target:
        return None
    return Fusion(2, lambda cx: cx.emit(f"lea {register(target)}, [{base}+{register(addition.src_reg)}]"))


MATCHERS: tuple[Matcher, ...] = (_rotate, _extend, _sum)
