"""Which registers may still be read: a backward dataflow over basic blocks, as bit masks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import accumulate
from types import MappingProxyType

from ebpfjit.analysis.cfg import NEVER_FALLS_THROUGH, illegal_reason
from ebpfjit.isa.spec import FRAME_POINTER, REGISTER_COUNT, Kind, Reg, Row
from ebpfjit.isa.table import TABLE
from ebpfjit.memo import Memo
from ebpfjit.program import Instruction, Program
from ebpfjit.record import dataclass

ALL = (1 << REGISTER_COUNT) - 1
RESULT = 1 << 0
RESULT_AND_ARGUMENTS = 0b111111
CALLERS = frozenset({Kind.CALL_LOCAL, Kind.CALL_REGISTER})
FRAME = 1 << FRAME_POINTER
NO_CALLEES: Mapping[int, int] = MappingProxyType({})

_HANDING_ON = frozenset(row for row in TABLE if row.kind in (Kind.EXIT, Kind.CALL_LOCAL))
"""Of these the calls have a target."""

Effect = tuple[int, int]
"""The registers that are read, and those that are written."""


@dataclass(frozen=True, slots=True)
class Liveness:
    """Which registers (bit n: rn) may be read from the start of each basic block on."""

    program: Program
    blocks: dict[int, int]
    at: dict[int, int]
    ways: dict[int, list[int]]
    effects: list[Effect]


def ways_of(program: Program, blocks: dict[int, int]) -> dict[int, list[int]]:
    """Return where each of the `blocks` (those of `Verified`) hands over to."""
    return {start: _ways(program, last) for start, last in _last_instructions(program, blocks)}


def liveness_of(program: Program, blocks: dict[int, int], ways: dict[int, list[int]]) -> Liveness:
    """Return what is live at the start of each of the `blocks` (those of `Verified`), by the `ways` between.

    A local call reads what the function reads, and writes r0 to r5. An exit hands r0 on, and r1 to r5 as well
    where something behind a call reads one of them. Where functions are called by address, or loads from the
    packet may end them, calls read all, and exits hand all on.
    """
    kinds = {row.kind for row in program.rows if row is not None}
    at_exit = RESULT if kinds.isdisjoint(CALLERS) else RESULT_AND_ARGUMENTS
    effects = _effects(program, at_exit)
    if Kind.CALL_LOCAL in kinds and kinds.isdisjoint({Kind.CALL_REGISTER, Kind.PACKET_LOAD}):
        return Liveness(program, blocks, _through_calls(program, blocks, effects, ways), ways, effects)
    live_at, _ = _live_at_starts(blocks, effects, ways)
    return Liveness(program, blocks, live_at, ways, effects)


def live_after(known: Liveness) -> list[int]:
    """Return for each slot the registers (bit n: rn) that may be read after its instruction."""
    after = [0] * len(known.program)
    instructions, effects = known.program.instructions, known.effects
    index = len(effects)
    for start, count in reversed(known.blocks.items()):
        live = _union(known.at, known.ways[start])
        for insn in reversed(instructions[index - count : index]):
            index -= 1
            after[insn.pc] = live
            reads, writes = effects[index]
            live = (live & ~writes) | reads
    return after


def live_before(known: Liveness) -> list[int]:
    """Return for each slot the registers (bit n: rn) that may be read from its instruction on."""
    before = [0] * len(known.program)
    instructions, effects = known.program.instructions, known.effects
    index = len(effects)
    for start, count in reversed(known.blocks.items()):
        live = _union(known.at, known.ways[start])
        stop, index = index, index - count
        for place in range(stop - 1, index - 1, -1):
            reads, writes = effects[place]
            before[instructions[place].pc] = live = (live & ~writes) | reads
    return before


def _through_calls(
    program: Program, blocks: dict[int, int], effects: list[Effect], ways: dict[int, list[int]]
) -> dict[int, int]:
    """Return what is live where each block starts; give calls and exits the effects that they have.

    Whatever an exit hands on besides r0 is read behind some call, or by nobody: so all exits hand r1 to r5 on
    as soon as one of them is live behind any call.
    """
    callees: dict[int, int] = {}
    exits: list[int] = []
    places: dict[int, int] = {}
    for place, (start, last) in zip(
        accumulate(blocks.values()), _last_instructions(program, blocks), strict=True
    ):
        if last.row not in _HANDING_ON or illegal_reason(last) is not None:
            continue
        target = last.target
        if target is None:
            exits.append(start)
        elif target in blocks:
            callees[start] = target
        else:
            continue
        places[start] = place - 1
        effects[place - 1] = 0, 0
    live_at, handed_on = _live_at_starts(blocks, effects, ways, callees, exits)
    for start in exits:
        effects[places[start]] = handed_on, 0
    for start, target in callees.items():
        effects[places[start]] = live_at[target] | FRAME, RESULT_AND_ARGUMENTS
    return live_at


def _live_at_starts(
    blocks: dict[int, int],
    effects: list[Effect],
    ways: dict[int, list[int]],
    callees: Mapping[int, int] = NO_CALLEES,
    exits: Sequence[int] = (),
) -> tuple[dict[int, int], int]:
    """Return the fixpoint: what is live where each block starts; and behind those that are `exits`.

    Blocks end with calls of their `callees`.
    """
    summaries: dict[int, Effect] = {}  # what is read first, and what is left alone
    before: dict[int, list[int]] = {}
    index = len(effects)
    for start, count in reversed(blocks.items()):
        reads = writes = 0
        stop, index = index, index - count
        for place in range(stop - 1, index - 1, -1):
            read, written = effects[place]
            reads = (reads & ~written) | read
            writes |= written
        summaries[start] = reads, ~writes
        for way in ways[start]:
            before.setdefault(way, []).append(start)
    for start, target in callees.items():
        before.setdefault(target, []).append(start)
    behind = {way for start in callees for way in ways[start]}
    are_exits, handed_on = frozenset(exits), RESULT
    live_at = dict.fromkeys(blocks, 0)
    work = list(blocks)  # taken from its end; a block comes again once for each register at most
    while work:
        start = work.pop()
        reads, kept = summaries[start]
        after = handed_on if start in are_exits else _union(live_at, ways[start])
        if start in callees:
            after = live_at[callees[start]] | FRAME | (after & ~RESULT_AND_ARGUMENTS)
        live = reads | (after & kept)
        if live != live_at[start]:
            live_at[start] = live
            work.extend(before.get(start, ()))
            if start in behind and handed_on == RESULT and live & (RESULT_AND_ARGUMENTS ^ RESULT):
                handed_on = RESULT_AND_ARGUMENTS
                work.extend(exits)
    return live_at, handed_on


def _union(live_at: dict[int, int], following: list[int]) -> int:
    if len(following) == 1:
        return live_at[following[0]]
    live = 0
    for pc in following:
        live |= live_at[pc]
    return live


_STOPPING = frozenset(row for row in TABLE if row.kind in NEVER_FALLS_THROUGH)
_LEADING = frozenset(row for row in TABLE if row.has_target and row.kind is not Kind.CALL_LOCAL)
"""What goes on at its target."""


def _last_instructions(program: Program, blocks: dict[int, int]) -> Iterator[tuple[int, Instruction]]:
    index, instructions = 0, program.instructions
    for start, count in blocks.items():
        index += count
        yield start, instructions[index - 1]


def _ways(program: Program, insn: Instruction) -> list[int]:
    """Return where a block's last instruction hands over to."""
    row = insn.row
    if row is None or illegal_reason(insn) is not None:
        return []
    following = [] if row in _STOPPING else [insn.next_pc]
    if row in _LEADING:
        following.append(insn.pc + 1 + (insn.imm if row.imm_is_target else insn.offset))
    slots = program.slots
    return [pc for pc in following if 0 <= pc < len(slots) and slots[pc] is not None]


