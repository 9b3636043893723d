"""Where tail calls of a compiled function lead without Python: the functions of programs, by map and index.

    Tails   of one function: each program that it, or what it went on in, has jumped to, as a function
    Table   of one program: its prog_arrays, for machine code (`translators/x86_64/tails.py`)

A program becomes known the first time that Python makes the call. Maps tell what changes in them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ebpfjit.errors import EbpfError
from ebpfjit.record import dataclass
from ebpfjit.runtime.maps.definition import MapType
from ebpfjit.sealed import inside
from ebpfjit.translators.block import EMPTY

if TYPE_CHECKING:
    from ebpfjit.function import JitFunction
    from ebpfjit.program import Program

MOST_ENTRIES = 1 << 14
"""Of larger arrays Python makes each call."""
MOST_UNUSED = 64
"""Programs that are in no array any more, of which the functions are kept: they may be put there again."""
ASK = 0


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """The prog_arrays of a program; `memory` is what machine code reads."""

    address: int
    memory: tuple[Any, ...]


class Tails:
    """The functions that tail calls lead to; `compile` makes one of a program, or raises EbpfError.

    Whoever runs one of them holds the function that this belongs to, and so all of them.
    """

    def __init__(self, compile: Callable[[Program], JitFunction]) -> None:
        self._compile = compile
        self._functions: dict[int, tuple[Program, JitFunction | None]] = {}
        self._arrays: dict[int, tuple[Any, Any]] = {}

    def table_of(self, programs_maps: Iterable[Any]) -> Table:
        """Return the table of a program with these maps."""
        maps = [each for each in programs_maps if each.definition.type == MapType.PROG_ARRAY]
        arrays = [self._entries_of(each) for each in maps if each.definition.max_entries <= MOST_ENTRIES]
        words = [(map_.address, ctypes.addressof(entries), len(entries)) for map_, entries in arrays]
        table = (ctypes.c_uint64 * (3 * len(words) + 1))(*(word for row in words for word in row))
        return Table(ctypes.addressof(table), (table, *arrays))

    def _entries_of(self, map_: Any) -> tuple[Any, Any]:
        """Return an array with its entries, which are kept right from now on."""
        if id(map_) not in self._arrays:
            self._arrays[id(map_)] = map_, (ctypes.c_uint64 * map_.definition.max_entries)()
            map_.watchers.add(self)
            self.renew(map_)
        return self._arrays[id(map_)]

    def renew(self, map_: Any, index: int | None = None) -> None:
        """Write down what an index of an array holds, or all of them."""
        _, entries = self._arrays[id(map_)]
        for each in range(len(entries)) if index is None else (index,):
            entries[each] = self._entry(map_.program_at(each))

    def _entry(self, program: Program | None) -> int:
        if program is None:
            return EMPTY
        _, function = self._functions.get(id(program), (program, None))
        return ASK if function is None else id(function)

    def learn(self, program: Program, *, is_first: bool) -> None:
        """Have machine code make the calls of a program by itself, where that can be.

        Where the call that is going on `is_first` in its run, no run is in any of the functions: then it lets
        go of those that no array holds.
        """
        if id(program) in self._functions:
            return
        if is_first:
            self._let_go()
        try:
            function: JitFunction | None = self._compile(program)
        except (EbpfError, OSError, MemoryError):
            function = None  # who makes the call tells what is wrong with it
        if function is not None and inside(function).gate is None:
            function = None
        self._functions[id(program)] = program, function
        for map_, _ in self._arrays.values():
            for index in map_.indices_of(program):
                self.renew(map_, index)

    def _let_go(self) -> None:
        used = {id(each) for map_, _ in self._arrays.values() for each in map_.programs()}
        unused = [key for key in self._functions if key not in used]
        for key in unused[: max(len(unused) - MOST_UNUSED, 0)]:
            del self._functions[key]
