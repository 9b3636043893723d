"""Helpers of ring buffers: records whole, or reserved, filled in and submitted.

The map keeps the records until Python consumes them; the run's events list them as well, in the
order of reservation. A record that is never submitted holds back those behind it, as in Linux.
"""

from __future__ import annotations

import errno
from collections import deque
from typing import Protocol, cast

from ebpfjit.errors import ExecutionError
from ebpfjit.program import Program
from ebpfjit.record import dataclass
from ebpfjit.runtime import held, memory
from ebpfjit.runtime.helpers.maps import map_of
from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.maps.base import Map
from ebpfjit.runtime.world import World

_RESERVED, _PENDING = "ring records", "ring orders"


class RingBuffer(Protocol):
    """What these helpers ask of a map."""

    def reserve(self, size: int, flags: int = 0) -> int:
        """Return the address of a new record, 0 where there is no room."""

    def submit(self, address: int, flags: int = 0) -> bytes | None:
        """Hand over a reserved record and return its bytes."""

    def discard(self, address: int, flags: int = 0) -> bool:
        """Drop a reserved record."""

    def output(self, data: bytes, flags: int = 0) -> int:
        """Copy a record in; return 0 or a negative error number."""

    def query(self, what: int) -> int:
        """Return a number about the ring."""


@dataclass(slots=True)
class _Record:
    """A record that is not an event yet: in which map, and its bytes once submitted."""

    found: Map
    done: bool = False
    data: bytes | None = None

    @property
    def ring(self) -> RingBuffer:
        return cast(RingBuffer, self.found)


def _reserved(world: World) -> dict[int, _Record]:
    """The records that the program holds, by their addresses."""
    found: dict[int, _Record] = world.kept.setdefault(_RESERVED, {})
    return found


def _append(world: World, record: _Record) -> None:
    """Queue a record behind those of its ring that were reserved before."""
    rings: dict[int, deque[_Record]] = world.kept.setdefault(_PENDING, {})
    rings.setdefault(record.found.address, deque()).append(record)


def _release(world: World, found: Map) -> None:
    """Make events of the records at the front of a ring that are done."""
    pending: deque[_Record] = world.kept[_PENDING][found.address]
    while pending and pending[0].done:
        data = pending.popleft().data
        if data is not None:
            world.events.append((found.name, data))


def reserve(world: World, map_address: int, size: int, flags: int, name: str) -> int:
    """Return the address of a new record, 0 where there is no room."""
    found = map_of(world, map_address, name)
    address = cast(RingBuffer, found).reserve(size, flags) if world.leaves(size) else 0
    if address:
        hold(world, found, address, name)
    return address


def hold(world: World, found: Map, address: int, name: str, place: tuple[Program, int] | None = None) -> None:
    """Note that the program has reserved a record of a map, where it is now or at a slot of a program."""
    record = _reserved(world)[address] = _Record(found)
    kind = "_dynptr" if name.endswith("_dynptr") else ""
    back = f"bpf_ringbuf_submit{kind} or bpf_ringbuf_discard{kind}"
    what = f"a record of {found.definition}"
    held.take(world, (_RESERVED, address), what, by=name, back=back, place=place)
    _append(world, record)


def _taken_back(world: World, address: int, name: str) -> _Record:
    record = _reserved(world).pop(address, None)
    if record is None:
        raise ExecutionError(f"{name} of {address:#x}, which is no record that bpf_ringbuf_reserve gave")
    record.done = True
    held.give_back(world, (_RESERVED, address))
    return record


def submit(world: World, address: int, name: str) -> None:
    """Hand over a reserved record. Raises ExecutionError where it is none."""
    record = _taken_back(world, address, name)
    record.data = record.ring.submit(address)
    _release(world, record.found)


def discard(world: World, address: int, name: str) -> None:
    """Drop a reserved record. Raises ExecutionError where it is none."""
    record = _taken_back(world, address, name)
    record.ring.discard(address)
    _release(world, record.found)


def note(world: World, found: Map, data: bytes | None) -> None:
    """Note a record that machine code has submitted to a map, or dropped (None)."""
    _append(world, _Record(found, done=True, data=data))
    _release(world, found)


@helper("bpf_ringbuf_output")
def ringbuf_output(world: World, map_address: int, data: int, size: int, flags: int) -> int:
    """Put a record in; 0 or a negative error number."""
    record = _Record(map_of(world, map_address, "bpf_ringbuf_output"), done=True)
    memory.check(data, size, "load")
    if not world.leaves(size):
        return -errno.EAGAIN  # as where the ring is full
    record.data = memory.read(data, size)
    result = record.ring.output(record.data, flags)
    if not result:
        _append(world, record)
        _release(world, record.found)
    return result


@helper("bpf_ringbuf_reserve")
def ringbuf_reserve(world: World, map_address: int, size: int, flags: int) -> int:
    """Return the address of a record to fill in, 0 where there is no room."""
    return reserve(world, map_address, size, flags, "bpf_ringbuf_reserve")


@helper("bpf_ringbuf_submit", differs="the program may still write the ring's memory")
def ringbuf_submit(world: World, record: int, flags: int) -> int:
    """Hand over a record that was reserved."""
    submit(world, record, "bpf_ringbuf_submit")
    return 0


@helper("bpf_ringbuf_discard", differs="the program may still write the ring's memory")
def ringbuf_discard(world: World, record: int, flags: int) -> int:
    """Drop a record that was reserved."""
    discard(world, record, "bpf_ringbuf_discard")
    return 0


@helper("bpf_ringbuf_query")
def ringbuf_query(world: World, map_address: int, flags: int) -> int:
    """Return a number about a ring (BPF_RB_AVAIL_DATA and so on), in bytes."""
    return cast(RingBuffer, map_of(world, map_address, "bpf_ringbuf_query")).query(flags)
