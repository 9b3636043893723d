"""What a map's operations cost in machine code, held against the same table in C.

Each program makes a million pseudo-random keys and does one operation on each; the same loop without
the operation is taken off, the fastest round of each. The C loop does the same on the very same
memory, through `ebpfjit/runtime/maps/routines/routines.c` as gcc compiles it, called as a function of
another file.
"""

from __future__ import annotations

import ctypes
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ebpfjit.assembler import assemble
from ebpfjit.bench import native
from ebpfjit.bench.benchmark import Bars, Benchmark, Plan, Section, Step
from ebpfjit.bench.measure import BenchError, Rounds, best, in_turn, median, timed
from ebpfjit.program import Program
from ebpfjit.record import dataclass
from ebpfjit.runtime.helpers.names import LOOKUP
from ebpfjit.runtime.maps import MapDefinition, MapType, bytecode, create
from ebpfjit.runtime.maps.flat import HEADER

ROUTINES = Path(bytecode.__file__).parent / "routines" / "routines.c"
COUNT = 1_000_000
PYTHON_COUNT = 20_000
MULTIPLIER, INCREMENT = 6364136223846793005, 1442695040888963407
NOTHING = "nothing"

LOOP = f"""
mov64 r6, {COUNT}
mov64 r7, 1
mov64 r8, 0
lddw r9, {MULTIPLIER:#x}
mul64 r7, r9
lddw r1, {INCREMENT:#x}
add64 r7, r1
mov64 r2, r7
rsh64 r2, 33
and64 r2, {{mask}}
{{key}}
{{operation}}
sub64 r6, 1
jne r6, 0, -{{back}}
mov64 r0, r8
exit
"""
KEY = "stxdw [r10-{offset}], r2"
ARGUMENTS = "mov64 r2, r10\nadd64 r2, -{size}\nlddw r1, map[idx:0]\n"
OPERATIONS = {
    "nothing": "ldxw r0, [r10-{size}]\nadd64 r8, r0",
    "lookup": ARGUMENTS + "call 1\njeq r0, 0, +2\nldxdw r0, [r0+0]\nadd64 r8, r0",
    "update": ARGUMENTS + "mov64 r3, r10\nadd64 r3, -{size}\nmov64 r4, 0\ncall 2\nadd64 r8, r0",
    "delete and insert": ARGUMENTS + "call 3\n" + ARGUMENTS
    + "mov64 r3, r10\nadd64 r3, -{size}\nmov64 r4, 0\ncall 2\nadd64 r8, r0",
}  # fmt: skip

C_LOOP = """
typedef unsigned int u32; typedef unsigned long long u64; typedef unsigned char u8;
u8 *{lookup}(void *map, const void *key);
long long {update}(void *map, const void *key, const void *value, u64 flags);
long long hash_delete(void *map, const void *key);
__attribute__((visibility("default"))) u64 run(void *map)
{{
    u64 state = 1, sum = 0, key[8] = {{0}};
    for (u64 left = {count}; left; left--) {{
        state = state * {multiplier}ull + {increment}ull;
        u64 number = state >> 33 & {mask};
        for (u32 word = 0; word < {words}; word++)
            ((volatile u64 *)key)[word] = number;
        {operation}
    }}
    return sum;
}}
"""
OPERATIONS["lookup, half absent"] = OPERATIONS["lookup"]

