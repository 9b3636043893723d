"""Inputs of programs by their types: how large, drawn at random; numbers that decide where programs go."""

from __future__ import annotations

import random

from ebpfjit.difftest import frames
from ebpfjit.isa.spec import Kind
from ebpfjit.program import Program
from ebpfjit.runtime.contexts.packet import LINK_HEADER_SIZE
from ebpfjit.runtime.contexts.types import program_type


def least_size(type_: str | None) -> int:
    """Return how many bytes an input of a program type has at least."""
    if type_ is None:
        return 0
    known = program_type(type_)
    return LINK_HEADER_SIZE if known.has_packet else known.data_size or 0


def fixed_size(type_: str | None) -> int | None:
    """Return how many bytes each input has, None where they may differ."""
    return None if type_ is None or program_type(type_).has_packet else program_type(type_).data_size


def make_input(rng: random.Random, type_: str | None) -> bytes:
    """Return an input for a program of a type: a packet, the bytes of a context, or any bytes."""
    if type_ is not None and program_type(type_).has_packet:
        return frames.frame(rng)
    size = fixed_size(type_)
    return rng.randbytes(rng.randrange(129) if size is None else size)


def compared_with(program: Program) -> set[int]:
    """Return the numbers that a program compares with: what an input has to hold to go another way."""
    branches = (
        insn for insn in program.instructions if insn.row is not None and insn.row.kind is Kind.BRANCH
    )
    return {insn.imm for insn in branches if insn.row is not None and not insn.row.uses_src}
