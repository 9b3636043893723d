"""Code -> Code that loads numbers as wholes: bytes that are put together, bytes that are swapped.

    before                        after
    v1 = *(u8 *)(v0 + 2)          v1 = *(u8 *)(v0 + 2)              (for dead.py, as v2 and v3)
    v2 = *(u8 *)(v0 + 3)          v2 = *(u8 *)(v0 + 3)
                                  v4 = *(u16 *)(v0 + 2)
    v3 = v2 << 8                  v3 = v2 << 8
    v4 = v3 | v1

    v5 = *(u32 *)(v0 + 4)         v5 = *(u32 *)(v0 + 4)             (for dead.py)
                                  v6 = be32 *(u32 *)(v0 + 4)
    v6 = be32 v5
    v7 = be16 v6                  v7 = be16 v6                      (for dead.py)
    *(u16 *)(v0 + 8) = v7         *(u16 *)(v0 + 8) = be16 v6

That is how compilers load what may lie at any address; the other way round it is a number in network order.

Contract: what is loaded at once was loaded in the same block, with nothing in between that writes memory,
calls or orders accesses, and stands behind the last of the loads, so behind the bounds of each. Bounds
stay. All that the number was made of is read by nothing else, but by exits, so that no byte is read twice.
Linear: a number has eight bytes at most, and what it is made of is remembered with it.
"""

from __future__ import annotations

from typing import NamedTuple

from ebpfjit.isa.spec import Kind, Row
from ebpfjit.isa.table import BY_NAME
from ebpfjit.isa.unencoded import UNENCODED
from ebpfjit.optimizer.code import Block, Code, Op
from ebpfjit.optimizer.flow import uses_of, with_blocks

