"""Time nobody counts: what a helper or a map does for one instruction is bounded, or paid for.

Keys that meet, chains, prefixes, megabytes, unbounded strings, grants: each program here does the most that
it can for the fewest instructions. Both engines count the same, run out at the same pc with the same words,
and are through in a second or so.
"""

from __future__ import annotations

import errno
import struct
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from ebpfjit import Program
from ebpfjit.assembler import assemble
from ebpfjit.errors import BudgetExhausted, ExecutionError, MemoryFault
from ebpfjit.runtime import memory as program_memory
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.helpers import stock
from ebpfjit.runtime.maps import MapDefinition, MapFlag, MapType, create
from ebpfjit.runtime.maps import hash as hashing
from ebpfjit.runtime.memory import FREE_SIZE, MOST_GRANTS, WORK_SIZE
from ebpfjit.runtime.sockets import Socket
from ebpfjit.runtime.world import MOST_LEFT
from ebpfjit.vm import EbpfVmRaw
from tests.support.arena_programs import STARTS
from tests.support.arena_programs import arena as arena_of_pages
from tests.support.arena_programs import program as on_arena
from tests.support.helper_runs import HERE, Outcome, Table, run, run_on
from tests.support.pace import within

ENGINES = ("interpreter", "jit")
MASK = (1 << 64) - 1


def counted(text: str, data: bytes = b"", maps: Mapping[str, Table] | None = None, **how: Any) -> Outcome:
    """Run on both engines, which must agree also in what is left of the budget."""
    first, second = (run_on(engine, text, data, maps, **how) for engine in ENGINES)
    assert str(first.error).split("outside")[0] == str(second.error).split("outside")[0]
    assert (first.value, first.data, type(first.error)) == (second.value, second.data, type(second.error))
    return first


def least_limit(text: str, data: bytes = b"", maps: Mapping[str, Table] | None = None, **how: Any) -> int:
    """Return how many instructions a program needs, by trying: the same on both engines."""
    low, high = 0, 1 << 30
    while low + 1 < high:
        middle = (low + high) // 2
        error = counted(text, data, maps, limit=middle, **how).error
        assert error is None or isinstance(error, BudgetExhausted)
        low, high = (middle, high) if error is not None else (low, middle)
    return high


# -- hashes -----------------------------------------------------------------------------------------


def spread(keys: list[bytes]) -> int:
    """Return the most keys that a chain of a new map has."""
    made: Any = create(MapDefinition("m", MapType.HASH, len(keys[0]), 8, len(keys)))
    return max(Counter(hashing.hash_of(key, made.secrets) & made.field("mask") for key in keys).values())


INVERSE = pow(hashing.MULTIPLIER, -1, 1 << 64)


def unmixed(number: int) -> bytes:
    """Return the key of 8 bytes that a hash without a secret, of steps that go both ways, makes a number."""
    number ^= number >> 32
    number = number * INVERSE & MASK
    return (number ^ number >> 32).to_bytes(8, "little")


COUNT = 4096
FAMILIES = {
    "taken back": [unmixed(index << 32) for index in range(COUNT)],
    "top bits": [struct.pack("<Q", index << 52) for index in range(COUNT)],
    "top bits, unfolded": [struct.pack("<Q", (index << 48) ^ (index << 16)) for index in range(COUNT)],
    "big-endian": [struct.pack(">Q", index) for index in range(COUNT)],
    "in order": [struct.pack("<I", index) for index in range(COUNT)],
    "steps": [struct.pack("<Q", index << 20) for index in range(COUNT)],
    "a grid": [struct.pack("<II", index & 63, index >> 6) for index in range(COUNT)],
    "bits of long keys": [
        b"".join(struct.pack("<I", (index >> bit & 1) << 31) for bit in range(12)) for index in range(COUNT)
    ],
    "pairs that cancel": [
        b"".join(
            struct.pack("<QQ", *((1 << 63 | 1 << 31, 1 << 63) if index >> bit & 1 else (0, 0)))
            for bit in range(12)
        )
        for index in range(COUNT)
    ],
    "beyond a stack's size": [bytes(600) + struct.pack("<Q", index) for index in range(COUNT)],
}


