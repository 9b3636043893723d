"""Longest prefix match: a hash table of prefixes, asked once for each prefix length in use.

    key:  prefix length in bits (u32, the machine's byte order) | data, most significant bit first

A prefix is stored with the bits behind it zero, so that its key is the same however it was
written. A lookup tries the lengths that are there, the longest first: they are in the map's memory, where
machine code finds them.
"""

from __future__ import annotations

import errno
from array import array
from collections import Counter

from ebpfjit.runtime import memory
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.maps.definition import BPF_EXIST, BPF_NOEXIST, MapDefinition
from ebpfjit.runtime.maps.hash import HashMap
from ebpfjit.runtime.maps.rules import LPM_PREFIX_SIZE
from ebpfjit.runtime.maps.storage import changing

LENGTH_SIZE = 4


class LpmTrie(HashMap):
    """lpm_trie: `find` gives the entry of the longest prefix that matches."""

    carried = (*HashMap.carried, "_lengths")
    reasons = {  # noqa: RUF012 - a table, never changed
        errno.ENOSPC: "the trie is full with {entries} prefixes; delete some, or make max_entries larger",
        errno.EINVAL: "the prefix is longer than the data of a key, or the flags are not for an LPM trie",
    }

    def __init__(self, definition: MapDefinition, environment: Environment) -> None:
        self.data_bits = 8 * (definition.key_size - LPM_PREFIX_SIZE)
        super().__init__(definition, environment, LENGTH_SIZE * (self.data_bits + 2))
        self._lengths: Counter[int] = Counter()
        offset = self.storage.offsets[-2]
        self._known = self.storage.words(offset, self.data_bits + 2)
        self.set_field("lengths", self.address + offset)

    def _prefix(self, data: int, length: int) -> bytes:
        """Return the key of the first `length` bits of `data`."""
        behind = self.data_bits - length
        masked = data >> behind << behind
        return length.to_bytes(LPM_PREFIX_SIZE, "little") + masked.to_bytes(self.data_bits // 8, "big")

    def _split(self, key: bytes) -> tuple[int, int]:
        """Return a key's prefix length, and its data as a number."""
        length = int.from_bytes(key[:LPM_PREFIX_SIZE], "little")
        return length, int.from_bytes(key[LPM_PREFIX_SIZE:], "big")

    def find(self, key: bytes) -> int:
        """Return the entry of the longest prefix that matches `key` and is no longer, -1 for none."""
        longest, data = self._split(key)
        if longest > self.data_bits:
            return -1
        # Each is a look into the table, most of them in vain: the program pays for them.
        count = self._known[0]
        memory.spend(count - 1)
        for length in self._known[1 : 1 + count]:
            if length <= longest:
                entry = super().find(self._prefix(data, length))
                if entry >= 0:
                    return entry
        return -1

    def claim(self, key: bytes, flags: int) -> int:
        """Return the entry of exactly this prefix, a new one if need be, or -errno; see `HashMap.claim`."""
        length, data = self._split(key)
        if flags > BPF_EXIST or length > self.data_bits:
            return -errno.EINVAL
        prefix = self._prefix(data, length)
        entry = super().find(prefix)
        if entry >= 0:
            return -errno.EEXIST if flags == BPF_NOEXIST else entry
        if flags == BPF_EXIST:
            return -errno.ENOENT
        self._lengths[length] += 1  # first: what is counted and not there costs a look, no more
        self._tell_lengths()
        entry = self.insert(prefix)
        if entry < 0:
            self._forget(length)
        return -errno.ENOSPC if entry == -errno.E2BIG else entry

    def _forget(self, length: int) -> None:
        """Count a prefix of some length less."""
        self._lengths[length] -= 1
        if self._lengths[length] <= 0:
            del self._lengths[length]
        self._tell_lengths()

    def _tell_lengths(self) -> None:
        """Write down which lengths there are, the longest first, and before them how many: all at once."""
        known = sorted(self._lengths, reverse=True)
        words = memoryview(array("I", [len(known), *known]))
        if self._known[: len(words)] != words:
            self._known[: len(words)] = words

    def delete(self, key: bytes) -> int:
        """Remove exactly this prefix; return 0, -ENOENT or -EINVAL."""
        length, data = self._split(key)
        if length > self.data_bits:
            return -errno.EINVAL
        prefix = self._prefix(data, length)
        with changing.held, self._change:
            entry = super().find(prefix)
            if entry < 0:
                return -errno.ENOENT
            self.free(entry)
            self._forget(length)
        return 0
