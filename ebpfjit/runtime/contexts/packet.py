"""What the contexts of packet programs share: a packet in low memory that can grow and shrink.

    0          512                 data_meta      data          data_end
    [ struct  ][ headroom ........ [ metadata ]   [ packet ....] tailroom ...]
      ^ r1                         [------- the packet's region ]

All offsets count from the start of the mapping. Programs hold addresses of both, so neither the
mapping nor the struct moves during a run; the region's ends do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ebpfjit.runtime.contexts.fields import Struct
from ebpfjit.runtime.contexts.memory import LowMemory
from ebpfjit.runtime.contexts.types import ProgramType
from ebpfjit.runtime.memory import Region, Stack, running

if TYPE_CHECKING:
    from ebpfjit.runtime.maps.base import Map

LINK_HEADER_SIZE = 14
"""Bytes of an Ethernet header: the shortest packet that BPF_PROG_TEST_RUN takes."""

STRUCT_ROOM = 512
ROOM = 1 << 16
"""Bytes of packet that contexts have room for, but for those of larger packets."""

LARGEST_PACKET = 1 << 24

FieldValues = dict[str, int | tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where a program redirected its packet: to an interface, or to an entry of a map.

    `helper` names how: "bpf_redirect", "bpf_redirect_neigh", ... `ifindex` is None where `map` and
    `key` say it. `flags` are those that the program gave.
    """

    helper: str
    ifindex: int | None = None
    map: str | None = None
    key: bytes | int | None = None
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run left of its context: the packet, what stands before it, the struct's fields."""

    data: bytes
    metadata: bytes = b""
    fields: FieldValues = field(default_factory=dict)
    redirect: Redirect | None = None
    clones: tuple[tuple[int, bytes], ...] = ()


class PacketContext(ABC):
    """A context with a packet; made for one program type, and used for one run after the other.

    `room` is how many bytes of packet its memory is for.
    """

    struct: ClassVar[Struct]
    headroom: ClassVar[int]
    tailroom: ClassVar[int]

    def __init__(self, type_: ProgramType, room: int = ROOM) -> None:
        self.type = type_
        self.room = room
        self.first = STRUCT_ROOM
        self.last = STRUCT_ROOM + self.headroom + room + self.tailroom
        self.memory = LowMemory(self.last)
        self.view = self.memory.view
        self.argument = self.memory.region(self.struct.name, 0, self.struct.size, writable=False)
        self.packet = self.memory.region("packet", self.first, self.first, writable=type_.writes_packet)
        self.words = self.view[: self.struct.size]
        self.data = self.data_end = self.data_meta = self.first
        self.stack = Stack()
        self.redirect: Redirect | None = None
        self.clones: list[tuple[int, bytes]] = []
        # The struct is read-only; a region of its own lies over each stretch that is writable.
        self.regions: list[Region] = [
            self.packet,
            self.argument,
            *(
                self.memory.region(self.struct.name, start, stop, writable=True)
                for start, stop in self.struct.spans(type_.writable)
            ),
        ]

    @property
    def arguments(self) -> tuple[int, int]:
        """What r1 and r2 start as."""
        return self.memory.start, 0

    @property
    def size(self) -> int:
        """Bytes of the packet."""
        return self.data_end - self.data

    def set(self, name: str, value: int) -> None:
        """Store a field of the struct (no array), modulo its size."""
        field_ = self.struct.by_name[name]
        mask = (1 << 8 * field_.size) - 1
        self.words[field_.offset : field_.stop] = (value & mask).to_bytes(field_.size, "little")

    def get(self, name: str) -> int:
        """Return a field of the struct (no array), unsigned."""
        field_ = self.struct.by_name[name]
        return int.from_bytes(self.words[field_.offset : field_.stop], "little")

    def bytes_at(self, offset: int, size: int) -> bytes:
        """Return bytes of the packet, `offset` counted from `data`; the caller has checked the range."""
        start = self.data + offset
        return bytes(self.view[start : start + size])

    def store_at(self, offset: int, data: bytes) -> None:
        """Write bytes of the packet; see `bytes_at`."""
        start = self.data + offset
        self.view[start : start + len(data)] = data

    def place(self) -> None:
        """Make region and struct say where the packet is now."""
        packet = self.packet
        packet.start = self.memory.start + self.data_meta
        packet.stop = self.memory.start + self.data_end
        packet.view = self.view[self.data_meta : self.data_end]
        self.write_pointers()

    def moved(self) -> None:
        """Say that the packet moved or changed its size, in the middle of a run."""
        self.place()
        space = running()
        if space is not None:
            space.changed()

    @property
    @abstractmethod
    def template(self) -> bytes:
        """What the struct, and what lies behind it, starts as, but for what follows from the packet."""

    @abstractmethod
    def adopt(self, size: int) -> None:
        """Go on with a run on what is there already: `size` bytes of packet, and the struct for them."""

    @abstractmethod
    def clear(self) -> None:
        """Make what no run writes anew as it was."""

    @abstractmethod
    def write_pointers(self) -> None:
        """Write into the struct what depends on where the packet is."""

    @abstractmethod
    def outcome(self) -> Outcome:
        """Return what the run left, as copies."""


def named(map_: Map | None) -> str | None:
    """Return a map's name, None without a map."""
    return None if map_ is None else map_.name
