"""Special fields of values: which map types Linux makes with them, and which we do, with its error number."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from ebpfjit import MapRefused, kernel, load
from ebpfjit.difftest.children import run_forked
from ebpfjit.elf.btf import HEADER, MAGIC, Btf, Kind
from ebpfjit.elf.special import special_fields
from ebpfjit.kernel import syscalls
from ebpfjit.kernel.types import loaded
from ebpfjit.runtime.maps import MapDefinition, MapFlag, MapType, create
from ebpfjit.runtime.maps.definition import MapTypes
from ebpfjit.runtime.maps.special import KINDS, POINTERS

_REASON = kernel.unavailable_reason()
OBJECT = Path(__file__).parent.parent / "elf" / "special_kinds.o"
TYPES = (
    MapType.HASH, MapType.ARRAY, MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_HASH,
    MapType.LRU_PERCPU_HASH, MapType.LPM_TRIE,
)  # fmt: skip
UNKNOWN_HERE = {"percpu_kptr"}
"""Needs a type of a program's own BTF that bpf_percpu_obj_new makes."""


def pointer_to_task(tag: str) -> MapDefinition:
    """Return a map whose value is a count and a pointer to a task_struct with a type tag."""
    strings = b"\0int\0long\0value\0count\0field\0task_struct\0" + tag.encode() + b"\0"

    def name(text: str) -> int:
        return strings.index(b"\0" + text.encode() + b"\0") + 1

    types = struct.pack("<IIII", name("int"), Kind.INT << 24, 4, 1 << 24 | 32)
    types += struct.pack("<IIII", name("long"), Kind.INT << 24, 8, 1 << 24 | 64)
    types += struct.pack("<III", name("task_struct"), Kind.STRUCT << 24 | 1, 4)
    types += struct.pack("<III", name("field"), 1, 0)
    types += struct.pack("<III", name(tag), Kind.TYPE_TAG << 24, 3)
    types += struct.pack("<III", 0, Kind.PTR << 24, 4)
    types += struct.pack("<III", name("value"), Kind.STRUCT << 24 | 2, 16)
    types += struct.pack("<III", name("count"), 2, 0) + struct.pack("<III", name("field"), 5, 64)
    header = HEADER.pack(MAGIC, 1, 0, HEADER.size, 0, len(types), len(types), len(strings))
    btf = header + types + strings
    found = special_fields(Btf(btf), 6)
    assert [field.kind for field in found] == [tag]
    return MapDefinition(tag, MapType.HASH, 4, 16, 4, types=MapTypes(btf, 1, 6), special=found)


def definitions() -> dict[str, MapDefinition]:
    """Return a map with each kind of field, and with some together."""
    made = {name: map_.definition for name, map_ in load(OBJECT).maps.items()}
    tags = POINTERS - UNKNOWN_HERE
    return {name: each for name, each in made.items() if each.section == ".maps"} | {
        tag: pointer_to_task(tag) for tag in tags
    }


def of_type(definition: MapDefinition, kind: MapType) -> MapDefinition:
    if kind is not MapType.LPM_TRIE:
        return replace(definition, type=kind)
    key = replace(definition.types, key=0) if definition.types is not None else None
    return replace(definition, type=kind, key_size=8, flags=int(MapFlag.NO_PREALLOC), types=key)


def ours(definition: MapDefinition) -> int:
    try:
        create(definition)
    except MapRefused as error:
        return -error.errno
    return 0


def linux(d: MapDefinition) -> int:
    assert d.types is not None
    btf = loaded(d.types.btf)
    assert btf is not None, f"{d}: Linux refuses its types"
    types = btf.fd, d.types.key, d.types.value
    sizes = d.type, d.key_size, d.value_size, d.max_entries, d.flags
    fd, _ = syscalls._call(syscalls.MAP_CREATE, syscalls._MAP_CREATE.pack(*sizes, 0, b"m", *types, 0))
    if fd >= 0:
        os.close(fd)
    return min(fd, 0)


def test_there_is_a_map_with_each_kind_of_field() -> None:
    found = {field.kind for each in definitions().values() for field in each.special}
    assert found == KINDS.keys() - UNKNOWN_HERE


@pytest.mark.skipif(_REASON is not None, reason=str(_REASON))
def test_linux_lets_a_map_have_the_special_fields_that_we_let_it_have() -> None:
    def answers() -> list[tuple[str, str, int, int]]:
        return [
            (name, kind.name, ours(made), linux(made))
            for name, each in definitions().items()
            for kind in TYPES
            if each.special or kind is not MapType.LPM_TRIE  # which would want a prefix as its key's type
            for made in [of_type(each, kind)]
        ]

    ended = run_forked(answers, 30)
    assert ended.value, ended
    assert [each for each in ended.value if each[2] != each[3]] == []
    assert {each[2] for each in ended.value} == {0, -95}
