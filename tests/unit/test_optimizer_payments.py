"""Payments ahead: on every way the same sum, exact where somebody looks, what is not run given back."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator

import pytest
from support.placed_code import MEMORY, agree, code_of, verified

from ebpfjit import Program
from ebpfjit.analysis.accesses import Promises
from ebpfjit.analysis.verified import Verified, prepare
from ebpfjit.difftest.case import Input
from ebpfjit.difftest.pointers import Writer
from ebpfjit.errors import EbpfError, OptimizationError
from ebpfjit.optimizer.check import check
from ebpfjit.optimizer.code import PAY, Block, Code, Op
from ebpfjit.optimizer.passes import PASSES, stages
from ebpfjit.optimizer.payments import JUMP, SETTLES, pay_ahead
from ebpfjit.optimizer.text import to_text

Place = tuple[int, int]
"""A block of the code before, and the one behind that stands for it."""


def payments(block: Block) -> Iterator[tuple[list[Op], Op]]:
    """Yield each operation with the payments before it that nobody looks at."""
    before: list[Op] = []
    for op in block.all_ops:
        if op.row is PAY and op.exit is None:
            before.append(op)
        else:
            yield before, op
            before = []


def sums(block: Block) -> Iterator[tuple[int, Op]]:
    """Yield them with what is paid before each, since the one before it."""
    behind = 0
    for paid, op in payments(block):
        yield behind + sum(each.imm for each in paid), op
        behind = op.imm if op.row is PAY else 0


def complaints(before: Code, after: Code) -> Iterator[str]:
    """Follow every way of both, with what more is paid in the code behind."""
    ahead: dict[Place, int] = {}
    waiting = [((entry.block, after.entries[pc].block), 0) for pc, entry in before.entries.items()]
    while waiting:
        place, more = waiting.pop()
        if place in ahead:
            if ahead[place] != more:
                yield f"{place}: {more} or {ahead[place]} is paid ahead, by the way to it"
            continue
        ahead[place] = more
        old, new = before.blocks[place[0]], after.blocks[place[1]]
        for (due, op), (paid, other) in zip(sums(old), sums(new), strict=True):
            more += paid - due
            yield from of_op(op, other, more)
        for way, onward in zip(old.ways, new.ways, strict=True):
            block, extra = onward.block, 0
            between = after.blocks[block]
            if block >= len(before.blocks):  # it is there to pay
                extra = sum(each.imm for each in between.ops)
                assert all(each.row is PAY and each.exit is None for each in between.ops)
                assert between.end.row is JUMP
                (onward,) = between.ways
            waiting.append(((way.block, onward.block), more + extra))


def of_op(op: Op, other: Op, more: int) -> Iterator[str]:
    """Yield what is wrong at an operation before which so much more was paid."""
    if other.row is not op.row or other.results != op.results or other.args != op.args:
        yield f"pc {op.pc}: {op.row.name} became {other.row.name}"
    if op.row is PAY:
        asked, wanted = (each.offset or each.imm for each in (other, op))
        if more or asked != wanted:
            yield f"pc {op.pc}: asks for {asked}, not {wanted}, and has paid {more} ahead"
    elif op.row.kind in SETTLES and more:
        yield f"pc {op.pc}: {more} is paid ahead at {op.row.name}"
    if op.exit is not None and other.exit is not None and op.row is not PAY:
        back = other.exit.refund - op.exit.refund
        if back != more:
            yield f"pc {op.pc}: gives back {back}, not {more}"


ROUND_BY_ROUND = PASSES.keys() - {"unroll"}


def before_payments(ready: Verified, chosen: Collection[str] = PASSES.keys()) -> Code:
    """Return a program's code as the pass gets it."""
    code = None
    for name, each, _ in stages(ready, Promises(argument_is_measured=True), chosen=chosen):
        if name == "payments":
            break
        code = each
    assert code is not None  # there are passes before
    return code


def programs(seeds: range) -> Iterator[tuple[int, Verified]]:
    """Yield programs of the fuzzer's that become code."""
    for seed in seeds:
        try:
            yield seed, prepare(Program.from_bytes(Writer(random.Random(seed)).program()))
        except EbpfError:
            continue


def test_every_way_pays_what_it_runs() -> None:
    tried = ahead = 0
    for seed, ready in programs(range(60)):
        try:
            before = before_payments(ready)
        except OptimizationError:
            continue
        after = pay_ahead(before)
        check(after)
        assert list(complaints(before, after)) == [], seed
        tried += 1
        ahead += any(op.row is PAY and op.offset for block in after.blocks for op in block.ops)
    assert tried > 40
    assert ahead > 3


