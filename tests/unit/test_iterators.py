"""Programs of iterators: their contexts by the names of fields, and what they print."""

from __future__ import annotations

from pathlib import Path

import pytest

from ebpfjit import Environment, InputError, LoadError, MemoryFault, Object, Program, load
from ebpfjit.assembler import assemble
from ebpfjit.kernel import KernelUnavailable, unavailable_reason, vmlinux

OBJECT = Path(__file__).parents[1] / "elf" / "iterators_of.o"
engines = pytest.mark.parametrize("engine", ["interpreter", "jit"])


@pytest.fixture(scope="module")
def obj() -> Object:
    return load(OBJECT)


@engines
def test_tasks_are_printed(obj: Object, engine: str) -> None:
    environment = Environment(btf=OBJECT)
    task = environment.task(pid=7, comm="sshd")
    for fields, output in (
        ({"task": task}, ("pid name", "7 sshd")),
        ({"task": task, "meta": environment.struct("bpf_iter_meta", seq_num=3)}, ("7 sshd",)),
        ({"task": 0}, ()),
        ({"task": None}, ()),
    ):
        made = obj.programs["tasks"].run(engine=engine, environment=environment, context=fields)
        assert (made.return_value, made.output) == (0, output)


@engines
def test_a_context_has_numbers_and_pointers(obj: Object, engine: str) -> None:
    environment = Environment(btf=OBJECT)
    fields = {"task": environment.task(pid=7), "file": environment.struct("file", f_flags=0x8002), "fd": 3}
    made = obj.programs["files"].run(engine=engine, environment=environment, context=fields)
    assert made.output == ("7: fd 3, flags 8002",)
    assert made.context == {"fd": 3}


@engines
def test_entries_of_a_map_are_memory_of_the_program(obj: Object, engine: str) -> None:
    fields = {"key": b"\x05\0\0\0", "value": (41).to_bytes(8, "little")}
    made = obj.programs["entries"].run(engine=engine, context=fields)
    assert made.output == ("5: 41",)
    assert made.context == {"key": fields["key"], "value": (42).to_bytes(8, "little")}
    assert made.data == bytes(32)  # no address of this process
    with pytest.raises(MemoryFault, match=r"bpf_iter__bpf_map_elem.value \(4 bytes\)"):
        obj.programs["entries"].run(engine=engine, context={**fields, "value": b"four"})


@engines
def test_keys_are_read_only(obj: Object, engine: str) -> None:
    there = obj.programs["entries"]
    code = assemble("ldxdw r1, [r1+16]\nstb [r1+0], 1\nmov r0, 0\nexit")
    program = Program(code, "writer", "iter/bpf_map_elem", "tracing", kernel_types=there.kernel_types)
    with pytest.raises(MemoryFault, match="key is read-only"):
        program.run(engine=engine, context={"key": b"key!"})


def test_what_cannot_be_given(obj: Object) -> None:
    for fields, message in (
        ({"tasks": 1}, "field 'tasks' of bpf_iter__task is not there; it has: meta, task"),
        ({"task": 1 << 64}, "takes numbers of 64 bits"),
        ({"task": "init"}, "takes an address, or the bytes that it points to, not 'init'"),
    ):
        with pytest.raises(InputError, match=message):
            obj.programs["tasks"].run(context=fields)
    without = Program(assemble("mov r0, 0\nexit"), "bare", "iter/task", "tracing")
    with pytest.raises(InputError, match="types do not say what struct bpf_iter__task looks like"):
        without.run(context={"task": 0})
    fentry = Program(assemble("mov r0, 0\nexit"), "bare", "fentry/f", "tracing")
    with pytest.raises(InputError, match="context's bytes as data"):
        fentry.run(context={"task": 0})


def test_linux_takes_them_laid_out_for_it() -> None:
    """Contexts by the kernel's own types; it has no test run for iterators."""
    if not vmlinux.PATH.exists() or (reason := unavailable_reason()) is not None:
        pytest.skip(f"no kernel to ask: {reason if vmlinux.PATH.exists() else vmlinux.PATH}")
    there = load(OBJECT, btf=vmlinux.PATH)
    for program in there.programs.values():
        try:
            program.run(bytes(64), engine="kernel")
        except KernelUnavailable as error:
            pytest.skip(str(error))
        except LoadError as error:
            refusal = str(error)
        assert "Linux loads program" in refusal
    environment = Environment(btf=vmlinux.PATH)
    fields = {"task": environment.task(pid=7), "file": environment.struct("file", f_flags=5), "fd": 2}
    made = there.programs["files"].run(environment=environment, context=fields)
    assert made.output == ("7: fd 2, flags 5",)
