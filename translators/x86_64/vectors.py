"""Many elements at once: what loops put together, by SSE2, which every x86-64 has.

    xmm0    what is put together so far     xmm1 to xmm4  what was loaded, and made of it     xmm5  zeros

The rest of optimised code has nothing in these registers. Nothing is changed but the result, xmm0 to xmm5,
r10 and the flags.
"""

from __future__ import annotations

from collections.abc import Sequence

from ebpfjit.isa.spec import Kind
from ebpfjit.isa.unencoded import UNENCODED
from ebpfjit.translators.operation import Operation
from ebpfjit.translators.plan import Audit
from ebpfjit.translators.x86_64.memory import emit_audit, load_address
from ebpfjit.translators.x86_64.target import Context, address_operand, register, translates

VECTOR = 16
"""Bytes of a register."""

LOGICAL = {"OR": "por", "AND": "pand", "XOR": "pxor"}

#   size, width: what becomes of the elements in xmm1, and whether sums are of 32 bits or of 64
SUMS: dict[tuple[int, int], tuple[Sequence[str], str]] = {
    (1, 32): (("psadbw xmm1, xmm5", "paddq xmm0, xmm1"), "paddq"),
    (2, 32): (
        (
            "movdqa xmm2, xmm1", "punpcklwd xmm1, xmm5", "punpckhwd xmm2, xmm5",
            "paddd xmm0, xmm1", "paddd xmm0, xmm2",
        ),
        "paddd",
    ),
    (4, 32): (("paddd xmm0, xmm1",), "paddd"),
    (4, 64): (
        (
            "movdqa xmm2, xmm1", "punpckldq xmm1, xmm5", "punpckhdq xmm2, xmm5",
            "paddq xmm0, xmm1", "paddq xmm0, xmm2",
        ),
        "paddq",
    ),
    (8, 64): (("paddq xmm0, xmm1",), "paddq"),
}  # fmt: skip
"""Sums of 64 elements, of one or two bytes, need no more than 32 bits: they are the same at both widths."""

#   size: the products of xmm1 and xmm2
PRODUCTS: dict[int, tuple[Sequence[str], str]] = {
    1: (
        (
            "movdqa xmm3, xmm1", "movdqa xmm4, xmm2", "punpcklbw xmm1, xmm5", "punpcklbw xmm2, xmm5",
            "pmaddwd xmm1, xmm2", "punpckhbw xmm3, xmm5", "punpckhbw xmm4, xmm5", "pmaddwd xmm3, xmm4",
            "paddd xmm0, xmm1", "paddd xmm0, xmm3",
        ),
        "paddd",
    ),
    2: (
        (
            "movdqa xmm3, xmm1", "pmullw xmm1, xmm2", "pmulhuw xmm3, xmm2", "movdqa xmm2, xmm1",
            "punpcklwd xmm1, xmm3", "punpckhwd xmm2, xmm3", "movdqa xmm3, xmm1", "movdqa xmm4, xmm2",
            "punpckldq xmm1, xmm5", "punpckhdq xmm3, xmm5", "punpckldq xmm2, xmm5", "punpckhdq xmm4, xmm5",
            "paddq xmm0, xmm1", "paddq xmm0, xmm2", "paddq xmm0, xmm3", "paddq xmm0, xmm4",
        ),
        "paddq",
    ),
    4: (
        (
            "movdqa xmm3, xmm1", "movdqa xmm4, xmm2", "pmuludq xmm1, xmm2", "psrlq xmm3, 32",
            "psrlq xmm4, 32", "pmuludq xmm3, xmm4", "paddq xmm0, xmm1", "paddq xmm0, xmm3",
        ),
        "paddq",
    ),
}  # fmt: skip
"""They are whole, of 64 bits, but of bytes: of which 64 need no more than 32 bits."""


@translates(*(row.operation for row in UNENCODED.values() if row.kind is Kind.REDUCE))
def reduce(insn: Operation, cx: Context) -> None:
    """Sixteen bytes after the other; then what is in the register's parts is put together.

    movdqu xmm1, [base];  paddd xmm0, xmm1;  ...;  pshufd xmm1, xmm0, 0x4e;  ...;  movd dst, xmm0
    """
    row, bases = insn.row, [register(arg) for arg in insn.args]
    logical = LOGICAL.get(row.meaning)
    steps: Sequence[str]
    if logical is not None:
        steps, adding = (f"{logical} xmm0, xmm1",), logical
    elif row.meaning == "DOT":
        steps, adding = PRODUCTS[row.size]
    else:
        steps, adding = SUMS.get((row.size, row.width.bits)) or SUMS[row.size, 32]
    cx.emit("pcmpeqd xmm0, xmm0" if row.meaning == "AND" else "pxor xmm0, xmm0")
    if any("xmm5" in step for step in steps):
        cx.emit("pxor xmm5, xmm5")
    for place in range(0, insn.imm * row.size, VECTOR):
        for number, (base, offset) in enumerate(zip(bases, (insn.offset, 0), strict=False), 1):
            memory, displacement = address_operand(base, offset + place)
            cx.emit(f"movdqu xmm{number}, xmmword ptr {memory}", offset=displacement)
        for step in steps:
            cx.emit(step)
    _across(cx, adding, 4 if adding == "paddd" else row.size if logical else 8)
    _to_register(cx, insn.results[0], row.size if logical else 4 if adding == "paddd" else row.width.bytes)


def _across(cx: Context, adding: str, size: int) -> None:
    """Put together what is in parts of xmm0, so many bytes each, in the first of them."""
    cx.emit("pshufd xmm1, xmm0, 0x4e")
    cx.emit(f"{adding} xmm0, xmm1")
    for bits in (32, 16, 8):
        if bits >= 8 * size:
            cx.emit("movdqa xmm1, xmm0")
            cx.emit(f"psrlq xmm1, {bits}")
            cx.emit(f"{adding} xmm0, xmm1")


def _to_register(cx: Context, number: int, size: int) -> None:
    """Move the first bytes of xmm0 to a register, whose other bytes are zero then."""
    if size == 8:
        cx.emit(f"movq {register(number)}, xmm0")
        return
    cx.emit(f"movd {register(number, 32)}, xmm0")
    if size < 4:
        cx.emit(f"movzx {register(number, 32)}, {register(number, 8 * size)}")


def emit_audits(cx: Context, insn: Operation) -> None:
    """Emit the fault "audit" where elements are not the program's; r10 and r11 are lost.

    All in one region, or each in one.
    """
    size, count = insn.row.size, insn.imm
    cx.used.add("is_load")
    for base, offset in zip(map(register, insn.args), (insn.offset, 0), strict=False):
        done = cx.new_label("audited")
        load_address(cx, base, offset)
        cx.emit(f"mov r10d, {size * count}")
        cx.jump("call", "is_load")
        cx.jump("jae", done)
        for place in range(count):
            emit_audit(cx, base, offset + place * size, Audit(size, stores=False))
        cx.label(done)
