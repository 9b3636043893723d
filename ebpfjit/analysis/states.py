"""What is known at a point of a program, and what of that holds where paths meet or a comparison held."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from functools import cache
from typing import TypeVar

from ebpfjit.analysis import lengths
from ebpfjit.analysis.accesses import (
    ASSUMED,
    EXACT,
    LEVELS,
    NO_SPANS,
    READ,
    RIGHTS,
    WRITTEN,
    Allowing,
    Span,
    Spans,
)
from ebpfjit.analysis.loops import Change
from ebpfjit.analysis.values import (
    ANY,
    ANYTHING,
    CONSTANT,
    MEASURED,
    REFINEMENTS,
    UNKNOWN,
    Bounds,
    Origin,
    Value,
    constant,
    join_symbol,
)
from ebpfjit.bits import W32, W64
from ebpfjit.isa.spec import FRAME_POINTER, REGISTER_COUNT, Row
from ebpfjit.program import Instruction

T = TypeVar("T")
REGISTERS = range(REGISTER_COUNT)
ALL = (1 << REGISTER_COUNT) - 1
WRITABLE = ALL & ~(1 << FRAME_POINTER)
"""Masks of all registers, and of r0 to r9."""
ZERO = constant(0)
NO_SYMBOLS: frozenset[int] = frozenset()
NOT_ZERO = ("JNE", "JGT")


@dataclass(slots=True)
class State:
    """What is known at a point.

    `present` are the symbols at the start of the running block, where it was walked before: the first
    time none of its own can be among them.
    """

    registers: list[Value]
    spans: dict[int, Spans] = field(default_factory=dict)
    written: int = 0  # bit i: byte i below r10 is written, counted downwards from it
    values: dict[int, Span] = field(default_factory=dict)  # behind a lookup's result, unless it is 0
    limits: lengths.Limits = field(default_factory=dict)  # never changed, only replaced
    present: Set[int] = field(default=NO_SYMBOLS, compare=False)

    def copy(self) -> State:
        """Return a state that can be changed apart."""
        values = self.values.copy()
        return State(
            self.registers.copy(), self.spans.copy(), self.written, values, self.limits, self.present
        )


def covers(outer: Span, inner: Span, rights: Allowing | None = None) -> bool:
    """True where what is known of one span says all that is asked of another; `rights` are the argument's."""
    start, stop, level = outer
    if level < EXACT and inner[2] != RIGHTS:
        return start <= inner[0] and inner[1] <= stop and level >= inner[2] & LEVELS
    if level != RIGHTS:
        return start == inner[0] and stop == inner[1] and level >= inner[2] >= EXACT
    if not RIGHTS > inner[2] >= EXACT:
        return outer == inner
    size, stores = inner[1] - inner[0], inner[2] & LEVELS != READ
    return rights is not None and rights.allows(inner[0] - start, size, store=stores)


def refined_by(state: State, insn: Instruction, *, holds: bool) -> State:
    """Return the state where a comparison with a constant held, or did not."""
    row = insn.row
    assert row is not None  # it is a comparison
    refine = REFINEMENTS[row.meaning][0 if holds else 1]
    value = state.registers[insn.dst_reg]
    is_zero = row.width is W64 and (state.registers[insn.src_reg] == ZERO if row.uses_src else not insn.imm)
    if is_zero and value.symbol in state.values:
        return _found(state, value, row) if holds == (row.meaning in NOT_ZERO) else state
    if refine is None or value.origin is not Origin.SCALAR or value.bounds is None:
        return state
    if row.uses_src:
        other = state.registers[insn.src_reg]
        if other.symbol != CONSTANT:
            return state
        number = other.offset
    else:
        number = row.width.wrap(insn.imm)
    if value.symbol == CONSTANT:
        return state
    if row.width is W32 and (value.bounds[1] > W32.mask or number > W32.mask):
        return state
    bounds = refine(value.bounds, number)
    if bounds is None or bounds == value.bounds:
        return state  # None: this way is never taken; that it is not followed is nothing we need
    refined = state.copy()
    found = Value(value.symbol, value.offset, value.origin, bounds)
    for register, same in enumerate(state.registers):
        if same == value and value.symbol != UNKNOWN:
            refined.registers[register] = found
    refined.registers[insn.dst_reg] = found
    return refined


