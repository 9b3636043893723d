"""Lanes: memory for the contexts of runs that start without Python, one run at a time.

PacketLane   a packet is copied there, its struct made (`translators/x86_64/lanes.py`)
StructLane   what a run is given is the struct: its bytes are copied there
"""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from ebpfjit.jit.routines import routines
from ebpfjit.runtime.contexts import ProgramType, SkbContext, StructContext, XdpContext, take
from ebpfjit.runtime.contexts.packet import LINK_HEADER_SIZE
from ebpfjit.runtime.memory import Region
from ebpfjit.runtime.rights import Rights
from ebpfjit.translators.block import LANE_WORDS

_LANE = {name: index for index, name in enumerate(LANE_WORDS)}
_ALL_ONES = (1 << 64) - 1
LARGEST_STRUCT = 4096
"""Bytes of a struct of any size: a run on more goes without a lane."""


class Lane(ABC):
    """The memory of a context, into which the gate puts one packet, or struct, after the other.

    Programs do not see the first `hidden` bytes of what runs are given. `is_struct` is true where that is no
    packet. The struct has `struct_size` bytes, 0 where each run says.
    """

    hidden = 0
    is_struct = False
    struct_size = 0

    def __init__(self, **words: int) -> None:
        self._words = (ctypes.c_uint64 * len(LANE_WORDS))()
        for name, value in words.items():
            self._words[_LANE[name]] = value

    def word(self, name: str) -> int:
        """Return one of its words."""
        return self._words[_LANE[name]]

    @property
    @abstractmethod
    def context(self) -> XdpContext | SkbContext | StructContext:
        """What runs are on."""

    @abstractmethod
    def adopt(self, size: int) -> None:
        """Let the context go on with a run in the middle, which sees so many bytes of a packet."""

    def clear(self) -> None:
        """Let go of what a run that was adopted has made of the context."""
        self.context.clear()

    @property
    @abstractmethod
    def memory(self) -> tuple[Any, ...]:
        """What machine code reads and writes there."""

    @abstractmethod
    def regions(self, rights: Rights | None) -> list[Region]:
        """Return what runs may touch and the block does not name: the struct, with these rights, and more."""

    @property
    def address(self) -> int:
        """Where the lane's words are."""
        return ctypes.addressof(self._words)

    def take(self) -> bool:
        """Keep the lane, until it is given back; False where a run is using it."""
        if self._words[_LANE["busy"]]:
            return False
        self._words[_LANE["busy"]] = 1
        return True

    def give_back(self) -> None:
        """Let other runs have the lane."""
        self._words[_LANE["busy"]] = 0


class PacketLane(Lane):
    """The memory of packets and of the struct that shows them."""

    def __init__(self, context: XdpContext | SkbContext) -> None:
        self._context = context
        template = context.template
        self._template = ctypes.create_string_buffer(template, -(-len(template) // 16) * 16)
        self.hidden = LINK_HEADER_SIZE if context.type.network_layer else 0
        self.struct_size = context.argument.size
        link = context.memory.start + context.first + context.headroom
        has_headers = isinstance(context, SkbContext)
        super().__init__(
            fill=routines().addresses[f"fill_{context.struct.name.strip('_')}"],
            struct=context.argument.start,
            template=ctypes.addressof(self._template),
            template_size=len(self._template),
            packet=link,
            room=context.room,
            hidden=self.hidden,
            writable=_ALL_ONES if context.type.writes_packet else 0,
            shown=_ALL_ONES if context.type.reads_packet else 0,
            link_header=link if has_headers else 0,
            network_header=link + LINK_HEADER_SIZE if has_headers else 0,
        )

    @property
    def context(self) -> XdpContext | SkbContext:
        """What runs are on."""
        return self._context

    def adopt(self, size: int) -> None:
        """Let the context go on with a run that is in the middle of a packet of so many bytes.

        One that the run has moved is where the struct says.
        """
        if self.word("moved"):
            assert isinstance(self.context, XdpContext)  # others are moved by Python alone
            self.context.resume(self.word("size"))
        else:
            self.context.adopt(size)

    @property
    def memory(self) -> tuple[Any, ...]:
        """What machine code reads and writes there."""
        return self._words, self._template, self.context.memory

    def regions(self, rights: Rights | None) -> list[Region]:
        """Return what runs may touch besides the packet: the struct, with these rights, and the rest."""
        context = self.context
        own = (context.packet, context.argument)
        others = [each for each in context.regions if not any(each is other for other in own)]
        return [_with_rights(context.argument, rights), *others]


class StructLane(Lane):
    """The memory of a struct: the bytes that runs are given. One that the caller decides has any size."""

    is_struct = True

    def __init__(self, type_: ProgramType) -> None:
        self.struct_size = type_.data_size or 0
        made = take(type_, memoryview(bytes(self.struct_size or LARGEST_STRUCT)), None)
        assert isinstance(made, StructContext)  # it has no packet
        assert made.argument is not None  # it is all that it has
        self._context, self._argument = made, made.argument
        links, copies = self._pairs = _pairs(made.links), _pairs(made.copies)
        super().__init__(
            is_struct=1,
            struct=self._argument.start,
            least=self.struct_size or 1,
            room=self._argument.size,
            writable=_ALL_ONES if self._argument.writable else 0,
            measured=0 if self.struct_size else _ALL_ONES,
            links=ctypes.addressof(links),
            links_stop=ctypes.addressof(links) + ctypes.sizeof(links),
            copies=ctypes.addressof(copies),
            copies_stop=ctypes.addressof(copies) + ctypes.sizeof(copies),
        )

    @property
    def context(self) -> StructContext:
        """What runs are on."""
        return self._context

    def adopt(self, size: int) -> None:
        """Let the context go on with a run in the middle: the lane knows how large its struct is."""
        del size
        self._context.adopt(self.word("size"))

    @property
    def memory(self) -> tuple[Any, ...]:
        """What machine code reads and writes there."""
        return self._words, self._pairs, self._context, self._argument

    def regions(self, rights: Rights | None) -> list[Region]:
        """Return what runs may touch: the struct, with these rights, and the rest.

        Where anything may be done to it the block says where it is, and how large.
        """
        if rights is None:
            return []
        others = [each for each in self._context.regions if each is not self._argument]
        return [_with_rights(self._argument, rights), *others]


def _with_rights(given: Region, rights: Rights | None) -> Region:
    return Region(given.name, given.start, given.stop, given.writable, given.view, rights)


def _pairs(rows: Sequence[tuple[int, int]]) -> ctypes.Array[ctypes.c_uint64]:
    return (ctypes.c_uint64 * (2 * len(rows)))(*(word for row in rows for word in row))
