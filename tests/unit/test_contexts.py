"""Contexts: what programs of a type find behind r1, may write there, and leave."""

from __future__ import annotations

import copy
import pickle
import struct
import threading
from typing import Any

import pytest

from ebpfjit import InputError, MemoryFault, Program
from ebpfjit.assembler import assemble
from ebpfjit.runtime.contexts.types import TYPES, ContextKind

ENGINES = ("jit", "interpreter")
engines = pytest.mark.parametrize("engine", ENGINES)
FRAME = bytes.fromhex("020000000002 020000000001 0800") + bytes.fromhex(
    "45000028 00010000 40060000 0a000001 0a000002"
) + bytes(range(20))  # fmt: skip


def program(type: str | None, *lines: str) -> Program:
    return Program.from_bytes(assemble("\n".join([*lines, "exit"])), type=type, name="tested")


def field(type: str, load: str, offset: int, **context: Any) -> int:
    results = {
        engine: program(type, f"{load} r0, [r1+{offset}]")
        .run(FRAME, engine=engine, context=context)
        .return_value
        for engine in ENGINES
    }
    assert len(set(results.values())) == 1
    return results["jit"]


# --- xdp_md ---


@engines
def test_xdp_finds_its_packet_between_data_and_data_end(engine: str) -> None:
    first_byte = program(
        "xdp", "ldxw r2, [r1+0]", "ldxw r3, [r1+4]", "mov r4, r2", "add r4, 14", "mov r0, 0",
        "jgt r4, r3, +5", "ldxb r0, [r2+12]", "sub r3, r2", "lsh r3, 8", "or r0, r3", "stb [r2+0], 7",
    )  # fmt: skip
    result = first_byte.run(FRAME, engine=engine)
    assert result.return_value == len(FRAME) << 8 | 8
    assert result.data == b"\x07" + FRAME[1:]
    assert result.metadata == b""


@engines
@pytest.mark.parametrize("offset", [-1, len(FRAME), len(FRAME) + 1000, -257])
def test_what_is_outside_of_the_packet_is_not_the_programs(engine: str, offset: int) -> None:
    outside = program("xdp", "ldxw r2, [r1+0]", f"add r2, {offset}", "ldxb r0, [r2+0]")
    with pytest.raises(MemoryFault) as fault:
        outside.run(FRAME, engine=engine)
    assert (fault.value.pc, fault.value.size) == (2, 1)
    assert fault.value.address < 1 << 32


@engines
@pytest.mark.parametrize("offset", range(0, 24, 4))
def test_xdp_md_is_read_only(engine: str, offset: int) -> None:
    with pytest.raises(MemoryFault, match=r"xdp_md\.\w+ is read-only"):
        program("xdp", f"stw [r1+{offset}], 1", "mov r0, 0").run(FRAME, engine=engine)


@engines
def test_the_struct_ends_where_it_ends(engine: str) -> None:
    for type, size in (("xdp", 24), ("tc", 192)):
        with pytest.raises(MemoryFault):
            program(type, f"ldxw r0, [r1+{size - 2}]").run(FRAME, engine=engine)


def test_metadata_stands_before_the_packet() -> None:
    both = program("xdp", "ldxw r2, [r1+8]", "ldxw r3, [r1+0]", "ldxw r0, [r2+0]", "sub r3, r2", "add r0, r3",
                   "stb [r2+1], 9")  # fmt: skip
    result = both.run(b"\1\0\0\0" + FRAME, context={"data": 4})
    assert result.return_value == 5
    assert (result.metadata, result.data) == (b"\1\x09\0\0", FRAME)
    assert result.context["data"] == 4
    assert result.context["data_end"] == 4 + len(FRAME)


def test_fields_of_xdp_md_that_can_be_set() -> None:
    assert field("xdp", "ldxw", 12) == 1  # the loopback device
    assert field("xdp", "ldxw", 12, ingress_ifindex=7) == 7
    assert field("xdp", "ldxw", 16, ingress_ifindex=7, rx_queue_index=3) == 3
    assert field("xdp", "ldxw", 20) == 0


