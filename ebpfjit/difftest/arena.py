"""The memory of compared runs, at the same addresses in every process.

Programs compute with addresses, so their results depend on them: were memory now here and now
there, the same seed would not give the same report.

    BASE                                                one mapping, readable and writable
      + MARGIN      memory: what r1 points to           the address of an input's first byte
      + 5 MARGIN    granted: what a helper hands out
      + 7 MARGIN    stack                           no access around it, and before what is granted
    GUARDED                                             memory of inputs with a guard: from here, or up to
      + ROOM                                            here; no access around that

An offset reaches MARGIN far at most: an access that wrongly goes through is seen by what it reads
or changes. Right around all memory lies PATTERN, or what cannot be touched: there it ends the process.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Mapping

from ebpfjit.difftest.case import MOST_MEMORY, Input
from ebpfjit.difftest.guards import LITTER, PAGE, deny
from ebpfjit.errors import JitUnavailable
from ebpfjit.runtime.execution import Execution, HelperFunction
from ebpfjit.runtime.memory import STACK_FRAME_SIZE, STACK_SIZE, Region, Stack, grant

MARGIN = 1 << 16
BASE = 0x1100_0000_0000  # arenas of eBPF are at 1 << 44 and up, where the kernel engine maps them
MEMORY, GRANTED, STACK = BASE + MARGIN, BASE + 5 * MARGIN, BASE + 7 * MARGIN
SIZE = 9 * MARGIN
GUARDED = BASE + 12 * MARGIN
ROOM = MOST_MEMORY + PAGE
GRANTED_SIZE = 24
SEEN_AROUND = 64
"""Bytes before and behind the memory that are looked at too."""

PATTERN = bytes(range(0x80, 0x80 + SEEN_AROUND))
"""What these hold."""

_LITTER = bytes([LITTER]) * STACK_SIZE
_GRANTED = bytes(range(GRANTED_SIZE)) + PATTERN
_MEMORY_WORD = MEMORY.to_bytes(8, "little")

SUM, GRANT, RAISE, HAND_BACK, MISSING = 5, 6, 7, 8, 99
"""Numbers of helpers: all but the last are there."""

_MAP_FIXED_NOREPLACE = 0x100000


class HelperError(Exception):
    """What the helper RAISE raises."""


def map_at(place: int, size: int) -> memoryview:
    """Return new memory at an address, which must be free. Raises JitUnavailable."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
    )  # fmt: skip
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED_NOREPLACE
    address = libc.mmap(place, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
    if address != place:
        raise JitUnavailable(f"no memory at {place:#x}: {os.strerror(ctypes.get_errno())}")
    return _view(place, size)


def _view(address: int, size: int) -> memoryview:
    return memoryview((ctypes.c_ubyte * size).from_address(address)).cast("B")


class Arena:
    """What runs touch; one a process, as the addresses are fixed. Raises JitUnavailable."""

    def __init__(self) -> None:
        map_at(BASE, SIZE)
        map_at(GUARDED - PAGE, PAGE + ROOM + PAGE)
        for place in (GUARDED - PAGE, GUARDED + ROOM, GRANTED - PAGE, STACK - PAGE, STACK + STACK_SIZE):
            deny(place, PAGE)
        self._open = self._all = _view(MEMORY - SEEN_AROUND, 2 * MARGIN)
        self._guarded = _view(GUARDED, ROOM)
        self._granted = _view(GRANTED, GRANTED_SIZE + SEEN_AROUND)
        self.stack = Stack(_view(STACK, STACK_SIZE))
        self.helpers: Mapping[int, HelperFunction] = {
            SUM: self._sum,
            GRANT: self._grant,
            RAISE: self._raise,
            HAND_BACK: self._hand_back,
        }
        self._start = self._stop = SEEN_AROUND

    def start(self, given: Input, moved: int = 0) -> Execution:
        """Make all memory as new, and return the start of a run; its memory is `moved` up (< MARGIN).

        Where an input has a guard, pointers to MEMORY in it point to where it is.
        """
        content, size = given.memory, len(given.memory)
        if given.guard and not moved:
            self._all, base = self._guarded, GUARDED
            start = 0 if given.guard == "before" else ROOM - size
            content = content.replace(_MEMORY_WORD, (base + start).to_bytes(8, "little"))
        else:
            self._all, base, start = self._open, MEMORY - SEEN_AROUND, SEEN_AROUND + moved
        self._start, self._stop = start, start + size
        stop = self._stop
        self._all[start:stop] = content
        for part in self._around():
            self._all[part] = PATTERN
        self._granted[:] = _GRANTED
        self.stack.reset()
        self.stack.memory[:] = _LITTER
        address = base + start
        region = Region("mem", address, address + size, not given.read_only, self._all[start:stop])
        arguments = (address, size) if size else (0, 0)
        return Execution(
            arguments,
            [region],
            packet=region,
            argument=region,
            helpers=self.helpers,
            kfuncs=self.helpers,
            limit=given.limit,
            stack=self.stack,
        )

    def _around(self) -> list[slice]:
        """Return where PATTERN lies: before and behind the memory, where there is no guard."""
        parts = [slice(self._start - SEEN_AROUND, self._start)] if self._start else []
        return parts + ([slice(self._stop, self._stop + SEEN_AROUND)] if self._stop < len(self._all) else [])

    def memory(self) -> tuple[bytes, bytes]:
        """Return the input's memory, and what lies right before and behind it."""
        return bytes(self._all[self._start : self._stop]), b"".join(
            self._all[part] for part in self._around()
        )

    def granted(self) -> bytes:
        """Return what the helper GRANT hands out."""
        return bytes(self._granted[:GRANTED_SIZE])

    def outside(self) -> str:
        """Return what was changed that no run may change, "" where nothing was."""
        if any(self._all[part] != PATTERN for part in self._around()):
            return "what lies around the memory was changed"
        if self._granted[GRANTED_SIZE:] != PATTERN:
            return "what lies behind granted memory was changed"
        return ""

    def frame(self) -> bytes:
        """Return the main function's frame.

        No call uses it for another: where functions that are called had theirs, an engine need not
        zero what no program can see any more.
        """
        return bytes(self.stack.memory[-STACK_FRAME_SIZE:])

    def _sum(self, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
        return r1 + 3 * r2 - r3 + r4 * r5

    def _grant(self, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
        """Hand out memory, and a pointer that is mostly into it."""
        grant(self._granted[:GRANTED_SIZE])
        return GRANTED + (r1 & 7)

    def _raise(self, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
        raise HelperError(r1)

    def _hand_back(self, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
        return r1


_arena: Arena | None = None


def arena() -> Arena:
    """Return this process's arena, made at the first call."""
    global _arena
    if _arena is None:
        _arena = Arena()
    return _arena
