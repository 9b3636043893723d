"""The shapes of libbpf-bootstrap: each loads, without root and without a kernel's types."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from typing import Any

import pytest

from ebpfjit import Environment, Object, kernel, load
from ebpfjit.difftest.children import run_forked
from ebpfjit.ready import ready
from ebpfjit.runner import Result
from ebpfjit.runtime.environment import Task
from tests.support.elf_files import OBJECTS

NOBODY = 65534
TYPES = {
    "handle_tp": "tracepoint", "handle_exec": "tracepoint", "do_unlinkat": "kprobe",
    "do_unlinkat_exit": "kprobe", "entry_probe": "kprobe", "uprobe_add": "kprobe", "uretprobe_sub": "kprobe",
    "usdt_auto_attach": "kprobe", "do_unlinkat_entry": "tracing", "do_unlinkat_done": "tracing",
    "lsm_bpf": "lsm", "profile": "perf_event", "raw": "raw_tracepoint", "get_tasks": "tracing",
    "xdp_pass": "xdp", "tc_ingress": "tc", "socket_handler": "socket_filter",
}  # fmt: skip
FRAME = bytes(12) + b"\x08\x00" + bytes(50)
DATA = (OBJECTS / "bootstrap.o").read_bytes()
CORE = (OBJECTS / "bootstrap_core_clang19.o").read_bytes()
VMLINUX = "/sys/kernel/btf/vmlinux"
needs_kernel = pytest.mark.skipif(
    kernel.unavailable_reason() is not None, reason=str(kernel.unavailable_reason())
)
ENGINES = ("interpreter", "jit")
ATTACHED_BY_FTRACE = ("fentry", "fexit", "lsm")
"""What Linux attaches where it loads: not in every sandbox, and not to every kernel's functions."""


