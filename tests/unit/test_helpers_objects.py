"""Helpers that lead from one struct of the kernel to another, and foreign memory in formats."""

from __future__ import annotations

import errno
import struct
from pathlib import Path

import pytest

from ebpfjit import Environment, Program, Result, Socket, Task
from ebpfjit.assembler import assemble
from ebpfjit.elf.loader import read_btf

engines = pytest.mark.parametrize("engine", ["interpreter", "jit"])
KERNEL, USER = 0xFFFF_C900_0000_1000, 0x7F00_1234_5000
TCP, TCP6, TIMEWAIT, REQUEST, UDP6, UNIX, MPTCP = 137, 136, 138, 139, 140, 178, 196
KINDS = (TCP, TCP6, TIMEWAIT, REQUEST, UDP6, UNIX, MPTCP)


def run(text: str, engine: str, data: bytes = b"", type_: str = "tracing", **how: object) -> Result:
    program = Program.from_bytes(assemble(text + "\nexit"), type=type_)
    return program.run(data, engine=engine, **how)  # type: ignore[arg-type]


def signed(result: Result) -> int:
    return result.return_value - (1 << 32) if result.return_value >> 31 else result.return_value


@engines
@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("tcp_sock", {TCP}), ("tcp6_sock", {TCP, TCP6}), ("tcp_timewait_sock", {TIMEWAIT}),
        ("udp6_sock", {UDP6}), ("tcp_request_sock", {REQUEST}),
        ("unix_sock", {UNIX}), ("mptcp_sock", {MPTCP}), ("sock", set()),
    ],
)  # fmt: skip
def test_a_described_socket_is_of_its_struct(name: str, kinds: set[int], engine: str) -> None:
    environment = Environment()
    environment.objects.add(name, {}, data=bytes(64))
    address = int(environment.objects.all[0].pointer)
    for number in KINDS:
        text = f"lddw r1, {address}\ncall {number}\nmov r1, r0\nmov r0, 0\njeq r1, 0, +1\nmov r0, 1"
        assert bool(run(text, engine, environment=environment).return_value) == (number in kinds)


@engines
@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        ({"family": 2, "type": 1, "protocol": 6, "state": 1}, {TCP}),
        ({"family": 10, "type": 1, "protocol": 6, "state": 1}, {TCP, TCP6}),
        ({"family": 10, "type": 1, "protocol": 6, "state": 6}, {TIMEWAIT}),
        ({"family": 10, "type": 1, "protocol": 6, "state": 12}, {REQUEST}),
        ({"family": 10, "type": 2, "protocol": 17, "state": 7}, {UDP6}),
        ({"family": 2, "type": 2, "protocol": 17, "state": 7}, set()),
    ],
)
def test_a_socket_of_the_context_is_of_its_kind(fields: dict[str, int], kinds: set[int], engine: str) -> None:
    for number in KINDS:
        # What nobody describes reads as zeros: through the pointer, at any offset.
        text = f"ldxdw r1, [r1+64]\ncall {number}\nmov r1, r0\nmov r0, 0\njeq r1, 0, +2\n"
        text += "ldxdw r2, [r1+900]\nmov r0, 1"
        made = run(text, engine, type_="cgroup_sock_addr", context={"sk": fields})
        assert bool(made.return_value) == (number in kinds)


@engines
def test_a_socket_that_a_lookup_gave(engine: str) -> None:
    look_up = (
        "stdw [r10-16], 0\nstdw [r10-8], 0\nmov r2, r10\nadd r2, -16\nmov r3, 12\nmov r4, -1\nmov r5, 0\n"
        "call 84\nmov r6, r0\nmov r1, r0\ncall 137\nmov r7, r0\nmov r1, r6\ncall 86\n"
        "mov r0, 0\njeq r7, 0, +1\nmov r0, 1"
    )
    environment = Environment(sockets=(Socket("tcp", ("0.0.0.0", 0)),))
    assert run(look_up, engine, bytes(64), "tc", environment=environment).return_value == 1


