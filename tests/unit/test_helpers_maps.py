"""Map helpers, judged by Linux: results, error numbers, memory, contents."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import replace

import pytest

from ebpfjit.errors import BudgetExhausted, ExecutionError, MemoryFault
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.maps import MapDefinition, MapType
from tests.support.helper_runs import HERE, Table, as_linux, constant, needs_kernel, run

HASH = Table(MapType.HASH, 4, 8, 4, content={b"\1\0\0\0": b"abcdefgh"})
ARRAY = Table(MapType.ARRAY, 4, 8, 3, content={b"\1\0\0\0": b"abcdefgh"})
QUEUE, STACK = Table(MapType.QUEUE, 0, 8, 2), Table(MapType.STACK, 0, 8, 2)
BLOOM = Table(MapType.BLOOM_FILTER, 0, 8, 8)
KEY = b"\1\0\0\0\0\0\0\0"

LOOKUP = """
    mov r2, r1
    mov r6, r1
    lddw r1, {map}
    call 1
    jeq r0, 0, none
    ldxdw r3, [r0+0]
    stxdw [r6+8], r3
    stdw [r0+0], 77
    mov r0, 1
none:
    exit
"""

UPDATE = """
    mov r2, r1
    mov r3, r1
    add r3, 8
    mov r4, {flags}
    lddw r1, {{map}}
    call 2
    exit
"""

DELETE = """
    mov r2, r1
    lddw r1, {map}
    call 3
    exit
"""


def memory(key: int, value: bytes = b"ABCDEFGH") -> bytes:
    return key.to_bytes(8, "little") + value


@needs_kernel
@pytest.mark.parametrize("table", [HASH, ARRAY])
@pytest.mark.parametrize("key", [0, 1, 2, 3, 1 << 31])
def test_lookup_and_delete_as_linux(table: Table, key: int) -> None:
    as_linux(LOOKUP, memory(key), {"map": table})
    as_linux(DELETE, memory(key), {"map": table})


@needs_kernel
@pytest.mark.parametrize("table", [HASH, ARRAY])
@pytest.mark.parametrize("flags", [0, 1, 2, 3, 8, -1])
def test_update_as_linux(table: Table, flags: int) -> None:
    for key in (0, 1, 3):
        as_linux(UPDATE.format(flags=flags), memory(key), {"map": table})


def test_lookup_gives_the_value_itself() -> None:
    outcome = run(LOOKUP, memory(1), {"map": HASH})
    assert (outcome.value, outcome.data[8:]) == (1, b"abcdefgh")
    assert outcome.maps["map"][KEY[:4]] == (77).to_bytes(8, "little")
    assert run(LOOKUP, memory(2), {"map": HASH}).value == 0


def test_update_and_delete() -> None:
    outcome = run(UPDATE.format(flags=0), memory(9), {"map": HASH})
    assert (outcome.value, outcome.maps["map"][9]) == (0, b"ABCDEFGH")
    assert run(DELETE, memory(9), {"map": HASH}).signed == -errno.ENOENT
    assert run(DELETE, memory(1), {"map": ARRAY}).signed == -errno.EINVAL


@pytest.mark.parametrize(("text", "pc"), [(LOOKUP, 4), (UPDATE.format(flags=0), 6), (DELETE, 3)])
def test_a_key_outside_of_memory_is_a_fault_at_the_call(text: str, pc: int) -> None:
    error = run(text, b"abc", {"map": HASH}).error
    assert isinstance(error, MemoryFault)
    assert (error.pc, error.size, error.access) == (pc, 4, "load")


def test_a_value_outside_of_memory_is_a_fault() -> None:
    outcome = run(UPDATE.format(flags=0), memory(5)[:12], {"map": HASH})
    assert isinstance(outcome.error, MemoryFault)
    assert len(outcome.maps["map"]) == 1


def test_what_is_no_map_is_named() -> None:
    error = run("mov r2, r1\nmov r1, 5\ncall 1\nexit", memory(1)).error
    assert "pc 2: bpf_map_lookup_elem: 0x5 is no map of the program (its maps: none)" in str(error)
    error = run("mov r2, r1\ncall 1\nlddw r0, {map}\nexit", memory(1), {"map": HASH}).error
    assert "(its maps: map)" in str(error)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_map_of_the_wrong_type_is_named(number: int) -> None:
    text = f"mov r2, r1\nmov r3, r1\nmov r4, 0\nlddw r1, {{ring}}\ncall {number}\nexit"
    error = run(text, memory(1), {"ring": Table(MapType.RINGBUF, entries=4096)}).error
    assert isinstance(error, ExecutionError)
    assert "does not take map 'ring' (ringbuf)" in str(error)


def test_a_readonly_map_cannot_be_updated() -> None:
    error = run(UPDATE.format(flags=0), memory(0), {"map": constant(b"abcdefgh")}).error
    assert "read-only to programs" in str(error)


def test_lookup_finds_maps_inside_of_maps() -> None:
    inner = MapDefinition("inner", MapType.ARRAY, 4, 8, 1)
    outer = Table(MapType.ARRAY_OF_MAPS, 4, 4, 2, inner=inner)
    text = """
        mov r6, r1
        mov r2, r1
        lddw r1, {outer}
        call 1
        jeq r0, 0, none
        mov r1, r0
        stw [r6+0], 0
        mov r2, r6
        call 1
        jeq r0, 0, none
        mov r0, 1
    none:
        exit
    """

    def arrange(maps: Mapping[str, object]) -> None:
        from ebpfjit.runtime.maps import create

        maps["outer"][1] = create(inner)  # type: ignore[index]

    assert run(text, memory(1), {"outer": outer}, arrange=arrange).value == 1
    assert run(text, memory(0), {"outer": outer}, arrange=arrange).value == 0


PERCPU = """
    mov r2, r1
    mov r6, r1
    ldxw r3, [r1+8]
    lddw r1, {map}
    call 195
    jeq r0, 0, none
    ldxdw r3, [r0+0]
    stxdw [r6+8], r3
    mov r0, 1