C_OPERATIONS = {
    "nothing": "sum += *(volatile u32 *)key;",
    "lookup": "u8 *value = {lookup}(map, key); if (value) sum += *(u64 *)value;",
    "update": "sum += {update}(map, key, key, 0);",
    "delete and insert": "hash_delete(map, key); sum += {update}(map, key, key, 0);",
}
C_OPERATIONS["lookup, half absent"] = C_OPERATIONS["lookup"]


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table."""

    kind: MapType
    key: int
    entries: int
    operation: str

    @property
    def name(self) -> str:
        """The case in the table."""
        kind = self.kind.name.lower()
        return f"{kind}, {self.entries:,} entries, keys of {self.key} bytes: {self.operation}"


CASES = (
    Case(MapType.ARRAY, 4, 1 << 10, "lookup"),
    Case(MapType.ARRAY, 4, 1 << 20, "lookup"),
    Case(MapType.PERCPU_ARRAY, 4, 1 << 10, "lookup"),
    Case(MapType.ARRAY, 4, 1 << 10, "update"),
    Case(MapType.HASH, 4, 1 << 10, "lookup"),
    Case(MapType.HASH, 4, 1 << 10, "lookup, half absent"),
    Case(MapType.HASH, 8, 1 << 10, "lookup"),
    Case(MapType.HASH, 16, 1 << 10, "lookup"),
    Case(MapType.HASH, 40, 1 << 10, "lookup"),
    Case(MapType.LRU_HASH, 4, 1 << 10, "lookup"),
    Case(MapType.PERCPU_HASH, 4, 1 << 10, "lookup"),
    Case(MapType.HASH, 4, 1 << 16, "lookup"),
    Case(MapType.HASH, 4, 1 << 20, "lookup"),
    Case(MapType.HASH, 8, 1 << 20, "lookup"),
    Case(MapType.HASH, 4, 1 << 10, "update"),
    Case(MapType.HASH, 16, 1 << 10, "update"),
    Case(MapType.HASH, 4, 1 << 10, "delete and insert"),
)


def filled(case: Case) -> Any:
    """Return the map of a case; a hash has all keys that the loop asks for, or half of them."""
    m = create(MapDefinition("m", case.kind, case.key, 8, case.entries))
    if case.kind not in bytecode.ARRAYS:
        words = -(-case.key // 8)
        for number in range(0, case.entries, 2 if "absent" in case.operation else 1):
            m.update((number.to_bytes(8, "little") * words)[: case.key], number.to_bytes(8, "little"))
    return m


def program(m: Any, case: Case, operation: str) -> Program:
    """Return the eBPF loop."""
    words = -(-case.key // 8)
    key = "\n".join(KEY.format(offset=8 * word) for word in range(words, 0, -1))
    body = OPERATIONS[operation].format(size=8 * words)
    # The jump goes back to the first instruction that makes a key; wide instructions take two slots.
    lines = [*key.splitlines(), *body.splitlines()]
    back = 1 + 2 + 1 + 3 + len(lines) + sum(line.startswith("lddw") for line in lines) + 2
    code = assemble(LOOP.format(mask=case.entries - 1, key=key, operation=body, back=back))
    plain = Program.from_bytes(code)
    references = {
        insn.pc: m.address
        for insn in plain.instructions
        if insn.row is not None and insn.row.operation == "LDDW_MAP_IDX"
    }
    return Program(code, references=references, maps=(m,))


ARRAY_LOOKUP = f"""
struct map {{ char *values; char pad[{HEADER["value_stride"] - 8}]; unsigned stride, entries; }};
char *array_lookup(struct map *map, const unsigned *key)
{{ return *key < map->entries ? map->values + (unsigned long)*key * map->stride : 0; }}
"""


def in_c(case: Case, definition: MapDefinition, operation: str) -> Callable[[int], int]:
    """Return the C loop, compiled."""
    names = {
        "lookup": bytecode.routine_of(definition, LOOKUP) or "array_lookup",
        "update": "array_update" if case.kind in bytecode.ARRAYS else "hash_update",
    }
    loop = C_LOOP.format(
        count=COUNT,
        multiplier=MULTIPLIER,
        increment=INCREMENT,
        mask=case.entries - 1,
        words=-(-case.key // 8),
        operation=C_OPERATIONS[operation].format(**names),
        **names,
    )
    # Hidden functions are called directly, not through the table that shared objects have.
    options = ("-fno-strict-aliasing", "-fvisibility=hidden")
    function = native.load(loop, ARRAY_LOOKUP, ROUTINES.read_text(), options=options).run
    function.restype, function.argtypes = ctypes.c_uint64, [ctypes.c_uint64]
    return function


@dataclass(frozen=True, slots=True)
class Timing:
    """Nanoseconds of each round for one key, by loop: ours and C's, with the operation and without."""

    case: Case
    rounds: Mapping[str, Sequence[float]]

    def cost(self, loop: str) -> float:
        """Return the nanoseconds of the operation in a loop, "ours" or "C"; NaN where it did not run."""
        return best(self.rounds.get(loop)) - best(self.rounds.get(f"{loop}, {NOTHING}"))


