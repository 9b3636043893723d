"""What each operation on a map answers: by type, state of the key and flags, as Linux's map_*_elem do.

    cells()  ->  (helper, type, state, flags, r0)  for each pair of `TAKES` that reads or writes elements

States of a key: it is "there", "absent", absent where the map is "full", or "outside": an index behind the
last, a prefix longer than a key. Maps without keys hold some, are "empty", or "full". r0 is what the program
gets, negative error numbers included; of a lookup 1 for an address.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import NamedTuple

from ebpfjit.runtime.maps.definition import BPF_EXIST, BPF_F_LOCK, BPF_NOEXIST, MapType

THERE, ABSENT, FULL, OUTSIDE, EMPTY = "there", "absent", "full", "outside", "empty"

ABORTED, REDIRECT = 0, 4
BROADCAST, EXCLUDE_INGRESS = 1 << 3, 1 << 4
FALLBACK = 0b11
UPDATE_FLAGS = (0, 1, 2, 3, 4, 5, 6, 8, 1 << 40, -1)
PUSH_FLAGS = (0, 1, 2, 3, 4, 1 << 40, -1)
VISIT_FLAGS = (0, 1, -1)
REDIRECT_FLAGS = (0, 1, 2, 3, 4, 8, 9, 16, 25, 32, -1)
U64_MASK = (1 << 64) - 1


class Keyed(NamedTuple):
    """A type with keys: error numbers, 0 where there is no such state. No lock is in the values.

    `full` and `outside` are those of an update, `taken_absent` and `taken_outside` those of a delete;
    `lock_first` is true where BPF_F_LOCK is refused before anything else.
    """

    states: tuple[str, ...]
    full: int = 0
    outside: int = 0
    taken: int = 0
    taken_absent: int = errno.ENOENT
    taken_outside: int = 0
    lock_first: bool = True


_KEPT = (THERE, ABSENT, FULL)
_ALWAYS = (THERE, OUTSIDE)

E2BIG, EINVAL, ENOENT, ENOSPC = errno.E2BIG, errno.EINVAL, errno.ENOENT, errno.ENOSPC

#                                 states             full    outside  deleting: there, absent, outside
WRITTEN: dict[MapType, Keyed] = {
    MapType.HASH:             Keyed(_KEPT,               E2BIG),
    MapType.PERCPU_HASH:      Keyed(_KEPT,               E2BIG),
    MapType.LRU_HASH:         Keyed((THERE, ABSENT)),
    MapType.LRU_PERCPU_HASH:  Keyed((THERE, ABSENT)),
    MapType.LPM_TRIE:         Keyed((*_KEPT, OUTSIDE),   ENOSPC, EINVAL, 0,      ENOENT, EINVAL),
    MapType.ARRAY:            Keyed(_ALWAYS,             0,      E2BIG,  EINVAL, EINVAL, EINVAL, False),
    MapType.PERCPU_ARRAY:     Keyed(_ALWAYS,             0,      E2BIG,  EINVAL, EINVAL, EINVAL, False),
}  # fmt: skip
"""What programs update and delete in."""

READ: dict[MapType, tuple[str, ...]] = {
    MapType.DEVMAP:        (THERE, ABSENT, OUTSIDE),
    MapType.DEVMAP_HASH:   (THERE, ABSENT),
    MapType.CPUMAP:        (THERE, OUTSIDE),
    MapType.XSKMAP:        (ABSENT, OUTSIDE),
    MapType.SOCKMAP:       (ABSENT, OUTSIDE),
    MapType.SOCKHASH:      (ABSENT,),
    MapType.ARRAY_OF_MAPS: (THERE, ABSENT, OUTSIDE),
    MapType.HASH_OF_MAPS:  (THERE, ABSENT),
}  # fmt: skip
"""What only user space stores in; there are states that it takes a socket to reach."""

SOCKETS_TAKEN = {MapType.SOCKMAP: errno.EINVAL, MapType.SOCKHASH: errno.ENOENT}
"""What deleting a socket that is not there gives."""

PERCPU = (MapType.PERCPU_ARRAY, MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH)
ENDS = (MapType.QUEUE, MapType.STACK)
TARGETS = (MapType.DEVMAP, MapType.DEVMAP_HASH, MapType.CPUMAP, MapType.XSKMAP)


class Cell(NamedTuple):
    """One answer: `flags` are the call's last argument, of a lookup for a processor its number."""

    helper: str
    type: MapType
    state: str
    flags: int
    answer: int