_known_effects: dict[int, Memo[int, Effect]] = {RESULT: Memo(), RESULT_AND_ARGUMENTS: Memo()}


def effects_of(program: Program) -> list[Effect]:
    """Return the effect of each instruction, in order: of an exit that hands r0 on; calls read all."""
    return _effects(program, RESULT)


def _effects(program: Program, at_exit: int) -> list[Effect]:
    """Return the effect of each instruction; it follows from the instruction's first word."""
    known, words = _known_effects[at_exit], program.words
    known.trim(len(words))
    instructions = program.instructions
    firsts = words if len(words) == len(instructions) else [words[insn.pc] for insn in instructions]
    effects = list(map(known.get, firsts))
    if None in effects:
        for index, effect in enumerate(effects):
            if effect is None:
                effects[index] = known[firsts[index]] = _effect(instructions[index], at_exit)
    return effects  # type: ignore[return-value]  # all are known now


def _effect(insn: Instruction, at_exit: int) -> Effect:
    """Return the registers that an instruction reads and writes, as masks."""
    row = insn.row
    if row is None or illegal_reason(insn) is not None:
        return 0, 0
    if row.kind is Kind.EXIT:
        return at_exit, 0
    if row.kind in (Kind.CALL_LOCAL, Kind.CALL_REGISTER):
        return ALL, 0
    if row.kind is Kind.PACKET_LOAD:  # it may end the function
        return at_exit | (1 << insn.src_reg if row.uses_src else 0), 0
    reads, writes, dst_read, dst_written, src_read, src_written = _roles(row)
    reads |= dst_read << insn.dst_reg | src_read << insn.src_reg
    writes |= dst_written << insn.dst_reg | src_written << insn.src_reg
    return reads, writes


@cache
def _roles(row: Row) -> tuple[int, int, bool, bool, bool, bool]:
    """Return what a row reads and writes besides its operands; whether dst is read, written, and src."""
    reads = sum(1 << number for number in row.implicit_reads)
    writes = sum(1 << number for number in row.implicit_writes)
    read, written = (Reg.READ, Reg.UPDATE), (Reg.WRITE, Reg.UPDATE)
    return reads, writes, row.dst in read, row.dst in written, row.src in read, row.src in written