@pytest.mark.parametrize("keys", FAMILIES.values(), ids=FAMILIES)
def test_nobody_can_choose_keys_that_meet(keys: list[bytes]) -> None:
    assert len(set(keys)) == COUNT
    assert spread(keys) <= 20  # by chance it is 5 to 9


def test_each_map_has_secrets_of_its_own() -> None:
    made: list[Any] = [create(MapDefinition("m", MapType.HASH, 4, 4, 4)) for _ in range(2)]
    assert made[0].secrets != made[1].secrets
    flags = int(MapFlag.ZERO_SEED)
    zero: Any = create(MapDefinition("m", MapType.HASH, 4, 4, 4, flags))
    assert any(zero.secrets)
    with hashing.fixed_secrets(5):
        first: Any = create(MapDefinition("m", MapType.HASH, 4, 4, 4))
    with hashing.fixed_secrets(5):
        second: Any = create(MapDefinition("m", MapType.HASH, 4, 4, 4))
    assert first.secrets == second.secrets != zero.secrets


UPDATE = """
    stxdw [r10-8], r1
    ldxdw r3, [r1+0]
    stxdw [r10-16], r3
    lddw r1, map[idx:0]
    mov r2, r10
    add r2, -16
    mov r3, r10
    add r3, -16
    mov r4, 0
    call 2
    exit
"""


def program_on(text: str, made: Any, **how: Any) -> Program:
    """Return a program that names one map."""
    code = assemble(text)
    references = {
        insn.pc: made.address
        for insn in Program.from_bytes(code).instructions
        if insn.row is not None and insn.row.operation == "LDDW_MAP_IDX"
    }
    return Program(code, references=references, maps=(made,), **how)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", [MapType.HASH, MapType.LRU_HASH, MapType.PERCPU_HASH])
def test_a_chain_is_never_long_even_where_all_keys_meet(engine: str, kind: MapType) -> None:
    outer, hashing._draw = hashing._draw, bytes
    try:
        made: Any = create(MapDefinition("m", kind, 8, 8, 1000), environment=HERE)
    finally:
        hashing._draw = outer
    program = program_on(UPDATE, made)
    results = [
        program.run(struct.pack("<Q", number), engine=engine, environment=HERE).return_value
        for number in range(hashing.LONGEST_CHAIN + 5)
    ]
    assert results == [0] * hashing.LONGEST_CHAIN + [-errno.ENOMEM & MASK] * 5
    assert len(made) == hashing.LONGEST_CHAIN
    del made[bytes(8)]
    assert program.run(struct.pack("<Q", 999), engine=engine, environment=HERE).return_value == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_an_lru_passes_over_few_at_a_time(engine: str) -> None:
    entries = 4 * hashing.MOST_PASSED
    made: Any = create(MapDefinition("m", MapType.LRU_HASH, 8, 8, entries))
    for number in range(entries):
        made[number] = number
    for number in range(entries):
        made.lookup(number.to_bytes(8, "little"))
    program_on(UPDATE, made).run(struct.pack("<Q", 1 << 40), engine=engine)
    assert hashing.MOST_PASSED not in made
    assert 1 << 40 in made


def test_each_prefix_length_of_a_trie_is_paid_for() -> None:
    text = """
        mov r6, r1
        lddw r1, {trie}
        mov r2, r6
        call 1
        mov r0, 0
        exit
    """

    def fill(count: int) -> Any:
        def arrange(maps: Mapping[str, Any]) -> None:
            for length in range(count):
                maps["trie"][struct.pack("<I", length) + bytes([255]) * 256] = bytes(4)

        return arrange

    trie = {"trie": Table(MapType.LPM_TRIE, 260, 4, 4096, int(MapFlag.NO_PREALLOC))}
    data = struct.pack("<I", 2048) + bytes(256)
    few, many = (least_limit(text, data, trie, arrange=fill(count)) for count in (1, 100))
    assert many - few == 99


