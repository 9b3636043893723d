"""Where the value of a register comes from: looked for backwards from one pc, when a fault is worded.

    pc 12   call bpf_map_lookup_elem      the result of a call
    pc 13   r6 = r0                          ^
    pc 14   r1 = *(u32 *)(r6 + 4)         r6 is asked for

Nothing that runs depends on it, so what is not followed (memory, but for words of the frame at r10) is
merely not told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ebpfjit.bits import W64
from ebpfjit.isa.spec import FRAME_POINTER, Kind, Reg
from ebpfjit.program import Instruction, Program
from ebpfjit.record import dataclass

MOST_PLACES = 20_000
"""Pairs of a pc and a register that are looked at for one answer; behind them there is none."""

WORD = 8
_SUMS = ("ADD", "SUB")
_ARGUMENTS = range(1, 6)
_CALLS_OUT = (Kind.CALL_HELPER, Kind.CALL_KFUNC)
_CALLS_IN = (Kind.CALL_LOCAL, Kind.CALL_REGISTER)
_ENDS = (Kind.JUMP, Kind.EXIT)


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a value may come from, on any path.

    `calls` are the pcs of helpers and kfuncs that may have returned it, `tested` those of them whose result
    is compared with zero on the way; `maps` the pcs of wide loads. `places` are "argument" (what r1 is at the
    start), "stack", and "packet": what was loaded through the argument.
    """

    calls: frozenset[int] = frozenset()
    tested: frozenset[int] = frozenset()
    maps: frozenset[int] = frozenset()
    places: frozenset[str] = frozenset()


NOWHERE = Provenance()

Place = tuple[int, bool]
"""A register by its number; or a word of the frame, by its offset from r10."""


def provenance_of(program: Program, pc: int, register: int) -> Provenance:
    """Return where a register's value may come from, before the instruction at `pc`; it is kept."""
    known: dict[tuple[int, int], Provenance] = program.__dict__.setdefault("_provenance", {})
    if (pc, register) not in known:
        known[pc, register] = _Search(program, iter(range(MOST_PLACES))).run(pc, register)
    return known[pc, register]


def _ways_back(program: Program) -> dict[int, list[int]]:
    """Return, for each slot, the slots of the instructions that control may come from, kept with the program.

    Calls of functions are no such way: they come back.
    """
    kept: dict[int, list[int]] | None = program.__dict__.get("_ways_back")
    if kept is None:
        kept = {}
        for insn in program.instructions:
            kind = insn.row.kind if insn.row is not None else Kind.EXIT
            if kind not in _ENDS:
                kept.setdefault(insn.next_pc, []).append(insn.pc)
            if insn.target is not None and kind not in _CALLS_IN:
                kept.setdefault(insn.target, []).append(insn.pc)
        program.__dict__["_ways_back"] = kept
    return kept


def _writes(insn: Instruction, register: int) -> bool:
    """True where an instruction leaves another value in a register."""
    row = insn.row
    assert row is not None  # whoever asks has looked
    named = ((row.dst, insn.dst_reg), (row.src, insn.src_reg))
    by_field = any(use in (Reg.WRITE, Reg.UPDATE) and number == register for use, number in named)
    return by_field or register in row.implicit_writes


