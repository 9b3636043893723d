"""Regions that many runs touch: a list for Python, a chain of tables for machine code; both grow meanwhile.

    address -> [ start | stop | next ]   rows: start, stop, writable, rights
                   |      |      `-----> the next table of the chain, 0 behind the last
                   first row  behind the last row

A region that is added counts at once, in the runs that are in progress too, whichever thread they are in
and whether or not they hold Python's lock: nothing that a run may be reading is moved or changed but for one
word, written last, which is either old or new.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from typing import Any

from ebpfjit.once import ForkLock
from ebpfjit.runtime.memory import Region

ROW_SIZE = 32
HEADER_SIZE = 24
FIRST, BEHIND, NEXT = range(3)
_FEWEST_ROWS = 4

_adding = ForkLock()


class SharedRegions:
    """Regions that all runs of a machine, or of a function, may touch. They are kept, and so is their memory.

    `then` are regions of somebody else that these runs may touch as well: they are behind the own ones.
    """

    def __init__(self, regions: Iterable[Region] = (), then: SharedRegions | None = None) -> None:
        self._then = then
        self._own: list[Region] = []
        self._known: set[tuple[int, int, bool, int]] = set()
        self._tables: list[Any] = []
        self._grow(_FEWEST_ROWS)
        for region in regions:
            self.add(region)

    def _grow(self, rows: int) -> None:
        """Put one more table, still empty, at the end of the chain."""
        table = (ctypes.c_uint64 * ((HEADER_SIZE + rows * ROW_SIZE) // 8))()
        first = ctypes.addressof(table) + HEADER_SIZE
        table[FIRST], table[BEHIND] = first, first
        table[NEXT] = self._then.address if self._then is not None else 0
        last = self._tables[-1] if self._tables else None
        self._tables.append(table)
        if last is not None:
            last[NEXT] = ctypes.addressof(table)

    @property
    def address(self) -> int:
        """The address of the first table, which stays the same."""
        return ctypes.addressof(self._tables[0])

    def add(self, region: Region) -> None:
        """Let all runs touch one more region, from now on; one that they may touch already is no matter."""
        row = region.start, region.stop, region.writable, region.rights_address
        with _adding.held:
            if row in self._known:
                return
            table = self._tables[-1]
            at = (table[BEHIND] - ctypes.addressof(table)) // 8
            if at == len(table):
                self._grow(2 * len(self._own))
                table, at = self._tables[-1], HEADER_SIZE // 8
            self._known.add(row)
            self._own.append(region)
            table[at : at + 4] = row
            table[BEHIND] += ROW_SIZE

    def __iter__(self) -> Iterator[Region]:
        yield from self._own
        if self._then is not None:
            yield from self._then

    def __len__(self) -> int:
        return len(self._own) + (len(self._then) if self._then is not None else 0)
