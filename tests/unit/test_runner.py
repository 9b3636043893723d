"""`Program.run` with maps: tail calls, maps inside of maps, processors, and the kernel's counterparts."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ebpfjit import BudgetExhausted, Environment, ExecutionError, InputError, LoadError, Program, Task, kernel
from ebpfjit.assembler import assemble
from ebpfjit.ready import runs_straight
from ebpfjit.runtime.maps import Map, MapDefinition, MapFlag, MapType, create

ENGINES = ("jit", "interpreter")
KERNEL = pytest.param(
    "kernel",
    marks=pytest.mark.skipif(
        kernel.unavailable_reason() is not None, reason=str(kernel.unavailable_reason())
    ),
)
engines = pytest.mark.parametrize("engine", ENGINES)
all_engines = pytest.mark.parametrize("engine", [*ENGINES, KERNEL])
FRAME = bytes(range(60))

LOOKUP, TAIL_CALL, PERF_OUTPUT, UNDER_CGROUP, ADJUST_HEAD, REDIRECT_MAP, PUSH, POP, RINGBUF_OUTPUT = (
    1, 12, 25, 33, 44, 51, 87, 88, 130,
)  # fmt: skip


def make(kind: MapType, key: int, value: int, entries: int, **more: Any) -> Any:
    environment = more.pop("environment", None)
    return create(MapDefinition("tested", kind, key, value, entries, **more), environment=environment)


def program(type: str | None, maps: tuple[Map, ...], *lines: str) -> Program:
    """Return a program; `map N` in its text is the load of map N into r1."""
    text = [f"lddw r1, map[idx:{line[4:]}]" if line.startswith("map ") else line for line in lines]
    code = assemble("\n".join([*text, "exit"]))
    plain = Program.from_bytes(code)
    loads = [
        each for each in plain.instructions if each.row is not None and each.row.operation == "LDDW_MAP_IDX"
    ]
    references = {each.pc: maps[each.imm].address for each in loads}
    return Program(code, type=type, maps=maps, references=references)


def counting(table: Map, *, type: str | None = "xdp") -> Program:
    """Return a program that adds 1 to the first value of an array of u32 values."""
    return program(
        type, (table,), "stw [r10-4], 0", "map 0", "mov r2, r10", "add r2, -4", f"call {LOOKUP}",
        "jeq r0, 0, +2", "ldxw r1, [r0+0]", "add r1, 1", "stxw [r0+0], r1", "mov r0, 2",
    )  # fmt: skip


# --- tail calls ---


def chain(table: Any) -> Program:
    """Return a program that takes 4 bytes off the head and calls number 0, then returns 77."""
    return program(
        "xdp", (table,), "mov r6, r1", "mov r2, 4", f"call {ADJUST_HEAD}", "mov r1, r6", "mov r7, r1",
        "map 0", "mov r2, r1", "mov r1, r7", "mov r3, 0", f"call {TAIL_CALL}", "mov r0, 77",
    )  # fmt: skip


FIRST_BYTE = ("ldxw r2, [r1+0]", "ldxw r3, [r1+4]", "mov r4, r2", "add r4, 1", "mov r0, 99", "jgt r4, r3, +1",
              "ldxb r0, [r2+0]")  # fmt: skip


@all_engines
def test_the_next_program_finds_the_packet_where_the_last_one_left_it(engine: str) -> None:
    table = make(MapType.PROG_ARRAY, 4, 4, 2)
    first = chain(table)
    assert first.run(FRAME, engine=engine).return_value == 77
    table[0] = program("xdp", (), *FIRST_BYTE)
    result = first.run(FRAME, engine=engine)
    assert (result.return_value, result.data) == (4, FRAME[4:])


@all_engines
def test_a_program_that_calls_itself_ends_after_33_calls(engine: str) -> None:
    table = make(MapType.PROG_ARRAY, 4, 4, 1)
    first = chain(table)
    table[0] = first
    result = first.run(bytes(300), engine=engine)
    assert (result.return_value, len(result.data)) == (77, 300 - 34 * 4)


@engines
def test_all_programs_share_one_budget(engine: str) -> None:
    table = make(MapType.PROG_ARRAY, 4, 4, 1)
    first = chain(table)
    table[0] = first
    counted = first.run(bytes(300), engine="interpreter").instructions
    assert counted is not None
    # Each program pays for the whole block that its tail call is in: two instructions that are not reached.
    needed = counted + 2 * 33
    assert _ends(first, engine, needed)
    assert not _ends(first, engine, needed - 1)


def _ends(first: Program, engine: str, limit: int) -> bool:
    try:
        first.run(bytes(300), engine=engine, limit=limit)
    except BudgetExhausted:
        return False
    return True


def test_the_interpreter_counts_all_programs_instructions() -> None:
    table = make(MapType.PROG_ARRAY, 4, 4, 1)
    first = chain(table)
    alone = first.run(FRAME, engine="interpreter").instructions
    table[0] = program("xdp", (), "mov r0, 2")  # two instructions, as those it takes the place of
    assert first.run(FRAME, engine="interpreter").instructions == alone


# --- maps ---


@all_engines
def test_values_are_kept_from_run_to_run(engine: str) -> None:
    table = make(MapType.ARRAY, 4, 4, 2)
    count = counting(table)
    for _ in range(3):
        assert count.run(FRAME, engine=engine).action == "XDP_PASS"
    assert table[0] == (3).to_bytes(4, "little")


@engines
def test_a_program_without_a_type_has_maps_and_memory(engine: str) -> None:
    table = make(MapType.ARRAY, 4, 4, 2)
    count = counting(table, type=None)
    assert count.run(FRAME, engine=engine).data == FRAME
    assert count.compile()(FRAME) == 2
    assert table[0] == (2).to_bytes(4, "little")


def test_the_kernel_wants_a_type_for_maps() -> None:
    with pytest.raises(LoadError, match="has maps but no type"):
        counting(make(MapType.ARRAY, 4, 4, 2), type=None).run(FRAME, engine="kernel")


@all_engines
def test_maps_inside_of_maps(engine: str) -> None:
    inner = make(MapType.ARRAY, 4, 4, 1)
    outer = make(MapType.ARRAY_OF_MAPS, 4, 4, 2, inner=inner.definition)
    two_lookups = program(
        "xdp", (outer,), "stw [r10-4], 0", "map 0", "mov r2, r10", "add r2, -4", f"call {LOOKUP}",
        "jeq r0, 0, +9", "mov r1, r0", "mov r2, r10", "add r2, -4", f"call {LOOKUP}", "jeq r0, 0, +4",
        "ldxw r1, [r0+0]", "add r1, 1", "stxw [r0+0], r1", "mov r0, 1", "add r0, 1",
    )  # fmt: skip
    assert two_lookups.run(FRAME, engine=engine).return_value == 1
    outer[0] = inner
    assert two_lookups.run(FRAME, engine=engine).return_value == 2
    assert inner[0] == (1).to_bytes(4, "little")


@all_engines
def test_each_processor_has_values_of_its_own(engine: str) -> None:
    two = Environment(cpus=2, cpu=1)
    table = make(MapType.PERCPU_ARRAY, 4, 4, 1, environment=two)
    count = counting(table)
    count.run(FRAME, engine=engine, environment=two)
    count.run(FRAME, engine=engine, environment=two)
    count.run(FRAME, engine=engine, environment=Environment(cpus=2))
    assert table[0] == [(1).to_bytes(4, "little"), (2).to_bytes(4, "little")]


@engines
def test_a_processor_that_a_map_has_no_values_for(engine: str) -> None:
    count = counting(make(MapType.PERCPU_ARRAY, 4, 4, 1))
    with pytest.raises(ExecutionError, match=r"values for 1 processors, not for number 1; Environment"):
        count.run(FRAME, engine=engine, environment=Environment(cpus=2, cpu=1))


@all_engines
@pytest.mark.parametrize("kind", [MapType.QUEUE, MapType.STACK])
def test_queues_and_stacks(engine: str, kind: MapType) -> None:
    table = make(kind, 0, 4, 4)
    for value in (1, 2):
        table.push(value)
    push_and_pop = program(
        "xdp", (table,), "stw [r10-4], 3", "map 0", "mov r2, r10", "add r2, -4", "mov r3, 0", f"call {PUSH}",
        "map 0", "mov r2, r10", "add r2, -4", f"call {POP}", "ldxw r0, [r10-4]",
    )  # fmt: skip
    result = push_and_pop.run(FRAME, engine=engine)
    first, rest = (1, [2, 3]) if kind is MapType.QUEUE else (3, [2, 1])
    assert result.return_value == first
    assert [int.from_bytes(value, "little") for value in table] == rest


@all_engines
def test_events_of_both_buffers(engine: str) -> None:
    ring = make(MapType.RINGBUF, 0, 0, 4096)
    perf = make(MapType.PERF_EVENT_ARRAY, 4, 4, 2)
    send = program(
        "xdp", (ring, perf), "mov r6, r1", "lddw r1, 0x0807060504030201", "stxdw [r10-8], r1",
        "map 0", "mov r2, r10", "add r2, -8", "mov r3, 7", "mov r4, 0", f"call {RINGBUF_OUTPUT}",
        "map 1", "mov r2, r1", "mov r1, r6",
        "lddw r3, 0x4ffffffff", "mov r4, r10", "add r4, -8", "mov r5, 8", f"call {PERF_OUTPUT}", "mov r0, 2",
    )  # fmt: skip
    for _ in range(3):
        result = send.run(FRAME, engine=engine)
        name, data = result.events[1]
        assert result.events[0] == ("tested", bytes(range(1, 8)))
        assert (name, data[:12]) == ("tested", bytes(range(1, 9)) + FRAME[:4])


@all_engines
def test_a_devmap_says_where_to(engine: str) -> None:
    table = make(MapType.DEVMAP, 4, 4, 4)
    table[2] = 1
    to = program("xdp", (table,), "map 0", "mov r2, 2", "mov r3, 1", f"call {REDIRECT_MAP}")
    nowhere = program("xdp", (table,), "map 0", "mov r2, 3", "mov r3, 1", f"call {REDIRECT_MAP}")
    assert nowhere.run(FRAME, engine=engine).action == "XDP_DROP"
    result = to.run(FRAME, engine=engine)
    assert result.action == "XDP_REDIRECT"
    if engine != "kernel":
        redirect = result.redirect
        assert redirect is not None
        assert (redirect.map, redirect.key, redirect.ifindex) == ("tested", 2, 1)


@engines
def test_whether_a_packet_is_of_a_cgroup(engine: str) -> None:
    table = make(MapType.CGROUP_ARRAY, 4, 4, 3)
    table[0], table[1] = 7, 8

    def asked(index: int) -> int:
        ask = program("tc", (table,), "mov r6, r1", "map 0", "mov r2, r1", "mov r1, r6", f"mov r3, {index}",
                      f"call {UNDER_CGROUP}")  # fmt: skip
        environment = Environment(task=Task(cgroup_id=7))
        return ask.run(FRAME, engine=engine, environment=environment).return_value

    assert [asked(index) for index in range(4)] == [1, 0, (1 << 32) - 11, (1 << 32) - 7]


@all_engines
def test_read_only_values_are_the_programs_constants(engine: str) -> None:
    """The kernel's verifier only takes the loop because it knows how often it runs."""
    table = make(MapType.ARRAY, 4, 8, 1, flags=int(MapFlag.RDONLY_PROG), is_readonly=True)
    table[0] = 5
    code = assemble(
        "lddw r1, map[idx:0][0]+0\nldxdw r2, [r1+0]\nmov r0, 0\nadd r0, 2\nsub r2, 1\njne r2, 0, -3\nexit"
    )
    constant = Program(code, type="xdp", maps=(table,), references={0: table.value_address})
    assert constant.run(FRAME, engine=engine).return_value == 10


