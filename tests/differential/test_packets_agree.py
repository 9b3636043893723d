"""Packet programs: both engines and the kernel agree on verdict, packet, metadata and context."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import pytest
from support.packets import packets

from ebpfjit import Program, kernel
from ebpfjit.assembler import assemble
from ebpfjit.bits import W32
from ebpfjit.runner import Result
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.helpers.names import NUMBERS
from ebpfjit.runtime.network import Interface, Network
from tests.support.whole import part

needs_kernel = pytest.mark.skipif(
    kernel.unavailable_reason() is not None, reason=str(kernel.unavailable_reason())
)

SKB_REPORT = """
    mov r7, r0
    ldxw r1, [r6+16]
    stxw [r6+48], r1      ; cb[0] = protocol
    ldxw r1, [r6+24]
    stxw [r6+52], r1      ; cb[1] = vlan_tci
    ldxw r1, [r6+28]
    stxw [r6+56], r1      ; cb[2] = vlan_proto
    ldxw r1, [r6+0]
    stxw [r6+60], r1      ; cb[3] = len
    {more}
    mov r0, r7
    exit
"""
TC_REPORT = """
    ldxw r1, [r6+20]
    stxw [r6+8], r1       ; mark = vlan_present
    ldxw r1, [r6+4]
    stxw [r6+32], r1      ; priority = pkt_type
    ldxw r2, [r6+76]
    ldxw r1, [r6+80]
    sub r1, r2
    stxw [r6+64], r1      ; cb[4] = data_end - data
"""
XDP_REPORT = """
    mov r7, r0
    ldxw r2, [r6+0]
    ldxw r3, [r6+8]
    ldxw r1, [r6+4]
    sub r1, r2            ; bytes of the packet
    sub r2, r3            ; bytes of the metadata
    lsh r1, 16
    or r1, r2
    lsh r7, 24
    xor r7, r1
    mov r0, r7
    exit
"""


Text = tuple[str, str]
"""A program's type and assembly text."""


def program(type: str, *body: str) -> Text:
    """Return a program of `body`: r6 is the context; it ends with a report of what there is."""
    more = TC_REPORT if type in ("tc", "lwt_xmit") else ""
    report = XDP_REPORT if type == "xdp" else SKB_REPORT.format(more=more)
    return type, "\n".join(["mov r6, r1", *body, report])


def call(name: str, *arguments: object) -> str:
    """Return a call on the context: the arguments are those behind it, numbers or registers."""
    lines = ["mov r1, r6"]
    for register, argument in enumerate(arguments, 2):
        wide = isinstance(argument, int) and not -(1 << 31) <= argument < 1 << 31
        lines.append(f"{'lddw' if wide else 'mov'} r{register}, {argument}")
    return "\n".join([*lines, f"call {NUMBERS['bpf_' + name]}"])


FILL = "\n".join(
    f"lddw r1, {0x1122334455667788 * (i + 1) & (1 << 64) - 1:#x}\nstxdw [r10-{8 * i + 8}], r1"
    for i in range(8)
)


def on_stack(name: str, offset: int, size: int, *more: int) -> str:
    """Return a call with a buffer of up to 64 bytes on the stack as its second argument."""
    text = ["mov r1, r6", f"mov r2, {offset}", "mov r3, r10", "add r3, -64", f"mov r4, {size}"]
    text += [f"mov r{register}, {value}" for register, value in enumerate(more, 5)]
    return "\n".join([FILL, *text, f"call {NUMBERS['bpf_' + name]}"])


def loaded(name: str, offset: int, size: int, *more: int) -> str:
    """Return a call that fills a buffer, and the sum of what it holds, for XDP and tc to return."""
    words = "\n".join(f"ldxdw r1, [r10-{8 * i + 8}]\nadd r0, r1\nmul r0, 31" for i in range(8))
    return on_stack(name, offset, size, *more) + "\n" + words