# -- megabytes --------------------------------------------------------------------------------------

BIG = 1 << 20
READS = {
    "bpf_probe_read": "mov r1, r6\n lddw r2, {half}\n mov r3, r6\n add r3, r2\n call 4",
    "bpf_csum_diff": "mov r1, r6\n lddw r2, {half}\n mov r3, 0\n mov r4, 0\n mov r5, 0\n call 28",
    "bpf_strncmp": "mov r1, r6\n lddw r2, {half}\n mov r3, r6\n call 182",
    "bpf_get_stack": "mov r2, r6\n lddw r3, {half}\n mov r4, 0\n call 67",
    "bpf_get_current_comm": "mov r1, r6\n lddw r2, {half}\n call 16",
}


@pytest.mark.parametrize("call", READS.values(), ids=READS)
def test_helpers_pay_for_the_bytes_that_they_go_through(call: str) -> None:
    half = BIG // 2
    text = f"mov r6, r1\n {call.format(half=half)}\n mov r0, 0\n exit"
    wanted = least_limit(text, bytes(BIG))
    assert wanted >= (half - FREE_SIZE) // WORK_SIZE
    error = counted(text, bytes(BIG), limit=wanted - 1).error
    assert isinstance(error, BudgetExhausted)
    assert f"the instruction limit of {wanted - 1} is used up" in str(error)


def test_what_is_small_is_free() -> None:
    text = "mov r6, r1\n mov r1, r6\n mov r2, 2048\n mov r3, r6\n add r3, r2\n call 4\n mov r0, 0\n exit"
    assert least_limit(text, bytes(4096)) == 8


@pytest.mark.parametrize("kind", [MapType.HASH, MapType.ARRAY, MapType.PERCPU_HASH, MapType.QUEUE])
def test_large_values_are_paid_for_with_and_without_python(kind: MapType) -> None:
    size = 30_000
    key = 0 if kind is MapType.QUEUE else 4
    call = "mov r2, r6\n mov r3, 0\n call 87" if kind is MapType.QUEUE else (
        "mov r2, r10\n add r2, -8\n mov r3, r6\n mov r4, 0\n call 2"
    )  # fmt: skip
    text = f"mov r6, r1\n stdw [r10-8], 0\n lddw r1, {{m}}\n {call}\n mov r0, 0\n exit"
    wanted = least_limit(text, bytes(size), {"m": Table(kind, key, size, 2)})
    assert wanted >= (size - FREE_SIZE) // WORK_SIZE
    made: Any = create(MapDefinition("m", kind, key, size, 2), environment=HERE)
    known = program_on(text.replace("{m}", "map[idx:0]"), made)
    for engine in ENGINES:
        known.run(bytes(size), engine=engine, limit=wanted, environment=HERE)
        made.clear()
        with pytest.raises(BudgetExhausted, match=f"limit of {wanted - 2} is used up"):
            known.run(bytes(size), engine=engine, limit=wanted - 2, environment=HERE)


def test_keys_of_megabytes_are_hashed_at_once() -> None:
    size = 2 << 20
    made: Any = create(MapDefinition("m", MapType.HASH, size, 8, 2))
    started = time.process_time()
    for _ in range(10):
        made[bytes(size)] = 1
        assert made[bytes(size)] == (1).to_bytes(8, "little")
    assert within(1, time.process_time() - started)


def test_deleted_entries_are_paid_for_where_they_are_passed_over() -> None:
    text = "lddw r1, {m}\n lddw r2, f\n mov r3, 0\n mov r4, 0\n call 164\n exit\n f: mov r0, 0\n exit"

    def arrange(maps: Mapping[str, Any]) -> None:
        for number in range(8000):
            maps["m"][number] = 1
        maps["m"].clear()

    table = {"m": Table(MapType.HASH, 4, 4, 8000)}
    enough = 8000 // hashing.ENTRIES_FOR_ONE + 10
    assert counted(text, b"", table, arrange=arrange, limit=enough).value == 0
    error = counted(text, b"", table, arrange=arrange, limit=enough - 20).error
    assert isinstance(error, BudgetExhausted)