none:
    exit
"""


def test_lookup_on_a_processor() -> None:
    table = Table(MapType.PERCPU_ARRAY, 4, 8, 2)
    environment = replace(HERE, cpu=1, cpus=3)

    def arrange(maps: Mapping[str, object]) -> None:
        maps["map"][1] = [10, 11, 12]  # type: ignore[index]

    def ask(key: int, cpu: int) -> tuple[int | None, int]:
        outcome = run(
            PERCPU, memory(key, cpu.to_bytes(8, "little")), {"map": table},
            environment=environment, arrange=arrange,
        )  # fmt: skip
        return outcome.value, outcome.data[8]

    assert [ask(1, 0), ask(1, 2), ask(1, 3), ask(7, 0)] == [(1, 10), (1, 12), (0, 3), (0, 0)]


# push 3 values; then pop, peek, pop, pop; r0s and values are left in memory
ENDS = """
    mov r6, r1
    mov r8, 0
    mov r7, 3
push:
    mov r2, r6
    mov r3, {flags}
    lddw r1, {{map}}
    call 87
    add r8, r0
    ldxdw r1, [r6+0]
    add r1, 1
    stxdw [r6+0], r1
    add r7, -1
    jne r7, 0, push
    stxdw [r6+8], r8
    {take}
    mov r0, r8
    exit
"""


def take(number: int, place: int) -> str:
    return f"""
        mov r2, r6
        add r2, {place}
        lddw r1, {{map}}
        call {number}
        add r8, r0
    """


@needs_kernel
@pytest.mark.parametrize("table", [QUEUE, STACK])
@pytest.mark.parametrize("flags", [0, 1, 2, 3])
def test_queues_and_stacks_as_linux(table: Table, flags: int) -> None:
    takes = "".join(take(number, 16 + 8 * index) for index, number in enumerate((88, 89, 88, 88, 89)))
    text = ENDS.replace("{take}", takes.replace("{", "{{").replace("}", "}}")).format(flags=flags)
    as_linux(text, (5).to_bytes(8, "little") + b"\xee" * 56, {"map": table})


@needs_kernel
def test_bloom_filter_as_linux() -> None:
    """Both filters are nearly empty, so that neither knows a value by chance."""
    text = ENDS.format(flags=0, take="{take}").replace("{take}", take(89, 0) + take(89, 8))
    as_linux(text, (5).to_bytes(8, "little") * 2, {"map": BLOOM})


def test_queue() -> None:
    text = ENDS.format(flags=2, take="{take}").replace("{take}", take(88, 16) + take(89, 24))
    outcome = run(text, (5).to_bytes(8, "little") + bytes(24), {"map": QUEUE})
    assert (outcome.value, outcome.data[16], outcome.data[24]) == (0, 6, 7)
    text = take(88, 0)
    outcome = run(f"mov r6, r1\nmov r8, 0\n{text}exit", b"\xee" * 8, {"map": QUEUE})
    assert (outcome.signed, outcome.data) == (-errno.ENOENT, bytes(8))


FOR_EACH = """
    mov r7, r1
    stxdw [r10-8], r1
    mov r3, r10
    add r3, -8
    lddw r2, visit
    mov r4, FLAGS
    lddw r1, {map}
    call 164
    exit
