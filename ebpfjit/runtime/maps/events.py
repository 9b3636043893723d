"""Maps that carry events from programs to Python: ringbuf, perf_event_array, stack_trace.

A ring buffer's positions only grow; a record at position p has its data at (p mod size) + 8:

    consumer position      pending            producer position
    |  [8|record a] [8|record b, reserved] [8|record c]  |   ...  consumer + size

The 8 bytes before each record are the kernel's header. Here the lengths are kept in Python: nothing
that a program writes can mislead us. The memory is twice the ring, so that a record that starts
before the end of the ring goes on behind it.
"""

from __future__ import annotations

import ctypes
import errno
from collections import deque
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any

from ebpfjit.bits import U64_MASK
from ebpfjit.record import dataclass
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.maps import rules
from ebpfjit.runtime.maps.definition import MapDefinition
from ebpfjit.runtime.maps.mapping import KeyedMap, PythonMap
from ebpfjit.runtime.maps.storage import Storage, changing

RECORD_HEADER = 8
MAX_RECORD_SIZE = ((1 << 32) - 1) // 4
WAKEUP_FLAGS = 0b11  # BPF_RB_NO_WAKEUP, BPF_RB_FORCE_WAKEUP
INDEX_MASK = CURRENT_CPU = (1 << 32) - 1
MAX_PENDING_EVENTS, MAX_PENDING_SIZE = 1 << 16, 1 << 26
MAX_RECORDS = 1 << 20
STACKID_FLAGS = (
    0xFF | 0x100 | 0x200 | 0x400
)  # BPF_F_SKIP_FIELD_MASK, USER_STACK, FAST_STACK_CMP, REUSE_STACKID
REUSE_STACKID, SKIP_FIELD_MASK = 0x400, 0xFF


class Unkeyed(PythonMap):
    """What has no values under keys: every operation on them is refused as `refusal`."""

    value_is_stable = False
    unit = "entries"
    refusal = -rules.ENOTSUPP

    def __repr__(self) -> str:
        return f"<{self.definition}: {self.definition.max_entries} {self.unit}>"

    def lookup(self, key: bytes) -> int:
        """Return 0: there is nothing to look up."""
        return 0

    def update(self, key: bytes, value: bytes, flags: int = 0) -> int:
        """Refuse."""
        return self.refusal

    def delete(self, key: bytes) -> int:
        """Refuse."""
        return self.refusal


def _record_length(size: int) -> int:
    """Return what a record takes of a ring, with its header."""
    return -(-(size + RECORD_HEADER) // 8) * 8


class RecordState(Enum):
    """What became of a record that was reserved."""

    RESERVED = "reserved"
    SUBMITTED = "submitted"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True)
class Channel:
    """What machine code has to know of a map to which it sends by itself: `ends` is an address of words.

    A ring's memory, and its producer and consumer; for perf events the processor on which somebody listens,
    and a count that changes when that may have changed.
    """

    is_ring: bool
    memory: int
    size: int
    ends: int
    count: int = 0


@dataclass(slots=True)
class Record:
    """A record of a ring buffer: where its data starts in the memory, and its size in bytes."""

    offset: int
    size: int
    length: int  # with header, rounded up to 8: what it takes of the ring
    state: RecordState = RecordState.RESERVED


