"""XDP packets in pieces, and what `context=` sets: what Linux's test runs say of them."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import pytest

from ebpfjit import InputError, MemoryFault, Program, load
from ebpfjit.assembler import assemble
from ebpfjit.kernel import KernelUnavailable
from ebpfjit.kernel.syscalls import LoadAttributes, program_load, program_run

ENGINES = ("jit", "interpreter")
SUFFIX = {1: "b", 2: "h", 4: "w", 8: "dw"}


def _load(code: bytes, number: int, attach_type: int = 0, flags: int = 0) -> int:
    return program_load(code, number, LoadAttributes(attach_type, flags))[0]


# --- packets in pieces ---

LINEAR = "ldxw r2, [r1+0]\nldxw r0, [r1+4]\nsub r0, r2\nexit"


def agree_on_pieces(source: str, data: bytes, /, **fields: int) -> int:
    """Run a program of type xdp.frags on all engines; return what it returns."""
    context = struct.pack("<6I", fields.get("data", 0), fields.get("data_end", len(data)), 0, 0, 0, 0)
    code = assemble(source)
    results = []
    for engine in ENGINES:
        result = Program.from_bytes(code, type="xdp.frags").run(data, engine=engine, context=fields)
        results.append((result.return_value, result.metadata + result.data, result.context["data_end"]))
    assert results[0] == results[1]
    try:
        fd = _load(code, 6, flags=1 << 5)
    except KernelUnavailable:
        return results[0][0]

    value, after, context_after, _ = program_run(fd, data, len(data) + 8192, context, 0)
    os.close(fd)
    assert results[0] == (value, after, struct.unpack_from("<I", context_after, 4)[0])
    return value


@pytest.mark.parametrize("size", [14, 3520, 3521, 9000, 65000, 73152])
def test_what_of_a_long_packet_is_in_the_first_buffer(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert agree_on_pieces(LINEAR, data) == min(size, 3520)
    assert agree_on_pieces("call 188\nexit", data) == size
    if size > 100:
        assert agree_on_pieces(LINEAR, data, data=4) == min(size - 4, 3520)
    if 100 < size < 70000:
        assert agree_on_pieces(LINEAR, data, data_end=100) == 100


@pytest.mark.parametrize("size", [3521, 7616, 7617, 9000])
def test_the_end_of_a_packet_in_pieces_moves(size: int) -> None:
    data = random.Random(size).randbytes(size)
    for distance in (
        0,
        1,
        -1,
        -100,
        -4000,
        -8000,
        2711,
        2712,
        2713,
        14 - size,
        13 - size,
        -(1 << 31),
        (1 << 31) - 1,
    ):
        agree_on_pieces(f"mov r6, r1\nmov r2, {distance}\ncall 65\nexit", data)
        agree_on_pieces(f"mov r6, r1\nmov r2, {distance}\ncall 65\nmov r1, r6\ncall 188\nexit", data)


@pytest.mark.parametrize("size", [3521, 9000, 20000])
def test_helpers_reach_all_pieces(size: int) -> None:
    data = random.Random(size).randbytes(size)
    for offset in (0, 3513, 3516, 3519, 3520, 7612, size - 8, size - 7, size, 1 << 16):
        arguments = f"mov r2, {offset}\nmov r3, r10\nadd r3, -8\nmov r4, 8"
        agree_on_pieces(
            f"stdw [r10-8], 0\n{arguments}\ncall 189\njne r0, 0, +1\nldxw r0, [r10-8]\nexit", data
        )
        agree_on_pieces(f"stdw [r10-8], 0x5a5a5a5a\n{arguments}\ncall 190\nexit", data)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_lies_behind_the_first_buffer_is_not_the_programs(engine: str) -> None:
    program = Program.from_bytes(assemble("ldxw r2, [r1+0]\nldxb r0, [r2+3520]\nexit"), type="xdp.frags")
    with pytest.raises(MemoryFault):
        program.run(bytes(9000), engine=engine)


def test_pieces_are_named_by_the_section_and_have_a_limit() -> None:
    program = Program(assemble(LINEAR), type="xdp", section="xdp.frags")
    assert program.run(bytes(9000)).return_value == 3520
    with pytest.raises(InputError, match="at most 17 fragments"):
        program.run(bytes(73153))


# --- what context= sets ---


@pytest.mark.parametrize("engine", ENGINES)
def test_fields_by_name(engine: str) -> None:
    def run(type_: str, source: str, data: bytes = b"", /, **fields: object):  # type: ignore[no-untyped-def]
        code = assemble(source + "\nexit")
        return Program.from_bytes(code, type=type_).run(data, engine=engine, context=fields)

    fields = {"data": 4, "data_end": 68, "data_meta": 0, "ingress_ifindex": 1, "rx_queue_index": 0}
    assert run("xdp", "mov r0, 2", bytes(68), **fields, egress_ifindex=0).return_value == 2
    assert run("kprobe", "ldxdw r0, [r1+112]", rdi=5).return_value == 5
    assert run("sock_ops", "ldxw r0, [r1+4]\nstw [r1+4], 7", args=[5]).context["reply"] == 7
    assert run("sk_lookup", "ldxw r0, [r1+60]", local_port=80).return_value == 80
    assert run("cgroup_sock_addr", "stw [r1+24], 9\nmov r0, 1", user_port=1).context["user_port"] == 9
    family = "ldxdw r2, [r1+64]\nldxw r0, [r2+4]"
    assert run("cgroup_sock_addr", family, family=10).return_value == 10
    option = run("cgroup_sockopt", "ldxdw r2, [r1+8]\nstb [r2+1], 90\nldxw r0, [r1+32]", optval=b"abc")
    assert (option.return_value, option.context["optval"]) == (3, b"aZc")
    message = run("sk_msg", "ldxdw r2, [r1+0]\nldxb r0, [r2+1]\nstb [r2+0], 90", b"hello")
    assert (message.return_value, message.data, message.context["size"]) == (ord("e"), b"Zello", 5)
    assert run("sk_reuseport", "ldxdw r2, [r1+0]\nldxb r0, [r2+1]", b"hello").return_value == ord("e")
    stream = "ldxw r2, [r1+76]\nldxb r0, [r2+1]\nadd r0, 2"
    assert run("sk_skb", stream, bytes.fromhex("000568656c6c6f21")).return_value == 7
    flow = run("flow_dissector", "ldxdw r2, [r1+144]\nsth [r2+2], 900\nldxw r0, [r2+48]", bytes(54), flags=2)
    assert (flow.return_value, flow.context["nhoff"], flow.context["thoff"]) == (2, 14, 54)
    with pytest.raises(MemoryFault, match=r"bpf_sock_addr.user_family is read-only"):
        run("cgroup_sock_addr", "stw [r1+0], 3\nmov r0, 1", bytes(40))
    with pytest.raises(InputError, match="field 'optval_end' of bpf_sockopt cannot be set"):
        run("cgroup_sockopt", "mov r0, 1", optval_end=4)


@pytest.mark.parametrize("engine", ENGINES)
def test_objects_on_these_contexts(engine: str) -> None:
    programs = load(Path(__file__).parent.parent / "elf" / "contexts.o").programs
    with pytest.raises(MemoryFault, match="user_family is read-only"):
        programs["family"].run(bytes(40), engine=engine)
    assert programs["address"].run(bytes(40), engine=engine).context["user_ip4"] == 3
    assert programs["linear"].run(bytes(9000), engine=engine).return_value == 3520
    assert programs["whole"].run(bytes(9000), engine=engine).return_value == 9000
    assert programs["parse"].run(bytes.fromhex("000568656c6c6f21"), engine=engine).return_value == 7
