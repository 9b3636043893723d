"""A load and what is done with it, as one instruction with an operand in memory.

    x = *(p + 8);  y += x                      add y, [p+8]        (x is not read later)
    x = *(p + 8);  if y > x goto l             cmp y, [p+8];  ja l
    x = *(p + 8);  x += y;  *(p + 8) = x       add [p+8], y

The check of the load stays in its own place, so that a fault has its pc; what is loaded is loaded
where the last instruction stands.
"""

from __future__ import annotations

from collections.abc import Sequence

from ebpfjit.isa.spec import Kind, Row
from ebpfjit.program import Instruction
from ebpfjit.translators.x86_64.alu import REGULAR
from ebpfjit.translators.x86_64.fusion import Fusion, Window
from ebpfjit.translators.x86_64.jump import CONDITIONS
from ebpfjit.translators.x86_64.memory import emit_check
from ebpfjit.translators.x86_64.target import POINTER, Context, address_operand, register

BITS = {"LDXW": 32, "LDXDW": 64}
STORES = {"LDXW": "STXW", "LDXDW": "STXDW"}
WITH_MEMORY = {**REGULAR, "MUL": "imul"}
"""Operations whose second operand may lie in memory."""


def _names(bits: int) -> frozenset[str]:
    """The rows of a width that may follow a load."""
    branch = {64: "", 32: "32"}[bits]
    return frozenset(
        [
            *(f"{meaning}{bits}_X" for meaning in WITH_MEMORY),
            *(f"{meaning}{bits}_K" for meaning in REGULAR),
            *(f"{meaning}{branch}_{form}" for meaning in CONDITIONS for form in "XK"),
        ]
    )


BEGINNINGS = {name: _names(bits) for name, bits in BITS.items()}


def with_operand(window: Window, live_after: Sequence[int]) -> Fusion | None:
    """Return what a load in front of `window`, and what uses it, are done by; None for one by one."""
    load = window[0]
    if load.row is None or load.row.name not in BITS or len(window) < 2:
        return None
    second = window[1]
    if second.row is None or second.row.name not in BEGINNINGS[load.row.name]:
        return None
    value = load.dst_reg
    if second.row.kind is Kind.BRANCH:
        return _comparison(load, second) if not live_after[1] >> value & 1 else None
    if second.dst_reg == value:
        return _update(window, live_after)
    if second.row.uses_src and second.src_reg == value and not live_after[1] >> value & 1:
        return _operation(load, second)
    return None


def _operation(load: Instruction, second: Instruction) -> Fusion | None:
    bits = BITS[_row(load).name]
    text = f"{WITH_MEMORY[_row(second).meaning]} {register(second.dst_reg, bits)}, {_pointer(load)}"

    def emit(cx: Context) -> None:
        memory, offset = address_operand(register(load.src_reg), load.offset)
        cx.emit(f"{text} {memory}", offset=offset)

    return Fusion(2, emit, keeps_check=True)


def _comparison(load: Instruction, second: Instruction) -> Fusion | None:
    row, value, bits = _row(second), load.dst_reg, BITS[_row(load).name]
    if row.uses_src and second.dst_reg == second.src_reg:
        return None
    is_left = second.dst_reg == value
    if not is_left and not (row.uses_src and second.src_reg == value):
        return None

    def emit(cx: Context) -> None:
        memory, offset = address_operand(register(load.src_reg), load.offset)
        if not is_left:
            cx.emit(f"cmp {register(second.dst_reg, bits)}, {_pointer(load)} {memory}", offset=offset)
        elif row.uses_src:
            cx.emit(f"cmp {_pointer(load)} {memory}, {register(second.src_reg, bits)}", offset=offset)
        else:
            cx.emit(f"cmp {_pointer(load)} {memory}, $imm", imm=second.imm, offset=offset)
        assert cx.insn.target is not None  # it is the branch, wherever that stands
        cx.goto(CONDITIONS[row.meaning], cx.insn.target)

    return Fusion(2, emit, keeps_check=True)


def _update(window: Window, live_after: Sequence[int]) -> Fusion | None:
    if len(window) < 3:
        return None
    load, second, store = window[:3]
    value, base, bits = load.dst_reg, load.src_reg, BITS[_row(load).name]
    row = _row(second)
    if row.meaning not in REGULAR or base == value or live_after[2] >> value & 1:
        return None
    if row.uses_src and second.src_reg == value:
        return None
    if store.row is None or store.row.name != STORES[_row(load).name] or store.src_reg != value:
        return None
    if (store.dst_reg, store.offset) != (base, load.offset):
        return None
    operand = register(second.src_reg, bits) if row.uses_src else "$imm"
    imm = None if row.uses_src else second.imm
    mnemonic = REGULAR[row.meaning]

    def emit(cx: Context) -> None:
        emit_check(cx, register(base), store.offset, cx.insn)
        memory, offset = address_operand(register(base), load.offset)
        cx.emit(f"{mnemonic} {_pointer(load)} {memory}, {operand}", imm=imm, offset=offset)

    return Fusion(3, emit, keeps_check=True)


def _pointer(load: Instruction) -> str:
    return POINTER[_row(load).size]


def _row(insn: Instruction) -> Row:
    assert insn.row is not None  # it was looked at
    return insn.row
