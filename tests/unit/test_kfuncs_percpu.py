"""Objects with a struct for each processor (bpf_percpu_obj_new): on both engines, and as Linux has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ebpfjit import Environment, ExecutionError, MemoryFault, load
from ebpfjit.bits import W32
from ebpfjit.elf import Object
from ebpfjit.kernel import KernelVerifierError
from tests.support.helper_runs import needs_kernel
from tests.support.kfunc_runs import kernel_cpus

OBJECT = Path(__file__).parent.parent / "elf" / "percpu_objects_clang19.o"
ENGINES = pytest.mark.parametrize("engine", ["interpreter", "jit"])
ON_ALL = pytest.mark.parametrize("engine", ["interpreter", "jit", pytest.param("kernel", marks=needs_kernel)])
FRAME = bytes(64)


def loaded(cpu: int = 0) -> Object:
    return load(OBJECT, environment=Environment(cpus=2, cpu=cpu))


def call(obj: Object, name: str, engine: str, **how: Environment) -> int:
    return W32.signed(obj.program(name).run(FRAME, engine=engine, **how).return_value)


@ON_ALL
def test_each_processor_has_its_own(engine: str) -> None:
    if engine == "kernel" and kernel_cpus() != 2:
        pytest.skip("the answer is that of two processors")
    assert call(loaded(), "counted", engine) == 2 * 10000 + 10 + 1011 + 100
    assert call(loaded(), "put", engine) == 0
    assert call(loaded(), "increased", engine) == -2


@ENGINES
def test_they_live_in_maps(engine: str) -> None:
    obj = loaded()
    assert [call(obj, "put", engine) for _ in range(2)] == [0, 1]
    assert [call(obj, "increased", engine) for _ in range(3)] == [1, 2, 3]
    elsewhere = Environment(cpus=2, cpu=1)
    assert [call(obj, "increased", engine, environment=elsewhere) for _ in range(2)] == [1, 2]
    assert call(obj, "increased", engine) == 4
    obj.maps["slots"].clear()
    assert call(obj, "increased", engine) == -2


REFUSED = {
    "forgotten": (
        ExecutionError,
        "bpf_percpu_obj_new takes an object of struct counter, which is still held",
    ),
    "owned": (
        ExecutionError,
        r"bpf_this_cpu_ptr of \w+, which is .* that the program owns: put it into a kptr",
    ),
    "direct": (MemoryFault, "load of 8 bytes"),
    "dropped_otherwise": (ExecutionError, "bpf_obj_drop of .*: that is for what bpf_obj_new returned"),
    "too_large": (ExecutionError, "bpf_percpu_obj_new of struct large: its 520 bytes are more than 512"),
    "with_pointers": (
        ExecutionError,
        "bpf_percpu_obj_new of struct linked, which has more than numbers in it",
    ),
    "with_structs": (
        ExecutionError,
        "bpf_percpu_obj_new of struct points, which has more than numbers in it",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
@ENGINES
def test_what_linux_refuses_is_an_error_with_its_line(name: str, engine: str) -> None:
    kind, text = REFUSED[name]
    with pytest.raises(kind, match=rf"pc \d+: {text}.*percpu_objects\.c:"):
        call(loaded(), name, engine)


@needs_kernel
@pytest.mark.parametrize("name", REFUSED)
def test_linux_refuses_it_at_the_same_place(name: str) -> None:
    with pytest.raises(KernelVerifierError) as theirs:
        call(loaded(), name, "kernel")
    with pytest.raises(ExecutionError) as ours:
        call(loaded(), name, "interpreter")
    if name != "forgotten":  # ours says where it was taken
        assert theirs.value.pc == ours.value.pc


@ENGINES
def test_there_is_no_memory_for_very_many_processors(engine: str) -> None:
    many = Environment(cpus=3000)
    obj = load(OBJECT, environment=many)
    assert call(obj, "put", engine) == -2