class RingBuffer(Unkeyed):
    """ringbuf: programs reserve, write and submit records (or discard them); Python consumes them.

    At most MAX_RECORDS wait, which only tiny ones in a large ring could be: each costs Python more than
    its bytes.
    """

    carried = ("_producer", "_consumer", "_records")
    unit = "bytes"
    #                query flag
    AVAILABLE, RING_SIZE, CONSUMER, PRODUCER = range(4)

    def __init__(self, definition: MapDefinition, environment: Environment) -> None:
        self.definition = definition
        self.size = definition.max_entries
        self._storage = Storage(definition, 2 * self.size)
        self.address = self._storage.address
        self.regions = (self._storage.region(f"{definition}", 0, 2 * self.size, writable=True),)
        self._ends = (ctypes.c_uint64 * 2)()  # machine code moves them as well
        self._records: deque[Record] = deque()
        self._reserved: dict[int, Record] = {}

    @property
    def _producer(self) -> int:
        return self._ends[0]

    @_producer.setter
    def _producer(self, position: int) -> None:
        self._ends[0] = position

    @property
    def _consumer(self) -> int:
        return self._ends[1]

    @_consumer.setter
    def _consumer(self, position: int) -> None:
        self._ends[1] = position

    def channel(self) -> Channel | None:
        """Return what machine code sends by, None where all is Python's."""
        if self.size & (self.size - 1):
            return None
        return Channel(True, self.address, self.size, ctypes.addressof(self._ends))

    def give_room_back(self, size: int) -> None:
        """Take out so many bytes that machine code sent, which somebody else has."""
        self._consumer += size

    def record_address(self, offset: int) -> int:
        """Return where the bytes of a record are whose header is at an offset."""
        return self.address + offset + RECORD_HEADER

    def take_over(self, address: int, size: int, state: RecordState) -> None:
        """Have a record of so many bytes at an address, behind all others, that machine code made there."""
        record = Record(address - self.address, size, _record_length(size), state)
        self._records.append(record)
        if state is RecordState.RESERVED:
            self._reserved[address] = record

    @property
    def stays_because(self) -> str:
        """Why there can be no copy now, "" where there can."""
        if self._reserved:
            return "a record of it is reserved, and neither submitted nor discarded"
        return super().stays_because

    def reserve(self, size: int, flags: int = 0) -> int:
        """Return the address of a new record of `size` bytes, 0 where there is no room."""
        length = _record_length(size)
        if flags or size > MAX_RECORD_SIZE or length > self.size:
            return 0
        with changing.held:
            taken = self._producer + length - self._consumer
            if taken > self.size - 1 or len(self._records) >= MAX_RECORDS:
                return 0
            record = Record(self._producer % self.size + RECORD_HEADER, size, length)
            self._producer += length
            self._records.append(record)
            address = self.address + record.offset
            self._reserved[address] = record
            return address

    def submit(self, address: int, flags: int = 0) -> bytes | None:
        """Hand over a reserved record and return its bytes; None where no record was reserved there."""
        record = self._reserved.pop(address, None)
        if record is None:
            return None
        record.state = RecordState.SUBMITTED
        return self._storage.read(record.offset, record.size)

    def discard(self, address: int, flags: int = 0) -> bool:
        """Drop a reserved record; False where no record was reserved there."""
        record = self._reserved.pop(address, None)
        if record is None:
            return False
        record.state = RecordState.DISCARDED
        return True

    def output(self, data: bytes, flags: int = 0) -> int:
        """Copy `data` in as one record; return 0, -EINVAL, or -EAGAIN where there is no room."""
        if flags & ~WAKEUP_FLAGS:
            return -errno.EINVAL
        address = self.reserve(len(data))
        if not address:
            return -errno.EAGAIN
        self._storage.write(address - self.address, data)
        self.submit(address)
        return 0

    def query(self, what: int) -> int:
        """Return what bpf_ringbuf_query does: unread bytes, size, consumer, producer; 0 for other numbers."""
        answers = {
            self.AVAILABLE: self._producer - self._consumer,
            self.RING_SIZE: self.size,
            self.CONSUMER: self._consumer,
            self.PRODUCER: self._producer,
        }
        return answers.get(what, 0) & U64_MASK

    def record_size(self, address: int) -> int | None:
        """Return the size of the record that is reserved at an address, None where there is none."""
        record = self._reserved.get(address)
        return record.size if record is not None else None

    def events(self) -> list[bytes]:
        """Return the records that `consume` would, and leave them in."""
        records = []
        with changing.held:
            for record in self._records:
                if record.state is RecordState.RESERVED:
                    break
                if record.state is RecordState.SUBMITTED:
                    records.append(self._storage.read(record.offset, record.size))
        return records

    def consume(self) -> list[bytes]:
        """Take out the records as they were reserved, up to one that is not submitted yet."""
        with changing.held:
            records = self.events()
            self.drop_events()
        return records

    def drop_events(self) -> None:
        """Take the same out, unread."""
        with changing.held:
            while self._records and self._records[0].state is not RecordState.RESERVED:
                self._consumer += self._records.popleft().length

    def __len__(self) -> int:
        return len(self.events())