LOADS = {BY_NAME["LDXB"]: 1, BY_NAME["LDXH"]: 2, BY_NAME["LDXW"]: 4, BY_NAME["LDXDW"]: 8}
OF_SIZE = {size: row for row, size in LOADS.items()}
SWAPPED = {size: UNENCODED[f"SWAPPED_{OF_SIZE[size].name}"] for size in (2, 4, 8)}
STORES = {
    BY_NAME["STXH"]: UNENCODED["SWAPPED_STXH"],
    BY_NAME["STXW"]: UNENCODED["SWAPPED_STXW"],
    BY_NAME["STXDW"]: UNENCODED["SWAPPED_STXDW"],
}
SWAPS = {
    BY_NAME[f"{word}{8 * size}"]: size for word in ("BE", "BSWAP") for size in (2, 4, 8)
}  # fmt: skip
SHIFTS = {BY_NAME["LSH64_K"]: 8, BY_NAME["LSH32_K"]: 4}
JOINS = {BY_NAME[f"{meaning}{bits}_X"]: bits // 8 for meaning in ("OR", "ADD", "XOR") for bits in (32, 64)}
"""Rows, and how many bytes they leave. Bytes that do not overlap are joined by any of these."""
COPIES = {BY_NAME["MOV32_X"]: 4}
ROWS: frozenset[Row] = frozenset((*LOADS, *SHIFTS, *JOINS, *COPIES, *SWAPS))

_LOADED, _SWAPPED, _SHIFTED, _JOINED = (frozenset(rows) for rows in (LOADS, SWAPS, SHIFTS, JOINS))
"""Without these a block has nothing to gather."""

HARMLESS = frozenset(
    {Kind.BINARY, Kind.MOVE, Kind.UNARY, Kind.LOAD_IMM64, Kind.SUM, Kind.SELECT, Kind.PAY, Kind.COUNT}
    | {Kind.BOUND, Kind.ALIGNED, Kind.BINARY_LOAD, Kind.INDEXED_LOAD}
)
"""Kinds that leave memory as it is, and may stand between loads; ordered loads may not."""


class _Number(NamedTuple):
    """A value that is made of bytes in memory, each of which nothing else reads."""

    base: int
    epoch: int
    """How often memory was written in the block before they were loaded."""
    last: int
    """Where in the block the last of the loads is."""
    offsets: dict[int, int]
    """Where from the base each of its bytes is, by its place: 0 for the lowest."""


def gather(code: Code, uses: list[int] | None = None) -> Code:
    """Return the code with numbers loaded at once; `uses` may be older, as no more is read than before."""
    uses = uses_of(code) if uses is None else uses
    blocks = []
    for block in code.blocks:
        rows = {op.row for op in block.ops}
        may_be = not (_JOINED.isdisjoint(rows) or _SHIFTED.isdisjoint(rows) or _LOADED.isdisjoint(rows))
        may_be = may_be or not _SWAPPED.isdisjoint(rows)
        blocks.append(_Gathering(block, uses).block() if may_be else block)
    return with_blocks(code, blocks)


class _Gathering:
    """One block: which of its values are made of bytes."""

    def __init__(self, old: Block, uses: list[int]) -> None:
        self.old, self.uses = old, uses
        self.epoch = 0
        self.numbers: dict[int, _Number] = {}
        self.swaps: dict[int, Op] = {}
        """Values that are others with their bytes swapped."""
        self.behind: dict[int, list[Op]] = {}
        """What stands behind operations, by place."""
        self.gone: set[int] = set()
        """Places of what is not done any more where it was."""

    def block(self) -> Block:
        """Return the block with numbers loaded at once."""
        old = self.old
        ops = list(old.ops)
        for place, op in enumerate(old.ops):
            row = op.row
            if row in ROWS:
                self.follow(place, op)
            elif row in STORES:
                ops[place] = self.stored(op)
                self.epoch += 1
            elif row.kind not in HARMLESS and (row.kind is not Kind.LOAD or row.is_ordered):
                self.epoch += 1
        if not self.behind and all(map(_is, ops, old.ops)):
            return old
        made: list[Op] = []
        for place, op in enumerate(ops):
            if place not in self.gone:
                made.append(op)
            made += self.behind.get(place, ())
        return Block(old.pc, old.args, tuple(made), old.end, old.ways)

    def follow(self, place: int, op: Op) -> None:
        """Note what an operation makes; where that is a number as a whole, load it behind the last load."""
        row = op.row
        if row in SWAPS:
            number = self.swapped(op, SWAPS[row])
            self.swaps[op.results[0]] = op
        elif row in LOADS:
            offsets = {byte: op.offset + byte for byte in range(LOADS[row])}
            self.numbers[op.results[0]] = _Number(op.args[0], self.epoch, place, offsets)
            return
        else:
            number = self.made(op)
        if number is None:
            return
        self.numbers[op.results[0]] = number
        size = len(number.offsets)
        if row in COPIES or number.offsets.keys() != set(range(size)):
            return
        step = _step(number.offsets)
        if size not in SWAPPED or not step:
            return
        wide = OF_SIZE[size] if step > 0 else SWAPPED[size]
        lowest = number.offsets[0 if step > 0 else size - 1]
        load = Op(wide, (number.base,), 0, lowest, op.pc, op.results)
        self.behind.setdefault(number.last, []).append(load)
        self.gone.add(place)

    def only(self, value: int) -> _Number | None:
        """Return what bytes a value is made of, if nothing reads it but what is looked at."""
        return self.numbers.get(value) if self.uses[value] == 1 else None

    def made(self, op: Op) -> _Number | None:
        """Return what bytes a shift, a copy or a joining operation makes a value of."""
        row = op.row
        number = self.only(op.args[0])
        if number is None:
            return None
        if row in COPIES:
            return number if max(number.offsets) < COPIES[row] else None
        if row in SHIFTS:
            by, odd = divmod(op.imm % (8 * SHIFTS[row]), 8)
            if odd or max(number.offsets) + by >= SHIFTS[row]:
                return None
            return number._replace(offsets={byte + by: offset for byte, offset in number.offsets.items()})
        other = self.only(op.args[1])
        if other is None or (other.base, other.epoch) != (number.base, number.epoch):
            return None
        if not other.offsets.keys().isdisjoint(number.offsets):
            return None
        offsets = number.offsets | other.offsets
        last = max(number.last, other.last)
        return _Number(number.base, number.epoch, last, offsets) if max(offsets) < JOINS[row] else None

    def swapped(self, op: Op, size: int) -> _Number | None:
        """Return what bytes a swap of so many bytes makes a value of."""
        number = self.only(op.args[0])
        if number is None or number.offsets.keys() != set(range(size)):
            return None
        offsets = {size - 1 - byte: offset for byte, offset in number.offsets.items()}
        return number._replace(offsets=offsets)

    def stored(self, op: Op) -> Op:
        """A store of a value whose bytes were swapped for that only."""
        base, value = op.args
        swap = self.swaps.get(value)
        if swap is None or self.uses[value] != 1 or SWAPS[swap.row] != op.row.size:
            return op
        return Op(STORES[op.row], (base, swap.args[0]), 0, op.offset, op.pc)


def _is(one: Op, other: Op) -> bool:
    return one is other


def _step(offsets: dict[int, int]) -> int:
    """Return 1 where a number's bytes lie side by side, the lowest first; -1 the other way round; else 0."""
    step = offsets[1] - offsets[0] if len(offsets) > 1 else 0
    if step not in (1, -1):
        return 0
    first = offsets[0]
    return step if all(offset == first + step * byte for byte, offset in offsets.items()) else 0
