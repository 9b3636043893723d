"""What each pass makes of the inner loop that it is for, as text: with all passes, and with all but this one.

Counted is what the loop has in all of its blocks: instructions of the machine, checks, payments. A change of
a pass shows here as a diff; refresh with `make bless` after reading it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ebpfjit.analysis.accesses import Promises
from ebpfjit.analysis.verified import prepare
from ebpfjit.assembler import assemble
from ebpfjit.isa.spec import Kind
from ebpfjit.jit.compiler import listing_of
from ebpfjit.jit.recipe import Recipe
from ebpfjit.optimizer.code import BOUND, PAY, Block, Code
from ebpfjit.optimizer.dominators import Dominators
from ebpfjit.optimizer.passes import ALL_PASSES, PASSES, SLOTS, Known, optimised
from ebpfjit.options import Options
from ebpfjit.program import Program
from ebpfjit.ready import promises_of, ready
from ebpfjit.translators.emitter import Item, Label

HERE = Path(__file__).parent / "loops"
PROMISES = Promises(argument_is_measured=True, calling=frozenset())
LOOPS = {
    "promote": """
        r0 = 0
        r3 = 0
        loop: w4 = *(u8 *)(r1 + 0)
        if r4 >= r0 goto on
        r0 = r4
        on: r3 += r4
        r1 += 1
        r2 -= 1
        if r2 != 0 goto loop
        r0 += r3
        exit
    """,
    "vectors": """
        r3 = r2
        r3 >>= 2
        r0 = 0
        loop: w4 = *(u32 *)(r1 + 0)
        w0 += w4
        r1 += 4
        r3 -= 1
        if r3 != 0 goto loop
        exit
    """,
    "inline": """
        r6 = r2
        loop: r1 = r0
        r2 = r6
        call before
        r6 -= 1
        if r6 != 0 goto loop
        exit
        before: r0 = 1
        w1 <<= 16
        w2 >>= 16
        w1 |= w2
        if w1 < w2 goto out
        r0 = 0
        out: exit
    """,
    "slots": """
        r3 = 0
        loop: r4 = *(u64 *)(r10 - 8)
        r4 += r3
        *(u64 *)(r10 - 8) = r4
        r3 += 1
        if r3 < r2 goto loop
        r0 = r4
        exit
    """,
    "select": """
        r3 = r1
        r3 += r2
        loop: r4 = *(u8 *)(r1 + 0)
        if r4 <= r0 goto less
        r0 = r4
        less: r1 += 1
        if r1 < r3 goto loop
        exit
    """,
    "simplify": """
        loop: r4 = r2
        r4 <<= 32
        r4 >>= 32
        r4 ^= r0
        r4 &= 255
        r4 <<= 3
        r4 >>= 3
        r0 += r4
        r2 -= 1
        if r2 != 0 goto loop
        exit
    """,
    "dead": """
        loop: r4 = r2
        r4 *= 7
        r5 = r4
        r5 += 3
        r0 += r2
        r2 -= 1
        if r2 != 0 goto loop
        exit
    """,
    "guards": """
        r3 = 0
        loop: if r3 >= r2 goto out
        r4 = r1
        r4 += r3
        r5 = *(u8 *)(r4 + 0)
        r0 += r5
        r3 += 1
        goto loop
        out: exit
    """,
    "reloads": """
        *(u64 *)(r10 - 8) = r1
        r3 = 0
        loop: r4 = r10
        r4 += r3
        *(u32 *)(r4 - 80) = r3
        r4 = *(u64 *)(r10 - 8)
        r4 += r3
        r5 = *(u32 *)(r4 + 0)
        r0 ^= r5
        r3 += 4
        if r3 != 64 goto loop
        exit
    """,
    "hoisting": """
        r6 = *(u32 *)(r1 + 0)
        r3 = 0
        loop: r4 = r1
        r4 += r3
        r5 = *(u8 *)(r4 + 4)
        r0 -= r5
        r3 += 1
        if r3 != r6 goto loop
        exit
    """,
    "safepoints": """
        goto loop
        big: r0 ^= r2
        r0 += 3
        goto next
        small: r0 *= 5
        next: r2 -= 1
        if r2 == 0 goto out
        loop: r4 = r2
        r4 &= 7
        *(u64 *)(r10 - 8) = r4
        if r4 > 5 goto big
        r0 += 1
        goto small
        out: exit
    """,
    "unroll": """
        r3 = 0
        loop: r0 += r3
        r0 ^= r1
        r3 += 1
        if r3 < r2 goto loop
        exit
    """,
    "divide": """
        loop: r4 = r2
        r4 %= 10
        r0 += r4
        r2 /= 10
        if r2 != 0 goto loop
        exit
    """,
    "displace": """
        r3 = r1
        r3 += r2
        loop: r4 = r1
        r4 += 8
        r5 = *(u64 *)(r4 + 0)
        r6 = *(u64 *)(r4 - 8)
        r5 *= r6
        r0 ^= r5
        r1 += 16
        if r1 < r3 goto loop
        exit
    """,
    "gather": """
        r3 = r1
        r3 += r2
        loop: r4 = *(u8 *)(r1 + 0)
        r5 = *(u8 *)(r1 + 1)
        r5 <<= 8
        r5 |= r4
        r0 ^= r5
        r1 += 2
        if r1 < r3 goto loop
        exit
    """,
    "index": """
        r3 = 0
        loop: r4 = r3
        r4 <<= 3
        r4 += r1
        r5 = *(u64 *)(r4 + 0)
        r0 ^= r5
        r5 = *(u64 *)(r1 + 8)
        r3 += r5
        if r3 < r2 goto loop
        exit
    """,
    "operands": """
        r3 = r1
        r3 += r2
        loop: r4 = *(u64 *)(r1 + 0)
        r0 -= r4
        r1 += 8
        if r1 < r3 goto loop
        exit
    """,
    "payments": """
        loop: r4 = r2
        r4 &= 1
        if r4 == 0 goto even
        r0 += r2
        r0 *= 3
        r0 ^= r1
        r0 += 7
        r0 *= r2
        goto next
        even: r0 ^= r2
        next: r2 -= 1
        if r2 != 0 goto loop
        exit
    """,
    "jumps": """
        loop: r2 -= 1
        if r2 & 1 goto odd
        r0 += 5
        r0 *= r1
        r0 += r2
        r0 *= r1
        r0 += r2
        goto there
        odd: goto there
        there: goto again
        again: if r2 != 0 goto loop
        exit
    """,
    "layout": """
        goto first
        second: r0 ^= r2
        if r2 == 7 goto out
        goto third
        first: r2 -= 1
        r0 += r2
        goto second
        third: if r2 != 0 goto first
        out: exit
    """,
}
"""By pass, a program with the loop that shows what it is for."""


def inner_loop(code: Code) -> set[int]:
    """Return the blocks of the loop that comes round last in the layout."""
    dominators = Dominators(code.shape)
    back = [
        (number, way.block)
        for number in code.laid_out
        for way in code.blocks[number].ways
        if dominators.dominates(way.block, number)
    ]
    assert back, "there is no loop"

    def size(block: Block) -> tuple[bool, int]:
        return any(op.row.kind is Kind.REDUCE for op in block.ops), len(block.ops)

    latch, header = max(back, key=lambda one: size(code.blocks[one[0]]))
    blocks, waiting = {header}, [latch]
    while waiting:
        number = waiting.pop()
        if number not in blocks:
            blocks.add(number)
            waiting += [before for before, _ in dominators.preds[number]]
    return blocks


def text_of(
    source: str, passes: frozenset[str], type_: str | None = None, *, counted: bool = False
) -> tuple[str, list[str]]:
    """Return what a program's loop has in a line, and its code."""
    program = Program(assemble(source), type=type_)
    verified = prepare(program)
    promises = PROMISES if type_ is None else promises_of(ready(program))
    options = Options(passes=passes, promises=promises, features=frozenset(), counted=counted)
    known = Known(promises, counting=set() if counted else None)
    code = optimised(verified, known, chosen=passes)
    loop = inner_loop(code)
    names = {f"b_{place}" for place, number in enumerate(code.laid_out) if number in loop}
    lines, is_inside, count = [], False, 0
    for item in items_of(Recipe(verified, options)):
        if isinstance(item, Label):
            is_inside = item.name in names or (is_inside and not item.name.startswith("b_"))
        if is_inside:
            lines.append(f"    {item.text}" if isinstance(item, Label) else f"        {item.text}")
            count += not isinstance(item, Label)
    ops = [op for number in loop for op in code.blocks[number].all_ops]
    checks = sum(op.row is BOUND for op in ops)
    payments = sum(op.row is PAY for op in ops)
    return f"{count} instructions, {checks} checks, {payments} payments", lines


