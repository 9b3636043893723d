"""Routines of maps as bare native functions, which machine code and Python call.

    routines/*.bin -> Program -> Listing of a bare function -> code
    f(header, key, value, flags) -> r0, by the System V ABI

Each is compiled when the first program needs it, and stays for good.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from ebpfjit.analysis.verified import Verified, prepare
from ebpfjit.isa.spec import FRAME_POINTER, Kind
from ebpfjit.jit import cpu
from ebpfjit.jit.assembler import assemble_parts
from ebpfjit.jit.code_buffer import CodeBuffer
from ebpfjit.jit.image import relocate
from ebpfjit.jit.lower import lower, written_registers
from ebpfjit.jit.recipe import Listing, Recipe
from ebpfjit.jit.relocation import layout
from ebpfjit.once import import_alone, once
from ebpfjit.optimizer.code import PAY, Code
from ebpfjit.optimizer.passes import Known, optimised
from ebpfjit.optimizer.registers import place
from ebpfjit.options import NOTHING_PROMISED
from ebpfjit.program import Program
from ebpfjit.record import dataclass, replace
from ebpfjit.runtime.maps import bytecode
from ebpfjit.runtime.memory import STACK_FRAME_SIZE
from ebpfjit.translators.labels import function_label, map_symbol
from ebpfjit.translators.plan import Plan


@dataclass(frozen=True, slots=True)
class NativeRoutine:
    """A bare function in machine code: `address` is good while the buffer is kept."""

    address: int
    buffer: CodeBuffer


def compile_routine(program: Program) -> NativeRoutine:
    """Compile a program of one function that calls nothing into a bare function.

    Its arguments are r1 to r5, its result r0, by the System V ABI. Nothing is checked or counted: the
    program must be right. Raises JitUnavailable where machine code cannot be made or run here.
    """
    cpu.target()
    listing = translate_routine(prepare(program))
    assemble_parts(listing.parts)
    image = layout(listing)
    buffer = CodeBuffer(relocate(image, {}))
    if os.environ.get("EBPFJIT_PERF"):
        name = {program.name or "map": 0}
        import_alone("ebpfjit.jit.perf").tell_routines(name, image.code, buffer.address)
    return NativeRoutine(buffer.address + image.entry, buffer)


def translate_routine(verified: Verified) -> Listing:
    """Return the text of a bare function: r1 to r5 are what it is called with, r0 what it returns.

    There is no block, no check and no budget; below r10 lies as much stack as the program names. The
    program is one function that calls nothing.
    """
    program = verified.program
    machine = cpu.machine()
    code = _without_payments(optimised(verified, Known(NOTHING_PROMISED), checked=False))
    placed = place(code, machine.values)
    plan, settings = Plan({}, frozenset()), Recipe(verified).settings
    cx = machine.context(program, verified.frame_sizes, plan, settings)
    cx.pinned = None  # r11 has values
    routine = machine.routine(written_registers(placed), _depth(code))
    routine.enter(cx)
    cx.jump("jmp", function_label(0))
    cx.before_exit = routine.leave
    left = lower(cx, [placed], machine.values, checked=False)
    assert not left  # there is no baseline code
    assert not cx.used  # it needs nothing of what programs share
    return Listing(verified, cx.text(), (), {})


def _without_payments(code: Code) -> Code:
    """Return code that counts nothing."""
    kept = [tuple([op for op in block.ops if op.row is not PAY]) for block in code.blocks]
    blocks = [replace(block, ops=ops) for block, ops in zip(code.blocks, kept, strict=True)]
    return replace(code, blocks=tuple(blocks))


def _depth(code: Code) -> int:
    """Return how many bytes below r10 a program may touch, 0 where code does without.

    All of a frame, where it does anything with r10 but access memory at a distance that is said.
    """
    if FRAME_POINTER not in code.entries[0].registers:
        return 0
    depth = 0
    for insn in code.verified.program.instructions:
        row = insn.row
        assert row is not None  # the verifier saw the program
        is_load = row.kind is Kind.LOAD
        base, other = (insn.src_reg, insn.dst_reg) if is_load else (insn.dst_reg, insn.src_reg)
        if base == FRAME_POINTER and row.kind in (Kind.LOAD, Kind.STORE):
            depth = max(depth, -insn.offset)
        if other == FRAME_POINTER and not is_load and row.uses_src:
            return STACK_FRAME_SIZE
    return depth


@once
def native_routine(name: str) -> NativeRoutine:
    """Return a routine of maps (`bytecode.ARGUMENTS` has the names). Raises as `compile_routine`."""
    return compile_routine(bytecode.routine(name))


def map_routine_addresses(symbols: Iterable[str]) -> dict[str, int]:
    """Return the addresses of those symbols that are routines of maps."""
    known = {map_symbol(name): name for name in bytecode.ARGUMENTS}
    return {symbol: native_routine(known[symbol]).address for symbol in symbols if symbol in known}
