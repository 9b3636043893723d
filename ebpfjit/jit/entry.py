"""From Python into machine code and back: the block, helper stubs, faults as exceptions."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ebpfjit.analysis.verified import Verified
from ebpfjit.jit import cpu
from ebpfjit.jit.assembler import stencils_for
from ebpfjit.jit.code_buffer import CodeBuffer
from ebpfjit.jit.compiler import Listing, settings_for, translate
from ebpfjit.jit.relocation import Image, layout, relocate
from ebpfjit.runtime import faults
from ebpfjit.runtime.execution import Execution, HelperFunction, NativeHelper, call_helper
from ebpfjit.runtime.memory import MAX_FRAMES, active
from ebpfjit.translators.emitter import Line
from ebpfjit.translators.x86_64.target import BLOCK_SIZE, BLOCK_WORDS, FAULTS

ENDLESS = (1 << 63) - 1
_STUB = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * 6)
_ENTRY = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)
_WORD = {name: 8 * index for index, name in enumerate(BLOCK_WORDS)}


@dataclass(slots=True)
class _Run:
    """A run that machine code is in the middle of: its block, and what a helper raised."""

    execution: Execution
    block: bytearray
    error: BaseException | None = None

    def word(self, name: str) -> int:
        """Return a word of the block, unsigned."""
        return int.from_bytes(self.block[_WORD[name] : _WORD[name] + 8], "little")


_runs: dict[int, _Run] = {}
"""Runs by the address of their block: what a helper stub is told."""


@dataclass(frozen=True)
class Compiled:
    """A program as machine code, ready to be called by any number of threads at once."""

    verified: Verified
    listing: Listing
    image: Image
    buffer: CodeBuffer
    helpers: Mapping[int, HelperFunction]
    stubs: tuple[Any, ...] = field(repr=False)

    def run(self, execution: Execution) -> int:
        """Run the program and return r0, unsigned; raises what the interpreter raises."""
        block = _make_block(execution)
        pin = (ctypes.c_char * len(block)).from_buffer(block)
        address = ctypes.addressof(pin)
        run = _Run(execution, block)
        _runs[address] = run
        try:
            with active(execution.space):
                result: int = _ENTRY(self.buffer.address + self.image.entry)(address)
        finally:
            del _runs[address]
        kind = FAULTS[run.word("fault_kind")]
        if kind != "none":
            raise _exception(self, run, kind)
        return result


def _make_block(execution: Execution) -> bytearray:
    stack = execution.stack
    block = bytearray(BLOCK_SIZE)
    regions = execution.regions
    packet = execution.packet
    for region in regions:
        block += struct.pack("<QQQ", region.start, region.stop, region.writable)
    pin = (ctypes.c_char * len(block)).from_buffer(block)
    words = {
        "stack_start": stack.start,
        "stack_top": stack.top,
        "stack_limit": stack.limit,
        "budget": ENDLESS if execution.limit is None else execution.limit,
        "frames_left": MAX_FRAMES - 1,
        "argument_1": execution.arguments[0],
        "argument_2": execution.arguments[1],
        "packet_start": packet.start if packet else 0,
        "packet_size": packet.size if packet else 0,
        "regions_stop": ctypes.addressof(pin) + len(block),
    }
    for name, value in words.items():
        block[_WORD[name] : _WORD[name] + 8] = value.to_bytes(8, "little")
    return block


def _stub(function: HelperFunction) -> Any:
    """Return a C function that calls a Python helper; what it raises is kept for the run."""

    def call(r1: int, r2: int, r3: int, r4: int, r5: int, block: int) -> int:
        run = _runs[block]
        # Helpers see the stack as far down as the callee's frame reaches now.
        run.execution.stack.start = run.word("stack_start")
        try:
            return call_helper(function, (r1, r2, r3, r4, r5))
        except BaseException as error:
            run.error = error
            kind = FAULTS.index("helper_raised")
            run.block[_WORD["fault_kind"]] = kind
            return 0

    return _STUB(call)


def _exception(compiled: Compiled, run: _Run, kind: str) -> BaseException:
    """Return the exception that the interpreter raises for the same fault."""
    program = compiled.verified.program
    pc = compiled.image.pc_at(run.word("fault_place") - compiled.buffer.address - 1)
    assert pc is not None  # faults are only raised by code that belongs to an instruction
    run.execution.stack.start = run.word("stack_start")
    address = run.word("fault_address")
    if kind == "illegal":
        reason = compiled.verified.illegal.get(pc, "control fell off the end of the program")
        return faults.illegal_instruction(pc, reason)
    instruction = program.slots[pc]
    assert instruction is not None  # code belongs to slots where instructions start
    row = instruction.row
    assert row is not None  # what no row matches is "illegal"
    match kind:
        case "memory":
            access = faults.access_of(row)
            return faults.memory_fault(pc, address, row.size, access, run.execution.space.regions)
        case "alignment":
            return faults.alignment_fault(pc, address, row.size)
        case "target":
            return faults.bad_target(instruction, len(program))
        case "function":
            return faults.bad_function(pc, address)
        case "budget":
            return faults.budget_exhausted(pc, run.execution.limit)
        case "depth":
            return faults.call_depth_exceeded(pc, MAX_FRAMES)
        case "helper_missing":
            return faults.helper_not_found(instruction)
        case _:
            assert run.error is not None  # helper_raised: the stub kept it
            return faults.locate(run.error, pc)


def compile_program(
    verified: Verified,
    *,
    helpers: Mapping[int, HelperFunction] | None = None,
    kfuncs: Mapping[int, HelperFunction] | None = None,
    checked: bool = True,
    features: frozenset[str] | None = None,
) -> Compiled:
    """Compile a program for this machine.

    `helpers` and `kfuncs` are bound now: a call of any other number is HelperNotFound when it is
    reached. `features` are CPU features to use, by default those that the processor has.
    Raises JitUnavailable where machine code cannot be made or run here.
    """
    cpu.target()
    helpers, kfuncs = dict(helpers or {}), dict(kfuncs or {})
    settings = settings_for(
        checked=checked,
        features=cpu.features() if features is None else features,
        helpers=frozenset(helpers),
        kfuncs=frozenset(kfuncs),
    )
    listing = translate(verified, settings)
    image = assemble(listing)
    stubs: list[Any] = []
    symbols: dict[str, int] = {}
    for prefix, functions in (("helper", helpers), ("kfunc", kfuncs)):
        for number, function in functions.items():
            symbol = f"{prefix}_{number}"
            if symbol in image.slots:
                symbols[symbol] = _address_of_helper(function, stubs)
    buffer = CodeBuffer(relocate(image, symbols))
    return Compiled(verified, listing, image, buffer, helpers, tuple(stubs))


def assemble(listing: Listing) -> Image:
    """Return the machine code of a listing. Calls keystone at most once."""
    lines = (item for piece in listing.pieces for item in piece.items if isinstance(item, Line))
    return layout(listing, stencils_for(lines))


def _address_of_helper(function: HelperFunction, stubs: list[Any]) -> int:
    """Return the address that machine code calls; what must live as long goes to `stubs`."""
    if isinstance(function, NativeHelper):
        stubs.append(function)
        return function.address
    stub = _stub(function)
    stubs.append(stub)
    return ctypes.cast(stub, ctypes.c_void_p).value or 0
