"""Ring buffers, dynptrs, perf events and stacks: results as Linux', events in order."""

from __future__ import annotations

import errno
import sys
import threading
from dataclasses import dataclass, replace

import pytest

from ebpfjit.errors import ExecutionError, MemoryFault
from ebpfjit.runtime.maps import MapType
from tests.support.helper_runs import HERE, Table, as_linux, needs_kernel, program_with, run

RING = Table(MapType.RINGBUF, entries=4096)
PERF = Table(MapType.PERF_EVENT_ARRAY, 4, 4, 1)

OUTPUT = """
    mov r2, r1
    mov r3, {size}
    mov r4, {flags}
    lddw r1, {{ring}}
    call 130
    exit
"""


@needs_kernel
@pytest.mark.parametrize("size", [1, 7, 8, 4079, 4080, 4087, 4088, 4089])
def test_ringbuf_output_as_linux(size: int) -> None:
    as_linux(OUTPUT.format(size=size, flags=0), bytes(5000), {"ring": RING})


@needs_kernel
@pytest.mark.parametrize("flags", [1, 2, 3, 4, -1])
def test_ringbuf_output_flags_as_linux(flags: int) -> None:
    as_linux(OUTPUT.format(size=8, flags=flags), bytes(8), {"ring": RING})


def test_ringbuf_output() -> None:
    outcome = run(OUTPUT.format(size=5, flags=0), b"hello world", {"ring": RING})
    assert (outcome.value, outcome.events) == (0, [("ring", b"hello")])
    assert outcome.maps["ring"].consume() == [b"hello"]
    refused = run(OUTPUT.format(size=5, flags=8), b"hello world", {"ring": RING})
    assert (refused.signed, refused.events) == (-errno.EINVAL, [])
    fault = run(OUTPUT.format(size=12, flags=0), b"hello world", {"ring": RING})
    assert isinstance(fault.error, MemoryFault)
    assert fault.events == []


# A loop that fills the ring; r0 = how many records went in.
FILL = """
    mov r6, r1
    mov r7, 0
again:
    mov r2, r6
    mov r3, {size}
    mov r4, 0
    lddw r1, {{ring}}
    call 130
    jne r0, 0, full
    add r7, 1
    jlt r7, 600, again
full:
    lddw r1, {{ring}}
    mov r2, {query}
    call 134
    lsh r0, 16
    or r0, r7
    exit
"""


@needs_kernel
@pytest.mark.parametrize("query", range(5))
@pytest.mark.parametrize("size", [1, 8, 9, 100, 2000])
def test_a_ring_fills_up_as_linux(size: int, query: int) -> None:
    as_linux(FILL.format(size=size, query=query), bytes(2000), {"ring": RING})


RESERVE = """
    mov r6, r1
    lddw r1, {ring}
    mov r2, 16
    mov r3, 0
    call 131
    jeq r0, 0, none
    mov r7, r0
    stdw [r7+0], 11
    stdw [r7+8], 12
    lddw r1, {ring}
    mov r2, 8
    mov r3, 0
    call 131
    jeq r0, 0, drop
    stdw [r0+0], 21
    mov r1, r0
    mov r2, 0
    call {second}
    lddw r1, {ring}
    mov r2, 0
    call 134
    stxdw [r6+0], r0
drop:
    mov r1, r7
    mov r2, 0
    call {first}
    mov r0, 1
none:
    exit
"""

SUBMIT, DISCARD = 132, 133


def reserve(first: int, second: int) -> str:
    return RESERVE.replace("{first}", str(first)).replace("{second}", str(second))


@needs_kernel
@pytest.mark.parametrize("first", [SUBMIT, DISCARD])
@pytest.mark.parametrize("second", [SUBMIT, DISCARD])
def test_reserve_as_linux(first: int, second: int) -> None:
    as_linux(reserve(first, second), bytes(8), {"ring": RING})


