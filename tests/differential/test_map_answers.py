"""Every operation on every map type, by flags and state of the key: engines and Linux answer as the table."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby
from typing import Any

import pytest

from ebpfjit import Program, kernel
from ebpfjit.assembler import assemble
from ebpfjit.difftest.children import run_forked
from ebpfjit.runtime.helpers.maps import TAKES
from ebpfjit.runtime.helpers.names import NUMBERS
from ebpfjit.runtime.maps import MapDefinition, MapFlag, MapType, create, rules
from ebpfjit.runtime.maps.answers import (
    ABSENT,
    EMPTY,
    ENDS,
    FULL,
    OUTSIDE,
    SOCKETS_TAKEN,
    THERE,
    WRITTEN,
    Cell,
    cells,
)

_REASON = kernel.unavailable_reason()
ENGINES = ["interpreter", "jit"]

INNER = MapDefinition("inner", MapType.HASH, 4, 8, 4)
MANY, FEW = 8, 2
ENTRIES = {MapType.CPUMAP: 1, MapType.BLOOM_FILTER: 4096, MapType.ARRAY: 1, MapType.PERCPU_ARRAY: 1}
KEYS = {THERE: 0, ABSENT: 1, FULL: 7, OUTSIDE: 99}
LPM_KEYS = {THERE: (32, 0), ABSENT: (32, 1), FULL: (32, 7), OUTSIDE: (99, 0)}

RESULTS, MAP = "lddw r1, map[idx:0]\n", "lddw r1, map[idx:{index}]\n"
KEY, VALUE = "mov r2, r10\nadd r2, -16\n", "mov r3, r10\nadd r3, -24\n"
ITEM = "mov r2, r10\nadd r2, -24\n"
START = """
    stdw [r10-8], 0
    stdw [r10-16], 0
    stdw [r10-24], 5
    mov r2, r10
    add r2, -8
    lddw r1, map[idx:0]
    call 1
    jne r0, 0, +1
    exit
    mov r7, r0
"""
VISITOR = "visitor:\nmov r0, 0\nexit\n"
IS_ADDRESS = "jeq r0, 0, +1\nmov r0, 1\n"
IS_SOCKET = "jeq r0, 0, +3\nmov r1, r0\ncall 86\nmov r0, 1\n"


def call(helper: str, map_: str, arguments: str = "") -> str:
    return map_ + arguments + f"call {NUMBERS[helper]}\n"


def given(register: int, flags: int) -> str:
    return f"lddw r{register}, {flags & (1 << 64) - 1:#x}\n"


def key_of(cell: Cell) -> str:
    if cell.type is MapType.LPM_TRIE:
        prefix, data = LPM_KEYS[cell.state]
        return f"stw [r10-16], {prefix}\nstw [r10-12], {data}\n"
    return f"stw [r10-16], {KEYS[cell.state]}\n"


def prepared(cell: Cell, map_: str) -> str:
    """Return what brings a map into the cell's state."""
    if cell.type in ENDS:
        count = {EMPTY: 0, THERE: 1, FULL: FEW}[cell.state]
        empty = call("bpf_map_pop_elem", map_, ITEM) * FEW
        return empty + "stdw [r10-24], 5\n" + call("bpf_map_push_elem", map_, ITEM + "mov r3, 0\n") * count
    if cell.type is MapType.BLOOM_FILTER:
        known = call("bpf_map_push_elem", map_, "stdw [r10-24], 5\n" + ITEM + "mov r3, 0\n")
        return known + f"stdw [r10-24], {5 if cell.state == THERE else 6}\n"
    if cell.type not in WRITTEN or cell.state in (OUTSIDE, FULL):
        return ""
    if cell.helper == "bpf_for_each_map_elem" and cell.type in rules.HASHES:
        gone = call("bpf_map_delete_elem", map_, KEY)
        others = "".join(f"stw [r10-16], {KEYS[state]}\n{gone}" for state in (ABSENT, FULL))
        return others + key_of(cell) + call("bpf_map_update_elem", map_, KEY + VALUE + "mov r4, 0\n")
    if cell.state == THERE:
        return call("bpf_map_update_elem", map_, KEY + VALUE + "mov r4, 0\n")
    return call("bpf_map_delete_elem", map_, KEY)


def asked(cell: Cell, map_: str) -> str:
    """Return the call itself, and what makes one number of its answer."""
    match cell.helper:
        case "bpf_map_lookup_elem":
            found = IS_SOCKET if cell.type in SOCKETS_TAKEN else IS_ADDRESS
            return call(cell.helper, map_, KEY) + found
        case "bpf_map_lookup_percpu_elem":
            return call(cell.helper, map_, KEY + given(3, cell.flags)) + IS_ADDRESS
        case "bpf_map_delete_elem":
            return call(cell.helper, map_, KEY)
        case "bpf_map_update_elem":
            return call(cell.helper, map_, KEY + VALUE + given(4, cell.flags))
        case "bpf_map_push_elem":
            return call(cell.helper, map_, ITEM + given(3, cell.flags))
        case "bpf_for_each_map_elem":
            return call(cell.helper, map_, "lddw r2, visitor\nmov r3, 0\n" + given(4, cell.flags))
        case "bpf_redirect_map":
            return call(cell.helper, map_, f"mov r2, {KEYS[cell.state]}\n" + given(3, cell.flags))
        case _:
            return call(cell.helper, map_, ITEM)