DISTANCES = (-300, -217, -216, -200, -60, -14, -4, -1, 0, 1, 4, 14, 20, 40, 46, 100, 3000, 4000)
OFFSETS = (0, 1, 14, 30, 33, 40, 41, 60, 100, 65534, 65535, 65536, -1)
ROOMS = (-0x1000, -1400, -60, -40, -24, -20, -4, 0, 1, 4, 8, 20, 24, 28, 40, 50, 64, 0xFFF, 0x1000)
ROOM_FLAGS = (
    0, 1, 2, 4, 6, 2 | 8, 2 | 16, 2 | 8 | 16, 2 | 64, 2 | 64 | 14 << 56, 2 | 14 << 56, 4 | 4 << 56,
    32, 128, 256, 384, 128 | 2, 512, 1 << 40,
)  # fmt: skip


def cases() -> Iterator[tuple[str, Text]]:
    """Yield (name, program)."""
    for distance in DISTANCES:
        yield f"adjust_head {distance}", program("xdp", call("xdp_adjust_head", distance))
        yield f"adjust_tail {distance}", program("xdp", call("xdp_adjust_tail", distance))
        yield f"adjust_meta {distance}", program("xdp", call("xdp_adjust_meta", distance))
    for first, second in product((-216, -180, -32, -4, 10), (-36, -20, -8, 4, 12)):
        head, meta = call("xdp_adjust_head", first), call("xdp_adjust_meta", second)
        yield f"adjust_head {first}, then meta {second}", program("xdp", head, meta)
        yield f"adjust_meta {second}, then head {first}", program("xdp", meta, head)
        tail = call("xdp_adjust_tail", second)
        yield f"adjust_head {first}, then tail {second}", program("xdp", head, tail, tail, head)
    for offset, size in product(OFFSETS, (1, 4, 20, 64)):
        yield f"xdp_load {offset} {size}", program("xdp", loaded("xdp_load_bytes", offset, size))
        yield f"xdp_store {offset} {size}", program("xdp", on_stack("xdp_store_bytes", offset, size))
        for type in ("tc", "socket_filter", "lwt_xmit", "lwt_in"):
            load = program(type, loaded("skb_load_bytes", offset, size))
            yield f"{type} skb_load_bytes {offset} {size}", load
        for type, start in product(("tc", "socket_filter"), (0, 1, 2)):
            load = program(type, loaded("skb_load_bytes_relative", offset, size, start))
            yield f"{type} skb_load_bytes_relative {offset} {size} from {start}", load
        for type, flags in product(("tc", "lwt_xmit"), (0, 1, 2, 3, 4)):
            store = program(type, on_stack("skb_store_bytes", offset, size, flags))
            yield f"{type} skb_store_bytes {offset} {size} {flags}", store
    yield "xdp_get_buff_len", program("xdp", call("xdp_get_buff_len"))
    for offset, flags, old, new in product(
        (24, 25, 40, 50, 65536), (0, 2, 4, 3, 16, 32, 0x12, 0x14, 0x22, 0x34, 0x64, 0x72, 0x100),
        (0, 0x1234, 0x0A000001), (0, 0xFFFF, 0x0B0000FE, 0xFFFFEDCB),
    ):  # fmt: skip
        yield (
            f"l3_csum {offset} {old:#x} {new:#x} {flags:#x}",
            program("tc", call("l3_csum_replace", offset, old, new, flags)),
        )
        yield (
            f"l4_csum {offset} {old:#x} {new:#x} {flags:#x}",
            program("tc", call("l4_csum_replace", offset, old, new, flags)),
        )
    for sizes in product((0, 1, 4, 20, 32), (0, 2, 4, 24, 32), (0, 1, 0xFFFFFFFF, 0x12345678)):
        text = [FILL, "mov r1, r10", "add r1, -64", f"mov r2, {sizes[0]}", "mov r3, r10", "add r3, -32",
                f"mov r4, {sizes[1]}", f"lddw r5, {sizes[2]}", "call 28"]  # fmt: skip
        for type in ("tc", "xdp"):
            yield f"{type} csum_diff {sizes}", program(type, *text)
    for levels in product(range(5), range(5)):
        calls = [call("csum_level", level) for level in levels]
        yield f"csum_level {levels}", program("tc", *calls, "add r0, 100\nmov r8, r0", calls[0], "add r0, r8")
    yield "csum_update", program("tc", call("csum_update", 77))
    for type, room, flags in product(
        ("tc", "lwt_xmit"), (0, 1, 14, 100, 3000, 16000, 60000, 66000, -1), (0, 1)
    ):
        if type == "tc" or room == 14:
            yield f"{type} change_head {room} {flags}", program(type, call("skb_change_head", room, flags))
    for size in (0, 1, 13, 14, 15, 20, 34, 60, 100, 2000, 4000, 16000, 17000, 65536, 70000, -1):
        yield f"change_tail {size}", program("tc", call("skb_change_tail", size, 0))
        yield f"pull_data {size}", program("tc", call("skb_pull_data", size))
    yield "change_tail with flags", program("tc", call("skb_change_tail", 40, 1))
    for difference, mode, flags in product(ROOMS, (0, 1, 2), ROOM_FLAGS):
        yield (
            f"adjust_room {difference} {mode} {flags:#x}",
            program("tc", call("skb_adjust_room", difference, mode, flags)),
        )
    twice = call("skb_adjust_room", 20, 1, 2)
    yield "adjust_room twice", program("tc", twice, twice)
    yield "encapsulated, then change_tail", program("tc", twice, call("skb_change_tail", 60, 0))
    for protocol, flags in product((0x0008, 0xDD86, 0x0608, 0), (0, 1)):
        yield f"change_proto {protocol:#x} {flags}", program("tc", call("skb_change_proto", protocol, flags))
    for type in (0, 1, 2, 3, 4, 7, 256):
        yield f"change_type {type}", program("tc", call("skb_change_type", type))
    push = [call("skb_vlan_push", *tag) for tag in ((0x0081, 5), (0xA888, 0x3007), (0x1234, 0xFFFF))]
    pop = call("skb_vlan_pop")
    for sequence in (
        (0,),
        (1,),
        (2,),
        (0, 1),
        (0, 0, 1),
        (0, 3),
        (3,),
        (3, 3),
        (3, 3, 3),
        (0, 1, 3),
        (3, 0),
        (3, 0, 1),
    ):
        steps = [[*push, pop][step] for step in sequence]
        yield f"vlan {sequence}", program("tc", *steps)
    yield "set_hash_invalid", program("tc", call("set_hash_invalid"))
    for index, size in ((0, 28), (1, 64), (0, 8)):
        yield f"get_xfrm_state {index} {size}", program("tc", loaded("skb_get_xfrm_state", index, size, 0))
    yield "set_hash", program("tc", call("set_hash", 77), call("get_hash_recalc"))
    for type, tstamp in product(range(4), (0, 99)):
        yield f"set_tstamp {type} {tstamp}", program("tc", call("skb_set_tstamp", tstamp, type))
    for flags in (0, 1, 2, 1 << 40):
        for type in ("tc", "lwt_xmit", "xdp"):
            text = f"mov r1, 1\nlddw r2, {flags}\ncall 23"
            yield f"{type} redirect {flags}", program(type, text)
        yield f"redirect_peer {flags}", program("tc", f"mov r1, 1\nlddw r2, {flags}\ncall 155")
        yield (
            f"redirect_neigh {flags}",
            program("tc", f"mov r1, 1\nmov r2, 0\nmov r3, 0\nlddw r4, {flags}\ncall 152"),
        )
    for name in ("get_socket_uid", "get_route_realm", "get_cgroup_classid", "skb_cgroup_classid"):
        yield name, program("tc", call(name))
    for size in (8, 22, 24, 28, 44, 12):
        for flags in (0, 1, 2, 4, 32):
            key = "\n".join(f"stw [r10-{64 - offset}], {value}" for offset, value in (
                (0, 77), (4, 0x0A000001), (8, 0), (12, 0), (16, 0), (20, 0x4001), (24, 0), (28, 0x0A000002),
                (32, 0), (36, 0), (40, 0),
            ))  # fmt: skip
            buffer = f"mov r1, r6\nmov r2, r10\nadd r2, -64\nmov r3, {size}\nmov r4, "
            words = "\n".join(f"ldxw r1, [r10-{64 - 4 * i}]\nadd r0, r1\nmul r0, 31" for i in range(11))
            get_it = buffer.replace(f"r3, {size}", "r3, 44") + f"{flags & 1}\ncall 20\n{words}"
            yield f"set_tunnel_key {size} {flags}", program("tc", key, buffer + f"{flags}\ncall 21\n")
            yield f"get_tunnel_key {size} {flags}", program("tc", key, buffer + f"{flags}\ncall 20\n{words}")
            yield (
                f"set, get_tunnel_key {size} {flags}",
                program("tc", key, buffer + f"{flags}\ncall 21\n", get_it),
            )
            got = buffer + f"{flags}\ncall 20\n{words}"
            set_it = buffer.replace(f"r3, {size}", "r3, 44") + f"{flags & 1}\ncall 21"
            yield f"set 44, get_tunnel_key {size} {flags}", program("tc", key, set_it, got)
            options = "mov r1, r6\nmov r2, r10\nadd r2, -64\nmov r3, {0}\ncall {1}\n"
            text = buffer + f"{flags & 1}\ncall 21\n" + options.format(size, 30) + "mov r8, r0\n"
            text += options.format(24, 29) + words + "\nxor r0, r8"
            yield f"tunnel_opt {size} {flags}", program("tc", key, text)
    for type, ifindex, given, difference, flags in product(
        ("tc", "xdp"), (0, 1, 99999), (0, 100, 70000), (-20, 0, 65500, 70000), (0, 1, 2)
    ):
        text = f"stdw [r10-8], {given}\nmov r1, r6\nmov r2, {ifindex}\nmov r3, r10\nadd r3, -8"
        text += f"\nmov r4, {difference}\nmov r5, {flags}\ncall 163\nldxw r1, [r10-8]\nadd r0, r1"
        yield f"check_mtu {type} {ifindex} {given} {difference} {flags}", program(type, text)


