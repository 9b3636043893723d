"""Hash maps in flat memory: hash, LRU and per-CPU kinds; the same table that hash_routines.c works on.

    buckets  u32 each   entry + 1 of a chain's first, 0 for an empty chain
    links    u32 each   entry + 1 of the next in the chain, or of the next free entry
    states   u8 each    bit 0: in use, bit 1: looked up of late (LRU kinds)
    newer    u32 each   entry + 1 of the next younger one, 0 for the youngest; at 0 the oldest (LRU kinds)
    older    u32 each   entry + 1 of the next older one, 0 for the oldest; at 0 the youngest (LRU kinds)
    keys     key_size bytes each
    values   value_stride bytes each, once for each CPU

A new key takes the free entry that was freed last, else the first that never was used; so what is in
memory depends on the operations alone. A deleted value's memory stays where it is, as in the
kernel's preallocated maps: a pointer to it reads on.

LRU kinds evict by second chance, the kernel's idea of an approximation: from the oldest on, those that
a program looked up become the youngest, as if never looked up, and the first that was not goes. An update
of a key that is there makes it the youngest, and counts as a lookup, as in the kernel, where it puts a new
entry in; reading in Python counts as little as bpf(2)'s lookup does. Without lookups that is first in, first
out. The kernel takes entries from its list some at a time, to have them free; here one goes where one comes.

What changes the table calls nothing while it is not whole: CPython handles signals, and lets other threads
run, where something is called or a loop comes round. So whatever a handler raises, the table is in order.

No walk is long, whoever chose the keys: a program pays for one instruction. Each map hashes with secrets
of its own; chains have at most LONGEST_CHAIN entries all the same, and at most MOST_PASSED are passed over.
BPF_F_ZERO_SEED changes nothing: what it is for, that runs are alike, holds anyway.
"""

from __future__ import annotations

import errno
import operator
import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar
from weakref import WeakSet

from ebpfjit.bits import U64_MASK, W32
from ebpfjit.once import once
from ebpfjit.runtime import memory
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.maps import rules
from ebpfjit.runtime.maps.definition import BPF_EXIST, BPF_NOEXIST, MapDefinition
from ebpfjit.runtime.maps.flat import HEADER_COUNTS, FlatMap, value_stride
from ebpfjit.runtime.maps.storage import changing

MULTIPLIER = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, odd
IN_USE, LOOKED_UP = 1, 2
LINK_SIZE, STATE_SIZE = 4, 1
COUNT, USED, FREE, BUSY, LOCK, VERSION = map(
    HEADER_COUNTS.index, ("count", "used", "free", "busy", "lock", "version")
)
UNSHARED, HELD, UNHELD = 0, 1, 2
"""What a table's lock is: Python's own is enough, Python has it, nobody has it; machine code sets others."""

LONGEST_CHAIN = 64
"""A key that would make a chain longer is refused: one in 10**50 maps would have one by chance."""

MOST_CHAINS_KEPT, LONGEST_KEPT = 1 << 10, 64
"""Of so many keys, of so many bytes at most, a map keeps in which chain they are."""

ENTRIES_FOR_ONE = 8
"""Unused entries that are passed over for the price of one instruction."""

MOST_PASSED = 128
"""Entries that get a second chance at most before one is evicted (as LOCAL_FREE_TARGET in bpf_lru_list.c)."""

LONGEST_KEY = 512
"""Bytes of the longest key that is hashed word by word, and by machine code (MAX_BPF_STACK)."""

SECRET_WORDS = LONGEST_KEY // 4 + 2
_SECRETS = struct.Struct(f"<{SECRET_WORDS}Q")

_held = changing.held
"""What keeps all maps as they are, which is the same for good."""

_draw: Callable[[int], bytes] = os.urandom


@contextmanager
def fixed_secrets(seed: int) -> Iterator[None]:
    """Let maps that are made meanwhile have the same secrets in every run: for tests that compare memory.

    What programs see of a map does not depend on its secrets; only how long its chains are.
    """
    from random import Random

    global _draw
    outer, _draw = _draw, Random(seed).randbytes
    try:
        yield
    finally:
        _draw = outer


