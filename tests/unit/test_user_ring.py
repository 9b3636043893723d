"""User ring buffers: what Python submits and programs drain, on every engine."""

from __future__ import annotations

import errno
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ebpfjit import MapError, MapRefused, MemoryFault, Object, kernel, load
from ebpfjit.assembler import assemble
from ebpfjit.program import Program
from ebpfjit.runtime.maps import MapDefinition, MapFlag, MapType, create

OBJECT = Path(__file__).parents[1] / "elf" / "user_ring.o"
FRAME = bytes(64)
ENGINES = [
    "interpreter",
    "jit",
    pytest.param(
        "kernel",
        marks=pytest.mark.skipif(
            kernel.unavailable_reason() is not None, reason=str(kernel.unavailable_reason())
        ),
    ),
]
engines = pytest.mark.parametrize("engine", ENGINES)
SIZE = 4096


def ring(size: int = SIZE) -> Any:
    return create(MapDefinition("ring", MapType.USER_RINGBUF, 0, 0, size))


def run(obj: Object, name: str, engine: str) -> int:
    value = obj.programs[name].run(FRAME, engine=engine).return_value
    return value - (1 << 32) if value >> 31 else value


def number(value: int) -> bytes:
    return struct.pack("<Q", value)


@pytest.fixture
def obj() -> Object:
    return load(OBJECT)


@engines
def test_samples_come_in_order_and_dropped_ones_do_not(obj: Object, engine: str) -> None:
    m = obj.maps["ring"]
    assert run(obj, "drains", engine) == 0
    m.submit(number(1))
    m.reserve(24).discard()
    m.submit(b"abc")  # too short for what the program reads
    late = m.reserve(8)
    m.submit(number(100))
    assert m.pending() == [number(1), b"abc"]
    assert run(obj, "drains", engine) == 2
    assert (obj.globals["sum"], obj.globals["calls"]) == (1001, 2)
    assert run(obj, "drains", engine) == 0  # the next one is still written
    late.data[:] = number(10)
    late.submit()
    assert run(obj, "drains", engine) == 2
    assert (obj.globals["sum"], obj.globals["calls"], len(m)) == (110, 2, 0)
    with pytest.raises(ValueError, match="was submitted before"):
        late.discard()


@engines
def test_a_function_that_returns_1_is_the_last_one_called(obj: Object, engine: str) -> None:
    m = obj.maps["ring"]
    for value in range(5):
        m.submit(number(value))
    obj.globals["stop_at"] = 2
    assert run(obj, "drains", engine) == 2
    assert m.pending() == [number(2), number(3), number(4)]


@engines
@pytest.mark.parametrize(
    ("flags", "result"), [(1, 1), (2, 1), (3, 1), (4, -errno.EINVAL), (1 << 32, -errno.EINVAL)]
)
def test_flags(obj: Object, engine: str, flags: int, result: int) -> None:
    obj.maps["ring"].submit(number(1))
    obj.globals["flags"] = flags
    assert run(obj, "drains", engine) == result
    assert len(obj.maps["ring"]) == (result < 0)


@engines
def test_samples_are_written_in_place(obj: Object, engine: str) -> None:
    m = obj.maps["ring"]
    m.submit(number(4))
    m.submit(b"")
    assert run(obj, "drains_in_place", engine) == 2
    assert obj.globals["sum"] == 4 + 5


@engines
def test_who_drains_already_is_busy(obj: Object, engine: str) -> None:
    obj.maps["ring"].submit(number(4))
    obj.maps["ring"].submit(number(5))
    assert run(obj, "drains_while_draining", engine) == 2
    assert obj.globals["nested"] == -errno.EBUSY
    assert run(obj, "drains", engine) == 0


DRAIN = """
    lddw r1, map[idx:0]
    lddw r2, function
    mov r3, r10
    add r3, -8
    stdw [r3], 0
    mov r4, 0
    call 209
    ldxdw r0, [r10-8]
    {after}
    exit
function:
    {body}
    mov r0, 0
    exit
"""
DATA = "mov r6, r2\nmov r2, 0\nmov r3, 8\ncall 203\nstxdw [r6], r0"


