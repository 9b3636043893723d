"""Programs that call helpers: on both engines, which must agree, and in the kernel, to compare.

Texts name maps as {name} (the map) and {name_value} (its only value): map[fd:3], map[fd:3][0]+0.
Each run has maps of its own, made from their `Table`s.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from ebpfjit import kernel
from ebpfjit.analysis.accesses import Promises
from ebpfjit.analysis.verified import prepare
from ebpfjit.assembler import assemble
from ebpfjit.bits import W64
from ebpfjit.errors import ExecutionError
from ebpfjit.interpreter import interpret
from ebpfjit.isa.spec import Kind
from ebpfjit.jit.entry import compile_program
from ebpfjit.kernel import KernelMap, syscalls, unavailable_reason
from ebpfjit.options import Options
from ebpfjit.program import Program
from ebpfjit.runtime.environment import Environment, Task
from ebpfjit.runtime.execution import Execution
from ebpfjit.runtime.helpers.table import bound, helpers
from ebpfjit.runtime.maps import Map, MapDefinition, MapFlag, MapType, create
from ebpfjit.runtime.memory import Region
from ebpfjit.runtime.world import World

needs_kernel = pytest.mark.skipif(unavailable_reason() is not None, reason=str(unavailable_reason()))

HERE = Environment(
    clock=lambda: 123_456_789_000,
    random=lambda: 0xCAFE_F00D,
    task=Task(pid=21, tgid=20, uid=1000, gid=100, comm="tester", cgroup_id=7),
)


@dataclass(frozen=True)
class Table:
    """A map to be made: its type and sizes, what is in it at the start."""

    kind: MapType
    key: int = 0
    value: int = 0
    entries: int = 1
    flags: int = 0
    content: Mapping[bytes, bytes] = field(default_factory=dict)
    inner: MapDefinition | None = None
    readonly: bool = False

    def make(self, name: str, environment: Environment) -> Map:
        """Make it for our engines."""
        definition = MapDefinition(
            name, self.kind, self.key, self.value, self.entries, self.flags,
            inner=self.inner, is_readonly=self.readonly,
        )  # fmt: skip
        made = create(definition, environment=environment)
        for key, value in self.content.items():
            assert made.update(key, value) == 0
        return made

    def make_in_kernel(self) -> KernelTable:
        """Make it in the kernel."""
        flags = self.flags | (MapFlag.RDONLY_PROG if self.readonly else 0)
        made = KernelTable(self.kind, self.key, self.value, self.entries, flags)
        for key, value in self.content.items():
            made.update(value, key)
        if self.readonly:
            made.freeze()
        return made


def constant(data: bytes) -> Table:
    """Return a map of one value that programs only read: .rodata."""
    return Table(MapType.ARRAY, 4, len(data), content={bytes(4): data}, readonly=True)


@dataclass
class Outcome:
    """What a run left: r0 (u64) or the fault, r1's memory, printed lines, events, maps by name."""

    value: int | None
    data: bytes = b""
    output: list[str] = field(default_factory=list)
    events: list[tuple[str, bytes]] = field(default_factory=list)
    error: ExecutionError | None = None
    maps: Mapping[str, Any] = field(default_factory=dict)
    world: World | None = None

    @property
    def signed(self) -> int:
        """r0 as a signed number."""
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
        if insn.row is None or insn.row.kind is not Kind.LOAD_IMM64:
            continue
        if insn.row.operation == "LDDW_MAP_FD":
            references[insn.pc] = by_number[insn.imm].address
        elif insn.row.operation == "LDDW_MAP_VALUE":
            references[insn.pc] = by_number[insn.imm].value_address + (insn.next_imm or 0)
    return replace(bare, references=references)


MOVING = frozenset(number for number, helper in helpers().items() if helper.ends_rights)


OPTIONS = Options(promises=Promises(moving=MOVING))


