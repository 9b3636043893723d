"""Fields of a map's value that are the kernel's: locks, timers, kernel pointers, heads of lists and trees.

The loader finds them in the value's BTF, once a map (`ebpfjit.elf.special`). What copies a value copies none
of them: locks stay as they are, what refers to something is let go of. Which map types may have them is the
kernel's rule (map_check_btf).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ebpfjit.record import dataclass

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
    """One kind: bytes, alignment, map types that may have it, by name; one a value where `alone`.

    What it refers to is let go of (`is_freed`) with a value that is deleted or written over
    (bpf_obj_free_fields).
    """

    size: int
    alignment: int
    map_types: frozenset[str]
    alone: bool = False
    is_freed: bool = True


#                     size align map types                  alone
KINDS = {
    "bpf_spin_lock":     Special(4,  4, _LOCKED, alone=True, is_freed=False),
    "bpf_res_spin_lock": Special(4,  4, _LOCKED, alone=True, is_freed=False),
    "bpf_timer":         Special(16, 8, _TIMED,  alone=True),
    "bpf_wq":            Special(16, 8, _TIMED,  alone=True),
    "bpf_task_work":     Special(8,  8, _TIMED,  alone=True),
    "bpf_list_head":     Special(16, 8, _TIMED),
    "bpf_rb_root":       Special(16, 8, _TIMED),
    "bpf_refcount":      Special(4,  4, _POINTED, alone=True, is_freed=False),
    "kptr":              Special(8,  8, _POINTED),
    "kptr_untrusted":    Special(8,  8, _POINTED),
    "percpu_kptr":       Special(8,  8, _POINTED),
    "uptr":              Special(8,  8, frozenset({"task_storage"})),
}  # fmt: skip
"""The structs that are special, and the tags of pointers that are, with the kernel's sizes."""

NODES = {"bpf_list_node": Special(24, 8, frozenset()), "bpf_rb_node": Special(32, 8, frozenset())}
"""What objects of programs have besides: where they hang in lists and trees. Map values have none."""

OBJ_DROP = "bpf_obj_drop"
"""What gives back an object of bpf_obj_new."""

HEADS = {"bpf_list_head": "bpf_list_node", "bpf_rb_root": "bpf_rb_node"}
"""What hangs in each."""

LOCKS = frozenset({"bpf_spin_lock", "bpf_res_spin_lock"})

POINTERS = frozenset({"kptr", "kptr_untrusted", "percpu_kptr", "uptr"})

REFERENCED = frozenset({"kptr", "percpu_kptr"})
"""Those of POINTERS that own what they point to: bpf_kptr_xchg is for these."""


@dataclass(frozen=True, slots=True)
class SpecialField:
    """A special field of a value: one of KINDS, where it starts (bytes), and its name in C ("inner.lock").

    `contains` says of the head of a list or tree which struct its objects are, and where in it their node is;
    of a pointer, to which struct it is, and 0; None where the types do not say.
    """

    kind: str
    offset: int
    name: str
    contains: tuple[str, int] | None = None

    @property
    def size(self) -> int:
        """Bytes of the field."""
        return (KINDS.get(self.kind) or NODES[self.kind]).size

    def __str__(self) -> str:
        """The field in an error message."""
        return f"{self.name!r} ({self.kind})"


@dataclass(frozen=True, slots=True)
class ObjectLayout:
    """A struct of a program's own that bpf_obj_new makes: its name, bytes, and special fields by offset.

    `is_scalar` is true where there is nothing but numbers in it. `released_by` is the kernel function that
    gives a reference back.
    """

    name: str
    size: int
    fields: tuple[SpecialField, ...]
    is_scalar: bool = False
    released_by: str = OBJ_DROP

    def field_of(self, kind: str) -> SpecialField | None:
        """Return the first field of a kind."""
        return next((field for field in self.fields if field.kind == kind), None)


def is_valid(fields: tuple[SpecialField, ...]) -> bool:
    """False for what the kernel takes for no special fields at all: too many, or two of what stands alone."""
    kinds = [field.kind for field in fields]
    return len(fields) <= MOST_FIELDS and not any(
        kind in KINDS and KINDS[kind].alone and kinds.count(kind) > 1 for kind in kinds
    )


def refused(definition: MapDefinition) -> Iterator[SpecialField]:
    """Yield the fields that a map of this type may not have."""
    for field in definition.special:
        if definition.type_name not in KINDS[field.kind].map_types:
            yield field


def freed(definition: MapDefinition) -> tuple[SpecialField, ...]:
    """Return the fields that become zero where a value is deleted, or written over."""
    return tuple(field for field in definition.special if KINDS[field.kind].is_freed)


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