OUTER = (
    "45 00 00 3c 00 01 00 00 40 2f 00 00 0a 00 00 01 0a 00 00 02 00 00 08 00",   # IPv4 and GRE
    "45 00 00 3c 00 01 00 00 40 2f 12 34 0a 00 00 01 0a 00 00 02",               # with a checksum
    "46 00 ff ff ff ff ff ff ff ff 00 00 ff ff 00 01 0a 00 00 02 01 01 01 00",   # and options
    "43 00 00 3c 00 01 00 00 40 2f 00 00 0a 00 00 01 0a 00 00 02",
    "44 00 00 3c 00 01 00 00 40 2f 00 00 0a 00 00 01 0a 00 00 02",
    "47 00 00 3c 00 01 00 00 40 2f 00 00 0a 00 00 01 0a 00 00 02",               # longer than it is
    "60 00 00 00 00 00 2f 40" + 32 * " 01",
    "60 00 00 00 00 00 2f 40" + 31 * " 01",
    "50" + 59 * " 00",
)  # fmt: skip
"""Headers to put in front of packets."""


def encapsulations() -> Iterator[tuple[str, Text]]:
    """Yield (name, program) for bpf_lwt_push_encap (lwt_xmit's looks at a route, and a test run has none)."""
    for number, text in enumerate(OUTER):
        header = bytes.fromhex(text)
        for size in {len(header), 19, 20, 40} if number in (0, 6) else {len(header)}:
            words = [int.from_bytes(header[at : at + 4], "little") for at in range(0, len(header), 4)]
            stores = "\n".join(f"stw [r10-{64 - 4 * i}], {W32.signed(word)}" for i, word in enumerate(words))
            for kind in (2, 3) if number == 0 else (2,):
                call_it = f"mov r1, r6\nmov r2, {kind}\nmov r3, r10\nadd r3, -64\nmov r4, {size}\ncall 73"
                there = f"{FILL}\n{stores}\n{call_it}"
                yield f"lwt_push_encap {number} {size} {kind}", program("lwt_in", there)
                yield f"lwt_push_encap {number} {size} {kind}, twice", program("lwt_in", there, there)


