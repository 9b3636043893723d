"""Routines of maps as bare native functions, which machine code and Python call.

    routines/*.bin -> Program -> Listing of a bare function -> code
    f(header, key, value, flags) -> r0, by the System V ABI

Each is compiled when the first program needs it, and stays for good.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ebpfjit.analysis.verified import prepare
from ebpfjit.jit import cpu
from ebpfjit.jit.assembler import assemble_parts
from ebpfjit.jit.code_buffer import CodeBuffer
from ebpfjit.jit.compiler import translate_routine
from ebpfjit.jit.relocation import layout, relocate
from ebpfjit.once import once
from ebpfjit.program import Program
from ebpfjit.runtime.maps import bytecode
from ebpfjit.translators.x86_64.maps import symbol_of


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
    return NativeRoutine(buffer.address + image.entry, buffer)


@once
def native_routine(name: str) -> NativeRoutine:
    """Return a routine of maps (`bytecode.ARGUMENTS` has the names). Raises as `compile_routine`."""
    return compile_routine(bytecode.routine(name))


def map_routine_addresses(symbols: Iterable[str]) -> dict[str, int]:
    """Return the addresses of those symbols that are routines of maps."""
    known = {symbol_of(name): name for name in bytecode.ARGUMENTS}
    return {symbol: native_routine(known[symbol]).address for symbol in symbols if symbol in known}
