"""Checks that are made once before a loop, for all of its rounds.

    for (; i < n; i++) { *p = ...; p += 4; }

Where a register steps by the same amount in each round, and a comparison of such a register with what
does not change ends the loop, how far the others get is known before the first round. Code that comes
from outside looks there whether all bytes between are the program's: then the loop needs no check of
them; otherwise it goes on in the copy that checks one by one. A loop may end earlier than the comparison
would have it; that costs a check that was not needed, nothing else.

Only loops without a loop inside, without calls and entered at one place are looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from ebpfjit.analysis.accesses import (
    LONGEST_MERGED_SPAN,
    Access,
    Border,
    Distance,
    Predicate,
    Sweep,
)
from ebpfjit.analysis.liveness import Liveness
from ebpfjit.analysis.values import CONSTANT, Origin, Value, constant, join_symbol
from ebpfjit.bits import U64_MASK, W64
from ebpfjit.isa.spec import Kind
from ebpfjit.program import Instruction
from ebpfjit.record import record

MOST_SWEEPS, MOST_TERMS = 4, 3
LARGEST_FACTOR = 1 << 12
LARGEST_NUMBER = 1 << 30
"""Of all that becomes a displacement or an immediate, after all has been added: they have 32 bits."""
MOST_TESTS = 8
"""The comparisons of a loop that are tried, which keeps loops of many blocks linear."""
COEFFICIENTS = (1, 2, 4, 8)
CALLS = frozenset({Kind.CALL_HELPER, Kind.CALL_KFUNC, Kind.CALL_LOCAL, Kind.CALL_REGISTER, Kind.PACKET_LOAD})

#                  holds        does not
RELATIONS: dict[str, tuple[str, str]] = {
    "JLT": ("<", ">="),
    "JLE": ("<=", ">"),
    "JGT": (">", "<="),
    "JGE": (">=", "<"),
    "JNE": ("!=", "=="),
    "JEQ": ("==", "!="),
    "JSLT": ("<", ">="),
    "JSLE": ("<=", ">"),
    "JSGT": (">", "<="),
    "JSGE": (">=", "<"),
}
MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "!=": "!=", "==": "=="}
UPWARDS, DOWNWARDS = ("<", "<=", "!="), (">", ">=", "!=")

Made = tuple[str, Value, Value]
"""What an addition of registers or a shift by a number made its value of: its meaning, dst and src."""


@dataclass(frozen=True, slots=True)
class Walked:
    """What the last walks through the blocks of loops left behind.

    `starts` and `ends` are the registers at both ends of a block, `last` is its last instruction, `joined`
    are the registers that have a symbol of the block, `bases` are the base of each access, by pc, and its
    offset from there. `made` says what sums and shifts were made of, by symbol.
    """

    starts: dict[int, list[Value]] = field(default_factory=dict)
    ends: dict[int, list[Value]] = field(default_factory=dict)
    last: dict[int, Instruction] = field(default_factory=dict)
    joined: dict[int, set[int]] = field(default_factory=dict)
    bases: dict[int, tuple[Value, int]] = field(default_factory=dict)
    made: dict[int, Made] = field(default_factory=dict)


@record
class _Linear:
    """A sum of registers as they are where the loop starts, plus a number; `step` is added each round."""

    terms: tuple[tuple[int, int], ...]
    offset: int
    step: int


def candidates(
    liveness: Liveness, loops: Mapping[int, set[int]], functions: Iterable[int]
) -> dict[int, set[int]]:
    """Return those of the loops that call nothing and are entered at one place."""
    if not loops:
        return {}
    ways = liveness.ways
    inside = {block: header for header, blocks in loops.items() for block in blocks}
    refused = {inside[function] for function in functions if function in inside}
    for block, targets in ways.items():
        for target in targets:
            header = inside.get(target)
            if header is not None and target != header and inside.get(block) != header:
                refused.add(header)
    found = {header: blocks for header, blocks in loops.items() if header not in refused}
    instructions = liveness.program.instructions
    index = 0
    for start, count in liveness.blocks.items():
        header = inside.get(start)
        if header in found and any(
            insn.row is None or insn.row.kind in CALLS for insn in instructions[index : index + count]
        ):
            del found[header]
        index += count
    return found


def predicates(
    liveness: Liveness, loops: Mapping[int, set[int]], walked: Walked, accesses: dict[int, Access]
) -> dict[int, Predicate]:
    """Return what to ask before which loop, by header; the accesses that need no check then say so."""
    found = {}
    for header, blocks in loops.items():
        checked = _checked(liveness, blocks, accesses)
        if not checked or not all(block in walked.ends for block in blocks):
            continue
        loop = _Loop(liveness, header, blocks, walked)
        predicate, hoisted = loop.predicate(checked)
        if predicate is not None:
            found[header] = predicate
            for access in hoisted:
                accesses[access.pc] = replace(access, span=None, leader=None, before=header)
    return found


def _checked(
    liveness: Liveness, blocks: Iterable[int], accesses: Mapping[int, Access]
) -> dict[int, list[tuple[int, Access]]]:
    """Return the checks in a loop's blocks: by their pc, the accesses that they are for, with their block."""
    found: dict[int, list[tuple[int, Access]]] = {}
    for block in sorted(blocks):
        pc = block
        for _ in range(liveness.blocks[block]):
            access = accesses.get(pc)
            if access is not None and not access.proof:
                found.setdefault(pc if access.leader is None else access.leader, []).append((block, access))
            insn = liveness.program.slots[pc]
            assert insn is not None  # blocks consist of instructions
            pc = insn.next_pc
    return found


