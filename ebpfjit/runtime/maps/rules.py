"""What sizes and flags the kernel creates a map with: a row for each type, from its alloc_check functions."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

from ebpfjit.bits import U64_MASK
from ebpfjit.errors import MapRefused
from ebpfjit.record import dataclass
from ebpfjit.runtime.maps import special
from ebpfjit.runtime.maps.definition import MapDefinition, MapFlag, MapType

PAGE_SIZE = 4096
KMALLOC_MAX_SIZE = 1 << 22  # x86-64: what one allocation of the kernel may be
HASH_ELEMENT_SIZE = 48  # sizeof(struct htab_elem)
PCPU_MIN_UNIT_SIZE = 1 << 15
MAX_BPF_STACK = 512
MAX_STACK_DEPTH = 127  # sysctl kernel.perf_event_max_stack
ADDRESS_SIZE = 8
BUILD_ID_SIZE = 32  # sizeof(struct bpf_stack_build_id)
NR_CPUS = 8192  # as distributions configure it
LPM_PREFIX_SIZE = 4
MOST_HASHES = 15  # of a bloom filter
LPM_DATA_SIZE_MAX = 256
LPM_VALUE_SIZE_MAX = KMALLOC_MAX_SIZE - LPM_DATA_SIZE_MAX - 24
MAX_BUCKETS = 1 << 31
INT_MAX = (1 << 31) - 1
U32_MAX = (1 << 32) - 1
LOCAL_STORAGE_VALUE_MAX = (1 << 16) - 1 - 128  # what is left of 64 KiB by struct bpf_local_storage_elem
ENOTSUPP = 524
"""The kernel's "not supported"; not in C's errno.h (include/linux/errno.h)."""

NAMES = {ENOTSUPP: "ENOTSUPP", errno.EOPNOTSUPP: "EOPNOTSUPP"}
"""Error numbers that Python has no name for, or that of another with the same number."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Which sizes (bytes) are good, and how to say so."""

    text: str
    allows: Callable[[int], bool]


NONE = Sizes("0", lambda size: size == 0)
ANY = Sizes("1 or more", lambda size: size > 0)
FOUR = Sizes("4", lambda size: size == 4)
FOUR_OR_EIGHT = Sizes("4 or 8", lambda size: size in (4, 8))
CGROUP_KEY = Sizes(
    "8 (a cgroup's number) or 16 (struct bpf_cgroup_storage_key)", lambda size: size in (8, 16)
)
STACK_VALUE = Sizes(
    f"a multiple of 8, at most {8 * MAX_STACK_DEPTH} ({BUILD_ID_SIZE * MAX_STACK_DEPTH} with build ids)",
    lambda size: size >= 8 and size % 8 == 0,
)
LPM_KEY = Sizes(
    "5 to 260 (a prefix length of 4 bytes, then data)",
    lambda size: LPM_PREFIX_SIZE < size <= LPM_PREFIX_SIZE + LPM_DATA_SIZE_MAX,
)
LPM_VALUE = Sizes(f"1 to {LPM_VALUE_SIZE_MAX}", lambda size: 1 <= size <= LPM_VALUE_SIZE_MAX)

F = MapFlag
ACCESS = F.RDONLY | F.WRONLY | F.RDONLY_PROG | F.WRONLY_PROG
ARRAY_FLAGS = F.NUMA_NODE | ACCESS
HASH_FLAGS = F.NO_PREALLOC | F.NUMA_NODE | ACCESS | F.ZERO_SEED
STORAGE_FLAGS = F.NO_PREALLOC | F.CLONE
REFERENCE_FLAGS = F.NUMA_NODE | F.RDONLY | F.WRONLY  # fds, which programs do not read

