"""Code -> Code whose accesses say where from their base they are: by a displacement, by an index.

    before                            after `displace`
    v2 = v1 + 16                      v2 = v1 + 16                     (for dead.py)
    bound load v2 + 4..8 else ...     bound load v1 + 20..24 else ...
    v3 = *(u32 *)(v2 + 4)             v3 = *(u32 *)(v1 + 20)

    before                            after `index`
    v2 = v1 << 3                      v2 = v1 << 3                     (for dead.py, as v3)
    v3 = v0 + v2                      v3 = v0 + v1 * 8 + 0
    bound load v3 + 8..16 else ...    bound load v0 + v1 * 8 + 8..16 else ...
    v4 = *(u64 *)(v3 + 8)             v4 = *(u64 *)(v0 + v1 * 8 + 8)
    v5 = v0 * 5                       v5 = v0 + v0 * 4 + 0
    v6 = v0 + v1                      v6 = v0 + v1                     (for dead.py)
    v7 = v6 + 9                       v7 = v0 + v1 * 1 + 9

Contract: each address is the number that it was, modulo 2**64. An address is looked through only where
nothing else reads it, so that it is gone in the end and no more values live; where it is below the frame
pointer, which always lives; as an index for accesses in its own block, and a few at most. `displace` comes
before what looks for bytes side by side, and before checks are looked at. `index` comes behind all that:
from there on accesses and bounds have a `scale`. Linear: each operation is looked at once.
"""

from __future__ import annotations

from ebpfjit.isa.spec import FRAME_POINTER, Kind, Row
from ebpfjit.isa.table import BY_NAME, TABLE
from ebpfjit.isa.unencoded import UNENCODED
from ebpfjit.optimizer.code import BOUND, Block, Code, Op
from ebpfjit.optimizer.flow import homes_of, uses_of, value_count, without
from ebpfjit.record import lazy

ACCESSES = frozenset({Kind.LOAD, Kind.STORE, Kind.ATOMIC, Kind.BOUND, Kind.ALIGNED, Kind.INDEXED_LOAD}) | {
    Kind.INDEXED_STORE,
    Kind.BINARY_LOAD,
    Kind.UPDATE,
}
"""Kinds whose first argument is the base of an address."""
ACCESS_ROWS = frozenset(row for row in (*TABLE, *UNENCODED.values()) if row.kind in ACCESSES)
INDEXED: dict[Row, Row] = {
    BY_NAME[name.removeprefix("INDEXED_")]: row
    for name, row in UNENCODED.items()
    if name.startswith("INDEXED_")
} | {row: row for name, row in UNENCODED.items() if name.startswith("SWAPPED_")}
"""Accesses by theirs with an index."""
MOST_OFFSET = 1 << 30
"""What is added to a base, at most; a displacement holds twice as much."""
MOST_ACCESSES = 4
"""How many operations may have one index instead of a sum that is made once."""

ADD_NUMBER = {BY_NAME["ADD64_K"]: 64, BY_NAME["ADD32_K"]: 32}
ADD_VALUE = {BY_NAME["ADD64_X"]: 64, BY_NAME["ADD32_X"]: 32}
SHIFTS = {BY_NAME["LSH64_K"]: 64, BY_NAME["LSH32_K"]: 32}
MULTIPLY = {BY_NAME["MUL64_K"]: 64, BY_NAME["MUL32_K"]: 32}
SUMS = {64: UNENCODED["SUM64"], 32: UNENCODED["SUM32"]}
WIDTHS = {row: bits for bits, row in SUMS.items()}
ADD_64, ADD_64_NUMBER, SUM_64 = BY_NAME["ADD64_X"], BY_NAME["ADD64_K"], SUMS[64]
MOST_SHIFT = 3
FACTORS = {3: 2, 5: 4, 9: 8}
"""What a number is multiplied with where so many times itself are added to it."""


