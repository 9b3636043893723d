"""What a map's operations cost in machine code, held against the same table in C.

    python benchmarks/maps.py [--rounds N] [--markdown] [--write]

Each program makes a million pseudo-random keys and does one operation on each; the same loop without
the operation is taken off. The C loop (gcc -O2) does the same on the very same memory, through
`ebpfjit/runtime/maps/routines/routines.c` as gcc compiles it, called as a function of another file.
"""

from __future__ import annotations

import argparse
import ctypes
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from ebpfjit import Program
from ebpfjit.assembler import assemble
from ebpfjit.runtime.maps import MapDefinition, MapType, bytecode, create

HERE = Path(__file__).resolve().parent
ROUTINES = HERE.parent / "ebpfjit" / "runtime" / "maps" / "routines" / "routines.c"
RESULTS = HERE / "RESULTS.md"
COUNT = 1_000_000
MULTIPLIER, INCREMENT = 6364136223846793005, 1442695040888963407

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
u64 run(void *map)
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


@dataclass(frozen=True)
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


def in_c(case: Case, operation: str, folder: Path) -> Callable[[int], int]:
    """Return the C loop, compiled."""
    names = {
        "lookup": bytecode.routine_of(filled(case).definition, bytecode.LOOKUP) or "array_lookup",
        "update": "array_update" if case.kind in bytecode.ARRAYS else "hash_update",
    }
    text = C_LOOP.format(
        count=COUNT,
        multiplier=MULTIPLIER,
        increment=INCREMENT,
        mask=case.entries - 1,
        words=-(-case.key // 8),
        operation=C_OPERATIONS[operation].format(**names),
        **names,
    )
    source, library = folder / "loop.c", folder / f"loop{abs(hash((case, operation)))}.so"
    source.write_text(text)
    arrays = folder / "array.c"
    arrays.write_text(
        "struct map { char *values; char pad[60]; unsigned stride, entries; };\n"
        "char *array_lookup(struct map *map, const unsigned *key)\n"
        "{ return *key < map->entries ? map->values + (unsigned long)*key * map->stride : 0; }\n"
    )
    objects = []
    for unit in (source, arrays, ROUTINES):
        objects.append(folder / f"{unit.stem}.o")
        # Hidden functions are called directly, not through the table that shared objects have.
        visibility = "default" if unit is source else "hidden"
        flags = ["-O2", "-fno-strict-aliasing", "-fPIC", f"-fvisibility={visibility}"]
        subprocess.run(["gcc", *flags, "-c", unit, "-o", objects[-1]], check=True)
    subprocess.run(["gcc", "-shared", "-o", library, *objects], check=True)
    function = ctypes.CDLL(str(library)).run
    function.restype, function.argtypes = ctypes.c_uint64, [ctypes.c_uint64]
    return lambda address: int(function(address))


def timed(function: Callable[[], object]) -> float:
    """Return the nanoseconds of one key in one run."""
    start = time.perf_counter_ns()
    function()
    return (time.perf_counter_ns() - start) / COUNT


def measure(case: Case, rounds: int, folder: Path | None) -> tuple[float, float | None]:
    """Return nanoseconds of one operation: ours, and gcc's where there is a compiler."""
    times = []
    for operation in (case.operation, "nothing"):
        m = filled(case)
        function = program(m, case, operation).compile()
        memory = bytearray(8)
        loop = in_c(case, operation, folder) if folder is not None else None
        assert loop is None or loop(m.address) == function(memory) or "delete" in operation, case
        ours, natives = [], []
        for _ in range(rounds):  # in turns, as other work on the machine comes and goes
            ours.append(timed(lambda f=function, b=memory: f(b)))
            if loop is not None:
                natives.append(timed(lambda f=loop, a=m.address: f(a)))
        times.append((min(ours), min(natives, default=None)))
    (ours, native), (nothing, native_nothing) = times
    if native is None or native_nothing is None:
        return ours - nothing, None
    return ours - nothing, native - native_nothing


def python_side() -> list[tuple[str, float]]:
    """Return what Python's own operations take, in nanoseconds."""
    rows = []
    for kind in ("array", "hash"):
        m: Any = create(MapDefinition("m", MapType[kind.upper()], 4, 8, 1000))
        key, value = (5).to_bytes(4, "little"), bytes(8)
        m[key] = value
        start = time.perf_counter_ns()
        for _ in range(20_000):
            m[key]
        middle = time.perf_counter_ns()
        for _ in range(20_000):
            m[key] = value
        end = time.perf_counter_ns()
        rows += [(f"{kind}: m[key]", (middle - start) / 20_000)]
        rows += [(f"{kind}: m[key] = value", (end - middle) / 20_000)]
    for kind in ("array", "hash", "lru_hash"):
        start = time.perf_counter_ns()
        create(MapDefinition("m", MapType[kind.upper()], 4, 8, COUNT))
        rows.append((f"{kind} of a million entries: create", float(time.perf_counter_ns() - start)))
    return rows


def markdown(rows: list[tuple[Case, float, float | None]], python: list[tuple[str, float]]) -> str:
    """Return the section of RESULTS.md."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    model = next(models, platform.machine())
    lines = [
        "## Maps",
        "",
        "    python benchmarks/maps.py --write",
        "",
        f"{date.today()}, {model}, Linux {platform.release()}, CPython {platform.python_version()}.",
        "",
        "Nanoseconds above the same loop without the operation; gcc: the same routine on the same memory,",
        "compiled by gcc -O2 and called as a function. Memory checks and the instruction budget are in ours.",
        "",
        "| map | ours | gcc | ours/gcc |",
        "| --- | ---: | ---: | ---: |",
    ]
    for case, ours, native in rows:
        ratio = f"{ours / native:.2f}" if native else "-"
        lines.append(f"| {case.name} | {ours:.1f} | {'-' if native is None else f'{native:.1f}'} | {ratio} |")
    lines += ["", "From Python:", "", "| operation | ns |", "| --- | ---: |"]
    lines += [f"| {name} | {nanoseconds:,.0f} |" for name, nanoseconds in python]
    return "\n".join(lines) + "\n"


def write(section: str) -> None:
    """Replace the section in RESULTS.md, or add it at the end."""
    text = RESULTS.read_text()
    start = text.find("## Maps\n")
    if start < 0:
        RESULTS.write_text(text.rstrip("\n") + "\n\n" + section)
        return
    end = text.find("\n## ", start + 1)
    RESULTS.write_text(text[:start] + section + (text[end:] if end >= 0 else ""))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--markdown", action="store_true", help="print the section of RESULTS.md")
    parser.add_argument("--write", action="store_true", help="replace that section in RESULTS.md")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) if shutil.which("gcc") else None
        for case in CASES:
            ours, native = measure(case, arguments.rounds, folder)
            rows.append((case, ours, native))
            shown = "-" if native is None else f"{native:.2f} ns, {ours / native:.2f}x"
            sys.stderr.write(f"{case.name:65} {ours:6.2f} ns   gcc {shown}\n")
    section = markdown(rows, python_side())
    if arguments.write:
        write(section)
    elif arguments.markdown:
        sys.stdout.write(section)


if __name__ == "__main__":
    main()
