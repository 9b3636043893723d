"""What the translators write for baseline code, as text: one listing for each kind of row and CPU.

A change of a translator shows here as a diff; refresh with `make bless` after reading it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ebpfjit.analysis.accesses import Promises
from ebpfjit.analysis.verified import prepare
from ebpfjit.disassembler import disassemble_instruction
from ebpfjit.isa.spec import Kind, Offset, Reg, Row
from ebpfjit.isa.table import BY_NAME, TABLE
from ebpfjit.jit.compiler import listing_of
from ebpfjit.jit.recipe import Recipe
from ebpfjit.options import Options
from ebpfjit.program import Instruction, Program

HERE = Path(__file__).parent / "listings"
EXIT = Instruction(0, BY_NAME["EXIT"].opcode, 0, 0, 0, 0).encode()
MOVE = Instruction(0, BY_NAME["MOV64_K"].opcode, 0, 0, 0, 0).encode()
VARIANTS = {
    "checked": (True, frozenset[str]()),
    "unchecked-bmi2": (False, frozenset({"bmi2"})),
}
KINDS = tuple(dict.fromkeys(row.kind for row in TABLE))
REGISTERS = ((1, 2), (0, 4))  # an ordinary pair; rax with rcx


def _example(row: Row, dst: int, src: int) -> Instruction:
    def reg(field: int | Reg, number: int) -> int:
        return number if isinstance(field, Reg) else field

    offset = row.offset if isinstance(row.offset, int) else 8 if row.offset is Offset.DISPLACEMENT else 0
    imm = row.imm if isinstance(row.imm, int) else 0 if row.kind in (Kind.JUMP, Kind.CALL_LOCAL) else 7
    next_imm = None if row.next_imm is None else row.next_imm if isinstance(row.next_imm, int) else 3
    return Instruction(0, row.opcode, reg(row.dst, dst), reg(row.src, src), offset, imm, next_imm, row)


def _text(row: Row, variant: str) -> str:
    checked, features = VARIANTS[variant]
    lines = []
    for dst, src in REGISTERS:
        insn = _example(row, dst, src)
        # In the middle of a block, so that no budget is charged here.
        program = Program(MOVE + insn.encode() + EXIT * 9, references={1: 0x1122334455667788})
        options = Options(checked, optimize=False, features=features, promises=Promises(calling=frozenset()))
        listing = listing_of(Recipe(prepare(program), options, {7: False}, {7: True}))
        lines.append(f"{row.name}: {disassemble_instruction(program.instructions[1], 'linux')}")
        for piece in listing.pieces:
            if piece.pc == 1:
                lines += [f"    {item.text}" for item in piece.items]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name.lower())
def test_listing(kind: Kind, variant: str, golden: Callable[[Path, str], None]) -> None:
    rows = [row for row in TABLE if row.kind is kind]
    assert rows
    golden(HERE / f"{kind.name.lower()}.{variant}.txt", "\n".join(_text(row, variant) for row in rows))
