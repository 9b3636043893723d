"""Programs that do to every map type what programs may: interpreter, machine code and Linux agree."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ebpfjit import Program, kernel
from ebpfjit.assembler import assemble
from ebpfjit.difftest.compare import differences
from ebpfjit.difftest.operation_maps import referred
from ebpfjit.difftest.sources import case_of
from ebpfjit.difftest.typed import runner
from ebpfjit.runtime.maps import MapDefinition, MapType, create, rules

ENGINES = ("interpreter", "jit", "kernel")
PROGRAMS = 40  # make nightly runs the fuzzer on as many as there is time for
_REASON = kernel.unavailable_reason()


NOT_FROM_PACKETS = {
    MapType.STACK_TRACE,
    MapType.REUSEPORT_SOCKARRAY,
    MapType.USER_RINGBUF,
    *rules.STORAGES,
    MapType.ARENA,
    *rules.CGROUP_STORAGES,
}
"""What programs on packets have no helper for, or need sockets, tasks or a user's records for."""


def test_generated_programs_use_every_map_type_that_programs_on_packets_may() -> None:
    used: set[MapType] = set()
    for number in range(60):
        _, definitions = referred(case_of(3, number, ["operations"]).code)
        used |= {MapType(definition.type) for definition in definitions}
    assert used == rules.SHAPES.keys() - NOT_FROM_PACKETS


def test_machine_code_and_linux_do_to_maps_what_the_interpreter_does() -> None:
    engines = ENGINES if _REASON is None else ENGINES[:2]
    for number in range(PROGRAMS):
        case = case_of(2, number, ["operations"])
        outcomes = {engine: runner(case, engine)(case.inputs[0]) for engine in engines}
        judge = outcomes["interpreter"]
        assert judge is not None
        assert judge.kind == "ok", case.name
        assert None not in outcomes.values(), f"{case.name}: Linux refuses it"
        assert not differences(outcomes), case.name
        assert judge == outcomes["jit"], case.name


def counted_inside(add: int) -> Program:
    """Return a program that counts in a map inside of another, and which number it starts from."""
    inner: Any = create(MapDefinition("inner", MapType.HASH, 4, 8, 4))
    outer: Any = create(MapDefinition("outer", MapType.ARRAY_OF_MAPS, 4, 4, 1, inner=inner.definition))
    outer[0] = inner
    if add:
        inner[0] = add
    bare = Program.from_bytes(assemble(COUNTS))
    return replace(bare, type="xdp", maps=(outer,), references={2: outer.address})


COUNTS = """
    mov r2, r10
    add r2, -8
    lddw r1, map[idx:0]
    stdw [r10-8], 0
    call 1
    jeq r0, 0, missing
    mov r6, r0
    mov r1, r0
    mov r2, r10
    add r2, -8
    call 1
    jeq r0, 0, +2
    ldxdw r0, [r0]
    exit
    mov r1, r6
    mov r2, r10
    add r2, -8
    mov r3, r10
    add r3, -16
    stdw [r10-16], 9
    mov r4, 0
    call 2
    mov r0, 77
    exit
missing:
    mov r0, 1
    exit
"""


@pytest.mark.skipif(_REASON is not None, reason=str(_REASON))
def test_maps_of_maps_that_are_kept_start_anew_in_each_run() -> None:
    for add, expected in ((0, 77), (0, 77), (5, 5), (0, 77)):
        made = counted_inside(add)
        assert made.run(bytes(64), engine="kernel").return_value == expected
        outer: Any = made.maps[0]
        assert outer[0][0] == (expected if expected == add else 9).to_bytes(8, "little")
