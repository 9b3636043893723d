"""Runs that last: they go on in optimised code at tested blocks, in functions too, and end as all others do.

What they come to is held against baseline code of the same program, which `test_engines_agree` holds against
the interpreter.
"""

from __future__ import annotations

from typing import Any

import pytest

from ebpfjit import EbpfError, JitFunction, Program
from ebpfjit.assembler import assemble
from ebpfjit.jit import gate
from ebpfjit.sealed import inside

pytestmark = pytest.mark.skipif(bool(gate.why_not()), reason=f"no native gate: {gate.why_not()}")

ROUNDS = 300_000
"""Of the innermost loops: some slices, and more than what the programs here have to cost to be optimised."""

PROGRAMS = {
    "nest": """
        r6 = r1
        r8 = 0
        r0 = 0
        *(u64 *)(r10 - 8) = r8
        *(u32 *)(r10 - 16) = 7
        outer: r3 = 0
        inner: r5 = *(u8 *)(r6 + 3)
        r2 = *(u64 *)(r10 - 8)
        r2 += r5
        *(u64 *)(r10 - 8) = r2
        r4 = *(u32 *)(r10 - 16)
        r4 += r2
        *(u32 *)(r10 - 16) = r4
        r0 += r4
        r3 += 1
        if r3 < ROUNDS goto inner
        r8 += 1
        if r8 < 12 goto outer
        r2 = *(u64 *)(r10 - 8)
        r0 += r2
        exit
    """,
    "frame": """
        r6 = r1
        r8 = 0
        r3 = r10
        r3 += -64
        again: r2 = *(u64 *)(r3 + 8)
        r2 += r8
        *(u64 *)(r3 + 8) = r2
        r4 = r8
        r4 &= 7
        r4 += r6
        r5 = *(u8 *)(r4 + 0)
        r5 += 1
        *(u8 *)(r4 + 0) = r5
        r8 += 1
        if r8 < ROUNDS*10 goto again
        r0 = *(u64 *)(r10 - 56)
        exit
    """,
    "functions": """
        r6 = r1
        r7 = 0
        r9 = 0
        loop: r1 = r6
        r2 = r7
        call middle
        r9 += r0
        r7 += 1
        if r7 < 6 goto loop
        r0 = r9
        exit
        middle: r6 = r2
        r8 = 3
        *(u64 *)(r10 - 8) = r1
        *(u64 *)(r10 - 16) = 0
        rounds: r1 = *(u64 *)(r10 - 8)
        r2 = r6
        call inner
        r1 = *(u64 *)(r10 - 16)
        r1 += r0
        *(u64 *)(r10 - 16) = r1
        r8 -= 1
        if r8 != 0 goto rounds
        r0 = *(u64 *)(r10 - 16)
        exit
        inner: r3 = *(u8 *)(r1 + 1)
        r0 = 0
        r4 = 0
        count: r0 += r3
        r0 ^= r2
        r4 += 1
        if r4 < ROUNDS goto count
        exit
    """,
    "recursion": """
        r6 = r1
        r1 = 6
        r2 = r6
        call self
        exit
        self: r7 = r1
        r8 = r2
        r0 = 0
        if r1 == 0 goto out
        r1 -= 1
        call self
        r4 = 0
        work: r5 = *(u16 *)(r8 + 2)
        r0 += r5
        r0 *= 3
        r4 += 1
        if r4 < ROUNDS*2 goto work
        r0 += r7
        out: exit
    """,
    "may_goto": """
        r0 = 0
        r6 = 0
        outer: r7 = 0
        inner: may_goto done
        r0 += r7
        r7 += 1
        if r7 < 2000 goto inner
        done: r6 += 1
        r8 = 0
        still: r8 += 1
        if r8 < ROUNDS goto still
        if r6 < 9 goto outer
        exit
    """,
    "callx": """
        r6 = r1
        call twice
        r7 = 0
        r9 = 0
        r8 = 0xebf000000000000d ll
        loop: r1 = r7
        callx r8
        r9 += r0
        r7 += 1
        if r7 < 9 goto loop
        r0 = r9
        exit
        twice: r4 = 0
        r0 = r1
        count: r0 += r0
        r0 ^= r4
        r4 += 1
        if r4 < ROUNDS goto count
        exit
    """,
}
"""Each with loops that runs come to the end of slices in, again and again."""

FAULTS = {
    "in the loop": "r3 = r1\nloop: r4 = *(u8 *)(r3 + 0)\nr0 += r4\nr2 = 0\nround: r2 += 1\n"
    "if r2 < ROUNDS/4 goto round\nr3 += 1\ngoto loop",
    "behind a function": "r6 = r1\ncall f\ncall f\ncall f\nr0 = *(u64 *)(r6 + 2000)\nexit\n"
    "f: r4 = 0\ncount: r4 += 1\nif r4 < ROUNDS*3 goto count\nr0 = r4\nexit",
    "two functions up": "r6 = r1\ncall f\nr0 = *(u64 *)(r6 + 2000)\nexit\nf: call g\ncall g\nexit\n"
    "g: r4 = 0\ncount: r4 += 1\nif r4 < ROUNDS*5 goto count\nr0 = r4\nexit",
    "in a function": "r6 = r1\nloop: r1 = r6\ncall f\nr6 += 16\ngoto loop\n"
    "f: r4 = 0\ncount: r4 += 1\nif r4 < ROUNDS*2 goto count\nr0 = *(u8 *)(r1 + 0)\nexit",
    "the budget": "r0 = 0\nagain: r0 += 1\ncall f\nif r0 != 0 goto again\nexit\n"
    "f: r4 = 0\ncount: r4 += 1\nif r4 < ROUNDS goto count\nexit",
}


def program_of(text: str) -> Program:
    for number in (10, 5, 3, 2):
        text = text.replace(f"ROUNDS*{number}", str(ROUNDS * number))
    return Program.from_bytes(
        assemble(text.replace("ROUNDS/4", str(ROUNDS // 4)).replace("ROUNDS", str(ROUNDS)))
    )


def ending(function: JitFunction, memory: bytearray) -> Any:
    try:
        return function(memory), bytes(memory)
    except EbpfError as error:
        return type(error), str(error), bytes(memory)


@pytest.fixture(autouse=True)
def tiers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EBPFJIT_TIERS", "on")


def endings(program: Program, **options: Any) -> tuple[JitFunction, Any, list[Any]]:
    """Return a function, how baseline code ends, and how the function does in the same memory."""
    memory = bytearray(32)
    function = program.compile(**options)
    hot = inside(function).gate
    assert hot is not None  # it changes tiers
    hot.set_words(heat=1)
    found = []
    for each in (program.compile(optimize=False, **options), *[function] * 4):
        memory[:] = range(200, 232)
        found.append(ending(each, memory))
    return function, found[0], found[1:]


@pytest.mark.parametrize("audit", [False, True])
@pytest.mark.parametrize("name", PROGRAMS)
def test_what_lasts_goes_on_in_better_code_and_comes_to_the_same(name: str, audit: bool) -> None:
    function, expected, found = endings(program_of(PROGRAMS[name]), audit=audit)
    assert found == [expected] * 4
    assert any(inside(function).resumed.values())
    assert function.is_optimized


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_the_same_wherever_the_run_has_gone_on(name: str) -> None:
    function, expected, found = endings(program_of(FAULTS[name]), limit=ROUNDS * 100)
    assert found == [expected] * 4
    assert isinstance(expected[0], type)
    assert any(inside(function).resumed.values())
