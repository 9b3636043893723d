"""What was worked out before, and follows from its key alone: tables, which are emptied when too large."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")

MOST, MOST_OF_EACH = 1 << 15, 4
"""Entries of a table that are kept whatever comes, and besides for each instruction of what comes."""

_all: list[Memo[object, object]] = []


class Memo(dict[K, V]):
    """A table of results by what they follow from. Whoever is going to use it for a program calls `trim`."""

    def __init__(self) -> None:
        _all.append(self)  # type: ignore[arg-type] # all that is done with it there is to empty it

    def trim(self, size: int) -> Memo[K, V]:
        """Empty the table where it is too large for a program of so many instructions, and return it.

        What a large program has left there is good for the same one once more, and is gone with the next.
        """
        if len(self) > MOST + MOST_OF_EACH * size:
            self.clear()
        return self


def forget() -> None:
    """Empty all tables, as if nothing had been decoded, verified, translated or assembled before."""
    for memo in _all:
        memo.clear()
