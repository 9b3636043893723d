"""What a run has reached: rows, register pairings, branches, endings, facts, edges of machine code.

Everything is a count of programs under (category, item): counts of parts add up to those of the whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from ebpfjit.analysis.verified import Verified
from ebpfjit.difftest.outcome import Outcome
from ebpfjit.isa.spec import REGISTER_COUNT, Kind, Reg, Row
from ebpfjit.isa.table import TABLE
from ebpfjit.jit.entry import Compiled
from ebpfjit.jit.relocation import SHORT_FORMS, item_spans
from ebpfjit.translators.emitter import Jump, Label, Line

Item = tuple[str, str]

ROW, PAIRING, BRANCH, ENDING, FACT, EDGE = "row", "pairing", "branch", "ending", "fact", "edge"
CATEGORIES = {
    ROW: "rows executed",
    PAIRING: "register pairings executed: row, dst, src",
    BRANCH: "branch outcomes",
    ENDING: "endings",
    FACT: "how accesses are checked",
    EDGE: "edges of machine code",
}
"""What each category counts."""

DISTANCES = (-129, -128, -127, 126, 127, 128, 129)
DISPLACEMENTS = (-129, -128, -127, 126, 127, 128, -32768, 32767)
MOST_SLOTS = 4
UNRESOLVED = tuple(
    row.name
    for row in TABLE
    if row.kind is Kind.CAST or (row.reference is not None and row.operation != "LDDW_CODE")
)
"""What no generated program has; nor casts, which want an arena."""

NO_ANSWER = "no answer of {}"
"""The ending of a program that an engine refuses, or whose end it cannot tell."""

ENDINGS = (
    "ok", "MemoryFault load", "MemoryFault store", "MemoryFault atomic", "AlignmentFault", "BudgetExhausted",
    "CallDepthExceeded", "HelperNotFound", "IllegalInstruction", "helper raised", "refused",
)  # fmt: skip


def has_pairing(row: Row) -> bool:
    """True for rows that name two registers."""
    return isinstance(row.dst, Reg) and isinstance(row.src, Reg)


def _pairings() -> Iterator[str]:
    for row in TABLE:
        if has_pairing(row) and row.name not in UNRESOLVED:
            writable = row.dst is Reg.READ
            for dst in range(REGISTER_COUNT if writable else 10):
                for src in range(10 if row.src is Reg.UPDATE else REGISTER_COUNT):
                    yield f"{row.name} r{dst} r{src}"


def reachable() -> dict[str, tuple[str, ...]]:
    """Return the items that there are in each category; more may be found in the last two."""
    branches = [row.name for row in TABLE if row.kind is Kind.BRANCH]
    edges = [f"rel8 {n}" for n in DISTANCES if -128 <= n <= 127]
    edges += [f"rel32 {n}" for n in DISTANCES]
    edges += [f"displacement {n}" for n in DISPLACEMENTS]
    edges += [f"literal pool of {n}" for n in range(1, MOST_SLOTS + 1)]
    return {
        ROW: tuple(row.name for row in TABLE if row.name not in UNRESOLVED),
        PAIRING: tuple(_pairings()),
        BRANCH: tuple(f"{name} {way}" for name in branches for way in ("taken", "not taken")),
        ENDING: ENDINGS,
        FACT: (),
        EDGE: tuple(edges),
    }


class Coverage:
    """Counts of programs by (category, item)."""

    def __init__(self) -> None:
        self.counts: Counter[Item] = Counter()

    def add(self, other: Coverage) -> None:
        """Take over another run's counts."""
        self.counts.update(other.counts)

    def of(self, category: str) -> dict[str, int]:
        """Return the counts of one category, by item, sorted."""
        return {item: count for (kind, item), count in sorted(self.counts.items()) if kind == category}

    def executed(self, verified: Verified, pcs: Sequence[int]) -> None:
        """Note what the interpreter executed: the pcs of all steps, in order."""
        slots = verified.program.slots
        found: set[Item] = set()
        for pc in set(pcs):
            insn = slots[pc]
            if insn is None or insn.row is None:
                continue
            row = insn.row
            found.add((ROW, row.name))
            if has_pairing(row):
                found.add((PAIRING, f"{row.name} r{insn.dst_reg} r{insn.src_reg}"))
        for pc, following in set(pairwise(pcs)):
            insn = slots[pc]
            if insn is not None and insn.row is not None and insn.row.kind is Kind.BRANCH:
                way = "taken" if following == insn.target else "not taken"
                found.add((BRANCH, f"{insn.row.name} {way}"))
        self.counts.update(found)

    def ended(self, outcome: Outcome) -> None:
        """Note how a run ended."""
        access = dict(outcome.attributes).get("access", "") if outcome.kind == "MemoryFault" else ""
        self.counts[ENDING, f"{outcome.kind} {access}".rstrip()] += 1

    def unanswered(self, engine: str) -> None:
        """Note a run that an engine has no answer to."""
        self.counts[ENDING, NO_ANSWER.format(engine)] += 1

    def refused(self) -> None:
        """Note a program that no engine takes."""
        self.counts[ENDING, "refused"] += 1

    def compiled(self, compiled: Compiled) -> None:
        """Note how accesses are checked, and which edges the machine code has."""
        found: set[Item] = {(FACT, _shape(note)) for note in compiled.listing.notes.values()}
        image = compiled.image
        spans = item_spans(compiled.listing, image)
        items = [item for piece in compiled.listing.pieces for item in piece.items]
        places = {item.name: spans[index + 1] for index, item in enumerate(items) if isinstance(item, Label)}
        for index, item in enumerate(items):
            if isinstance(item, Jump):
                start, end = spans[index], spans[index + 1]
                distance = places[item.label] - end
                if distance in DISTANCES:
                    form = "rel8" if item.mnemonic in SHORT_FORMS and end - start == 2 else "rel32"
                    found.add((EDGE, f"{form} {distance}"))
            elif isinstance(item, Line) and item.offset in DISPLACEMENTS:
                found.add((EDGE, f"displacement {item.offset}"))
        found.add((EDGE, f"literal pool of {len(image.slots)}"))
        self.counts.update(found)

    def missing(self, category: str) -> list[str]:
        """Return the items of a category that were not reached, in the table's order."""
        return [item for item in reachable()[category] if (category, item) not in self.counts]

    def summary(self) -> Iterable[tuple[str, int, int]]:
        """Yield (category, reached, reachable) for each category."""
        for category, items in reachable().items():
            there = {*items, *self.of(category)}
            yield category, sum((category, item) in self.counts for item in there), len(there)


def _shape(note: str) -> str:
    """Return a listing's note of an access without its numbers."""
    return "".join("n" if character.isdigit() else character for character in note).replace("nn", "n")
