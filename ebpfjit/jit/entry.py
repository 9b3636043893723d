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
from ebpfjit.translators.x86_64.target import BLOCK_SIZE, BLOCK_WORDS, FAULTS, REGION_SIZE

SLICE = 1 << 24
"""Instructions between two looks for pending signals: some tens of milliseconds."""

_STUB = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * 6)
_ENTRY = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)
_POLL = ctypes.CFUNCTYPE(None, ctypes.c_uint64)
_WORD = {name: 8 * index for index, name in enumerate(BLOCK_WORDS)}


class _Run:
    """A run that machine code is in the middle of: its block, its regions, what a helper raised."""

    def __init__(self, compiled: Compiled, execution: Execution) -> None:
        self.execution = execution
        self.space = execution.space
        self.error: BaseException | None = None
        self.block = bytearray(BLOCK_SIZE + 8 * len(compiled.listing.limits))
        self._pin = (ctypes.c_char * len(self.block)).from_buffer(self.block)
        self.address = ctypes.addressof(self._pin)
        self._tables: list[Any] = []
        self._known = 0
        limit = execution.limit
        first = SLICE if limit is None else min(limit, SLICE)
        self.later: int | None = None if limit is None else limit - first
        stack, packet, argument = execution.stack, execution.packet, execution.argument
        words = {
            "argument_start": argument.start if argument else 0,
            "packet_start": packet.start if packet else 0,
            "packet_size": packet.size if packet else 0,
            "stack_start": stack.start,
            "stack_top": stack.top,
            "stack_limit": stack.limit,
            "budget": first,
            "frames_left": MAX_FRAMES - 1,
            "argument_1": execution.arguments[0],
            "argument_2": execution.arguments[1],
            "poll": _POLL_ADDRESS,
        }
        for name, value in words.items():
            self.set_word(name, value)
        regions = {"argument": argument, "packet": packet}
        for index, (name, span, stores) in enumerate(compiled.listing.limits):
            region = regions[name]
            room = region.size - span + 1 if region and (region.writable or not stores) else 0
            struct.pack_into("<Q", self.block, BLOCK_SIZE + 8 * index, max(room, 0))
        self.publish_regions()

    def word(self, name: str) -> int:
        """Return a word of the block, unsigned."""
        value: int = struct.unpack_from("<Q", self.block, _WORD[name])[0]
        return value

    def set_word(self, name: str, value: int) -> None:
        """Set a word of the block."""
        struct.pack_into("<Q", self.block, _WORD[name], value)

    def publish_regions(self) -> None:
        """Give machine code the table of regions, anew where a helper granted some."""
        regions = self.space.regions
        if len(regions) == self._known:
            return
        self._known = len(regions)
        stack = self.execution.stack.region
        rows = [(r.start, r.stop, r.writable) for r in regions if r is not stack]
        table = (ctypes.c_uint64 * (3 * len(rows)))(*(word for row in rows for word in row))
        self._tables.append(table)
        self.set_word("regions_start", ctypes.addressof(table))
        self.set_word("regions_stop", ctypes.addressof(table) + REGION_SIZE * len(rows))

    def report(self, kind: str, error: BaseException | None = None) -> None:
        """Make machine code stop where it is."""
        self.error = error
        self.set_word("fault_kind", FAULTS.index(kind))


_runs: dict[int, _Run] = {}
"""Runs by the address of their block: what a helper stub is told."""


def _poll(address: int) -> None:
    """Refill the budget at the end of a slice, or stop: no instructions left, or a signal."""
    run = _runs[address]
    try:
        ctypes.pythonapi.PyErr_CheckSignals()
    except BaseException as error:  # what a signal handler raises is raised again by run()
        run.report("helper_raised", error)
        return
    more = SLICE if run.later is None else min(run.later, SLICE)
    if more == 0:
        run.report("budget")
        return
    if run.later is not None:
        run.later -= more
    run.set_word("budget", run.word("budget") + more)


_POLL_FUNCTION = _POLL(_poll)
_POLL_ADDRESS = ctypes.cast(_POLL_FUNCTION, ctypes.c_void_p).value or 0


@dataclass(frozen=True)
class Compiled:
    """A program as machine code, ready to be called by any number of threads at once."""

    verified: Verified
    listing: Listing
    image: Image
    buffer: CodeBuffer
    stubs: tuple[Any, ...] = field(repr=False)

    def run(self, execution: Execution) -> int:
        """Run the program and return r0, unsigned; raises what the interpreter raises."""
        run = _Run(self, execution)
        _runs[run.address] = run
        try:
            with active(run.space):
                result: int = _ENTRY(self.buffer.address + self.image.entry)(run.address)
        finally:
            del _runs[run.address]
            if run.later is not None:
                execution.budget_left = run.word("budget") + run.later
        kind = FAULTS[run.word("fault_kind")]
        if kind != "none":
            raise _exception(self, run, kind)
        return result


def _stub(function: HelperFunction) -> Any:
    """Return a C function that calls a Python helper; what it raises is kept for the run."""

    def call(r1: int, r2: int, r3: int, r4: int, r5: int, block: int) -> int:
        run = _runs[block]
        # Helpers see the stack as far down as the callee's frame reaches now.
        run.execution.stack.start = run.word("stack_start")
        try:
            result = call_helper(function, (r1, r2, r3, r4, r5))
        except BaseException as error:  # raised again by run()
            run.report("helper_raised", error)
            return 0
        run.publish_regions()
        return result

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
            return faults.memory_fault(pc, address, row.size, access, run.space.regions)
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
    harden: bool = False,
    argument_size: int = 0,
    features: frozenset[str] | None = None,
) -> Compiled:
    """Compile a program for this machine.

    `helpers` and `kfuncs` are bound now: a call of any other number is HelperNotFound when it is
    reached. Without `checked` memory accesses are not checked: a wrong program can crash the
    process. `harden` blinds constants (two more instructions for each immediate) and puts guard
    pages around the code (two pages of address space). `argument_size` is how many bytes,
    readable and writable, every run will have behind r1. `features` are CPU features to use, by
    default those that the processor has. Raises JitUnavailable where machine code cannot be made
    or run here.
    """
    cpu.target()
    helpers, kfuncs = dict(helpers or {}), dict(kfuncs or {})
    settings = settings_for(
        features=cpu.features() if features is None else features,
        harden=harden,
        helpers=frozenset(helpers),
        kfuncs=frozenset(kfuncs),
    )
    listing = translate(verified, settings, checked=checked, argument_size=argument_size)
    image = assemble(listing)
    stubs: list[Any] = []
    symbols: dict[str, int] = {}
    for prefix, functions in (("helper", helpers), ("kfunc", kfuncs)):
        for number, function in functions.items():
            symbol = f"{prefix}_{number}"
            if symbol in image.slots:
                symbols[symbol] = _address_of_helper(function, stubs)
    buffer = CodeBuffer(relocate(image, symbols), guarded=harden)
    return Compiled(verified, listing, image, buffer, tuple(stubs))


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
