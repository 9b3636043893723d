"""States that were kept, by slot and by the calls under way: what they cover is walked no further."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfjit.analysis.liveness import Liveness, live_after, live_before
from ebpfjit.program import Program
from ebpfjit.verifier import callbacks, pruning, structure
from ebpfjit.verifier.kfunc_effects import is_over
from ebpfjit.verifier.refusals import Refused
from ebpfjit.verifier.state import Point, State, keep

if TYPE_CHECKING:
    from ebpfjit.verifier.walk import Walk

_KEPT_APART = 8
"""Instructions between two states that are kept (Linux: add_new_state)."""

_KEPT_APART_IN_LOOPS = 100
"""The same where a way came there before, and is walked still: rounds of a loop are not all worth it."""

_FEW = 10
"""One state for each 1 << _FEW instructions that were walked is kept for a slot whether it covers others or
not: a long walk is worth more of them."""

_MOST_POINTS = 512
"""States kept for one slot; those that covered nothing go first."""

_MOST_MISSES = 3
"""How often a kept state is compared in vain, for each time that it covers one, before it goes (Linux)."""

_ROUNDS = 64
"""The same of a state at which rounds begin that are walked still."""


def _patience(point: Point, is_looping: bool) -> int:
    """Return how often a kept state may cover nothing, for each time that it did (is_state_visited)."""
    return _ROUNDS if is_looping and point.branches > 0 else _MOST_MISSES


class Seen:
    """The states that a walk kept: `kept` of them. `looping` are slots where rounds begin that a run ends."""

    def __init__(self, walk: Walk, live: Liveness) -> None:
        program: Program = walk.program
        self.walk = walk
        self.kept = 0
        self.looping = {insn.pc for insn in program.instructions if callbacks.comes_again(program, insn)}
        self._kept_at = 0
        self._ends = structure.ending(program)
        self._before, self._after = live_before(live), live_after(live)
        self._points: dict[tuple[int, ...], list[Point]] = {}

    def live(self, state: State) -> list[int]:
        """Return the registers (bit n: rn) of each frame that may be read from here on."""
        masks = []
        for frame in state.frames[1:]:
            mask = self._after[frame.call] & ~0b111111
            masks.append(mask | self._before[frame.call] if frame.callback is not None else mask)
        return [*masks, self._before[state.pc]]

    def covers(self, state: State) -> bool:
        """True where a state is walked no further; else it may be kept."""
        pc = state.pc
        if pc not in self._ends:
            endless = Refused(
                "termination",
                f"infinite loop: no exit follows insn {pc}",
                "let the loop end after a number of rounds",
            )
            self.walk.note(state, endless)
            return True
        points = self._points.setdefault((pc, *(frame.call for frame in state.frames[1:])), [])
        live = self.live(state)
        is_looping = pc in self.looping and not is_over(state)
        privileged = self.walk.setting.privileged
        since = self.walk.visited - self._kept_at
        keeps = is_looping or since >= _KEPT_APART
        for point in reversed(points):
            is_before = point.branches > 0
            if is_before and (not is_looping or point.state.rounds == state.rounds):
                if state.since >= 1 and self._goes_round(point, state, live):
                    endless = Refused(
                        "termination",
                        f"infinite loop detected at insn {pc}: what ends it is the same in each round",
                        "count the rounds, and leave the loop by the counter",
                    )
                    self.walk.note(state, endless)
                    return True
                keeps = keeps and (is_looping or since >= _KEPT_APART_IN_LOOPS)
                point.misses += keeps
                continue
            exact = is_before or not point.is_done
            strict = self.walk.moves.is_strict
            if pruning.covers(point, state, live, exact=exact, privileged=privileged, strict=strict):
                point.hits += 1
                if not point.is_done:
                    self._depends(state, point)
                pruning.say_what_matters(point, state, live)
                return True
            point.misses += keeps
        if keeps:
            if len(points) >= self.walk.visited >> _FEW:
                points[:] = [
                    each for each in points if each.misses <= _patience(each, is_looping) * (each.hits + 1)
                ]
            points.append(keep(state))
            self.kept += 1
            self._kept_at = self.walk.visited
            if len(points) > _MOST_POINTS:
                self._drop(points)
        return False

    def widened(self, state: State, point: Point | None, pc: int) -> None:
        """Forget numbers of a state that changed since it came to a slot the last time, from `point` back."""
        where = [(frame.start, frame.call) for frame in state.frames]
        while point is not None:
            old = point.state
            if old.pc == pc and [(frame.start, frame.call) for frame in old.frames] == where:
                pruning.widen(old, state)
                return
            point = point.before

    def _goes_round(self, point: Point, state: State, live: list[int]) -> bool:
        """True where a run that came by a kept state to this one may, or must, go round for ever."""
        if point.state.rounds != state.rounds:
            return False
        if pruning.is_same(point, state, live):
            return True
        # No run could go another way since then: what decided that is known, and is as it was.
        return point.state.choices == state.choices and pruning.covers(
            point, state, live, exact=False, privileged=self.walk.setting.privileged
        )

    def _depends(self, state: State, loop: Point) -> None:
        """Say of what was kept on the way here that what mattered there is known when the loop is done."""
        while not loop.branches:  # what it waits for itself: on the way here, as ways are walked depth first
            assert loop.loop is not None
            loop = loop.loop
        point = state.point
        while point is not None and point is not loop:
            if point.loop is None:
                point.loop = loop
            point = point.before

    @staticmethod
    def _drop(points: list[Point]) -> None:
        """Forget the state that is of least use."""
        worst = min(
            range(len(points) - 1), key=lambda n: (points[n].branches > 0, points[n].hits, -points[n].misses)
        )
        del points[worst]