LINK, NETWORK = -0x200000, -0x100000
INDICES = (
    0, 1, 12, 20, 39, 40, 60, 0x7FFFFFFF, -1, -4, -14, -0x1000, -0x1000 + 4, NETWORK, NETWORK + 9,
    NETWORK + 60, NETWORK - 1, LINK, LINK + 6, LINK + 12, LINK + 14, LINK + 60, LINK - 1, -0x80000000,
)  # fmt: skip


def packet_loads() -> Iterator[tuple[str, Text]]:
    """Yield (name, program) for legacy packet loads."""
    for type, size, index in product(("socket_filter", "tc", "sched_act"), "bhw", INDICES):
        text = f"mov r6, r1\nmov r7, {index}\nldind{size} r7, 0\nexit"
        yield f"ldind {type} {size} {index}", (type, text)
        text = f"mov r6, r1\nldabs{size} {index}\nexit"
        yield f"ldabs {type} {size} {index}", (type, text)


def families() -> dict[str, dict[str, Text]]:
    """Return the cases, by the words at the start of their names."""
    found: dict[str, dict[str, Text]] = {}
    for name, case in (*cases(), *encapsulations(), *packet_loads()):
        words = re.match(r"(?:[a-z_]\w*,? ?)+", name)
        assert words is not None
        found.setdefault(words[0].strip(), {})[name] = case
    return found