@pytest.mark.parametrize("fields", [{"ingress_ifindex": -1}, {"ingress_ifindex": 1, "rx_queue_index": -1}])
def test_negative_fields_of_xdp_md_wrap(fields: dict[str, int]) -> None:
    program = Program.from_assembly(
        "r0 = *(u32 *)(r1 + 12)\nr2 = *(u32 *)(r1 + 16)\nr0 |= r2\nexit", type="xdp"
    )
    assert program.run(bytes(64), context=fields).return_value == 0xFFFFFFFF
    assert program.compile(context=fields)(bytes(64)) == 0xFFFFFFFF


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({"data_meta": 4}, "data_meta' of xdp_md cannot be set; those that can be set: data, data_end"),
        ({"mark": 4}, "mark' of xdp_md is not there"),
        ({"data": 3}, "multiple of 4"),
        ({"data": 256}, "up to 252"),
        ({"data": -4}, "not -4"),
        ({"data": "x"}, "takes numbers of 32 bits"),
        ({"data_end": 5}, "the size of the data"),
        ({"rx_queue_index": 1}, "needs ingress_ifindex"),
        ({"ingress_ifindex": 1 << 32}, "numbers of 32 bits, not 4294967296"),
    ],
)
def test_wrong_fields_of_xdp_md_are_said(context: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        program("xdp", "mov r0, 2").run(FRAME, context=context)


# --- __sk_buff ---


def test_defaults_of_a_socket_buffer() -> None:
    assert field("tc", "ldxw", 0) == len(FRAME)
    assert field("socket_filter", "ldxw", 0) == len(FRAME) - 14
    assert field("tc", "ldxw", 4) == 3  # PACKET_OTHERHOST
    assert field("tc", "ldxw", 16) == 0x0008  # network order
    assert field("tc", "ldxw", 40) == 1  # ifindex
    assert field("tc", "ldxw", 160) == len(FRAME)  # wire_len
    with pytest.raises(MemoryFault, match=r"__sk_buff\.data is not for programs of this type"):
        field("socket_filter", "ldxw", 76)


SETTABLE = {
    "mark": ("ldxw", 8, 0x12345678), "priority": ("ldxw", 32, 5), "ingress_ifindex": ("ldxw", 36, 4),
    "ifindex": ("ldxw", 40, 9), "tstamp": ("ldxdw", 152, 77), "wire_len": ("ldxw", 160, 1000),
    "gso_segs": ("ldxw", 164, 3), "gso_size": ("ldxw", 176, 1448), "hwtstamp": ("ldxdw", 184, 88),
}  # fmt: skip


@pytest.mark.parametrize("name", SETTABLE)
def test_fields_of_a_socket_buffer_that_can_be_set(name: str) -> None:
    load, offset, value = SETTABLE[name]
    assert field("tc", load, offset, **{name: value}) == value & 0xFFFFFFFF
    result = program("tc", "mov r0, 0").run(FRAME, context={name: value})
    assert result.context[name] == value


def test_the_control_block_is_an_array() -> None:
    assert field("tc", "ldxw", 52, cb=[1, 2]) == 2
    assert program("tc", "mov r0, 0").run(FRAME, context={"cb": (1, 2)}).context["cb"] == (1, 2, 0, 0, 0)


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({"len": 4}, "'len' of __sk_buff cannot be set; those that can be set: mark, priority"),
        ({"nothing": 4}, "'nothing' of __sk_buff is not there"),
        ({"cb": [0] * 6}, "up to 5 numbers"),
        ({"cb": 4}, "up to 5 numbers"),
        ({"wire_len": 10}, "wire_len is from the packet's size"),
        ({"gso_segs": 1 << 16}, "at most 65535"),
        ({"mark": 1.5}, "numbers of 32 bits, not 1.5"),
    ],
)
def test_wrong_fields_of_a_socket_buffer_are_said(context: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        program("tc", "mov r0, 0").run(FRAME, context=context)


WRITABLE = {
    "tc": {8, 12, 32, 44, 48, 52, 56, 60, 64, 72},
    "socket_filter": {48, 52, 56, 60, 64},
    "cgroup_skb": {8, 32, 48, 52, 56, 60, 64},
    "lwt_xmit": {8, 32, 48, 52, 56, 60, 64},
}


@engines
@pytest.mark.parametrize("type", WRITABLE)
def test_only_some_fields_are_the_programs_to_write(engine: str, type: str) -> None:
    """Those of four bytes; `tests/differential/test_contexts_as_linux.py` has all sizes."""
    written = set()
    for offset in range(0, 192, 4):
        try:
            program(type, f"stw [r1+{offset}], 1", "mov r0, 0").run(FRAME, engine=engine)
        except MemoryFault:
            continue
        written.add(offset)
    assert written == WRITABLE[type]


@engines
@pytest.mark.parametrize(
    ("type", "writes"), [("tc", True), ("lwt_xmit", True), ("lwt_in", False), ("cgroup_skb", False)]
)
def test_some_types_may_write_the_packet(engine: str, type: str, writes: bool) -> None:
    store = program(type, "ldxw r2, [r1+76]", "stb [r2+0], 7", "mov r0, 0")
    if writes:
        data = store.run(FRAME, engine=engine).data
        start = 0 if type == "tc" else 14
        assert data == FRAME[:start] + b"\x07" + FRAME[start + 1 :]
    else:
        with pytest.raises(MemoryFault, match="packet is read-only"):
            store.run(FRAME, engine=engine)


@engines
def test_network_layer_programs_start_at_the_network_header(engine: str) -> None:
    for type in ("cgroup_skb", "lwt_in", "lwt_out", "lwt_xmit"):
        result = program(type, "ldxw r2, [r1+76]", "ldxb r0, [r2+0]").run(FRAME, engine=engine)
        assert (result.return_value, result.data) == (0x45, FRAME)
    result = program("socket_filter", "mov r6, r1", "ldabsb 0").run(FRAME, engine=engine)
    assert (result.return_value, result.data) == (0x45, FRAME)


@engines
def test_negative_packet_loads_count_from_the_headers(engine: str) -> None:
    def loaded(type: str, offset: int) -> int:
        return program(type, "mov r6, r1", f"ldabsh {offset}").run(FRAME, engine=engine).return_value

    for type in ("socket_filter", "tc"):
        assert loaded(type, -0x200000 + 12) == 0x0800
        assert loaded(type, -0x100000) == 0x4500
        assert loaded(type, -0x200001) == 0
        assert loaded(type, -1) == 0
        assert loaded(type, -0x200000 + len(FRAME) - 1) == 0


@engines
def test_a_packets_socket_can_be_read(engine: str) -> None:
    family = program("tc", "ldxdw r2, [r1+168]", "ldxw r0, [r2+4]")
    assert family.run(FRAME, engine=engine).return_value == 2
    source = program("tc", "ldxdw r2, [r1+168]", "ldxw r0, [r2+24]")
    assert source.run(FRAME, engine=engine).return_value == struct.unpack("<I", FRAME[26:30])[0]
    with pytest.raises(MemoryFault, match=r"bpf_sock\.\w+ is read-only"):
        program("tc", "ldxdw r2, [r1+168]", "stw [r2+4], 1", "mov r0, 0").run(FRAME, engine=engine)


# --- plain structs ---


@engines
def test_other_types_get_the_bytes_as_their_context(engine: str) -> None:
    result = program("kprobe", "ldxdw r0, [r1+8]").run(struct.pack("<QQ", 1, 99), engine=engine)
    assert (result.return_value, result.data, result.action) == (99, struct.pack("<QQ", 1, 99), None)
    with pytest.raises(MemoryFault, match="context is read-only"):
        program("tracepoint", "stdw [r1+0], 1", "mov r0, 0").run(bytes(8), engine=engine)
    written = program("cgroup_sock_addr", "stw [r1+4], 1", "mov r0, r2").run(bytes(8), engine=engine)
    assert (written.return_value, written.data) == (0, b"\0\0\0\0\1\0\0\0")
    with pytest.raises(MemoryFault):
        program("kprobe", "ldxdw r0, [r1+8]").run(bytes(8), engine=engine)


def test_plain_structs_have_no_fields_to_set() -> None:
    with pytest.raises(InputError, match="kprobe programs get their context's bytes as data"):
        program("kprobe", "mov r0, 0").run(b"", context={"mark": 1})


# --- results ---


@pytest.mark.parametrize(
    ("type", "value", "action", "passes"),
    [
        ("xdp", 0, "XDP_ABORTED", False),
        ("xdp", 1, "XDP_DROP", False),
        ("xdp", 2, "XDP_PASS", True),
        ("xdp", 3, "XDP_TX", False),
        ("xdp", 4, "XDP_REDIRECT", False),
        ("xdp", 5, None, False),
        ("tc", 0, "TC_ACT_OK", True),
        ("tc", 2, "TC_ACT_SHOT", False),
        ("tc", -1, "TC_ACT_UNSPEC", True),
        ("sched_act", 7, "TC_ACT_REDIRECT", False),
        ("lwt_in", 0, "BPF_OK", True),
        ("lwt_xmit", 128, "BPF_LWT_REROUTE", True),
        ("socket_filter", 0, None, False),
        ("socket_filter", 40, None, True),
        ("cgroup_skb", 1, None, True),
        ("cgroup_skb", 2, None, False),
    ],
)
def test_actions_have_names(type: str, value: int, action: str | None, passes: bool) -> None:
    for engine in ENGINES:
        result = program(type, f"mov r0, {value}").run(FRAME, engine=engine)
        assert (result.return_value, result.action, result.passes) == (value & 0xFFFFFFFF, action, passes)


def test_a_typed_programs_result_has_32_bits_and_a_raw_ones_64() -> None:
    wide = "lddw r0, 0x1122334455667788"
    assert program("tc", wide).run(FRAME).return_value == 0x55667788
    assert program(None, wide).run(FRAME).return_value == 0x1122334455667788


def test_the_interpreter_counts_instructions() -> None:
    assert program("xdp", "mov r0, 2").run(FRAME, engine="interpreter").instructions == 2
    assert program("xdp", "mov r0, 2").run(FRAME).instructions is None


# --- inputs that are refused ---


@pytest.mark.parametrize(
    "type",
    [
        name
        for name, kind in TYPES.items()
        if kind.context is not ContextKind.STRUCT and kind.frames and name != "lwt_seg6local"
    ],
)
@pytest.mark.parametrize("engine", [*ENGINES, "kernel"])
def test_packets_shorter_than_an_ethernet_header_are_refused(type: str, engine: str) -> None:
    with pytest.raises(InputError, match=r"at least 14 bytes \(an Ethernet header\), this one has 13"):
        program(type, "mov r0, 0").run(bytes(13), engine=engine)


def test_a_type_that_is_not_there() -> None:
    with pytest.raises(InputError, match="no program type 'xpd'; there are: xdp, tc"):
        program("xpd", "mov r0, 0").run(FRAME)


def test_arguments_of_wrong_types() -> None:
    with pytest.raises(TypeError, match="bytes-like"):
        program("xdp", "mov r0, 2").run("text")
    with pytest.raises(TypeError, match="context is a mapping"):
        program("xdp", "mov r0, 2").run(FRAME, context=b"\0" * 24)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="program tested has no type, so no context"):
        program(None, "mov r0, 2").run(FRAME, context={"mark": 1})
    with pytest.raises(InputError, match="at most 16777216 bytes"):
        program("xdp", "mov r0, 2").run(bytes((1 << 24) + 1))
    with pytest.raises(ValueError, match="no engine 'fast'"):
        program("xdp", "mov r0, 2").run(FRAME, engine="fast")


