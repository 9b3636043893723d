"""A `View` as text, plain or with a terminal's colours.

; state and legend
; source line, where it is another one
pc   eBPF bytes                  eBPF   ; how its access is checked
     offset  machine code        assembly text   ; what a number or symbol is
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

from ebpfjit.listing.view import BASELINE, OPTIMISED, CodeLine, Piece, Step, View, shown
from ebpfjit.program import SourceLine

Span = tuple[str, str]
"""A piece of a line: a style of STYLES, and text."""

STYLES = {
    "": "",
    "comment": "dim",
    "section": "bold",
    "source": "green",
    "pc": "cyan",
    "bytes": "dim",
    "ebpf": "bold",
    "free": "green",
    "checked": "yellow",
    "error": "red",
    "label": "magenta",
    "offset": "dim",
    "code": "",
    "note": "dim",
}
"""How pieces of lines look on a terminal, in rich's words."""

OUT_OF_LINE = "out of line: what seldom runs"
_MARGIN = 5
_BYTES = 31
_PAIRS = 100


def to_text(view: View) -> str:
    """Return the listing as text, one line for each eBPF and each machine instruction."""
    lines = ["".join([text for _, text in spans]) for spans in lines_of(view)]
    return "\n".join([*lines, ""])


def to_colored(view: View, render: Callable[[str, str], str]) -> Iterator[str]:
    """Yield the lines with colours; `render(style, text)` makes a terminal's text of a piece of a line."""
    for spans in lines_of(view):
        yield "".join(render(STYLES[style], text) if style else text for style, text in spans) + "\n"


def lines_of(view: View) -> Iterator[list[Span]]:
    """Yield the lines of a listing as pieces with their styles."""
    for number, line in enumerate(head(view)):
        yield [("" if number else "section", f"; {line}".rstrip())]
    yield []
    if not view.pieces:
        source = _Source()
        for step in view.steps:
            yield from _step_lines(step, step.note, source)
        return
    yield from _body(view)


def head(view: View) -> Iterator[str]:
    """Yield what stands first: what this is, what is not fast and why, what the names mean."""
    yield view.state
    yield view.title
    yield from view.remarks
    accesses = [step.note for step in view.steps if step.note]
    if accesses:
        free = sum(note.startswith("no ") for note in accesses)
        yield f"accesses to memory: {len(accesses)}, without a check of their own: {free}"
    legend = view.legend
    if not view.pieces:
        return
    yield ""
    yield from _wrapped([f"{guest} {host}" for guest, host in legend.registers])
    yield "  so in baseline code, and where functions are called; optimised code has values anywhere"
    for pairs in (legend.others, legend.checks, legend.words, legend.labels):
        width = min(max((len(name) for name, _ in pairs), default=0), 26)
        yield from (f"  {name:{width}}  {meaning}" for name, meaning in pairs)


def _wrapped(words: Iterable[str]) -> Iterator[str]:
    line = ""
    for word in words:
        if len(line) + len(word) > _PAIRS:
            yield line
            line = ""
        line += ("   " if line else "") + word
    if line:
        yield line


def _body(view: View) -> Iterator[list[Span]]:
    """Yield the machine code, each piece below the instruction that it is of."""
    steps = {step.pc: step for step in view.steps}
    is_below = view.tier == BASELINE
    tier, cold, seen, source = view.tier, False, set[int](), _Source()
    for (is_cold, new), pieces in groupby(view.pieces, lambda piece: (piece.is_out_of_line, piece.tier)):
        if new == BASELINE and tier == OPTIMISED and not is_cold:
            yield []
            yield [("section", "; baseline code, where side exits go on")]
            tier, is_below, seen, source = BASELINE, True, set(), _Source()
        if is_cold and not cold:
            yield []
            yield [("section", f"; {OUT_OF_LINE}")]
            cold = True
        for piece in pieces:
            step = steps.get(piece.pc) if piece.pc is not None else None
            if step is None:
                pass
            elif step.pc in seen:
                yield [("pc", f"{step.pc:4}: "), ("comment", "(out of line)" if is_cold else "(more of it)")]
            else:
                seen.add(step.pc)
                note = step.below if is_below and view.tier == OPTIMISED else step.note
                yield from _step_lines(step, note, source)
            yield from map(_code_line, piece.lines)


class _Source:
    """The lines of source that were shown already: each is shown in full once."""

    def __init__(self) -> None:
        self._last: tuple[str, int] | None = None
        self._seen: set[tuple[str, int]] = set()

    def lines(self, line: SourceLine | None) -> Iterator[list[Span]]:
        """Yield a line of source where it is another one than before."""
        if line is None or (line.file, line.line) == self._last:
            return
        place = self._last = line.file, line.line
        text = f"{line.file}:{line.line}" if place in self._seen else str(line)
        self._seen.add(place)
        yield [("source", f"; {shown(text)}")]


def _step_lines(step: Step, note: str, source: _Source) -> Iterator[list[Span]]:
    if step.function:
        yield []
        yield [("section", f"{shown(step.function)}:")]
    yield from source.lines(step.line)
    spans: list[Span] = [("pc", f"{step.pc:4}: "), ("bytes", step.code.hex(" ")), ("ebpf", f"  {step.text}")]
    if note:
        spans.append(("free" if note.startswith("no ") else "checked", f"   ; {note}"))
    yield spans
    for error in step.errors:
        yield [("error", f"      ; refused: {shown(error)}")]


def _code_line(line: CodeLine) -> list[Span]:
    if line.kind == "label":
        return [("", " " * _MARGIN), ("label", line.text)]
    code = "(8 bytes)" if line.kind == "address" else line.code.hex(" ")
    if len(code) > _BYTES and line.kind == "alignment":
        code = f"{code[: (_BYTES - 3) // 3 * 3]}..."
    spans: list[Span] = [("offset", f"{line.offset:9x}  "), ("bytes", f"{code:{_BYTES}} ")]
    spans.append(("code" if line.kind == "code" else "comment", line.text))
    if line.note:
        spans.append(("note", f"   ; {line.note}"))
    return spans


def piece_lines(piece: Piece) -> list[str]:
    """Return a piece of machine code as lines of plain text."""
    return ["".join(text for _, text in _code_line(line)) for line in piece.lines]