def displace(code: Code, uses: list[int] | None = None) -> Code:
    """Return the code with constants that are added to a base in the displacements of its accesses."""
    uses, homes = uses_of(code) if uses is None else uses, homes_of(code)
    as_base = _uses_as_base(code, ACCESS_ROWS)
    added: dict[int, tuple[int, int]] = {}
    """What a value is: another, and so many bytes."""
    blocks: list[Block | None] = [None] * len(code.blocks)
    for number in code.shape.order:
        block = code.blocks[number]
        ops: list[Op] | None = None
        for index, op in enumerate(block.ops):
            row = op.row
            if row is ADD_64_NUMBER:
                base, (result,) = op.args[0], op.results
                if uses[result] == as_base[result] or homes[base] == FRAME_POINTER:
                    root, more = added.get(base, (base, 0))
                    if abs(op.imm + more) < MOST_OFFSET:
                        added[result] = root, op.imm + more
            elif row in ACCESS_ROWS and op.args and op.args[0] in added and has_base(op):
                root, more = added[op.args[0]]
                if abs(op.offset + more) < MOST_OFFSET:
                    ops = [*block.ops] if ops is None else ops
                    ops[index] = _at(op, (root, *op.args[1:]), op.offset + more)
        blocks[number] = (
            block if ops is None else Block(block.pc, block.args, tuple(ops), block.end, block.ways)
        )
    return without(code, blocks, code.homes)


def _at(op: Op, args: tuple[int, ...], offset: int, row: Row | None = None, scale: int = 0) -> Op:
    """Return an access at another address; `scale` is for what had no index."""
    row, scale = row or op.row, scale or op.scale
    return Op(row, args, op.imm, offset, op.pc, op.results, op.exit, op.stores, op.region, scale)


def has_base(op: Op) -> bool:
    """True for an access at a base, and perhaps an index; a bound may be of more, or of the argument."""
    return op.row is not BOUND or len(op.args) == (2 if op.scale else 1)


def _uses_as_base(code: Code, rows: frozenset[Row]) -> list[int]:
    """Return how often each value is the base of an access of these rows."""
    found = [0] * value_count(code)
    for block in code.blocks:
        for op in block.ops:
            if op.row in rows and (op.row is not BOUND or has_base(op)):
                found[op.args[0]] += 1
    return found


INDEXABLE = frozenset({Kind.LOAD, Kind.STORE, Kind.BOUND, Kind.INDEXED_LOAD, Kind.INDEXED_STORE})
"""Kinds of which some rows may have an index, or do."""
INDEXABLE_ROWS = frozenset(row for row in ACCESS_ROWS if row.kind in INDEXABLE)


def index(code: Code, uses: list[int] | None = None) -> Code:
    """Return the code with sums of three, and with indexes in accesses; `uses` may be older."""
    return _Indexing(code, uses_of(code) if uses is None else uses).run()


SUMMED = frozenset((*ADD_VALUE, *ADD_NUMBER, *SHIFTS, *MULTIPLY))
"""Rows that sums are made of: blocks without any stay as they are."""