class PerfEventArray(Unkeyed):
    """perf_event_array: a program's events, by CPU. Somebody listens on every CPU unless `close` said no.

    At most 65536 events of 64 MiB together wait; then the oldest is dropped and counted in `lost`.
    """

    carried = ("_cpu", "_closed", "_events", "_size", "lost")
    regions = ()
    refusal = -errno.EINVAL
    reasons = {  # noqa: RUF012 - a table, never changed
        errno.E2BIG: "the index is outside of an array of {entries} entries",
    }

    def __init__(self, definition: MapDefinition, environment: Environment) -> None:
        self.definition = definition
        self._storage = Storage(definition, 1)
        self.address = self._storage.address
        self._cpu = environment.cpu
        self._closed: set[int] = set()
        self._changes = ctypes.c_uint64(0)
        self._events: deque[tuple[int, bytes]] = deque()
        self._size = 0
        self.lost = 0

    def use_cpu(self, cpu: int) -> None:
        """Make `cpu` the processor that BPF_F_CURRENT_CPU means."""
        if cpu != self._cpu:
            self._changes.value += 1
        self._cpu = cpu

    def close(self, cpu: int) -> None:
        """Stop listening on a CPU: a program's output there is -ENOENT."""
        self._closed.add(cpu)
        self._changes.value += 1

    def open(self, cpu: int) -> None:
        """Listen on a CPU (again)."""
        self._closed.discard(cpu)

    def channel(self) -> Channel | None:
        """Return what machine code sends by, None where all is Python's: nobody listens, or events wait."""
        if self._events or self._cpu in self._closed or self._cpu >= self.definition.max_entries:
            return None
        changes = self._changes
        return Channel(False, self._cpu, 0, ctypes.addressof(changes), changes.value)

    def output(self, data: bytes, flags: int = CURRENT_CPU) -> int:
        """Take an event, as bpf_perf_event_output does; return 0 or a negative error number.

        `flags` is the index of a CPU, or BPF_F_CURRENT_CPU. An event of another CPU than the
        running one is -EOPNOTSUPP.
        """
        if flags & ~INDEX_MASK:
            return -errno.EINVAL
        index = self._cpu if flags == CURRENT_CPU else flags
        if index >= self.definition.max_entries:
            return -errno.E2BIG
        if index in self._closed:
            return -errno.ENOENT
        if index != self._cpu:
            return -errno.EOPNOTSUPP
        with changing.held:
            self._size += len(data)
            self._events.append((index, data))
            while len(self._events) > MAX_PENDING_EVENTS or self._size > MAX_PENDING_SIZE:
                self._size -= len(self._events.popleft()[1])
                self.lost += 1
        return 0

    def events(self) -> list[bytes]:
        """Return the events that wait, and leave them in."""
        with changing.held:
            return [data for _, data in self._events]

    def consume(self) -> list[bytes]:
        """Take out the events that wait, the oldest first."""
        with changing.held:
            events = self.events()
            self.drop_events()
        return events

    def drop_events(self) -> None:
        """Take the same out, unread."""
        with changing.held:
            self._events.clear()
            self._size = 0

    def __len__(self) -> int:
        return len(self._events)


class StackTraceMap(KeyedMap):
    """stack_trace: what bpf_get_stackid stored, return addresses (u64) under the id that it gave.

    There are max_entries ids, rounded up to a power of two as the kernel does.
    """

    carried = ("_traces",)
    value_is_stable = False
    regions = ()

    def __init__(self, definition: MapDefinition, environment: Environment) -> None:
        self.definition = definition
        self._storage = Storage(definition, 1)
        self.address = self._storage.address
        self._ids = 1 << (definition.max_entries - 1).bit_length()
        self._traces: dict[int, bytes] = {}

    def capture(self, frames: Sequence[int], flags: int = 0) -> int:
        """Store a stack, innermost frame first, and return its id, as bpf_get_stackid does; or -errno.

        -EFAULT for an empty one, -EEXIST where another stack has the id and BPF_F_REUSE_STACKID does
        not say to replace it.
        """
        if flags & ~STACKID_FLAGS:
            return -errno.EINVAL
        depth = self.definition.value_size // 8
        kept = frames[flags & SKIP_FIELD_MASK :][:depth]
        if not kept:
            return -errno.EFAULT
        trace = b"".join((frame & U64_MASK).to_bytes(8, "little") for frame in kept)
        import hashlib  # it loads OpenSSL

        digest = hashlib.blake2b(trace, digest_size=8).digest()
        number = int.from_bytes(digest, "little") & (self._ids - 1)
        if self._traces.get(number, trace) != trace and not flags & REUSE_STACKID:
            return -errno.EEXIST
        self._traces[number] = trace
        return number

    def lookup(self, key: bytes) -> int:
        """Return 0: the kernel's verifier refuses programs that look it up."""
        return 0

    def update(self, key: bytes, value: bytes, flags: int = 0) -> int:
        """Refuse."""
        return -errno.EINVAL

    def delete(self, key: bytes) -> int:
        """Forget a stack; return 0, -E2BIG for no id, -ENOENT where there is none."""
        number = int.from_bytes(key, "little")
        if number >= self._ids:
            return -errno.E2BIG
        return 0 if self._traces.pop(number, None) is not None else -errno.ENOENT

    def _keys(self) -> Iterator[bytes]:
        return (number.to_bytes(4, "little") for number in sorted(self._traces))

    def _get(self, key: bytes) -> bytes:
        return self._traces[int.from_bytes(key, "little")].ljust(self.definition.value_size, b"\0")

    def _put(self, key: bytes, value: Any, flags: int) -> int:
        return -errno.EINVAL
