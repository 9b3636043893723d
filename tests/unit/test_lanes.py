"""XDP programs as functions: their packets go into a lane, without Python, and are run as `run` runs them."""

from __future__ import annotations

import gc
import sys
import threading
import time
import tracemalloc
from dataclasses import replace
from typing import Any

import pytest

from ebpfjit import BudgetExhausted, ExecutionError, InputError, JitFunction, MemoryFault, Program
from ebpfjit.assembler import assemble
from ebpfjit.compiling import UNLOCKED_LANES
from ebpfjit.jit import gate
from ebpfjit.runtime.contexts import skb
from ebpfjit.runtime.contexts.packet import LINK_HEADER_SIZE
from ebpfjit.runtime.helpers.names import NUMBERS
from ebpfjit.runtime.maps import Map, MapDefinition, MapType, create
from ebpfjit.sealed import inside
from ebpfjit.translators.x86_64 import lanes
from tests.support.mappings import own_mappings

pytestmark = pytest.mark.skipif(bool(gate.why_not()), reason=f"no native gate: {gate.why_not()}")

FRAME = bytes(range(60))
LOAD_POINTERS = "mov r6, r1\nldxw r7, [r6+0]\nldxw r8, [r6+4]\n"
LENGTH_AND_LAST = LOAD_POINTERS + "ldxb r0, [r8-1]\nsub r8, r7\nlsh r8, 8\nor r0, r8\nexit"
ADJUST_HEAD, TAIL_CALL, TRACE = (
    NUMBERS[f"bpf_{name}"] for name in ("xdp_adjust_head", "tail_call", "trace_printk")
)


def program(text: str, *maps: Map, type: str = "xdp") -> Program:
    """Return a program; `lddw R, map[idx:N]` in its text is the load of one of the maps."""
    code = assemble(text)
    loads = [insn for insn in Program.from_bytes(code).instructions if insn.next_imm is not None]
    references = {insn.pc: maps[insn.imm].address for insn in loads if maps}
    return Program(code, name="tested", type=type, references=references, maps=maps)


def function(text: str, *maps: Map, **options: Any) -> JitFunction:
    compiled = program(text, *maps).compile(**options)
    assert inside(compiled).gate is not None, "it has no lane"
    return compiled


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_packets_of_all_sizes_are_copied_whole(kind: Any) -> None:
    last = function(LENGTH_AND_LAST)
    middle = function(LOAD_POINTERS + "ldxb r0, [r7+13]\nldxb r1, [r7]\nlsh r1, 8\nor r0, r1\nexit")
    for size in [*range(14, 100), 1500, 4096, 65_535, 65_536, 65_537, 100_000]:
        packet = bytes(index * 7 + size & 0xFF for index in range(size))
        assert last(kind(packet)) == (size << 8 | packet[-1]) & 0xFFFFFFFF
        assert middle(kind(packet)) == packet[0] << 8 | packet[13]


def test_every_byte_of_a_packet_arrives() -> None:
    add = LOAD_POINTERS + (
        "mov r0, 0\nmov r1, r7\nnext: jge r1, r8, done\n"
        "mul r0, 31\nldxb r2, [r1]\nadd r0, r2\nadd r1, 1\nja next\ndone: exit"
    )
    sums = function(add)
    for size in range(14, 130):
        packet = bytes(index * 11 + size & 0xFF for index in range(size))
        expected = 0
        for byte in packet:
            expected = (expected * 31 + byte) & 0xFFFFFFFF
        assert sums(packet) == expected


def test_what_run_refuses_is_refused_alike() -> None:
    text = LENGTH_AND_LAST
    for packet in (b"", bytes(13), bytes((1 << 24) + 1)):
        with pytest.raises(InputError) as wanted:
            program(text).run(packet)
        with pytest.raises(InputError) as found:
            function(text)(packet)
        assert str(found.value) == str(wanted.value)
    with pytest.raises(TypeError):
        function(text)("no buffer")
    with pytest.raises(TypeError):
        function(text)(FRAME, FRAME)


