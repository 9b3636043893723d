"""Programs with a type, on the frames, maps and helpers of `Program.run`, on every engine.

Their maps are those that `packets` writes programs for: made anew for each run, and compared after it.
Addresses are those of the run, so programs must not depend on them, and messages are not compared.
"""

from __future__ import annotations

from collections.abc import Callable

from ebpfjit.difftest.case import Case, Input
from ebpfjit.difftest.outcome import Outcome
from ebpfjit.difftest.packets import (
    ARRAY_ENTRIES,
    HASH_ENTRIES,
    KEY_SIZE,
    PROGRAM_ENTRIES,
    TAIL,
    VALUE_SIZE,
)
from ebpfjit.errors import ExecutionError, VerifierError
from ebpfjit.program import Program
from ebpfjit.runtime.maps.create import create
from ebpfjit.runtime.maps.definition import MapDefinition, MapType

DEFINITIONS = (
    MapDefinition("array", MapType.ARRAY, KEY_SIZE, VALUE_SIZE, ARRAY_ENTRIES),
    MapDefinition("hash", MapType.HASH, KEY_SIZE, VALUE_SIZE, HASH_ENTRIES),
    MapDefinition("programs", MapType.PROG_ARRAY, KEY_SIZE, 4, PROGRAM_ENTRIES),
)


def runner(case: Case, engine: str) -> Callable[[Input], Outcome | None]:
    """Return what runs a case with a type on an engine, by the engine's name."""
    return lambda given: _run(case, engine, given)


def _run(case: Case, engine: str, given: Input) -> Outcome | None:
    maps = tuple(create(definition) for definition in DEFINITIONS)
    main = _linked(case.code, case.type, maps)
    if case.tail:
        maps[-1][TAIL] = _linked(case.tail, case.type, maps)  # type: ignore[index] # an array of programs
    contents = tuple(maps[:-1])
    try:
        result = main.run(given.memory, engine=engine, limit=None if engine == "kernel" else given.limit)
    except VerifierError:
        if engine == "kernel":
            return None
        raise
    except ExecutionError as error:
        return Outcome(type(error).__name__, attributes=(("pc", error.pc),), maps=_items(contents))
    return Outcome("ok", result.return_value, memory=result.data, maps=_items(contents))


def _linked(code: bytes, type_: str, maps: tuple[object, ...]) -> Program:
    """Return a program whose references to maps are resolved."""
    references = {
        insn.pc: maps[insn.imm].address  # type: ignore[attr-defined] # a map
        for insn in Program.from_bytes(code).instructions
        if insn.row is not None and insn.row.operation == "LDDW_MAP_IDX" and 0 <= insn.imm < len(maps)
    }
    return Program(code, type=type_, references=references, maps=maps)


def _items(maps: tuple[object, ...]) -> tuple[tuple[tuple[bytes, bytes], ...], ...]:
    """Return keys and values of each map, sorted: the order of a hash is nobody's."""
    return tuple(tuple(sorted(map_.items())) for map_ in maps)  # type: ignore[attr-defined] # a map