def shapes() -> dict[str, str | None]:
    """Load the object as somebody without rights; return the programs' types where nothing is refused."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    assert os.geteuid() != 0
    obj, core = load(DATA), load(CORE)
    for each in (obj, core):
        assert not each.refusals, dict(each.refusals)
        for program in each.programs.values():
            ready(program)  # verified
    return {name: program.type for name, program in obj.programs.items()}


def test_every_shape_loads_without_root() -> None:
    load(CORE), load(DATA)  # what is imported when it is first needed may not be readable for others
    ended = run_forked(shapes, 30)
    assert ended.value == TYPES


def test_what_the_shapes_have_in_common() -> None:
    obj = load(DATA, btf=OBJECTS / "bootstrap.o")
    assert obj.license == "Dual BSD/GPL"
    assert {"exec_start", "rb", "__bpf_usdt_specs", ".rodata", ".bss", ".kconfig"} <= set(obj.maps)
    assert obj.globals["LINUX_HAS_BPF_COOKIE"] is True
    assert obj.globals["min_duration_ns"] == 0


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_they_run_as_far_as_a_test_can_say_what_is_there(engine: str) -> None:
    environment = Environment(task=Task(pid=8, tgid=7, comm="cat"))
    obj = load(DATA, environment=environment)
    obj.globals["my_pid"] = 7
    result = obj.program("handle_tp").run(bytes(64), engine=engine)
    assert result.return_value == 1
    assert [line.partition("BPF")[2] for line in result.output] == [" triggered from PID 7."]
    result = obj.program("handle_exec").run(bytes(64), engine=engine)
    assert result.return_value == 1
    assert [name for name, _ in result.events] == ["rb"]
    assert list(obj.maps["exec_start"]) == [(7).to_bytes(4, "little")]
    registers = b"".join(number.to_bytes(8, "little") for number in range(21))
    assert obj.program("uprobe_add").run(registers, engine=engine).return_value == 14 + 13
    for name, value in (("xdp_pass", 2), ("tc_ingress", 0), ("socket_handler", 0)):
        assert obj.program(name).run(FRAME, engine=engine).return_value == value


# Programs that read the kernel's structs


def processes() -> tuple[Environment, Object]:
    """Return the object in a process cat (7), whose parent (5) a test describes."""
    clock = iter(range(1_000, 9_000, 1_000))
    environment = Environment(clock=lambda: next(clock), cpu=1, cpus=4, stack=(0x10, 0x20, 0x30))
    parent = environment.task(pid=5, tgid=5, comm="sh")
    environment.task(pid=7, tgid=7, comm="cat", exit_code=3 << 8, real_parent=parent)
    return environment, load(CORE, environment=environment)


def events(result: Result) -> list[dict[str, Any]]:
    """Return the records of `rb` as struct event."""
    names = ("pid", "ppid", "exit_code", "duration_ns", "comm", "filename", "exit_event")
    rows = [struct.unpack_from("<iii4xQ16s32s?", data) for name, data in result.events if name == "rb"]
    return [dict(zip(names, row, strict=True)) for row in rows]


@pytest.mark.parametrize("engine", ENGINES)
def test_from_exec_to_exit(engine: str) -> None:
    _, obj = processes()
    name = b"/bin/cat\0"
    context = struct.pack("<QIii4x", 0, len(name) << 16 | 24, 7, 7) + name.ljust(40, b"\0")
    (started,) = events(obj.program("handle_exec").run(context, engine=engine))
    assert (started["pid"], started["ppid"], started["exit_event"]) == (7, 5, False)
    assert started["comm"].startswith(b"cat\0")
    assert started["filename"].startswith(name)
    (ended,) = events(obj.program("handle_exit").run(bytes(64), engine=engine))
    assert (ended["pid"], ended["ppid"], ended["exit_event"]) == (7, 5, True)
    assert (ended["exit_code"], ended["duration_ns"]) == (3, 1_000)
    assert len(obj.maps["exec_start"]) == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_arguments_of_functions(engine: str) -> None:
    environment, obj = processes()
    text, user = 0xFFFF_8880_0000_1000, 0xFFFF_8880_0000_2000
    registers = struct.pack("<21Q", *range(21))
    environment = replace(environment, memory={text: b"/tmp\0", user: registers})
    filename = environment.struct("filename", name=text)

    def run(name: str, data: bytes) -> int:
        result = obj.program(name).run(data, engine=engine, environment=environment)
        return result.return_value

    called = bytearray(registers)
    struct.pack_into("<Q", called, 13 * 8, filename)
    assert run("do_unlinkat", bytes(called)) == ord("/")
    assert run("do_unlinkat_exit", struct.pack("<21Q", *[(1 << 64) - 2] * 21)) == 1
    struct.pack_into("<Q", called, 14 * 8, user)
    assert run("entry_probe", bytes(called)) == 14 * 100 + 13
    assert run("do_unlinkat_entry", struct.pack("<QQ", 0, filename)) == 5
    assert run("lsm_bpf", struct.pack("<4Q", 5, 0, 0, 0)) == 0xFFFFFFFF
    assert run("lsm_bpf", struct.pack("<4Q", 4, 0, 0, 0)) == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_tasks_and_stacks(engine: str) -> None:
    environment, obj = processes()
    program = obj.programs
    assert program["do_unlinkat_done"].run(struct.pack("<3q", 0, 0, -2), engine=engine).return_value == 5
    assert program["do_unlinkat_done"].run(struct.pack("<3q", 0, 0, 0), engine=engine).return_value == 7
    old, new = environment.task(pid=31), environment.task(pid=32)
    assert program["switched"].run(struct.pack("<3Q", 0, old, new), engine=engine).return_value == 3132
    result = program["profile"].run(bytes(64), engine=engine)
    ((_, data),) = result.events
    pid, cpu, comm, size, *stack = struct.unpack("<II16sI4x8Q", data)
    assert (pid, cpu, comm[:4], size, stack[:3]) == (7, 1, b"cat\0", 24, [0x10, 0x20, 0x30])
    obj.maps["my_pid_map"][0] = 7
    assert program["minimal_legacy"].run(bytes(64), engine=engine).return_value == 1


@pytest.mark.parametrize("engine", [*ENGINES, pytest.param("kernel", marks=needs_kernel)])
def test_packets(engine: str) -> None:
    _, obj = processes()
    frame = bytes(12) + b"\x08\0" + bytes([0x45, *[0] * 7, 61, 17, *[0] * 10]) + bytes(range(1, 9))
    assert obj.program("tc_ingress").run(frame, engine=engine).return_value == 61
    packet = bytes(14) + frame  # a test run of a socket filter begins behind the first header
    result = obj.program("socket_handler").run(packet, engine=engine)
    assert result.return_value == len(frame)
    assert [data[:9] for _, data in result.events] == [bytes([1, 2, 3, 4, 0, 0, 0, 0, 17])]


@needs_kernel
@pytest.mark.skipif(not os.path.exists(VMLINUX), reason="the kernel's types are not there")
def test_linux_loads_them_with_its_types() -> None:
    obj = load(CORE, btf=VMLINUX, strict=True)
    for program in obj.programs.values():
        if not (program.section or "").startswith(ATTACHED_BY_FTRACE):
            kernel.load_program(program)