def test_records_come_out_in_the_order_of_reservation() -> None:
    a, b = (11).to_bytes(8, "little") + (12).to_bytes(8, "little"), (21).to_bytes(8, "little")
    expected = {
        (SUBMIT, SUBMIT): [a, b],
        (SUBMIT, DISCARD): [a],
        (DISCARD, SUBMIT): [b],
        (DISCARD, DISCARD): [],
    }
    for (first, second), records in expected.items():
        outcome = run(reserve(first, second), bytes(8), {"ring": RING})
        assert outcome.events == [("ring", record) for record in records]
        assert outcome.maps["ring"].consume() == records


def test_a_record_that_is_held_holds_back_the_next() -> None:
    text = """
        lddw r1, {ring}
        mov r2, 16
        mov r3, 0
        call 131
        mov r2, r10
        add r2, -8
        mov r3, 8
        mov r4, 0
        lddw r1, {ring}
        call 130
        exit
    """
    outcome = run(text, maps={"ring": RING})
    assert (outcome.value, outcome.events) == (0, [])


@pytest.mark.parametrize("number", [SUBMIT, DISCARD])
def test_only_reserved_records_can_be_given_back(number: int) -> None:
    error = run(f"mov r2, 0\ncall {number}\nexit", bytes(8)).error
    assert isinstance(error, ExecutionError)
    assert "pc 1: bpf_ringbuf_" in str(error)
    assert "no record that bpf_ringbuf_reserve gave" in str(error)


def test_a_reservation_that_does_not_fit_gives_no_record() -> None:
    text = "lddw r1, {ring}\nmov r2, SIZE\nmov r3, FLAGS\ncall 131\nexit"
    for size, flags in ((4096, 0), (8, 1), (-1, 0)):
        asked = text.replace("SIZE", str(size)).replace("FLAGS", str(flags))
        assert run(asked, maps={"ring": RING}).value == 0


# -- dynptrs ---------------------------------------------------------------------------------------

FROM_MEM = """
    mov r6, r1
    mov r2, {size}
    mov r3, {flags}
    mov r4, r10
    add r4, -16
    call 197
    mov r8, r0
    mov r1, r6
    add r1, 64
    mov r2, {length}
    mov r3, r10
    add r3, -16
    mov r4, {offset}
    mov r5, {flags}
    call 201
    lsh r8, 16
    add r8, r0
    mov r1, r10
    add r1, -16
    mov r2, {offset}
    mov r3, r6
    add r3, 72
    mov r4, {length}
    mov r5, {flags}
    call 202
    lsh r8, 16
    add r8, r0
    mov r1, r10
    add r1, -16
    mov r2, {offset}
    mov r3, 4
    call 203
    jeq r0, 0, none
    ldxw r0, [r0+0]
none:
    add r0, r8
    exit
"""


@needs_kernel
@pytest.mark.parametrize(
    ("offset", "length"), [(0, 8), (8, 8), (24, 8), (25, 8), (30, 4), (32, 1), (40, 8), (-1, 8)]
)
@pytest.mark.parametrize("flags", [0, 1])
def test_dynptrs_as_linux(offset: int, length: int, flags: int) -> None:
    text = FROM_MEM.format(size=32, flags=flags, offset=offset, length=length)
    as_linux(text, bytes(range(100, 200)))


def test_a_dynptr_gives_no_more_than_the_program_has() -> None:
    """The program writes the 16 bytes itself: address 0x1000, 64 bytes."""
    text = """
        stdw [r10-16], 0x1000
        stdw [r10-8], 64
        mov r2, 8
        mov r3, r10
        add r3, -16
        mov r4, 0
        mov r5, 0
        call 201
        exit
    """
    error = run(text, bytes(8)).error
    assert isinstance(error, MemoryFault)
    assert (error.pc, error.address) == (7, 0x1000)


RING_DYNPTR = """
    mov r6, r1
    lddw r1, {ring}
    mov r2, {size}
    mov r3, {flags}
    mov r4, r10
    add r4, -16
    call 198
    mov r7, r0
    mov r1, r10
    add r1, -16
    mov r2, 0
    mov r3, r6
    mov r4, 8
    mov r5, 0
    call 202
    mov r8, r0
    mov r1, r10
    add r1, -16
    mov r2, 0
    call {end}
    lsh r7, 16
    or r7, r8
    mov r0, r7
    exit
"""


