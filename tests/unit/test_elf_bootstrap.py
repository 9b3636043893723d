"""The shapes of libbpf-bootstrap: each loads, without root and without a kernel's types."""

from __future__ import annotations

import os

import pytest

from ebpfjit import Environment, load
from ebpfjit.difftest.children import run_forked
from ebpfjit.ready import ready
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


def shapes() -> dict[str, str | None]:
    """Load the object as somebody without rights; return the programs' types where nothing is refused."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    assert os.geteuid() != 0
    obj = load(DATA)
    assert not obj.refusals, dict(obj.refusals)
    for program in obj.programs.values():
        ready(program)  # verified
    return {name: program.type for name, program in obj.programs.items()}


def test_every_shape_loads_without_root() -> None:
    load(DATA)  # what is imported when it is first needed may not be readable for others
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