FAMILIES = families()
LOOPBACK_ONLY = Environment(network=Network(interfaces={1: Interface(mtu=65536)}))


@cache
def assembled(type: str, text: str) -> Program:
    return Program.from_bytes(assemble(text), type=type)


def each_run(family: str) -> Iterator[tuple[str, Program, str, bytes]]:
    """Yield (case, program, packet's name, packet): all packets for each, or in turn where cases are many.

    Of very many cases some, with each of the packets.
    """
    kinds = list(packets().items())
    found = list(FAMILIES[family].items())
    few = len(found) <= 20
    for number, (name, case) in enumerate(part(found, 1 + len(found) // 40)):
        for kind, packet in kinds if few else kinds[number % 5 :: 5]:
            yield name, assembled(*case), kind, packet


def seen(result: Result) -> tuple[Any, ...]:
    """Return what engines must agree on, the kernel too."""
    return result.return_value, result.action, result.data, result.metadata


@pytest.mark.parametrize("family", FAMILIES)
def test_both_engines_agree(family: str) -> None:
    for name, case, kind, packet in each_run(family):
        left, right = (
            case.run(packet, engine=engine, environment=LOOPBACK_ONLY) for engine in ("jit", "interpreter")
        )
        assert left == replace(right, instructions=None), (name, kind)


@needs_kernel
@pytest.mark.parametrize("family", FAMILIES)
def test_the_kernel_agrees(family: str) -> None:
    for name, case, kind, packet in each_run(family):
        theirs = case.run(packet, engine="kernel")
        ours = case.run(packet, engine="interpreter", environment=LOOPBACK_ONLY)
        assert seen(ours) == seen(theirs), (name, kind)
        common = {field: ours.context[field] for field in theirs.context}
        assert common == theirs.context, (name, kind)
