"""The context of all other programs: a struct whose bytes the caller gives."""

from __future__ import annotations

from ebpfjit.runtime.contexts.packet import Outcome
from ebpfjit.runtime.contexts.types import ProgramType
from ebpfjit.runtime.memory import Region, Stack


class StructContext:
    """Bytes that r1 points to; some types' programs may write them."""

    redirect = None

    def __init__(self, type_: ProgramType, data: bytes | memoryview) -> None:
        self.type = type_
        self.memory = bytearray(data)
        self.argument = Region.of_buffer("context", self.memory)
        self.argument.writable = type_.struct_writable
        self.packet = None
        self.stack = Stack()
        self.regions = [self.argument]

    @property
    def arguments(self) -> tuple[int, int]:
        """What r1 and r2 start as."""
        return (self.argument.start if self.argument.size else 0), 0

    def outcome(self) -> Outcome:
        """Return the bytes after the run."""
        return Outcome(bytes(self.memory))