BRANCHES = """
    r0 = 0
    r6 = 7
    loop: r2 = *(u8 *)(r1 + 1)
    if r2 > 50 goto high
    r3 = *(u8 *)(r1 + 2)
    r0 += r3
    goto on
    high: r3 = *(u8 *)(r1 + 3)
    r4 = *(u8 *)(r1 + 4)
    r5 = *(u8 *)(r1 + 5)
    r0 += r5
    on: r1 += 1
    r6 -= 1
    if r6 != 0 goto loop
    exit
"""


def test_a_payment_stands_for_the_likely_way_and_the_other_one_pays_the_rest() -> None:
    before = before_payments(verified(BRANCHES), ROUND_BY_ROUND)
    after = pay_ahead(before)
    assert list(complaints(before, after)) == []
    looked = [op for block in after.blocks for op in block.ops if op.row is PAY and op.exit is not None]
    assert any(op.offset and op.imm > op.offset for op in looked)
    count = [sum(op.row is PAY for block in code.blocks for op in block.ops) for code in (before, after)]
    assert count[1] < count[0]


@pytest.mark.parametrize("chosen", [PASSES.keys(), ROUND_BY_ROUND], ids=["unrolled", "round by round"])
def test_the_budget_is_exact_to_the_instruction(chosen: Collection[str]) -> None:
    """With every limit until it ends, and where it faults on the way: in a round, and behind it."""
    after = pay_ahead(before_payments(verified(BRANCHES), chosen))
    limits = [*range(1, 90), None]
    agree(after, [Input(MEMORY, limit) for limit in limits])
    agree(after, [Input(MEMORY[::-1], limit) for limit in limits])
    agree(after, [Input(MEMORY[:size], limit) for size in (3, 6, 9, 11) for limit in limits[:: 1 + size]])


TEXT = """\
entry 0: b0 (r1)
b0 pc 0 (v0):
  pay 2 else leave 0 (r1 = v0)
  v1 = v0 + 1
  if v1 > 5 goto b1() else b2() ; 1
b1 pc 2 ():
  pay 3
  bound load v0 + 0..1 else leave 3 (r1 = v0) ; 3
  v2 = *(u8 *)(v0 + 0)
  exit v2 ; 4
b2 pc 5 ():
  pay 1
  exit v1
"""


def test_a_difference_goes_to_where_only_that_way_leads() -> None:
    code = code_of(TEXT, "exit\n" * 6)
    after = pay_ahead(code)
    assert list(complaints(code, after)) == []
    assert to_text(after) == TEXT.replace("pay 2 else", "pay 3 own 2 else").replace(
        "pay 3\n", "pay 2\n"
    ).replace("  pay 1\n", "")


def test_exits_give_back_what_was_paid_for_later() -> None:
    text = TEXT.replace(
        "  pay 1\n  exit v1", "  pay 1\n  bound load v0 + 8..9 else leave 5 (r1 = v0) refund 1\n  exit v1"
    )
    code = code_of(text, "exit\n" * 6)
    after = pay_ahead(code)
    assert list(complaints(code, after)) == []
    assert "leave 5 (r1 = v0) refund 1\n" in to_text(after)
    ahead = TEXT.replace("  v1 = v0 + 1", "  bound load v0 + 4..5 else leave 1 (r1 = v0) ; 1\n  v1 = v0 + 1")
    code = code_of(ahead, "exit\n" * 6)
    after = pay_ahead(code)
    assert "leave 1 (r1 = v0) refund 1" in to_text(after)
    assert list(complaints(code, after)) == []


@pytest.mark.parametrize(
    ("call", "source"),
    [
        ("v9 = call 5(v0, v0, v0, v0, v0)", "call 5"),
        ("v9 = *(u8 *)skb[0] else leave 1 (r1 = v0)", "r0 = *(u8 *)skb[0]"),
        (
            "v9, v10, v11, v12, v13, v14 = function 0(v0) else leave 1 (r1 = v0)",
            "call -2",
        ),
    ],
)
def test_the_account_is_exact_where_something_outside_looks_at_it(call: str, source: str) -> None:
    text = TEXT.replace("  v1 = v0 + 1\n", f"  {call} ; 1\n  v1 = v0 + 1 ; 2\n")
    code = code_of(text, f"r0 = 0\n{source}\n" + "exit\n" * 6)
    after = pay_ahead(code)
    assert list(complaints(code, after)) == []
    lines = to_text(after).splitlines()
    at = next(number for number, line in enumerate(lines) if call.split(" else")[0] in line)
    assert "own" not in lines[2]
    assert lines[at + 1].strip().startswith("pay 1")


def test_a_wrong_payment_is_seen() -> None:
    """What the others stand on: a payment too many, and a refund that is forgotten."""
    code = code_of(TEXT, "exit\n" * 6)
    after = to_text(pay_ahead(code))
    for old, new in (("pay 2\n", "pay 3\n"), ("own 2", "own 1"), ("pay 3 own", "pay 4 own")):
        assert list(complaints(code, code_of(after.replace(old, new), "exit\n" * 6)))
