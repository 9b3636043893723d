"""How registers change in loops, guessed before they are walked, so that most are walked once.

A loop is taken to be all that lies between the first and the last of its blocks. What registers
hold where it starts again is guessed from the last instruction there that writes them. A wrong guess
costs a walk, never a wrong finding: what is known where a loop starts is held against what comes back.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

from ebpfjit.analysis.liveness import Liveness
from ebpfjit.analysis.nesting import Nesting
from ebpfjit.analysis.values import (
    ANY,
    ANYTHING,
    MEASURED,
    SUMS,
    Bounds,
    Value,
    bounds_of,
    constant,
    loaded_bounds,
)
from ebpfjit.bits import U64_MASK, W64
from ebpfjit.isa.spec import FRAME_POINTER, REGISTER_COUNT, Kind
from ebpfjit.memo import Memo
from ebpfjit.program import Instruction

MOST_BLOCKS = 64
"""How many of a loop's blocks are looked at, from its end: that keeps deep nests linear."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a loop does to a register: it `steps` by something, or gets values between `bounds`.

    Without bounds it gets what some other register has: the one that it `copies`, where it is all of it.
    """

    steps: bool
    bounds: Bounds | None
    copies: int | None = None

    def expected(self, value: Value) -> Bounds | None:
        """Return the bounds of a register that starts as `value`, in all rounds."""
        if value.origin in MEASURED:
            return None if self.steps else value.bounds
        if self.bounds is None or value.bounds is None:
            return value.bounds
        return min(value.bounds[0], self.bounds[0]), max(value.bounds[1], self.bounds[1])


def changes(known: Liveness, nesting: Nesting) -> dict[int, dict[int, Change]]:
    """Return, for the header of each loop, the live registers that change in it (r0 to r9)."""
    if not nesting.headers:
        return {}
    starts = list(known.blocks)
    writers = _Writers(known, starts)
    found = {}
    for header, (begin, end) in nesting.extents().items():
        first, behind = bisect_left(starts, begin), bisect_right(starts, end)
        live = known.at[header] & ~(1 << FRAME_POINTER)
        found[header] = writers.between(max(first, behind - MOST_BLOCKS), behind, live)
    return found


class _Writers:
    """Which instruction writes a register last, by block."""

    def __init__(self, known: Liveness, starts: list[int]) -> None:
        self.known = known
        self.starts = starts
        self.first = [0]  # the index of each block's first instruction
        for count in known.blocks.values():
            self.first.append(self.first[-1] + count)
        self.seen: dict[int, dict[int, Change]] = {}

    def between(self, first: int, behind: int, live: int) -> dict[int, Change]:
        """Return how registers of a mask change in blocks `first` to `behind`, not included."""
        found: dict[int, Change] = {}
        for block in range(behind - 1, first - 1, -1):
            for register, change in self._of(block).items():
                if live >> register & 1:
                    found.setdefault(register, change)
        return found

    def _of(self, block: int) -> dict[int, Change]:
        changed = self.seen.get(block)
        if changed is None:
            changed = self.seen[block] = {}
            known, start, stop = self.known, self.first[block], self.first[block + 1]
            instructions, effects, words = known.program.instructions, known.effects, known.program.words
            _known_changes.trim(len(instructions))
            for insn, (_, written) in zip(instructions[start:stop], effects[start:stop], strict=True):
                if written:
                    word = words[insn.pc]
                    found = _known_changes.get(word)
                    if found is None:
                        found = _known_changes[word] = _changes_of(insn, written)
                    changed.update(found)  # what comes later counts
        return changed


_known_changes: Memo[int, dict[int, Change]] = Memo()


def _changes_of(insn: Instruction, written: int) -> dict[int, Change]:
    """Return what an instruction does to the registers it writes; that follows from its first word."""
    return {
        register: _change(insn) if register == insn.dst_reg else Change(False, ANY)
        for register in range(REGISTER_COUNT)
        if written >> register & 1
    }


def _change(insn: Instruction) -> Change:
    """Return what an instruction does to its destination."""
    row = insn.row
    assert row is not None  # it writes something
    if row.kind is Kind.BINARY:
        operand = ANYTHING if row.uses_src else constant(insn.imm & U64_MASK)
        return Change(row.meaning in SUMS and row.width is W64, bounds_of(row, ANYTHING, operand))
    if row.kind is Kind.LOAD:
        return Change(False, loaded_bounds(row))
    if row.kind is Kind.MOVE and row.meaning == "MOV":
        if not row.uses_src:
            number = row.width.wrap(insn.imm)
            return Change(False, (number, number))
        return Change(False, None, insn.src_reg) if row.width is W64 else Change(False, (0, row.width.mask))
    return Change(False, ANY)
