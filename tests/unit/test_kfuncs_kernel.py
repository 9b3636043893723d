"""Kernel functions that tell of the kernel's objects: contexts as it has them, tasks, slab caches."""

from __future__ import annotations

from pathlib import Path

import pytest

from ebpfjit import Environment, ExecutionError, load
from ebpfjit.bits import W32
from ebpfjit.elf import Object
from ebpfjit.kernel import vmlinux
from tests.support.helper_runs import needs_kernel
from tests.support.kfunc_runs import program_of

OBJECT = Path(__file__).parent.parent / "elf" / "kernel_objects.o"
ENGINES = pytest.mark.parametrize("engine", ["interpreter", "jit"])
FRAME = bytes(64)


def described() -> Environment:
    """Return one with five tasks, of which three are one process, and two slab caches."""
    here = Environment(btf=OBJECT)
    here.struct("sk_buff", len=77)
    for pid, tgid in ((1, 1), (5, 5), (6, 5), (7, 5), (9, 9)):
        here.struct("task_struct", pid=pid, tgid=tgid)
    for size in (8, 16):
        here.struct("kmem_cache", object_size=size)
    return here


def call(obj: Object, name: str, engine: str, data: bytes = FRAME) -> int:
    return W32.signed(obj.program(name).run(data, engine=engine).return_value)


@ENGINES
def test_the_context_is_what_the_environment_has(engine: str) -> None:
    assert call(load(OBJECT, environment=described()), "length", engine) == 77
    assert call(load(OBJECT, environment=Environment()), "length", engine) == 0
    other = program_of("mov r1, r10\ncall kfunc {bpf_cast_to_kern_ctx}\nexit")
    with pytest.raises(ExecutionError, match=r"pc 1: bpf_cast_to_kern_ctx of .*, which is not the program"):
        other.run(FRAME, engine=engine)


@ENGINES
def test_tasks_come_one_after_the_other(engine: str) -> None:
    obj = load(OBJECT, environment=described())
    for flags, pids in ((0, [1, 5, 9]), (1, [1, 5, 6, 7, 9]), (2, [1])):
        obj.globals["flags"], obj.globals["seen_current"] = flags, 0
        assert call(obj, "tasks", engine, b"") == len(pids)
        assert list(obj.globals["pids"])[: len(pids)] == pids
        assert obj.globals["seen_current"] == 1
    obj.globals["flags"] = 3
    assert call(obj, "tasks", engine, b"") == -22


@ENGINES
def test_the_process_that_runs_is_a_task(engine: str) -> None:
    obj = load(OBJECT, environment=Environment())
    assert call(obj, "tasks", engine, b"") == 1
    assert obj.globals["seen_current"] == 1


@ENGINES
def test_slab_caches_come_one_after_the_other(engine: str) -> None:
    obj = load(OBJECT, environment=described())
    assert call(obj, "caches", engine, b"") == 2
    assert list(obj.globals["pids"])[:2] == [8, 16]


@ENGINES
def test_what_a_program_writes_into_an_iterator_is_a_number(engine: str) -> None:
    for name, size in (("bpf_iter_task_next", 24), ("bpf_iter_kmem_cache_next", 8)):
        text = "".join(f"stdw [r10-{at}], -1\n" for at in range(8, size + 8, 8))
        text += f"mov r1, r10\nadd r1, -{size}\ncall kfunc {{{name}}}\nexit"
        assert program_of(text).run(FRAME, engine=engine, environment=described()).return_value == 0


@ENGINES
def test_packets_have_no_metadata(engine: str) -> None:
    obj = load(OBJECT)
    assert call(obj, "metadata", engine) == 0
    assert call(obj, "metadata_flags", engine) == -22


@needs_kernel
def test_linux_has_as_much_to_tell() -> None:
    obj = load(OBJECT, btf=vmlinux.PATH)
    assert call(obj, "length", "kernel") == len(FRAME)
    assert call(obj, "metadata", "kernel") == 0
    assert call(obj, "metadata_flags", "kernel") == -22
    obj.globals["flags"] = 1
    assert call(obj, "tasks", "kernel", b"") > 1
    assert obj.globals["seen_current"] == 1
    obj.globals["flags"] = 2
    assert call(obj, "tasks", "kernel", b"") >= 1
    obj.globals["flags"] = 3
    assert call(obj, "tasks", "kernel", b"") == -22
    assert call(obj, "caches", "kernel", b"") > 1
