"""Objects of which each processor has one, in kptrs: on both engines."""

from __future__ import annotations

from pathlib import Path

import pytest

from ebpfjit import Environment, ExecutionError, load

OBJECT = Path(__file__).parent.parent / "elf" / "percpu_objects.o"
PACKET = bytes(12) + b"\x08\x00" + bytes(50)
ENGINES = pytest.mark.parametrize("engine", ["interpreter", "jit"])


@ENGINES
def test_each_processor_has_its_own(engine: str) -> None:
    obj = load(OBJECT)

    def run(name: str, cpu: int) -> int:
        environment = Environment(cpus=2, cpu=cpu)
        return obj.program(name).run(PACKET, engine=engine, environment=environment).return_value

    assert run("counted", 0) == 0
    assert run("made", 0) == 0
    assert [run("counted", cpu) for cpu in (0, 1, 1)] == [101, 202, 203]
    assert run("made", 1) == 0
    assert run("counted", 1) == 101


@ENGINES
def test_one_that_was_made_for_fewer_processors(engine: str) -> None:
    obj = load(OBJECT)
    obj.program("made").run(PACKET, engine=engine, environment=Environment(cpus=1))
    result = obj.program("counted").run(PACKET, engine=engine, environment=Environment(cpus=4))
    assert result.return_value == 101


@ENGINES
def test_one_that_is_forgotten_is_an_error(engine: str) -> None:
    with pytest.raises(ExecutionError, match=r"bpf_percpu_obj_new takes .*bpf_percpu_obj_drop"):
        load(OBJECT).program("forgotten").run(PACKET, engine=engine)
