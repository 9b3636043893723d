"""Memory that is allowed in the middle of a run counts at once, and what is taken away is gone at once.

On both engines, on every way in, for all runs of the machine that are in progress. What was allowed stays in
place and alive for as long as a run could touch it.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import random
import struct
import threading
from collections.abc import Callable
from typing import Any

import pytest

from ebpfjit import EbpfVmFixedMbuff, EbpfVmMbuff, EbpfVmNoData, EbpfVmRaw, address_of
from ebpfjit.assembler import assemble
from ebpfjit.errors import MemoryFault
from ebpfjit.jit.gate import why_not
from ebpfjit.program import Program
from ebpfjit.runtime import memory
from ebpfjit.runtime.maps.creation import create
from ebpfjit.runtime.maps.definition import MapDefinition, MapType
from ebpfjit.runtime.memory import Region
from ebpfjit.runtime.shared import HEADER_SIZE, ROW_SIZE, SharedRegions
from ebpfjit.translators.block import REGION_SIZE, TABLE

PACKET = bytes(12) + b"\x08\x00" + bytes(50)


@pytest.fixture(params=["native", "ctypes"])
def gate(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Calls through the native gate, and without it."""
    if request.param == "ctypes":
        monkeypatch.setitem(why_not._made, (), "turned off for a test")
    elif why_not():
        pytest.skip(why_not())
    return str(request.param)


OPTIONS = ({}, {"optimize": False}, {"release_gil": True}, {"harden": True})


def machines(code: bytes, **options: Any) -> list[tuple[Any, tuple[Any, ...]]]:
    """Return every kind of machine with this program, and what it is called with."""
    return [
        (EbpfVmNoData(code, **options), ()),
        (EbpfVmRaw(code, **options), (bytearray(8),)),
        (EbpfVmMbuff(code, **options), (bytearray(8), bytearray(8))),
        (EbpfVmFixedMbuff(code, 0, 8, **options), (bytearray(8),)),
    ]


def both(machine: Any, arguments: tuple[Any, ...]) -> list[Any]:
    """Return what each engine makes of a program: its result, or its fault."""
    machine.jit_compile()
    outcomes = []
    for run in (machine.execute_program, machine.execute_program_jit):
        try:
            outcomes.append(run(*arguments))
        except MemoryFault as fault:
            outcomes.append((fault.pc, fault.size, fault.access))
    return outcomes


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_helper_that_allocates(gate: str, options: dict[str, Any]) -> None:
    code = assemble("call 1\nldxb r6, [r0]\nstb [r0+3], 9\nldxb r0, [r0+3]\nadd r0, r6\nexit")
    for machine, arguments in machines(code, **options):

        def allocate(*_: int, machine: Any = machine) -> int:
            made = bytearray(b"\7\0\0\0")
            machine.register_allowed_memory(made)
            return address_of(made)

        machine.register_helper(1, allocate)
        for _ in range(3):
            assert both(machine, arguments) == [16, 16]
            gc.collect()  # the machine alone holds the memory


def test_read_only_memory_is_not_written(gate: str) -> None:
    for text, outcome in (("ldxb r0, [r0]", 7), ("stb [r0], 1", (1, 1, "store"))):
        machine = EbpfVmNoData(assemble(f"call 1\n{text}\nexit"))

        def allocate(*_: int, machine: Any = machine) -> int:
            made = bytes([7, 1, 2, 3])
            machine.register_allowed_memory(made)
            return address_of(made)

        machine.register_helper(1, allocate)
        assert both(machine, ()) == [outcome] * 2


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_many_in_one_run(gate: str, options: dict[str, Any]) -> None:
    """More than any table holds at first: all of them are there, and the bytes behind each are not."""
    text = """
        mov r6, 0
        mov r7, 0
        again:
        mov r1, r6
        call 1
        ldxb r1, [r0]
        add r7, r1
        add r6, 1
        jlt r6, 300, again
        mov r6, 0
        more:
        mov r1, r6
        call 2
        ldxb r1, [r0+7]
        add r7, r1
        add r6, 1
        jlt r6, 300, more
        mov r0, r7
        exit
    """
    for machine, arguments in machines(assemble(text), **options)[:2]:
        blocks: list[bytearray] = []

        def allocate(index: int, *_: int, machine: Any = machine, blocks: Any = blocks) -> int:
            blocks.append(bytearray([1, 0, 0, 0, 0, 0, 0, 2]))
            machine.register_allowed_memory(blocks[-1])
            return address_of(blocks[-1])

        def find(index: int, *_: int, blocks: Any = blocks) -> int:
            return address_of(blocks[-300 + index])

        machine.register_helper(1, allocate)
        machine.register_helper(2, find)
        assert both(machine, arguments) == [900, 900]