def test_faults_are_those_of_the_interpreter_and_leave_the_function_usable() -> None:
    for text, error in (
        (LOAD_POINTERS + "ldxb r0, [r8]\nexit", MemoryFault),
        (LOAD_POINTERS + "ldxb r0, [r7-1]\nexit", MemoryFault),
        (LOAD_POINTERS + "stxw [r6], r7\nexit", MemoryFault),
        (LOAD_POINTERS + "ldxdw r0, [r6+24]\nexit", MemoryFault),
        ("again: ja again", BudgetExhausted),
    ):
        compiled = function(text, limit=1000)
        with pytest.raises(ExecutionError) as wanted:
            program(text).run(FRAME, engine="interpreter", limit=1000)
        for _ in range(3):
            with pytest.raises(error) as found:
                compiled(FRAME)
            assert {**vars(found.value), "address": 0} == {**vars(wanted.value), "address": 0}
    sometimes = function(LOAD_POINTERS + "ldxb r1, [r7]\nadd r7, r1\nldxb r0, [r7]\nexit")
    for _ in range(3):
        assert sometimes(FRAME) == 0
        with pytest.raises(MemoryFault):
            sometimes(b"\xff" * 60)


def test_runs_do_not_see_each_other() -> None:
    """What a helper moved or a program stored is as new in the next run: headroom, pointers, stack."""
    text = LOAD_POINTERS + (
        f"ldxdw r0, [r7]\nstxdw [r10-8], r0\nmov r1, r6\nmov r2, -8\ncall {ADJUST_HEAD}\n"
        "ldxw r7, [r6]\nldxdw r0, [r7]\nstdw [r7], -1\nexit"
    )
    moves, plain = function(text), function(LENGTH_AND_LAST)
    for _ in range(3):
        assert moves(FRAME) == 0
        assert plain(FRAME) == 60 << 8 | 59
    assert list(moves.map([FRAME] * 3)) == [0, 0, 0]
    assert program(text).run(FRAME).return_value == 0


def test_helpers_see_the_run() -> None:
    text = f"mov r1, r10\nadd r1, -8\nstdw [r10-8], 0x41\nmov r2, 2\ncall {TRACE}\nexit"
    assert function(text)(FRAME) == program(text).run(FRAME).return_value
    seen: list[tuple[int, ...]] = []

    def helper(*arguments: int) -> int:
        seen.append(arguments)
        return len(seen)

    counts = function("mov r1, 3\ncall 200000\nexit", helpers={200000: helper})
    assert [counts(FRAME), *counts.map([FRAME, FRAME])] == [1, 2, 3]
    assert {arguments[0] for arguments in seen} == {3}


def test_tail_calls_go_on_from_a_lane() -> None:
    programs: Any = create(MapDefinition("programs", MapType.PROG_ARRAY, 4, 4, 2))
    programs[1] = program(LENGTH_AND_LAST)
    call = f"lddw r2, map[idx:0]\nmov r3, 1\ncall {TAIL_CALL}\nmov r0, 7\nexit"
    jumps = function(call, programs)
    assert jumps(FRAME) == 60 << 8 | 59
    assert list(jumps.map([FRAME, FRAME[:20]])) == [60 << 8 | 59, 20 << 8 | 19]
    del programs[1]
    assert jumps(FRAME) == 7


def test_a_helper_may_call_the_function_it_is_called_from() -> None:
    depth = 0

    def helper(r1: int, *_: int) -> int:
        nonlocal depth
        depth += 1
        try:
            return r1 + (nested(FRAME[: r1 - 1]) if r1 > 50 else 0)
        finally:
            depth -= 1

    nested = function(LOAD_POINTERS + "mov r1, r8\nsub r1, r7\ncall 200000\nexit", helpers={200000: helper})
    expected = sum(range(50, 61))
    assert nested(FRAME) == expected
    assert list(nested.map([FRAME] * 2)) == [expected] * 2
    assert depth == 0


