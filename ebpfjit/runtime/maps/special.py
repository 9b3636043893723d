"""Fields of a map's value that are the kernel's: locks, timers, kernel pointers, heads of lists and trees.

The loader finds them in the value's BTF, once a map (`ebpfjit.elf.special`). What copies a value leaves
them as they are, which map types may have them is the kernel's rule (map_check_btf).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ebpfjit.runtime.maps.definition import MapDefinition

MOST_FIELDS = 11
"""Special fields of a value (BTF_FIELDS_MAX); the kernel looks at no value that has more."""

_STORAGES = frozenset({"sk_storage", "inode_storage", "task_storage", "cgrp_storage"})
_LOCKED = _STORAGES | {"hash", "array", "cgroup_storage"}
_TIMED = frozenset({"hash", "lru_hash", "array"})
_POINTED = _STORAGES | _TIMED | {"percpu_hash", "lru_percpu_hash", "percpu_array"}


@dataclass(frozen=True, slots=True)
class Special:
    """One kind: bytes, alignment, map types that may have it, by name; one a value where `alone`."""

    size: int
    alignment: int
    map_types: frozenset[str]
    alone: bool = False


#                     size align map types                  alone
KINDS = {
    "bpf_spin_lock":     Special(4,  4, _LOCKED, alone=True),
    "bpf_res_spin_lock": Special(4,  4, _LOCKED, alone=True),
    "bpf_timer":         Special(16, 8, _TIMED,  alone=True),
    "bpf_wq":            Special(16, 8, _TIMED,  alone=True),
    "bpf_task_work":     Special(8,  8, _TIMED,  alone=True),
    "bpf_list_head":     Special(16, 8, _TIMED),
    "bpf_rb_root":       Special(16, 8, _TIMED),
    "bpf_refcount":      Special(4,  4, _POINTED, alone=True),
    "kptr":              Special(8,  8, _POINTED),
    "kptr_untrusted":    Special(8,  8, _POINTED),
    "percpu_kptr":       Special(8,  8, _POINTED),
    "uptr":              Special(8,  8, frozenset({"task_storage"})),
}  # fmt: skip
"""The structs that are special, and the tags of pointers that are, with the kernel's sizes."""

POINTERS = frozenset({"kptr", "kptr_untrusted", "percpu_kptr", "uptr"})


@dataclass(frozen=True, slots=True)
class SpecialField:
    """A special field of a value: one of KINDS, where it starts (bytes), and its name in C ("inner.lock")."""

    kind: str
    offset: int
    name: str

    @property
    def size(self) -> int:
        """Bytes of the field."""
        return KINDS[self.kind].size

    def __str__(self) -> str:
        """The field in an error message."""
        return f"{self.name!r} ({self.kind})"


def is_valid(fields: tuple[SpecialField, ...]) -> bool:
    """False for what the kernel takes for no special fields at all: too many, or two of what stands alone."""
    kinds = [field.kind for field in fields]
    return len(fields) <= MOST_FIELDS and not any(
        KINDS[kind].alone and kinds.count(kind) > 1 for kind in kinds
    )


def refused(definition: MapDefinition) -> Iterator[SpecialField]:
    """Yield the fields that a map of this type may not have."""
    for field in definition.special:
        if definition.type_name not in KINDS[field.kind].map_types:
            yield field


def spans(definition: MapDefinition) -> tuple[tuple[int, int], ...]:
    """Return the stretches of a value that are copied (first byte, end): all but special fields."""
    at, found = 0, []
    for field in sorted(definition.special, key=lambda field: field.offset):
        if field.offset > at:
            found.append((at, field.offset))
        at = field.offset + field.size
    if at < definition.value_size:
        found.append((at, definition.value_size))
    return tuple(found)
