"""Helpers that do the most they can for one instruction: runs end within a second, and limits count the work.

A loop that calls one a few hundred thousand times is not at the end of a slice for a minute; a format has
thousands of percent signs, or megabytes of padding that nobody ever sees.
"""

from __future__ import annotations

import threading
import time

import pytest

from ebpfjit import BudgetExhausted, Stopped
from ebpfjit.assembler import assemble
from ebpfjit.program import Program
from ebpfjit.runtime.maps import Map, MapDefinition, MapType, create
from tests.support.pace import within

FRAME = bytes(64)
MANY = 4096
WIDE = 1 << 23


def array(size: int, content: bytes = b"") -> Map:
    made = create(MapDefinition("a", MapType.ARRAY, 4, size, 1))
    made.update(bytes(4), content.ljust(size, b"\0"))
    return made


def endless(call: str, *maps: Map) -> Program:
    """Return a program that makes a call again and again; {0}, {1} in it are the addresses of values."""
    values = [f"map[idx:{index}][0]+0" for index in range(len(maps))]
    bare = Program.from_bytes(assemble("loop:\n" + call.format(*values) + "\nja loop"))
    references = {
        insn.pc: maps[insn.imm].regions[0].start
        for insn in bare.instructions
        if insn.row is not None and insn.row.operation == "LDDW_MAP_IDX_VALUE"
    }
    return Program(bare.to_bytes(), "main", "xdp", "xdp", references=references, maps=maps)


PERCENTS = b"%%" * (MANY // 2 - 1)
PADDING = b"%8388607d" * 11 + b"%!"  # refused at last: nothing of it is ever written
CALLS = {
    "bpf_trace_printk": ("lddw r1, {0}\nmov r2, 4096\ncall 6", PERCENTS, 0),
    "bpf_snprintf": (
        "lddw r1, {1}\nmov r2, 8388607\nlddw r3, {0}\nlddw r4, {1}\nmov r5, 96\ncall 165", PADDING, WIDE,
    ),
    "bpf_csum_diff": (
        "lddw r1, {1}\nlddw r2, 1048576\nmov r3, r1\nmov r4, r2\nmov r5, 0\ncall 28", b"", 1 << 20,
    ),
    "bpf_strncmp": ("lddw r1, {1}\nlddw r2, 1048576\nmov r3, r1\ncall 182", b"", 1 << 20),
}  # fmt: skip


def slow(name: str) -> Program:
    call, content, size = CALLS[name]
    return endless(call, array(MANY, content), array(size or 8))


@pytest.mark.parametrize("name", list(CALLS))
def test_a_loop_of_slow_calls_can_be_stopped(name: str) -> None:
    function = slow(name).compile()
    ended: list[BaseException] = []

    def run() -> None:
        try:
            function(FRAME)
        except Stopped as stopped:
            ended.append(stopped)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    end = time.process_time() + 20  # a run that goes on uses them up
    while not ended and time.process_time() < end:
        function.stop()  # one before the run began does not count for it
        thread.join(0.05)
    assert ended


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
@pytest.mark.parametrize("name", list(CALLS))
def test_a_limit_counts_what_slow_calls_do(name: str, engine: str) -> None:
    program = slow(name)
    program.compile()
    started = time.process_time()
    with pytest.raises(BudgetExhausted):
        program.run(FRAME, engine=engine, limit=20_000)
    assert within(1, time.process_time() - started)


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_a_limit_counts_the_maps_that_a_map_is_searched_in(engine: str) -> None:
    """A map inside of the last of thousands took 2 ms for one instruction."""
    template = MapDefinition("inner", MapType.ARRAY, 4, 8, 1)
    outer = [create(MapDefinition("o", MapType.ARRAY_OF_MAPS, 4, 4, 1, inner=template)) for _ in range(2000)]
    inner = create(template)
    outer[-1][0] = inner  # type: ignore[index] # maps of maps are mappings
    text = "lddw r6, {}\nstdw [r10-8], 0\nloop:\nlddw r1, {}\nmov r2, r10\nadd r2, -8\ncall 1\nja loop"
    bare = assemble(text.format(outer[-1].address, inner.address))
    program = Program(bare, "main", "xdp", "xdp", maps=tuple(outer))
    started = time.process_time()
    with pytest.raises(BudgetExhausted):
        program.run(FRAME, engine=engine, limit=20_000)
    assert within(1.5, time.process_time() - started)