@engines
def test_small_helpers_are_those_of_each_runs_environment(engine: str) -> None:
    """Some are machine code where the environment is the usual one: the next run may have another."""
    clock = program("xdp", (), "call 5", "rsh r0, 20")
    fixed = Environment(clock=lambda: 5 << 20)
    for _ in range(2):
        before = time.monotonic_ns() >> 20 & 0xFFFFFFFF
        now = clock.run(FRAME, engine=engine).return_value
        assert before <= now <= time.monotonic_ns() >> 20 & 0xFFFFFFFF
        assert clock.run(FRAME, engine=engine, environment=fixed).return_value == 5
    cpu = program("xdp", (), "call 8")
    assert cpu.run(FRAME, engine=engine, environment=Environment(cpus=2, cpu=1)).return_value == 1
    assert cpu.run(FRAME, engine=engine).return_value == 0


def test_small_helpers_are_machine_code_unless_replaced() -> None:
    clock = program("xdp", (), "call 5", "rsh r0, 20")
    assert "call_python" not in str(clock.compile().listing())
    assert clock.compile(helpers={5: lambda *_: 77 << 20})(FRAME) == 77


def _clock_of(program: Program, way: str, helpers: Any) -> int:
    if way == "compile":
        return program.compile(helpers=helpers)(FRAME)
    return program.run(FRAME, engine=way, helpers=helpers).return_value


