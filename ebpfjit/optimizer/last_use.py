"""Where values are live, and where each is read last.

b2 (v3):            live: v1; last: v1 0, v3 2, v4 BEHIND
  v4 = v1 + 5
  v5 = v3 + v4
  if v3 > 5 goto b3(v4) else b4()
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any

from ebpfjit.optimizer.code import Block, Code
from ebpfjit.optimizer.flow import value_count

BEHIND = 1 << 60
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
        self._live: list[dict[int, int]] = [{}] * len(blocks)
        self.last: list[dict[Any, int]] = [{}] * len(blocks)
        self._defined = [-1] * value_count(code)
        is_done = bytearray(len(blocks))
        round_: list[tuple[int, int]] = []
        for number in reversed(order):
            block = blocks[number]
            self.last[number] = last = self._reads(number, block)
            for way in block.ways:
                if way.args:
                    last.update(dict.fromkeys(way.args, BEHIND))
                last.update(self._live[way.block])
                if not is_done[way.block]:
                    round_.append((number, way.block))
            defined = self._defined
            self._live[number] = {value: BEHIND for value in last if defined[value] != number}
            is_done[number] = 1
        self._come_round(code, [(number, value) for number, to in round_ for value in self._live[to]])
        self.live = [sorted(values) for values in self._live]

    def _reads(self, number: int, block: Block) -> dict[Any, int]:
        """Return which operation of a block is the last to read each value, and note what it defines."""
        last: dict[Any, int] = {}
        defined = self._defined
        for value in block.args:
            defined[value] = number
        for index, op in enumerate(block.ops):
            for value in op.args:
                last[value] = index
            if op.exit is not None:
                last.update(zip(op.exit.registers, repeat(index)))
            for value in op.results:
                defined[value] = number
        end = block.end
        last.update(zip(end.args, repeat(len(block.ops))))
        if end.exit is not None:
            last.update(zip(end.exit.registers, repeat(len(block.ops))))
        last.pop(None, None)
        return last

    def _come_round(self, code: Code, waiting: list[tuple[int, int]]) -> None:
        """Have values be live at the ends of blocks, and from there up to where they are defined."""
        before = code.shape.before if waiting else []
        while waiting:
            number, value = waiting.pop()
            if number < 0:
                continue
            last = self.last[number]
            is_new = value not in last
            last[value] = BEHIND
            if is_new and self._defined[value] != number:
                self._live[number][value] = BEHIND
                waiting += [(other, value) for other in before[number]]
