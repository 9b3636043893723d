"""A program changed in one place or two: a guard dropped, a bound moved by one, another register or size."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from ebpfjit.bits import W32
from ebpfjit.difftest.items import Item, put_together, take_apart, without
from ebpfjit.difftest.verdicts.sample import Sample
from ebpfjit.errors import EbpfError
from ebpfjit.isa.spec import Imm, Kind, Offset
from ebpfjit.isa.table import TABLE
from ebpfjit.program import Instruction

_TRIES = 20


def changed(rng: random.Random, sample: Sample) -> Sample:
    """Return a program with one change, or two; itself where none was found that fits."""
    for _ in range(1 + (rng.random() < 0.25)):
        for _ in range(_TRIES):
            code = _once(rng, sample)
            if code is not None and code != sample.code:
                starts = _moved_starts(sample, code)
                if starts is not None:
                    sample = replace(sample, code=code, globals=starts)
                    break
    return sample


def _moved_starts(sample: Sample, code: bytes) -> tuple[tuple[int, str], ...] | None:
    """Return where global functions start now; None where that is not known."""
    if not sample.globals or len(code) == len(sample.code):
        return sample.globals
    return None


def _once(rng: random.Random, sample: Sample) -> bytes | None:
    try:
        items = take_apart(sample.code)
    except EbpfError:
        return None
    index = rng.randrange(len(items))
    if rng.random() < 0.3:  # guards are what matters
        guards = [at for at, item in enumerate(items) if item.insn.row and item.insn.row.kind is Kind.BRANCH]
        index = rng.choice(guards) if guards else index
    change = rng.choice(_CHANGES)
    if change is None:
        return put_together(without(items, range(index, index + 1))) if len(items) > 2 else None
    insn = change(rng, items[index].insn)
    if insn is None:
        return None
    items[index].insn = insn
    return put_together(items)


Change = Callable[[random.Random, Instruction], Instruction | None]


def _imm(rng: random.Random, insn: Instruction) -> Instruction | None:
    if insn.row is None or insn.row.imm not in (Imm.OPERAND, Imm.HELPER, Imm.VALUE_OFFSET):
        return None
    return replace(insn, imm=W32.signed(insn.imm + rng.choice((1, -1, 1, -1, 8, -8))))


def _offset(rng: random.Random, insn: Instruction) -> Instruction | None:
    if insn.row is None or insn.row.offset is not Offset.DISPLACEMENT:
        return None
    return replace(insn, offset=insn.offset + rng.choice((1, -1, 2, 4, -4, 8, -8)))


def _register(rng: random.Random, insn: Instruction) -> Instruction | None:
    if insn.row is None:
        return None
    register = rng.randrange(10)
    if insn.row.uses_src and rng.random() < 0.5:
        return replace(insn, src_reg=register)
    return (
        replace(insn, dst_reg=register)
        if insn.row.dst is not None and not isinstance(insn.row.dst, int)
        else None
    )


def _row(rng: random.Random, insn: Instruction) -> Instruction | None:
    """Another operation of the same kind: another size, comparison, width."""
    row = insn.row
    if row is None or row.is_wide or row.kind in _KEPT:
        return None
    other = rng.choice([each for each in TABLE if each.kind is row.kind and each.uses_src == row.uses_src])
    fixed = {name: value for name in ("offset", "imm") if isinstance(value := getattr(other, name), int)}
    return replace(insn, opcode=other.opcode, row=other, **fixed)


_KEPT = (Kind.CALL_HELPER, Kind.CALL_LOCAL, Kind.CALL_KFUNC, Kind.EXIT)
_CHANGES: tuple[Change | None, ...] = (
    None, None, None, _imm, _imm, _offset, _offset, _register, _register, _row, _row,
)  # fmt: skip
"""What may be done to an instruction; None: it goes."""


def smaller(sample: Sample, size: int, start: int) -> Sample | None:
    """Return a program without `size` instructions from number `start` on; None where that is none."""
    try:
        items: list[Item] = take_apart(sample.code)
    except EbpfError:
        return None
    if start + size > len(items) or len(items) - size < 1:
        return None
    code = put_together(without(items, range(start, start + size)))
    if code is None or sample.globals:
        return None
    return replace(sample, code=code)
