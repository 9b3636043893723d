"""A program that calls helpers, run by both engines, which must agree; and by the kernel, to compare.

Texts name maps as {name} (the map) and {name_value} (its only value): map[fd:3], map[fd:3][0]+0.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ebpfjit import kernel
from ebpfjit.analysis.verified import prepare
from ebpfjit.assembler import assemble
from ebpfjit.bits import W64
from ebpfjit.errors import ExecutionError
from ebpfjit.interpreter import interpret
from ebpfjit.isa.spec import Kind
from ebpfjit.jit.entry import compile_program
from ebpfjit.kernel import KernelMap, syscalls
from ebpfjit.program import Program
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.execution import Execution
from ebpfjit.runtime.helpers.table import bound, helpers
from ebpfjit.runtime.maps.base import Map
from ebpfjit.runtime.maps.definition import MapDefinition, MapType
from ebpfjit.runtime.memory import Region
from ebpfjit.runtime.world import World

HERE = Environment(clock=lambda: 123_456_789_000, random=lambda: 0xCAFE_F00D, cpu=0, cpus=1)


class TableMap(Map):
    """A map of the simplest kind: a dict of values that stay where they are."""

    numbers = 0x1000

    def __init__(self, definition: MapDefinition, entries: Mapping[bytes, bytes] | None = None) -> None:
        self.definition = definition
        TableMap.numbers += 8
        self.address = 0xAAAA_0000_0000_0000 + TableMap.numbers
        self.values: dict[bytes, Region] = {}
        self.queue: list[bytes] = []
        self.programs: dict[int, Any] = {}
        self.value_is_stable = True
        for key, value in (entries or {}).items():
            self.update(key, value)

    @property
    def regions(self) -> tuple[Region, ...]:  # type: ignore[override]
        return tuple(self.values.values())

    def lookup(self, key: bytes) -> int:
        return self.values[key].start if key in self.values else 0

    def lookup_on(self, key: bytes, cpu: int) -> int:
        return self.lookup(key)

    def update(self, key: bytes, value: bytes, flags: int = 0) -> int:
        if flags > 2:
            return -22
        if key in self.values:
            self.values[key].view[:] = value
        else:
            region = Region.of_buffer(self.name, bytearray(value))
            self.values[key] = replace(region, writable=not self.is_readonly)
        return 0

    def delete(self, key: bytes) -> int:
        return 0 if self.values.pop(key, None) else -2

    def keys(self) -> list[bytes]:
        return list(self.values)

    def push(self, value: bytes, flags: int) -> int:
        self.queue.append(value)
        return 0

    def pop(self) -> bytes | None:
        return self.queue.pop(0) if self.queue else None

    def peek(self) -> bytes | None:
        return self.queue[0] if self.queue else None


def make_map(name: str, kind: MapType, key: int, value: int, entries: int = 1, **more: Any) -> TableMap:
    return TableMap(MapDefinition(name, kind, key, value, entries, **more))


def constant(name: str, data: bytes) -> TableMap:
    """Return a map of one value that programs only read: .rodata."""
    definition = MapDefinition(name, MapType.ARRAY, 4, len(data), 1, is_readonly=True)
    return TableMap(definition, {bytes(4): data})


@dataclass
class Outcome:
    """What a run left: r0 (u64) or the fault, r1's memory, printed lines, events."""

    value: int | None
    data: bytes = b""
    output: list[str] = field(default_factory=list)
    events: list[tuple[str, bytes]] = field(default_factory=list)
    error: ExecutionError | None = None

    @property
    def signed(self) -> int:
        assert self.value is not None, self.error
        return W64.signed(self.value)


def filled_in(text: str, numbers: Mapping[str, int]) -> str:
    """Return the text with the names of maps replaced by what the assembler reads."""
    names = {name: f"map[fd:{number}]" for name, number in numbers.items()}
    names |= {f"{name}_value": f"map[fd:{number}][0]+0" for name, number in numbers.items()}
    return text.format(**names)