def _found(state: State, value: Value, row: Row) -> State:
    """Return the state where a lookup's result is not zero."""
    if value.offset or row.meaning not in (*NOT_ZERO, "JEQ", "JLE"):
        return state
    refined = state.copy()
    known = state.spans.get(value.symbol, NO_SPANS)
    refined.spans[value.symbol] = known | {state.values[value.symbol]}
    return refined


@cache
def registers_of(mask: int) -> tuple[int, ...]:
    """Return the registers of a mask, in order."""
    return tuple(register for register in REGISTERS if mask >> register & 1)


def entered_loop(state: State, pc: int, loop: Mapping[int, Change]) -> State:
    """Return the state in which a loop is entered, as it is expected to be in all rounds."""
    entered = state.copy()
    for register, change in loop.items():
        value = state.registers[register]
        symbol = join_symbol(pc, register)
        bounds = change.expected(value)
        if change.copies is not None and value.origin is Origin.SCALAR:
            bounds = _copied_bounds(state, value, change.copies, loop.get(change.copies))
        entered.registers[register] = Value(symbol, 0, value.origin, bounds)
        if value.symbol in state.spans and not change.steps:
            entered.spans[symbol] = _relative(state, value)
    if state.limits:
        # What is loaded or calculated anew in a loop will hardly be below the length in all rounds.
        steady = [register for register, change in loop.items() if change.steps or change.bounds is None]
        entered.limits = _joined_limits(state, state, pc, steady, widen=False)
    return entered


def _copied_bounds(state: State, value: Value, source: int, change: Change | None) -> Bounds | None:
    """Return the bounds of a register that starts as `value`, and in later rounds as a copy of `source`."""
    other = state.registers[source]
    if other.origin is not Origin.SCALAR or value.bounds is None or other.bounds is None:
        return value.bounds
    by = change.expected(other) if change is not None else other.bounds
    return value.bounds if by is None else (min(value.bounds[0], by[0]), max(value.bounds[1], by[1]))


def seen_through(state: State, live: int) -> State:
    """Return the state as it is kept where a block starts; `live` is the mask of what may be read from there.

    Nothing is known of a register that nobody reads, whatever it held on the way: no path may believe it.
    With it goes what was known of symbols that no other register leads to, so that what is kept of a
    block does not grow with the blocks before it.
    """
    registers = state.registers.copy()
    for register in registers_of(~live & WRITABLE):  # r10 is what the frame counts from, read or not
        registers[register] = ANYTHING
    spans, values, limits = state.spans, state.values, state.limits
    if spans or values or limits:
        kept = {registers[register].symbol for register in registers_of(live)}
        spans, values = _only(spans, kept), _only(values, kept)
        if limits:
            kept.update([value.index[0] for value in registers if value.index is not None])
            limits = _only(limits, kept | {CONSTANT})
    return State(registers, spans, state.written, values, limits)


def _only(facts: dict[int, T], symbols: Set[int]) -> dict[int, T]:
    """Return those of the facts that are about some symbols."""
    if facts.keys() <= symbols:
        return facts
    return {symbol: fact for symbol, fact in facts.items() if symbol in symbols}


def blocks_before(
    uses: Mapping[int, Iterable[int]], starts: Mapping[int, State], ways: Mapping[int, Iterable[int]]
) -> frozenset[int]:
    """Return the blocks at whose start something is ASSUMED that is relied on later.

    `uses` are, by symbol, the blocks that rely on what is assumed of it.
    """
    before: dict[int, list[int]] = {}
    for pc in starts if uses else ():
        for way in ways[pc]:
            before.setdefault(way, []).append(pc)
    relying: set[int] = set()
    for symbol, blocks in uses.items():
        found: set[int] = set()
        work = list(blocks)
        while work:
            pc = work.pop()
            spans = starts[pc].spans.get(symbol, NO_SPANS)
            if pc not in found and any(level & LEVELS == ASSUMED for _, _, level in spans):
                found.add(pc)
                work.extend(before.get(pc, ()))
        relying |= found
    return frozenset(relying)


