"""Small programs with every instruction limit, from none to enough: all engines end at the same instruction.

Payments are put together, made ahead, shared by the arms of a choice, and given back; functions that are
inlined pay as those that are called. The interpreter, which counts each basic block where it starts, is the
judge: of the result, and of where the limit is exceeded.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from ebpfjit.assembler import assemble
from ebpfjit.difftest.case import Case, Input
from ebpfjit.difftest.check import Checker
from ebpfjit.difftest.children import run_forked
from ebpfjit.difftest.engines import on_interpreter, prepared

ENDLESS = "no end"

PROGRAMS = {
    "a branch": "if r2 > 20 goto m\nr0 = *(u8 *)(r1 + 0)\nr0 += 1\ngoto n\nm: r0 = 7\nn: r0 += 1\nexit",
    "a choice": "r0 = 1\nif r2 > 20 goto m\nr0 = 5\nr0 += r2\nr0 *= 3\nm: r0 += 1\nexit",
    "choices in a row": (
        "r0 = 1\nif r2 > 20 goto a\nr0 = 5\na: if r2 & 1 goto b\nr0 += 3\nr0 ^= r2\ngoto c\nb: r0 -= 1\n"
        "c: if r0 s> 3 goto d\nr0 = 3\nd: exit"
    ),
    "a loop": "r0 = 0\nr3 = 0\nl: r4 = *(u8 *)(r1 + 0)\nr0 += r4\nr1 += 1\nr3 += 1\nif r3 < 11 goto l\nexit",
    "a loop that is tested at the top": (
        "r0 = 0\nl: if r0 >= 9 goto out\nr0 += 1\n*(u8 *)(r1 + 0) = r0\nr1 += 1\ngoto l\nout: exit"
    ),
    "a loop that is left early": (
        "r0 = 0\nl: r4 = *(u8 *)(r1 + 0)\nif r4 == 9 goto out\nr1 += 1\nr0 += 1\nif r0 < 12 goto l\nout: exit"
    ),
    "choices in a loop": (
        "r0 = 0\nr6 = 5\nl: r2 = *(u8 *)(r1 + 0)\nif r2 > 30 goto h\nr0 += 3\nr0 *= r2\ngoto on\n"
        "h: r0 ^= r2\non: if r0 & 1 goto odd\nr0 += 1\nodd: r1 += 1\nr6 -= 1\nif r6 != 0 goto l\nexit"
    ),
    "branches in a loop": (
        "r0 = 0\nr6 = 5\nl: r2 = *(u8 *)(r1 + 0)\nif r2 > 30 goto h\nr3 = *(u8 *)(r1 + 1)\nr0 += r3\n"
        "goto on\nh: *(u8 *)(r1 + 0) = r0\nr0 += 2\nr0 += 3\non: r1 += 1\nr6 -= 1\nif r6 != 0 goto l\nexit"
    ),
    "loops in a loop": (
        "r0 = 0\nr6 = 3\no: r7 = 4\ni: r0 += r7\nr7 -= 1\nif r7 != 0 goto i\nr7 = r6\nj: r0 ^= r7\nr7 -= 1\n"
        "if r7 s> 0 goto j\nr6 -= 1\nif r6 != 0 goto o\nexit"
    ),
    "a loop entered in the middle": (
        "r0 = 0\nr3 = 9\nif r2 > 20 goto m\nl: r0 += 1\nr0 *= 3\nm: r0 += 5\nr3 -= 1\nif r3 != 0 goto l\nexit"
    ),
    "a loop over the frame": (
        "r0 = 0\n*(u64 *)(r10 - 8) = r2\nr3 = 6\nl: r4 = *(u64 *)(r10 - 8)\nr4 += r3\n"
        "*(u64 *)(r10 - 8) = r4\nr3 -= 1\nif r3 != 0 goto l\nr0 = *(u64 *)(r10 - 8)\nexit"
    ),
    "a function that is inlined": (
        "r6 = r1\nr7 = 3\nr8 = 0\nl: r1 = r6\ncall f\nr8 += r0\nr6 += 1\nr7 -= 1\nif r7 != 0 goto l\n"
        "r0 = r8\nexit\nf: r0 = *(u8 *)(r1 + 0)\nif r0 > 9 goto g\nr0 += 1\ng: exit"
    ),
    "a function that is inlined, twice": (
        "r6 = r1\ncall f\nr7 = r0\nr1 = r6\nr1 += 5\ncall f\nr0 += r7\nexit\n"
        "f: r0 = *(u8 *)(r1 + 0)\nr0 += 1\nexit"
    ),
    "a function with a loop": (
        "r6 = 2\nl: r1 = 4\ncall f\nr6 -= 1\nif r6 != 0 goto l\nexit\nf: r0 = 0\nm: r0 += r1\nr1 -= 1\n"
        "if r1 != 0 goto m\nexit"
    ),
    "a function that calls itself": (
        "r1 = 4\ncall f\nexit\nf: r0 = 1\nif r1 == 0 goto out\nr6 = r1\nr1 -= 1\ncall f\nr0 += r6\nout: exit"
    ),
    "a fault on the way": "r0 = 0\nl: r3 = *(u32 *)(r1 + 0)\nr0 += r3\nr1 += 4\nif r0 s> -1 goto l\nexit",
    "a packet load": (
        "r6 = r1\nr0 = *(u8 *)skb[3]\nif r0 > 9 goto m\nr0 = *(u8 *)skb[r0 + 1]\nm: r0 += 1\nexit"
    ),
    "a helper": (
        "r6 = 3\nl: r1 = r6\nr2 = 2\nr3 = 3\nr4 = 4\nr5 = 5\ncall 5\nif r0 & 1 goto m\nr0 += 1\n"
        "m: r6 -= 1\nif r6 != 0 goto l\nexit"
    ),
    "may_goto": "r0 = 0\nl: may_goto out\nr0 += 1\nif r0 < 8 goto l\nout: exit",
    ENDLESS: "r0 = 0\nl: r0 += 1\nif r0 != 0 goto l\nexit",
}
"""In the dialect of Linux; r1 and r2 are the memory and its size."""

MEMORIES = (bytes(range(1, 25)), bytes(range(47, 31, -1)))
ENOUGH = 80
"""Instructions: what ends does so by then."""


def inputs(limits: Iterable[int]) -> tuple[Input, ...]:
    """Return memories, each with every limit; by its last byte the engine `optimized` picks a pass."""
    found = (Input(memory + bytes([limit]), limit, guard="after") for memory in MEMORIES for limit in limits)
    return tuple(found)


def findings(engines: tuple[str, ...], build: str = "native", step: int = 1) -> list[str]:
    """Return which programs end elsewhere than in the interpreter, with every `step`th limit."""
    checker, found = Checker(engines), []
    for number, (name, text) in enumerate(PROGRAMS.items()):
        case = Case(assemble(text), inputs(range(number % step, ENOUGH, step)), build)
        problem = checker.check(case, sampled=False)
        if problem is not None:
            found.append(f"{name}: {problem}")
    return found


@pytest.mark.parametrize(
    ("engine", "build"), [("jit", "native"), ("gate", "audit"), ("jit", "baseline"), ("gate", "hardened")]
)
def test_machine_code_ends_where_the_interpreter_does(engine: str, build: str) -> None:
    """As functions too, which take the limit on the way in."""
    ended = run_forked(lambda: findings(("interpreter", engine), build), 60)
    assert ended.value == [], ended


def test_runs_that_change_over_end_there_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EBPFJIT_TIERS", "on")
    ended = run_forked(lambda: findings(("interpreter", "tiered"), step=2), 60)
    assert ended.value == [], ended


def test_code_ends_there_behind_every_pass() -> None:
    assert findings(("interpreter", "optimized")) == []


def test_what_the_limit_leaves_of_the_programs() -> None:
    """Too small it ends them in several places, else not at all: so much there is to be compared."""
    for name, text in PROGRAMS.items():
        case = Case(assemble(text), inputs(range(ENOUGH)))
        run, ended = on_interpreter(case, prepared(case)), []
        for given in case.inputs[:ENOUGH]:
            outcome = run(given)
            ended.append(dict(outcome.attributes)["pc"] if outcome.kind == "BudgetExhausted" else None)
        exhausted = [pc for pc in ended if pc is not None]
        assert ended == exhausted + [None] * (ENOUGH - len(exhausted)), name
        assert len(set(exhausted)) > 1, name
        assert (len(exhausted) == ENOUGH) is (name == ENDLESS), name