# -- strings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("helper", [stock.strcmp, stock.memfrob], ids=lambda helper: helper.__name__)
def test_the_helpers_of_rbpf_pay_for_long_strings(engine: str, helper: Any) -> None:
    arguments = "mov r2, r1" if helper is stock.strcmp else ""
    vm = EbpfVmRaw(assemble(f"{arguments}\n call 77\n exit"))
    vm.register_helper(77, helper)
    vm.instruction_limit = 10_000
    data = bytearray(b"a" * (1 << 22) + b"\0")
    execute = vm.execute_program if engine == "interpreter" else compiled(vm)
    started = time.process_time()
    with pytest.raises(BudgetExhausted):
        execute(data)
    assert within(2, time.process_time() - started)


def compiled(vm: EbpfVmRaw) -> Any:
    """Return the machine's function in machine code."""
    vm.jit_compile()
    return vm.execute_program_jit


def test_padding_is_counted_and_not_made() -> None:
    spec = b"%8388607d" * 12 + b"\0"
    text = """
        mov r6, r1
        mov r2, 64
        mov r3, r6
        add r3, 200
        mov r4, r6
        mov r5, 96
        call 165
        exit
    """
    data = bytes(200) + spec.ljust(200, b"\0")
    started = time.process_time()
    outcome = counted(text, data)
    assert outcome.signed == 12 * 8388607 + 1
    assert outcome.data[:64] == b" " * 63 + b"\0"
    assert within(0.2, time.process_time() - started)


# -- what a run is granted --------------------------------------------------------------------------

SOCKETS = Environment(sockets=(Socket("tcp", ("0.0.0.0", 0)),))
LOOK_UP = """
    mov r7, {times}
again:
    mov r2, r10
    add r2, -16
    stdw [r10-8], 0
    stdw [r10-16], 0
    mov r3, 12
    mov r4, -1
    mov r5, 0
    call 84
    ldxw r3, [r0+4]
    mov r6, r0
    mov r1, r0
    call 96
    {release}
    sub r7, 1
    jne r7, 0, again
    mov r0, r6
    exit
"""


@pytest.mark.parametrize("release", ["", "mov r1, r6\n call 86"], ids=["kept", "released"])
@pytest.mark.parametrize("engine", ENGINES)
def test_lookups_of_sockets_cost_the_same_each_time(engine: str, release: str) -> None:
    times = {}
    for count in (500, 4000):
        started = time.process_time()
        text = LOOK_UP.format(times=count, release=release)
        outcome = run_on(engine, text, environment=SOCKETS)
        times[count] = time.process_time() - started
        assert outcome.error is None, outcome.error
    assert times[4000] < 3 * 8 * times[500]


def test_a_socket_that_was_released_as_often_as_it_was_found_cannot_be_read() -> None:
    text = LOOK_UP.format(times=3, release="") + "\n"
    text = text.replace("mov r0, r6\n", "mov r1, r6\ncall 86\n" * 3 + "ldxw r0, [r6+0]\n")
    assert "read-only" not in str(run(text, environment=SOCKETS).error)
    assert "load of 4 bytes" in str(run(text, environment=SOCKETS).error)
    fewer = text.replace("mov r1, r6\ncall 86\n", "", 1)
    assert run(fewer, environment=SOCKETS).error is None


