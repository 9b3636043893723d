"""Programs that do to every map type what programs may: interpreter, machine code and Linux agree."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ebpfjit import kernel
from ebpfjit.difftest.operations import DEFINITIONS
from ebpfjit.difftest.sources import case_of
from ebpfjit.difftest.typed import runner
from ebpfjit.runtime.maps import MapType

PROGRAMS, IN_THE_KERNEL = 400, 150  # make nightly runs the fuzzer on as many as there is time for
_REASON = kernel.unavailable_reason()


def test_generated_programs_use_every_map_type_that_programs_write() -> None:
    kinds = {definition.type for definition in DEFINITIONS}
    written = {
        MapType.ARRAY, MapType.PERCPU_ARRAY, MapType.HASH, MapType.PERCPU_HASH, MapType.LRU_HASH,
        MapType.LRU_PERCPU_HASH, MapType.LPM_TRIE, MapType.QUEUE, MapType.STACK, MapType.BLOOM_FILTER,
        MapType.RINGBUF, MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS,
    }  # fmt: skip
    assert written <= kinds


def test_machine_code_does_to_maps_what_the_interpreter_does() -> None:
    for number in range(PROGRAMS):
        case = case_of(1, number, ["operations"])
        given = case.inputs[0]
        judge = runner(case, "interpreter")(given)
        assert judge is not None
        assert judge.kind == "ok", case.name
        assert runner(case, "jit")(given) == judge, case.name


@pytest.mark.skipif(_REASON is not None, reason=str(_REASON))
def test_linux_does_to_maps_what_the_interpreter_does() -> None:
    for number in range(IN_THE_KERNEL):
        case = case_of(2, number, ["operations"])
        judge, linux = (runner(case, engine)(case.inputs[0]) for engine in ("interpreter", "kernel"))
        assert judge is not None
        assert linux is not None, f"{case.name}: Linux refuses it"
        same = replace(judge, value=linux.value, maps=linux.maps, events=linux.events)
        assert judge == same, case.name
