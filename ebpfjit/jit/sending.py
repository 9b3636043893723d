"""What runs of a batch send without Python (`translators/x86_64/events.py`): where it goes, who takes it.

A run's events are those of its packet, in the order in which they were sent. Who gets to know a run in the
middle finds all as if Python had done it: its events in the world, its records in their rings, what it has
reserved.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ebpfjit.program import Program
from ebpfjit.record import record
from ebpfjit.runtime.helpers.ringbuf import hold, note
from ebpfjit.runtime.maps.base import Map
from ebpfjit.runtime.maps.events import Channel, PerfEventArray, RecordState, RingBuffer
from ebpfjit.runtime.world import LEAST_LEFT, World
from ebpfjit.translators.block import (
    BATCH_WORDS,
    CHANNEL_WORDS,
    DISCARDED,
    ENTRY_SIZE,
    PERF_CHANNEL,
    RING_CHANNEL,
)

ROOM = 1 << 16
"""Bytes for what runs send: where that is full Python takes it, and the run that is going on is its own."""

_WORD = {name: index for index, name in enumerate(BATCH_WORDS)}
_PLACE = {name: index for index, name in enumerate(CHANNEL_WORDS)}
_ENTRY = struct.Struct("<4Q")
_NEVER = (1 << 64) - 1
Channels = Sequence[tuple[Map, Channel | None]]
Event = tuple[int, str, bytes]


def channels_of(maps: Sequence[Map], cpu: int) -> Channels:
    """Return the maps that take events, with what machine code sends by on a processor; None: Python does."""
    found = []
    for map_ in maps:
        if isinstance(map_, RingBuffer | PerfEventArray):
            map_.use_cpu(cpu)
            found.append((map_, map_.channel()))
    return found


@record
class _Entry:
    """An event, or a record that was dropped: of the run of a packet, to a map; `offset` is in the ring."""

    index: int
    map: Map
    size: int
    offset: int
    data: bytes
    is_dropped: bool


class Sending:
    """The memory that runs of a batch send to; packets of its words are counted from `first`.

    `events` gets what was sent, by packet. `called` says of a state, and of an address behind a call in its
    code, which slot of which program that is.
    """

    def __init__(
        self, channels: Channels, words: Any, first: int, events: list[Event],
        called: Callable[[int, int], tuple[Program, int]],
    ) -> None:  # fmt: skip
        used = [(map_, channel) for map_, channel in channels if channel is not None]
        self._all, self._maps = [map_ for map_, _ in channels], [map_ for map_, _ in used]
        self._words, self._first, self._events, self._called = words, first, events, called
        self._data = bytearray(ROOM)
        self._table = (ctypes.c_uint64 * (len(CHANNEL_WORDS) * len(used)))()
        self._start = ctypes.addressof(self._table)
        for number, (map_, channel) in enumerate(used):
            self._set(
                number, map=map_.address, kind=RING_CHANNEL if channel.is_ring else PERF_CHANNEL,
                memory=channel.memory, mask=max(channel.size - 1, 0), ends=channel.ends, index=_NEVER,
                last=_NEVER if channel.is_ring else channel.count,
            )  # fmt: skip
        words[_WORD["sent"]] = ctypes.addressof(ctypes.c_char.from_buffer(self._data))
        words[_WORD["sent_room"]] = ROOM
        words[_WORD["channels"]] = self._start
        words[_WORD["channels_stop"]] = self._start + ctypes.sizeof(self._table)

    def _set(self, number: int, **values: int) -> None:
        for name, value in values.items():
            self._table[number * len(CHANNEL_WORDS) + _PLACE[name]] = value

    def _get(self, number: int, name: str) -> int:
        return self._table[number * len(CHANNEL_WORDS) + _PLACE[name]]

    def _map_at(self, address: int) -> Map:
        """Return the map of the channel at an address."""
        return self._maps[(address - self._start) // (8 * len(CHANNEL_WORDS))]

    def _entries(self) -> Iterator[_Entry]:
        """Yield all entries; there are none any more."""
        at, stop = 0, self._words[_WORD["sent_used"]]
        self._words[_WORD["sent_used"]] = 0
        while at < stop:
            index, channel, size, offset = _ENTRY.unpack_from(self._data, at)
            at += ENTRY_SIZE
            is_dropped, size = bool(size & DISCARDED), size & ~DISCARDED
            data = b"" if is_dropped else bytes(self._data[at : at + size])
            at += -(-len(data) // 8) * 8
            yield _Entry(index, self._map_at(channel), size, offset, data, is_dropped)

    def take(self) -> None:
        """Hand over what all runs have sent that are over: none is going on."""
        self._hand_over([*self._entries()])
        self._settle(_NEVER)

    def _hand_over(self, entries: Sequence[_Entry]) -> None:
        """Add events; as behind any run that sends something, maps are empty then."""
        events = [entry for entry in entries if not entry.is_dropped]
        self._events += [(self._first + entry.index, entry.map.name, entry.data) for entry in events]
        if entries:
            for map_ in self._all:
                map_.drop_events()

    def adopt(self, world: World) -> None:
        """Hand over what runs have sent that are over; give that of the one that is going on to its world."""
        words = self._words
        index = words[_WORD["index"]]
        entries = [*self._entries()]
        self._hand_over([entry for entry in entries if entry.index != index])
        self._settle(index)
        for entry in entries:
            if entry.index == index:
                self._give(world, entry)
        address = words[_WORD["reserved"]]
        if address:
            words[_WORD["reserved"]] = 0
            found, size = self._map_at(words[_WORD["reserved_channel"]]), words[_WORD["reserved_size"]]
            assert isinstance(found, RingBuffer)
            world.left += max(size, LEAST_LEFT)
            found.take_over(address, size, RecordState.RESERVED)
            place = self._called(words[_WORD["reserved_state"]], words[_WORD["reserved_place"]])
            hold(world, found, address, "bpf_ringbuf_reserve", place)

    def _give(self, world: World, entry: _Entry) -> None:
        """Have a world, and the map, know of an event as if Python had sent it."""
        found = entry.map
        world.left += max(entry.size, LEAST_LEFT)
        if isinstance(found, RingBuffer):
            state = RecordState.DISCARDED if entry.is_dropped else RecordState.SUBMITTED
            found.take_over(found.record_address(entry.offset), entry.size, state)
            note(world, found, None if entry.is_dropped else entry.data)
        else:
            assert isinstance(found, PerfEventArray)
            found.output(entry.data)
            world.events.append((found.name, entry.data))

    def _settle(self, index: int) -> None:
        """Give rings the room back of what runs have sent, but for a packet's, whose records they have."""
        for number, found in enumerate(self._maps):
            if isinstance(found, RingBuffer):
                if self._get(number, "index") != index:
                    found.give_room_back(self._get(number, "owed"))
                self._set(number, owed=0, index=_NEVER, last=_NEVER)