#                            key      value          flags
SHAPES: dict[MapType, tuple[Sizes, Sizes, MapFlag]] = {
    MapType.HASH:             (ANY,     ANY,           HASH_FLAGS),
    MapType.ARRAY:            (FOUR,    ANY,           ARRAY_FLAGS | F.MMAPABLE | F.INNER_MAP),
    MapType.PROG_ARRAY:       (FOUR,    FOUR,          REFERENCE_FLAGS),
    MapType.PERF_EVENT_ARRAY: (FOUR,    FOUR,          REFERENCE_FLAGS | F.PRESERVE_ELEMS),
    MapType.PERCPU_HASH:      (ANY,     ANY,           HASH_FLAGS),
    MapType.PERCPU_ARRAY:     (FOUR,    ANY,           ARRAY_FLAGS),
    MapType.STACK_TRACE:      (FOUR,    STACK_VALUE,   REFERENCE_FLAGS | F.STACK_BUILD_ID),
    MapType.CGROUP_ARRAY:     (FOUR,    FOUR,          REFERENCE_FLAGS),
    MapType.LRU_HASH:         (ANY,     ANY,           HASH_FLAGS | F.NO_COMMON_LRU),
    MapType.LRU_PERCPU_HASH:  (ANY,     ANY,           HASH_FLAGS | F.NO_COMMON_LRU),
    MapType.LPM_TRIE:         (LPM_KEY, LPM_VALUE,     F.NO_PREALLOC | F.NUMA_NODE | ACCESS),
    MapType.ARRAY_OF_MAPS:    (FOUR,    FOUR,          REFERENCE_FLAGS),
    MapType.HASH_OF_MAPS:     (ANY,     FOUR,          HASH_FLAGS),
    MapType.DEVMAP:           (FOUR,    FOUR_OR_EIGHT, REFERENCE_FLAGS),
    MapType.SOCKMAP:          (FOUR,    FOUR_OR_EIGHT, REFERENCE_FLAGS),
    MapType.REUSEPORT_SOCKARRAY: (FOUR, FOUR_OR_EIGHT, ARRAY_FLAGS),
    MapType.CPUMAP:           (FOUR,    FOUR_OR_EIGHT, F.NUMA_NODE),
    MapType.XSKMAP:           (FOUR,    FOUR,          REFERENCE_FLAGS),
    MapType.SOCKHASH:         (ANY,     FOUR_OR_EIGHT, REFERENCE_FLAGS),
    MapType.QUEUE:            (NONE,    ANY,           F.NUMA_NODE | ACCESS),
    MapType.STACK:            (NONE,    ANY,           F.NUMA_NODE | ACCESS),
    MapType.DEVMAP_HASH:      (FOUR,    FOUR_OR_EIGHT, REFERENCE_FLAGS),
    MapType.RINGBUF:          (NONE,    NONE,          F.NUMA_NODE),
    MapType.BLOOM_FILTER:     (NONE,    ANY,           F.NUMA_NODE | F.ZERO_SEED | ACCESS),
    MapType.USER_RINGBUF:     (NONE,    NONE,          F.NUMA_NODE),
    MapType.SK_STORAGE:       (FOUR,    ANY,           STORAGE_FLAGS),
    MapType.INODE_STORAGE:    (FOUR,    ANY,           STORAGE_FLAGS),
    MapType.TASK_STORAGE:     (FOUR,    ANY,           STORAGE_FLAGS),
    MapType.CGRP_STORAGE:     (FOUR,    ANY,           STORAGE_FLAGS),
    MapType.CGROUP_STORAGE:   (CGROUP_KEY, ANY,        F.NUMA_NODE | ACCESS),
    MapType.PERCPU_CGROUP_STORAGE: (CGROUP_KEY, ANY,   F.NUMA_NODE | ACCESS),
    MapType.ARENA:            (NONE,    NONE,          F.MMAPABLE | F.SEGV_ON_FAULT | F.NO_USER_CONV),
}  # fmt: skip

HASHES = {
    MapType.HASH, MapType.PERCPU_HASH, MapType.LRU_HASH, MapType.LRU_PERCPU_HASH, MapType.HASH_OF_MAPS,
}  # fmt: skip
LRU = {MapType.LRU_HASH, MapType.LRU_PERCPU_HASH}
PERCPU = {MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH, MapType.PERCPU_ARRAY}
QUEUES = {MapType.QUEUE, MapType.STACK}
RINGS = {MapType.RINGBUF, MapType.USER_RINGBUF}
STORAGES = {MapType.SK_STORAGE, MapType.INODE_STORAGE, MapType.TASK_STORAGE, MapType.CGRP_STORAGE}
CGROUP_STORAGES = {MapType.CGROUP_STORAGE, MapType.PERCPU_CGROUP_STORAGE}
"""Storage of cgroups that has keys, and none of the flags of the others."""

Refusal = tuple[int, str]


def check(definition: MapDefinition) -> None:
    """Raise MapRefused where the kernel would not create the map, with its error number."""
    for number, reason in _refusals(definition):
        name = NAMES.get(number) or errno.errorcode[number]
        raise MapRefused(f"{definition}: {reason} ({name})", number)


