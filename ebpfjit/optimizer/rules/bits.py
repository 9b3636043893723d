"""Which arguments of blocks have no upper half: all that comes in for them has none."""

from __future__ import annotations

from collections.abc import Collection

from ebpfjit.isa.spec import Row
from ebpfjit.isa.table import BY_NAME
from ebpfjit.optimizer.code import Code

_BY_NUMBER = frozenset(BY_NAME[name] for name in ("MOV64_K", "LDDW", "AND64_K"))
"""Rows of which what they make has no upper half where their number has none."""


def low_arguments(code: Code, asked: Collection[int], low_rows: Collection[Row]) -> set[int]:
    """Return the arguments below 2**32, as what `low_rows` make is; none where none is `asked` for.

    All are taken to be, but those from outside; then those are not that others come in for, or what is
    made otherwise. Linear: an argument is looked at again once for each that it comes in for.
    """
    entered = {entry.block for entry in code.entries.values()}
    low = {value for n, block in enumerate(code.blocks) if n not in entered for value in block.args}
    if low.isdisjoint(asked):
        return set()
    small = _small(code, low_rows)
    passed: dict[int, list[int]] = {}
    wrong: list[int] = []
    for block in code.blocks:
        for way in block.ways:
            for value, given in zip(code.blocks[way.block].args, way.args, strict=True):
                if given in low:
                    passed.setdefault(given, []).append(value)
                elif given not in small:
                    wrong.append(value)
    while wrong:
        value = wrong.pop()
        if value in low:
            low.remove(value)
            wrong += passed.get(value, ())
    return low


def _small(code: Code, low_rows: Collection[Row]) -> set[int]:
    """Return the values that operations make without an upper half, as far as their rows tell."""
    small = set[int]()
    for block in code.blocks:
        for op in block.ops:
            if op.row in low_rows or (op.row in _BY_NUMBER and 0 <= op.imm < 1 << 32):
                small.update(op.results)
    return small
