"""Hash maps in flat memory: hash, LRU and per-CPU kinds; the same table that hash_routines.c works on.

    buckets  u32 each   entry + 1 of a chain's first, 0 for an empty chain
    links    u32 each   entry + 1 of the next in the chain, or of the next free entry
    states   u8 each    bit 0: in use, bit 1: looked up of late (LRU kinds)
    keys     key_size bytes each
    values   value_stride bytes each, once for each CPU

A new key takes the free entry that was freed last, else the first that never was used; so what is in
memory depends on the operations alone. A deleted value's memory stays where it is, as in the
kernel's preallocated maps: a pointer to it reads on.

LRU kinds evict by second chance, the kernel's idea of an approximation: a hand goes round the
entries, passes over those that were looked up since it last came by, and evicts the first that was
not. Without lookups that is first in, first out.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from typing import Any

from ebpfjit.bits import U64_MASK
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.maps import rules
from ebpfjit.runtime.maps.definition import BPF_EXIST, BPF_NOEXIST, MapDefinition
from ebpfjit.runtime.maps.flat import FlatMap, value_stride

MULTIPLIER = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, odd
IN_USE, LOOKED_UP = 1, 2
LINK_SIZE, STATE_SIZE = 4, 1


def hash_of(key: bytes) -> int:
    """Return the hash (u64) of a key: its words of 8, then 4, 2 and 1 bytes, mixed one by one."""
    value = offset = 0
    size = len(key)
    while offset < size:
        step = 8
        while step > size - offset:
            step //= 2
        word = int.from_bytes(key[offset : offset + step], "little")
        value ^= word
        value = (value ^ value >> 32) * MULTIPLIER & U64_MASK
        offset += step
    return value ^ value >> 32


def bucket_count(definition: MapDefinition) -> int:
    """Return how many chains: a power of two, at least one for each entry, or half of that.

    Half where the map would else take more than twice the memory of its keys and values.
    """
    count = 1 << (definition.max_entries - 1).bit_length()
    entry = definition.key_size + value_stride(definition) + LINK_SIZE + STATE_SIZE
    size = entry * definition.max_entries + LINK_SIZE * count
    wanted = 2 * (definition.key_size + definition.value_size) * definition.max_entries
    return count if size < wanted or count == 1 else count // 2


class _Change:
    """While Python changes a table: other threads wait, and machine code leaves a busy map to Python."""

    def __init__(self, table: HashMap) -> None:
        self._table = table
        self._lock = threading.RLock()
        self._depth = 0

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1
        self._table.set_field("busy", 1)

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._table.set_field("busy", 0)
        self._lock.release()


class HashMap(FlatMap):
    """hash, lru_hash, percpu_hash, lru_percpu_hash."""

    def __init__(
        self,
        definition: MapDefinition,
        environment: Environment,
        *,
        stride: int = 0,
        shares_values: bool = True,
    ) -> None:
        entries, buckets = definition.max_entries, bucket_count(definition)
        super().__init__(
            definition,
            environment,
            LINK_SIZE * buckets,
            LINK_SIZE * entries,
            STATE_SIZE * entries,
            definition.key_size * entries,
            stride=stride,
            shares_values=shares_values,
        )
        _, heads, links, self.states_offset, self.keys_offset, _ = self.storage.offsets
        self._buckets = self.storage.words(heads, buckets)
        self._links = self.storage.words(links, entries)
        self._mask = buckets - 1
        self._change = _Change(self)
        self.is_lru = definition.type in rules.LRU
        for name, offset in (
            ("buckets", heads), ("links", links), ("states", self.states_offset), ("keys", self.keys_offset),
        ):  # fmt: skip
            self.set_field(name, self.address + offset)
        self.set_field("mask", self._mask)
        self.set_field("is_lru", self.is_lru)

    def key_of(self, entry: int) -> bytes:
        """Return the key of an entry that is in use."""
        size = self.definition.key_size
        return self.storage.read(self.keys_offset + entry * size, size)

    def find(self, key: bytes) -> int:
        """Return the entry of a key, -1 where it is not there."""
        memory, size, keys = self.storage.memory, self.definition.key_size, self.keys_offset
        link = self._buckets[hash_of(key) & self._mask]
        while link:
            start = keys + (link - 1) * size
            if memory[start : start + size] == key:
                return link - 1
            link = self._links[link - 1]
        return -1

    def touch(self, entry: int) -> None:
        """Note that a program looked an entry up: it is not the next to be evicted."""
        if self.is_lru:
            self.storage.memory[self.states_offset + entry] |= LOOKED_UP

    def claim(self, key: bytes, flags: int) -> int:
        """Return the entry that an update under `key` writes, a new one if need be, or -errno."""
        if flags > BPF_EXIST:
            return -errno.EINVAL
        with self._change:
            entry = self.find(key)
            if entry >= 0:
                self.touch(entry)
                return -errno.EEXIST if flags == BPF_NOEXIST else entry
            return -errno.ENOENT if flags == BPF_EXIST else self.insert(key)

    def insert(self, key: bytes) -> int:
        """Return a new entry for a key that is not there, its per-CPU values zero, or -E2BIG."""
        entry, state = self._take()
        if entry < 0:
            return -errno.E2BIG
        size = self.definition.key_size
        self.storage.write(self.keys_offset + entry * size, key)
        bucket = hash_of(key) & self._mask
        self._links[entry] = self._buckets[bucket]
        self._buckets[bucket] = entry + 1
        self.storage.memory[self.states_offset + entry] = state
        self.set_field("count", self.field("count") + 1)
        if self.cpus > 1:
            for cpu in range(self.cpus):
                self.storage.write(self.offset_of(entry, cpu), bytes(self.stride))
        return entry

    def _take(self) -> tuple[int, int]:
        """Return an entry that is not in use, -1 where all are, and the state to give it.

        A freed entry may be just before the LRU's hand: it starts as if it had been looked up.
        """
        free = self.field("free")
        if free:
            self.set_field("free", self._links[free - 1])
            return free - 1, IN_USE | (LOOKED_UP if self.is_lru else 0)
        used = self.field("used")
        if used < self.definition.max_entries:
            self.set_field("used", used + 1)
            return used, IN_USE
        return (self._evict(), IN_USE) if self.is_lru else (-1, 0)

    def _evict(self) -> int:
        """Remove the entry that the hand stops at, and return it. All entries are in use."""
        memory, entries = self.storage.memory, self.definition.max_entries
        hand = self.field("hand")
        while memory[self.states_offset + hand] & LOOKED_UP:
            memory[self.states_offset + hand] = IN_USE
            hand = (hand + 1) % entries
        self.set_field("hand", (hand + 1) % entries)
        self._unlink(hand)
        return hand

    def _unlink(self, entry: int) -> None:
        """Take an entry out of its chain."""
        bucket = hash_of(self.key_of(entry)) & self._mask
        following = self._links[entry]
        link = self._buckets[bucket]
        if link == entry + 1:
            self._buckets[bucket] = following
        else:
            while self._links[link - 1] != entry + 1:
                link = self._links[link - 1]
            self._links[link - 1] = following
        self.storage.memory[self.states_offset + entry] = 0
        self.set_field("count", self.field("count") - 1)

    def delete(self, key: bytes) -> int:
        """Remove a key; return 0 or -ENOENT. The value's memory stays as it is until it is used again."""
        with self._change:
            entry = self.find(key)
            if entry < 0:
                return -errno.ENOENT
            self.free(entry)
        return 0

    def free(self, entry: int) -> None:
        """Take an entry out of its chain and make it the next to be used."""
        self._unlink(entry)
        self._links[entry] = self.field("free")
        self.set_field("free", entry + 1)

    def _entries(self) -> Iterator[int]:
        """Yield the entries in use: in the order in which keys came, as long as none was deleted."""
        entry = 0
        while entry < self.field("used"):
            if self.storage.memory[self.states_offset + entry]:
                yield entry
            entry += 1

    def _keys(self) -> Iterator[bytes]:
        return map(self.key_of, self._entries())

    def entries(self) -> Iterator[tuple[bytes, int]]:
        """Yield each key and the address of its value on the running CPU."""
        for entry in self._entries():
            yield self.key_of(entry), self.address + self.offset_of(entry, self.cpu)

    def __len__(self) -> int:
        return self.field("count")

    def clear(self) -> None:
        """Remove every key."""
        for key in list(self._keys()):
            self.delete(key)

    def update(self, key: bytes, value: bytes, flags: int = 0) -> int:
        """Put a value in, that of the running CPU; return 0 or a negative error number."""
        with self._change:
            return super().update(key, value, flags)

    def _put(self, key: bytes, value: Any, flags: int) -> int:
        with self._change:
            return super()._put(key, value, flags)
