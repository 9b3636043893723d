"""All that a listing shows, as plain values: made where the code is known, read by text, JSON and page.

View
  steps      each eBPF instruction, its line of source, its check
  blocks     basic blocks, and what follows each
  pieces     machine code, piece by piece, in the order of its addresses
  legend     what registers, words of memory and labels mean
"""

from __future__ import annotations

from typing import Any

from ebpfjit.program import SourceLine
from ebpfjit.record import dataclass, field, record

OPTIMISED, BASELINE, SHARED = "optimised", "baseline", "shared"
"""The tiers of code: the third is what both use, from the entry on."""


@record
class Step:
    """One eBPF instruction: its slot, bytes and text, with names in the place of numbers.

    `function` is the name of the function that starts here, `line` the line of source that starts here.
    `block` is the slot of its basic block, `targets` are the slots that it names. `note` says how its access
    is checked, and why so, in the code that runs; `below` the same of the baseline code behind that.
    `errors` are what a verdict has against it.
    """

    pc: int
    code: bytes
    text: str
    block: int
    function: str = ""
    line: SourceLine | None = None
    targets: tuple[int, ...] = ()
    note: str = ""
    below: str = ""
    errors: tuple[str, ...] = ()


@record
class Block:
    """A basic block: where it starts, the slot of its function, and the blocks that may follow.

    Each of `ways` is (slot, kind): "taken" where a branch's condition holds, "next" where control just goes
    on, "jump" where it jumps in any case.
    """

    pc: int
    function: int
    ways: tuple[tuple[int, str], ...] = ()


@record
class CodeLine:
    """A line of machine code: `kind` is "code", "label", "alignment" or "address" (8 bytes of data).

    `offset` counts bytes from the start of the image. `note` says what a number or a symbol in it stands for.
    """

    kind: str
    offset: int
    code: bytes
    text: str
    note: str = ""


@record
class Piece:
    """Machine code that belongs to one eBPF instruction, or to none (`pc` None).

    `tier` is one of those above. What is out of line is behind everything else: it seldom runs.
    """

    tier: str
    pc: int | None
    lines: tuple[CodeLine, ...]
    is_out_of_line: bool = False


@record
class Legend:
    """What names in machine code mean, as pairs: each in the order in which it is shown.

    `registers` are r0 to r10 and the machine's, `others` what else the machine's registers hold, `words` the
    words of memory that code uses, `labels` the kinds of labels and the routines, `checks` what is said of
    accesses.
    """

    registers: tuple[tuple[str, str], ...] = ()
    others: tuple[tuple[str, str], ...] = ()
    words: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    checks: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class View:
    """A program, and what was made of it.

    `state` says in a line which code this is, or why there is none; `tier` is that of the code that runs, ""
    for a program without machine code; `refusal` says why there is none. `remarks` say what is not fast, or
    not possible, and why.
    """

    name: str | None
    type: str | None
    section: str | None
    state: str
    steps: tuple[Step, ...]
    tier: str = ""
    blocks: tuple[Block, ...] = ()
    pieces: tuple[Piece, ...] = ()
    legend: Legend = field(default_factory=Legend)
    remarks: tuple[str, ...] = ()
    refusal: str = ""

    @property
    def title(self) -> str:
        """The program in a few words."""
        about = [self.type or "no type", f"{self.slots} slots"]
        if self.section:
            about.append(f"section {self.section!r}")
        return f"program {shown(self.name) if self.name else '<unnamed>'} ({', '.join(about)})"

    @property
    def slots(self) -> int:
        """How many 8-byte slots the program has."""
        return sum(len(step.code) for step in self.steps) // 8

    def size(self, tier: str) -> int:
        """Return how many bytes of machine code belong to a tier."""
        return sum(len(line.code) for piece in self.pieces if piece.tier == tier for line in piece.lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the whole as values that JSON has."""
        legend = self.legend
        return {
            "program": {
                "name": self.name,
                "type": self.type,
                "section": self.section,
                "slots": self.slots,
            },
            "title": self.title,
            "state": self.state,
            "tier": self.tier or None,
            "refusal": self.refusal or None,
            "remarks": list(self.remarks),
            "legend": {
                "registers": dict(legend.registers),
                "others": dict(legend.others),
                "words": dict(legend.words),
                "labels": dict(legend.labels),
                "checks": dict(legend.checks),
            },
            "instructions": [_step(step) for step in self.steps],
            "blocks": [
                {"pc": block.pc, "function": block.function, "ways": [list(way) for way in block.ways]}
                for block in self.blocks
            ],
            "machine": [
                {
                    "tier": piece.tier,
                    "pc": piece.pc,
                    "out_of_line": piece.is_out_of_line,
                    "lines": [
                        {
                            "kind": line.kind,
                            "offset": line.offset,
                            "bytes": line.code.hex(),
                            "text": line.text,
                            "note": line.note,
                        }
                        for line in piece.lines
                    ],
                }
                for piece in self.pieces
            ],
        }


def _step(step: Step) -> dict[str, Any]:
    line = step.line
    return {
        "pc": step.pc,
        "bytes": step.code.hex(),
        "text": step.text,
        "block": step.block,
        "function": step.function or None,
        "line": None if line is None else {"file": line.file, "line": line.line, "text": line.text},
        "targets": list(step.targets),
        "note": step.note,
        "note_baseline": step.below,
        "errors": list(step.errors),
    }


def shown(name: str) -> str:
    """Return a name, or a line of source, as it can be printed: those of an object file may hold anything."""
    return name if name.isprintable() else repr(name)[1:-1]