@pytest.mark.parametrize(
    ("body", "after"),
    [
        (DATA, "ldxdw r0, [r0]"),  # a sample behind its call
        (DATA + "\nldxdw r1, [r0+1]", "mov r0, 0"),  # what is behind a sample
        ("stdw [r1], 0", "mov r0, 0"),  # the dynptr itself
    ],
)
def test_a_sample_is_the_programs_for_one_call(body: str, after: str) -> None:
    faults = []
    for engine in ("interpreter", "jit"):
        m = ring()
        m.submit(number(4))
        m.submit(number(5))
        bare = Program.from_bytes(assemble(DRAIN.format(body=body, after=after)))
        program = _with_map(bare, m)
        with pytest.raises(MemoryFault) as caught:
            program.run(engine=engine)
        faults.append((caught.value.pc, caught.value.size, str(caught.value).split(": ")[0]))
        assert len(m) == (0 if after != "mov r0, 0" else 2)
        with pytest.raises(MemoryFault):
            program.run(engine=engine) if len(m) else _raise(caught.value)  # and nobody is busy
    assert faults[0] == faults[1]


def _raise(error: Exception) -> None:
    raise error


def _with_map(bare: Program, m: Any) -> Program:
    references = {
        insn.pc: m.address for insn in bare.instructions if insn.row and insn.row.operation == "LDDW_MAP_IDX"
    }
    return replace(bare, references=references, maps=(m,))


def test_room_is_that_of_libbpf() -> None:
    m = ring()
    with pytest.raises(MapError) as caught:
        m.submit(bytes(SIZE - 7))
    assert caught.value.errno == errno.E2BIG
    m.submit(bytes(SIZE - 8))
    with pytest.raises(MapError, match="no room") as caught:
        m.submit(b"")
    assert caught.value.errno == errno.ENOSPC
    for huge in (1 << 30, 1 << 31, 1 << 64):
        with pytest.raises(MapError) as caught:
            m.reserve(huge)
        assert caught.value.errno == errno.E2BIG
    with pytest.raises(ValueError, match="-1 bytes"):
        m.reserve(-1)
    assert (m.update(b"", b""), m.delete(b""), m.lookup(b"")) == (-524, -524, 0)


@engines
def test_the_ring_goes_round(obj: Object, engine: str) -> None:
    m = obj.maps["ring"]
    for step in range(3):
        for _ in range(3):
            m.submit(number(step).ljust(1000, b"."))
        assert run(obj, "drains", engine) == 3
        assert obj.globals["sum"] == 3 * step


def test_a_sample_that_no_dynptr_holds() -> None:
    m = ring(1 << 25)
    m.reserve(1 << 24).submit()
    program = _with_map(Program.from_bytes(assemble(DRAIN.format(body="", after="").replace(
        "ldxdw r0, [r10-8]", "mov r0, r0"))), m)  # fmt: skip
    for engine in ("interpreter", "jit"):
        assert program.run(engine=engine).return_value == -errno.E2BIG % (1 << 64)


@pytest.mark.parametrize(
    ("key", "value", "entries", "flags"),
    [(0, 0, 0, 0), (0, 0, 12288, 0), (0, 0, 2048, 0), (4, 0, 4096, 0), (0, 4, 4096, 0), (0, 0, 4096, 1)],
)
def test_what_is_refused(key: int, value: int, entries: int, flags: int) -> None:
    with pytest.raises(MapRefused) as caught:
        create(MapDefinition("ring", MapType.USER_RINGBUF, key, value, entries, flags))
    assert caught.value.errno == errno.EINVAL
    assert create(MapDefinition("ring", MapType.USER_RINGBUF, 0, 0, 8192, MapFlag.NUMA_NODE))
