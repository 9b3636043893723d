"""Kernel functions that take references to tasks, cgroups, files and keys; the kernel's own context."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from ebpfjit import Environment, ExecutionError, load
from ebpfjit.elf.loader import Object
from ebpfjit.runtime.environment import Task
from tests.support.kfunc_runs import value

OBJECT = Path(__file__).parent.parent / "elf" / "references.o"
ENGINES = pytest.mark.parametrize("engine", ["interpreter", "jit"])
KEYS = """
    mov r1, %d
    call kfunc {bpf_lookup_system_key}
    jeq r0, 0, none
    mov r1, r0
    call kfunc {bpf_key_put}
    mov r0, 1
none:
    exit
"""


def run(name: str, engine: str, environment: Environment, *arguments: int, obj: Object | None = None) -> int:
    """Run a tracing program on arguments of the function that it is attached to."""
    context = struct.pack("<6Q", *arguments, *[0] * (6 - len(arguments)))
    program = (obj or load(OBJECT)).program(name)
    return program.run(context, engine=engine, environment=environment).return_value


@ENGINES
def test_a_task_is_found_by_its_number(engine: str) -> None:
    environment = Environment(task=Task(pid=3))
    environment.task(pid=70, comm="first")
    environment.task(pid=7, comm="second")
    assert run("number_of_task", engine, environment, 7) == 7
    assert run("number_of_task", engine, environment, 70) == 70
    assert run("number_of_task", engine, environment, 8) == 0


@ENGINES
def test_a_reference_that_is_kept_in_a_map_is_there_in_the_next_run(engine: str) -> None:
    environment = Environment()
    task = environment.task(pid=9, comm="kept")
    obj = load(OBJECT)
    assert run("kept", engine, environment, task, obj=obj) == 0
    assert run("taken_out", engine, environment, obj=obj) == 9
    assert run("taken_out", engine, environment, obj=obj) == 0


@ENGINES
def test_a_reference_that_is_forgotten_is_an_error_with_its_line(engine: str) -> None:
    environment = Environment()
    task = environment.task(pid=9)
    with pytest.raises(ExecutionError, match=r"bpf_task_acquire takes .*bpf_task_release.*references\.c:\d+"):
        run("forgotten", engine, environment, task)


@ENGINES
def test_a_reference_that_comes_out_of_a_map_is_to_be_given_back(engine: str) -> None:
    environment = Environment()
    task = environment.task(pid=9)
    obj = load(OBJECT)
    assert run("kept", engine, environment, task, obj=obj) == 0
    with pytest.raises(
        ExecutionError, match=r"bpf_kptr_xchg takes a reference to a task_struct.*references\.c:\d+"
    ):
        run("taken_and_kept", engine, environment, obj=obj)
    assert run("taken_and_kept", engine, environment, obj=obj) == 0


@ENGINES
@pytest.mark.parametrize("name", ["released_twice", "not_taken"])
def test_what_is_not_the_programs_is_not_given_back(name: str, engine: str) -> None:
    environment = Environment()
    with pytest.raises(ExecutionError, match=r"bpf_task_release of 0x\w+, to which the program has no ref"):
        run(name, engine, environment, environment.task(pid=9))
    assert run("not_taken", engine, environment, 0) == 0


@ENGINES
def test_functions_of_the_users_take_and_release_as_they_like(engine: str) -> None:
    environment = Environment()
    task = environment.task(pid=9)
    obj = load(OBJECT)
    released: list[int] = []

    def with_own(name: str, argument: int, **kfuncs: Any) -> int:
        context = struct.pack("<6Q", argument, *[0] * 5)
        how = {"engine": engine, "environment": environment, "kfuncs": kfuncs}
        return obj.program(name).run(context, **how).return_value

    assert with_own("number_of_task", 9, bpf_task_from_pid=lambda pid: task) == 9
    assert with_own("number_of_task", 9, bpf_task_release=released.append) == 9
    assert run("kept", engine, environment, task, obj=obj) == 0
    assert with_own("taken_out", 0, bpf_task_release=released.append) == 9
    assert released == [task, task]


@ENGINES
def test_cgroups_by_number_and_level(engine: str) -> None:
    environment = Environment()
    root = environment.struct("cgroup", level=0, kn=environment.struct("kernfs_node", id=1))
    inner = environment.struct(
        "cgroup", level=1, kn=environment.struct("kernfs_node", id=42), ancestors=[root, 0]
    )
    assert run("level_of", engine, environment, 42) == 1
    assert run("level_of", engine, environment, 1) == 0
    assert run("level_of", engine, environment, 5) == 0xFFFFFFFF
    assert run("above", engine, environment, inner, 0) == 1
    assert run("above", engine, environment, inner, 1) == 42
    assert run("above", engine, environment, inner, 2) == 0


@pytest.mark.parametrize(("id", "there"), [(0, 1), (2, 1), (3, 0), (1 << 31 - 1, 0)])
def test_keyrings_of_the_system(id: int, there: int) -> None:
    assert value(KEYS % id) == there


@ENGINES
def test_the_context_of_the_kernel_is_what_the_environment_describes(engine: str) -> None:
    program = load(OBJECT).program("length")
    packet = bytes(12) + b"\x08\x00" + bytes(50)
    assert program.run(packet, engine=engine).return_value == 0
    environment = Environment()
    environment.struct("sk_buff", len=1234)
    assert program.run(packet, engine=engine, environment=environment).return_value == 1234
