"""What was worked out before, and follows from its key alone: tables, which are emptied when too large."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")

MOST = 1 << 15
"""Entries of a table: a program's words, lines and the like are fewer."""

_all: list[Memo[object, object]] = []


class Memo(dict[K, V]):
    """A table of results by what they follow from. Whoever starts to fill it calls `trim` before."""

    def __init__(self) -> None:
        _all.append(self)  # type: ignore[arg-type] # all that is done with it there is to empty it

    def trim(self) -> Memo[K, V]:
        """Empty the table where it has grown too large, and return it."""
        if len(self) > MOST:
            self.clear()
        return self


def forget() -> None:
    """Empty all tables, as if nothing had been decoded, verified, translated or assembled before."""
    for memo in _all:
        memo.clear()
