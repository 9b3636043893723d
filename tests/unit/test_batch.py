"""Batches: fn.map over sequences, places and records."""

from __future__ import annotations

import array
import ctypes
import gc
import itertools
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from ebpfjit import BudgetExhausted, JitFunction, MemoryFault, Program
from ebpfjit.assembler import assemble
from ebpfjit.runtime import memory

CHECKOUT = Path(__file__).resolve().parents[2]
U64 = 2**64
FIRST_BYTE = "ldxb r0, [r1]\nexit"
LENGTH = "mov r0, r2\nexit"
SIZE_AND_FIRST = "mov r0, r2\njeq r2, 0, out\nldxb r0, [r1]\nlsh r2, 8\nor r0, r2\nout: exit"
BOTH = [False, True]


def compiled(text: str, **options: Any) -> JitFunction:
    return Program.from_bytes(assemble(text)).compile(**options)


def words(results: array.array[int]) -> list[int]:
    assert isinstance(results, array.array)
    assert results.typecode == "Q"
    assert memoryview(results).format == "Q"
    return list(results)


@pytest.mark.parametrize("release_gil", BOTH)
def test_a_sequence_of_buffers(release_gil: bool) -> None:
    packets = [
        b"a",
        bytearray(b"b"),
        memoryview(b"cd"),
        array.array("H", [0x6465]),
        (ctypes.c_uint8 * 1)(102),
    ]
    first = compiled(FIRST_BYTE, release_gil=release_gil)
    for sequence in (
        packets,
        tuple(packets),
        iter(packets),
        dict.fromkeys(range(5)).__class__(enumerate(packets)).values(),
    ):
        assert words(first.map(sequence)) == [ord("a"), ord("b"), ord("c"), 0x65, 102]
    assert words(compiled(LENGTH, release_gil=release_gil).map(packets)) == [1, 1, 2, 2, 1]
    assert words(first.map([])) == []
    many = [bytes([n % 251]) for n in range(10_000)]
    assert words(first.map(many)) == [n % 251 for n in range(10_000)]
    packets[1].append(1)  # type: ignore[union-attr] # nothing is exported any more
    packets[3].append(1)  # type: ignore[union-attr]


@pytest.mark.parametrize("release_gil", BOTH)
def test_records_of_one_size(release_gil: bool) -> None:
    function = compiled("ldxb r0, [r1+1]\nstb [r1], 0\nadd r0, r2\nexit", release_gil=release_gil)
    data = bytearray(range(24))
    assert words(function.map(data, stride=4)) == [n + 5 for n in range(0, 24, 4)]
    assert data[::4] == bytes(6)
    assert words(function.map(bytearray(), stride=4)) == []
    assert words(compiled(FIRST_BYTE).map(array.array("I", [7, 8]), stride=4)) == [7, 8]


INTEGERS = [array.array(code) for code in "bBhHiIlLqQ"]


@pytest.mark.parametrize("integers", INTEGERS, ids=lambda a: a.typecode)
@pytest.mark.parametrize("release_gil", BOTH)
def test_places_in_a_buffer(integers: array.array[int], release_gil: bool) -> None:
    code = integers.typecode
    data = bytes(range(100))
    offsets, lengths = [0, 90, 5, 5, 99], [3, 10, 0, 95, 1]
    starts, sizes = array.array(code, offsets), array.array(code, lengths)
    at = compiled(SIZE_AND_FIRST, release_gil=release_gil)
    wanted = [size << 8 | start if size else 0 for start, size in zip(offsets, lengths, strict=True)]
    assert words(at.map(data, offsets=starts, lengths=sizes)) == wanted
    assert words(at.map(data, offsets=offsets, lengths=lengths)) == wanted
    assert words(at.map(data, offsets=starts, lengths=array.array("q", lengths))) == wanted
    assert (
        words(at.map(data, offsets=memoryview(starts)[::-1], lengths=memoryview(sizes)[::-1])) == wanted[::-1]
    )
    arrow = array.array(code, [0, 10, 10, 50, 100])
    assert words(at.map(data, offsets=arrow)) == [10 << 8, 0, 40 << 8 | 10, 50 << 8 | 50]
    assert words(at.map(data, offsets=array.array(code, [3]))) == []
    assert words(at.map(data, offsets=array.array(code), lengths=array.array(code))) == []