@pytest.mark.parametrize("engine", ENGINES)
def test_grants_are_bounded(engine: str) -> None:
    kept = []

    def give(*_: int) -> int:
        kept.append(bytearray(8))
        return program_memory.grant(kept[-1]).start

    vm = EbpfVmRaw(assemble("mov r6, 100000\n call 77\n sub r6, 1\n jne r6, 0, -3\n exit"))
    vm.register_helper(77, give)
    execute = vm.execute_program if engine == "interpreter" else compiled(vm)
    started = time.process_time()
    with pytest.raises(ExecutionError, match=f"the run holds {MOST_GRANTS} already"):
        execute(bytearray(8))
    assert len(kept) == MOST_GRANTS + 1
    assert within(2, time.process_time() - started)


@pytest.mark.parametrize("engine", ENGINES)
def test_granting_and_revoking_again_and_again_takes_no_memory(engine: str) -> None:
    buffer = bytearray(8)

    def give(*_: int) -> int:
        program_memory.revoke(program_memory.grant(buffer))
        return 0

    vm = EbpfVmRaw(assemble("mov r6, 3000\n call 77\n sub r6, 1\n jne r6, 0, -3\n exit"))
    vm.register_helper(77, give)
    (vm.execute_program if engine == "interpreter" else compiled(vm))(bytearray(8))


def test_what_a_run_leaves_is_bounded() -> None:
    size = 1 << 20
    text = """
        mov r6, r1
        mov r7, 100
        mov r8, 0
        mov r1, 0
        lddw r2, {events}
        lddw r3, 0xffffffff
        mov r4, r6
        lddw r5, 1048576
        call 25
        jeq r0, 0, +1
        add r8, 1
        sub r7, 1
        jne r7, 0, -12
        mov r0, r8
        exit
    """
    outcome = counted(text, bytes(size), {"events": Table(MapType.PERF_EVENT_ARRAY, 4, 4, 1)})
    assert outcome.value == 100 - MOST_LEFT // size
    assert sum(len(data) for _, data in outcome.events) == MOST_LEFT


def _shifting(filling: int) -> Program:
    """Return a loop that moves a pointer of the kernel's one word further each time: new at each round."""
    words = "\n".join(f"ldxdw r1, [r10-{8 * n}]\nstxdw [r10-{8 * n + 8}], r1" for n in range(62, 0, -1))
    return Program(
        assemble(
            f"ldxdw r1, [r1+0]\nstxdw [r10-8], r1\nmov r9, 70\nagain:\n{words}\n"
            + "mov r3, r4\n" * filling
            + "sub r9, 1\njne r9, 0, again\nldxdw r0, [r1+8]\nldxdw r1, [r9+8]\nexit"
        ),
        type="tracing",
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_loads_of_kernel_memory_are_looked_for_so_long_and_no_longer(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = (0xFFFF_8880_0000_0000).to_bytes(8, "little")
    with pytest.raises(MemoryFault, match="load of 8 bytes at 0x8:"):
        _shifting(100).run(context, engine=engine)
    monkeypatch.setattr("ebpfjit.analysis.origins.MOST_STEPS", 5000)  # half of what it takes
    assert (
        _shifting(100).run(context, engine=engine).return_value == 0
    )  # each load may be one of the kernel's


@pytest.mark.parametrize("engine", ENGINES)
def test_pointers_into_an_arena_are_looked_for_so_long_and_no_longer(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "\n".join(
        f"r1 = *(u64 *)(r10 - {8 * n})\n*(u64 *)(r10 - {8 * n + 8}) = r1" for n in range(62, 0, -1)
    )
    text = f"r2 = addr_space_cast(r2, 0, 1)\n*(u64 *)(r10 - 8) = r2\nr8 = 70\nagain:\n{words}\n"
    text += "r8 -= 1\nif r8 != 0 goto again\nr0 = *(u64 *)(r1 + 0)\nexit"
    for most in (1 << 19, 5000):  # more than it takes, and less
        monkeypatch.setattr("ebpfjit.analysis.origins.MOST_STEPS", most)
        there = arena_of_pages(STARTS[0])
        there.write(STARTS[0], (7).to_bytes(8, "little"))
        program = on_arena(f"r2 = {STARTS[0]:#x} ll\n{text}", there)
        assert program.run(b"", engine=engine).return_value == 7
