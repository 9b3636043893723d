"""What a map is made from: the kernel's map types, and one map's definition."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Any, Protocol

from ebpfjit.record import dataclass, field
from ebpfjit.runtime.maps.special import SpecialField


class MapType(IntEnum):
    """The kernel's map types (include/uapi/linux/bpf.h, enum bpf_map_type)."""

    HASH = 1
    ARRAY = 2
    PROG_ARRAY = 3
    PERF_EVENT_ARRAY = 4
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    STACK_TRACE = 7
    CGROUP_ARRAY = 8
    LRU_HASH = 9
    LRU_PERCPU_HASH = 10
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    HASH_OF_MAPS = 13
    DEVMAP = 14
    SOCKMAP = 15
    CPUMAP = 16
    XSKMAP = 17
    SOCKHASH = 18
    CGROUP_STORAGE = 19
    REUSEPORT_SOCKARRAY = 20
    PERCPU_CGROUP_STORAGE = 21
    QUEUE = 22
    STACK = 23
    SK_STORAGE = 24
    DEVMAP_HASH = 25
    STRUCT_OPS = 26
    RINGBUF = 27
    INODE_STORAGE = 28
    TASK_STORAGE = 29
    BLOOM_FILTER = 30
    USER_RINGBUF = 31
    CGRP_STORAGE = 32
    ARENA = 33


class MapFlag(IntFlag):
    """Flags that a map is created with (enum of BPF_F_* in include/uapi/linux/bpf.h)."""

    NO_PREALLOC = 1 << 0
    NO_COMMON_LRU = 1 << 1
    NUMA_NODE = 1 << 2
    RDONLY = 1 << 3
    WRONLY = 1 << 4
    STACK_BUILD_ID = 1 << 5
    ZERO_SEED = 1 << 6
    RDONLY_PROG = 1 << 7
    WRONLY_PROG = 1 << 8
    CLONE = 1 << 9
    MMAPABLE = 1 << 10
    PRESERVE_ELEMS = 1 << 11
    INNER_MAP = 1 << 12
    SEGV_ON_FAULT = 1 << 17
    NO_USER_CONV = 1 << 18


BPF_ANY, BPF_NOEXIST, BPF_EXIST, BPF_F_LOCK = 0, 1, 2, 4
"""Flags of an update: whatever is there; only a new key; only a key that is there; under its spin lock."""


class Codec(Protocol):
    """How the bytes of a key or value read as a Python value; BTF types are such."""

    @property
    def size(self) -> int:
        """Bytes that a value takes."""

    def decode(self, data: bytes) -> Any:
        """Return the Python value of `size` bytes."""

    def encode(self, value: Any) -> bytes:
        """Return the `size` bytes of a Python value; raises TypeError or ValueError where it does not fit."""


@dataclass(frozen=True, slots=True)
class MapTypes:
    """The BTF of a map's keys and values: `btf` as in `Program.types`, and the ids in it (0: void)."""

    btf: bytes
    key: int = 0
    value: int = 0


@dataclass(frozen=True, slots=True)
class MapDefinition:
    """One map as an object file, or a user, defines it. Sizes in bytes.

    `key_size` and `value_size` are those of one entry, `max_entries` is how many there may be (of a ring
    buffer its bytes), `pinning` is libbpf's: 1 for LIBBPF_PIN_BY_NAME. `type` is a MapType, or a number that
    this version does not know. `flags` are BPF_F_*. `key_type` and `value_type` are there where the object
    has BTF for them. `inner` is the template of the maps inside. `values` are what `.values` of a BTF
    definition puts in: (index, name of a program or map). `is_readonly` is true where programs may not write
    the values (.rodata). `section` is where the definition stands. `extra` is map_extra: how many hash
    functions a bloom filter uses (0: the kernel's choice), or where an arena is for a user. `types` is what
    Linux is told of keys and values. `special` are the fields of the value that are the kernel's: locks,
    timers and the like (`runtime.maps.special`). `variables` are those of a section, for who reads code:
    offset and name, in order.
    """

    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0
    pinning: int = 0
    key_type: Codec | None = None
    value_type: Codec | None = None
    inner: MapDefinition | None = None
    values: tuple[tuple[int, str], ...] = ()
    is_readonly: bool = False
    section: str = ""
    extra: int = 0
    types: MapTypes | None = field(default=None, repr=False, compare=False)
    special: tuple[SpecialField, ...] = ()
    variables: tuple[tuple[int, str], ...] = field(default=(), repr=False, compare=False)

    def __deepcopy__(self, memo: object) -> MapDefinition:
        """Itself: nothing of it changes."""
        return self

    @property
    def type_name(self) -> str:
        """The type as libbpf spells it ("lru_hash"), "type 99" where there is no such type."""
        try:
            return MapType(self.type).name.lower()
        except ValueError:
            return f"type {self.type}"

    def __str__(self) -> str:
        """The map in an error message."""
        return f"map {self.name!r} ({self.type_name})"
