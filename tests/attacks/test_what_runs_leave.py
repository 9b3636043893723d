"""What a run made is freed with its result: at once, however rarely cycles are looked for."""

from __future__ import annotations

import gc
import struct
import tracemalloc
from collections.abc import Callable

import pytest

from ebpfjit.assembler import assemble
from ebpfjit.difftest.children import run_forked
from ebpfjit.program import Program
from ebpfjit.runtime.maps.base import Map
from ebpfjit.runtime.maps.creation import create
from ebpfjit.runtime.maps.definition import MapDefinition, MapType

SIZE, ROUNDS = 60_000, 50
WAYS: dict[str, Callable[[Program], Callable[[bytes], object]]] = {
    "compiled": lambda program: program.compile(),
    "unlocked": lambda program: program.compile(release_gil=True),
    "jit": lambda program: lambda data: program.run(data).return_value,
    "interpreter": lambda program: lambda data: program.run(data, engine="interpreter").return_value,
}


def reference(register: int, source: int, number: int) -> bytes:
    return struct.pack("<BBhiBBhi", 0x18, source << 4 | register, 0, number, 0, 0, 0, 0)


def growth(run: Callable[[bytes], object], rounds: int) -> int:
    """How many bytes more there are behind so many runs, when nobody looks for cycles."""
    data = bytes(SIZE)
    run(data)
    gc.collect()
    gc.disable()
    tracemalloc.start()
    for _ in range(rounds):
        run(data)
    return tracemalloc.get_traced_memory()[0]


def with_map(code: bytes, at: int, map_: Map) -> Program:
    return Program(code, name="t", type="xdp", references={at: map_.address}, maps=(map_,))


@pytest.mark.parametrize("way", WAYS)
def test_events_of_a_run_go_with_it(way: str) -> None:
    events = create(MapDefinition("e", MapType.PERF_EVENT_ARRAY, 4, 4, 1))
    code = assemble("mov r9, r1\nldxw r8, [r1+0]\nmov r1, r9") + reference(2, 5, 0)
    code += assemble(
        f"lddw r3, 0xffffffff\nmov r4, r8\nmov r5, {SIZE}\ncall 25\nadd r6, 1\njlt r6, {ROUNDS}, -10\nexit"
    )
    program = with_map(code, 3, events)

    def bytes_left() -> int:
        run = WAYS[way](program)

        def run_and_empty(data: bytes) -> None:
            run(data)
            events.consume()  # functions leave them in their map

        return growth(run_and_empty, 3)

    ended = run_forked(bytes_left, 60)
    assert ended.value is not None, ended
    assert ended.value < ROUNDS * SIZE // 2, ended


@pytest.mark.parametrize("way", WAYS)
def test_keys_that_were_shown_are_not_kept(way: str) -> None:
    """One key for each call of bpf_for_each_map_elem stayed as long as the run."""
    keys = create(MapDefinition("k", MapType.HASH, 512, 8, 4))
    rounds = 400
    code = reference(1, 5, 0) + reference(2, 4, 7)
    code += assemble(f"mov r3, 0\nmov r4, 0\ncall 164\nadd r6, 1\njlt r6, {rounds}, -9\nmov r0, r6\nexit")
    code += assemble("mov r0, 0\nexit")
    program = with_map(code, 0, keys)

    def peak() -> int:
        run = WAYS[way](program)
        growth(run, 0)
        run(bytes(SIZE))
        return tracemalloc.get_traced_memory()[1]

    small = run_forked(peak, 60)
    assert small.value is not None, small
    assert small.value < rounds * 512 // 2 + 2 * SIZE, small