@engines
def test_a_file_a_task_and_its_areas(engine: str) -> None:
    environment = Environment(btf=read_btf(Path(__file__).parents[1] / "elf" / "kernel_memory.o"))
    socket = environment.objects.add("socket", {}, data=bytes(8))
    file = environment.objects.add("file", {"private_data": socket}, data=bytes(8))
    other = environment.objects.add("file", {"private_data": 5}, data=bytes(8))
    registers = environment.objects.add("pt_regs", {}, data=struct.pack("<Q", 77))
    area = environment.objects.add(
        "vm_area_struct", {"vm_start": 0x1000, "vm_end": 0x3000}, data=b"area\0\0\0\0"
    )

    def value(text: str, *words: int) -> int:
        data = struct.pack(f"<{len(words)}Q", *words)
        return signed(run(text, engine, data, environment=environment))

    assert value("ldxdw r1, [r1+0]\ncall 162", file) == (int(socket) & 0xFFFFFFFF) - (1 << 32) * (
        int(socket) >> 31 & 1
    )
    assert value("ldxdw r1, [r1+0]\ncall 162", other) == 0
    assert value("ldxdw r1, [r1+0]\ncall 175\nldxdw r0, [r0+0]", int(registers)) == 77
    find = (
        "mov r9, r1\nldxdw r1, [r9+0]\nldxdw r2, [r9+8]\nlddw r3, function\nmov r4, r10\nadd r4, -8\n"
        "stdw [r10-8], 0\nldxdw r5, [r9+16]\ncall 180\njne r0, 0, +1\nldxw r0, [r10-8]\nexit\n"
        "function: ldxdw r2, [r2+0]\nstxdw [r3+0], r2\nmov r0, 0"
    )
    assert value(find, 1, 0x2FFF, 0) == int.from_bytes(b"area", "little")
    assert int(area) > 0
    for words in ((1, 0x3000, 0), (1, 0xFFF, 0), (0, 0x1000, 0)):
        assert value(find, *words) == -errno.ENOENT
    assert value(find, 1, 0x1000, 1) == -errno.EINVAL


@engines
@pytest.mark.parametrize("number", [119, 176])
def test_no_processor_records_branches(number: int, engine: str) -> None:
    registers = {
        119: "mov r2, r10\nadd r2, -8\nmov r3, 8\nmov r4, {0}",
        176: "mov r1, r10\nadd r1, -8\nmov r2, 8\nmov r3, {0}",
    }
    for flags, result in ((0, -errno.ENOENT), (2, -errno.EINVAL)):
        made = run(f"{registers[number].format(flags)}\ncall {number}", engine, type_="perf_event")
        assert signed(made) == result


@engines
@pytest.mark.parametrize(
    ("conversion", "address", "text"),
    [
        ("%s", USER, "user"), ("%s", KERNEL, "kernel"), ("%pks", KERNEL, "kernel"), ("%pks", USER, ""),
        ("%pus", USER, "user"), ("%pus", KERNEL, ""), ("%pI4", KERNEL + 8, "10.0.0.7"),
        ("%pI4", USER + 8, "0.0.0.0"),
        ("%pI6", KERNEL + 8, "0a00:0007:0000:0000:0000:0000:0000:0001"), ("%s", KERNEL + (1 << 20), ""),
    ],
)  # fmt: skip
def test_formats_reach_foreign_memory(conversion: str, address: int, text: str, engine: str) -> None:
    bytes_ = b"kernel\0\0" + bytes([10, 0, 0, 7]) + bytes(11) + b"\x01"
    environment = Environment(memory={KERNEL: bytes_, USER: b"user\0\0\0\0" + bytes([10, 0, 0, 7])})
    form = f"[{conversion}]".encode().ljust(8, b"\0")
    value = int.from_bytes(form, "little")
    source = (
        f"lddw r1, {value}\nstxdw [r10-8], r1\nmov r1, r10\nadd r1, -8\nmov r2, 8\nlddw r3, {address}\ncall 6"
    )
    assert run(source, engine, environment=environment).output == (f"[{text}]",)


@engines
@pytest.mark.parametrize("number", [128, 129])
def test_a_socket_is_in_the_cgroup_of_the_process(number: int, engine: str) -> None:
    environment = Environment(task=Task(cgroup_id=77))
    for fields, result in (({"sk": {"family": 2}}, 77), ({"sk": None}, 0)):
        text = f"ldxdw r1, [r1+64]\nmov r2, 0\ncall {number}"
        made = run(text, engine, type_="cgroup_sock_addr", context=fields, environment=environment)
        assert made.return_value == result
