"""Slots of frames that nothing sees but loads and stores of one size: they become values, as registers do.

    *(u64 *)(r10 - 8) = r1          slot 0 has the value that r1 has
    ...
    r3 = *(u64 *)(r10 - 8)          r3 has that value

A slot is bytes of a function's frame that are always loaded and stored together, at r10 and a number. There
are none in a program that does anything else with r10 anywhere, an access outside of the frame included: what
has the address of a frame reaches the frames of its callers and callees too. They start as zero, as frames
do; where code leaves, its exit says what is in them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ebpfjit.analysis.verified import Verified
from ebpfjit.isa.spec import FRAME_POINTER, REGISTER_COUNT, Kind, Reg
from ebpfjit.optimizer.remarks import Remark
from ebpfjit.program import Instruction
from ebpfjit.record import record

MOST_SLOTS = 64
"""Slots of one function."""

Bytes = tuple[int, int]
"""Where a slot is: bytes from r10, and its size."""


@record
class Slots:
    """The slots of a program's functions.

    `of` has for each load or store of one (by pc) its number in its function, from REGISTER_COUNT on; `bytes`
    for each function (by pc) where its slots are, in the order of their numbers. `functions` says which
    function a block (by pc) is of. `live` has for each instruction which are read from there on, as a mask by
    number; `written` which of them a block writes, in the same way. `remarks` are what was left alone.
    """

    of: Mapping[int, int]
    bytes: Mapping[int, Sequence[Bytes]]
    functions: Mapping[int, int]
    live: Mapping[int, int]
    written: Mapping[int, int]
    remarks: tuple[Remark, ...] = ()


NO_SLOTS = Slots({}, {}, {}, {}, {})


def _none(pc: int, why: str) -> Slots:
    """Return that a program has no slots, and why."""
    return Slots({}, {}, {}, {}, {}, (Remark("slots", pc, why),))


def slots_of(verified: Verified, ways: Mapping[int, Sequence[int]]) -> Slots:
    """Return the slots of a program; `ways` are what follows each block that control comes to."""
    program = verified.program
    other = next((insn for insn in program.instructions if not _is_plain(insn)), None)
    if other is not None:
        return _none(other.pc, "the frame's address goes elsewhere, or what it does with r10 is not known")
    functions = _functions(verified, ways)
    if isinstance(functions, int):
        has_any = any(_base(insn) == FRAME_POINTER for insn in program.instructions)
        return _none(functions, "it is in more than one function") if has_any else NO_SLOTS
    accesses: dict[int, dict[int, Bytes]] = {}
    for start, function in functions.items():
        pc = start
        for _ in range(verified.blocks[start]):
            insn = program.slots[pc]
            assert insn is not None  # a block is made of instructions
            if _base(insn) == FRAME_POINTER and insn.row is not None:
                if not -verified.frame_sizes[function] <= insn.offset <= -insn.row.size:
                    return _none(pc, "it is outside of the frame")  # above is that of who called it
                accesses.setdefault(function, {})[pc] = insn.offset, insn.row.size
            pc = insn.next_pc
    of: dict[int, int] = {}
    bytes_: dict[int, list[Bytes]] = {}
    remarks = []
    for function, found in accesses.items():
        places = _apart(set(found.values()))
        if len(places) > MOST_SLOTS:
            remarks.append(Remark("slots", function, f"of its {len(places)} slots {MOST_SLOTS} are values"))
            del places[MOST_SLOTS:]
        numbers = {place: REGISTER_COUNT + index for index, place in enumerate(places)}
        of.update({pc: numbers[place] for pc, place in found.items() if place in numbers})
        bytes_[function] = places
    if not of:
        return NO_SLOTS
    live, written = _liveness(verified, functions, ways, of)
    return Slots(of, bytes_, functions, live, written, tuple(remarks))


def has_slots(verified: Verified) -> bool:
    """True for a program of which some frame's bytes are values."""
    return bool(slots_of(verified, verified.liveness.ways).of)


def _is_plain(insn: Instruction) -> bool:
    """True where an instruction does not touch r10, or loads or stores at r10 and a number."""
    row = insn.row
    if row is None:
        return False
    if FRAME_POINTER not in (
        insn.dst_reg if isinstance(row.dst, Reg) else -1,
        insn.src_reg if isinstance(row.src, Reg) else -1,
    ):
        return FRAME_POINTER not in row.implicit_reads
    if row.is_ordered:
        return False
    if row.kind is Kind.LOAD:
        return insn.dst_reg != FRAME_POINTER
    return row.kind is Kind.STORE and not (row.uses_src and insn.src_reg == FRAME_POINTER)


def _base(insn: Instruction) -> int:
    """Return the register that an access has its address in, -1 for what is none."""
    row = insn.row
    if row is None:
        return -1
    return {Kind.LOAD: insn.src_reg, Kind.STORE: insn.dst_reg}.get(row.kind, -1)


def _functions(verified: Verified, ways: Mapping[int, Sequence[int]]) -> dict[int, int] | int:
    """Return which function each block is of; or a block that is of two, or a function that is jumped to."""
    found: dict[int, int] = {}
    starts = {0, *verified.program.functions}
    for function in starts:
        waiting = [function]
        while waiting:
            pc = waiting.pop()
            if found.get(pc) == function:
                continue
            if pc in found:
                return pc
            found[pc] = function
            for way in ways[pc]:
                if way in starts:
                    return way
                waiting.append(way)
    return found


def _apart(places: Collection[Bytes]) -> list[Bytes]:
    """Return those places in a frame that no other one overlaps."""
    found: list[Bytes] = []
    stop, alone = -(1 << 32), True
    for offset, size in sorted(places):
        if offset < stop:
            if alone and found:
                found.pop()
            alone = False
            stop = max(stop, offset + size)
            continue
        stop, alone = offset + size, True
        found.append((offset, size))
    return found


def _liveness(
    verified: Verified,
    functions: Mapping[int, int],
    ways: Mapping[int, Sequence[int]],
    of: Mapping[int, int],
) -> tuple[dict[int, int], dict[int, int]]:
    """Return which slots are read from each instruction on, and which each block writes, as masks."""
    slots = verified.program.slots
    # By block: pc, slot as a mask (0: none), whether it is read.
    steps: dict[int, list[tuple[int, int, bool]]] = {}
    written: dict[int, int] = {}
    summaries: dict[int, tuple[int, int]] = {}
    before: dict[int, list[int]] = {}
    for start in functions:
        pc, found = start, []
        for _ in range(verified.blocks[start]):
            insn = slots[pc]
            assert insn is not None  # as everywhere in programs that have slots
            assert insn.row is not None
            number = of.get(pc)
            found.append((pc, 0 if number is None else 1 << number, insn.row.kind is Kind.LOAD))
            pc = insn.next_pc
        steps[start] = found
        read = kept = 0
        for _, mask, loads in reversed(found):
            read = read | mask if loads else read & ~mask
            kept |= 0 if loads else mask
        written[start], summaries[start] = kept, (read, ~kept)
        for way in ways[start]:
            before.setdefault(way, []).append(start)
    at = dict.fromkeys(functions, 0)
    waiting = [*functions]
    while waiting:
        start = waiting.pop()
        read, kept = summaries[start]
        for way in ways[start]:
            read |= at[way] & kept
        if read != at[start]:
            at[start] = read
            waiting += before.get(start, ())
    live: dict[int, int] = {}
    for start, found in steps.items():
        now = 0
        for way in ways[start]:
            now |= at[way]
        for pc, mask, loads in reversed(found):
            now = now | mask if loads else now & ~mask
            live[pc] = now
    return live, written
