"""A compiled program as a `View`: eBPF, assembly text and bytes, with names, checks and ways."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ebpfjit.analysis.likely_maps import likely_maps
from ebpfjit.collector import collector_paused
from ebpfjit.isa.spec import Kind
from ebpfjit.jit import legend
from ebpfjit.jit.baseline import RELIED
from ebpfjit.jit.cpu import machine
from ebpfjit.jit.entry import Compiled
from ebpfjit.jit.image import Image
from ebpfjit.jit.recipe import Listing
from ebpfjit.jit.relocation import item_spans
from ebpfjit.jit.translation import assemble_lines
from ebpfjit.listing.listing import Listing as Shown
from ebpfjit.listing.names import named
from ebpfjit.listing.program import blocks_of, steps_of
from ebpfjit.listing.text import piece_lines
from ebpfjit.listing.view import BASELINE, OPTIMISED, SHARED, CodeLine, Legend, Piece, View
from ebpfjit.optimizer.remarks import Remark, numbered, to_lines
from ebpfjit.runtime.helpers.names import NAMES
from ebpfjit.translators.emitter import Label, Line

OWN = "ebpfjit."
"""The package whose helpers are called as Linux calls them."""


def render(compiled: Compiled, missing: Sequence[str] = ()) -> Shown:
    """Return the listing of a compiled program; `missing` are lines on what stands in the way of its runs."""
    with collector_paused():
        return Shown(view_of(compiled, missing))


def view_of(compiled: Compiled, missing: Sequence[str] = ()) -> View:
    """Return all that a listing shows of a compiled program."""
    listing, image, recipe = compiled.listing, compiled.image, compiled.recipe
    program, verified = recipe.verified.program, recipe.verified
    names = _helper_names(compiled)
    pieces = tuple(_pieces(listing, image, names))
    lines = [line for piece in pieces for line in piece.lines]
    is_optimised = listing.baseline_from is not None
    return View(
        program.name,
        program.type,
        program.section,
        _state(listing, pieces),
        steps_of(program, tuple(verified.blocks), listing.notes, listing.notes_below, names),
        OPTIMISED if is_optimised else BASELINE,
        blocks_of(program, verified.blocks, verified.ways),
        pieces,
        Legend(
            legend.registers(),
            tuple(machine().others.items()),
            legend.words({line.text for line in lines if line.kind == "code"}, listing.limits),
            legend.labels(line.text[:-1] for line in lines if line.kind == "label"),
            legend.checks({*listing.notes.values(), *listing.notes_below.values()}),
        ),
        (*missing, *_calls_out(compiled), *to_lines(_remarks(compiled))),
    )


def _state(listing: Listing, pieces: Sequence[Piece]) -> str:
    """Return in a line which code this is, and how much of it there is."""
    sizes = {
        tier: sum(len(line.code) for piece in pieces if piece.tier == tier for line in piece.lines)
        for tier in (OPTIMISED, BASELINE)
    }
    if listing.baseline_from is None:
        why = f": {listing.why_baseline}" if listing.why_baseline else ""
        return f"baseline code{why}" if why else f"baseline code ({sizes[BASELINE]} bytes)"
    return (
        f"optimised code ({sizes[OPTIMISED]} bytes), and the baseline code in which side exits go on"
        f" ({sizes[BASELINE]} bytes)"
    )


def explained(compiled: Compiled, latest: Compiled | None = None, why_prepared: str = "") -> str:
    """Return what of a program is not fast in its machine code, and why; see `JitFunction.explain`.

    `latest` is the code that was made last, which knows of all that was before it. `why_prepared` says why
    Python prepares each call.
    """
    recipe = compiled.recipe
    if recipe.options.optimize:
        lines = ["optimised code"]
    else:
        lines = [f"baseline code: {recipe.why_baseline or 'it was not asked to be optimised'}"]
    if why_prepared:
        lines.append(f"each call is prepared in Python: {why_prepared}")
    if recipe.options.why_unproven:
        lines.append(f"nothing is relied on of the verdict: {recipe.options.why_unproven}")
    relied = sum(note == RELIED for note in compiled.listing.notes.values())
    if relied:
        lines.append(f"{relied} accesses are not checked: the verdict is relied on")
    lines += _calls_out(compiled, latest)
    return "\n".join([*lines, *to_lines(_remarks(compiled))]) + "\n"


def _remarks(compiled: Compiled) -> Sequence[Remark]:
    return compiled.listing.remarks if compiled.recipe.options.optimize else ()


def _calls_out(compiled: Compiled, latest: Compiled | None = None) -> list[str]:
    """Return a line for each function in Python that a program calls, by the order of its first call.

    Calls that machine code does by itself where it can are told where it left some to Python.
    """
    recipe, slots, in_code = compiled.recipe, compiled.image.slots, compiled.listing.in_code
    maps, likely = recipe.verified.program.maps, likely_maps(recipe.verified.program)
    count = (latest or compiled).calls_out
    called: dict[str, list[int]] = {}
    for insn in recipe.verified.program.instructions:
        kind = insn.row.kind if insn.row is not None else None
        number = insn.imm & 0xFFFFFFFF
        if kind is Kind.CALL_HELPER and f"helper_{number}" in slots and not recipe.helpers[number]:
            on = f" on {maps[likely[insn.pc]].definition}" if insn.pc in likely else ""
            by_itself = RARELY if number in recipe.options.packet_helpers else SELDOM
            how = by_itself if insn.pc in in_code else ALWAYS
            if how is ALWAYS or count(insn.pc):
                called.setdefault(f"helper {number}{_named(number)}{on} {how}", []).append(insn.pc)
        elif kind is Kind.CALL_KFUNC and f"kfunc_{number}" in slots and not recipe.kfuncs[number]:
            called.setdefault(f"kernel function {number} {ALWAYS}", []).append(insn.pc)
    return [
        f"{name} at pc {numbered(pcs)}, so far {sum(map(count, pcs)):,} times" for name, pcs in called.items()
    ]


ALWAYS = "is a Python function: called"
SELDOM = (
    "is machine code, but where Python is changing the map, or key or value are not the program's: called"
)

RARELY = "is machine code, but where Python knows the run already, or something is unusual: called"


def _named(number: int) -> str:
    return f" ({NAMES[number]})" if number in NAMES else ""


def _helper_names(compiled: Compiled) -> Mapping[int, str]:
    """Return the names of helpers by number: Linux's, where they are not functions of the user's own."""
    slots = [symbol for symbol in compiled.image.slots if symbol.startswith(("helper_", "kfunc_"))]
    given = dict(zip(slots, compiled.helpers, strict=False))
    functions = {number: given.get(f"helper_{number}") for number in compiled.recipe.helpers}
    return dict(NAMES) | {number: name for number, f in functions.items() if (name := _own_name(f, number))}


def _own_name(function: Any, number: int) -> str:
    """Return the name of a function that is the user's, "" where it is ours or nobody's."""
    if function is None or getattr(function, "__module__", OWN).startswith(OWN):
        return ""
    name: str = getattr(function, "__name__", type(function).__name__)
    return name if name.isidentifier() else f"{number} ({type(function).__name__})"


def render_pc(listing: Listing, image: Image, pc: int, dialect: str = "rbpf") -> str:
    """Return the lines that belong to the instruction at `pc`, those out of line last."""
    program = listing.verified.program
    insn = program.slots[pc] if pc < len(program) else None
    lines = [] if insn is None else [f"{pc:4}: {insn.encode().hex(' ')}  {named(program, insn, dialect)}"]
    for piece in _pieces(listing, image, NAMES):
        if piece.pc == pc:
            lines += piece_lines(piece)
    return "\n".join(lines) + "\n"


def _pieces(listing: Listing, image: Image, helpers: Mapping[int, str]) -> Iterator[Piece]:
    """Yield the machine code piece by piece, and the addresses behind it."""
    assemble_lines(listing)  # of an image that was loaded it is new
    spans = item_spans(listing, image)
    program = listing.verified.program
    maps = {each.address: f"map {each.definition.name}" for each in program.maps}
    index = 0
    for number, piece in enumerate(listing.pieces):
        lines: list[CodeLine] = []
        for item in piece.items:
            start, stop = spans[index], spans[index + 1]
            index += 1
            if isinstance(item, Label):
                lines += _label_lines(item, start, image.code[start:stop])
            else:
                note = _note(item, helpers, maps) if isinstance(item, Line) else ""
                lines.append(CodeLine("code", start, image.code[start:stop], item.text, note))
        pc = piece.pc if piece.pc is not None and piece.pc < len(program) else None
        yield Piece(_tier(listing, number, pc), pc, tuple(lines), number >= listing.cold_from)
    addresses = [
        CodeLine(
            "address",
            offset,
            image.code[offset : offset + 8],
            f"address of {symbol}",
            _meant(symbol, helpers),
        )
        for symbol, offset in image.slots.items()
    ]
    if addresses:
        yield Piece(SHARED, None, tuple(addresses))


def _tier(listing: Listing, number: int, pc: int | None) -> str:
    """Return which code a piece is part of, by its number."""
    if pc is None:
        return SHARED
    if listing.baseline_from is None:
        return BASELINE
    if number >= listing.cold_from:
        return OPTIMISED if number < listing.cold_baseline_from else BASELINE
    return OPTIMISED if number < listing.baseline_from else BASELINE


def _label_lines(label: Label, start: int, alignment: bytes) -> Iterator[CodeLine]:
    """Yield the lines of a label: its alignment comes before it."""
    if alignment:
        yield CodeLine("alignment", start, alignment, f"({len(alignment)} bytes of alignment)")
    yield CodeLine("label", start + len(alignment), b"", label.text)


def _note(line: Line, helpers: Mapping[int, str], maps: Mapping[int, str]) -> str:
    """Return what a symbol, or a number of 64 bits, in a line stands for; "" where that is nothing."""
    if line.symbol is not None:
        return _meant(line.symbol, helpers)
    return maps.get(line.imm & (1 << 64) - 1, "") if line.imm_bits == 64 and line.imm is not None else ""


def _meant(symbol: str, helpers: Mapping[int, str]) -> str:
    """Return the name of the helper whose address a slot holds, "" where that is something else."""
    kind, _, number = symbol.partition("_")
    return helpers.get(int(number), "") if kind == "helper" and number.isdigit() else ""
