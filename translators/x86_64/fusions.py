"""A few instructions in a row that the machine does as one or two.

Each matcher looks at the instructions from one on, all in one basic block, of which only the last may
touch memory (but for those in `operands`), and returns how many it replaces and by what; None where
they are something else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ebpfjit.isa.spec import Kind
from ebpfjit.isa.table import TABLE
from ebpfjit.program import Instruction
from ebpfjit.translators import registry
from ebpfjit.translators.x86_64 import alu, operands
from ebpfjit.translators.x86_64.fusion import Fusion, Matcher, Window
from ebpfjit.translators.x86_64.target import NAME, Address, Context, register

LONGEST = 6
_ACCESSES = [row.name for row in TABLE if row.kind in (Kind.LOAD, Kind.STORE) and not row.is_ordered]

LEFT, RIGHT = "LSH", "RSH"


def fuse(window: Window, live_after: Sequence[int]) -> Fusion | None:
    """Return the first fusion that the instructions of `window`, two or more, begin with.

    `live_after` gives for each of them the registers (bit n: rn) that are read later.
    """
    first, second = window[0].row, window[1].row
    if first is not None and second is not None:
        for matcher in BEGINNINGS.get((first.name, second.name), ()):
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


@dataclass(frozen=True, slots=True)
class _Sum:
    """What the machine adds up in an address: base + index * scale + offset; registers by number."""

    base: int | None
    index: int | None = None
    scale: int = 1
    offset: int = 0

    @property
    def text(self) -> str:
        """The registers, as they stand in an address."""
        parts = [] if self.base is None else [register(self.base)]
        if self.index is not None:
            parts.append(register(self.index) + (f"*{self.scale}" if self.scale > 1 else ""))
        return "+".join(parts)

    @property
    def registers(self) -> set[int]:
        """The registers that it reads."""
        return {number for number in (self.base, self.index) if number is not None}

    def plus(self, number: int) -> _Sum | None:
        """Add a register."""
        if self.base is None:
            return replace(self, base=number)
        return replace(self, index=number) if self.index is None else None

    def plus_scaled(self, number: int, scale: int) -> _Sum | None:
        """Add a register times 2, 4 or 8."""
        return replace(self, index=number, scale=scale) if self.index is None else None

    def shifted(self, by: int) -> _Sum | None:
        """Multiply by 2, 4 or 8."""
        if self.base is None or self.index is not None or self.offset or by > MOST_SHIFT:
            return None
        return _Sum(None, self.base, 1 << by)


MOST_SHIFT = 3
LARGEST_OFFSET = 1 << 30
LARGEST_SUM = 1 << 31
"""What a displacement holds, either way; with that of an access behind it no more than the other."""


def _sum(window: Window, live_after: Sequence[int]) -> Fusion | None:
    """Copies, additions and small shifts, and the access at the place where they lead.

    d = s;  d += t                      lea d, [s+t]
    d = s;  d += 5                      lea d, [s+5]
    i <<= 2;  d = s;  d += i            lea d, [s+i*4]        (i is not read later)
    d = s;  d += i;  x = *(d + 8)       mov x, [s+i+8]        (d is not read later)
    d += i;  x = *(d + 8)               mov x, [d+i+8]
    """
    first = window[0]
    scaled: dict[int, int] = {}
    total: _Sum | None = None
    start, target = 0, first.dst_reg
    if _is_k(first, "LSH64") and 0 < first.imm <= MOST_SHIFT and len(window) > 1:
        second = window[1]
        if _is_x(second, "MOV64") and second.dst_reg != target and second.src_reg != target:
            scaled[target] = 1 << first.imm
            total, start, target = _Sum(second.src_reg), 2, second.dst_reg
        else:
            total, start = _Sum(None, target, 1 << first.imm), 1
    elif _is_x(first, "MOV64") and first.src_reg != target:
        total, start = _Sum(first.src_reg), 1
    elif _is_x(first, "ADD64") and first.src_reg != target:
        total, start = _Sum(target, first.src_reg), 1
    if total is None:
        return None
    count = best = start
    best_total = total if not scaled else None
    for insn in window[start:]:
        if insn.dst_reg != target:
            break
        grown = _grown(total, insn, target, scaled)
        if grown is None:
            break
        total, count = grown, count + 1
        consumed = not scaled or total.scale > 1
        if consumed and not (scaled and live_after[count - 1] >> next(iter(scaled)) & 1):
            best, best_total = count, total
    if best_total is None or best_total.base is None:
        return None
    access = window[best] if best < len(window) else None
    if access is not None and _is_access_through(access, target):
        is_load = access.row is not None and access.row.kind is Kind.LOAD
        dead = not live_after[best] >> target & 1 or (is_load and access.dst_reg == target)
        offset = best_total.offset + access.offset
        if dead and (is_load or access.src_reg != target) and abs(offset) < LARGEST_OFFSET:
            return Fusion(best + 1, _access(best_total))
    if best < 2:
        return None
    return Fusion(best, lambda cx: _emit_lea(cx, target, best_total))


def _grown(total: _Sum, insn: Instruction, target: int, scaled: dict[int, int]) -> _Sum | None:
    """Return the sum after one more instruction on `target`, None where it is no sum any more."""
    if _is_k(insn, "ADD64"):
        offset = total.offset + insn.imm
        return replace(total, offset=offset) if abs(offset) < LARGEST_SUM else None
    if _is_k(insn, "LSH64") and insn.imm > 0:
        return total.shifted(insn.imm)
    if not _is_x(insn, "ADD64") or insn.src_reg == target:
        return None
    if insn.src_reg in scaled:
        return total.plus_scaled(insn.src_reg, scaled[insn.src_reg])
    return total.plus(insn.src_reg)


def _emit_lea(cx: Context, target: int, total: _Sum) -> None:
    if not total.offset:
        cx.emit(f"lea {register(target)}, [{total.text}]")
    else:
        cx.emit(f"lea {register(target)}, [{total.text}+$offset]", offset=total.offset)


def _is_access_through(insn: Instruction, base: int) -> bool:
    """True for an ordinary load or store whose base is a register."""
    row = insn.row
    if row is None or row.is_ordered:
        return False
    return (row.kind is Kind.LOAD and insn.src_reg == base) or (
        row.kind is Kind.STORE and insn.dst_reg == base
    )


def _access(total: _Sum) -> Callable[[Context], None]:
    def emit(cx: Context) -> None:
        cx.address = Address(total.text, total.offset)
        registry.translator_of(NAME, cx.row)(cx.insn, cx)
        cx.address = None

    return emit


def _product(window: Window, live_after: Sequence[int]) -> Fusion | None:
    """A copy and a multiplication.

    d = s;  d *= 7      imul d, s, 7
    """
    if len(window) < 2:
        return None
    copy, times = window[:2]
    bits = 64 if _is_x(copy, "MOV64") else 32
    if not (_is_x(copy, f"MOV{bits}") and _is_k(times, f"MUL{bits}") and times.dst_reg == copy.dst_reg):
        return None
    text = f"imul {register(copy.dst_reg, bits)}, {register(copy.src_reg, bits)}, $imm"
    return Fusion(2, lambda cx: cx.emit(text, imm=times.imm))


#    matcher  first      second, by the names of their rows
_SECONDS: tuple[tuple[Matcher, str, frozenset[str]], ...] = (
    (_rotate, "MOV64_X", frozenset({"LSH64_K", "RSH64_K"})),
    (_rotate, "MOV32_X", frozenset({"LSH32_K", "RSH32_K"})),
    (_extend, "MOV64_X", frozenset({"LSH64_K"})),
    (_extend, "MOV32_X", frozenset({"LSH64_K"})),
    (_extend, "LSH64_K", frozenset({"RSH64_K", "ARSH64_K"})),
    (_sum, "MOV64_X", frozenset({"LSH64_K", "ADD64_X", "ADD64_K", *_ACCESSES})),
    (_sum, "LSH64_K", frozenset({"MOV64_X", "ADD64_X", "ADD64_K", "LSH64_K"})),
    (_sum, "ADD64_X", frozenset({"ADD64_K", *_ACCESSES})),
    (_product, "MOV64_X", frozenset({"MUL64_K"})),
    (_product, "MOV32_X", frozenset({"MUL32_K"})),
    *((operands.with_operand, first, seconds) for first, seconds in operands.BEGINNINGS.items()),
)


def _by_beginning() -> dict[tuple[str, str], tuple[Matcher, ...]]:
    found: dict[tuple[str, str], tuple[Matcher, ...]] = {}
    for matcher, first, seconds in _SECONDS:
        for second in seconds:
            found[first, second] = (*found.get((first, second), ()), matcher)
    return found


BEGINNINGS = _by_beginning()
"""The matchers by what they may begin with, two rows' names; they need not look at anything else."""


def leaves_flags(insn: Instruction, branch: Instruction) -> bool:
    """True where an instruction leaves the flags that a comparison of its result with 0 would give.

    Not where it adds a constant: newer processors do that for nothing, but not together with a jump.
    """
    row, jump = insn.row, branch.row
    if row is None or jump is None or jump.uses_src or jump.meaning not in ("JEQ", "JNE"):
        return False
    if row.kind is not Kind.BINARY or row.meaning not in alu.REGULAR:
        return False
    if not row.uses_src and row.meaning in ("ADD", "SUB"):
        return False
    # The upper half of what 32 bits give is 0.
    return not branch.imm and insn.dst_reg == branch.dst_reg and row.width.bits <= jump.width.bits
