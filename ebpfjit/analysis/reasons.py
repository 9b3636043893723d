"""Which instructions set the result: where code is to remember which of them did it last.

r6 = 1          sets r6                        the reason of r6 is this instruction
...
r0 = r6         r0 has the value of r6         and so is that of r0
exit                                           the reason of the result: that of r0
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ebpfjit.analysis.liveness import effects_of, ways_of
from ebpfjit.analysis.verified import Verified
from ebpfjit.isa.spec import FRAME_POINTER, REGISTER_COUNT, Kind
from ebpfjit.program import Instruction

Reason = tuple[int, int | None]
"""What gets a reason, by number: this instruction (None), or that of another. Registers are 0 to 10."""

RESULT = 1
SLOTS = 8
"""Slots of the stack that have a reason, at most: the numbers behind those of registers."""
CLOBBERED = 0b111111
"""What a local call writes: r0 to r5."""


def reasons_of(verified: Verified) -> dict[int, tuple[Reason, ...]]:
    """Return which registers get a reason at which slots, so that at an exit that of r0 is known.

    Copies are followed from register to register in the program's main function, and through slots of its
    stack that are named by r10 (what is written there through another pointer is not seen); in a function
    that it calls what sets r0 is the reason.
    """
    return _Walk(verified).found


class _Walk:
    """A backward dataflow: which registers (bit n: rn) may be the result, from each block on."""

    def __init__(self, verified: Verified) -> None:
        program = verified.program
        self.ways = ways_of(program, verified.blocks)
        self.insns: dict[int, list[tuple[Instruction, int]]] = {}
        pairs = iter(zip(program.instructions, effects_of(program), strict=True))
        for start, count in verified.blocks.items():
            self.insns[start] = [(insn, writes) for insn, (_, writes) in (next(pairs) for _ in range(count))]
        self.main = self._reachable([0])
        self.slots: dict[int, int] = {}
        self.found: dict[int, tuple[Reason, ...]] = {}
        carried = dict.fromkeys(self.insns, 0)
        waiting = [*self.insns]
        before: dict[int, list[int]] = {start: [] for start in self.insns}
        for start, after in self.ways.items():
            for way in after:
                before[way].append(start)
        while waiting:
            start = waiting.pop()
            now = self._through(start, carried)
            if now != carried[start]:
                carried[start] = now
                waiting += before[start]
        for start in self.insns:
            self._through(start, carried, note=True)
        for start in program.functions:
            unset = tuple((number, None) for number in _numbers(carried[start]))
            if unset:  # it is as the run, or the caller, left it
                self.found[start] = (*unset, *self.found.get(start, ()))

    def _reachable(self, waiting: list[int]) -> set[int]:
        seen: set[int] = set()
        while waiting:
            start = waiting.pop()
            if start not in seen:
                seen.add(start)
                waiting += self.ways[start]
        return seen

    def _copied(self, insn: Instruction, now: int) -> Reason | None:
        """Return what gets which reason by a copy of what may be the result, None where it is none."""
        row = insn.row
        if row is None:
            return None
        if row.kind is Kind.MOVE and row.uses_src and row.operation in ("MOV64", "MOV32"):
            return (insn.dst_reg, insn.src_reg) if now >> insn.dst_reg & 1 else None
        if row.kind is Kind.LOAD and insn.src_reg == FRAME_POINTER and now >> insn.dst_reg & 1:
            slot = self._slot(insn.offset)
            return None if slot is None else (insn.dst_reg, slot)
        if row.kind is Kind.STORE and insn.dst_reg == FRAME_POINTER and insn.offset in self.slots:
            slot = self.slots[insn.offset]
            return (slot, insn.src_reg if row.uses_src else None) if now >> slot & 1 else None
        return None

    def _slot(self, offset: int) -> int | None:
        """Return the number of a slot of the stack, None where there are too many."""
        if offset not in self.slots and len(self.slots) == SLOTS:
            return None
        return self.slots.setdefault(offset, REGISTER_COUNT + len(self.slots))

    def _through(self, start: int, carried: Mapping[int, int], *, note: bool = False) -> int:
        """Return what may be the result from the start of a block on."""
        now = 0
        for way in self.ways[start]:
            now |= carried[way]
        for insn, writes in reversed(self.insns[start]):
            reasons: tuple[Reason, ...] = ()
            kind = insn.row.kind if insn.row is not None else None
            if kind is Kind.EXIT:
                now = RESULT
            elif kind in (Kind.CALL_LOCAL, Kind.CALL_REGISTER):
                now &= ~CLOBBERED  # the function has said it
            elif kind is Kind.PACKET_LOAD:  # it ends the function where there are no such bytes
                now, reasons = now & ~CLOBBERED, ((0, None),)
            elif (copied := self._copied(insn, now) if start in self.main else None) is not None:
                to, source = copied
                now &= ~(1 << to)
                reasons = ((to, source),)
                if source is not None:
                    now |= 1 << source
            elif now & writes:
                reasons = tuple((number, None) for number in _numbers(now & writes))
                now &= ~writes
            if note and reasons:
                self.found[insn.pc] = reasons
        return now


def _numbers(mask: int) -> Iterable[int]:
    return (number for number in range(mask.bit_length()) if mask >> number & 1)
