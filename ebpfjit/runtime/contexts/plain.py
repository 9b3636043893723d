"""The context of programs whose struct is none of ours: bytes that the caller gives."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

from ebpfjit.errors import InputError
from ebpfjit.runtime.contexts.outcome import Outcome, Redirect
from ebpfjit.runtime.contexts.types import ProgramType
from ebpfjit.runtime.memory import Region, Stack, address_of
from ebpfjit.runtime.objects import KernelObject


class StructContext:
    """Bytes that r1 points to, at a multiple of 8; some types' programs may write them.

    `argument` is their region, `objects` are structs of the kernel's that come with them.
    """

    redirect: Redirect | None = None
    objects: Sequence[KernelObject] = ()
    packet = None
    headers = None
    argument: Region | None

    def __init__(
        self, type_: ProgramType, data: bytes | memoryview, fields: Mapping[str, Any] | None = None
    ) -> None:
        if fields:
            raise InputError(f"{type_.name} programs get their context's bytes as data, not by fields")
        self._hold(type_, len(data))
        self.memory[:] = data
        self._whole = self.memory
        self._lie_over(self.memory)

    def _lie_over(self, memory: memoryview) -> None:
        """Let these bytes be the struct, as they are."""
        self.memory = memory
        whole = Region.of_buffer("context", memory)
        whole.writable = self.type.struct_writable
        self.argument = whole
        self.regions[:] = [whole]

    def _hold(self, type_: ProgramType, size: int) -> None:
        """Begin with a struct of `size` zeros."""
        self.type = type_
        self.stack = Stack()
        self.memory = aligned(size)
        self.start = address_of(self.memory) if size else 0
        self.argument = None
        self.regions: list[Region] = []

    @property
    def links(self) -> list[tuple[int, int]]:
        """Which pointers it has that no caller gives: (offset, address)."""
        return []

    @property
    def copies(self) -> list[tuple[int, int]]:
        """Which 4 bytes of the struct stand elsewhere too: (offset, address)."""
        return []

    def adopt(self, size: int) -> None:
        """Go on with a run on what is there already, the first `size` bytes of what this was made with."""
        self._lie_over(self._whole[:size])

    def clear(self) -> None:
        """Let go of what the run that was adopted has made of it."""

    @property
    def arguments(self) -> tuple[int, int]:
        """What r1 and r2 start as."""
        return self.start, 0

    def outcome(self) -> Outcome:
        """Return the bytes after the run."""
        return Outcome(bytes(self.memory))


def aligned(size: int) -> memoryview:
    """Return zeroed memory that starts at a multiple of 8."""
    if not size:
        return memoryview(bytearray())
    return memoryview((ctypes.c_uint64 * (-(-size // 8)))()).cast("B")[:size]
