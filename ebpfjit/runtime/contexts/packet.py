"""What the contexts of packet programs share: a packet in low memory that can grow and shrink.

    0          512                 data_meta      data          data_end
    [ struct  ][ headroom ........ [ metadata ]   [ packet ....] tailroom ...]
      ^ r1                         [------- the packet's region ]

All offsets count from the start of the mapping. Programs hold addresses of both, so neither the
mapping nor the struct moves during a run; the region's ends do. What is between `first` and `last` is the
packet's, and nothing else is:

    first <= data_meta <= data <= data_end <= last

`PacketContext.move` holds that, and nothing but `move` and `slide` changes any of the three in between.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from ebpfjit.errors import ExecutionError
from ebpfjit.runtime.contexts.fields import Struct
from ebpfjit.runtime.contexts.memory import LowMemory
from ebpfjit.runtime.contexts.outcome import Outcome, Redirect
from ebpfjit.runtime.contexts.types import ProgramType
from ebpfjit.runtime.execution import Headers
from ebpfjit.runtime.memory import Region, Stack, running

if TYPE_CHECKING:
    from ebpfjit.runtime.maps.base import Map

LINK_HEADER_SIZE = 14
"""Bytes of an Ethernet header: the shortest packet that BPF_PROG_TEST_RUN takes."""

STRUCT_ROOM = 512
ROOM = 1 << 16
"""Bytes of packet that contexts have room for, but for those of larger packets."""

LARGEST_PACKET = 1 << 24


class PacketContext(ABC):
    """A context with a packet; made for one program type, and used for one run after the other.

    `room` is how many bytes of packet its memory is for.
    """

    struct: ClassVar[Struct]
    headroom: ClassVar[int]
    objects: ClassVar[tuple[()]] = ()
    tailroom: ClassVar[int]

    @property
    def headers(self) -> Headers | None:
        """What negative offsets of packet loads count from, None where they lead nowhere."""
        return None

    def __init__(self, type_: ProgramType, room: int = ROOM) -> None:
        self.type = type_
        self.room = room
        self.first = STRUCT_ROOM
        self.last = STRUCT_ROOM + self.headroom + room + self.tailroom
        self.memory = LowMemory(self.last)
        self.view = self.memory.view
        self.argument = self.memory.region(self.struct.name, 0, self.struct.size, writable=True)
        self.argument.rights = type_.rights
        self.packet = self.memory.region("packet", self.first, self.first, writable=type_.writes_packet)
        self.words = self.view[: self.struct.size]
        self._data = self._data_end = self._data_meta = self.first
        self.stack = Stack()
        self.redirect: Redirect | None = None
        self.clones: list[tuple[int, bytes]] = []
        self.regions: list[Region] = [self.packet, self.argument]

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

    @property
    def data(self) -> int:
        """Where the packet starts, as its program sees it."""
        return self._data

    @property
    def data_end(self) -> int:
        """Where the packet ends."""
        return self._data_end

    @property
    def data_meta(self) -> int:
        """Where the metadata in front of the packet starts; `data` where there is none."""
        return self._data_meta

    @property
    def lowest(self) -> int:
        """Where what belongs to the packet starts: metadata, and headers that its program does not see."""
        return self._data_meta

    def move(self, data: int, data_end: int, data_meta: int | None = None) -> None:
        """Put the packet's ends elsewhere, as every helper does that moves one; without metadata by default.

        Who calls it has asked for what Linux refuses, and for room (`make_room`). Raises ExecutionError for a
        packet that would leave its memory.
        """
        meta = data if data_meta is None else data_meta
        if not self.first <= meta <= data <= data_end <= self.last:
            raise ExecutionError(
                f"a packet from {data} to {data_end}, its metadata from {meta}, would leave its memory, "
                f"{self.first} to {self.last}"
            )
        self._data_meta, self._data, self._data_end = meta, data, data_end

    def make_room(self, before: int = 0, behind: int = 0) -> bool:
        """Make room for so many bytes before what belongs to the packet, and behind it; False: there is none.

        As pskb_expand_head of Linux, which gives a packet that has no room left another place.
        """
        size = self._data_end - self.lowest
        spare = self.last - self.first - size - before - behind
        if min(before, behind, spare) < 0:
            return False
        if self.lowest - before < self.first or self._data_end + behind > self.last:
            self.slide(self.first + before + spare // 2 - self.lowest)
        return True

    def slide(self, distance: int) -> None:
        """Move the packet and all that belongs to it; who calls it says so (`moved`)."""
        low, high = self.lowest, self._data_end
        content = bytes(self.view[low:high])
        self.move(self._data + distance, high + distance, self._data_meta + distance)
        self.view[low + distance : high + distance] = content

    def resize(self, size: int) -> bool:
        """Give the packet `size` bytes by moving its end, new ones being zero; False: there is no room."""
        more = size - self.size
        if not self.make_room(behind=max(more, 0)):
            return False
        end = self._data_end
        self.move(self._data, end + more, self._data_meta)
        if more > 0:
            self.view[end : end + more] = bytes(more)
        return True

    def bytes_at(self, offset: int, size: int) -> bytes:
        """Return bytes of the packet, `offset` counted from `data`; the caller has checked the range."""
        return bytes(self._range(offset, size))

    def store_at(self, offset: int, data: bytes) -> None:
        """Write bytes of the packet; see `bytes_at`."""
        self._range(offset, len(data))[:] = data

    @property
    def whole(self) -> int:
        """Bytes of the packet, all of its buffers together."""
        return self.size

    def load_any(self, offset: int, size: int) -> bytes:
        """Return bytes of the packet, whichever buffer they are in; the caller has checked the range."""
        return self.bytes_at(offset, size)

    def store_any(self, offset: int, data: bytes) -> None:
        """Write bytes of the packet; see `load_any`."""
        self.store_at(offset, data)

    def _range(self, offset: int, size: int) -> memoryview:
        start = self._data + offset
        if size <= 0:
            return self.view[:0]
        if start < self.lowest or start + size > self._data_end:
            raise ExecutionError(f"{size} bytes at offset {offset} are not in a packet of {self.size} bytes")
        return self.view[start : start + size]

    def place(self) -> None:
        """Make region and struct say where the packet is now."""
        packet = self.packet
        packet.start = self.memory.start + self._data_meta
        packet.stop = self.memory.start + self._data_end
        packet.view = self.view[self._data_meta : self._data_end]
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