def test_the_same_memory_again_costs_nothing() -> None:
    machine, made = EbpfVmNoData(assemble("mov r0, 0\nexit")), bytearray(8)
    for _ in range(1000):
        machine.register_allowed_memory(made)
    assert len(machine._allowed) == 1


SPIN = """
    wait:
    ldxdw r3, [r1]
    jeq r3, 0, wait
    ldxdw r4, [r1+8]
    ldxb r0, [r4]
    exit
"""


@pytest.mark.parametrize("count", [1, 100])
@pytest.mark.parametrize("engine", ["execute_program", "execute_program_jit"])
def test_a_run_in_another_thread(gate: str, engine: str, count: int) -> None:
    """It calls nothing, and where machine code has let go of the lock nobody could tell it anything."""
    options = {"release_gil": True} if engine == "execute_program_jit" else {}
    machine = EbpfVmRaw(assemble(SPIN), instruction_limit=1 << 34, **options)
    machine.jit_compile()
    shared = bytearray(16)
    results: list[Any] = []
    run: Callable[[bytearray], int] = getattr(machine, engine)

    def job() -> None:
        try:
            results.append(run(shared))
        except Exception as error:
            results.append(error)
            raise

    thread = threading.Thread(target=job)
    thread.start()
    for _ in range(count):
        made = bytearray(b"\x2a")
        machine.register_allowed_memory(made)
    shared[8:] = address_of(made).to_bytes(8, "little")
    shared[0] = 1
    thread.join(60)
    assert results == [42]


def test_all_runs_of_a_machine_that_are_in_progress(gate: str) -> None:
    """The inner run of a helper allows memory: the outer one, of the same machine, may touch it too."""
    code = assemble("call 1\nldxb r0, [r0]\nexit")
    for engine, inner in itertools.product(("execute_program", "execute_program_jit"), repeat=2):
        machine = EbpfVmNoData(code)
        depth: list[int] = []

        def allocate(*_: int, machine: Any = machine, depth: list[int] = depth, inner: str = inner) -> int:
            depth.append(0)
            if len(depth) < 3:
                assert getattr(machine, inner)() == 5
            made = bytearray(b"\5")
            if len(depth) < 4:
                machine.register_allowed_memory(made)
                machine.made = made
            return address_of(machine.made)

        machine.register_helper(1, allocate)
        machine.jit_compile()
        assert getattr(machine, engine)() == 5


def test_what_is_allowed_stays_in_place(gate: str) -> None:
    machine = EbpfVmRaw(assemble("call 1\nldxb r0, [r0]\nexit"))
    made = bytearray(b"\7")

    def allocate(*_: int) -> int:
        machine.register_allowed_memory(made)
        with pytest.raises(BufferError):
            made.extend(bytes(1 << 20))
        return address_of(made)

    machine.register_helper(1, allocate)
    assert both(machine, (b"",)) == [7, 7]
    with pytest.raises(BufferError):
        made.clear()


# -- granted to one run, and taken away ---------------------------------------------------------------------

GRANT_AND_REVOKE = """
    mov r6, r1
    call 1
    mov r7, r0
    ldxb r8, [r7]
    stb [r7+1], 1
    {call}
    ldxb r0, [r7]
    add r0, r8
    exit
"""