def secrets_of(draw: Callable[[int], bytes]) -> tuple[int, ...]:
    """Return the secrets of one map, u64 each, from a source of bytes."""
    return _SECRETS.unpack(draw(_SECRETS.size))  # at once: the system is asked for each draw


@once
def no_secrets() -> tuple[int, ...]:
    """Return those of what hashes in constant time whatever the keys are, the same in each run."""
    from random import Random

    return secrets_of(Random(0).randbytes)


@once
def _words(size: int) -> struct.Struct:
    """Return how a key of a size, at most LONGEST_KEY, is read."""
    return struct.Struct(f"<{size // 4}I" + ("", "B", "H", "HB")[size % 4])


def hash_of(key: bytes, secrets: Sequence[int]) -> int:
    """Return the hash (u64) of a key: its u32 words, then a u16 and a byte, each times a secret of its own.

    Whoever does not know the secrets cannot choose two keys that are more likely to meet than one in 2**32
    (multilinear hashing: Lemire and Kaser, "Strongly universal string hashing is fast", 2014); what
    follows spreads keys that are alike. Keys that have no secret for each word are hashed by BLAKE2.
    """
    size = len(key)
    if size > LONGEST_KEY:
        import hashlib  # it loads OpenSSL, and such keys are rare

        secret = struct.pack("<4Q", *secrets[:4])
        return int.from_bytes(hashlib.blake2b(key, digest_size=8, key=secret).digest(), "little")
    words: tuple[int, ...] = _words(size).unpack(key)
    value: int = sum(map(operator.mul, words, secrets), secrets[len(words)]) & U64_MASK
    value = (value ^ value >> 32) * MULTIPLIER & U64_MASK
    return value ^ value >> 32


def bucket_count(definition: MapDefinition) -> int:
    """Return how many chains: a power of two, at least one for each entry, or half of that.

    Half where the map would else take more than twice the memory of its keys and values.
    """
    count = 1 << (definition.max_entries - 1).bit_length()
    ages = 2 * age_size(definition)
    entry = definition.key_size + value_stride(definition) + LINK_SIZE + STATE_SIZE + ages
    size = entry * definition.max_entries + LINK_SIZE * count
    wanted = 2 * (definition.key_size + definition.value_size) * definition.max_entries
    return count if size < wanted or count == 1 else count // 2


def age_size(definition: MapDefinition) -> int:
    """Return the bytes that an entry has in each of the two lists of ages."""
    return LINK_SIZE if definition.type in rules.LRU else 0


class _Change:
    """While Python changes a table, and holds `changing`: machine code leaves a busy map to Python.

    Of a table that is shared with code without Python's lock it has the table's lock meanwhile, which
    `take(address)` takes: false where machine code has it for longer. Where Python has it already, this
    thread has it, or nobody has. The table's version is odd meanwhile.
    Whatever a signal handler raises here leaves the map busy at worst, which is slow but right.
    """

    def __init__(self, counts: memoryview, address: int) -> None:
        self._counts, self._address = counts, address
        self._take: Callable[[int], int] | None = None

    def share(self, take: Callable[[int], int]) -> None:
        """Have the table's lock taken from now on, by machine code too. The caller holds `changing`."""
        if self._counts[LOCK] == UNSHARED:
            self._take = take
            self._counts[LOCK] = HELD if self._counts[BUSY] else UNHELD
            self._counts[VERSION] = 1 if self._counts[BUSY] else 0

    def __enter__(self) -> None:
        self._counts[BUSY] += 1
        if self._take is not None:
            while not self._take(self._address):
                time.sleep(0)
            self._counts[VERSION] |= 1

    def __exit__(self, *_: object) -> None:
        self._counts[BUSY] -= 1
        if self._take is not None and not self._counts[BUSY]:
            self._counts[VERSION] = W32.wrap(self._counts[VERSION] + 1)
            self._counts[LOCK] = UNHELD


_shared: WeakSet[HashMap] = WeakSet()
"""The tables that code without Python's lock uses. A fork waits until nobody changes them."""