def time_case(case: Case, rounds: Rounds) -> list[Timing]:
    """Return what an operation costs. Raises BenchError where the loops' results differ."""
    m, memory = filled(case), bytearray(8)
    ways: dict[str, Callable[[], int]] = {}
    for operation, suffix in ((case.operation, ""), (NOTHING, f", {NOTHING}")):
        ours = program(m, case, operation).compile(optimize=True)
        ways[f"ours{suffix}"] = functools.partial(ours, memory)
        own = filled(case)  # code without Python's lock makes all other code lock the table too
        ways[f"unlocked{suffix}"] = functools.partial(
            program(own, case, operation).compile(optimize=True, release_gil=True), memory
        )
        if native.compilers():
            ways[f"C{suffix}"] = functools.partial(in_c(case, m.definition, operation), m.address)
            # Whatever was there, deleting and inserting does not say.
            if ways[f"C{suffix}"]() != ours(memory) and "delete" not in operation:
                raise BenchError(f"{case.name}: C and machine code find different things in the map")
    times = in_turn(
        {name: timed(way, COUNT, clock=time.process_time_ns) for name, way in ways.items()}, rounds
    )
    return [Timing(case, times)]


@dataclass(frozen=True, slots=True)
class FromPython:
    """Nanoseconds of Python's own operations, by what they are."""

    nanoseconds: dict[str, float]


def time_python(rounds: Rounds) -> list[FromPython]:
    """Return what Python's own operations cost."""
    numbers, key, value = range(PYTHON_COUNT), (5).to_bytes(4, "little"), bytes(8)
    ways = {}
    for kind in (MapType.ARRAY, MapType.HASH):
        m: Any = create(MapDefinition("m", kind, 4, 8, 1000))
        m[key] = value

        def read(m: Any = m) -> None:
            for _ in numbers:
                m[key]

        def write(m: Any = m) -> None:
            for _ in numbers:
                m[key] = value

        name = kind.name.lower()
        ways[f"{name}: m[key]"] = timed(read, PYTHON_COUNT)
        ways[f"{name}: m[key] = value"] = timed(write, PYTHON_COUNT)
    for kind in (MapType.ARRAY, MapType.HASH, MapType.LRU_HASH):
        made = functools.partial(create, MapDefinition("m", kind, 4, 8, COUNT))
        ways[f"{kind.name.lower()} of a million entries: create"] = timed(made)
    times = in_turn(ways, rounds)
    return [FromPython({name: median(found) for name, found in times.items()})]


def section(found: Sequence[Timing | FromPython]) -> Section:
    """Return the section of the operations that were timed."""
    timings = [one for one in found if isinstance(one, Timing)]
    python = [one for one in found if isinstance(one, FromPython)]
    beside_c = any("C" in one.rounds for one in timings)
    loops = ("ours", "unlocked", "C") if beside_c else ("ours", "unlocked")
    ratios = ("unlocked/ours", "ours/C") if beside_c else ("unlocked/ours",)
    series = {loop: tuple(one.cost(loop) for one in timings) for loop in loops}
    return Section(
        name="maps",
        title="Operations on maps in machine code",
        headings=("map", *(f"{loop}, ns" for loop in loops), *ratios),
        align="l" + "r" * (len(loops) + len(ratios)),
        rows=tuple(_row(one, loops) for one in timings),
        bars=Bars("ns", tuple(one.case.name for one in timings), series),
        data={
            "operations": [_as_json(one, loops) for one in timings],
            "python_ns": [one.nanoseconds for one in python],
        },
        remarks=(*map(_python_remark, python), *([] if native.compilers() else [NO_COMPILER])),
    )


NO_COMPILER = "Without the C loop: no C compiler in PATH that works."


def _row(one: Timing, loops: Sequence[str]) -> tuple[str, ...]:
    costs = [one.cost(loop) for loop in loops]
    ratios = [costs[1] / costs[0], *(costs[0] / cost for cost in costs[2:])]
    return one.case.name, *(f"{cost:.1f}" for cost in costs), *(f"{ratio:.2f}" for ratio in ratios)


def _as_json(one: Timing, loops: Sequence[str]) -> dict[str, Any]:
    costs = {loop: one.cost(loop) for loop in loops}
    case = {**asdict(one.case), "kind": one.case.kind.name.lower()}
    return {
        **case,
        "ns": costs,
        "ratio": costs["ours"] / costs.get("C", math.nan),
        "rounds": dict(one.rounds),
    }


def _python_remark(one: FromPython) -> str:
    costs = (f"{name} {nanoseconds:,.0f}" for name, nanoseconds in one.nanoseconds.items())
    return f"From Python, ns: {'; '.join(costs)}."


def steps(plan: Plan) -> list[Step]:
    """Return a step for each case with maps of the plan's size, and one for Python's operations."""
    cases = [case for case in CASES if case.entries <= plan.entries]
    return [
        *(Step(case.name, functools.partial(time_case, case)) for case in cases),
        Step("from Python", time_python),
    ]


BENCHMARK = Benchmark("maps", "operations on maps, beside the same table in C", steps, section)