def _refusals(d: MapDefinition) -> Iterator[Refusal]:
    """Yield what is wrong, in the order in which the kernel looks."""
    if d.type not in SHAPES:
        known = ", ".join(kind.name.lower() for kind in SHAPES)
        yield errno.EINVAL, f"there is no such map type here; there are {known}"
        return
    kind = MapType(d.type)
    keys, values, flags = SHAPES[kind]
    for what, number in (("key_size", d.key_size), ("value_size", d.value_size), ("flags", d.flags)):
        if not 0 <= number <= U32_MAX:
            yield errno.EINVAL, f"{what} is {number}, which is no u32"
    if not 0 <= d.max_entries <= U32_MAX:
        yield errno.EINVAL, f"max_entries is {d.max_entries}, which is no u32"
    if d.flags & (F.RDONLY | F.WRONLY) == F.RDONLY | F.WRONLY:
        yield errno.EINVAL, f"flags {d.flags:#x}: BPF_F_RDONLY and BPF_F_WRONLY exclude each other"
    if d.extra and kind not in (MapType.BLOOM_FILTER, MapType.ARENA):
        yield errno.EINVAL, f"map_extra is {d.extra}, which only bloom filters and arenas have"
    if kind is MapType.BLOOM_FILTER and d.value_size > KMALLOC_MAX_SIZE:
        yield errno.E2BIG, f"value_size is {d.value_size}, more than {KMALLOC_MAX_SIZE}"
    if kind not in CGROUP_STORAGES:
        yield from _flags(d, kind, flags)
    if not keys.allows(d.key_size):
        yield errno.EINVAL, f"key_size is {d.key_size}, it must be {keys.text}"
    if not values.allows(d.value_size):
        yield errno.EINVAL, f"value_size is {d.value_size}, it must be {values.text}"
    if kind in CGROUP_STORAGES:
        yield from _cgroup_storage(d, kind)
        yield from _flags(d, kind, flags)
    if kind in STORAGES:
        yield from _storage(d)
    elif d.max_entries == 0 and kind not in CGROUP_STORAGES:
        yield errno.EINVAL, "max_entries is 0; say how many entries the map is to have"
    if kind is MapType.ARENA:
        yield from _arena(d)
    else:
        yield from _details(d, kind)
    yield from _special(d)


def _flags(d: MapDefinition, kind: MapType, allowed: MapFlag) -> Iterator[Refusal]:
    if unknown := d.flags & ~int(allowed):  # of a MapFlag it would be the bits that have names
        yield errno.EINVAL, f"flags {d.flags:#x}: this type takes no {MapFlag(unknown)!r}"
    if d.flags & (F.RDONLY_PROG | F.WRONLY_PROG) == F.RDONLY_PROG | F.WRONLY_PROG:
        yield errno.EINVAL, f"flags {d.flags:#x}: BPF_F_RDONLY_PROG and BPF_F_WRONLY_PROG exclude each other"
    if kind in LRU and d.flags & F.NO_PREALLOC:
        yield ENOTSUPP, "an LRU map is always preallocated; drop BPF_F_NO_PREALLOC"
    if d.flags & F.NUMA_NODE and (kind in PERCPU or d.flags & F.NO_COMMON_LRU):
        yield errno.EINVAL, "what each processor has of its own is on no node; drop BPF_F_NUMA_NODE"
    if kind is MapType.LPM_TRIE and not d.flags & F.NO_PREALLOC:
        yield errno.EINVAL, "an LPM trie is never preallocated; add BPF_F_NO_PREALLOC to map_flags"


def _cgroup_storage(d: MapDefinition, kind: MapType) -> Iterator[Refusal]:
    """Yield what storage of cgroups may not have."""
    most = LOCAL_STORAGE_VALUE_MAX if kind is MapType.CGROUP_STORAGE else PCPU_MIN_UNIT_SIZE
    if d.value_size > most:
        yield errno.E2BIG, f"value_size is {d.value_size}, more than {most}"
    if d.max_entries:
        yield errno.EINVAL, f"max_entries is {d.max_entries}; storage of cgroups has 0: a value for each"


def _storage(d: MapDefinition) -> Iterator[Refusal]:
    """Yield what local storage may not have: how many values there are follows from their owners."""
    if not d.flags & F.NO_PREALLOC:
        yield errno.EINVAL, "local storage is never preallocated; add BPF_F_NO_PREALLOC to map_flags"
    if d.max_entries:
        yield errno.EINVAL, f"max_entries is {d.max_entries}; local storage has 0: a value for each owner"
    if d.value_size > LOCAL_STORAGE_VALUE_MAX:
        yield errno.E2BIG, f"value_size is {d.value_size}, more than {LOCAL_STORAGE_VALUE_MAX}"