def test_threads_share_a_function() -> None:
    """Whoever finds the lane in use goes another way, with the same result."""

    def helper(r1: int, *_: int) -> int:
        time.sleep(0)  # another thread's turn
        return r1

    text = LOAD_POINTERS + "ldxb r1, [r7]\ncall 200000\nldxb r1, [r7+1]\nlsh r1, 8\nor r0, r1\nexit"
    shared = function(text, helpers={200000: helper})
    wrong: list[int] = []

    def work(number: int) -> None:
        packet = bytes([number, 2 * number]) + bytes(60)
        for _ in range(300):
            result = shared(packet)
            if result != number | 2 * number << 8:
                wrong.append(result)

    threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_functions_share_memory_below_4_gib() -> None:
    """There is little of it: Linux gives out the second of its four GiB, for contexts and for lanes."""

    def used() -> int:
        gc.collect()
        return sum(end - start for start, end, _ in own_mappings() if start >= 1 << 30 and end <= 1 << 31)

    kept = [function(LENGTH_AND_LAST)]
    before = used()
    kept += [function(LENGTH_AND_LAST) for _ in range(50)]
    assert [each(FRAME) for each in kept] == [60 << 8 | 59] * 51
    assert 0 < used() <= before


def test_batches_over_places_and_with_faults() -> None:
    sizes = function(LOAD_POINTERS + "ldxb r1, [r7]\nadd r7, r1\nldxb r0, [r7]\nexit")
    buffer = bytes(range(240))
    assert list(sizes.map(buffer[:60] * 4, stride=60)) == [0] * 4
    assert list(sizes.map(buffer, offsets=[0, 10], lengths=[60, 60])) == [0, 20]
    packets = [FRAME, b"\xff" * 60, bytes(3), bytearray(FRAME)]
    assert list(sizes.map(packets, on_fault=99)) == [0, 99, 99, 0]
    with pytest.raises(MemoryFault) as found:
        sizes.map(packets)
    assert found.value.index == 1
    with pytest.raises(InputError) as refused:
        sizes.map([FRAME, bytes(3)])
    assert refused.value.index == 1


def test_maps_are_used_from_a_lane() -> None:
    counts: Any = create(MapDefinition("counts", MapType.ARRAY, 4, 8, 4))
    count = function(
        "stw [r10-4], 2\nlddw r1, map[idx:0]\nmov r2, r10\nadd r2, -4\ncall 1\njeq r0, 0, out\n"
        "mov r1, 1\nlock add [r0+0], r1\nldxdw r0, [r0+0]\nout: exit",
        counts,
    )
    assert [count(FRAME) for _ in range(3)] == [1, 2, 3]
    assert list(count.map([FRAME] * 3)) == [4, 5, 6]
    assert int.from_bytes(counts[2], "little") == 6


def test_maps_inside_of_maps_are_reached_from_a_lane() -> None:
    """Their memory is not known when the program is compiled: they may be put in later."""
    inner = MapDefinition("inner", MapType.ARRAY, 4, 8, 1)
    outer: Any = create(MapDefinition("outer", MapType.ARRAY_OF_MAPS, 4, 4, 2, inner=inner))
    zero = "mov r2, r10\nadd r2, -4\ncall 1\njeq r0, 0, out\n"
    reads = function(
        f"stw [r10-4], 0\nlddw r1, map[idx:0]\n{zero}mov r1, r0\n{zero}ldxdw r0, [r0]\nout: exit", outer
    )
    assert reads(FRAME) == 0
    for number in (5, 6):
        outer[0] = create(replace(inner, name=f"inner{number}"))
        outer[0][0] = number
        assert reads(FRAME) == number
        assert list(reads.map([FRAME] * 2)) == [number] * 2


