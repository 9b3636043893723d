"""A program plus what was found out about it: what both engines take."""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any

from ebpfjit.analysis.arena_accesses import ArenaUse, arena_use, narrowed
from ebpfjit.analysis.calls import Calls, calls_of
from ebpfjit.analysis.cfg import block_sizes, illegal_reason, loop_headers, tested_blocks
from ebpfjit.analysis.costs import costs_of
from ebpfjit.analysis.entries import Entries
from ebpfjit.analysis.kernel_loads import kernel_loads
from ebpfjit.analysis.liveness import Liveness, liveness_of, ways_of
from ebpfjit.analysis.nesting import Nesting, nesting_of
from ebpfjit.analysis.segments import Segments, segments_of
from ebpfjit.errors import EMPTY, LoadError, VerifierError
from ebpfjit.program import Program
from ebpfjit.record import dataclass, lazy, replace
from ebpfjit.runtime.memory import STACK_FRAME_SIZE, STACK_SIZE

STACK_ALIGNMENT = 16

StackUsageCalculator = Callable[[bytes, int], int]
"""calculator(prog, pc) -> bytes of stack of the local function that starts at slot pc."""


@dataclass(frozen=True)
class Verified:
    """A program that may run, with its facts.

    `frame_sizes` maps the slot where each function starts to the bytes of its stack frame, a
    multiple of 16. `kernel_loads` are the slots of loads that read the kernel's memory, or zero, where
    they are not in the program's (`ebpfjit.analysis.kernel_loads`): of programs in a world, which has
    such memory. `arena` is what it does with its arena, None where it has no pointer into one.
    """

    program: Program
    frame_sizes: dict[int, int]
    kernel_loads: frozenset[int] = frozenset()
    arena: ArenaUse | None = None

    @property
    def found_elsewhere(self) -> Set[int]:
        """The slots of accesses whose bytes are looked for, so that no check stands for them."""
        return self.kernel_loads if self.arena is None else self.kernel_loads | self.arena.accesses.keys()

    @property
    def knows_all(self) -> bool:
        """True where every access is to the memory of the program, as optimised code takes for granted."""
        return not self.kernel_loads and self.arena is None

    @lazy
    def made(self) -> dict[object, Any]:
        """What an engine made of the program and keeps here, as long as this is, by a key of its own."""
        return {}

    @lazy
    def blocks(self) -> dict[int, int]:
        """The slot where each basic block starts, and the number of its instructions."""
        return block_sizes(self.program)

    @lazy
    def tested(self) -> frozenset[int]:
        """The basic blocks at whose start an instruction limit is looked at."""
        return tested_blocks(self.program, self.blocks)

    @lazy
    def entries(self) -> Entries:
        """The ways into the program, whatever its helpers do."""
        return self.entries_with(None)

    def entries_with(self, calling: frozenset[int] | None) -> Entries:
        """Return the ways into the program where only these helpers (None: all) may call its functions."""
        found = self._entries.get(calling)
        if found is None:
            found = self._entries[calling] = Entries(self.program, calling, self.blocks, self.tested)
        return found

    @lazy
    def _entries(self) -> dict[frozenset[int] | None, Entries]:
        """Those that somebody asked for."""
        return {}

    @lazy
    def ways(self) -> dict[int, list[int]]:
        """The basic blocks that may follow each, by their pcs."""
        return ways_of(self.program, self.blocks)

    @lazy
    def segments(self) -> Segments:
        """What is counted of its runs where somebody counts."""
        return segments_of(self.program, self.blocks, self.ways, self.tested)

    @lazy
    def liveness(self) -> Liveness:
        """Which registers may still be read where each basic block starts."""
        return liveness_of(self.program, self.blocks, self.ways)

    @lazy
    def calls(self) -> Calls:
        """What local calls have to save and count."""
        return calls_of(self.liveness, self.entries, self.frame_sizes, self.illegal)

    @lazy
    def costs(self) -> dict[int, int]:
        """What each basic block, by its pc, costs of an instruction limit."""
        return costs_of(self.program, self.blocks, self.ways, self.tested, self.illegal)

    @lazy
    def nesting(self) -> Nesting:
        """The loops, and which lie in which."""
        return nesting_of(sorted(self.program.functions), self.liveness.ways)

    @lazy
    def loop_headers(self) -> frozenset[int]:
        """The slots that backward jumps go to."""
        return loop_headers(self.program)

    @lazy
    def illegal(self) -> dict[int, str]:
        """The slots of instructions that no engine can run, and why; the verifier leaves none."""
        found = {insn.pc: illegal_reason(insn) for insn in self.program.suspects}
        return {pc: reason for pc, reason in found.items() if reason is not None}


def prepare(program: Program, calculator: StackUsageCalculator | None = None) -> Verified:
    """Return the program with its facts; its read-only maps keep their values from now on.

    Its prog_arrays are those of programs like it from now on. Raises VerifierError for one without
    instructions, whatever another verifier said: nothing can run it.
    Raises LoadError for a reference that nothing resolves, or a calculator's answer that is not from 0 to
    4096 bytes, and MapError for a prog_array of programs of another type.
    """
    if not program.code:
        raise VerifierError(EMPTY, None, "size")
    program = program.own()
    check_references(program)
    for map_ in program.maps:
        map_.used_by(program)
        map_.is_frozen = True
    return Verified(program, {pc: _frame_size(program, pc, calculator) for pc in program.functions})


def in_world(verified: Verified) -> Verified:
    """Return a program with what is so because its runs have a world: memory of the kernel, an arena.

    Arithmetic on pointers into an arena is done on 32 bits from here on.
    """
    arena = arena_use(verified.program, verified.blocks)
    if arena is not None:
        verified = replace(verified, program=narrowed(verified.program, arena.narrow), arena=arena)
    found = kernel_loads(verified.program, verified.blocks) - (
        arena.accesses.keys() if arena else frozenset()
    )
    return replace(verified, kernel_loads=found) if found else verified


def _frame_size(program: Program, pc: int, calculator: StackUsageCalculator | None) -> int:
    if calculator is None:
        return STACK_FRAME_SIZE
    size = calculator(program.code, pc)
    if not isinstance(size, int) or not 0 <= size <= STACK_SIZE:
        raise LoadError(
            f"pc {pc}: the stack usage calculator gave {size!r} for the function "
            f"{program.functions[pc]}; it is to give 0 to {STACK_SIZE} bytes"
        )
    return -(-size // STACK_ALIGNMENT) * STACK_ALIGNMENT


def check_references(program: Program) -> None:
    """Raise LoadError where an instruction refers to something that nothing resolves."""
    if not any(row is not None and row.is_wide for row in program.rows):
        return
    for instruction in program.instructions:
        row = instruction.row
        if row is None or not row.is_wide or row.reference is None:
            continue
        if row.operation == "LDDW_CODE" or instruction.pc in program.references:
            continue
        raise LoadError(
            f"pc {instruction.pc}: lddw refers to a {row.reference.name.lower().replace('_', ' ')} "
            f"({instruction.imm & 0xFFFFFFFF}) that nothing resolves; load the object file it comes "
            f"from, or give the value in Program.references"
        )
