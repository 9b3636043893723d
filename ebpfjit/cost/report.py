"""A program's cost as text."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from ebpfjit.cost.measure import Cost

MOST_LINES = 15


def text(cost: Cost, *, lines: int = MOST_LINES) -> str:
    """Return what a program cost as lines of text, with so many lines of source at most.

    Nanoseconds of functions and lines are shares of the measured time by their instructions.
    """
    least, most = min(cost.by_packet), max(cost.by_packet)
    found = [
        f"{cost.name}: {_count(cost.packets, 'packet')}, {cost.nanoseconds:.1f} ns each ({cost.engine})",
        f"instructions  {cost.instructions:,}; a packet {least:,} to {most:,}, "
        f"median {median(cost.by_packet):,.0f}; most: packet {cost.worst} "
        f"({_count(len(cost.worst_packet), 'byte')})",
    ]
    if cost.faults:
        found.append(f"faults        {cost.faults:,}; first {cost.first_fault}")
    if cost.helpers:
        found.append(
            f"calls         {', '.join(f'{name} {count:,}' for name, count in cost.helpers.items())}"
        )
    if cost.maps:
        done = (f"{name}: {what} {count:,}" for (name, what), count in cost.maps.items())
        found.append(f"maps          {', '.join(done)}")
    chain = map("{} {}".format, cost.stack.functions, cost.stack.sizes)
    recursive = ", and recursion" if cost.stack.is_recursive else ""
    found.append(f"stack         {_count(cost.stack.bytes, 'byte')}: {' -> '.join(chain)}{recursive}")
    rows = [("function", "entered", "instructions", "share", "ns", "calls")]
    rows += [
        (each.name, f"{each.entered:,}", *_numbers(cost, each.instructions), f"{each.calls:,}")
        for each in cost.functions
        if each.entered
    ]
    found += ["", *_table(rows)]
    shown = cost.lines[:lines]
    rows = [("line", "", "instructions", "share", "ns", "calls")]
    rows += [
        (
            f"{each.file}:{each.line}" if each.file else f"{each.function} pc {each.line}",
            each.text.strip(),
            *_numbers(cost, each.instructions),
            f"{each.calls:,}",
        )
        for each in shown
    ]
    found += ["", *_table(rows, left=2)]
    if len(cost.lines) > len(shown):
        found.append(f"and {_count(len(cost.lines) - len(shown), 'line')} more")
    return "\n".join(found) + "\n"


def _numbers(cost: Cost, instructions: int) -> tuple[str, str, str]:
    share = instructions / cost.instructions if cost.instructions else 0.0
    return f"{instructions:,}", f"{100 * share:.1f}%", f"{share * cost.nanoseconds:.1f}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _table(rows: Sequence[tuple[str, ...]], left: int = 1) -> list[str]:
    """Return rows as lines, the first `left` columns to the left."""
    cut = [tuple(each if len(each) <= WIDTH else f"{each[: WIDTH - 3]}..." for each in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cut, strict=True)]
    found = []
    for row in cut:
        texts = [text.ljust(width) for text, width in zip(row[:left], widths, strict=False)]
        texts += [text.rjust(width) for text, width in zip(row[left:], widths[left:], strict=True)]
        found.append("  ".join(texts).rstrip())
    return found


WIDTH = 60
"""Characters of a name, or of a line of source, that are shown."""