def test_references_and_memory_stay_flat() -> None:
    calls = function("mov r1, 5\ncall 200000\nexit", helpers={200000: lambda r1, *_: r1 + 1_000_000})
    fails = function(LOAD_POINTERS + "ldxb r0, [r8]\nexit")
    packet, changeable = bytes(FRAME), bytearray(FRAME)

    def cycle() -> None:
        for each in (packet, changeable):
            assert calls(each) == 1_000_005
            with pytest.raises(MemoryFault):
                fails(each)

    for _ in range(50):
        cycle()
    gc.collect()
    before = [sys.getrefcount(each) for each in (packet, changeable, calls, fails)]
    tracemalloc.start()
    try:
        start = tracemalloc.get_traced_memory()[0]
        for _ in range(300):
            cycle()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - start
    finally:
        tracemalloc.stop()
    assert [sys.getrefcount(each) for each in (packet, changeable, calls, fails)] == before
    assert grown < 50_000
    changeable.append(1)  # nobody holds it


MAC = bytes.fromhex("020000000001")
FRAMES = {
    "zeros": bytes(14),
    "15 bytes": bytes(range(15)),
    "16 bytes, 802.3": bytes(12) + b"\x00\x02\xff\xff",
    "802.2": bytes(12) + b"\x05\xff\xff\xfe" + bytes(40),
    "just a type": MAC + MAC + b"\x06\x00" + bytes(46),
    "to itself": bytes(6) + MAC + b"\x08\x00" + bytes(range(100)),
    "ipv4": MAC + MAC + b"\x08\x00" + bytes(range(1, 61)),
    "ipv4, cut": MAC + MAC + b"\x08\x00" + bytes(range(1, 20)),
    "ipv4, header only": MAC + MAC + b"\x08\x00" + bytes(range(1, 21)),
    "ipv6": b"\x33" + MAC + MAC[1:] + b"\x86\xdd" + bytes(range(1, 61)),
    "ipv6, cut": MAC + MAC + b"\x86\xdd" + bytes(range(1, 40)),
    "ipv6, header only": MAC + MAC + b"\x86\xdd" + bytes(range(1, 41)),
    "broadcast": b"\xff" * 6 + MAC + b"\x08\x06" + bytes(46),
    "long": MAC + MAC + b"\x81\x00" + bytes(1500),
}
ADDRESSES = {"data": 76, "data_end": 80, "data_meta": 140, "sk": 168}


@pytest.mark.parametrize("type_", ["tc", "socket_filter", "cgroup_skb", "lwt_xmit", "lwt_in"])
def test_the_struct_of_a_socket_buffer_is_that_of_run(type_: str) -> None:
    """Each word of __sk_buff and of its bpf_sock, and the packet; addresses by what is there."""
    texts = [f"ldxw r0, [r1+{at}]\nexit" for at in range(0, 192, 4) if at & ~7 not in (72, 80, 136, 168)]
    texts += [f"ldxw r0, [r1+{at}]\nexit" for at in (72, 84, 136)]
    texts += [f"ldxdw r1, [r1+{ADDRESSES['sk']}]\nldxw r0, [r1+{at}]\nexit" for at in range(0, 80, 4)]
    data, end, meta = (ADDRESSES[name] for name in ("data", "data_end", "data_meta"))
    texts.append(f"ldxw r0, [r1+{data}]\nldxw r1, [r1+{meta}]\nsub r0, r1\nexit")
    texts.append(f"ldxw r0, [r1+{end}]\nldxw r1, [r1+{data}]\nsub r0, r1\nexit")
    if type_ in ("tc", "cgroup_skb", "lwt_xmit", "lwt_in"):
        texts.append(
            f"ldxw r2, [r1+{data}]\nldxb r0, [r2]\nldxw r2, [r1+{end}]\nldxb r1, [r2-1]\n"
            "lsh r1, 8\nor r0, r1\nexit"
        )
    else:
        texts += [
            "mov r6, r1\nldabsb 1\nexit",
            "mov r6, r1\nldabsh -0x200000\nexit",
            "mov r6, r1\nldabsh -0xffffc\nexit",
        ]
    for text in texts:
        wanted_of, found_of = program(text, type=type_), program(text, type=type_).compile()
        assert inside(found_of).gate is not None
        for name, frame in FRAMES.items():
            try:
                wanted: int | str = wanted_of.run(frame, engine="interpreter").return_value
            except MemoryFault:
                wanted = "fault"
            try:
                found: int | str = found_of(frame)
            except MemoryFault:
                found = "fault"
            assert (text, name, found) == (text, name, wanted)


