"""What passes ask of Code again and again: how often values are read, the same code with other blocks."""

from __future__ import annotations

from collections.abc import Iterable

from ebpfjit.optimizer.code import Block, Code, Entry, Exit, Proof, Way

Starts = list[Exit | None]
"""As `Code.starts`."""


def value_count(code: Code) -> int:
    """Return a number that is above that of every value."""
    return len(code.homes) or max(code.values(), default=-1) + 1


def homes_of(code: Code) -> list[int]:
    """Return the homes of all values, to be added to; code that was text has none, and 0 stands for them."""
    return [*code.homes] or [0] * value_count(code)


def reads_of(code: Code) -> tuple[list[int], set[int]]:
    """Return how often each value is read by operations and ways, and those that exits name."""
    reads = [0] * value_count(code)
    named: set[int | None] = set()
    read: list[int] = []
    for block in code.blocks:
        for op in block.ops:
            read += op.args
            if op.exit is not None:
                named.update(op.exit.registers)
        end = block.end
        read += end.args
        if end.exit is not None:
            named.update(end.exit.registers)
        for way in block.ways:
            read += way.args
    for value in read:
        reads[value] += 1
    named.discard(None)
    return reads, named  # type: ignore[return-value]  # None is gone


def uses_of(code: Code) -> list[int]:
    """Return how often each value is read; all exits together count once."""
    uses, named = reads_of(code)
    for value in named:
        uses[value] += 1
    return uses


def with_blocks(
    code: Code,
    blocks: Iterable[Block],
    homes: list[int] | None = None,
    starts: Starts | None = None,
    *,
    proofs: dict[int, tuple[Proof, ...]] | None = None,
    ways_stay: bool = True,
) -> Code:
    """Return code with other blocks, as many as before; `starts` where what they name is not the same, and
    `proofs` where there are more.

    Where the `ways_stay`, each block leads to those that it led to, and the shape is known.
    """
    homes = code.homes if homes is None else homes
    starts = code.starts if starts is None else starts
    proofs = code.proofs if proofs is None else proofs
    changed = Code(code.verified, tuple(blocks), code.entries, homes, proofs, starts, code.remarks)
    if ways_stay:
        changed.__dict__["shape"] = code.shape
    return changed


def without(
    code: Code,
    blocks: list[Block | None],
    homes: list[int],
    starts: Starts | None = None,
    *,
    ways_stay: bool = True,
) -> Code:
    """Return code of those blocks that are left, numbered anew; nothing that is left leads to the others.

    `ways_stay` is as for `with_blocks`: control came to none of those that are gone.
    """
    starts = code.starts if starts is None else starts
    whole = [block for block in blocks if block is not None]
    if len(whole) == len(blocks):
        return with_blocks(code, whole, homes, starts, ways_stay=ways_stay)
    numbers = [-1] * len(blocks)
    kept: list[Block] = []
    left: Starts = []
    for number, block in enumerate(blocks):
        if block is not None:
            numbers[number] = len(kept)
            kept.append(block)
            if number < len(starts):
                left.append(starts[number])
    renumbered = tuple(
        [
            Block(b.pc, b.args, b.ops, b.end, tuple([Way(numbers[way.block], way.args) for way in b.ways]))
            for b in kept
        ]
    )
    entries = {pc: Entry(numbers[entry.block], entry.registers) for pc, entry in code.entries.items()}
    changed = Code(code.verified, renumbered, entries, homes, code.proofs, left, code.remarks)
    if ways_stay:
        changed.__dict__["shape"] = code.shape.renumbered(numbers)
    return changed