def _joined_limits(old: State, new: State, pc: int, joined: Iterable[int], *, widen: bool) -> lengths.Limits:
    """Return the limits that hold on both paths to a block; `joined` are registers with its symbols."""
    if not old.limits or not new.limits:
        return {}
    values = [(join_symbol(pc, r), old.registers[r], new.registers[r]) for r in joined]
    own = range(join_symbol(pc, 0), join_symbol(pc, REGISTER_COUNT), 2)
    return lengths.joined(old.limits, new.limits, values, own, widen=widen)


def joined_states(
    old: State,
    new: State,
    pc: int,
    live: Iterable[int],
    looked_at: Iterable[int],
    joined: set[int],
    *,
    widen: bool,
    rights: Allowing | None = None,
) -> State | None:
    """Return what holds on both paths, None where that is what held before; `rights` are the argument's.

    Of the `live` registers `looked_at` are those that may differ, `joined` those that have a symbol
    of the block. Of what is not live nothing was known before, and nothing is.
    """
    registers = old.registers.copy()
    changed = False
    for register in looked_at:
        a, b = registers[register], new.registers[register]
        if register in joined:
            symbol, offset = join_symbol(pc, register), 0
        elif a is b:
            continue
        else:
            symbol, offset = a.symbol, a.offset
        origin = a.origin if a.origin is b.origin else Origin.SCALAR
        bounds = _hull(a, b, origin, widen=widen)
        index = a.index if a.index == b.index and register not in joined else None
        if (symbol, offset, origin, bounds, index) != (a.symbol, a.offset, a.origin, a.bounds, a.index):
            registers[register] = Value(symbol, offset, origin, bounds, index)
            changed = True
    spans = _joined_spans(old, new, registers, live, joined, rights) if old.spans and new.spans else {}
    written = old.written & new.written
    values = {symbol: span for symbol, span in old.values.items() if new.values.get(symbol) == span}
    limits = _joined_limits(old, new, pc, [r for r in live if r in joined], widen=widen)
    found = State(registers, spans, written, values, limits)
    unchanged = (old.spans, old.written, old.values, old.limits) == (spans, written, values, limits)
    return found if changed or not unchanged else None


def _joined_spans(
    old: State,
    new: State,
    registers: list[Value],
    live: Iterable[int],
    joined: set[int],
    rights: Allowing | None,
) -> dict[int, Spans]:
    """Return, by symbol, the spans that were shown on both paths."""
    spans: dict[int, Spans] = {}
    for register in live:
        value = registers[register]
        a, b = old.registers[register], new.registers[register]
        if a.symbol not in old.spans or b.symbol not in new.spans:
            continue
        if register in joined:
            common = common_spans(_relative(old, a), _relative(new, b), rights)
        else:
            common = common_spans(old.spans[a.symbol], new.spans[b.symbol], rights)
        if common:
            spans[value.symbol] = common
    return spans


def _hull(a: Value, b: Value, origin: Origin, *, widen: bool) -> Bounds | None:
    if a.bounds is b.bounds and a.origin is b.origin and a.bounds is not None:
        return a.bounds
    if a.bounds is None or b.bounds is None or a.origin is not b.origin:
        return None if origin in MEASURED else ANY
    if a.bounds[0] <= b.bounds[0] and b.bounds[1] <= a.bounds[1]:
        return a.bounds
    if widen:
        return None if origin in MEASURED else ANY
    return min(a.bounds[0], b.bounds[0]), max(a.bounds[1], b.bounds[1])


def _relative(state: State, value: Value) -> Spans:
    """Return the spans known of a value's symbol, counted from the value itself."""
    known = state.spans.get(value.symbol, NO_SPANS)
    offset = value.offset
    # Which loads are to ask is told by the symbol; under another one they would not be found.
    return frozenset(
        (a - offset, b - offset, w if w & LEVELS == WRITTEN else w & ~LEVELS) for a, b, w in known
    )


def common_spans(a: Spans, b: Spans, rights: Allowing | None = None) -> Spans:
    """Return the spans of either that the other covers; see `covers`."""
    if a == b:
        return a
    if not a or not b:
        return NO_SPANS
    return frozenset(
        [s for s in a if any(covers(t, s, rights) for t in b)]
        + [t for t in b if any(covers(s, t, rights) for s in a)]
    )