visit:
    ldxdw r6, [r4+0]
    ldxw r1, [r2+0]
    ldxdw r2, [r3+0]
    ldxdw r5, [r6+0]
    add r5, r1
    add r5, r2
    stxdw [r6+0], r5
    ldxdw r5, [r6+8]
    add r5, 1
    stxdw [r6+8], r5
    mov r0, 0
    ldxdw r1, [r6+16]
    jne r5, r1, go_on
    mov r0, 1
go_on:
    exit
"""

FULL = {index.to_bytes(4, "little"): (100 * index).to_bytes(8, "little") for index in range(4)}


def test_for_each() -> None:
    def visit(stop: int, flags: int = 0) -> tuple[int, int]:
        text = FOR_EACH.replace("FLAGS", str(flags))
        outcome = run(
            text, bytes(16) + stop.to_bytes(8, "little"), {"map": Table(MapType.ARRAY, 4, 8, 4, content=FULL)}
        )
        return outcome.signed, int.from_bytes(outcome.data[:8], "little")

    assert visit(0) == (4, 606)
    assert visit(2) == (2, 101)
    assert visit(0, flags=1) == (-errno.EINVAL, 0)


def test_the_key_of_for_each_is_gone_afterwards() -> None:
    text = """
        mov r6, r1
        mov r3, r1
        lddw r2, visit
        mov r4, 0
        lddw r1, {map}
        call 164
        ldxdw r1, [r6+0]
        ldxw r0, [r1+0]
        exit
    visit:
        ldxw r0, [r2+0]
        stxdw [r4+0], r2
        mov r0, 0
        exit
    """
    outcome = run_error(text)
    assert isinstance(outcome, MemoryFault)
    assert outcome.pc == 9


def run_error(text: str) -> ExecutionError | None:
    from tests.support.helper_runs import run_on

    errors = [run_on(engine, text, bytes(8), {"map": ARRAY}).error for engine in ("interpreter", "jit")]
    assert [getattr(error, "pc", None) for error in errors] == [getattr(errors[0], "pc", None)] * 2
    return errors[0]


LOOP = """
    mov r6, r1
    mov r1, ROUNDS
    lddw r2, visit
    mov r3, r6
    mov r4, FLAGS
    call 181
    exit
visit:
    ldxdw r3, [r2+0]
    add r3, r1
    stxdw [r2+0], r3
    mov r0, 0
    ldxdw r3, [r2+8]
    jne r3, r1, go_on
    mov r0, 1
go_on:
    exit
"""


@pytest.mark.parametrize(
    ("rounds", "stop", "flags", "result"),
    [
        (0, 99, 0, 0),
        (10, 99, 0, 10),
        (10, 3, 0, 4),
        (10, 99, 1, -errno.EINVAL),
        ((1 << 23) + 1, 99, 0, -errno.E2BIG),
        (-1, 99, 0, -errno.E2BIG),
    ],
)
def test_loop(rounds: int, stop: int, flags: int, result: int) -> None:
    text = LOOP.replace("ROUNDS", str(rounds)).replace("FLAGS", str(flags))
    outcome = run(text, bytes(8) + stop.to_bytes(8, "little"))
    assert outcome.signed == result
    assert outcome.data[0] == sum(range(max(min(result, 10), 0)))


def test_a_loop_pays_for_its_rounds() -> None:
    text = LOOP.replace("ROUNDS", "1000000").replace("FLAGS", "0")
    error = run(text, bytes(8) + b"\xff" * 8, limit=1000).error
    assert isinstance(error, BudgetExhausted)
    assert error.pc is not None
    assert error.pc >= 8


def test_an_environment_decides_clock_randomness_and_processor() -> None:
    environment = Environment(clock=lambda: 1_000_000_007, random=lambda: 1 << 32 | 5, cpu=2, cpus=4)
    for number, expected in ((5, 1_000_000_007), (125, 1_000_000_007), (118, 250), (7, 5), (8, 2), (42, 0)):
        assert run(f"call {number}\nexit", environment=environment).value == expected
