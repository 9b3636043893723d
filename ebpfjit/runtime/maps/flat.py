"""Maps whose values lie side by side in flat memory, and the header that machine code reads.

    header | buckets, links, states, ages, keys (hash kinds) | values of CPU 0 | values of CPU 1 | ...
    ^ Map.address                                       ^ Map.regions: all values, nothing else

Entry `i` has its value at values + i * value_stride, its key at keys + i * key_size. The header is
`struct map` in hash_routines.c.
"""

from __future__ import annotations

import errno
import struct
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.maps import rules, special
from ebpfjit.runtime.maps.definition import BPF_EXIST, BPF_F_LOCK, BPF_NOEXIST, MapDefinition, MapType
from ebpfjit.runtime.maps.mapping import KeyedMap
from ebpfjit.runtime.maps.special import SpecialField
from ebpfjit.runtime.maps.storage import Storage

#              addresses (u64)     u32
HEADER_WORDS = (
    "values", "keys", "buckets", "links", "states", "first_values", "cpu_stride", "secrets", "newer", "older",
    "lengths",
)  # fmt: skip
HEADER_COUNTS = (
    "cpus", "key_size", "value_size", "value_stride", "max_entries", "mask", "count", "used", "free",
    "is_lru", "busy", "lock", "version",
)  # fmt: skip
HEADER = {name: 8 * index for index, name in enumerate(HEADER_WORDS)} | {
    name: 8 * len(HEADER_WORDS) + 4 * index for index, name in enumerate(HEADER_COUNTS)
}
"""Offset of each field of the header."""
HEADER_SIZE = 192
MAX_ALIGNMENT = 8