def _before_fork() -> None:
    changing.acquire()
    for table in list(_shared):
        table.unchanged.__enter__()


def _after_fork() -> None:
    for table in list(_shared):
        table.unchanged.__exit__()
    changing.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


class _Chains(dict[bytes, int]):
    """Which chain a key is in; those of the keys that were asked for of late are kept."""

    def __init__(self, secrets: Sequence[int], mask: int) -> None:
        self._secrets, self._mask = secrets, mask

    def __missing__(self, key: bytes) -> int:
        if len(self) >= MOST_CHAINS_KEPT:
            self.clear()
        chain = hash_of(key, self._secrets) & self._mask
        if len(key) <= LONGEST_KEPT:
            self[key] = chain
        return chain


class HashMap(FlatMap):
    """hash, lru_hash, percpu_hash, lru_percpu_hash."""

    carried: ClassVar[tuple[str, ...]] = ("counts",)

    def __init__(
        self,
        definition: MapDefinition,
        environment: Environment,
        *more: int,
        stride: int = 0,
        shares_values: bool = True,
    ) -> None:
        entries, buckets = definition.max_entries, bucket_count(definition)
        ages = age_size(definition) * (entries + 1)
        super().__init__(
            definition,
            environment,
            LINK_SIZE * buckets,
            LINK_SIZE * entries,
            STATE_SIZE * entries,
            ages,
            ages,
            definition.key_size * entries,
            8 * SECRET_WORDS,
            *more,
            stride=stride,
            shares_values=shares_values,
        )
        _, heads, links, self.states_offset, newer, older, self.keys_offset, secrets, *_ = (
            self.storage.offsets
        )
        self.secrets = secrets_of(_draw)
        self._secrets_offset = secrets
        self.storage.write(secrets, _SECRETS.pack(*self.secrets))
        self._buckets = self.storage.words(heads, buckets)
        self._links = self.storage.words(links, entries)
        self._counts = self.header_counts()
        self._newer = self.storage.words(newer, ages // LINK_SIZE)
        self._older = self.storage.words(older, ages // LINK_SIZE)
        self._mask = buckets - 1
        self._chains = _Chains(self.secrets, self._mask)
        self._change = _Change(self._counts, self.address)
        self.is_lru = definition.type in rules.LRU
        for name, offset in (
            ("buckets", heads), ("links", links), ("states", self.states_offset), ("keys", self.keys_offset),
            ("newer", newer), ("older", older), ("secrets", secrets),
        ):  # fmt: skip
            self.set_field(name, self.address + offset)
        self.set_field("mask", self._mask)
        self.set_field("is_lru", self.is_lru)

    @property
    def counts(self) -> tuple[int, ...]:
        """How many entries are in use, and were used; which is free. They are set with the table's memory."""
        return tuple(self._counts[which] for which in (COUNT, USED, FREE))

    @counts.setter
    def counts(self, counts: tuple[int, ...]) -> None:
        for which, number in zip((COUNT, USED, FREE), counts, strict=True):
            self._counts[which] = number
        self.secrets = _SECRETS.unpack_from(self.storage.memory, self._secrets_offset)
        self._chains = _Chains(self.secrets, self._mask)

    def key_of(self, entry: int) -> bytes:
        """Return the key of an entry that is in use."""
        size = self.definition.key_size
        return self.storage.read(self.keys_offset + entry * size, size)

    def key_at(self, entry: int) -> bytes | None:
        """Return the key of an entry, None where it is not in use."""
        return self.key_of(entry) if self.storage.memory[self.states_offset + entry] else None

    @property
    def unchanged(self) -> _Change:
        """What `with` takes, `changing` held, so that nobody else changes the table."""
        return self._change

    def share(self, take: Callable[[int], int]) -> None:
        """Let code without Python's lock use the table; see `_Change`."""
        with changing.held:
            _shared.add(self)
            self._change.share(take)
            self.is_shared = True

    def find(self, key: bytes) -> int:
        """Return the entry of a key, -1 where it is not there."""
        held, size, keys = self.storage.memory, self.definition.key_size, self.keys_offset
        link = self._buckets[self._chains[key]]
        while link:
            start = keys + (link - 1) * size
            if held[start : start + size] == key:
                return link - 1
            link = self._links[link - 1]
        return -1

    def find_shared(self, key: bytes) -> int:
        """Return the entry of a key as `find` does, while nobody changes the table."""
        with changing.held, self._change:
            return self.find(key)

    def _is_long(self, bucket: int) -> bool:
        """True where a chain has as many entries as it may."""
        link = self._buckets[bucket]
        for _ in range(LONGEST_CHAIN):
            if not link:
                return False
            link = self._links[link - 1]
        return True

    def touch(self, entry: int) -> None:
        """Note that a program looked an entry up: it is not the next to be evicted."""
        states, at = self.storage.memory, self.states_offset + entry
        if not self.is_lru:
            return
        if not self.is_shared:
            states[at] |= LOOKED_UP
            return
        with changing.held, self._change:
            if states[at]:  # it may be gone
                states[at] |= LOOKED_UP

    def claim(self, key: bytes, flags: int) -> int:
        """Return the entry that an update under `key` writes, a new one if need be, or -errno.

        The caller holds `changing`, and the map is busy.
        """
        if flags > BPF_EXIST:
            return -errno.EINVAL
        entry = self.find(key)
        if entry < 0:
            return -errno.ENOENT if flags == BPF_EXIST else self.insert(key)
        if flags == BPF_NOEXIST:
            return -errno.EEXIST
        if self.is_lru:  # a key that is updated is the youngest from now on
            if self._older[0] != entry + 1:
                self._make_youngest(entry + 1)
            self.storage.memory[self.states_offset + entry] |= LOOKED_UP
        return entry

    def _make_youngest(self, link: int) -> None:
        """Move an entry (its number + 1) behind the youngest. Nothing is called meanwhile."""
        newer, older = self._newer, self._older
        after, before = newer[link], older[link]
        newer[before], older[after] = after, before
        youngest = older[0]
        newer[youngest], older[link] = link, youngest
        newer[link], older[0] = 0, link

    def insert(self, key: bytes) -> int:
        """Return a new entry for a key that is not there, its per-CPU values zero; -E2BIG or -ENOMEM."""
        bucket = self._chains[key]
        if self._is_long(bucket):
            return -errno.ENOMEM
        if self.cpus > 1:
            memory.pay(self.stride * self.cpus)
        entry = self._take(key, bucket)
        if entry < 0 and self.is_lru:
            self._evict()
            entry = self._take(key, bucket)
        if entry < 0:
            return entry
        for field in self.definition.special:  # what the entry's last user left
            for cpu in range(self.cpus):
                self.storage.write(self.offset_of(entry, cpu) + field.offset, bytes(field.size))
        if self.cpus > 1:
            for cpu in range(self.cpus):
                self.storage.write(self.offset_of(entry, cpu), bytes(self.stride))
        return entry

    def _take(self, key: bytes, bucket: int) -> int:
        """Put a key into an entry that is not in use, and that into its chain; -E2BIG where all are in use.

        Of LRU kinds it is the youngest. Nothing is called from the first change to the last.
        """
        counts, links, size = self._counts, self._links, self.definition.key_size
        newer, older = self._newer, self._older
        if counts[FREE]:
            entry = counts[FREE] - 1
            counts[FREE] = links[entry]
        elif counts[USED] < self.definition.max_entries:
            entry = counts[USED]
            counts[USED] = entry + 1
        else:
            return -errno.E2BIG
        start = self.keys_offset + entry * size
        self.storage.memory[start : start + size] = key
        links[entry] = self._buckets[bucket]
        self._buckets[bucket] = entry + 1
        self.storage.memory[self.states_offset + entry] = IN_USE
        counts[COUNT] += 1
        if self.is_lru:
            youngest = older[0]
            newer[youngest], older[entry + 1] = entry + 1, youngest
            newer[entry + 1], older[0] = 0, entry + 1
        return entry

    def _evict(self) -> None:
        """Free the oldest entry that was not looked up of late. All entries are in use."""
        states, first = self.storage.memory, self.states_offset - 1
        for _ in range(MOST_PASSED):
            oldest = self._newer[0]
            if not states[first + oldest] & LOOKED_UP:
                break
            states[first + oldest] = IN_USE
            self._make_youngest(oldest)
        evicted = self._newer[0] - 1
        self.free(evicted)
        self._free_all_fields(evicted)

    def delete(self, key: bytes) -> int:
        """Remove a key; return 0 or -ENOENT. The value's memory stays as it is until it is used again."""
        with changing.held, self._change:
            entry = self.find(key)
            if entry < 0:
                return -errno.ENOENT
            self.free(entry)
            self._free_all_fields(entry)
        return 0

    def _free_all_fields(self, entry: int) -> None:
        for cpu in range(self.cpus if self.definition.special else 0):
            self.free_fields(self.offset_of(entry, cpu))

    def free(self, entry: int) -> None:
        """Take an entry out of its chain and make it the next to be used; one in no chain stays as it is.

        Nothing is called from the first change to the last.
        """
        bucket = self._chains[self.key_of(entry)]
        counts, links, before = self._counts, self._links, 0
        newer, older = self._newer, self._older
        link = self._buckets[bucket]
        while link and link != entry + 1:
            before, link = link, links[link - 1]
        if not link:
            return
        if before:
            links[before - 1] = links[entry]
        else:
            self._buckets[bucket] = links[entry]
        self.storage.memory[self.states_offset + entry] = 0
        if self.is_lru:
            younger, elder = newer[link], older[link]
            newer[elder], older[younger] = younger, elder
        links[entry] = counts[FREE]
        counts[FREE] = entry + 1
        counts[COUNT] -= 1

    def _entries(self) -> Iterator[int]:
        """Yield the entries in use: in the order in which keys came, as long as none was deleted.

        A program pays for those that it does not see.
        """
        entry = 0
        while entry < self._counts[USED]:
            if self.storage.memory[self.states_offset + entry]:
                yield entry
            elif entry % ENTRIES_FOR_ONE == 0:
                memory.spend(1)
            entry += 1

    def _keys(self) -> Iterator[bytes]:
        return (key for _, key in self._used()) if self.is_shared else map(self.key_of, self._entries())

    def _used(self) -> Iterator[tuple[int, bytes]]:
        """Yield the entries in use, with their keys."""
        for entry in self._entries():
            if not self.is_shared:
                yield entry, self.key_of(entry)
                continue
            with changing.held, self._change:
                key = self.key_at(entry)
            if key is not None:
                yield entry, key

    def entries(self) -> Iterator[tuple[bytes, int]]:
        """Yield each key and the address of its value on the running CPU."""
        for entry, key in self._used():
            yield key, self.address + self.offset_of(entry, self.cpu)

    def __len__(self) -> int:
        return self.field("count")

    def clear(self) -> None:
        """Remove every key."""
        for key in self._keys() if len(self) else ():
            self.delete(key)
            if not len(self):  # the places behind were in use once
                return

    def update(self, key: bytes, value: bytes, flags: int = 0) -> int:
        """Put a value in, that of the running CPU; return 0 or a negative error number."""
        with changing.held, self._change:
            return super().update(key, value, flags)

    def _put(self, key: bytes, value: Any, flags: int) -> int:
        if flags or not self._is_plain:
            values = self._values_of(value)
            with changing.held, self._change:
                return self._write(key, values, flags)
        data = self.encode_value(value)  # most updates: as above, in half the time
        with _held:
            if self.is_shared:
                with self._change:
                    return self._store(key, data)
            counts = self._counts
            counts[BUSY] += 1  # as `_Change` does
            try:
                return self._store(key, data)
            finally:
                counts[BUSY] -= 1

    def _store(self, key: bytes, data: bytes) -> int:
        """Put the one value of a key into the table, which nobody else changes; return 0 or -errno."""
        entry = self.claim(key, 0)
        if entry < 0:
            return entry
        start = self.values_offset + entry * self.stride
        self.storage.memory[start : start + len(data)] = data
        return 0
