"""What blocks cost: the longer arm whichever is taken, and what is no arm."""

from __future__ import annotations

import random

import pytest
from support.placed_code import MEMORY, verified

from ebpfjit.analysis.costs import LONGEST
from ebpfjit.analysis.verified import Verified
from ebpfjit.assembler import assemble
from ebpfjit.difftest.case import Case, Input
from ebpfjit.difftest.check import Checker


def costs(source: str) -> dict[int, int]:
    return verified(source).costs


def arm(count: int, register: int = 3) -> str:
    return f"r{register} += 7\n" * count


@pytest.mark.parametrize("first", [1, 3, LONGEST - 1])
@pytest.mark.parametrize("second", [1, 2, LONGEST])
def test_the_longer_of_two_arms_counts(first: int, second: int) -> None:
    """The first has a jump over the second, which counts too."""
    found = costs(f"if r1 == 5 goto m\n{arm(first)}goto n\nm: {arm(second)}n: exit")
    assert found == {0: 1 + max(first + 1, second), 1: 0, 2 + first: 0, 2 + first + second: 1}


@pytest.mark.parametrize("count", [1, LONGEST, LONGEST + 1])
def test_an_arm_is_short(count: int) -> None:
    found = costs(f"if r1 == 5 goto m\n{arm(count)}m: exit")
    assert found[1] == (0 if count <= LONGEST else count)
    assert sum(found.values()) == count + 2


@pytest.mark.parametrize(
    "inside",
    [
        "r3 = *(u8 *)(r1 + 0)",
        "*(u8 *)(r1 + 0) = 3",
        "call 5",
        "r0 = *(u8 *)skb[0]",
        "lock *(u64 *)(r1 + 0) += r3",
    ],
)
def test_what_does_more_than_arithmetic_is_no_arm(inside: str) -> None:
    found = costs(f"if r1 == 5 goto m\nr3 += 1\n{inside}\nm: exit")
    assert found == {0: 1, 1: 2, 3: 1}


@pytest.mark.parametrize(
    "source",
    [
        "if r1 == 5 goto m\nr3 += 1\nm: if r2 == 5 goto -2\nexit",  # another jump leads into it
        "if r1 == 5 goto m\nr3 += 1\nexit\nm: exit",  # it ends otherwise
        "if r1 == 5 goto m\nr3 += 1\nif r3 == 5 goto +0\nm: exit",  # it goes two ways
        "if r1 == 5 goto m\nr3 += 1\ngoto -3\nm: exit",  # it goes back
        "r1 = f ll\nif r2 == 5 goto m\nf: r3 += 1\nm: exit",  # a function starts there
        "if r1 == 5 goto +0\nr3 += 1\nexit",  # both ways lead to one block
    ],
)
def test_what_is_no_arm_costs_what_it_has(source: str) -> None:
    ready = verified(source)
    assert ready.costs == ready.blocks


def test_what_follows_a_choice_in_an_arm_makes_it_none() -> None:
    """The outer one ends in a branch; the inner one is an arm of that."""
    found = costs("if r1 == 5 goto m\nr3 += 1\nif r3 == 5 goto m2\nr3 += 2\nm2: r3 += 3\nm: exit")
    assert found == {0: 1, 1: 3, 3: 0, 4: 1, 5: 1}


@pytest.mark.parametrize("count", [1, LONGEST - 2, LONGEST - 1])
def test_a_choice_is_an_arm_where_it_goes_on_where_the_other_way_does(count: int) -> None:
    """As in `x < low ? low : x > high ? high : x`; together they are as short as one arm."""
    found = costs(f"if r1 == 5 goto m\nr3 += 1\nif r3 == 5 goto m\n{arm(count)}m: exit")
    is_short = count + 2 <= LONGEST
    assert found == {0: 3 + count if is_short else 1, 1: 0 if is_short else 2 + count, 3: 0, 3 + count: 1}


def paths(ready: Verified, limit: int = 4000) -> set[int]:
    """Return what the ways through a program without loops cost."""
    ways, found, waiting = ready.liveness.ways, set(), [(0, 0)]
    for _ in range(limit):
        if not waiting:
            return found
        pc, cost = waiting.pop()
        cost += ready.costs[pc]
        waiting += [(way, cost) for way in ways[pc]]
        if not ways[pc]:
            found.add(cost)
    return found


def test_the_way_that_choices_take_does_not_show_in_the_account() -> None:
    """However many there are in a row, and whichever are taken."""
    rng = random.Random(2)
    lines = []
    for number in range(9):
        count = rng.randrange(1, 5)
        if rng.random() < 0.5:
            lines += [f"if r1 > {number} goto m{number}", arm(count)]
        else:
            lines += [
                f"if r1 > {number} goto o{number}",
                arm(count),
                f"goto m{number}",
                f"o{number}: r4 += 1",
            ]
        lines.append(f"m{number}: r5 += 1")
    assert len(paths(verified("\n".join([*lines, "exit"])))) == 1


SELECTS = """
    r0 = 0
    r6 = 5
    again: r2 = *(u8 *)(r1 + 0)
    if r2 > 30 goto high
    r0 += 3
    r0 *= r2
    goto on
    high: r0 ^= r2
    on: if r0 & 1 goto odd
    r0 += 1
    if r0 & 2 goto odd
    r0 += 3
    odd: r1 += 9
    r6 -= 1
    if r6 != 0 goto again
    exit
"""


@pytest.mark.parametrize("build", ["baseline", "native", "audit"])
def test_every_engine_counts_so_to_the_instruction(build: str) -> None:
    inputs = tuple(
        Input(MEMORY[start:] + MEMORY[:start], limit) for start in (0, 29) for limit in range(1, 75)
    )
    checker = Checker(("interpreter", "jit"))
    assert checker.check(Case(assemble(SELECTS), inputs, build=build)) is None
