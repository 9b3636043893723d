"""Equal programs: one program and a rewriting of it that must do the same.

They differ in registers, order of blocks, constants and dead code, so that other machine code is
made of them; an engine that answers differently is wrong whatever the others say. Rewritten are the
programs of `acceptable`: those end, and no address but that of their memory is in a register.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

from ebpfjit.bits import W32
from ebpfjit.difftest.acceptable import SCALARS
from ebpfjit.difftest.generate import EDGES, add, constant, copy, plain
from ebpfjit.difftest.items import Item, put_together, take_apart
from ebpfjit.isa.spec import Kind, Reg
from ebpfjit.program import Instruction, decode

CALLEE_SAVED = (7, 8, 9)
NO_BLOCK_END = (Kind.JUMP, Kind.EXIT)


def _items_of(code: bytes) -> list[Item]:
    return [Item(insn) for insn in decode(code)]


def _main(items: list[Item]) -> list[Item]:
    """The items of the main function: those before the function that is called."""
    called = [item.target for item in items if item.insn.row and item.insn.row.kind is Kind.CALL_LOCAL]
    return items[: items.index(called[0])] if called and called[0] is not None else items


def permute_registers(rng: random.Random, items: list[Item]) -> list[Item]:
    """Give registers other numbers, in the main function; a function that it calls sees r0 to r5."""
    main = _main(items)
    free = list(CALLEE_SAVED if len(main) < len(items) else [r for r in SCALARS if r])
    shuffled = free.copy()
    rng.shuffle(shuffled)
    new = dict(zip(free, shuffled, strict=True))

    def renamed(insn: Instruction) -> Instruction:
        row = insn.row
        if row is None:
            return insn
        dst = new.get(insn.dst_reg, insn.dst_reg) if isinstance(row.dst, Reg) else insn.dst_reg
        src = new.get(insn.src_reg, insn.src_reg) if isinstance(row.src, Reg) else insn.src_reg
        return replace(insn, dst_reg=dst, src_reg=src)

    for item in main:
        item.insn = renamed(item.insn)
    return items


def split_constants(rng: random.Random, items: list[Item]) -> list[Item]:
    """Make two additions of one, and three instructions of a 64-bit constant.

    r1 += 12       r1 += 5; r1 += 7
    r1 = lddw      r1 = high; r1 <<= 32; r1 += low
    """
    made: list[Item] = []
    for item in items:
        insn = item.insn
        operation = insn.row.name if insn.row else ""
        if operation in ("ADD64_K", "ADD32_K") and rng.random() < 0.7:
            part = rng.choice(EDGES)
            rest = insn.imm - part
            if -(1 << 31) <= rest < 1 << 31:
                item.insn = replace(insn, imm=part)
                made += [item, Item(replace(insn, imm=rest))]
                continue
        if operation == "LDDW" and rng.random() < 0.7:
            low, high = W32.signed(insn.imm), W32.signed(insn.imm64 >> 32)
            carried = W32.signed(high + (1 if low < 0 else 0))  # adding a negative low takes one off
            item.insn = decode(plain("MOV64_K", insn.dst_reg, imm=carried))[0]
            made += [item, *_items_of(plain("LSH64_K", insn.dst_reg, imm=32) + add(insn.dst_reg, low))]
            continue
        made.append(item)
    return made


def add_dead_code(rng: random.Random, items: list[Item]) -> list[Item]:
    """Put in what changes nothing: copies to itself, zeros added, code that is jumped over."""
    made: list[Item] = []
    for item in items:
        if rng.random() < 0.2:
            register = rng.choice(SCALARS)
            junk = rng.choice((
                copy(register, register),
                add(register, 0),
                plain("XOR64_K", register, imm=0),
                plain("JA"),
                plain("JA", offset=2) + constant(register, rng.choice(EDGES) & 0xFFFFFFFF),
                plain("JNE_X", register, register, 1) + plain("JA", offset=1) + plain("NEG64", register),
            ))  # fmt: skip
            added = take_apart(junk + plain("MOV64_X", register, register))
            made += added
        made.append(item)
    return made


def reorder_blocks(rng: random.Random, items: list[Item]) -> list[Item]:
    """Lay the main function's code out in another order, joined by jumps; the first part stays first."""
    main = _main(items)
    rest = items[len(main) :]
    if len(main) < 4:
        return items
    cuts = sorted(rng.sample(range(1, len(main)), min(3, len(main) - 1)))
    parts = [main[a:b] for a, b in zip([0, *cuts], [*cuts, len(main)], strict=True)]
    for part, following in pairwise(parts):
        last = part[-1].insn.row
        if last is None or last.kind not in NO_BLOCK_END:
            part.append(Item(decode(plain("JA"))[0], following[0]))
    tail = parts[1:]
    rng.shuffle(tail)
    return [item for part in (parts[0], *tail) for item in part] + rest


REWRITINGS: tuple[Callable[[random.Random, list[Item]], list[Item]], ...] = (
    permute_registers,
    split_constants,
    add_dead_code,
    reorder_blocks,
)


def rewritten(rng: random.Random, code: bytes) -> bytes:
    """Return a program that does what `code` does, by one to four rewritings."""
    items = take_apart(code)
    for rewriting in rng.sample(REWRITINGS, rng.randrange(1, len(REWRITINGS) + 1)):
        items = rewriting(rng, items)
    made = put_together(items)
    return code if made is None else made
