"""Code -> Code in which what is loaded for one operation is that operation's operand in memory.

    before                                    after
    v2 = *(u64 *)(v0 + 8)
    v3 = v1 + v2                              v3 = v1 + *(u64 *)(v0 + 8)

    v4 = *(u32 *)(v0 + 16)
    w5 = w4 | w1
    *(u32 *)(v0 + 16) = v5                    *(u32 *)(v0 + 16) |= v1

    v6 = *(u8 *)(v0 + 24)
    if v6 == 45 goto b1() else b2()           if *(u8 *)(v0 + 24) == 45 goto b1() else b2()

Contract: what is loaded is read once, by an operation of the same block, and named by no exit; between the
two nothing writes memory, calls, orders accesses or leaves, so the same bytes are loaded a little later. Of
what is changed in memory no more and no fewer bytes are written. Comes last: passes behind this one find no
load there. Linear: each operation is looked at once.
"""

from __future__ import annotations

from typing import NamedTuple

from ebpfjit.isa.spec import Kind, Row
from ebpfjit.isa.table import BY_NAME, TABLE
from ebpfjit.isa.unencoded import MEMORY_OPERANDS, UNENCODED
from ebpfjit.optimizer.code import PAY, Block, Code, Op
from ebpfjit.optimizer.flow import uses_of, with_blocks
from ebpfjit.optimizer.rules.algebra import COMMUTATIVE
from ebpfjit.optimizer.rules.arithmetic import EXCHANGED

LETTERS = {1: "B", 2: "H", 4: "W", 8: "DW"}
LOADS: frozenset[Row] = frozenset(
    table[f"{word}LDX{sign}{letter}"]
    for word, table in (("", BY_NAME), ("INDEXED_", UNENCODED))
    for letter in LETTERS.values()
    for sign in ("", "S")
    if sign + letter != "SDW"
)
STORES: frozenset[Row] = frozenset(
    table[f"{word}STX{letter}"]
    for word, table in (("", BY_NAME), ("INDEXED_", UNENCODED))
    for letter in LETTERS.values()
)
_ROWS = (*TABLE, *UNENCODED.values())
BINARIES = frozenset(row for row in _ROWS if row.kind is Kind.BINARY)
_KINDS = frozenset({Kind.MOVE, Kind.UNARY, Kind.LOAD_IMM64, Kind.SUM, Kind.SELECT, Kind.BINARY_LOAD,
                    Kind.INDEXED_LOAD, Kind.COUNT})  # fmt: skip
HARMLESS = frozenset(row for row in _ROWS if row.kind in _KINDS)
"""Rows that may stand in between, besides operations of two operands, loads that are not ordered, and
payments at which nobody looks.
"""
UNSIGNED = {"JSGT": "JGT", "JSGE": "JGE", "JSLT": "JLT", "JSLE": "JLE"}
"""Comparisons of numbers without a sign."""


class _Load(NamedTuple):
    """A load, or what was made, that is read once: where, and how often memory was written before."""

    op: Op
    place: int
    epoch: int


def use_memory(code: Code) -> Code:
    """Return the code with operands in memory."""
    uses = uses_of(code)
    blocks = tuple(
        [
            _Operands(block, uses).block()
            if 1 in [uses[op.results[0]] for op in block.ops if op.row in LOADS]
            else block
            for block in code.blocks
        ]
    )
    return with_blocks(code, blocks)