@pytest.mark.parametrize("code", "bhiqIQ")
@pytest.mark.parametrize(
    ("start", "size"),
    [(0, 101), (100, 1), (101, 0), (-1, 1), (5, -1), (-1, 0), (1 << 62, 1 << 62), (2**31 - 1, 1)],
)
def test_places_outside_of_the_buffer(code: str, start: int, size: int) -> None:
    ran = []
    function = compiled("call 1\nexit", helpers={1: lambda *arguments: ran.append(1) or 0})
    try:
        offsets, lengths = array.array(code, [0, 0, start, 0]), array.array(code, [1, 1, size, 1])
    except OverflowError:
        return
    with pytest.raises(
        ValueError, match=f"packet 2: {size} bytes at offset {start} are not inside the buffer"
    ):
        function.map(bytes(100), offsets=offsets, lengths=lengths)
    assert ran == []


def test_offsets_that_go_backwards() -> None:
    with pytest.raises(ValueError, match="packet 1: -1 bytes at offset 6"):
        compiled(FIRST_BYTE).map(bytes(10), offsets=array.array("i", [0, 6, 5]))


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "words_of_it"),
    [
        ((b"abc",), {"stride": 2}, ValueError, "3 bytes are not a whole number of records of 2 bytes"),
        ((b"abc",), {"stride": 0}, ValueError, "positive number"),
        ((b"abc",), {"stride": -3}, ValueError, "positive number"),
        ((b"abc",), {"stride": "3"}, TypeError, "stride is a number of bytes"),
        ((b"abc",), {"stride": 1, "offsets": [0]}, TypeError, "a stride or offsets, not both"),
        ((b"abc",), {"lengths": [0]}, TypeError, "lengths go with offsets"),
        ((b"abc",), {"offsets": [0, 1], "lengths": [0]}, ValueError, "2 offsets and 1 lengths"),
        ((b"abc",), {"offsets": []}, ValueError, "at least one"),
        ((b"abc",), {"offsets": array.array("d", [0.0])}, TypeError, "integers in one dimension"),
        ((b"abc",), {"offsets": [1 << 64, 0]}, ValueError, "offsets are numbers of 64 bits"),
        ((b"abc",), {"offsets": memoryview(bytes(4)).cast("B", (2, 2))}, TypeError, "in one dimension"),
        ((b"abc",), {"offsets": ["a"]}, TypeError, "str"),
        ((b"abc",), {"offsets": 5}, TypeError, "int"),
        ((5,), {"stride": 1}, TypeError, "bytes-like"),
        ((5,), {}, TypeError, "iterable"),
        ((memoryview(b"abcd")[::2],), {"stride": 1}, BufferError, "not C-contiguous"),
        (([b"a"],), {"on_fault": "x"}, TypeError, "on_fault is a number"),
        ((), {}, TypeError, "buffers"),
    ],
)
def test_wrong_arguments(arguments: Any, keywords: Any, error: type[Exception], words_of_it: str) -> None:
    with pytest.raises(error, match=words_of_it):
        compiled(FIRST_BYTE).map(*arguments, **keywords)


@pytest.mark.parametrize("release_gil", BOTH)
def test_a_packet_that_is_no_buffer(release_gil: bool) -> None:
    function = compiled("ldxb r0, [r1]\nexit", release_gil=release_gil)
    packets: list[Any] = [b"a", bytearray(b"b"), None, b"c"]
    for on_fault in (None, 1):  # it is no fault of the program's
        with pytest.raises(TypeError, match="a bytes-like object is required, not 'NoneType'") as caught:
            function.map(packets, on_fault=on_fault)
        assert caught.value.__notes__ == ["packet 2 of the batch"]
    with pytest.raises(BufferError, match="not C-contiguous"):
        function.map([memoryview(b"abcd")[::2]])


@pytest.mark.parametrize("release_gil", BOTH)
def test_the_first_fault_stops_the_batch_and_knows_the_packet(release_gil: bool) -> None:
    function = compiled("stb [r1], 1\nldxb r0, [r1+2]\nexit", release_gil=release_gil)
    packets = [bytearray(3), bytearray(4), bytearray(2), bytearray(3)]
    with pytest.raises(
        MemoryFault, match=r"^packet 2: pc 1: load of 1 byte .* outside mem \(2 bytes\)"
    ) as caught:
        function.map(packets)
    assert (caught.value.index, caught.value.pc, caught.value.size) == (2, 1, 1)
    assert [packet[0] for packet in packets] == [1, 1, 1, 0]
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.index, str(again), again.address) == (2, str(caught.value), caught.value.address)
    del caught  # the frames of its traceback may hold buffers
    gc.collect()
    for packet in packets:
        packet.append(1)
    with pytest.raises(MemoryFault) as caught:
        function.map(bytes(9), stride=3)
    assert caught.value.index == 0
    with pytest.raises(MemoryFault) as caught:
        function.map(bytearray(9), offsets=[0, 3, 6], lengths=[3, 3, 2])
    assert caught.value.index == 2
    far = [bytearray(3)] * 5000 + [bytearray(1)]
    with pytest.raises(MemoryFault, match=r"^packet 5000: ") as caught:
        function.map(far)
    assert caught.value.index == 5000