@needs_kernel
@pytest.mark.parametrize("end", [199, 200])
@pytest.mark.parametrize(("size", "flags"), [(8, 0), (4, 0), (5000, 0), (8, 1), (1 << 24, 0)])
def test_records_as_dynptrs_as_linux(end: int, size: int, flags: int) -> None:
    values = {"{end}": end, "{size}": size, "{flags}": flags}
    text = RING_DYNPTR
    for name, value in values.items():
        text = text.replace(name, str(value))
    outcome = as_linux(text, b"01234567", {"ring": RING})
    written = {8: b"01234567", 4: bytes(4)}
    submitted = not flags and end == 199 and size in written
    assert outcome.events == ([("ring", written[size])] if submitted else [])


# -- perf events and stacks ------------------------------------------------------------------------

PERF_OUTPUT = """
    mov r4, r1
    mov r5, 8
    lddw r2, {perf}
    lddw r3, FLAGS
    call 25
    exit
"""
CURRENT_CPU = 0xFFFFFFFF


def perf(flags: int) -> str:
    return PERF_OUTPUT.replace("FLAGS", hex(flags))


@pytest.mark.parametrize(
    ("flags", "result"),
    [
        (CURRENT_CPU, 0),
        (0, 0),
        (1, -errno.E2BIG),
        (1 << 32, -errno.EINVAL),
        (CURRENT_CPU | 1 << 63, -errno.EINVAL),
    ],
)
def test_perf_event_output(flags: int, result: int) -> None:
    outcome = run(perf(flags), b"8 bytes!", {"perf": PERF})
    assert outcome.signed == result
    assert outcome.events == ([] if result else [("perf", b"8 bytes!")])


@dataclass
class Packet:
    """A context with a packet."""

    content: bytes

    @property
    def size(self) -> int:
        return len(self.content)

    def bytes_at(self, offset: int, size: int) -> bytes:
        return self.content[offset : offset + size]


@pytest.mark.parametrize(
    ("count", "result", "appended"),
    [(0, 0, b""), (3, 0, b"pac"), (6, 0, b"packet"), (7, -errno.EFAULT, None)],
)
def test_perf_events_carry_packet_bytes(count: int, result: int, appended: bytes | None) -> None:
    outcome = run(perf(CURRENT_CPU | count << 32), b"8 bytes!", {"perf": PERF}, context=Packet(b"packet"))
    assert outcome.signed == result
    assert outcome.events == ([] if appended is None else [("perf", b"8 bytes!" + appended)])


def test_there_are_no_counters() -> None:
    text = "lddw r1, {perf}\nmov r2, INDEX\ncall 22\nexit"
    assert run(text.replace("INDEX", "0"), maps={"perf": PERF}).signed == -errno.ENOENT
    assert run(text.replace("INDEX", "1"), maps={"perf": PERF}).signed == -errno.E2BIG
    text = "mov r3, r1\nlddw r1, {perf}\nmov r2, 0\nmov r4, SIZE\ncall 55\nexit"
    outcome = run(text.replace("SIZE", "24"), b"\xee" * 24, {"perf": PERF})
    assert (outcome.signed, outcome.data) == (-errno.ENOENT, bytes(24))
    assert run(text.replace("SIZE", "16"), b"\xee" * 24, {"perf": PERF}).signed == -errno.EINVAL


GET_STACK = "mov r2, r1\nmov r3, {size}\nmov r4, {flags}\ncall 67\nexit"