class _Operands:
    """One block: its loads that may be operands."""

    def __init__(self, old: Block, uses: list[int]) -> None:
        self.old, self.uses = old, uses
        self.epoch = 0
        self.loads: dict[int, _Load] = {}
        self.made: dict[int, _Load] = {}
        """What operations made that are read once, the same of them."""
        self.small: dict[int, int] = {}
        """How many bytes values have that were loaded."""
        self.gone: set[int] = set()

    def block(self) -> Block:
        """Return the block with operands in memory."""
        old = self.old
        ops = list(old.ops)
        uses = self.uses
        for place, op in enumerate(old.ops):
            row = op.row
            if row in BINARIES:
                if row.uses_src and not self.loads.keys().isdisjoint(op.args):
                    ops[place] = op = self.binary(op)
                if uses[op.results[0]] == 1:
                    self.made[op.results[0]] = _Load(op, place, self.epoch)
            elif row in LOADS:
                result = op.results[0]
                if not row.signed:
                    self.small[result] = row.size
                if uses[result] == 1:
                    self.loads[result] = _Load(op, place, self.epoch)
            elif row in STORES:
                ops[place] = self.update(op)
                self.epoch += 1
            elif row not in HARMLESS and (row is not PAY or op.exit is not None):
                self.epoch += 1
        end = self.branch(old.end) if old.end.row.kind is Kind.BRANCH and self.loads else old.end
        if end is old.end and not self.gone:
            return old
        left = tuple([op for place, op in enumerate(ops) if place not in self.gone])
        return Block(old.pc, old.args, left, end, old.ways)

    def load(self, value: int) -> _Load | None:
        """Return the load that may be done here, instead of where it is."""
        found = self.loads.get(value)
        return found if found is not None and found.epoch == self.epoch else None

    def binary(self, op: Op) -> Op:
        """An operation whose second operand was loaded, or whose first may be the second."""
        row, (a, b) = op.row, op.args
        if row.meaning not in MEMORY_OPERANDS:
            return op
        found = self.load(b)
        if found is None and row.meaning in COMMUTATIVE:
            a, found = b, self.load(a)
        if found is None or found.op.row.signed or found.op.row.size != row.width.bytes:
            return op
        load = found.op
        with_memory = UNENCODED[f"{row.meaning}_LDX{LETTERS[load.row.size]}"]
        self.gone.add(found.place)
        args = (*load.args, a)
        return Op(with_memory, args, 0, load.offset, op.pc, op.results, None, False, "", load.scale)

    def update(self, store: Op) -> Op:
        """A store of what was loaded from there and changed."""
        made = self.made.get(store.args[-1])
        if made is None:
            return store
        change, size = made.op, store.row.size
        meaning = change.row.meaning
        if meaning == "MUL" or meaning not in MEMORY_OPERANDS or size > change.row.width.bytes:
            return store
        a, *others = change.args
        if change.row.kind is Kind.BINARY_LOAD:  # it is done where it stood
            others, found = [change.args[-1]], made if meaning in COMMUTATIVE else None
            address = change.args[:-1]
        else:
            found = self.load(a)
            if found is None and others and meaning in COMMUTATIVE:
                others, found = [a], self.load(others[0])
            address = () if found is None else found.op.args
        if found is None or found.op.row.size != size or found.epoch != self.epoch:
            return store
        load = found.op
        if (address, load.offset, load.scale) != (store.args[:-1], store.offset, store.scale):
            return store
        self.gone |= {found.place, made.place}
        row = UNENCODED[f"{meaning}_ST{LETTERS[size]}_{'X' if others else 'K'}"]
        args = (*address, *others)
        return Op(row, args, change.imm, store.offset, store.pc, (), None, False, "", store.scale)

    def branch(self, end: Op) -> Op:
        """A comparison of what was loaded."""
        row, a = end.row, end.args[0]
        meaning, found = row.meaning, self.load(end.args[0])
        others = end.args[1:]
        if found is None and others:
            meaning, others, found = EXCHANGED[meaning], (a,), self.load(others[0])
        if found is None or (others and others[0] == found.op.results[0]):
            return end
        load = found.op
        size = load.row.size
        if load.row.signed or size > row.width.bytes:
            return end
        if size < row.width.bytes:
            # No sign is seen at the larger width; the other number must be one of the smaller.
            meaning = UNSIGNED.get(meaning, meaning)
            if others:
                if self.small.get(others[0], 8) > size:
                    return end
            elif not 0 <= end.imm < 1 << 8 * size:
                return end
        with_memory = UNENCODED[f"{meaning}_LDX{LETTERS[size]}_{'X' if others else 'K'}"]
        self.gone.add(found.place)
        return Op(
            with_memory, (*load.args, *others), end.imm, load.offset, end.pc, (), None, False, "", load.scale
        )
