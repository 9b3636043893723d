"""From a case that goes wrong to a small one that still does.

Instructions are removed, jumps re-aimed; operations, constants, registers, memory and limit made
simpler; as long as what goes wrong keeps its nature. Each attempt runs in a child process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from ebpfjit.difftest import classic
from ebpfjit.difftest.case import BUILDS, Case
from ebpfjit.difftest.generate import EXIT, plain
from ebpfjit.difftest.items import Item, put_together, take_apart, without
from ebpfjit.errors import EbpfError
from ebpfjit.isa.spec import Imm, Kind, Offset, Reg
from ebpfjit.program import Instruction, decode

MOST_ATTEMPTS = 3000
StillWrong = Callable[[Case], bool]


class Shrinker:
    """Shrinks one case; `still_wrong(case)` says whether a candidate shows the same."""

    def __init__(self, case: Case, still_wrong: StillWrong, most_attempts: int = MOST_ATTEMPTS) -> None:
        self.case = case
        self.still_wrong = still_wrong
        self.left = most_attempts
        self._seen = {case}

    def run(self) -> Case:
        """Return the smallest case that was found."""
        before = None
        while before != self.case and self.left > 0:
            before = self.case
            self._try_each(_simpler_inputs)
            if self.case.classic:  # what it is translated to follows from it
                self._try_each(classic.simpler)
                continue
            self._remove_instructions()
            self._try_each(_simpler_instructions)
        return self.case

    def _attempt(self, candidate: Case) -> bool:
        """Take a candidate over where it still goes wrong."""
        if self.left <= 0 or candidate in self._seen:
            return False
        self._seen.add(candidate)
        self.left -= 1
        if not self.still_wrong(candidate):
            return False
        self.case = candidate
        return True

    def _remove_instructions(self) -> None:
        """Remove runs of instructions: half of them, a quarter, ... single ones, from the end on.

        An exit at the end stays: a program that ends well is easier to read.
        """
        try:
            size = len(take_apart(self.case.code)) // 2
        except EbpfError:
            return
        while size:
            at = _removable(take_apart(self.case.code))
            while at > 0:
                start = max(at - size, 0)
                items = take_apart(self.case.code)
                code = put_together(without(items, range(start, min(at, _removable(items)))))
                if code:
                    self._attempt(replace(self.case, code=code))
                at = start
            size //= 2

    def _try_each(self, candidates: Callable[[Case], Iterator[Case]]) -> None:
        """Try the candidates of the case as it is, anew after each that was taken over."""
        again = True
        while again and self.left > 0:
            again = any(self._attempt(candidate) for candidate in candidates(self.case))


def _removable(items: list[Item]) -> int:
    """Return how many instructions there are, an exit at the end not counted."""
    last = items[-1].insn.row if items else None
    return len(items) - (last is not None and last.kind is Kind.EXIT)


def _simpler_inputs(case: Case) -> Iterator[Case]:
    """Less memory, of zeros; nothing to tail call; no limit, or a small one; the plain way to compile."""
    given = case.inputs[0]
    memory = given.memory
    if case.twin:
        yield replace(case, twin=b"")
    if case.classic:
        yield replace(case, classic=b"")
    if case.tail:
        yield replace(case, tail=b"")
        yield replace(case, tail=EXIT)
    if case.build != BUILDS[0]:
        yield replace(case, build=BUILDS[0])
    if case.promised:
        yield replace(case, promised=0)
        yield replace(case, promised=case.promised // 2)
    if given.read_only:
        yield replace(case, inputs=(replace(given, read_only=False),))
    for size in (0, len(memory) // 2, len(memory) - 1):
        if case.promised <= size < len(memory):
            yield replace(case, inputs=(replace(given, memory=memory[:size]),))
    if any(memory):
        yield replace(case, inputs=(replace(given, memory=bytes(len(memory))),))
    for at, byte in enumerate(memory):
        if byte:
            changed = memory[:at] + b"\0" + memory[at + 1 :]
            yield replace(case, inputs=(replace(given, memory=changed),))
    # No limit might never end; a small one is easier to follow.
    for limit in (1, 2, 3, 5, 10, 100):
        if given.limit is None or limit < given.limit:
            yield replace(case, inputs=(replace(given, limit=limit),))


def _simpler_instructions(case: Case) -> Iterator[Case]:
    """One instruction made simpler at a time."""
    try:
        count = len(take_apart(case.code))
    except EbpfError:
        return
    for index in range(count):
        for simpler in _simpler(take_apart(case.code)[index].insn):
            items = take_apart(case.code)
            items[index].insn = simpler
            if not _jumps(simpler):
                items[index].target = None
            code = put_together(items)
            if code is not None and code != case.code:
                yield replace(case, code=code)


def _jumps(insn: Instruction) -> bool:
    return insn.row is not None and (insn.row.offset is Offset.TARGET or insn.row.imm is Imm.TARGET)


def _simpler(insn: Instruction) -> Iterator[Instruction]:
    """Smaller constants first, then smaller fields, then simpler operations."""
    row = insn.row
    if row is None:
        return
    if row.kind is Kind.LOAD_IMM64 and row.operation == "LDDW":
        value = insn.imm64
        if value < 1 << 31 or value >= (1 << 64) - (1 << 31):
            yield decode(plain("MOV64_K", insn.dst_reg, imm=insn.imm))[0]
        for lower in (value & 0xFFFFFFFF, value & ~0xFFFFFFFF, value >> 1):
            if lower < value:
                yield replace(insn, imm=_signed(lower), next_imm=_signed(lower >> 32))
    elif row.imm is Imm.OPERAND:
        for imm in (0, 1, -1, insn.imm // 2):
            if abs(imm) < abs(insn.imm) or (imm == 1 and insn.imm == -1):
                yield replace(insn, imm=imm)
    if row.offset is Offset.DISPLACEMENT:
        for offset in (0, insn.offset // 2 // 8 * 8):
            if abs(offset) < abs(insn.offset):
                yield replace(insn, offset=offset)
    if isinstance(row.src, Reg):
        for register in range(min(insn.src_reg, 1)):
            yield replace(insn, src_reg=register)
    if row.kind in (Kind.BINARY, Kind.UNARY, Kind.MOVE, Kind.LOAD) and row.name not in ("MOV64_K",):
        yield decode(plain("MOV64_K", insn.dst_reg, imm=0))[0]


def _signed(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def shrink(case: Case, still_wrong: StillWrong, most_attempts: int = MOST_ATTEMPTS) -> Case:
    """Return the smallest case found in at most so many attempts that `still_wrong` holds for.

    The same case and answers give the same result. Of a case's inputs the first is kept.
    """
    first = replace(case, inputs=case.inputs[:1])
    return Shrinker(first, still_wrong, most_attempts).run()