def items_of(recipe: Recipe) -> list[Item]:
    """Return the lines, jumps and labels of optimised code, but for what is out of line."""
    listing = listing_of(recipe)
    return [item for piece in listing.pieces[: listing.baseline_from] for item in piece.items]


def test_each_pass_has_its_loop() -> None:
    assert set(LOOPS) == {SLOTS, *PASSES} - {"dead again"}


@pytest.mark.parametrize("name", LOOPS)
def test_inner_loop(name: str, golden: Callable[[Path, str], None]) -> None:
    counted = name == "promote"
    with_it, lines = text_of(LOOPS[name], ALL_PASSES, counted=counted)
    chosen = ALL_PASSES - {name, *(["dead again"] if name == "dead" else [])}
    without, others = text_of(LOOPS[name], chosen, counted=counted)
    assert (with_it, lines) != (without, others)
    text = "\n".join([f"with {name}: {with_it}", *lines, f"without: {without}", *others])
    golden(HERE / f"{name}.txt", text + "\n")


PACKET = """
    r2 = *(u32 *)(r1 + 0)
    r3 = *(u32 *)(r1 + 4)
    r4 = r2
    r4 += 34
    r6 = 0
    if r4 > r3 goto out
    loop: r5 = r4
    r5 += 2
    if r5 > r3 goto out
    r5 = *(u16 *)(r4 + 0)
    r0 ^= r5
    r0 *= 31
    r4 += 2
    r6 += 1
    if r6 < 750 goto loop
    out: exit
"""


def test_inner_loop_over_a_packet(golden: Callable[[Path, str], None]) -> None:
    """What comes before it says how far it gets: not the number, which is the most that a verifier takes."""
    lines = []
    for title, passes in (("with", ALL_PASSES), ("without", ALL_PASSES - {"hoisting"})):
        counts, text = text_of(PACKET, passes, "xdp")
        lines += [f"{title} hoisting: {counts}", *text]
    golden(HERE / "packets.txt", "\n".join(lines) + "\n")
