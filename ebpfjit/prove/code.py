"""Code, run on symbolic numbers: what it returns, what it leaves in memory, which bytes it asked for.

Once for each way that its branches go, as they fork the run. What may leave it is left out: a BOUND holds,
and a PAY has enough. Calls and atomics are not run: what is claimed of passes are pieces without
them, and loops of a known number of rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field

from ebpfjit.isa import semantics
from ebpfjit.isa.spec import Kind
from ebpfjit.optimizer.code import Code, Op
from ebpfjit.prove.meanings import WIDTHS, moved, negated_or_swapped, swapped
from ebpfjit.prove.symbolic import W64, Integer, Memory, Truth, chosen, variable
from ebpfjit.record import dataclass

START = Memory()
MOST_BLOCKS = 100


@dataclass
class Run:
    """A run of Code: what values are, memory as it is, the bounds that were asked for, what was paid."""

    values: dict[int, Integer] = field(default_factory=dict)
    memory: Memory = START
    bounds: list[tuple[Integer, int, bool]] = field(default_factory=list)
    paid: int = 0
    result: Integer = 0

    def address(self, op: Op) -> Integer:
        """Return the address that an operation is about."""
        index = self.values[op.args[1]] * op.scale if op.scale else 0
        return W64.wrap(self.values[op.args[0]] + index + op.offset)

    def second(self, op: Op) -> Integer:
        """Return an operation's last value, or its number."""
        return self.values[op.args[-1]] if op.row.uses_src else op.imm

    def load(self, op: Op) -> Integer:
        """Return the bytes that an operation loads, as a number without a sign."""
        return self.memory.load(self.address(op), op.row.size)


def run(code: Code) -> Run:
    """Run code from its first entry on; its registers are variables of their names."""
    state = Run()
    entry = next(iter(code.entries.values()))
    number, given = entry.block, [variable(f"r{register}", 64) for register in entry.registers]
    for _ in range(MOST_BLOCKS):
        block = code.blocks[number]
        state.values.update(zip(block.args, given, strict=True))
        for op in block.ops:
            OPS[op.row.kind](state, op)
        end = block.end
        if end.row.kind is Kind.EXIT:
            state.result = state.values[end.args[0]]
            return state
        way = block.ways[0 if end.row.kind is Kind.JUMP or is_taken(state, end) else 1]
        number, given = way.block, [state.values[value] for value in way.args]
    raise AssertionError("a loop")


def is_taken(state: Run, end: Op) -> bool:
    """Return whether a branch is taken; it forks the run."""
    row = end.row
    if row.kind is Kind.BRANCH_LOAD:
        w, a = WIDTHS[8 * row.size], state.load(end)
    else:
        w, a = WIDTHS[row.width.bits], state.values[end.args[0]]
    return bool(semantics.CONDITION[row.meaning](w, w.wrap(a), w.wrap(state.second(end))))


def _binary(state: Run, op: Op) -> None:
    w, a = WIDTHS[op.row.width.bits], state.values[op.args[0]]
    state.values[op.results[0]] = semantics.BINARY[op.row.meaning](w, w.wrap(a), w.wrap(state.second(op)))


def _move(state: Run, op: Op) -> None:
    state.values[op.results[0]] = moved(op.row, state.second(op))


def _unary(state: Run, op: Op) -> None:
    state.values[op.results[0]] = negated_or_swapped(op.row, state.values[op.args[0]])


def _constant(state: Run, op: Op) -> None:
    state.values[op.results[0]] = W64.wrap(op.imm)


def _sum(state: Run, op: Op) -> None:
    base, index = (state.values[value] for value in op.args)
    w = WIDTHS[op.row.width.bits]
    state.values[op.results[0]] = semantics.sum_(w, base, index, op.scale, op.offset)


def _select(state: Run, op: Op) -> None:
    row, w = op.row, WIDTHS[op.row.width.bits]
    x, *others = (state.values[value] for value in op.args)
    y = others[0] if row.uses_src else op.imm
    holds: Truth | bool = semantics.CONDITION[row.meaning](w, w.wrap(x), w.wrap(y))
    state.values[op.results[0]] = chosen(holds, others[-2], others[-1])


def _load(state: Run, op: Op) -> None:
    row, value = op.row, state.load(op)
    if row.meaning:
        value = swapped(row.size, value)
    elif row.signed:
        value = W64.wrap(WIDTHS[8 * row.size].signed(value))
    state.values[op.results[0]] = value


def _store(state: Run, op: Op) -> None:
    value = WIDTHS[8 * op.row.size].wrap(state.second(op))
    if op.row.meaning:
        value = swapped(op.row.size, value)
    state.memory = state.memory.store(state.address(op), op.row.size, value)


def _binary_load(state: Run, op: Op) -> None:
    w = WIDTHS[op.row.width.bits]
    value = w.wrap(state.values[op.args[-1]])
    state.values[op.results[0]] = semantics.BINARY[op.row.meaning](w, value, state.load(op))


def _update(state: Run, op: Op) -> None:
    w = WIDTHS[op.row.width.bits]
    new = semantics.BINARY[op.row.meaning](w, state.load(op), w.wrap(state.second(op)))
    state.memory = state.memory.store(state.address(op), op.row.size, new)


def _reduce(state: Run, op: Op) -> None:
    row, starts = op.row, [state.address(op), *(state.values[value] for value in op.args[1:])]
    streams = [
        [state.memory.load(W64.wrap(start + place * row.size), row.size) for place in range(op.imm)]
        for start in starts
    ]
    state.values[op.results[0]] = semantics.reduced(WIDTHS[row.width.bits], row.meaning, *streams)


def _bound(state: Run, op: Op) -> None:
    state.bounds.append((state.address(op), op.imm, op.stores))


def _pay(state: Run, op: Op) -> None:
    state.paid += op.imm


OPS: dict[Kind, Callable[[Run, Op], None]] = {
    Kind.BINARY: _binary,
    Kind.MOVE: _move,
    Kind.UNARY: _unary,
    Kind.LOAD_IMM64: _constant,
    Kind.SUM: _sum,
    Kind.SELECT: _select,
    Kind.LOAD: _load,
    Kind.INDEXED_LOAD: _load,
    Kind.STORE: _store,
    Kind.INDEXED_STORE: _store,
    Kind.BINARY_LOAD: _binary_load,
    Kind.UPDATE: _update,
    Kind.REDUCE: _reduce,
    Kind.BOUND: _bound,
    Kind.PAY: _pay,
}


def do_the_same(before: Run, after: Run) -> Truth | bool:
    """Return whether two runs return the same, and leave the same in memory, and ask for the same bytes."""
    same = formula_of(before.result == after.result)
    same = same & is_same_memory(before.memory, after.memory)
    kinds = [[bound[1:] for bound in each.bounds] for each in (before, after)]
    if kinds[0] != kinds[1] or before.paid != after.paid:
        return False
    for (a, *_), (b, *_) in zip(before.bounds, after.bounds, strict=True):
        same = same & formula_of(a == b)
    return same


def is_same_memory(a: Memory, b: Memory) -> Truth | bool:
    """Return whether memory is the same: if it may be by the same stores, whether it is by these."""
    same: Truth | bool = True
    whole = a, b
    while a is not b:
        if not a.args or not b.args:
            return Truth("same memory", whole)
        (a, *one), (b, *other) = a.args, b.args
        for x, y in zip(one, other, strict=True):
            same = same & formula_of(x == y)
    return same


def formula_of(truth: Truth | bool) -> Truth | bool:
    """Return what a comparison gives, which type checkers take for a bool."""
    return truth
