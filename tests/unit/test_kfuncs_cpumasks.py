"""Sets of processors: on both engines, and as Linux has them where it has two processors."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ebpfjit import Environment, ExecutionError, load
from tests.support.helper_runs import needs_kernel

OBJECT = Path(__file__).parent.parent / "elf" / "cpumasks.o"
TWO = Environment(cpus=2)
ENGINES = pytest.mark.parametrize(
    "engine", ["interpreter", "jit", pytest.param("kernel", marks=needs_kernel)]
)
OURS = pytest.mark.parametrize("engine", ["interpreter", "jit"])
ANSWERS = [1, 0, 1, 0, 1, 1, 0, 0, 0, 2, 1, 0, 1, 0, 1, 1, 1, 0, 0]


def run(name: str, engine: str, times: int = 1) -> tuple[list[int], list[int]]:
    obj = load(OBJECT)
    results = [obj.program(name).run(b"", engine=engine, environment=TWO).return_value for _ in range(times)]
    return results, obj.globals["said"]


@ENGINES
def test_what_is_said_of_sets(engine: str) -> None:
    if engine == "kernel" and os.cpu_count() != 2:
        pytest.skip("this machine has not two processors")
    results, said = run("answers", engine)
    assert results == [0]
    assert [
        one & 0xFF for one in said[: len(ANSWERS)]
    ] == ANSWERS  # the kernel leaves the rest of a bool as it is


@ENGINES
def test_references_are_counted(engine: str) -> None:
    assert run("counted", engine)[0] == [2]


@OURS
def test_a_set_is_kept_from_run_to_run(engine: str) -> None:
    assert run("kept", engine, 3)[0] == [0, 1, 1]


@OURS
def test_a_set_that_is_forgotten_is_an_error(engine: str) -> None:
    with pytest.raises(ExecutionError, match=r"bpf_cpumask_create takes .*still held.*bpf_cpumask_release"):
        run("forgotten", engine)


@OURS
def test_variables_keep_sets_those_of_arrays_too(engine: str) -> None:
    assert run("kept_in_variables", engine, 2)[0] == [2, 42]
    names = [field.name for field in load(OBJECT).maps[".data.G"].definition.special]
    assert sorted(names) == [*(f"grid[{i}][{j}].mask" for i in (0, 1) for j in (0, 1)), "one"]
