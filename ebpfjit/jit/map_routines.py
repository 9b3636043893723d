"""Routines of maps as bare native functions, which machine code and Python call.

    routines/*.bin -> Program -> Listing of a bare function -> code
    f(header, key, value, flags) -> r0, by the System V ABI

They are compiled when the first program needs one, all together, and stay for good.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from ebpfjit.analysis.verified import Verified, prepare
from ebpfjit.jit import cpu
from ebpfjit.jit.assembler import codes_for
from ebpfjit.jit.code_buffer import CodeBuffer
from ebpfjit.jit.compiler import settings_for, translate_routine
from ebpfjit.jit.relocation import layout, relocate
from ebpfjit.program import Program
from ebpfjit.runtime.maps import bytecode


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
    verified: Verified = prepare(program)
    listing = translate_routine(verified, settings_for(features=cpu.features()))
    image = layout(listing, codes_for(listing.pieces, repeats=True))
    buffer = CodeBuffer(relocate(image, {}))
    return NativeRoutine(buffer.address + image.entry, buffer)


@cache
def native_routines() -> Mapping[str, NativeRoutine]:
    """Return every routine of maps, by name."""
    return {name: compile_routine(bytecode.routine(name)) for name in bytecode.ARGUMENTS}