def value_stride(definition: MapDefinition) -> int:
    """Return the bytes from one value to the next: aligned as the kernel does where values are shared out.

    Array and per-CPU values are a multiple of 8 apart. Values of hash kinds that are smaller than
    8 bytes are aligned to their own size, which halves what small ones take.
    """
    size = definition.value_size
    if definition.type in rules.HASHES and definition.type not in rules.PERCPU and size < MAX_ALIGNMENT:
        return 1 << (size - 1).bit_length()
    return -(-size // MAX_ALIGNMENT) * MAX_ALIGNMENT


class FlatMap(KeyedMap):
    """A map with its values in flat memory: what array and hash kinds share.

    An entry is the number of a value, 0 <= entry < max_entries.
    """

    value_is_stable = True
    __setitem__ = KeyedMap.put  # with a call less
    is_shared = False
    """True for a table that code without Python's lock uses."""

    def __init__(
        self,
        definition: MapDefinition,
        environment: Environment,
        *sizes: int,
        stride: int = 0,
        shares_values: bool = True,
    ) -> None:
        """Make the memory: areas of `sizes` bytes between header and values, in that order.

        `stride` is the distance of values where it is not that of the definition; programs may
        touch them where `shares_values`.
        """
        self.definition = definition
        self.is_percpu = definition.type in rules.PERCPU
        self.cpus = environment.cpus if self.is_percpu else 1
        self._is_plain = not (self.is_percpu or definition.special)
        self.stride = stride or value_stride(definition)
        self.cpu_stride = self.stride * definition.max_entries
        self.storage = Storage(definition, HEADER_SIZE, *sizes, self.cpu_stride * self.cpus)
        self.address = self.storage.address
        self.values_offset = self.storage.offsets[-1]
        size = self.cpu_stride * self.cpus
        region = self.storage.region(f"{definition}", self.values_offset, size, writable=not self.is_readonly)
        self.regions = (region,) if shares_values else ()
        self.set_field("first_values", region.start)
        self.set_field("cpu_stride", self.cpu_stride)
        self.set_field("cpus", self.cpus)
        self.set_field("key_size", definition.key_size)
        self.set_field("value_size", definition.value_size)
        self.set_field("value_stride", self.stride)
        self.set_field("max_entries", definition.max_entries)
        self._copied, self._freed = special.spans(definition), special.freed(definition)
        self._takes_lock = any(field.kind == "bpf_spin_lock" for field in definition.special)
        self.use_cpu(environment.cpu)

    @property
    def header_size(self) -> int:
        """The header's: addresses, and numbers that follow from the definition."""
        return HEADER_SIZE

    @property
    def processors(self) -> tuple[int, int]:
        """How many processors there are values for, and which programs run on."""
        return self.cpus, self.cpu

    def write_value(self, offset: int, value: bytes) -> None:
        """Copy a value into the memory, all but its special fields."""
        for start, end in self._copied:
            self.storage.write(offset + start, value[start:end])

    def free_fields(self, offset: int) -> None:
        """Let go of what a value's special fields refer to: a timer, or an object, is there by its field."""
        for field in self._freed:
            self.storage.write(offset + field.offset, bytes(field.size))
        if self.holder is not None:
            self.holder.free(self.address + offset + field.offset for field in self._freed)

    def _plain_flags(self, flags: int) -> int:
        """Return an update's flags without BPF_F_LOCK, which maps take that have a lock in their values."""
        return flags & ~BPF_F_LOCK if self._takes_lock else flags

    def special_at(self, address: int) -> SpecialField | None:
        """Return the special field that starts at an address inside of the values."""
        offset = (address - self.address - self.values_offset) % self.stride
        return next((field for field in self.definition.special if field.offset == offset), None)

    @property
    def is_steady(self) -> bool:
        """False where there are values for several processors."""
        return self.cpus == 1

    def field(self, name: str) -> int:
        """Return a field of the header."""
        number: int = struct.unpack_from(
            "<Q" if name in HEADER_WORDS else "<I", self.storage.memory, HEADER[name]
        )[0]
        return number

    def set_field(self, name: str, number: int) -> None:
        """Set a field of the header."""
        struct.pack_into("<Q" if name in HEADER_WORDS else "<I", self.storage.memory, HEADER[name], number)

    def header_counts(self) -> memoryview:
        """Return the u32 fields of the header, in the order of HEADER_COUNTS."""
        return self.storage.words(HEADER[HEADER_COUNTS[0]], len(HEADER_COUNTS))

    def use_cpu(self, cpu: int) -> None:
        """Make `cpu` the processor whose values programs see.

        Raises ValueError where the map has no values for it.
        """
        self.cpu = self._shown_cpu(cpu)
        self.set_field("values", self.address + self.offset_of(0, self.cpu))

    def shown(self, cpu: int) -> tuple[tuple[int, int], ...]:
        """Return the word of the header that says whose values programs see."""
        shown = self._shown_cpu(cpu)
        values = self.address + HEADER["values"], self.address + self.offset_of(0, shown)
        return (values,) if self.cpus > 1 else ()

    def _shown_cpu(self, cpu: int) -> int:
        if not self.is_percpu:
            return 0
        if not 0 <= cpu < self.cpus:
            raise ValueError(f"{self.definition}: values for {self.cpus} processors, not for number {cpu}")
        return cpu

    @abstractmethod
    def find(self, key: bytes) -> int:
        """Return the entry of a key, -1 where it is not there."""

    def find_shared(self, key: bytes) -> int:
        """Return the entry of a key as `find` does, of a table that is shared."""
        return self.find(key)

    @abstractmethod
    def claim(self, key: bytes, flags: int) -> int:
        """Return the entry that an update under `key` writes, a new one if need be, or -errno."""

    def touch(self, entry: int) -> None:
        """Note that a program looked an entry up."""

    def offset_of(self, entry: int, cpu: int) -> int:
        """Return where in the memory a value is."""
        return self.values_offset + cpu * self.cpu_stride + entry * self.stride

    def key_at(self, entry: int) -> bytes | None:
        """Return the key of an entry, None where it has none now."""
        return None

    def entry_at(self, address: int) -> tuple[bytes, int] | None:
        """Return the key of the value around an address of the values, and where that value starts."""
        at = (address - self.address - self.values_offset) // self.stride
        key = self.key_at(at % self.definition.max_entries)
        return None if key is None else (key, self.address + self.offset_of(at, 0))

    def lookup(self, key: bytes) -> int:
        """Return the address of the value under `key`, that of the running CPU, 0 where there is none."""
        return self.lookup_percpu(key, self.cpu)

    def lookup_percpu(self, key: bytes, cpu: int) -> int:
        """Return the address of one processor's value under `key`, 0 where there is none."""
        entry = self.find_shared(key) if self.is_shared else self.find(key)
        if entry < 0 or not 0 <= cpu < self.cpus:
            return 0
        self.touch(entry)
        return self.address + self.offset_of(entry, cpu)

    def update(self, key: bytes, value: bytes, flags: int = 0) -> int:
        """Put a value in, that of the running CPU; return 0 or a negative error number."""
        entry = self.claim(key, self._plain_flags(flags))
        if entry < 0:
            return entry
        self._replace(self.offset_of(entry, self.cpu), value, flags)
        return 0

    def _replace(self, offset: int, value: bytes, flags: int) -> None:
        """Write a value over another, whose fields are freed; BPF_F_LOCK of hash maps writes into it."""
        if not self.definition.special:
            self.storage.memory[offset : offset + len(value)] = value
            return
        self.write_value(offset, value)
        if not flags & BPF_F_LOCK or self.definition.type is MapType.ARRAY:
            self.free_fields(offset)

    def entries(self) -> Iterator[tuple[bytes, int]]:
        """Yield each key and the address of its value on the running CPU."""
        for key in self._keys():
            entry = self.find(key)
            if entry >= 0:
                yield key, self.address + self.offset_of(entry, self.cpu)

    def _get(self, key: bytes) -> Any:
        entry = self.find_shared(key) if self.is_shared else self.find(key)
        if entry < 0:
            raise KeyError
        size = self.definition.value_size
        if self._is_plain:
            start = self.values_offset + entry * self.stride
            return self.storage.memory[start : start + size]
        if not self.is_percpu:
            return self._shown(self.storage.read(self.offset_of(entry, 0), size))
        return [self._shown(self.storage.read(self.offset_of(entry, cpu), size)) for cpu in range(self.cpus)]

    def _shown(self, value: bytes) -> bytes:
        """Return a value as user space sees it: zeros in the place of special fields."""
        if not self.definition.special:
            return value
        for field in self.definition.special:
            value = value[: field.offset] + bytes(field.size) + value[field.offset + field.size :]
        return value

    def _put(self, key: bytes, value: Any, flags: int) -> int:
        return self._write(key, self._values_of(value), flags)

    def _write(self, key: bytes, values: Sequence[bytes], flags: int) -> int:
        """Put the value of each processor in; return 0 or a negative error number."""
        entry = self.claim(key, self._plain_flags(flags) if flags else 0)
        if entry < 0:
            return entry
        offset, memory = self.values_offset + entry * self.stride, self.storage.memory
        for data in values:
            if self.definition.special:
                self._replace(offset, data, flags)
            else:
                memory[offset : offset + len(data)] = data
            offset += self.cpu_stride
        return 0

    def _values_of(self, value: Any) -> Sequence[bytes]:
        """Return the value of each CPU: from a list of as many, or from one for all of them."""
        if not self.is_percpu:
            return (self.encode_value(value),)
        if isinstance(value, list | tuple):
            if len(value) != self.cpus:
                raise ValueError(
                    f"{self.definition}: a list has one value for each of {self.cpus} processors, "
                    f"this one has {len(value)}"
                )
            return [self.encode_value(one) for one in value]
        return [self.encode_value(value)] * self.cpus


class ArrayMap(FlatMap):
    """array, percpu_array: every index is there from the start, its value zero."""

    reasons = {  # noqa: RUF012 - a table, never changed
        errno.E2BIG: "the index is outside of an array of {entries} entries",
        errno.EEXIST: "every index of an array is there already, so BPF_NOEXIST never holds",
        errno.EINVAL: "an array's entries cannot be deleted; flags are BPF_ANY or BPF_EXIST",
        errno.EPERM: "machine code relies on these values, which programs only read",
    }

    def find(self, key: bytes) -> int:
        """Return the index that `key` is, -1 where it is outside."""
        index = int.from_bytes(key, "little")
        return index if index < self.definition.max_entries else -1

    def key_at(self, entry: int) -> bytes:
        """Return the index as a key."""
        return entry.to_bytes(4, "little")

    def claim(self, key: bytes, flags: int) -> int:
        """Return the index that `key` is, or -errno."""
        if self.is_relied_on:
            return -errno.EPERM
        if flags > BPF_EXIST:
            return -errno.EINVAL
        index = self.find(key)
        if index < 0:
            return -errno.E2BIG
        return -errno.EEXIST if flags == BPF_NOEXIST else index

    def update(self, key: bytes, value: bytes, flags: int = 0) -> int:
        """Put a value in, that of the running CPU; return 0 or a negative error number.

        Unlike bpf(2), Linux looks at BPF_F_LOCK last here, and refuses it where there is no lock.
        """
        entry = self.claim(key, flags & ~BPF_F_LOCK)
        if entry >= 0 and self._plain_flags(flags) & BPF_F_LOCK:
            entry = -errno.EINVAL
        return entry if entry < 0 else super().update(key, value, flags & ~BPF_F_LOCK)

    def delete(self, key: bytes) -> int:
        """Refuse: an array's entries cannot be deleted."""
        return -errno.EINVAL

    def clear(self) -> None:
        """Make every value zero."""
        if self.is_relied_on:
            self.refuse(-errno.EPERM, "clearing")
        for index in range(self.definition.max_entries):
            for cpu in range(self.cpus):
                self.free_fields(self.offset_of(index, cpu))
                self.storage.write(self.offset_of(index, cpu), bytes(self.stride))

    def _keys(self) -> Iterator[bytes]:
        return map(self.key_at, range(self.definition.max_entries))

    def __len__(self) -> int:
        return self.definition.max_entries