def test_numbers_that_translators_state_again_are_those_of_the_contexts() -> None:
    """Translators know nothing of the runtime, so the numbers of frames stand there as well."""
    numbers = [name for name in vars(lanes) if name.startswith(("ETH_P_", "AF_", "PACKET_", "SMALLEST_"))]
    assert len(numbers) == 9
    assert [getattr(lanes, name) for name in numbers] == [getattr(skb, name) for name in numbers]
    assert lanes.SMALLEST == LINK_HEADER_SIZE


def test_what_a_program_writes_into_its_struct_is_gone_in_the_next_run() -> None:
    text = "ldxw r0, [r1+8]\nldxw r2, [r1+48]\nor r0, r2\nstw [r1+8], 5\nstw [r1+48], 6\nexit"
    marks = program(text, type="tc").compile()
    assert [marks(FRAME), marks(FRAME), *marks.map([FRAME] * 2)] == [0] * 4
    with pytest.raises(MemoryFault):
        program("stw [r1+0], 5\nexit", type="tc").compile()(FRAME)
    with pytest.raises(MemoryFault):
        program("ldxw r1, [r1+76]\nstb [r1], 5\nexit", type="cgroup_skb").compile()(FRAME)


def test_helpers_find_the_struct_as_the_program_left_it() -> None:
    load = NUMBERS["bpf_skb_load_bytes"]
    text = (
        "mov r6, r1\nstw [r6+8], 0x55\nstdw [r10-8], 0\nmov r2, 3\nmov r3, r10\nadd r3, -8\nmov r4, 4\n"
        f"call {load}\nldxw r0, [r10-8]\nldxw r1, [r6+8]\nadd r0, r1\nexit"
    )
    loads = program(text, type="tc").compile()
    expected = int.from_bytes(FRAME[3:7], "little") + 0x55
    assert loads(FRAME) == program(text, type="tc").run(FRAME).return_value == expected
    assert list(loads.map([FRAME, FRAME])) == [expected] * 2
    grow = NUMBERS["bpf_skb_change_tail"]
    text = f"mov r6, r1\nmov r2, 100\nmov r3, 0\ncall {grow}\nldxw r0, [r6+0]\nexit"
    grows = program(text, type="tc").compile()
    assert [grows(FRAME), grows(FRAME), *grows.map([FRAME])] == [100] * 3


def test_other_programs_have_no_lane_and_work() -> None:
    plain = program("ldxw r0, [r1+0]\nexit", type="sock_ops").compile()
    assert inside(plain).gate is None
    assert plain(FRAME) == 0x03020100


def test_programs_without_the_lock_have_lanes_that_those_with_it_do_not_wait_for() -> None:
    locked, unlocked = (program(LENGTH_AND_LAST).compile(release_gil=release) for release in (False, True))
    lanes_of = [[each.lane for each in inside(one).gate.chain] for one in (locked, unlocked)]
    assert [len(each) for each in lanes_of] == [1, UNLOCKED_LANES]
    assert len({id(lane) for each in lanes_of for lane in each}) == 1 + UNLOCKED_LANES
    for taken in range(UNLOCKED_LANES + 1):  # the last time none is free
        assert unlocked(FRAME) == 60 << 8 | 59
        assert list(unlocked.map([FRAME, FRAME[:20]])) == [60 << 8 | 59, 20 << 8 | 19]
        assert all(lane.word("busy") == (index < taken) for index, lane in enumerate(lanes_of[1]))
        if taken < UNLOCKED_LANES:
            assert lanes_of[1][taken].take()
    for lane in lanes_of[1]:
        lane.give_back()