def program_with(text: str, maps: Mapping[str, Map]) -> Program:
    """Return the program, its references resolved as the loader does it."""
    numbers = {name: number for number, name in enumerate(maps, 1)}
    by_number = {number: maps[name] for name, number in numbers.items()}
    bare = Program.from_bytes(assemble(filled_in(text, numbers)))
    references = {}
    for insn in bare.instructions:
        if (
            insn.row is not None
            and insn.row.kind is Kind.LOAD_IMM64
            and insn.imm in by_number
            and insn.src_reg
        ):
            found = by_number[insn.imm]
            if insn.row.operation == "LDDW_MAP_FD":
                references[insn.pc] = found.address
            elif insn.row.operation == "LDDW_MAP_VALUE":
                references[insn.pc] = found.value_address + (insn.next_imm or 0)
    return replace(bare, references=references)


MOVING = frozenset(number for number, helper in helpers().items() if helper.ends_rights)


def _machine_code(program: Program, execution: Execution) -> int:
    return compile_program(prepare(program), helpers=execution.helpers).run(execution)


def _interpreter(program: Program, execution: Execution) -> int:
    return interpret(prepare(program), execution)


ENGINES: dict[str, Callable[[Program, Execution], int]] = {
    "interpreter": _interpreter,
    "jit": _machine_code,
}


def run_on(
    engine: str,
    text: str,
    data: bytes = b"",
    maps: Mapping[str, Map] | None = None,
    *,
    environment: Environment = HERE,
    limit: int | None = None,
    world: Callable[[World], None] | None = None,
) -> Outcome:
    """Run on one engine: r1 = memory, r2 = its size."""
    maps = maps or {}
    program = program_with(text, maps)
    memory = bytearray(data)
    region = Region.of_buffer("mem", memory)
    here = World(environment, {found.address: found for found in maps.values()})
    run = ENGINES[engine]

    def run_program(other: Program) -> int:
        return run(other, start())

    def start() -> Execution:
        regions = [region, *(r for found in maps.values() for r in found.regions)]
        arguments = (region.start if data else 0, len(data))
        return Execution(arguments, regions, argument=region, helpers=bound(), world=here, limit=limit)

    here.run_program = run_program
    if world is not None:
        world(here)
    value = error = None
    try:
        value = run(program, start())
    except ExecutionError as raised:
        error = raised
    return Outcome(value, bytes(memory), here.output, here.events, error)


def run(text: str, data: bytes = b"", maps: Callable[[], Mapping[str, Map]] = dict, **how: Any) -> Outcome:
    """Run on both engines, which must agree, each with maps of its own; return what they say."""
    first, second = (run_on(engine, text, data, maps(), **how) for engine in ENGINES)
    assert type(first.error) is type(second.error), (first.error, second.error)
    if first.error is not None and second.error is not None:
        assert first.error.pc == second.error.pc
    assert (first.value, first.data, first.output, first.events) == (
        second.value, second.data, second.output, second.events,
    )  # fmt: skip
    return first


# -- the kernel ---------------------------------------------------------------------------------

_CREATE, _FREEZE = struct.Struct("=IIIII"), 22
RDONLY_PROG = 1 << 7


class KernelTable(KernelMap):
    """A map in the kernel, created with flags too."""

    def __init__(self, kind: int, key: int, value: int, entries: int = 1, flags: int = 0) -> None:
        fd, _ = syscalls._call(syscalls.MAP_CREATE, _CREATE.pack(kind, key, value, entries, flags))
        assert fd >= 0, os.strerror(-fd)
        super(KernelMap, self).__init__(fd)
        self.key_size, self.value_size, self.max_entries = key, value, entries

    def freeze(self) -> None:
        result, _ = syscalls._call(_FREEZE, struct.pack("=I", self.fd))
        assert result == 0


def kernel_constant(data: bytes) -> KernelTable:
    """Return a map of one value that the kernel's verifier may look into."""
    table = KernelTable(MapType.ARRAY, 4, len(data), flags=RDONLY_PROG)
    table.update(data)
    table.freeze()
    return table


def run_in_kernel(
    text: str,
    data: bytes = b"",
    maps: Mapping[str, KernelMap] | None = None,
    *,
    packet: bytes | None = None,
) -> Outcome:
    """Run in the kernel as a raw program: r1 = memory, r2 = its size."""
    numbers = {name: found.fd for name, found in (maps or {}).items()}
    code = assemble(filled_in(text, numbers))
    with kernel.Kernel() as engine:
        result = engine.run_program(code, data, packet=packet)
    return Outcome(result.return_value, result.data)
