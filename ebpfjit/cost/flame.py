"""Where instructions go as a flame graph: functions below those that call them, lines below functions.

A function's instructions are split among its callers by how often each called it.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from ebpfjit.cost.measure import Cost
from ebpfjit.cost.places import FunctionCost

MOST_DEEP = 8
"""Frames of a chain of calls, as in Linux."""
LEAST = 1e-6
"""A share of all instructions below which a function is left out."""
WIDTH, HEIGHT, CHARACTER = 1200, 18, 7


def folded(cost: Cost) -> str:
    """Return the stacks of `cost` with their instructions, as tools for flame graphs read them.

    Each has a line: "filter;parse;filter.c:12 340".
    """
    stacks: dict[str, int] = {}
    for frames, share in _stacks(cost):
        stack = ";".join(frame.replace(";", ",") for frame in frames)
        stacks[stack] = stacks.get(stack, 0) + round(share)
    return "".join(f"{stack} {count}\n" for stack, count in stacks.items() if count)


def _stacks(cost: Cost) -> Iterator[tuple[tuple[str, ...], float]]:
    """Yield each chain of functions down to a line, with its instructions."""
    functions = {each.name: each for each in cost.functions}
    called = {name for each in cost.functions for name in each.callees}
    lines: dict[str, list[tuple[str, int]]] = {}
    for line in cost.lines:
        name = f"{line.file.rpartition('/')[2]}:{line.line}" if line.file else f"pc {line.line}"
        lines.setdefault(line.function, []).append((name, line.instructions))
    waiting: list[tuple[tuple[str, ...], float]] = [
        ((each.name,), 1.0) for each in cost.functions if each.entered and each.name not in called
    ]
    waiting = waiting or [((each.name,), 1.0) for each in cost.functions[:1]]
    while waiting:
        chain, share = waiting.pop()
        function = functions[chain[-1]]
        for name, instructions in lines.get(function.name, ()):
            yield (*chain, name), instructions * share
        waiting += [
            ((*chain, callee), below)
            for callee, below in _below(function, functions, share)
            if callee not in chain and len(chain) < MOST_DEEP
        ]


def _below(
    function: FunctionCost, functions: dict[str, FunctionCost], share: float
) -> Iterator[tuple[str, float]]:
    """Yield whom a function calls, and which share of their instructions is for this chain."""
    for callee, count in function.callees.items():
        entered = functions[callee].entered
        if entered and share * count / entered > LEAST:
            yield callee, share * count / entered


def flame_graph(cost: Cost) -> str:
    """Return the flame graph of `cost` as an SVG document: widths are instructions, a title says how many."""
    tree: dict[tuple[str, ...], float] = {}
    for frames, share in _stacks(cost):
        for depth in range(1, len(frames) + 1):
            tree[frames[:depth]] = tree.get(frames[:depth], 0.0) + share
    whole = sum(share for frames, share in tree.items() if len(frames) == 1) or 1.0
    deepest = max((len(frames) for frames in tree), default=0)
    left: dict[tuple[str, ...], float] = {(): 0.0}
    boxes = []
    for frames in sorted(tree, key=lambda frames: (len(frames), -tree[frames], frames)):
        parent = frames[:-1]
        x, width = left[parent], WIDTH * tree[frames] / whole
        left[parent], left[frames] = x + width, x
        boxes.append(_box(frames, x, width, tree[frames] / whole, tree[frames], deepest))
    height = HEIGHT * (deepest + 2)
    title = escape(f"{cost.name}: {cost.instructions:,} instructions, {cost.packets:,} packets")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="monospace" '
        f'font-size="12">\n<text x="4" y="13">{title}</text>\n{"".join(boxes)}</svg>\n'
    )


def _box(
    frames: tuple[str, ...], x: float, width: float, share: float, instructions: float, deepest: int
) -> str:
    name = frames[-1]
    shown = name if len(name) * CHARACTER < width else name[: int(width / CHARACTER) - 1]
    y = HEIGHT * (deepest + 1 - len(frames) + 0.5)
    hue = 10 + sum(map(ord, name)) % 45
    what = escape(f"{' > '.join(frames)}: {instructions:,.0f} instructions, {100 * share:.1f}%")
    return (
        f'<g><title>{what}</title><rect x="{x:.2f}" y="{y:.1f}" width="{max(width - 0.5, 0.1):.2f}" '
        f'height="{HEIGHT - 1}" fill="hsl({hue},85%,70%)"/>'
        f'<text x="{x + 3:.2f}" y="{y + 13:.1f}">{escape(shown)}</text></g>\n'
    )
