"""Which helpers a program calls that are not there: found before it runs.

Where every way from the start to an end comes by such a call, the program is refused at once. A
call that some way avoids may never be reached, and is a fault when it is.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping

from ebpfjit.isa.spec import Kind
from ebpfjit.program import Instruction, Program
from ebpfjit.runtime.helpers.names import NUMBERS
from ebpfjit.runtime.helpers.table import helpers, name_of

_TAIL_CALL = NUMBERS["bpf_tail_call"]


def _number(insn: Instruction) -> int | None:
    """Return the number of the helper that an instruction calls, None where it calls none."""
    is_call = insn.row is not None and insn.row.kind is Kind.CALL_HELPER
    return insn.imm & 0xFFFFFFFF if is_call else None


def _may_end(insn: Instruction) -> bool:
    """True where the program, or the function, may end at an instruction."""
    row = insn.row
    return row is None or row.kind in (Kind.EXIT, Kind.PACKET_LOAD) or _number(insn) == _TAIL_CALL


def _successors(insn: Instruction) -> Iterator[int]:
    row = insn.row
    if insn.target is not None and row is not None and row.kind is not Kind.CALL_LOCAL:
        yield insn.target
    if row is not None and row.kind is not Kind.JUMP:
        yield insn.next_pc


class _Search:
    """Looks for the calls that nothing leads around, function by function."""

    def __init__(self, program: Program, absent: Container[int | None]) -> None:
        self.slots = program.slots
        self.absent = absent
        self.certain: dict[int, list[Instruction]] = {}  # functions that surely call what is not there

    def calls_of(self, start: int) -> list[Instruction]:
        """Return the calls that a function comes by first; none where some way avoids them all."""
        found: list[Instruction] = []
        seen, work = set[int](), [start]
        while work:
            pc = work.pop()
            if pc in seen:
                continue
            seen.add(pc)
            insn = self.slots[pc] if 0 <= pc < len(self.slots) else None
            if insn is None:
                return []  # control leaves the program: a fault of another kind
            if _number(insn) in self.absent:
                found.append(insn)
            elif insn.row is not None and insn.row.kind is Kind.CALL_LOCAL and insn.target in self.certain:
                found.extend(self.certain[insn.target])
            elif _may_end(insn):
                return []
            else:
                work.extend(_successors(insn))
        return found

    def run(self, starts: Iterable[int]) -> list[Instruction]:
        """Return the calls that the program comes by first; `starts` are its functions."""
        starts = list(starts)
        before = -1
        while before != len(self.certain):  # a function's answer may change those of its callers
            before = len(self.certain)
            for start in starts:
                if start not in self.certain and (calls := self.calls_of(start)):
                    self.certain[start] = calls
        return self.certain.get(0, [])


def missing(program: Program, there: Container[int] | None = None) -> Mapping[str, Instruction]:
    """Return the helpers that are not there and one of which a program surely calls: name -> call.

    Empty where it may get along without. `there` are the numbers of those that are, by default all
    that are registered.
    """
    known = helpers() if there is None else there
    called = {number for insn in program.instructions if (number := _number(insn)) is not None}
    absent = {number for number in called if number not in known}
    if not absent:
        return {}
    calls = sorted(_Search(program, absent).run(program.functions), key=lambda insn: insn.pc)
    found: dict[str, Instruction] = {}
    for insn in calls:
        found.setdefault(name_of(insn.imm & 0xFFFFFFFF), insn)
    return found
