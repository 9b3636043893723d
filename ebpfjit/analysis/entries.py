"""The ways into a program's code: one list, from which all ask that believe anything of who comes.

    way           to                    registers                            frame
    START         slot 0                r1, r2 the arguments, others 0       new
    TAIL_CALL     slot 0                the same: it is a run of its own     new, on a stack of its own
    LOCAL_CALL    what a call names     those of the caller                  new
    CALLX         every function        those of the caller                  new
    CALLBACK      every function        r1 to r5 the helper's, others 0      new
    JUMP          targets, what follows those of who jumps or falls through  that of who jumps
    TIER_CHANGE   tested blocks         as other code of the program left them, which checked other things

A function's address is a number: a program may name it, add it up, or find it in a packet. So where anything
calls by address every function is meant, slot 0 as well, whether or not an instruction takes its address.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum

from ebpfjit.analysis.cfg import NEVER_FALLS_THROUGH
from ebpfjit.isa.spec import Kind
from ebpfjit.isa.table import TABLE, told_by
from ebpfjit.program import Instruction, Program
from ebpfjit.record import dataclass, lazy


class Way(Enum):
    """How control comes to an instruction."""

    START = "start"
    LOCAL_CALL = "local call"
    CALLX = "callx"
    CALLBACK = "callback"
    TAIL_CALL = "tail call"
    TIER_CHANGE = "tier change"
    JUMP = "jump or fall-through"

    __hash__ = object.__hash__  # as that of `Kind`


CALLED = frozenset({Way.LOCAL_CALL, Way.CALLX, Way.CALLBACK})
"""The ways on which a function is entered in the middle of a run, on a frame of its own."""

OUTWARD = frozenset({Kind.CALL_HELPER, Kind.CALL_KFUNC})
"""What calls something outside, which may call functions of the program."""

CALLX, LOCAL_CALLS, KFUNC_CALLS, OUTWARD_CALLS = (
    told_by(*(row for row in TABLE if row.kind in kinds))
    for kinds in ({Kind.CALL_REGISTER}, {Kind.CALL_LOCAL}, {Kind.CALL_KFUNC}, OUTWARD)
)
"""As in `Program.operations`: a program without them need not be read."""


@dataclass(frozen=True)
class Callers:
    """What calls a program's functions: told by its operations, mostly, so that few programs are read for it.

    `calling` are the helpers, by number, that may call functions of the program, None for all; kfuncs
    always may.
    """

    program: Program
    calling: frozenset[int] | None

    def calls_back(self, insn: Instruction) -> bool:
        """True where what an instruction calls may call functions of the program."""
        row = insn.row
        if row is None or row.kind not in OUTWARD:
            return False
        return row.kind is Kind.CALL_KFUNC or self.calling is None or insn.imm & 0xFFFFFFFF in self.calling

    @lazy
    def is_called_back(self) -> bool:
        """True where something outside may call functions of the program."""
        if OUTWARD_CALLS.isdisjoint(self.program.operations):
            return False
        return any(map(self.calls_back, self.program.instructions))

    @lazy
    def by_address(self) -> frozenset[Way]:
        """The ways that lead to every function."""
        program = self.program
        by_register = not CALLX.isdisjoint(program.operations) and any(
            insn.row is not None and insn.row.kind is Kind.CALL_REGISTER for insn in program.instructions
        )
        return frozenset(
            way for way, leads in ((Way.CALLX, by_register), (Way.CALLBACK, self.is_called_back)) if leads
        )

    @property
    def has_local_calls(self) -> bool:
        """True where an instruction calls a function that it names."""
        return not LOCAL_CALLS.isdisjoint(self.program.operations)

    @lazy
    def is_main_called(self) -> bool:
        """True where the program's start is called, by whomever: it starts as any other function then."""
        return bool(self.by_address) or (
            self.has_local_calls
            and any(
                target == 0 and insn.row is not None and insn.row.kind is Kind.CALL_LOCAL
                for insn, target in self.program.jumps
            )
        )

    @property
    def are_nested(self) -> bool:
        """True where a run may have more than one frame."""
        return bool(self.by_address) or self.has_local_calls


@dataclass(frozen=True)
class Entries(Callers):
    """The ways into a program's code.

    `blocks` are the slots where basic blocks start, `tested` those at which a run may change over to other
    code.
    """

    blocks: Collection[int]
    tested: frozenset[int]

    @lazy
    def ways(self) -> dict[int, frozenset[Way]]:
        """The slot where each basic block starts, and the ways to it."""
        program = self.program
        found: dict[int, set[Way]] = {pc: set() for pc in self.blocks}
        for pc in program.functions:
            found[pc] |= self.by_address
        for pc in self.tested:
            found[pc].add(Way.TIER_CHANGE)
        for insn, target in program.jumps:
            if target in found:  # who goes elsewhere ends in a fault
                is_call = insn.row is not None and insn.row.kind is Kind.CALL_LOCAL
                found[target].add(Way.LOCAL_CALL if is_call else Way.JUMP)
        slots = program.slots
        for pc in found:
            before = (slots[pc - 1] or slots[pc - 2]) if pc else None
            if before is not None and before.row is not None and before.row.kind not in NEVER_FALLS_THROUGH:
                found[pc].add(Way.JUMP)
        if 0 in found:
            found[0] |= {Way.START, Way.TAIL_CALL}
        return {pc: frozenset(ways) for pc, ways in found.items()}
