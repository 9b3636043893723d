"""Where values are live, and where each is read last.

b2 (v3):            live: v1; last: v1 0, v3 2, v4 BEHIND
  v4 = v1 + 5
  v5 = v3 + v4
  if v3 > 5 goto b3(v4) else b4()
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ebpfjit.optimizer.code import Block, Code

BEHIND = 1 << 29
"""In the place of an operation: the value is read on a way out of the block, or behind it."""


class LastUse:
    """What is live in code; `order` has its blocks in reverse postorder.

    For each block, by number: `live` are the values that are defined elsewhere and read from its start on, in
    order. `last` has of each value that is read in the block, or behind it, the place of the operation that
    reads it last (the end counts as one), or BEHIND.
    """

    def __init__(self, code: Code, order: Sequence[int]) -> None:
        # From the end on all is known at once but for what comes round in loops.
        blocks = code.blocks
        self._live: list[dict[int, int] | None] = [None] * len(blocks)
        self.last: list[dict[Any, int]] = [{}] * len(blocks)
        self._defined: list[list[int]] = [[]] * len(blocks)
        """By block the values that it defines."""
        lives, round_ = self._live, list[tuple[int, int]]()
        for number in reversed(order):
            block = blocks[number]
            self._defined[number] = defined = [*block.args]
            self.last[number] = last = _reads(block, defined)
            for way in block.ways:
                if way.args:
                    last.update(dict.fromkeys(way.args, BEHIND))
                there = lives[way.block]
                if there is None:
                    round_.append((number, way.block))
                else:
                    last.update(there)
            lives[number] = dict.fromkeys(last.keys() - defined, BEHIND)
        self._come_round(code, [(number, value) for number, to in round_ for value in lives[to] or ()])
        self.live = [sorted(values) if values else [] for values in lives]

    def _come_round(self, code: Code, waiting: list[tuple[int, int]]) -> None:
        """Have values be live at the ends of blocks, and from there up to where they are defined."""
        before = code.shape.before if waiting else []
        defined: dict[int, frozenset[int]] = {}
        while waiting:
            number, value = waiting.pop()
            if number < 0:
                continue
            last, live = self.last[number], self._live[number]
            is_new = value not in last
            last[value] = BEHIND
            if is_new and live is not None:
                if number not in defined:
                    defined[number] = frozenset(self._defined[number])
                if value not in defined[number]:
                    live[value] = BEHIND
                    waiting += [(other, value) for other in before[number]]


def _reads(block: Block, defined: list[int]) -> dict[Any, int]:
    """Return which operation of a block is the last to read each value; add what these define."""
    last: dict[Any, int] = {}
    for index, op in enumerate(block.ops):
        for value in op.args:
            last[value] = index
        if op.exit is not None:
            last.update(dict.fromkeys(op.exit.registers, index))
        if op.results:
            defined += op.results
    end, index = block.end, len(block.ops)
    if end.args:
        last.update(dict.fromkeys(end.args, index))
    if end.exit is not None:
        last.update(dict.fromkeys(end.exit.registers, index))
    last.pop(None, None)
    return last
