"""Claims: what translators of arithmetic, byte swaps and jumps write does what `isa.semantics` says.

For all that is in registers: dst is what the meaning gives, at all 64 bits, a jump goes where its condition
holds, no other register of the program is changed, the stack is where it was, and nothing traps.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import z3

from ebpfjit.analysis.verified import Verified, prepare
from ebpfjit.isa.spec import Kind, Row
from ebpfjit.isa.table import TABLE
from ebpfjit.jit.assembler import assemble_parts
from ebpfjit.jit.recipe import Listing, Recipe
from ebpfjit.jit.relocation import item_spans, layout
from ebpfjit.once import once
from ebpfjit.options import Options
from ebpfjit.program import Instruction, Program
from ebpfjit.prove.claims import Claim
from ebpfjit.prove.machine import NO_MEMORY, REGISTERS, STACK, Example, Path, lift
from ebpfjit.prove.meanings import result_of
from ebpfjit.prove.range_rules import bool_of
from ebpfjit.prove.symbolic import Integer, Truth, formula, variable, vector
from ebpfjit.translators import registry
from ebpfjit.translators.emitter import Label
from ebpfjit.translators.plan import Plan
from ebpfjit.translators.x86_64.target import NAME, Context, register

ROOM = "translators"
ALL_FEATURES = frozenset({"bmi2", "movbe"})
SCRATCH = frozenset({"r10"})
"""What any translator may change."""
PAIRS = ((1, 2), (2, 2), (0, 3), (3, 0), (0, 0), (3, 3), (4, 4), (4, 1), (1, 4), (0, 4), (4, 0), (3, 4),
         (4, 3), (8, 10), (9, 5), (6, 7))  # fmt: skip
"""dst and src: the same, those that stand in rax, rdx or rcx, those whose names take a prefix."""
TARGETS = (0, 3, 4, 1, 9)
NUMBERS = (0, 1, -1, 2, 3, 5, 7, 9, 10, 16, 31, 32, 33, 63, 64, 127, 128, -128, -129, 0xFF, 0xFFFF,
           0x7FFFFFFF, -0x80000000, -0x7FFFFFFF, 0x12345678, -0x6789ABCD, 1_000_000_007)  # fmt: skip
FEW = (0, 1, -1, 9, 128, 0x7FFFFFFF, -0x80000000)
TAKEN, THROUGH = "taken", "through"


@once
def verified_of(word: bytes) -> Verified:
    """Return the program of an instruction and an exit."""
    return prepare(Program.from_bytes(word + bytes([0x95]) + bytes(7)))


def context(verified: Verified, features: frozenset[str], *, harden: bool = False) -> Context:
    """Return what translators write to: of code without checks and without an account."""
    plan = Plan({}, frozenset(), bounded=True)
    settings = Recipe(verified, Options(features=features, harden=harden)).settings
    return Context(verified.program, verified.frame_sizes, plan, settings)


def paths_through(cx: Context, write: Callable[[], None], example: Example = NO_MEMORY) -> list[Path]:
    """Return the paths through what is written to a context, from its start to where it is left."""
    cx.begin(0)
    cx.label("entry")
    cx.way = TAKEN
    write()
    for name in (THROUGH, TAKEN):
        cx.label(name)
        cx.emit("ret")
    assert not cx.used, "it needs what programs share"
    listing = Listing(verified_of(b""), cx.text(), (), {})
    assemble_parts(listing.parts)
    image = layout(listing)
    items = [item for piece in listing.pieces for item in piece.items]
    offsets = {
        item.name: offset
        for item, offset in zip(items, item_spans(listing, image), strict=False)
        if isinstance(item, Label)
    }
    ends = {offsets[name]: name for name in (THROUGH, TAKEN)}
    return lift(image.code, offsets["entry"], ends, example)


def taken_path(found: list[Path]) -> Path:
    """Return one of the paths, once for each."""
    for path in found[:-1]:
        if formula(path.condition):
            return path
    return found[-1]


def is_left_as_it_was(path: Path, but: frozenset[str]) -> Truth:
    """Return whether a path changes no register but some, traps nowhere, and leaves rsp as it was."""
    same = [path.registers[name] == z3.BitVec(name, 64) for name in REGISTERS if name not in but]
    return formula(z3.And(*same, path.rsp == STACK, *map(z3.Not, path.traps)))


# -- rows that programs have ------------------------------------------------------------------------------


def word(row: Row, dst: int, src: int, imm: int) -> bytes:
    """Return an instruction of a row; its jump goes to what follows it."""
    offset = row.offset if isinstance(row.offset, int) else 0
    imm = row.imm if isinstance(row.imm, int) and not imm else imm
    return struct.pack("<BBhi", row.opcode, src << 4 | dst, offset, imm)


def guest(number: int) -> Integer:
    """Return what a register of the program is at the start."""
    return variable(register(number), 64)


def translated(row: Row, dst: int, src: int, imm: int, features: frozenset[str], harden: bool) -> list[Path]:
    """Return the paths through an instruction's machine code."""
    verified = verified_of(word(row, dst, src, imm))
    insn: Instruction = verified.program.instructions[0]
    assert insn.row is row, (insn.row, row)
    cx = context(verified, features, harden=harden)
    cx.start(insn)
    return paths_through(cx, lambda: registry.translator_of(NAME, row)(insn, cx))


def _claim(
    row: Row, dst: int, src: int, imm: int = 0, features: frozenset[str] = ALL_FEATURES, harden: bool = False
) -> Claim:
    second = f"r{src}" if row.uses_src else str(imm)
    name = f"{row.name} r{dst}, {second}"
    name += f"{'' if features else ', old processor'}{', blinded' if harden else ''}"
    found: list[Path] = []

    def statement() -> Truth | bool:
        if not found:
            found.extend(translated(row, dst, src, imm, features, harden))
        path = taken_path(found)
        result = result_of(row, guest(dst), guest(src) if row.uses_src else imm)
        if row.kind is Kind.BRANCH:
            is_taken = path.end == TAKEN
            return is_left_as_it_was(path, SCRATCH) & bool_of(is_taken == result)
        target = register(dst)
        is_right = bool_of(vector(path.registers[target], 64) == result)
        return is_left_as_it_was(path, SCRATCH | {target}) & is_right

    return Claim(ROOM, name, statement, is_of_python=False)


KINDS = frozenset({Kind.BINARY, Kind.MOVE, Kind.UNARY, Kind.BRANCH})


def translators() -> Iterator[Claim]:
    """Yield the claims of rows that programs have."""
    for row in TABLE:
        if row.kind not in KINDS:
            continue
        if row.kind is Kind.UNARY:
            yield from (_claim(row, dst, 0) for dst in TARGETS)
        elif row.uses_src:
            yield from (_claim(row, dst, src) for dst, src in PAIRS)
            if row.meaning in ("LSH", "RSH", "ARSH"):
                yield from (_claim(row, dst, src, features=frozenset()) for dst, src in PAIRS)
        else:
            yield from (
                _claim(row, dst, 0, imm) for imm in NUMBERS for dst in TARGETS[: 3 if imm in FEW else 1]
            )
            yield from (_claim(row, dst, 0, imm, harden=True) for imm in FEW for dst in TARGETS[:2])
