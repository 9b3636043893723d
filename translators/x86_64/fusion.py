"""What a fusion is: a few instructions in a row that are translated together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ebpfjit.program import Instruction
from ebpfjit.translators.x86_64.target import Context


@dataclass(slots=True, eq=False)
class Fusion:
    """`count` instructions that `emit` translates together, in the place of the last of them.

    Where it `keeps_check`, the first is an access whose check is emitted in its own place. The same
    instructions are the same fusion wherever they stand, so what depends on the place comes from the
    context.
    """

    count: int
    emit: Callable[[Context], None]
    keeps_check: bool = False


Window = Sequence[Instruction]
Matcher = Callable[[Window, Sequence[int]], Fusion | None]
"""matcher(window, live_after): what the instructions of the window begin with, if anything."""