def _arena(d: MapDefinition) -> Iterator[Refusal]:
    """Yield what an arena may not have: it is mapped into processes, whole, and its pointers have 32 bits."""
    if not d.flags & F.MMAPABLE:
        yield errno.EINVAL, "an arena is memory of processes too; add BPF_F_MMAPABLE to map_flags"
    if not 0 <= d.extra <= U64_MASK or d.extra % PAGE_SIZE:
        yield errno.EINVAL, f"map_extra is {d.extra:#x}; an arena's address is a multiple of {PAGE_SIZE}"
    size = d.max_entries * PAGE_SIZE
    if size > 1 << 32:
        yield errno.E2BIG, f"max_entries is {d.max_entries} pages, more than 4 GiB"
    if d.extra >> 32 != (d.extra + size - 1) >> 32:
        yield (
            errno.ERANGE,
            f"{size} bytes at map_extra {d.extra:#x}; an arena may not cross a multiple of 4 GiB",
        )


def _special(d: MapDefinition) -> Iterator[Refusal]:
    """Yield the fields of the value that a map of this type may not have (map_check_btf)."""
    if d.special and d.flags & (F.RDONLY_PROG | F.WRONLY_PROG):
        yield (
            errno.EACCES,
            f"{d.special[0]} in its value is written by programs and read; drop the access flags",
        )
    for field in special.refused(d):
        kinds = ", ".join(sorted(special.KINDS[field.kind].map_types))
        yield errno.EOPNOTSUPP, f"{field} is in its value; a {field.kind} may be in values of {kinds}"


def _details(d: MapDefinition, kind: MapType) -> Iterator[Refusal]:
    """Yield what the sizes of single types break, beyond the table's shapes."""
    if kind in PERCPU and d.value_size > PCPU_MIN_UNIT_SIZE:
        yield (
            errno.E2BIG,
            f"a value of {d.value_size} bytes; per-CPU values have at most {PCPU_MIN_UNIT_SIZE}",
        )
    if kind in HASHES and d.key_size + d.value_size >= KMALLOC_MAX_SIZE - HASH_ELEMENT_SIZE:
        yield errno.E2BIG, f"key and value have {d.key_size + d.value_size} bytes, too many for one element"
    if kind in HASHES and d.max_entries > MAX_BUCKETS:
        yield errno.E2BIG, f"max_entries is {d.max_entries}, more than 2**31"
    if kind is MapType.STACK_TRACE:
        frame = BUILD_ID_SIZE if d.flags & F.STACK_BUILD_ID else ADDRESS_SIZE
        if d.value_size % frame or d.value_size // frame > MAX_STACK_DEPTH:
            most = f"a multiple of {frame}, at most {frame * MAX_STACK_DEPTH}"
            yield errno.EINVAL, f"value_size is {d.value_size}, it must be {most}"
    if d.value_size > INT_MAX:
        yield errno.E2BIG, f"value_size is {d.value_size}, more than 2**31 - 1"
    if not 0 <= d.extra <= MOST_HASHES:
        yield errno.EINVAL, f"map_extra is {d.extra}; a bloom filter has up to {MOST_HASHES} hash functions"
    if kind in QUEUES and d.value_size > KMALLOC_MAX_SIZE:
        yield errno.E2BIG, f"value_size is {d.value_size}, more than {KMALLOC_MAX_SIZE}"
    if kind is MapType.DEVMAP_HASH and d.max_entries > MAX_BUCKETS:
        yield errno.EINVAL, f"max_entries is {d.max_entries}, more than 2**31"
    if kind is MapType.STACK_TRACE and d.max_entries > MAX_BUCKETS:
        yield errno.E2BIG, f"max_entries is {d.max_entries}, more than 2**31"
    if kind is MapType.CPUMAP and d.max_entries > NR_CPUS:
        yield errno.E2BIG, f"max_entries is {d.max_entries}, more than {NR_CPUS} processors"
    if kind is MapType.SOCKHASH and d.key_size > MAX_BPF_STACK:
        yield errno.E2BIG, f"key_size is {d.key_size}, more than the {MAX_BPF_STACK} bytes of a stack"
    if kind in RINGS and (d.max_entries % PAGE_SIZE or d.max_entries & (d.max_entries - 1)):
        yield (
            errno.EINVAL,
            f"max_entries is {d.max_entries} bytes, it must be a power of two and a multiple of {PAGE_SIZE}",
        )