def test_the_stack_is_the_environments() -> None:
    environment = replace(HERE, stack=(0x10, 0x20, 0x30))
    outcome = run(GET_STACK.format(size=24, flags=1), b"\xee" * 24, environment=environment)
    assert outcome.value == 16
    assert outcome.data == (0x20).to_bytes(8, "little") + (0x30).to_bytes(8, "little") + bytes(8)
    outcome = run(GET_STACK.format(size=24, flags=0), b"\xee" * 24)
    assert (outcome.signed, outcome.data) == (-errno.EFAULT, bytes(24))
    assert run(GET_STACK.format(size=20, flags=0), bytes(24), environment=environment).signed == -errno.EINVAL
    assert run(GET_STACK.format(size=24, flags=1 << 12), bytes(24)).signed == -errno.EINVAL


def test_stacks_are_kept_by_their_ids() -> None:
    table = Table(MapType.STACK_TRACE, 4, 16, 8)
    text = "lddw r2, {stacks}\nmov r3, 0\ncall 27\nexit"
    assert run(text, maps={"stacks": table}).signed == -errno.EFAULT
    outcome = run(text, maps={"stacks": table}, environment=replace(HERE, stack=(1, 2, 3)))
    assert 0 <= outcome.signed < 8
    kept = outcome.maps["stacks"][outcome.signed]
    assert kept == (1).to_bytes(8, "little") + (2).to_bytes(8, "little")


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
@pytest.mark.parametrize(
    ("text", "events"), [(OUTPUT.format(size=8, flags=0), 1), (reserve(DISCARD, DISCARD), 0)]
)
def test_a_result_takes_the_events_so_that_rings_do_not_fill_up(engine: str, text: str, events: int) -> None:
    ring = RING.make("ring", HERE)
    program = replace(program_with(text, {"ring": ring}), maps=(ring,))
    for _ in range(4096 // 16 + 1):
        result = program.run(b"8 bytes!", engine=engine)
        assert len(result.events) == events
        assert result.return_value == (0 if events else 1)
    assert ring.query(0) == 0  # type: ignore[attr-defined]


def test_what_a_compiled_function_sends_waits_in_the_map() -> None:
    ring = RING.make("ring", HERE)
    program = replace(program_with(OUTPUT.format(size=8, flags=0), {"ring": ring}), maps=(ring,))
    function = program.compile()
    assert (function(b"8 bytes!"), function(b"8 BYTES!")) == (0, 0)
    assert ring.consume() == [b"8 bytes!", b"8 BYTES!"]  # type: ignore[attr-defined]


RESERVE_8 = """
    mov r6, r1
    lddw r1, {ring}
    mov r2, 8
    mov r3, 0
    call 131
    jeq r0, 0, full
    ldxdw r1, [r6]
    stxdw [r0], r1
    mov r1, r0
    mov r2, 0
    call 132
full:
    mov r0, 0
    exit
"""
MANY = 2000


@pytest.mark.parametrize("release_gil", [False, True])
@pytest.mark.parametrize("text", [OUTPUT.format(size=8, flags=0), RESERVE_8], ids=["output", "reserve"])
@pytest.mark.parametrize("takes", [False, True], ids=["ring", "events"])
def test_two_threads_send_to_one_ring(text: str, release_gil: bool, takes: bool) -> None:
    """Each record is there once, a thread's in its order; who takes events gets those of its own runs."""
    ring = Table(MapType.RINGBUF, entries=1 << 18).make("ring", HERE)
    program = replace(program_with(text, {"ring": ring}), maps=(ring,))
    function = program.compile(release_gil=release_gil)
    sent = [[n.to_bytes(8, "big") for n in range(k << 32, (k << 32) + MANY)] for k in (0, 1)]
    barrier = threading.Barrier(2)
    taken: list[list[tuple[int, str, bytes]]] = [[], []]

    def work(k: int) -> None:
        barrier.wait()
        for start in range(0, MANY, 100):
            function.map(sent[k][start : start + 100], events=taken[k] if takes else None)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(k,)) for k in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    left = ring.consume()  # type: ignore[attr-defined]
    for k in (0, 1):
        waiting = [record for record in left if record[3] == k]
        mine = [data for _, _, data in taken[k]]
        assert (mine, waiting) == ((sent[k], []) if takes else ([], sent[k]))
