"""What was stored to a frame once is not loaded from there where a check asks for an address made of it.

    *(u64 *)(v0 - 8) = v1                       *(u64 *)(v0 - 8) = v1
    ...                                         ...
    b3 (v7):                                    b3 (v7):
      v8 = *(u64 *)(v0 - 8)                       v8 = v1
      v9 = v8 + v7                                v9 = v8 + v7
      bound load v9 + 0..4 else leave 9 (...)     bound load v9 + 0..4 else leave 9 (...)
      v10 = *(u32 *)(v9 + 0)                      v10 = *(u32 *)(v9 + 0)

Compilers spill pointers that a loop does not change. Where an array lies in the frame besides, its slots do
not become values (`slots`), and nothing is known of what is loaded; of what was stored there is, so that the
check falls, or is made before the loop.

Contract: each value is what it was. One store writes the bytes, and dominates the load; all others go where
`guards` has shown that they go, to other bytes of the frame or to no frame at all, and nothing is called,
which might write there too. Only what checks ask for is looked at, so that no value is kept for nothing:
from each check back, up to a number of steps.
"""

from __future__ import annotations

from collections.abc import Sequence

from ebpfjit.isa.spec import Kind
from ebpfjit.isa.table import BY_NAME
from ebpfjit.optimizer.code import BOUND, ONLY, Block, Code, Op
from ebpfjit.optimizer.facts import Facts
from ebpfjit.optimizer.flow import with_blocks
from ebpfjit.record import record

MOST_LOADED = 24
"""Places of a frame of which what is stored there is kept as a value."""

MOST_STEPS = 256
"""Operations that are looked at from checks back."""

WRITING = frozenset({Kind.STORE, Kind.ATOMIC})
CALLING = frozenset({Kind.CALL_HELPER, Kind.CALL_KFUNC, Kind.CALL_LOCAL, Kind.CALL_REGISTER})
"""What may write anywhere."""

MAKING = frozenset({Kind.BINARY, Kind.MOVE})
"""What addresses are made by."""

ELSEWHERE = frozenset({"argument", "length", "writable", "map value"})
"""Rules of proofs by which an access is in no frame."""

MASKS = {1: 0xFF, 2: 0xFFFF}
COPY, CONSTANT, LOW_HALF, LOW_CONSTANT, AND = (
    BY_NAME[name] for name in ("MOV64_X", "MOV64_K", "MOV32_X", "MOV32_K", "AND64_K")
)


@record
class _Store:
    """A store to bytes of a frame, `low` to `high` from its end, and where it is."""

    frame: int
    low: int
    high: int
    block: int
    index: int
    op: Op

    def meets(self, frame: int, low: int, high: int) -> bool:
        """True where it may write some of these bytes."""
        return self.frame == frame and self.low < high and low < self.high


def forward(code: Code, guarded: Code, facts: Facts) -> Code:
    """Return code in which what checks ask for is not loaded from a frame, where it is known to be there.

    `guarded` is the code behind `guards`, which tells what is checked and what it knows of accesses.
    """
    asked = {op.args[0] for block in guarded.blocks for op in block.ops if op.row is BOUND and op.args}
    if not asked:
        return code
    return _Forwarding(code, guarded, facts).run(asked)


