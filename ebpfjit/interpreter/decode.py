"""A program taken apart once: stretches of steps, each decoded when a run first comes to it.

basic block        pc 4 r1 += 1 | pc 5 call 7        | pc 6 r2 = 0 | pc 7 if r1 > r2 goto 4
stretches          body           end (charges)        body          end (charges nothing)
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ebpfjit.analysis.verified import Verified
from ebpfjit.interpreter.steps import DECODERS, ENDS_STRETCH, Step, goes_to
from ebpfjit.record import record
from ebpfjit.runtime import faults
from ebpfjit.runtime.counters import Counters, branch_word, counters_of, segment_word

if TYPE_CHECKING:
    from ebpfjit.interpreter.machine import State

Watcher = Callable[[int, list[int]], None]
"""watcher(pc, registers): told of each instruction before it is executed."""


@record
class Stretch:
    """Instructions that are executed one after the other, from slot `pc` on: `body`, then `end`.

    `end` returns the pc to go on at, or LEFT. Nothing in `body` looks at `State.pc`, or goes elsewhere but
    by a fault. `pcs` are those of all that are counted, which an illegal instruction is not. `cost` is what
    the basic block costs that starts here, 0 where none does; `is_tested` is true where a limit is looked at.
    """

    pc: int
    body: tuple[Step, ...]
    end: Step
    pcs: tuple[int, ...]
    count: int
    cost: int
    is_tested: bool

    def count_behind(self, pc: int | None) -> int:
        """Return how many instructions are behind the one at slot `pc`, at which a run ended."""
        return 0 if pc is None else self.count - bisect_right(self.pcs, pc)


class Decoded:
    """The stretches of a program by the slot they start at; `watched`, each step tells `State.watcher` first.

    `counted`, what is executed is counted (`ebpfjit/runtime/counters.py`). Threads share it: two that come to
    a slot at once may both decode it, and one of the results stays.
    """

    def __init__(self, verified: Verified, *, watched: bool, counted: bool) -> None:
        self.verified = verified
        self.watched = watched
        self.counters = counters_of(verified.program) if counted else None
        self.stretches: dict[int, Stretch] = {}
        self._singles: dict[int, Stretch] = {}

    def stretch_at(self, pc: int) -> Stretch:
        """Return what is executed from slot `pc` on, decoded if need be."""
        found = self.stretches.get(pc)
        if found is None:
            found = self.stretches[pc] = self._decode(pc, len(self.verified.program))
        return found

    def single_at(self, pc: int) -> Stretch:
        """Return the instruction at slot `pc` as a stretch of its own."""
        found = self._singles.get(pc)
        if found is None:
            found = self._singles[pc] = self._decode(pc, 1)
        return found

    def _decode(self, start: int, most: int) -> Stretch:
        """Take at most so many instructions apart, to the end of the basic block or what ends a stretch."""
        verified = self.verified
        slots, blocks = verified.program.slots, verified.blocks
        pc, steps, pcs = start, list[Step](), list[int]()
        end: Step | None = None
        while end is None:
            if len(pcs) == most or (pcs and pc in blocks):
                end = goes_to(pc)
                break
            if self.counters is not None and pc in verified.segments.starts:
                steps.append(_counting(self.counters, pc))
            if pc >= len(slots):
                end = _illegal(pc, "control fell off the end of the program")
            elif pc in verified.illegal:
                end = self._shown(pc, _illegal(pc, verified.illegal[pc]))
            else:
                instruction = slots[pc]
                assert instruction is not None  # jumps into the second half of an lddw were refused
                assert instruction.row is not None  # else it is illegal
                steps.append(
                    self._shown(pc, DECODERS[instruction.row.kind](verified, instruction, instruction.row))
                )
                pcs.append(pc)
                if instruction.row.kind in ENDS_STRETCH:
                    end = steps.pop()
                    if self.counters is not None and pc in verified.segments.branches:
                        end = _counting_branch(self.counters, pc, end)
                pc = instruction.next_pc
        cost = verified.costs.get(start, 0)
        return Stretch(start, tuple(steps), end, tuple(pcs), len(pcs), cost, start in verified.tested)

    def _shown(self, pc: int, step: Step) -> Step:
        """Return a step that the watcher is told of, where there is one."""
        if not self.watched:
            return step

        def watched(state: State, registers: list[int]) -> Any:
            assert state.watcher is not None  # else it would have the plain steps
            state.watcher(pc, registers)
            return step(state, registers)

        return watched


def _counting(counters: Counters, pc: int) -> Step:
    """Return what counts a segment that starts at a slot."""
    words, place = counters.words, segment_word(pc)

    def count(state: State, registers: list[int]) -> None:
        words[place] += 1

    return count


def _counting_branch(counters: Counters, pc: int, end: Step) -> Step:
    """Return a branch that counts when it is not taken."""
    words, place, behind = counters.words, branch_word(pc), pc + 1

    def branch(state: State, registers: list[int]) -> Any:
        following = end(state, registers)
        if following == behind:
            words[place] += 1
        return following

    return branch


def decoded(verified: Verified, *, watched: bool, counted: bool = False) -> Decoded:
    """Return a program taken apart, which is kept as long as it is."""
    key = decoded, watched, counted
    found: Decoded | None = verified.made.get(key)
    if found is None:
        found = verified.made.setdefault(key, Decoded(verified, watched=watched, counted=counted))
    return found


def _illegal(pc: int, reason: str) -> Step:
    def fault(state: State, registers: list[int]) -> int:
        raise faults.illegal_instruction(pc, reason)

    return fault