def definition_of(kind: MapType, entries: int, name: str) -> MapDefinition:
    keys, values, _ = rules.SHAPES[kind]
    key = 8 if kind is MapType.LPM_TRIE else 4 if keys.allows(4) else 0
    value = 4 if not values.allows(8) or kind.name.startswith("DEVMAP") or kind is MapType.CPUMAP else 8
    flags = MapFlag.NO_PREALLOC if kind is MapType.LPM_TRIE else 0
    inner = INNER if kind.name.endswith("OF_MAPS") else None
    return MapDefinition(name, kind, key, value, entries, flags, inner=inner)


def filled(made: Any) -> Any:
    """Put in what only user space stores."""
    kind = made.definition.type
    if kind.name.endswith("OF_MAPS"):
        made[KEYS[THERE]] = create(INNER)
    elif kind in (MapType.DEVMAP, MapType.DEVMAP_HASH, MapType.CPUMAP):
        made[KEYS[THERE]] = 1
    return made


def maps_of(kind: MapType, count: int) -> tuple[Any, ...]:
    """Return a map for results, one of the type, and one of it that is full."""
    results = create(MapDefinition("results", MapType.ARRAY, 4, 8 * count, 1))
    entries = FEW if kind in ENDS else ENTRIES.get(kind, MANY)
    made = results, filled(create(definition_of(kind, entries, "m")))
    if kind not in WRITTEN or FULL not in WRITTEN[kind].states:
        return made
    full: Any = create(definition_of(kind, FEW, "full"))
    for number in range(2, 2 + FEW):
        full[struct.pack("<II", 32, number) if kind is MapType.LPM_TRIE else number] = 5
    return *made, full


def program(kind: MapType, asking: list[Cell]) -> Program:
    text, is_visited = START, any(cell.helper == "bpf_for_each_map_elem" for cell in asking)
    for number, cell in enumerate(asking):
        map_ = MAP.format(index=2 if cell.state == FULL and kind in WRITTEN else 1)
        key = key_of(cell) if kind in WRITTEN or cell.state in KEYS else ""
        text += key + prepared(cell, map_) + asked(cell, map_) + f"stxdw [r7+{8 * number}], r0\n"
    bare = Program.from_bytes(assemble(text + "mov r0, 2\nexit\n" + (VISITOR if is_visited else "")))
    maps = maps_of(kind, len(asking))
    references = {
        insn.pc: maps[insn.imm].address
        for insn in bare.instructions
        if insn.row is not None and insn.row.operation == "LDDW_MAP_IDX"
    }
    return replace(bare, name=kind.name.lower(), type="xdp", references=references, maps=maps)


BY_TYPE = {
    kind: list(each)
    for kind, each in groupby(sorted(cells(), key=lambda cell: cell.type), lambda cell: cell.type)
}


def answers(kind: MapType, engine: str) -> list[int]:
    asking = BY_TYPE[kind]
    made = program(kind, asking)
    made.run(bytes(64), engine=engine)  # type: ignore[arg-type] # the names of engines
    return list(struct.unpack(f"<{len(asking)}q", made.maps[0][0]))  # type: ignore[index] # an array


def wrong(engine: str, kinds: Iterable[MapType]) -> list[str]:
    return [
        f"{engine}: {cell}: {answer}"
        for kind in kinds
        for cell, answer in zip(BY_TYPE[kind], answers(kind, engine), strict=True)
        if answer != cell.answer
    ]


def test_the_table_has_every_operation_on_elements_and_every_type_that_takes_it() -> None:
    pairs = {(cell.helper, cell.type) for cell in cells()}
    operations = {helper for helper, _ in pairs}
    assert operations == {name for name in TAKES if name.startswith("bpf_map_")} | {
        "bpf_for_each_map_elem", "bpf_redirect_map",
    }  # fmt: skip
    assert pairs == {(name, kind) for name in operations for kind in TAKES[name]}


@pytest.mark.parametrize("engine", ENGINES)
def test_engines_answer_as_the_table_says(engine: str) -> None:
    assert wrong(engine, BY_TYPE) == []


@pytest.mark.skipif(_REASON is not None, reason=str(_REASON))
def test_linux_answers_as_the_table_says() -> None:
    ended = run_forked(lambda: wrong("kernel", BY_TYPE), 30)
    assert ended.value == [], ended