class _Indexing:
    """The operations that made each value, of which sums are made."""

    def __init__(self, code: Code, uses: list[int]) -> None:
        self.code = code
        self.uses = uses
        self.as_base = _uses_as_base(code, INDEXABLE_ROWS)
        self.makers: list[Op | None] = [None] * len(self.uses)
        self.here: set[int] = set()
        """The sums that were made in the block."""

    @lazy
    def from_start(self) -> dict[int, int]:
        """How far values are from where the argument starts."""
        return from_start(self.code)

    def run(self) -> Code:
        """Go through all blocks."""
        blocks: list[Block | None] = [None] * len(self.code.blocks)
        for number in self.code.shape.order:
            block = self.code.blocks[number]
            if SUMMED.isdisjoint([op.row for op in block.ops]):
                blocks[number] = block
                continue
            self.here.clear()
            ops = [
                self.summed(op)
                if op.row in SUMMED
                else self.accessed(op)
                if op.row in INDEXABLE_ROWS and op.args and op.args[0] in self.here
                else op
                for op in block.ops
            ]
            blocks[number] = Block(block.pc, block.args, tuple(ops), block.end, block.ways)
        return without(self.code, blocks, self.code.homes)

    def summed(self, op: Op) -> Op:
        """Return an operation as a sum, where it is one."""
        row, result = op.row, op.results[0]
        if row in ADD_VALUE:
            op = self.of_values(op, ADD_VALUE[row])
            self.here.add(result)
        elif row in ADD_NUMBER:
            op = self.of_number(op, ADD_NUMBER[row])
            self.here.add(result)
        elif row in MULTIPLY:
            if op.imm not in FACTORS:
                return op
            value = op.args[0]
            op = _sum(op, MULTIPLY[row], (value, value), FACTORS[op.imm], 0)
        self.makers[result] = op
        return op

    def made(self, value: int, rows: dict[Row, int], bits: int) -> Op | None:
        """Return what made a value that is read once, where it is of these rows and so many bits."""
        maker = self.makers[value]
        if maker is None or self.uses[value] != 1:
            return None
        return maker if rows.get(maker.row) == bits else None

    def of_values(self, op: Op, bits: int) -> Op:
        """The sum of two values, of which one may be shifted, and one have a constant added."""
        base, other = op.args
        scale, offset = 1, 0
        maker = self.shift(other, bits)
        if maker is None:
            maker = self.shift(base, bits)
            if maker is not None:
                base, other = other, base
        if maker is not None:
            other, scale = maker.args[0], 1 << maker.imm
        elif (maker := self.made(other, ADD_NUMBER, bits)) is not None:
            other, offset = maker.args[0], maker.imm
        if not offset and (maker := self.made(base, ADD_NUMBER, bits)) is not None:
            base, offset = maker.args[0], maker.imm
        if (scale == 1 and not offset) or abs(offset) >= MOST_OFFSET:
            return op
        return _sum(op, bits, (base, other), scale, offset)

    def shift(self, value: int, bits: int) -> Op | None:
        """Return the shift to the left by 1, 2 or 3 that made a value, which is read once."""
        maker = self.made(value, SHIFTS, bits)
        return maker if maker is not None and 0 < maker.imm <= MOST_SHIFT else None

    def of_number(self, op: Op, bits: int) -> Op:
        """A constant that is added to a sum."""
        maker = self.made(op.args[0], ADD_VALUE, bits)
        scale = 1
        if maker is None:
            maker = self.made(op.args[0], WIDTHS, bits)
            if maker is None:
                return op
            scale = maker.scale
        offset = maker.offset + op.imm
        return op if abs(offset) >= MOST_OFFSET else _sum(op, bits, maker.args, scale, offset)

    def accessed(self, op: Op) -> Op:
        """An access whose base is a sum that nothing but a few accesses read."""
        base, row = op.args[0], op.row
        maker = self.makers[base]
        if maker is None or not has_base(op):
            return op
        if not self.uses[base] == self.as_base[base] <= MOST_ACCESSES and not self.is_distance(op, maker):
            return op
        indexed = row if row.kind is Kind.BOUND else INDEXED.get(row)
        offset = op.offset + maker.offset
        if indexed is None or op.scale or abs(offset) >= MOST_OFFSET:
            return op
        if maker.row is ADD_64:
            return _at(op, (*maker.args, *op.args[1:]), offset, indexed, 1)
        if maker.row is SUM_64:
            return _at(op, (*maker.args, *op.args[1:]), offset, indexed, maker.scale)
        return op

    def is_distance(self, op: Op, maker: Op) -> bool:
        """True for a bound of the argument's start and something, which says how far from there it is."""
        return op.row is BOUND and not self.from_start.keys().isdisjoint(maker.args)


def from_start(code: Code) -> dict[int, int]:
    """Return the values that are so many bytes behind where the argument starts, as function 0 gets it.

    Those that are too far from there for a displacement are left out.
    """
    entry = code.entries.get(0)
    if entry is None or 1 not in entry.registers:
        return {}
    found = {code.blocks[entry.block].args[entry.registers.index(1)]: 0}
    for number in code.shape.order:
        for op in code.blocks[number].ops:
            if op.row is ADD_64_NUMBER and op.args[0] in found:
                distance = found[op.args[0]] + op.imm
                if abs(distance) < MOST_OFFSET:
                    found[op.results[0]] = distance
    return found


def _sum(op: Op, bits: int, args: tuple[int, int] | tuple[int, ...], scale: int, offset: int) -> Op:
    return Op(SUMS[bits], args, 0, offset, op.pc, op.results, None, False, "", scale)