# --- memory ---


@engines
def test_runs_do_not_see_each_other(engine: str) -> None:
    """The memory is used again: head- and tailroom of one run are not those of the one before."""
    mark = program("xdp", "mov r6, r1", "mov r2, -100", "call 44", "ldxw r2, [r6+0]",
                   "lddw r3, 0xabcdabcdabcdabcd", "stxdw [r2+0], r3", "mov r0, 2")  # fmt: skip
    look = program("xdp", "mov r6, r1", "mov r2, -100", "call 44", "ldxw r2, [r6+0]", "ldxdw r0, [r2+0]")
    for _ in range(3):
        assert mark.run(FRAME, engine=engine).data[:8] == b"\xcd\xab" * 4
        assert look.run(FRAME, engine=engine).return_value == 0


@engines
def test_large_packets(engine: str) -> None:
    last = program("xdp", "ldxw r2, [r1+4]", "ldxb r0, [r2-1]")
    for size in (3520, 9000, 65535, 65537, 1 << 20):
        assert last.run(bytes(size - 1) + b"\x2a", engine=engine).return_value == 42


def test_threads_have_memory_of_their_own() -> None:
    own = program("xdp", "ldxw r2, [r1+0]", "ldxw r3, [r2+20]", "stxw [r2+16], r3", "ldxw r0, [r2+16]")
    wrong: list[int] = []

    def work(number: int) -> None:
        frame = bytes(20) + number.to_bytes(4, "little")
        for _ in range(300):
            result = own.run(frame)
            if result.return_value != number or result.data[16:20] != frame[20:]:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_program_that_ran_can_be_copied() -> None:
    original = program("xdp", "mov r0, 2")
    original.run(FRAME)
    for other in (pickle.loads(pickle.dumps(original)), copy.deepcopy(original)):
        assert other == original
        assert other.run(FRAME).action == "XDP_PASS"


def test_compiled_functions_of_typed_programs() -> None:
    size = program("xdp", "ldxw r2, [r1+0]", "ldxw r0, [r1+4]", "sub r0, r2").compile()
    assert [size(bytes(length)) for length in (14, 60, 1500)] == [14, 60, 1500]
    assert size.map([bytes(length) for length in (14, 60, 1500)]).tolist() == [14, 60, 1500]
    with pytest.raises(InputError, match="at least 14 bytes"):
        size(b"")
    with pytest.raises(MemoryFault):
        program("tc", "stw [r1+0], 1", "mov r0, 0").compile()(FRAME)


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_a_struct_takes_no_more_than_it_has(engine: str) -> None:
    loads = program("cgroup_device", "ldxw r0, [r1+8]")
    assert loads.run(struct.pack("<3I", 1, 2, 3) + bytes(20), engine=engine).return_value == 3
    with pytest.raises(InputError, match=r"get a bpf_cgroup_dev_ctx, 12 bytes; 13 were given.*E2BIG"):
        loads.run(bytes(12) + b"\1", engine=engine)
