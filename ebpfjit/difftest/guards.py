"""Guards around the memory that programs get: who leaves his own ends the process, or is seen.

    maps        [ header, keys ... ][ PATTERN ][ values ] no access          each map in pages of its own
    contexts    no access [ struct, room for the packet ] no access
    stacks      no access [ LITTER until a frame is made ] no access

For processes that test only: `install` puts these in the place of what the runtime has.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from ebpfjit.difftest.exchange import exchange
from ebpfjit.runtime.contexts.memory import LowMemory
from ebpfjit.runtime.contexts.packet import PacketContext
from ebpfjit.runtime.maps.definition import MapDefinition
from ebpfjit.runtime.maps.storage import Storage
from ebpfjit.runtime.memory import STACK_SIZE, Stack, address_of

PAGE = mmap.PAGESIZE
_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
PATTERN = 0xC6
LITTER = 0xA5
"""What stacks are filled with: engines zero what a program may see of them."""


def deny(address: int, size: int) -> None:
    """Let nobody touch these pages any more. Raises OSError."""
    _protect(address, size, 0)


def allow(address: int, size: int) -> None:
    """Let these pages be read and written again. Raises OSError."""
    _protect(address, size, mmap.PROT_READ | mmap.PROT_WRITE)


def _protect(address: int, size: int, access: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), access):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def whole_pages(size: int) -> int:
    """Return a size rounded up to pages."""
    return -(-size // PAGE) * PAGE


class GuardedStorage(Storage):
    """A map's memory whose last area, its values, ends where nobody may go on; a pattern lies before it."""

    def __init__(self, definition: MapDefinition, *sizes: int) -> None:
        super().__init__(definition, *sizes, PAGE)  # whatever it refuses, it refuses here
        *_, end = self.offsets
        before = self.offsets[-2]
        self.offsets = self.offsets[:-1]
        room = whole_pages(end)
        self.memory = mmap.mmap(-1, room + PAGE, flags=_PRIVATE)
        self.view = memoryview(self.memory)
        self._pin = ctypes.c_char.from_buffer(self.memory)
        self.address = ctypes.addressof(self._pin)
        deny(self.address + room, PAGE)
        if len(sizes) > 1:  # the first area starts where the map does
            self.offsets[-1] = room - -(-sizes[-1] // 8) * 8
        self.pattern = slice(before, self.offsets[-1]) if len(sizes) > 1 else slice(sizes[0], room)
        self.memory[self.pattern] = bytes([PATTERN]) * (self.pattern.stop - self.pattern.start)

    def is_whole(self) -> bool:
        """True where the pattern is as it was."""
        part: bytes = self.memory[self.pattern]
        return part.count(PATTERN) == len(part)


class GuardedLowMemory(LowMemory):
    """Memory for a context, between pages that nobody may touch; every other one ends where they start."""

    made = 0

    def __init__(self, size: int) -> None:
        room = whole_pages(size)
        super().__init__(PAGE + room + PAGE)
        deny(self.start, PAGE)
        deny(self.start + PAGE + room, PAGE)
        GuardedLowMemory.made += 1
        offset = PAGE + (room - size if GuardedLowMemory.made % 2 else 0)
        self.size = size
        self.view = self.view[offset : offset + size]
        self.start += offset


class GuardedStack(Stack):
    """A stack in a page of its own, full of what was there before; one that is given is as it is."""

    def __init__(self, memory: Any = None) -> None:
        self._own = memory is None
        if memory is None:
            whole = memoryview(mmap.mmap(-1, PAGE + STACK_SIZE + PAGE, flags=_PRIVATE))
            address = address_of(whole)
            deny(address, PAGE)
            deny(address + PAGE + STACK_SIZE, PAGE)
            memory = whole[PAGE : PAGE + STACK_SIZE]
            memory[:] = _LITTER
        super().__init__(memory)

    def reset(self) -> None:
        """Make it as new: without frames."""
        super().reset()
        if self._own:
            self.memory[:] = _LITTER


_LITTER = bytes([LITTER]) * STACK_SIZE


def outside(context: Any, maps: Iterable[Any]) -> str:
    """Return what a run has changed that is nobody's, or where its packet is that it must not be; else ""."""
    for map_ in maps:
        storage = getattr(map_, "storage", None) or getattr(map_, "_storage", None)
        if isinstance(storage, GuardedStorage) and not storage.is_whole():
            return f"what lies before the values of map {map_.name!r} was changed"
    if isinstance(context, PacketContext):
        places = context.first, context.data_meta, context.data, context.data_end, context.last
        if list(places) != sorted(places):
            names = "first, data_meta, data, data_end, last"
            return f"the packet left its memory: {names} are {', '.join(map(str, places))}"
    return ""


def install() -> None:
    """Guard all maps, contexts and stacks that are made in this process from now on."""
    import_module("ebpfjit.difftest.typed")  # with all that names them
    for old, new in _GUARDED:
        exchange(old, new)


_GUARDED = ((Storage, GuardedStorage), (LowMemory, GuardedLowMemory), (Stack, GuardedStack))