@pytest.mark.parametrize("way", [*ENGINES, "compile"])
@pytest.mark.parametrize("type", ["xdp", None])
def test_helpers_are_given_by_name_too(way: str, type: str | None) -> None:
    """Also to compiling, which took a name for no helper that the program calls, and said nothing."""
    code = Program.from_bytes(assemble("call 5\nexit"), type=type)
    assert _clock_of(code, way, {"bpf_ktime_get_ns": lambda *_: 7}) == 7
    assert _clock_of(code, way, {5: lambda *_: 8}) == 8
    with pytest.raises(InputError, match="Linux has no helper 'ktime'"):
        _clock_of(code, way, {"ktime": lambda *_: 7})
    with pytest.raises(TypeError, match="helper 5 cannot be called: it is of type int"):
        _clock_of(code, way, {5: 7})
    with pytest.raises(TypeError, match="helpers maps numbers or names to functions, not a list"):
        _clock_of(code, way, [5])


@pytest.mark.parametrize("limit", ["5", -1, 1.5])
def test_what_is_no_limit_is_refused(limit: Any) -> None:
    code = Program.from_bytes(assemble("mov r0, 1\nexit"))
    for engine in ENGINES:
        with pytest.raises(ValueError, match="limit is a number of instructions, or None for no limit, not"):
            code.run(engine=engine, limit=limit)
    with pytest.raises(ValueError, match="limit is a number of instructions, or None for no limit, not"):
        code.compile(limit=limit)


@pytest.mark.parametrize(
    ("text", "is_straight"),
    [
        ("mov r0, 1\nexit", True),
        ("call 5\nexit", True),
        ("ja +0\nmov r0, 1\nja -2", False),
        ("call 181\nexit", False),
        ("call 12\nexit", False),
        ("call 99999\nexit", False),
        ("call local +1\nexit\nexit", False),
        ("call kfunc 5\nexit", False),
    ],
)
def test_no_instruction_of_a_straight_program_is_executed_twice(text: str, is_straight: bool) -> None:
    assert runs_straight(Program.from_assembly(text)) is is_straight
