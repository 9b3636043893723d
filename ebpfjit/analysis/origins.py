"""Where the values of registers and of words of the frame may come from: a walk over a program.

A value may come from each of two places that whoever asks names (the kernel and the context; an arena and
elsewhere): two bits for each register and word. The walk follows basic blocks until nothing new is found;
what may be on some path may be.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

from ebpfjit.analysis.cfg import NEVER_FALLS_THROUGH, is_inside
from ebpfjit.program import Instruction, Program
from ebpfjit.record import dataclass

Origin = tuple[bool, bool]
"""Whether a value may come from the one place, and from the other."""

NEITHER: Origin = (False, False)
WORD = 8
ARGUMENTS = 0b111110  # r1 to r5
KEPT = 0b1111000000  # r6 to r9

MOST_STEPS = 1 << 19
"""Instructions that a walk looks at in all, each as often as something new is known there: two seconds."""


def either(one: Origin, other: Origin) -> Origin:
    """Return where a value may come from that is one of two."""
    return one[0] or other[0], one[1] or other[1]


@dataclass(frozen=True, slots=True)
class Origins:
    """Registers, and words of the frame counted from its top, of which values may come from each place."""

    registers: tuple[int, int] = (0, 0)
    words: tuple[int, int] = (0, 0)

    def joined(self, other: Origins) -> Origins:
        """Return what may be where two paths meet."""
        return Origins(
            (self.registers[0] | other.registers[0], self.registers[1] | other.registers[1]),
            (self.words[0] | other.words[0], self.words[1] | other.words[1]),
        )

    def of(self, register: int) -> Origin:
        """Return where a register's value may come from."""
        return bool(self.registers[0] >> register & 1), bool(self.registers[1] >> register & 1)

    def put(self, register: int, origin: Origin = NEITHER) -> Origins:
        """Return the same with another value in a register."""
        return Origins(_with(self.registers, register, origin), self.words)

    def of_word(self, word: int) -> Origin:
        """Return where the value of a word of the frame may come from."""
        return bool(self.words[0] >> word & 1), bool(self.words[1] >> word & 1)

    def put_word(self, word: int, origin: Origin) -> Origins:
        """Return the same with another value in a word of the frame."""
        return Origins(self.registers, _with(self.words, word, origin))


def _with(bits: tuple[int, int], at: int, origin: Origin) -> tuple[int, int]:
    kept = ~(1 << at)
    return bits[0] & kept | origin[0] << at, bits[1] & kept | origin[1] << at


class TooLong(Exception):  # noqa: N818 - whoever walks does without
    """A walk has looked at MOST_STEPS instructions."""


class Walk(ABC):
    """A walk over a program: `states` is what is known where each basic block that was reached starts.

    `blocks` are the program's basic blocks: their slots, and how many instructions each has; `waiting` are
    those before which something new is known. `steps_left` is how many instructions it may still look at.
    """

    def __init__(self, program: Program, blocks: Mapping[int, int]) -> None:
        self.program = program
        self.blocks = blocks
        self.states: dict[int, Origins] = {}
        self.waiting: list[int] = []
        self.steps_left = MOST_STEPS

    @abstractmethod
    def executed(self, insn: Instruction, state: Origins) -> Origins:
        """Return what is known behind an instruction, on the way to the next one."""

    @abstractmethod
    def leaving(self, insn: Instruction, state: Origins) -> Iterator[tuple[int, Origins]]:
        """Yield where control goes but to the next instruction, and what is known there."""

    def follow(self) -> None:
        """Look through what is waiting until nothing new is found. Raises TooLong."""
        while self.waiting:
            for insn, state in self.through(self.waiting.pop()):
                for target, known in self.leaving(insn, state):
                    self.reach(target, known)

    def reach(self, pc: int, state: Origins) -> None:
        """Take note that a slot is reached in a state; what is no instruction ends the run."""
        if not is_inside(self.program, pc):
            return
        known = self.states.get(pc)
        joined = state if known is None else known.joined(state)
        if joined != known:
            self.states[pc] = joined
            self.waiting.append(pc)

    def through(self, start: int) -> Iterator[tuple[Instruction, Origins]]:
        """Yield the instructions of a block, and what is known before each. Raises TooLong."""
        self.steps_left -= self.blocks[start]
        if self.steps_left < 0:
            raise TooLong
        state, pc, slots = self.states[start], start, self.program.slots
        for _ in range(self.blocks[start]):
            insn = slots[pc]
            if insn is None or insn.row is None:
                return  # nothing runs it
            yield insn, state
            state, pc = self.executed(insn, state), insn.next_pc
        last = insn.row.kind if insn is not None and insn.row is not None else None
        if last not in NEVER_FALLS_THROUGH:
            self.reach(pc, state)

    def all(self) -> Iterator[tuple[Instruction, Origins]]:
        """Yield all instructions that were reached, and what is known before each. Raises TooLong."""
        for start in sorted(self.states):
            yield from self.through(start)