@pytest.mark.parametrize("release_gil", BOTH)
@pytest.mark.parametrize("value", [0, 7, -1, U64 - 1, U64 + 3])
def test_a_value_in_place_of_faults(value: int, release_gil: bool) -> None:
    function = compiled("ldxb r0, [r1+2]\nexit", release_gil=release_gil)
    packets = [b"abc", b"a", bytearray(b"xyz"), bytearray(), b"", memoryview(b"pqr")]
    wanted = [ord("c"), value % U64, ord("z"), value % U64, value % U64, ord("r")]
    assert words(function.map(packets, on_fault=value)) == wanted
    faults = function.map(b"abcd", offsets=[0, 3, 1], lengths=[3, 1, 3], on_fault=value)
    assert words(faults) == [ord("c"), value % U64, ord("d")]


@pytest.mark.parametrize("release_gil", BOTH)
def test_what_a_helper_raises(release_gil: bool) -> None:
    error = LookupError("no such thing")

    def helper(r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
        if r1 == ord("x"):
            raise error
        return memory.read(r1, 1)[0] if r1 < 5 else r1

    function = compiled("ldxb r1, [r1]\ncall 1\nexit", helpers={1: helper}, release_gil=release_gil)
    for on_fault in (None, 0):
        with pytest.raises(LookupError) as caught:
            function.map([b"a", b"b", b"x", b"c"], on_fault=on_fault)
        assert caught.value is error
    assert error.__notes__ == ["in bpf_map_lookup_elem at pc 1", *["packet 2 of the batch"] * 2]
    with pytest.raises(MemoryFault, match=r"^packet 1: pc 1: load of 1 byte at 0x2"):
        function.map([b"a", b"\x02"])
    assert words(function.map([b"a", b"\x02", b"b"], on_fault=9)) == [ord("a"), 9, ord("b")]


@pytest.mark.parametrize("release_gil", BOTH)
def test_each_packet_is_a_run_of_its_own(release_gil: bool) -> None:
    """Budget, stack, frames and granted memory start anew."""
    granted = bytearray(b"granted")

    def helper(r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
        return memory.grant(granted).start if r1 else address

    address = 0
    grant = "ldxb r1, [r1]\ncall 1\nldxb r0, [r0]\nexit"
    function = compiled(grant, helpers={1: helper}, release_gil=release_gil)
    from ebpfjit import address_of

    address = address_of(granted)
    results = words(function.map([b"\1", b"\0", b"\1", b"\0"], on_fault=0))
    assert results == [ord("g"), 0, ord("g"), 0]
    granted.append(1)
    spin = "ldxb r3, [r1]\nagain: sub r3, 1\njne r3, 0, again\nmov r0, 1\nexit"
    limited = compiled(spin, limit=60, release_gil=release_gil)
    assert words(limited.map([b"\x10", b"\x40", b"\x10"] * 3, on_fault=5)) == [1, 5, 1] * 3
    with pytest.raises(BudgetExhausted) as caught:
        limited.map([b"\x10", b"\x40"])
    assert caught.value.index == 1
    stack = compiled("ldxb r0, [r10-1]\nstb [r10-1], 9\nmov r2, r10\nstxdw [r10-16], r2\nexit")
    assert words(stack.map([b""] * 5)) == [0] * 5
    deep = (
        "ldxb r1, [r1]\nmov r0, 0\ncall f\nexit\nf: add r0, 1\njeq r1, 0, out\nsub r1, 1\ncall f\nout: exit"
    )
    depths = compiled(deep, release_gil=release_gil).map([b"\1", b"\7", b"\6", b"\0"], on_fault=99)
    assert words(depths) == [2, 99, 7, 1]


def test_sizes_that_change_are_checked_anew() -> None:
    store = compiled("ldxdw r0, [r1]\nstdw [r1], 0\nmov r0, 1\nexit")
    packets = [bytearray(8), bytes(8), bytearray(7), bytearray(8), bytes(8), bytearray(8), bytearray(9)]
    assert words(store.map(packets, on_fault=0)) == [1, 0, 0, 1, 0, 1, 1]


def test_a_list_that_changes_meanwhile() -> None:
    packets = [b"a"] * 5000

    def helper(r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
        packets[:] = [b"b"]
        return 0

    function = compiled("ldxb r0, [r1]\ncall 1\nexit", helpers={1: helper})
    with pytest.raises(RuntimeError, match="changed its size"):
        function.map(packets)


@pytest.mark.parametrize("code", "qQiI")
@pytest.mark.parametrize("of_lengths", ["", *"qQiI"])
def test_integers_of_every_kind(code: str, of_lengths: str) -> None:
    """As many packets as are fetched ahead, more and less; the first that is not in the buffer is named."""
    program, data = compiled(SIZE_AND_FIRST), bytes(range(200))
    for count in (0, 1, 7, 8, 9, 30):
        chosen = random.Random(f"{code}{of_lengths}{count}")
        offsets = [chosen.randrange(190) for _ in range(count)]
        sizes = [chosen.randrange(200 - at) for at in offsets]
        if not of_lengths:
            offsets = sorted([*offsets, 200])
            sizes = [after - at for at, after in itertools.pairwise(offsets)]
        starts = array.array(code, offsets)
        lengths = {"lengths": array.array(of_lengths, sizes)} if of_lengths else {}
        wanted = [size << 8 | at if size else 0 for at, size in zip(offsets, sizes, strict=False)]
        assert list(program.map(data, offsets=starts, **lengths)) == wanted
        for place, value in itertools.product(range(count), (201, (1 << 31) - 1, -1)):
            wrong = [*offsets[:place], value, *offsets[place + 1 :]]
            if value == -1 and code in "QI":
                continue
            ends = [at + size for at, size in zip(wrong, sizes, strict=False)] if of_lengths else wrong[1:]
            spans = zip(wrong, ends, strict=False)
            bad = next(number for number, (at, end) in enumerate(spans) if not 0 <= at <= end <= 200)
            with pytest.raises(ValueError, match=rf"^packet {bad}: "):
                program.map(data, offsets=array.array(code, wrong), **lengths)


def test_integers_that_change_meanwhile_are_checked_when_they_are_used() -> None:
    offsets = array.array("q", [0, 1, 2])

    def helper(r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
        offsets[2] = 1 << 40
        return 0

    function = compiled("ldxb r6, [r1]\ncall 1\nmov r0, r6\nexit", helpers={1: helper})
    with pytest.raises(ValueError, match=f"packet 2: 1 bytes at offset {1 << 40} are not inside"):
        function.map(b"abc", offsets=offsets, lengths=[1, 1, 1])


def test_a_batch_inside_of_a_batch() -> None:
    def helper(r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
        packet = memory.read(r1, r2)
        return sum(function.map([packet[1:]] * 2)) + packet[0] if len(packet) > 1 else packet[0]

    function = compiled("call 1\nexit", helpers={1: helper})
    assert words(function.map([b"\1\2\3", b"\5"])) == [1 + 2 * (2 + 2 * 3), 5]


def test_batches_in_threads() -> None:
    function = compiled("ldxb r0, [r1]\nstb [r1], 1\nexit", release_gil=True)
    results: list[Any] = []

    def work(number: int) -> None:
        data = bytearray([number]) * 64 * 500
        for kind in ({"stride": 64}, {"offsets": list(range(0, 64 * 501, 64))}):
            data[:] = bytes([number]) * len(data)
            results.append((number, set(function.map(data, **kind))))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted([(n, {n}) for n in range(6)] * 2)


@pytest.mark.parametrize("release_gil", BOTH)
@pytest.mark.parametrize("kind", ["stride", "objects"])
def test_ctrl_c_stops_a_long_batch(kind: str, release_gil: bool) -> None:
    """Packets that end long before their slice, so many that it takes half an hour."""
    source = f"""
from ebpfjit import Program, assembler
spin = "mov r3, 1000000\\nagain: sub r3, 1\\njne r3, 0, again\\nexit"
fn = Program.from_bytes(assembler.assemble(spin)).compile(release_gil={release_gil})
fn.map([])  # nothing is to be imported when the signal comes: CPython forgets that it was handled there
try:
    print("ready", flush=True)
    if {kind == "stride"}:
        fn.map(bytes(1 << 22), stride=1)
    else:
        fn.map([b"a"] * (1 << 22))
except KeyboardInterrupt:
    print("stopped", flush=True)
"""
    child = subprocess.Popen(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, text=True, cwd=CHECKOUT, env=os.environ
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGINT)
    try:
        assert child.stdout.read() == "stopped\n"
        assert child.wait(60) == 0
    finally:
        child.kill()
