"""A compiled program as text: eBPF, assembly text and bytes side by side.

; baseline code: why it could not be optimised
; source line
pc   eBPF bytes                  eBPF
     offset  machine code            assembly text
; baseline code, where side exits go on
...
"""

from __future__ import annotations

from collections.abc import Sequence

from ebpfjit.disassembler import disassemble_instruction
from ebpfjit.isa.spec import Kind
from ebpfjit.jit.entry import Compiled, assemble
from ebpfjit.jit.recipe import Listing
from ebpfjit.jit.relocation import Image, item_spans
from ebpfjit.optimizer.remarks import Remark, numbered, to_lines
from ebpfjit.runtime.helpers.names import NAMES
from ebpfjit.translators.emitter import Label


def render(listing: Listing, image: Image, dialect: str = "rbpf") -> str:
    """Return the listing as text, one line for each eBPF and each machine instruction."""
    lines = [f"; baseline code: {listing.why_baseline}"] if listing.why_baseline else []
    lines += _lines(listing, image, dialect, None)
    for symbol, offset in image.slots.items():
        lines.append(f"{offset:9x}  {'(8 bytes)':31} address of {symbol}")
    return "\n".join(line for line in lines if line) + "\n"


def explained(compiled: Compiled) -> str:
    """Return what of a program is not fast in its machine code, and why; see `JitFunction.explain`."""
    recipe = compiled.recipe
    remarks: Sequence[Remark] = ()
    if recipe.options.optimize:
        lines = ["optimised code"]
        remarks = compiled.listing.remarks  # of a large program it is written anew
    else:
        lines = [f"baseline code: {recipe.why_baseline or 'it was not asked to be optimised'}"]
    lines += _calls_out(compiled)
    return "\n".join([*lines, *to_lines(remarks)]) + "\n"


def _calls_out(compiled: Compiled) -> list[str]:
    """Return a line for each function in Python that a program calls, by the order of its first call."""
    recipe, slots = compiled.recipe, compiled.image.slots
    called: dict[str, list[int]] = {}
    for insn in recipe.verified.program.instructions:
        kind = insn.row.kind if insn.row is not None else None
        number = insn.imm & 0xFFFFFFFF
        if kind is Kind.CALL_HELPER and f"helper_{number}" in slots and not recipe.helpers[number]:
            called.setdefault(f"helper {number}{_named(number)}", []).append(insn.pc)
        elif kind is Kind.CALL_KFUNC and f"kfunc_{number}" in slots and not recipe.kfuncs[number]:
            called.setdefault(f"kernel function {number}", []).append(insn.pc)
    return [f"{name} is a Python function: called at pc {numbered(pcs)}" for name, pcs in called.items()]


def _named(number: int) -> str:
    return f" ({NAMES[number]})" if number in NAMES else ""


def render_pc(listing: Listing, image: Image, pc: int, dialect: str = "rbpf") -> str:
    """Return the lines that belong to the instruction at `pc`, those out of line last."""
    return "\n".join(line for line in _lines(listing, image, dialect, pc) if line) + "\n"


def _lines(listing: Listing, image: Image, dialect: str, only: int | None) -> list[str]:
    """Return the lines of all pieces, or of those of one pc."""
    spans = item_spans(listing, image if image.spans else assemble(listing))  # one that was loaded has none
    program = listing.verified.program
    names = {pc: name for pc, name in program.functions.items() if len(program.functions) > 1}
    lines: list[str] = []
    index, notes = 0, listing.notes
    seen: set[int] = set()
    for number, piece in enumerate(listing.pieces):
        if number == listing.baseline_from and only is None:
            lines.append("\n; baseline code, where side exits go on")
            seen.clear()
            notes = listing.notes_below
        if only is not None and piece.pc != only:
            index += len(piece.items)
            continue
        lines.append(_heading(listing, piece.pc, dialect, names, seen, notes))
        for item in piece.items:
            if isinstance(item, Label):
                lines.append(f"{'':5}{item.text}")
            else:
                start, stop = spans[index], spans[index + 1]
                lines.append(f"{start:9x}  {image.code[start:stop].hex(' '):31} {item.text}")
            index += 1
    return lines


def _heading(
    listing: Listing,
    pc: int | None,
    dialect: str,
    names: dict[int, str],
    seen: set[int],
    notes: dict[int, str],
) -> str:
    program = listing.verified.program
    instruction = program.slots[pc] if pc is not None and pc < len(program) else None
    if pc is None or instruction is None:
        return ""
    if pc in seen:
        return f"{pc:4}: (out of line)"
    seen.add(pc)
    text = disassemble_instruction(instruction, dialect)
    note = f"   ; {notes[pc]}" if pc in notes else ""
    title = f"\n{names[pc]}:\n" if pc in names else ""
    if pc in program.lines:
        title += f"; {program.lines[pc]}\n"
    return f"{title}{pc:4}: {instruction.encode().hex(' ')}  {text}{note}"