class _Search:
    """A search through one program, backwards; with others that it starts, it takes so many `steps`."""

    def __init__(self, program: Program, steps: Iterator[int]) -> None:
        self.program = program
        self.steps = steps
        self.slots = program.slots
        self.ways = _ways_back(program)
        self.calls: set[int] = set()
        self.maps: set[int] = set()
        self.places: set[str] = set()
        self.tests: set[tuple[int, int]] = set()
        self.seen: set[tuple[int, Place]] = set()
        self.whole = True

    def run(self, pc: int, register: int, *, whole: bool = True) -> Provenance:
        """Return where the register's value comes from.

        The `whole` of it with what was loaded through the argument, and which of it was compared with zero.
        """
        self.whole = whole
        work: list[tuple[int, Place]] = [(pc, (register, False))]
        while work:
            pc, place = work.pop()
            if (pc, place) in self.seen:
                continue
            self.seen.add((pc, place))
            if next(self.steps, None) is None:
                return NOWHERE
            if pc in self.program.functions:
                work += self._callers(pc, place)
            for before in self.ways.get(pc, ()):
                insn = self.slots[before]
                if insn is not None:
                    work += self._through(insn, place)
        tested = self._tested() if whole else frozenset[int]()
        return Provenance(frozenset(self.calls), tested, frozenset(self.maps), frozenset(self.places))

    def _callers(self, start: int, place: Place) -> Iterator[tuple[int, Place]]:
        """Yield what a value was where a function was called; note what a run starts with."""
        number, is_word = place
        if is_word:
            return
        if number == FRAME_POINTER:
            self.places.add("stack")
        elif start == 0 and number == 1:
            self.places.add("argument")
        elif number in _ARGUMENTS:
            for insn in self.program.instructions:
                if insn.row is not None and insn.row.kind is Kind.CALL_LOCAL and insn.target == start:
                    yield insn.pc, place

    def _through(self, insn: Instruction, place: Place) -> Iterator[tuple[int, Place]]:
        """Yield what was, before an instruction, the value that is in a place behind it."""
        row = insn.row
        assert row is not None  # control does not come from what is no instruction
        number, is_word = place
        if row.kind is Kind.BRANCH and not row.uses_src and insn.imm == 0:
            self.tests.add((insn.pc, insn.dst_reg))
        if is_word:
            yield from self._word(insn, number)
        elif row.kind in (*_CALLS_OUT, *_CALLS_IN, Kind.PACKET_LOAD) and number < 6:
            yield from self._called(insn, number)
        elif not _writes(insn, number):
            yield insn.pc, place
        else:
            yield from self._made(insn)

    def _made(self, insn: Instruction) -> Iterator[tuple[int, Place]]:
        """Yield what an instruction makes its dst of, as far as that may be a pointer."""
        row = insn.row
        assert row is not None  # `_through` has looked
        match row.kind:
            case Kind.MOVE if row.width is W64 and row.meaning == "MOV" and row.uses_src:
                yield insn.pc, (insn.src_reg, False)
            case Kind.BINARY if row.width is W64 and row.meaning in _SUMS:
                yield insn.pc, (insn.dst_reg, False)
                if row.uses_src and row.meaning == "ADD":
                    yield insn.pc, (insn.src_reg, False)
            case Kind.LOAD_IMM64 if row.reference is not None:
                self.maps.add(insn.pc)
            case Kind.LOAD if insn.src_reg == FRAME_POINTER:
                if row.size == WORD:
                    yield insn.pc, (insn.offset, True)
            case Kind.LOAD if self.whole:
                base = _Search(self.program, self.steps).run(insn.pc, insn.src_reg, whole=False)
                if "argument" in base.places:
                    self.places.add("packet")

    def _word(self, insn: Instruction, offset: int) -> Iterator[tuple[int, Place]]:
        """Yield what was a word of the frame before an instruction."""
        row = insn.row
        assert row is not None  # `_through` has looked
        if row.kind is not Kind.STORE or insn.dst_reg != FRAME_POINTER or insn.offset != offset:
            yield insn.pc, (offset, True)
        elif row.uses_src and row.size == WORD:
            yield insn.pc, (insn.src_reg, False)

    def _called(self, insn: Instruction, number: int) -> Iterator[tuple[int, Place]]:
        """Yield what r0 was where a function ended; note a call that leaves the program.

        What calls leave in r1 to r5 is nothing.
        """
        kind = insn.row.kind if insn.row is not None else None
        if number != 0:
            return
        if kind in _CALLS_OUT:
            self.calls.add(insn.pc)
        elif kind is Kind.CALL_LOCAL and insn.target is not None:
            yield from ((pc, (0, False)) for pc in self._exits(insn.target))

    def _exits(self, start: int) -> Iterable[int]:
        """Return the slots of a function's exits: functions lie one behind the other."""
        stop = min((pc for pc in self.program.functions if pc > start), default=len(self.slots))
        inside = (insn for insn in self.slots[start:stop] if insn is not None)
        return [insn.pc for insn in inside if insn.row is not None and insn.row.kind is Kind.EXIT]

    def _tested(self) -> frozenset[int]:
        """Return the calls whose results were compared with zero where the search came by."""
        found = set[int]()
        for pc, register in self.tests:
            found |= _Search(self.program, self.steps).run(pc, register, whole=False).calls
            if found >= self.calls:
                break
        return frozenset(found & self.calls)