def granting(name: str = "call 2") -> tuple[bytes, dict[int, Any]]:
    """Return a program that reads memory before and after a helper took it away, and its helpers."""
    held: list[Any] = []

    def allocate(*_: int) -> int:
        held.append(bytearray(b"\7\0"))
        held.append(memory.grant(held[-1]))
        return address_of(held[-2])

    def take_away(*_: int) -> int:
        memory.revoke(held[-1])
        return 0

    return assemble(GRANT_AND_REVOKE.format(call=name)), {1: allocate, 2: take_away, 3: lambda *_: 0}


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_machine_sees_at_once_what_was_taken_away(gate: str, options: dict[str, Any]) -> None:
    for call, outcome in (("call 2", (6, 1, "load")), ("call 3", 14)):
        code, helpers = granting(call)
        for machine, arguments in machines(code, **options):
            for number, function in helpers.items():
                machine.register_helper(number, function)
            assert both(machine, arguments) == [outcome] * 2


def test_a_kfunc_takes_away_as_well(gate: str) -> None:
    code, helpers = granting("call 2")
    at = next(pc for pc in range(0, len(code), 8) if code[pc] == 0x85 and code[pc + 4] == 2)
    code = code[: at + 1] + bytes([0x20]) + code[at + 2 :]  # src_reg 2: a kfunc
    machine = EbpfVmNoData(code)
    machine.register_helper(1, helpers[1])
    machine.register_kfunc(2, helpers[2])
    assert both(machine, ()) == [(6, 1, "load")] * 2


@pytest.mark.parametrize("maps", [False, True])
@pytest.mark.parametrize("type_", [None, "xdp", "tc", "kprobe"])
@pytest.mark.parametrize("options", [*OPTIONS[:3]], ids=str)
def test_a_function_sees_at_once_what_was_taken_away(
    gate: str, options: dict[str, Any], type_: str | None, maps: bool
) -> None:
    made = (create(MapDefinition("table", MapType.ARRAY, 4, 4, 1)),) if maps else ()
    for call, fails in (("call 2", True), ("call 3", False)):
        code, helpers = granting(call)
        fn = Program(code, type=type_, maps=made).compile(helpers=helpers, **options)
        for run in (fn, fn.call, lambda data, fn=fn: fn.map([data, data])[1]):
            if fails:
                with pytest.raises(MemoryFault) as fault:
                    run(PACKET)
                assert (fault.value.pc, fault.value.access) == (6, "load")
            else:
                assert run(PACKET) == 14


@pytest.mark.parametrize("type_", [None, "tc"])
def test_a_grant_ends_with_its_run(gate: str, type_: str | None) -> None:
    """The next packet of a batch does not find what the one before was granted."""
    held: list[Any] = []

    def allocate(*_: int) -> int:
        if not held:
            held.append(bytearray(b"\7"))
            memory.grant(held[0])
        return address_of(held[0])

    fn = Program(assemble("call 1\nldxb r0, [r0]\nexit"), type=type_).compile(helpers={1: allocate})
    with pytest.raises(MemoryFault) as fault:
        fn.map([PACKET, PACKET])
    assert fault.value.index == 1
    held.clear()
    assert list(fn.map([PACKET, PACKET], on_fault=99)) == [7, 99]


# -- maps ---------------------------------------------------------------------------------------------------

