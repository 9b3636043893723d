"""What each R_BPF_* relocation means, as named arithmetic, and where the calls of a section go.

LLVM Documentation, BPF relocations (docs.kernel.org/bpf/llvm_reloc.html): S is the value of the
symbol, A the addend, which sits in the instruction: `imm` counts slots from the next instruction in
a call, bytes in a constant.

    call -1          R_BPF_64_32  helper      ->  S + (imm + 1) * 8    A = 0
    call 5           R_BPF_64_32  .text       ->  S + (imm + 1) * 8    A = 48
    r1 = 16 ll       R_BPF_64_64  .text       ->  S + imm              A = 16
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from ebpfjit.elf.reader import Relocation, Section, Symbol
from ebpfjit.isa.spec import Kind
from ebpfjit.program import Instruction
from ebpfjit.record import dataclass


class Use(Enum):
    """What an instruction does with the place that its relocation names."""

    CALL = "calls"
    ADDRESS = "refers to"


@dataclass(frozen=True, slots=True)
class RelocationType:
    """One R_BPF_* type: the instruction it belongs to, its use and its addend in bytes."""

    name: str
    kind: Kind
    use: Use
    addend: Callable[[Instruction], int]


def call_addend(instruction: Instruction) -> int:
    """Return A of a call: imm counts slots from the next instruction."""
    return (instruction.imm + 1) * 8


def constant_addend(instruction: Instruction) -> int:
    """Return A of a wide load: imm counts bytes."""
    return instruction.imm


#  number                            name           instruction       use          addend
RELOCATION_TYPES: dict[int, RelocationType] = {
    1: RelocationType("R_BPF_64_64", Kind.LOAD_IMM64, Use.ADDRESS, constant_addend),
    10: RelocationType("R_BPF_64_32", Kind.CALL_LOCAL, Use.CALL, call_addend),
}

R_BPF_NONE = 0
"""What LLVM before 3.9 wrote: then the instruction says which type is meant."""

R_BPF_64_ABS64 = 2

UNSUPPORTED_NAMES = {R_BPF_64_ABS64: "R_BPF_64_ABS64", 3: "R_BPF_64_ABS32", 4: "R_BPF_64_NODYLD32"}
"""Types that fill data, not instructions: they mean nothing in a section of instructions."""

TYPE_OF_KIND = {type_.kind: number for number, type_ in RELOCATION_TYPES.items()}


class RelocationError(Exception):
    """A relocation that cannot be applied, said without the file and the place."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a relocation points: `offset` bytes (S + A) into `section`, where `symbol` is.

    `section` is None where no section of the file defines the symbol.
    """

    use: Use
    symbol: Symbol
    section: Section | None
    offset: int


def kind_of(instruction: Instruction | None) -> Kind | None:
    """Return an instruction's kind; LLVM before 6 wrote calls to be linked as `call helper -1`."""
    if instruction is None or instruction.row is None:
        return None
    kind = instruction.row.kind
    return Kind.CALL_LOCAL if kind is Kind.CALL_HELPER and instruction.imm == -1 else kind


def resolve(relocation: Relocation, instruction: Instruction | None) -> Target | None:
    """Return the place that `relocation` of `instruction` stands for, None where it says nothing.

    `instruction` is None where the relocation is at the second slot of a wide load. Raises
    RelocationError for unknown types and for types that do not belong to the instruction.
    """
    number, kind = relocation.type, kind_of(instruction)
    symbol = relocation.symbol
    if number == R_BPF_NONE:
        if kind not in TYPE_OF_KIND:
            return None
        number = TYPE_OF_KIND[kind]
    type_ = RELOCATION_TYPES.get(number)
    if type_ is None:
        name = UNSUPPORTED_NAMES.get(number, f"type {number}")
        raise RelocationError(f"relocation {name} against {symbol} is not supported")
    if instruction is None or kind is not type_.kind:
        found = "no instruction" if instruction is None or instruction.row is None else instruction.row.name
        raise RelocationError(f"relocation {type_.name} against {symbol} does not fit {found}")
    addend = relocation.addend or type_.addend(instruction)
    return Target(type_.use, symbol, symbol.section, symbol.value + addend)
