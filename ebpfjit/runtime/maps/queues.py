"""Maps without keys that programs push to and pop from: queue, stack, bloom_filter."""

from __future__ import annotations

import errno
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

from ebpfjit.bits import U64_MASK
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.maps.definition import BPF_ANY, BPF_EXIST, BPF_NOEXIST, MapDefinition, MapType
from ebpfjit.runtime.maps.hash import MULTIPLIER, hash_of, no_secrets
from ebpfjit.runtime.maps.mapping import RDONLY, WRONLY, PythonMap, to_bytes
from ebpfjit.runtime.maps.storage import Storage, changing


class _Pushed(PythonMap):
    """What they share: no keys, no memory that programs may touch."""

    value_is_stable = False
    regions = ()

    def encode_value(self, value: Any) -> bytes:
        """Return a value as its bytes: from bytes, an int, or what the value's type in BTF encodes."""
        definition = self.definition
        return to_bytes(definition, "value", value, definition.value_size, definition.value_type)

    @abstractmethod
    def push_value(self, value: bytes, flags: int = 0) -> int:
        """Add a value, as bpf_map_push_elem does; return 0 or a negative error number."""

    def push(self, value: Any, flags: int = 0) -> None:
        """Add a value, bytes or int, as a program does. Raises MapError where the kernel refuses."""
        self.check_mode(RDONLY, "pushing")
        self.refuse(self.push_value(self.encode_value(value), flags), "pushing")

    def lookup(self, key: bytes) -> int:
        """Return 0: the kernel's verifier refuses programs that look it up."""
        return 0

    def update(self, key: bytes, value: bytes, flags: int = 0) -> int:
        """Push, as bpf(2)'s update does."""
        return self.push_value(value, flags)

    def delete(self, key: bytes) -> int:
        """Refuse."""
        return -errno.EINVAL


class QueueMap(_Pushed):
    """queue (first in, first out) and stack (last in, first out), in a ring of max_entries values."""

    carried = ("_oldest", "_count")
    reasons = {  # noqa: RUF012 - a table, never changed
        errno.E2BIG: "all {entries} entries are taken; pop some, push with BPF_EXIST to drop the oldest, "
        "or make max_entries larger",
    }

    def __init__(self, definition: MapDefinition, environment: Environment) -> None:
        self.definition = definition
        self._storage = Storage(definition, definition.value_size * definition.max_entries)
        self.address = self._storage.address
        self._oldest = 0
        self._count = 0

    def _offset(self, place: int) -> int:
        """Return where the value at a place is, counted from the oldest."""
        index = (self._oldest + place) % self.definition.max_entries
        return index * self.definition.value_size

    def push_value(self, value: bytes, flags: int = 0) -> int:
        """Add a value; return 0, -EINVAL, or -E2BIG where it is full.

        With BPF_EXIST a full map drops its oldest value.
        """
        if flags & BPF_NOEXIST or flags > BPF_EXIST:
            return -errno.EINVAL
        with changing.held:
            if self._count == self.definition.max_entries:
                if flags != BPF_EXIST:
                    return -errno.E2BIG
                self._drop_oldest()
            self._storage.write(self._offset(self._count), value)
            self._count += 1
        return 0

    def _drop_oldest(self) -> None:
        self._oldest = (self._oldest + 1) % self.definition.max_entries
        self._count -= 1

    @property
    def _next(self) -> int:
        """The place of the value that comes out next."""
        return self._count - 1 if self.definition.type == MapType.STACK else 0

    def peek_value(self) -> bytes | None:
        """Return the value that comes out next, None where it is empty (-ENOENT for a program)."""
        with changing.held:
            if not self._count:
                return None
            return self._storage.read(self._offset(self._next), self.definition.value_size)

    def pop_value(self) -> bytes | None:
        """Take out the value that comes out next, None where it is empty (-ENOENT for a program)."""
        with changing.held:
            value = self.peek_value()
            if value is not None and self.definition.type == MapType.STACK:
                self._count -= 1
            elif value is not None:
                self._drop_oldest()
        return value

    def _taken(self, value: bytes | None) -> bytes:
        if value is None:
            raise IndexError(f"{self.definition}: it is empty")
        return value

    def peek(self) -> bytes:
        """Return the value that comes out next. Raises IndexError where it is empty."""
        self.check_mode(WRONLY, "reading")
        return self._taken(self.peek_value())

    def pop(self) -> bytes:
        """Take out the value that comes out next. Raises IndexError where it is empty."""
        self.check_mode(WRONLY, "reading")
        return self._taken(self.pop_value())

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[bytes]:
        """Yield the values in the order in which they come out, and leave them in."""
        self.check_mode(WRONLY, "reading")
        places = range(self._count)
        for place in reversed(places) if self.definition.type == MapType.STACK else places:
            yield self._storage.read(self._offset(place), self.definition.value_size)

    def clear(self) -> None:
        """Take all values out."""
        with changing.held:
            self._oldest = self._count = 0


class BloomFilter(_Pushed):
    """bloom_filter: `value in m` may be true by chance, but is never false for what was pushed.

    As large as the kernel makes it: 7/5 bits for each entry and hash function, rounded up to a power
    of two. Nothing can be taken out.
    """

    HASHES = 5  # where map_extra does not say
    MAX_BITS = 1 << 31
    reasons = {  # noqa: RUF012 - a table, never changed
        errno.EINVAL: "the only flag of a push is BPF_ANY",
    }

    def __init__(self, definition: MapDefinition, environment: Environment) -> None:
        self.definition = definition
        self._hashes = definition.extra or self.HASHES
        bits = definition.max_entries * self._hashes // 5 * 7
        self._mask = (1 << 32) - 1 if bits > self.MAX_BITS else max(64, 1 << (bits - 1).bit_length()) - 1
        self._storage = Storage(definition, (self._mask + 1) // 8)
        self.address = self._storage.address

    def _bits(self, value: bytes) -> Iterator[tuple[int, int]]:
        """Yield (byte, bit) for each hash function: two halves of one hash, combined."""
        first = hash_of(value, no_secrets())
        step = (first * MULTIPLIER & U64_MASK) >> 32 | 1
        for number in range(self._hashes):
            place = (first + number * step) & self._mask
            yield place // 8, 1 << place % 8

    def push_value(self, value: bytes, flags: int = 0) -> int:
        """Add a value; return 0 or -EINVAL."""
        if flags != BPF_ANY:
            return -errno.EINVAL
        for place, bit in self._bits(value):
            self._storage.memory[place] |= bit
        return 0

    def has_value(self, value: bytes) -> bool:
        """Return what bpf_map_peek_elem tells: false for -ENOENT."""
        return all(self._storage.memory[place] & bit for place, bit in self._bits(value))

    def __contains__(self, value: Any) -> bool:
        return self.has_value(self.encode_value(value))

    def delete(self, key: bytes) -> int:
        """Refuse."""
        return -errno.EOPNOTSUPP
