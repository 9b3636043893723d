"""cgroup/sysctl programs: what a test says of the variable, what helpers tell of it, what they change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import ebpfjit
from ebpfjit import ExecutionError, InputError, MemoryFault, Program
from ebpfjit.assembler import assemble

ELF = Path(__file__).parents[1] / "elf"
engines = pytest.mark.parametrize("engine", ["interpreter", "jit"])
TTL = {"name": "net/ipv4/ip_default_ttl", "current_value": b"64\n"}


@pytest.fixture(scope="module")
def loaded() -> ebpfjit.Object:
    return ebpfjit.load(ELF / "sysctl.o")


def text(loaded: ebpfjit.Object, name: str) -> bytes:
    return bytes(loaded.globals[name]).rstrip(b"\0")


@engines
def test_a_variable_that_is_read(loaded: ebpfjit.Object, engine: str) -> None:
    result = loaded.programs["look"].run(context=TTL, engine=engine)
    assert (result.return_value, result.context) == (1, {"write": 0, "file_pos": 0})
    texts = {name: text(loaded, name) for name in ("name", "base", "cut", "current", "current_short")}
    assert texts == {
        "name": b"net/ipv4/ip_default_ttl", "base": b"ip_default_ttl", "cut": b"net/ipv4/ip",
        "current": b"64\n", "current_short": b"6",
    }  # fmt: skip
    sizes = "name_size base_size cut_size current_size current_cut new_size new_cut digits number"
    assert [loaded.globals[name] for name in sizes.split()] == [23, 14, -7, 3, -7, -22, -22, 2, 64]


@engines
def test_a_variable_that_is_written(loaded: ebpfjit.Object, engine: str) -> None:
    context = {**TTL, "write": 1, "new_value": "-61", "file_pos": 5}
    result = loaded.programs["change"].run(context=context, engine=engine)
    assert result.context == {"write": 1, "file_pos": 5, "new_value": b"77"}
    assert [loaded.globals[name] for name in ("set", "set_page", "new_size", "new_cut")] == [0, -7, 3, -7]
    assert (text(loaded, "new_value"), loaded.globals["signed_number"]) == (b"-61", -61)
    assert loaded.programs["refuse"].run(context=context, engine=engine).context["new_value"] == b"-61"


@engines
def test_what_is_not_there(loaded: ebpfjit.Object, engine: str) -> None:
    loaded.programs["change"].run(context={"name": "kernel/x", "write": 1}, engine=engine)
    names = ("current_size", "new_size", "set", "set_page")
    assert [loaded.globals[name] for name in names] == [-22] * 4
    with pytest.raises(ExecutionError, match="nobody says which variable it is; give context="):
        loaded.programs["look"].run(engine=engine)


@engines
@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({"name": ""}, "field name is a path below /proc/sys"),
        ({"name": "/proc/sys/kernel"}, "field name is a path below /proc/sys"),
        ({"name": b"a\0b"}, "field name is a path below /proc/sys"),
        ({"current_value": 64}, "field current_value takes text"),
        ({"value": b"64"}, "write, file_pos, name, current_value, new_value; field 'value' of bpf_sysctl"),
    ],
)
def test_what_a_test_cannot_say(
    loaded: ebpfjit.Object, context: dict[str, Any], message: str, engine: str
) -> None:
    with pytest.raises(InputError, match=message):
        loaded.programs["look"].run(context=context, engine=engine)


CALL = "mov r2, r10\nadd r2, {offset}\nmov r3, {size}\nmov r4, 0\ncall {number}\nexit"


@engines
@pytest.mark.parametrize("number", [101, 102, 103, 104])
def test_memory_and_context_are_looked_at(number: int, engine: str) -> None:
    def run(lines: str, type_: str) -> int:
        program = Program.from_bytes(assemble(lines), type=type_)
        given = {**TTL, "write": 1, "new_value": b"1"} if type_ == "cgroup_sysctl" else None
        return program.run(context=given, engine=engine).return_value - (1 << 32)

    with pytest.raises(MemoryFault, match="of 16 bytes"):
        run(CALL.format(offset=-8, size=16, number=number), "cgroup_sysctl")
    with pytest.raises(ExecutionError, match="needs a struct bpf_sysctl as context"):
        run(CALL.format(offset=-8, size=8, number=number), "kprobe")
    with pytest.raises(ExecutionError, match="r1 is 0x0, and the context is at"):
        run("mov r1, 0\n" + CALL.format(offset=-8, size=8, number=number), "cgroup_sysctl")
    assert run(CALL.format(offset=-8, size=0, number=number), "cgroup_sysctl") == (
        -22 if number == 104 else -7
    )


@engines
def test_values_are_a_page_at_most(loaded: ebpfjit.Object, engine: str) -> None:
    context = {**TTL, "write": 1, "new_value": b"1" * 5000}
    assert len(loaded.programs["look"].run(context=context, engine=engine).context["new_value"]) == 4096