class _Loop:
    """One loop, and what its registers do in it."""

    def __init__(self, liveness: Liveness, header: int, blocks: set[int], walked: Walked) -> None:
        self.ways = liveness.ways
        self.header, self.blocks, self.walked = header, blocks, walked
        self.latches = [block for block in blocks if header in self.ways[block]]
        live = liveness.at[header]
        joined = walked.joined[header]
        self.invariant: dict[int, tuple[int, int]] = {}  # by symbol: a register and its offset from it
        self.stepping: dict[int, tuple[int, int]] = {}  # by symbol: a register and its step
        for register, value in enumerate(walked.starts[header][:10]):
            if not live >> register & 1:
                continue
            if register not in joined:
                if value.symbol > CONSTANT:
                    self.invariant[value.symbol] = register, value.offset
                continue
            step = self._step(register)
            if step is not None:
                self.stepping[join_symbol(header, register)] = register, step

    def _step(self, register: int) -> int | None:
        """Return what each round adds to a register, None where that is not always the same."""
        symbol = join_symbol(self.header, register)
        steps = set()
        for latch in self.latches:
            value = self.walked.ends[latch][register]
            steps.add(value.offset if value.symbol == symbol else None)
        return steps.pop() if len(steps) == 1 else None

    def predicate(
        self, checked: Mapping[int, list[tuple[int, Access]]]
    ) -> tuple[Predicate | None, list[Access]]:
        """Return what is to be asked, and the accesses that need no check then."""
        tests = 0
        for block in sorted(self.blocks):
            distance, unit = self._distance(block) or (None, 0)
            if distance is None:
                continue
            tests += 1
            if tests > MOST_TESTS:
                break
            early = self._before(block)
            if not early.isdisjoint(self.latches):
                continue  # there are rounds without the comparison
            early.add(block)
            sweeps: dict[tuple[object, ...], Sweep] = {}
            hoisted: list[Access] = []
            for group in checked.values():
                found = [self._sweep(access, unit, is_early=at in early) for at, access in group]
                if not all(found):
                    continue
                merged = sweeps.copy()
                fits = all(_merge(merged, sweep) for sweep in found if sweep is not None)
                if fits and len(merged) <= MOST_SWEEPS:
                    sweeps = merged
                    hoisted.extend(access for _, access in group)
            if hoisted:
                return Predicate(
                    self.header, frozenset(self.blocks), distance, tuple(sweeps.values())
                ), hoisted
        return None, []

    def _before(self, test: int) -> set[int]:
        """Return the blocks that a round may come by before the block that compares."""
        seen: set[int] = set()
        work = [self.header] if test != self.header else []
        while work:
            block = work.pop()
            seen.add(block)
            for way in self.ways[block]:
                if way in self.blocks and way not in seen and way not in (test, self.header):
                    work.append(way)
        return seen

    def _distance(self, block: int) -> tuple[Distance, int] | None:
        """Return how far the counter that a block's end compares gets, and how far a round takes it."""
        ways = self.ways[block]
        staying = [way for way in ways if way in self.blocks]
        if len(ways) != 2 or len(staying) != 1:
            return None
        insn = self.walked.last[block]
        row = insn.row
        if row is None or row.kind is not Kind.BRANCH or row.width is not W64 or row.meaning not in RELATIONS:
            return None
        relation = RELATIONS[row.meaning][0 if insn.target == staying[0] else 1]
        registers = self.walked.ends[block]
        value = registers[insn.src_reg] if row.uses_src else constant(insn.imm & U64_MASK)
        a, b = self._linear(registers[insn.dst_reg]), self._linear(value)
        if a is None or b is None:
            return None
        if not a.step:
            a, b, value, relation = b, a, registers[insn.dst_reg], MIRRORED[relation]
        if not a.step or b.step or len(a.terms) != 1 or len(b.terms) > 1:
            return None
        if any(coefficient != 1 for _, coefficient in (*a.terms, *b.terms)):
            return None
        if relation not in (UPWARDS if a.step > 0 else DOWNWARDS):
            return None
        return _distance(a, b, value, relation, is_signed=row.meaning.startswith("JS"))

    def _linear(self, value: Value, depth: int = 3) -> _Linear | None:
        """Return a value of this round in terms of the registers where the loop starts."""
        symbol, offset = value.symbol, value.offset
        if symbol == CONSTANT:
            return _Linear((), W64.signed(offset), 0)
        stepping = self.stepping.get(symbol)
        if stepping is not None:
            return _Linear(((stepping[0], 1),), offset, stepping[1])
        invariant = self.invariant.get(symbol)
        if invariant is not None:
            return _Linear(((invariant[0], 1),), offset - invariant[1], 0)
        made = self.walked.made.get(symbol) if depth else None
        if made is None:
            return None
        meaning, dst, src = made
        a = self._linear(dst, depth - 1)
        b = self._linear(src, depth - 1)
        if a is None or b is None:
            return None
        if meaning == "LSH":
            by = 1 << (b.offset % W64.bits)
            terms = tuple((register, coefficient * by) for register, coefficient in a.terms)
            return _Linear(terms, a.offset * by + offset, a.step * by)
        sums = dict(a.terms)
        for register, coefficient in b.terms:
            sums[register] = sums.get(register, 0) + coefficient
        return _Linear(tuple(sorted(sums.items())), a.offset + b.offset + offset, a.step + b.step)

    def _sweep(self, access: Access, unit: int, *, is_early: bool) -> Sweep | None:
        """Return all that an access touches, None where that is not known or not worth it.

        What comes before the comparison happens once more than what comes behind it.
        """
        if access.within or access.origin is Origin.STACK or access.pc not in self.walked.bases:
            return None
        if access.distance is not None and access.distance[0] >= 0:
            return None  # whether that fits does not depend on the loop
        base, offset = self.walked.bases[access.pc]
        at = self._linear(base) if base.origin is not Origin.MAP_VALUE else None
        if at is None or at.step % unit or abs(at.step // unit) > LARGEST_FACTOR:
            return None
        if not 1 <= len(at.terms) <= MOST_TERMS or any(
            coefficient not in COEFFICIENTS for _, coefficient in at.terms
        ):
            return None
        offset, size = at.offset + offset, access.size
        if is_early:
            size += abs(at.step)
            offset += min(at.step, 0)
        if max(abs(offset), size) > LARGEST_NUMBER:
            return None
        stores = access.stores or access.asks
        return Sweep(at.terms, offset, size, at.step // unit, stores, access.origin)


def _distance(
    a: _Linear, b: _Linear, value: Value, relation: str, *, is_signed: bool
) -> tuple[Distance, int] | None:
    """Return how far `a` gets while it has this relation to `b`, whose value is given too; and how far a
    round takes it.
    """
    unit, rises = abs(a.step), a.step > 0
    if unit > LARGEST_NUMBER:
        return None
    exact = relation == "!="
    is_power = not unit & (unit - 1)
    if exact and not is_power:
        return None
    # Numbers that are far from both ends of their range are the same, signed or not, and wrap nowhere.
    bounds = value.bounds if value.origin is Origin.SCALAR else None
    if is_signed:
        low, high = (W64.signed(bounds[0]), W64.signed(bounds[1])) if bounds is not None else (0, U64_MASK)
        if low > high or low < -(1 << 62) or high > 1 << 62:
            return None
    counter, bound = a.terms[0][0], b.terms[0][0] if b.terms else None
    short = unit if exact else 1 if relation in ("<", ">") else 0
    plus = (b.offset - a.offset if rises else a.offset - b.offset) - short
    if abs(plus) > LARGEST_NUMBER:
        return None
    needed = unit - short if not exact and not is_signed else 0
    border = None
    if needed:
        border = _border(b, bounds, needed, rises=rises)
        if border is not None and border.register < 0:
            return None
    minuend, subtrahend = (bound, counter) if rises else (counter, bound)
    return Distance(minuend, subtrahend, plus, unit if is_power else 1, exact, border), unit


def _border(b: _Linear, bounds: tuple[int, int] | None, needed: int, *, rises: bool) -> Border | None:
    """Return what the bound must be for the counter not to wrap behind it, None where it surely is.

    A border of no register is one that does not hold, or that cannot be asked for.
    """
    number = U64_MASK - needed if rises else needed
    if not b.terms:
        known = b.offset & U64_MASK
        bounds = known, known
    if bounds is not None and (bounds[1] <= number if rises else bounds[0] >= number):
        return None
    can_be_asked = b.terms and abs(b.offset) <= LARGEST_NUMBER
    return Border(b.terms[0][0] if can_be_asked else -1, b.offset, rises, number)


def _merge(sweeps: dict[tuple[object, ...], Sweep], sweep: Sweep) -> bool:
    """Put a sweep with one that starts at the same registers; False where both are too long together."""
    key = (sweep.terms, sweep.factor, sweep.origin)
    other = sweeps.get(key)
    if other is not None:
        low = min(sweep.offset, other.offset)
        high = max(sweep.offset + sweep.size, other.offset + other.size)
        if high - low > LONGEST_MERGED_SPAN:
            return False
        sweep = replace(sweep, offset=low, size=high - low, stores=sweep.stores or other.stores)
    sweeps[key] = sweep
    return True
