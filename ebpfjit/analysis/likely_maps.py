"""Which map a call of a helper is likely given."""

from __future__ import annotations

from ebpfjit.isa.spec import Kind
from ebpfjit.program import Program


def likely_maps(program: Program) -> dict[int, int]:
    """Return for the calls (by pc) whose map was last loaded into r1, in the order of pcs, its index.

    What comes there another way may bring another map, so code compares.
    """
    places = {map_.address: index for index, map_ in enumerate(program.maps)}
    if not places:
        return {}
    held: dict[int, int | None] = {}
    found: dict[int, int] = {}
    for insn in program.instructions:
        row = insn.row
        if row is None:
            continue
        if row.kind is Kind.LOAD_IMM64:
            held[insn.dst_reg] = places.get(program.references.get(insn.pc, 0))
        elif row.kind is Kind.MOVE and row.uses_src:
            held[insn.dst_reg] = held.get(insn.src_reg)
        elif row.kind is Kind.CALL_HELPER:
            index = held.get(1)
            if index is not None:
                found[insn.pc] = index
            held[1] = None
    return found