class _Forwarding:
    """Loads that are gone, by block and place in it, and what stands there instead."""

    def __init__(self, code: Code, guarded: Code, facts: Facts) -> None:
        self.code, self.facts = code, facts
        self.sizes = code.verified.frame_sizes
        self.proofs = guarded.proofs
        bounds = [op for block in guarded.blocks for op in block.ops if op.row is BOUND]
        elsewhere = [op for op in bounds if not op.args or op.region in ONLY.values()]
        self.asked_elsewhere = {op.pc for op in elsewhere if op.imm}
        self.asked = {op.pc for op in bounds} - {op.pc for op in elsewhere}
        """Where it is asked whether bytes are in any region."""
        self.stores: Sequence[_Store] | None = None
        self.made: dict[int, Op] = {}
        """By result, what is made instead of a load."""

    def run(self, asked: set[int]) -> Code:
        """Look for loads that the values that are `asked` for are made of."""
        facts, seen, waiting, left = self.facts, set(asked), [*asked], MOST_STEPS
        while waiting and left and len(self.made) < MOST_LOADED:
            left -= 1
            op = facts.defined[waiting.pop()]
            if op is None:
                continue
            found: tuple[int, ...] = ()
            if op.row.kind in MAKING:
                found = op.args
            elif op.row.kind is Kind.LOAD and not op.row.signed and not op.row.is_ordered:
                store = self.store_of(op)
                if store is not None:
                    self.made[op.results[0]] = instead = _value(store, op)
                    found = instead.args
            waiting += [value for value in found if value not in seen]
            seen.update(found)
        if not self.made:
            return self.code
        numbers = {facts.where[value] for value in self.made}
        blocks = [
            self.without(block) if number in numbers else block
            for number, block in enumerate(self.code.blocks)
        ]
        return with_blocks(self.code, blocks)

    def without(self, block: Block) -> Block:
        """Return a block with other operations instead of loads."""
        ops = [self.made.get(op.results[0], op) if op.results else op for op in block.ops]
        return Block(block.pc, block.args, tuple(ops), block.end, block.ways)

    def store_of(self, load: Op) -> _Store | None:
        """Return the one store to the bytes of a load, which dominates it; None where there is no such."""
        place = self.facts.place(load.args[0])
        if place is None or place[0] < self.facts.frame or place[1] != place[2]:
            return None
        if self.stores is None:
            self.stores = self.all_stores()
        frame, low = place[0], place[1] + load.offset
        high = low + load.row.size
        meeting = [store for store in self.stores if store.meets(frame, low, high)]
        if len(meeting) != 1:
            return None
        (store,) = meeting
        if (store.low, store.high) != (low, high) or store.op.row.kind is not Kind.STORE:
            return None
        return store if self.is_before(store, load) else None

    def is_before(self, store: _Store, load: Op) -> bool:
        """True where every way to a load leads over a store."""
        number = self.facts.where[load.results[0]]
        dominators = self.facts.dominators
        assert dominators is not None  # guards has found them out
        if number != store.block:
            return dominators.dominates(store.block, number)
        return any(op is load for op in self.code.blocks[number].ops[store.index :])

    def all_stores(self) -> Sequence[_Store]:
        """Return the stores to frames; none where something may write anywhere."""
        facts, found = self.facts, []
        for number, block in enumerate(self.code.blocks):
            for index, op in enumerate(block.ops):
                kind = op.row.kind
                if kind in CALLING:
                    return ()
                if kind not in WRITING:
                    continue
                place = facts.place(op.args[0])
                if place is None or place[0] < facts.frame:
                    if not self.is_elsewhere(op.pc):
                        return ()
                    continue
                frame, low, high = place[0], place[1] + op.offset, place[2] + op.offset + op.row.size
                if low < -self.sizes[facts.functions[frame - facts.frame]] or high > 0:
                    return ()
                found.append(_Store(frame, low, high, number, index, op))
        return found

    def is_elsewhere(self, pc: int) -> bool:
        """True where no access of an instruction is in a frame: that is proven, or asked for."""
        proofs = self.proofs.get(pc, ())
        if pc in self.asked or not all(proof.rule in ELSEWHERE for proof in proofs):
            return False
        return bool(proofs) or pc in self.asked_elsewhere


def _value(store: _Store, load: Op) -> Op:
    """Return what makes that which a store left there."""
    op, size = store.op, load.row.size
    if op.row.uses_src:
        row, args, imm = {8: (COPY, op.args[1:], 0), 4: (LOW_HALF, op.args[1:], 0)}.get(
            size, (AND, op.args[1:], MASKS.get(size, 0))
        )
    else:
        row, args, imm = {8: (CONSTANT, (), op.imm), 4: (LOW_CONSTANT, (), op.imm)}.get(
            size, (CONSTANT, (), op.imm & MASKS.get(size, 0))
        )
    return Op(row, args, imm, 0, load.pc, load.results)
