"""The text that translators write: lines with holes, jumps to labels, and out-of-line code.

A line is a template such as `add rdi, $imm` with the numbers that go into its holes. The template
without its numbers is what the assembler sees, once: the bytes are a stencil, the numbers are
patched in. Jumps name labels; relocation gives them their distance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from ebpfjit.memo import Memo
from ebpfjit.record import dataclass, record
from ebpfjit.translators.block import NO_PC as NO_PC


@dataclass(slots=True, eq=False)
class Line:
    """One machine instruction: `template` with `$imm`, `$offset`, `$symbol` where numbers go.

    `imm` is patched into the immediate of `imm_bits` bits (8 to 64: the smallest form that holds
    it), `offset` into the displacement. `symbol` names an 8-byte slot of the literal pool,
    addressed relative to rip. `Emitter` makes one object of lines that say the same, so none is changed but
    for `code`: its bytes, once they are known.
    """

    template: str
    imm: int | None = None
    imm_bits: int = 0
    offset: int | None = None
    offset_bits: int = 0
    symbol: str | None = None
    code: bytes = b""

    @property
    def text(self) -> str:
        """The line as a person reads it."""
        text = self.template
        if self.imm is not None:
            text = text.replace("$imm", f"{self.imm:#x}")
        if self.offset is not None:
            text = text.replace("+$offset", f"{self.offset:+#x}")
        if self.symbol is not None:
            text = text.replace("$symbol", self.symbol)
        return text


@dataclass(slots=True, eq=False)
class SlotLine(Line):
    """A line that names a symbol: its bytes are `hollow`, relocation puts the distance into them."""

    hollow: bytes = b""


@record
class Jump:
    """A jump (`jmp`, `je`, ...) or `call` to a label."""

    mnemonic: str
    label: str
    code: ClassVar[bytes] = b""  # relocation makes it

    @property
    def text(self) -> str:
        """The line as a person reads it."""
        return f"{self.mnemonic} {self.label}"


@record
class Label:
    """A place that jumps name, at an address that is a multiple of `alignment`."""

    name: str
    alignment: int = 1
    code: ClassVar[bytes] = b""  # what it is aligned with is relocation's

    @property
    def text(self) -> str:
        """The line as a person reads it."""
        return f"{self.name}:"


Item = Line | Jump | Label
"""What a listing shows on a line of its own."""


@dataclass(slots=True, eq=False)
class Snippet:
    """Lines that are the same in many places, none with a symbol; `code` is their bytes, once known."""

    lines: tuple[Line, ...]
    code: bytes = b""


Part = Item | Snippet


@record
class Piece:
    """The code that belongs to one pc; `pc` is None for what belongs to no instruction."""

    pc: int | None
    parts: Sequence[Part]

    @property
    def items(self) -> list[Item]:
        """The lines, jumps and labels, one by one."""
        items: list[Item] = []
        for part in self.parts:
            items.extend(part.lines if isinstance(part, Snippet) else (part,))
        return items


@record
class Text:
    """What was emitted, in the order of its addresses: `parts`, which come in pieces.

    Piece for piece `starts` has the number of its first part, and `owners` the pc that it belongs to.
    """

    parts: list[Part]
    starts: list[int]
    owners: list[int]

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """The pieces, for who reads them."""
        stops = [*self.starts[1:], len(self.parts)]
        return tuple(
            Piece(None if pc == NO_PC else pc, self.parts[start:stop])
            for pc, start, stop in zip(self.owners, self.starts, stops, strict=True)
        )


def lines_of(parts: Iterable[Part]) -> tuple[Line, ...] | None:
    """Return the lines that parts consist of; None where there is anything else, or a symbol."""
    lines: list[Line] = []
    for part in parts:
        if isinstance(part, Snippet):
            lines.extend(part.lines)
        elif isinstance(part, Line) and part.symbol is None:
            lines.append(part)
        else:
            return None
    return tuple(lines)


def smallest(value: int, sizes: tuple[int, ...]) -> int:
    """Return the first of `sizes` (bits) whose signed range holds `value`; the last fits all."""
    for bits in sizes[:-1]:
        if -(1 << (bits - 1)) <= value < 1 << (bits - 1):
            return bits
    return sizes[-1]


_lines: Memo[object, Line] = Memo()
"""Lines by what they say: those without a number, which are most, by their text alone."""
_snippets: Memo[object, Snippet] = Memo()
"""What was emitted by `Emitter.repeat`."""


def new_line(
    template: str, imm: int | None, imm_sizes: tuple[int, ...], offset: int | None, symbol: str | None
) -> Line:
    """Return a line of its own."""
    imm_bits = smallest(imm, imm_sizes) if imm is not None else 0
    offset_bits = smallest(offset, (8, 32)) if offset is not None else 0
    kind = Line if symbol is None else SlotLine
    return kind(template, imm, imm_bits, offset, offset_bits, symbol)


class _OutOfLine:
    """What `Emitter.out_of_line` returns; written out because `contextlib` takes a microsecond for it."""

    __slots__ = ("_emitter", "_label", "_outer")

    def __init__(self, emitter: Emitter, label: str) -> None:
        self._emitter, self._label = emitter, label

    def __enter__(self) -> None:
        emitter = self._emitter
        self._outer = emitter._here
        emitter._here = [Label(self._label)]
        emitter.cold.append((emitter._owners[-1], emitter._here))

    def __exit__(self, *raised: object) -> None:
        self._emitter._here = self._outer


class Emitter:
    """Collects the lines of a program, piece by piece: what runs in order, and what is out of line.

    With `repeats` lines that say the same are one object; not where numbers are made up anew each
    time, which would only fill the table of lines. The program has `size` instructions.
    """

    __slots__ = (
        "_here", "_labels", "_lines", "_owners", "_parts", "_repeats", "_snippets", "_starts", "cold",
    )  # fmt: skip
    # contexts have more attributes than thirty, up to which access to them is as fast without

    def __init__(self, size: int = 0, *, repeats: bool = True) -> None:
        self._repeats = repeats
        self._lines: dict[object, Line] = _lines.trim(size) if repeats else {}
        self._snippets: dict[object, Snippet] = _snippets.trim(size) if repeats else {}
        self._parts: list[Part] = []
        self._starts: list[int] = []
        self._owners: list[int] = []
        self.cold: list[tuple[int, list[Part]]] = []
        self._here = self._parts
        self._labels = 0

    def begin(self, pc: int) -> None:
        """Start the piece of `pc`, or NO_PC; what is emitted next belongs to it."""
        self._starts.append(len(self._parts))
        self._owners.append(pc)

    def text(self) -> Text:
        """Return all that was emitted: what is out of line is behind the rest. That was it."""
        parts, starts, owners = self._parts, self._starts, self._owners
        for pc, here in self.cold:
            starts.append(len(parts))
            owners.append(pc)
            parts += here
        self.cold.clear()
        return Text(parts, starts, owners)

    @property
    def piece_count(self) -> int:
        """How many pieces were started so far, but for those out of line."""
        return len(self._starts)

    def out_of_line(self, label: str) -> _OutOfLine:
        """Emit the block's lines behind the program, under `label`, for the same pc."""
        return _OutOfLine(self, label)

    def new_label(self, hint: str) -> str:
        """Return a label that no other place has."""
        self._labels += 1
        return f".{hint}{self._labels}"

    def label(self, name: str, alignment: int = 1) -> None:
        """Put a label here."""
        self._here.append(Label(name, alignment))

    def jump(self, mnemonic: str, label: str) -> None:
        """Emit a jump or a call to a label."""
        self._here.append(Jump(mnemonic, label))

    def emit(
        self,
        template: str,
        *,
        imm: int | None = None,
        imm_sizes: tuple[int, ...] = (8, 32),
        offset: int | None = None,
        symbol: str | None = None,
    ) -> None:
        """Emit one machine instruction; numbers for the holes that the template has.

        `imm_sizes` are the immediate's forms in bits that the machine offers, smallest first.
        """
        key: object = template
        if imm is not None or offset is not None or symbol is not None:
            key = template, imm, imm_sizes, offset, symbol
        line = self._lines.get(key)
        if line is None:
            line = new_line(template, imm, imm_sizes, offset, symbol)
            if self._repeats:
                self._lines[key] = line
        self._here.append(line)

    def place(self, pc: int, snippet: Snippet) -> None:
        """Make a piece of lines that were emitted elsewhere before, and of nothing else."""
        parts = self._parts
        self._starts.append(len(parts))
        self._owners.append(pc)
        parts.append(snippet)

    def repeat(self, key: object, write: Callable[[], None]) -> None:
        """Emit what `write` emits, lines without symbols, and next time under this key the very same."""
        snippet = self._snippets.get(key)
        if snippet is None:
            outer, self._here = self._here, []
            write()
            lines = lines_of(self._here)
            assert lines is not None  # it keeps to what it may
            snippet = Snippet(lines)
            if self._repeats:
                self._snippets[key] = snippet
            self._here = outer
        self._here.append(snippet)

    def insert(self, snippet: Snippet) -> None:
        """Emit lines that were emitted elsewhere before."""
        self._here.append(snippet)

    def written(self) -> list[Part]:
        """What has been emitted here so far; not to be changed."""
        return self._here
