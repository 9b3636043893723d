"""Which calls of map helpers machine code does by itself: those on a map that analysis knows, or guesses."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ebpfjit.analysis.verified import Verified
from ebpfjit.isa.spec import Kind
from ebpfjit.isa.table import BY_NAME
from ebpfjit.jit.audit import audited
from ebpfjit.jit.routines import routines
from ebpfjit.once import once
from ebpfjit.options import Options
from ebpfjit.record import replace
from ebpfjit.runtime.helpers.names import DELETE, LOOKUP, UPDATE
from ebpfjit.runtime.maps.bytecode import ARRAYS, HASHES, routine_of
from ebpfjit.runtime.maps.definition import MapType
from ebpfjit.runtime.maps.rules import LRU
from ebpfjit.runtime.memory import FREE_SIZE
from ebpfjit.translators.labels import TAKE_MAP
from ebpfjit.translators.plan import MapCall, MapOperation

if TYPE_CHECKING:
    from ebpfjit.optimizer.code import Code
    from ebpfjit.optimizer.facts import Facts

OPERATIONS = {LOOKUP: MapOperation.LOOKUP, UPDATE: MapOperation.UPDATE, DELETE: MapOperation.DELETE}
FLAT = ARRAYS | HASHES
LARGEST_STRIDE = 1 << 30
CALL = BY_NAME["CALL"]
InFrame = Mapping[int, Mapping[int, int]]


def map_calls(
    verified: Verified, maps: Mapping[int, int], in_frame: InFrame, options: Options, *, sure: bool = True
) -> dict[int, MapCall]:
    """Return the calls (by pc) that need no Python helper; in an audit build, what is audited of them.

    `maps` has for calls (by pc) the map that they are surely given, by index, or likely, where that is not
    `sure`; `in_frame` how many bytes from an argument on are surely in the frame, by its register.
    None in hardened code, which has no numbers that an object chose, and none where steps are traced.
    Tables that code without Python's lock uses are shared from now on.
    """
    if options.harden or options.trace:
        return {}
    found: dict[int, MapCall] = {}
    # Without a frame of its own a function leaves r10 where its caller's was, or nowhere.
    frame_size = 0 if sure and verified.calls.frameless else min(verified.frame_sizes.values())
    for pc, index in maps.items():
        insn = verified.program.slots[pc]
        assert insn is not None  # calls are instructions
        if insn.imm in options.map_helpers:
            map_ = verified.program.maps[index]
            guard = 0 if sure else map_.address
            call = _map_call(in_frame.get(pc, {}), insn.imm, map_, frame_size, guard, checked=options.checked)
            if call is not None and call.busy and options.release_gil:
                map_.share(_take_map())
                only_reads = insn.imm == LOOKUP and map_.definition.type not in LRU
                call = replace(call, locks=True, only_reads=only_reads)
            if call is not None:
                found[pc] = audited(call, map_) if options.audit else call
    return found


@once
def _take_map() -> Callable[[int], int]:
    """Return what takes the lock of a table for Python: the caller keeps Python's own meanwhile."""
    function: Callable[[int], int] = _TAKE(routines().addresses[TAKE_MAP])
    return function


_TAKE = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


def known_maps(code: Code) -> dict[int, int]:
    """Return for the calls (by pc) that are given a map which is a constant its index in `Program.maps`."""
    places = {map_.address: index for index, map_ in enumerate(code.verified.program.maps)}
    if not places:
        return {}
    ops = [op for block in code.blocks for op in block.ops]
    constants = {op.results[0]: op.imm for op in ops if op.row.kind is Kind.LOAD_IMM64}
    given: dict[int, set[int | None]] = {}
    for op in ops:
        if op.row.kind is Kind.CALL_HELPER:
            given.setdefault(op.pc, set()).add(constants.get(op.args[0]))
    found = {pc: numbers.pop() for pc, numbers in given.items() if len(numbers) == 1}
    return {pc: places[number] for pc, number in found.items() if number in places}


def in_frame(code: Code, facts: Facts | None) -> dict[int, dict[int, int]]:
    """Return for calls (by pc) how many bytes from an argument on are surely in the frame, by its register.

    As where a bound falls by the rule "frame"; for keys and values, which are in r2 and r3.
    """
    found: dict[int, dict[int, int]] = {}
    if facts is None or CALL not in code.verified.program.rows:
        return found
    for block in code.blocks:
        for op in block.ops:
            if op.row is not CALL:
                continue
            here = {register: _room(code, facts, op.args[register - 1]) for register in (2, 3)}
            before = found.get(op.pc, here)  # it may be there more than once
            found[op.pc] = {register: min(here[register], before[register]) for register in here}
    return found


def _room(code: Code, facts: Facts, value: int) -> int:
    """Return how many bytes from a value on are in the frame of the running function, as far as is known."""
    place = facts.place(value) if value < facts.count else None  # later passes made the others
    if place is None or place[0] < facts.frame:
        return 0
    region, low, high = place
    size = code.verified.frame_sizes[facts.functions[region - facts.frame]]
    return max(-high, 0) if -size <= low else 0


def _map_call(
    in_frame: Mapping[int, int], helper: int, map_: Any, frame_size: int, guard: int, *, checked: bool
) -> MapCall | None:
    """Return one call, None where it takes the Python helper."""
    from ebpfjit.runtime.maps.flat import HEADER  # there, as there is a map
    from ebpfjit.runtime.maps.hash import LONGEST_KEY

    definition = map_.definition
    is_trie = definition.type is MapType.LPM_TRIE and helper == LOOKUP
    if not (is_trie or definition.type in FLAT) or (map_.is_readonly and helper != LOOKUP):
        return None
    if definition.special and helper != LOOKUP:
        return None  # routines copy whole values
    if definition.type in ARRAYS and map_.stride > LARGEST_STRIDE:
        return None
    copied = map_.stride * map_.cpus if helper == UPDATE else 0
    if definition.key_size > LONGEST_KEY or copied > FREE_SIZE:
        return None  # which costs more than the call, and that is for the helper to say

    def to_check(register: int, size: int) -> int:
        return size if checked and in_frame.get(register, 0) < size else 0

    return MapCall(
        OPERATIONS[helper],
        to_check(2, definition.key_size),
        to_check(3, definition.value_size) if helper == UPDATE else 0,
        routine_of(definition, helper),
        map_.regions[0].start if definition.type == MapType.ARRAY else 0,
        definition.max_entries,
        map_.stride,
        frame_size,
        0 if definition.type in ARRAYS else HEADER["busy"],
        guard,
        HEADER["lengths"] if is_trie else 0,
        map_.data_bits if is_trie else 0,
    )