def update(kind: MapType, state: str, flags: int) -> int:
    """Return what bpf_map_update_elem answers."""
    row = WRITTEN[kind]
    flags &= U64_MASK
    plain = flags if row.lock_first else flags & ~BPF_F_LOCK
    if plain > BPF_EXIST:
        return -errno.EINVAL
    if state == OUTSIDE:
        return -row.outside
    if state == THERE and plain == BPF_NOEXIST:
        return -errno.EEXIST
    if state != THERE and plain == BPF_EXIST:
        return -errno.ENOENT
    if state == FULL:
        return -row.full
    return -errno.EINVAL if flags != plain else 0


def delete(kind: MapType, state: str) -> int:
    """Return what bpf_map_delete_elem answers."""
    if kind in SOCKETS_TAKEN:
        return -SOCKETS_TAKEN[kind]
    row = WRITTEN[kind]
    return -{THERE: row.taken, OUTSIDE: row.taken_outside}.get(state, row.taken_absent)


def push(kind: MapType, state: str, flags: int) -> int:
    """Return what bpf_map_push_elem answers."""
    most = 0 if kind is MapType.BLOOM_FILTER else BPF_EXIST
    flags &= U64_MASK
    if flags > most or flags == BPF_NOEXIST:
        return -errno.EINVAL
    return -errno.E2BIG if state == FULL and flags != BPF_EXIST else 0


def redirect(kind: MapType, state: str, flags: int) -> int:
    """Return what bpf_redirect_map answers: what becomes of the packet."""
    broadcasts = BROADCAST | EXCLUDE_INGRESS if kind in (MapType.DEVMAP, MapType.DEVMAP_HASH) else 0
    if flags & ~(FALLBACK | broadcasts):
        return ABORTED
    return REDIRECT if state == THERE or flags & BROADCAST else flags & FALLBACK


def cells() -> Iterator[Cell]:
    """Yield every answer there is."""
    for kind, row in WRITTEN.items():
        for state in row.states:
            yield Cell("bpf_map_lookup_elem", kind, state, 0, int(state == THERE))
            yield Cell("bpf_map_delete_elem", kind, state, 0, delete(kind, state))
            for flags in UPDATE_FLAGS:
                yield Cell("bpf_map_update_elem", kind, state, flags, update(kind, state, flags))
            for cpu in (0, 4000) if kind in PERCPU else ():
                found = int(state == THERE and cpu == 0)
                yield Cell("bpf_map_lookup_percpu_elem", kind, state, cpu, found)
        for flags in VISIT_FLAGS if kind is not MapType.LPM_TRIE else ():
            yield Cell("bpf_for_each_map_elem", kind, THERE, flags, -errno.EINVAL if flags else 1)
    for kind, states in READ.items():
        for state in states:
            if kind is not MapType.CPUMAP:
                yield Cell("bpf_map_lookup_elem", kind, state, 0, int(state == THERE))
            if kind in SOCKETS_TAKEN:
                yield Cell("bpf_map_delete_elem", kind, state, 0, delete(kind, state))
            for flags in REDIRECT_FLAGS if kind in TARGETS else ():
                yield Cell("bpf_redirect_map", kind, state, flags, redirect(kind, state, flags))
    for kind in (*ENDS, MapType.BLOOM_FILTER):
        for state in (THERE, EMPTY, FULL) if kind in ENDS else (THERE, EMPTY):
            missing = -errno.ENOENT if state == EMPTY else 0
            yield Cell("bpf_map_peek_elem", kind, state, 0, missing)
            if kind in ENDS:
                yield Cell("bpf_map_pop_elem", kind, state, 0, missing)
            for flags in PUSH_FLAGS:
                yield Cell("bpf_map_push_elem", kind, state, flags, push(kind, state, flags))
