"""Programs that do to every map type what programs may: interpreter, machine code and Linux agree."""

from __future__ import annotations

import pytest

from ebpfjit import kernel
from ebpfjit.difftest.compare import differences
from ebpfjit.difftest.operation_maps import referred
from ebpfjit.difftest.sources import case_of
from ebpfjit.difftest.typed import runner
from ebpfjit.runtime.maps import MapType, rules

PROGRAMS, IN_THE_KERNEL = 200, 150  # make nightly runs the fuzzer on as many as there is time for
_REASON = kernel.unavailable_reason()


NOT_FROM_PACKETS = {MapType.STACK_TRACE}
"""What programs on packets have no helper for."""


def test_generated_programs_use_every_map_type_that_programs_on_packets_may() -> None:
    used: set[MapType] = set()
    for number in range(60):
        _, definitions = referred(case_of(3, number, ["operations"]).code)
        used |= {MapType(definition.type) for definition in definitions}
    assert used == rules.SHAPES.keys() - NOT_FROM_PACKETS


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
        assert not differences({"interpreter": judge, "kernel": linux}), case.name