def _machine_code(program: Program, execution: Execution) -> int:
    compiled = compile_program(prepare(program), OPTIONS, execution.helpers)
    return compiled.run(execution)


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
    maps: Mapping[str, Table] | None = None,
    *,
    environment: Environment = HERE,
    limit: int | None = None,
    arrange: Callable[[Mapping[str, Any]], None] | None = None,
    context: Any = None,
) -> Outcome:
    """Run on one engine: r1 = memory, r2 = its size; `arrange` is given the maps beforehand."""
    made = {name: table.make(name, environment) for name, table in (maps or {}).items()}
    if arrange is not None:
        arrange(made)
    program = program_with(text, made)
    memory = bytearray(data)
    region = Region.of_buffer("mem", memory)
    world = World(environment, {found.address: found for found in made.values()}, context=context)
    run = ENGINES[engine]

    def start(budget: int | None) -> Execution:
        regions = [region, *(r for found in made.values() for r in found.regions)]
        arguments = (region.start if data else 0, len(data))
        return Execution(arguments, regions, argument=region, helpers=bound(), world=world, limit=budget)

    def run_program(other: Program) -> int:
        assert world.engine is not None
        return run(other, start(world.engine.budget_left()))

    world.run_program = run_program
    value = error = None
    try:
        value = run(program, start(limit))
    except ExecutionError as raised:
        error = raised
    return Outcome(value, bytes(memory), world.output, world.events, error, made, world)


def run(text: str, data: bytes = b"", maps: Mapping[str, Table] | None = None, **how: Any) -> Outcome:
    """Run on both engines, which must agree; return what they say."""
    first, second = (run_on(engine, text, data, maps, **how) for engine in ENGINES)
    assert type(first.error) is type(second.error), (first.error, second.error)
    if first.error is not None and second.error is not None:
        assert first.error.pc == second.error.pc
    assert (first.value, first.data, first.output, first.events) == (
        second.value, second.data, second.output, second.events,
    )  # fmt: skip
    return first


# -- the kernel ---------------------------------------------------------------------------------

_CREATE, _FREEZE = struct.Struct("=IIIII"), 22


class KernelTable(KernelMap):
    """A map in the kernel, created with flags too."""

    def __init__(self, kind: int, key: int, value: int, entries: int, flags: int) -> None:
        fd, _ = syscalls._call(syscalls.MAP_CREATE, _CREATE.pack(kind, key, value, entries, flags))
        assert fd >= 0, os.strerror(-fd)
        super(KernelMap, self).__init__(fd)
        self.key_size, self.value_size, self.max_entries = key, value, entries

    def freeze(self) -> None:
        """Let nobody write it any more: the verifier may look into it then."""
        result, _ = syscalls._call(_FREEZE, struct.pack("=I", self.fd))
        assert result == 0


def in_kernel(
    text: str,
    data: bytes = b"",
    maps: Mapping[str, Table] | None = None,
    *,
    packet: bytes | None = None,
) -> Outcome:
    """Run in the kernel as a raw program: r1 = memory, r2 = its size."""
    made = {name: table.make_in_kernel() for name, table in (maps or {}).items()}
    code = assemble(filled_in(text, {name: found.fd for name, found in made.items()}))
    with kernel.Kernel() as engine:
        result = engine.run_program(code, data, packet=packet)
    return Outcome(result.return_value, result.data, maps=made)


def as_linux(
    text: str, data: bytes = b"", maps: Mapping[str, Table] | None = None, *, packet: bytes | None = None
) -> Outcome:
    """Run on both engines and in the kernel, and demand the same r0, memory and array or hash contents."""
    ours, theirs = run(text, data, maps), in_kernel(text, data, maps, packet=packet)
    assert ours.error is None, ours.error
    assert (ours.signed, ours.data) == (theirs.signed, theirs.data)
    for name, table in (maps or {}).items():
        if table.kind in (MapType.ARRAY, MapType.HASH):
            for key, _ in ours.maps[name].entries():
                address = ours.maps[name].lookup(key)
                region = next(r for r in ours.maps[name].regions if r.contains(address, table.value))
                offset = address - region.start
                value = bytes(region.view[offset : offset + table.value])
                assert theirs.maps[name].lookup(key) == value, (name, key)
    return ours