INNER = MapDefinition("inner", MapType.ARRAY, 4, 8, 1)
LOAD_MAP = struct.pack("<BBhiBBhi", 0x18, 5 << 4 | 1, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_a_map_that_came_into_another_meanwhile(engine: str) -> None:
    """Its values are the program's, as soon as it is found; one that was taken out stays for the run."""
    outer: Any = create(MapDefinition("outer", MapType.ARRAY_OF_MAPS, 4, 4, 1, inner=INNER))
    look_up = """
        mov r2, r10
        add r2, -4
        stw [r10-4], 0
        call 1
        jeq r0, 0, none
        mov r1, r0
        mov r2, r10
        add r2, -4
        call 1
        mov r7, r0
        {then}
        ldxdw r0, [r7]
        add r0, 1
        stxdw [r7], r0
        exit
        none:
        mov r0, 99
        exit
    """
    code = assemble("call 5") + LOAD_MAP + assemble(look_up.format(then="call 6"))
    program = Program(code, maps=(outer,), references={1: outer.address})
    kept: list[Any] = []

    def put_in(*_: int) -> int:
        inner: Any = create(INNER)
        inner[0] = 41
        kept[:] = [inner]
        outer[0] = inner
        return 0

    def take_out(*_: int) -> int:
        outer[0] = None
        kept.clear()
        gc.collect()
        return 0

    if engine == "jit":
        assert program.compile(helpers={5: put_in, 6: take_out})(PACKET) == 42
        assert program.compile(helpers={5: put_in, 6: lambda *_: 0}, optimize=False)(PACKET) == 42
    else:
        from dataclasses import replace

        from ebpfjit.ready import environment_of, ready
        from ebpfjit.runner import ENGINES, Run

        start = ready(program)
        start = replace(start, helpers={**start.helpers, 5: put_in, 6: take_out}, complete=True)
        made = Region.of_buffer("mem", bytearray(PACKET))
        assert Run(ENGINES["interpreter"], environment_of(program), made).execute(start, None) == 42


def test_a_machine_runs_programs_on_maps(gate: str) -> None:
    """Analysis takes their values for the program's, and so they are, for both engines."""
    table: Any = create(MapDefinition("table", MapType.ARRAY, 4, 8, 1))
    load = struct.pack("<BBhiBBhi", 0x18, 6 << 4 | 1, 0, 0, 0, 0, 0, 0)
    code = load + assemble("ldxdw r0, [r1]\nadd r0, 1\nstxdw [r1], r0\nexit")
    program = Program(code, maps=(table,), references={0: table.value_address})
    for options in OPTIONS:
        table[0] = 5
        assert both(EbpfVmNoData(program, **options), ()) == [6, 7]
    machine = EbpfVmNoData(program)
    other = bytearray(8)
    machine.register_allowed_memory(other)
    assert both(machine, ()) == [8, 9]


# -- the chain of tables ------------------------------------------------------------------------------------


def rows(address: int) -> list[tuple[int, int, int]]:
    """Return the rows of a chain of tables, as machine code reads them."""
    found = []
    while address:
        first, behind, following = (ctypes.c_uint64 * 3).from_address(address)
        for at in range(first, behind, ROW_SIZE):
            start, stop, writable = (ctypes.c_uint64 * 3).from_address(at)
            found.append((start, stop, writable))
        address = following
    return found


def test_tables_are_laid_out_as_machine_code_reads_them() -> None:
    assert (TABLE, REGION_SIZE) == ({"first": 0, "behind": 8, "next": 16}, ROW_SIZE)
    assert HEADER_SIZE == 24


def test_chains_hold_what_was_added_in_order() -> None:
    rng = random.Random(1)
    last = SharedRegions()
    first = SharedRegions([Region.of_buffer("a", bytearray(3))], last)
    address = first.address
    for _ in range(500):
        rng.choice((first, last)).add(Region.of_buffer("more", bytearray(rng.choice((1, 8)))))
        regions = [(region.start, region.stop, int(region.writable)) for region in first]
        assert rows(address) == regions
        assert len(first) == len(regions)
    assert first.address == address


def test_threads_add_without_loss() -> None:
    shared = SharedRegions()
    buffers = [bytearray(8) for _ in range(400)]

    def job(mine: list[bytearray]) -> None:
        for buffer in mine:
            shared.add(Region.of_buffer("mine", buffer))

    threads = [threading.Thread(target=job, args=(buffers[index::4],)) for index in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(row[0] for row in rows(shared.address)) == sorted(map(address_of, buffers))
