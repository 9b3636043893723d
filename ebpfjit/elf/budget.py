"""What loading one file may cost: so many bytes for each byte of the file, whatever its numbers say.

A file's numbers multiply each other: 65,535 members share one name of a megabyte, 1,000 programs call one
function of 10,000 instructions, 50,000 relocations are each looked for among 50,000 symbols. Whoever makes
something that can be a product pays for it here, before it is made.

    budget.spend(len(name), "the names of types")      LoadError where the file does not make up for it
"""

from __future__ import annotations

from ebpfjit.errors import LoadError

BASE = 64 << 20
PER_BYTE = 64
"""What a byte of a file becomes in memory at most, in files that compilers write: some 20 bytes."""

STEP = 128
"""What a step of a walk costs where it is time that multiplies: a load is over in seconds."""
ENTRY_COST = 100
"""Bytes of an entry of a dictionary."""
ERROR_COST = 500
"""Bytes of an error that is kept, its text not counted."""
ESCAPED = 32
"""What a byte costs in a text that is not ASCII: 16 bytes where it is no UTF-8, and as much again in time."""
SHARED = "functions that programs share"
"""What most often costs too much, in words: each program has a copy of its own."""


class OverBudget(LoadError):  # noqa: N818 - as its neighbours in errors.py
    """A file that would cost too much: no part of it is refused, all of it is."""


class Budget:
    """Bytes that are left to load a file of `size` bytes; `name` is what messages call it."""

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self.limit = BASE + PER_BYTE * size
        self.left = self.limit

    def spend(self, amount: int, what: str) -> None:
        """Pay for `amount` bytes, or for steps at `STEP` bytes each. Raises OverBudget saying for `what`."""
        self.left -= amount
        if self.left < 0:
            raise OverBudget(
                f"{self.name}: {what} take more than the {self.limit} bytes that loading a file of"
                f" {self.size} bytes may take: its parts refer to each other too often"
            )


def text_size(data: bytes) -> int:
    """Return what a str of this UTF-8 costs: it may hold escapes (4 characters) and wide ones (4 bytes)."""
    return 64 + len(data) * (1 if data.isascii() else ESCAPED)
