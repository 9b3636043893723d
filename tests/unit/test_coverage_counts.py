"""Counts are exact where a run ends in the middle of a loop, and whatever becomes of the loop."""

from __future__ import annotations

import random
import signal
from typing import Any

import pytest
from support.counting import came_to_its_end, counted, traced

from ebpfjit import Program
from ebpfjit.assembler import assemble
from ebpfjit.coverage import Coverage
from ebpfjit.difftest import engines
from ebpfjit.difftest.arena import SUM
from ebpfjit.difftest.case import Case, Input
from ebpfjit.jit.gate import why_not
from ebpfjit.runtime import counters
from ebpfjit.runtime.execution import SLICE

LOOPS = {
    "a sum": """
        r0 = 0
    l:  r3 = *(u32 *)(r1 + 0)
        r0 += r3
        r1 += 4
        r2 += -4
        if r2 s> 3 goto l
        exit""",
    "the least and the most": """
        r0 = -1
        r4 = 0
        r2 += r1
    l:  r3 = *(u8 *)(r1 + 0)
        if r3 >= r0 goto a
        r0 = r3
    a:  if r3 <= r4 goto b
        r4 = r3
    b:  r1 += 1
        if r1 < r2 goto l
        r0 += r4
        exit""",
    "two ways of each round": """
        r0 = 0
        r2 += r1
    l:  r3 = *(u8 *)(r1 + 0)
        if r3 & 1 goto odd
        r0 ^= r3
        *(u8 *)(r1 + 0) = r0
        goto on
    odd: r0 += r3
    on: r1 += 1
        if r1 < r2 goto l
        exit""",
    "faults in the one arm and the other": """
        r0 = 0
        r5 = 40
    l:  r3 = *(u8 *)(r1 + 0)
        r4 = r1
        if r3 & 1 goto odd
        r3 &= 62
        r4 += r3
        *(u16 *)(r4 + 0) = r0
        r0 ^= r3
        goto on
    odd: r3 &= 62
        r4 += r3
        r4 = *(u32 *)(r4 + 0)
        r0 += r4
    on: r1 += 1
        r5 += -1
        if r5 != 0 goto l
        exit""",
    "rounds that come round early": """
        r0 = 0
        r2 += r1
    l:  if r1 >= r2 goto out
        r3 = *(u8 *)(r1 + 0)
        r1 += 1
        if r3 == 0 goto l
        if r3 & 6 goto l
        r0 += r3
        if r0 & 64 goto l
        r0 += 1
        goto l
    out: exit""",
    "several ways out": """
        r0 = 0
        r5 = 40
    l:  r3 = *(u8 *)(r1 + 0)
        if r3 == 255 goto out
        r0 += r3
        if r0 > 900 goto other
        r1 += 1
        r5 += -1
        if r5 != 0 goto l
    out: exit
    other: r0 = 7
        exit""",
    "a loop in a loop": """
        r0 = 0
        r5 = 6
    outer: r3 = r1
        r4 = r5
    inner: r6 = *(u8 *)(r3 + 0)
        if r6 > 128 goto big
        r0 += r6
    big: r3 += 1
        r4 += -1
        if r4 != 0 goto inner
        r0 <<= 1
        r5 += -1
        if r5 != 0 goto outer
        exit""",
    "one loop behind the other": """
        r0 = 0
        r4 = 9
        r5 = 20
    one: r3 = *(u8 *)(r1 + 0)
        r0 += r3
        r1 += 1
        r4 += -1
        if r4 != 0 goto one
    two: r3 = *(u8 *)(r1 + 0)
        r0 ^= r3
        r1 += 1
        r5 += -1
        if r5 != 0 goto two
        exit""",
    "a loop in front that is behind": """
        r0 = 0
        r4 = 9
        r5 = 5
        goto one
    two: r3 = *(u8 *)(r1 + 1)
        r0 ^= r3
        r1 += 2
        r5 += -1
        if r5 != 0 goto two
        exit
    one: r3 = *(u8 *)(r1 + 0)
        r0 += r3
        r1 += 1
        r4 += -1
        if r4 != 0 goto one
        goto two""",
    "a function that is called": """
        r0 = 0
        r6 = r1
        r7 = 12
    l:  r1 = *(u8 *)(r6 + 0)
        r2 = r7
        call f
        *(u8 *)(r6 + 0) = r0
        r6 += 1
        r7 += -1
        if r7 != 0 goto l
        exit
    f:  r0 = r1
        if r1 > r2 goto f1
        r0 += r2
    f1: r0 *= 3
        exit""",
    "a loop in a function": """
        r6 = r1
        call f
        r7 = r0
        r1 = r6
        call f
        r0 += r7
        exit
    f:  r0 = 0
        r3 = 7
    l:  r4 = *(u8 *)(r1 + 0)
        if r4 < 100 goto a
        r0 += 1
    a:  r1 += 1
        r3 += -1
        if r3 != 0 goto l
        exit""",
    "a helper in each round": f"""
        r6 = r1
        r7 = 5
    l:  r1 = *(u8 *)(r6 + 0)
        r2 = 1
        r3 = 2
        r4 = 3
        r5 = 4
        call {SUM}
        r6 += 1
        r7 += -1
        if r7 != 0 goto l
        exit""",
    "may_goto": """
        r0 = 0
        r3 = 30
    l:  may_goto out
        r4 = *(u8 *)(r1 + 0)
        r0 += r4
        r1 += 1
        if r4 < 60 goto a
        r0 += 2
    a:  r3 += -1
        if r3 != 0 goto l
    out: exit""",
    "more values than registers": """
        r0 = 0
        r2 += r1
        r4 = 1
        r5 = 2
        r6 = 3
        r7 = 4
        r8 = 5
        r9 = 6
    l:  r3 = *(u8 *)(r1 + 0)
        if r3 < 40 goto a
        r4 += r5
        r0 ^= r4
    a:  if r3 < 80 goto b
        r6 += r7
        r5 ^= r6
    b:  if r3 < 120 goto c
        r8 += r9
        r7 ^= r8
    c:  if r3 < 160 goto d
        r9 += r0
        *(u8 *)(r1 + 0) = r9
    d:  r1 += 1
        if r1 < r2 goto l
        r0 += r4
        r0 += r6
        r0 += r8
        exit""",
}
BUILDS = ("native", "plain", "hardened", "audit", "baseline")
MEMORY = random.Random(5).randbytes(64)
INPUTS = (
    *(Input(MEMORY[:size]) for size in (64, 40, 33, 16, 7, 4)),  # most loops fault in those that are short
    *(Input(MEMORY, limit) for limit in range(1, 160, 3)),
    Input(MEMORY, read_only=True),
    Input(bytes(64)),
)


@pytest.fixture
def counting():
    counters.start()
    yield
    counters.stop()


@pytest.mark.parametrize("name", LOOPS)
def test_counts_of_loops_are_those_of_the_trace(
    name: str, counting: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(assemble(LOOPS[name]), INPUTS)
    verified = engines.prepared(case)
    runs = {build: engines.runner_of(engines.compiled_case(case, verified, build)) for build in BUILDS}
    tiered = engines.on_tiered(case, verified)
    for number, given in enumerate(INPUTS):
        wanted, outcomes = traced(Case(case.code, (given,)), verified)
        (kind,) = [outcome and outcome.kind for outcome in outcomes]
        for build, run in runs.items():
            ended, found = run(given), counted(verified.program)
            assert ended is not None
            assert ended.kind == kind, (given, build)
            assert found.executed == wanted.executed, (given, build)
            if came_to_its_end(outcomes):
                assert found.branches == wanted.branches, (given, build)
        first = (1, 9, 40, 70)[number % 4]
        monkeypatch.setattr(engines, "FIRST_SLICES", (first,))
        ended, found = tiered(given), counted(verified.program)
        assert ended is not None
        assert ended.kind == kind, (given, first)
        assert found.executed == wanted.executed, (given, first)


ENDLESS = """
    r0 = 0
    r3 = 0
l:  r0 += 1
    *(u64 *)(r1 + 0) = r0
    if r0 & 1 goto l
    r3 += 1
    *(u64 *)(r1 + 8) = r3
    goto l
"""


@pytest.mark.skipif(bool(why_not()), reason=f"no native gate: {why_not()}")
@pytest.mark.parametrize("optimize", [True, False])
def test_a_run_that_ctrl_c_ends_has_counted_what_it_did(optimize: bool) -> None:
    class Alarm(Exception):  # noqa: N818 - not an error
        pass

    def handler(number: int, frame: Any) -> None:
        raise Alarm

    program = Program.from_assembly(ENDLESS, name="endless")
    memory = bytearray(16)
    before = signal.signal(signal.SIGALRM, handler)
    try:
        with Coverage() as coverage:
            function = program.compile(optimize=optimize)
            for _ in range(3):
                signal.setitimer(signal.ITIMER_REAL, 0.02)
                with pytest.raises(Alarm):
                    function(memory)
                rounds, evens = (int.from_bytes(memory[at : at + 8], "little") for at in (0, 8))
                (covered,) = coverage.programs
                assert covered.executed[2] == rounds
                assert covered.executed[5] == evens
                coverage.forget()
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("build", BUILDS)
def test_slices_count_once(build: str, counting: None) -> None:
    """Runs of many slices, which their limit ends at one or the other place where somebody looks."""
    case = Case(assemble(ENDLESS + "exit"), ())
    verified = engines.prepared(case)
    run = engines.runner_of(engines.compiled_case(case, verified, build))
    for limit in (3 * SLICE, 3 * SLICE + 2, 3 * SLICE + 7):
        ended, found = run(Input(bytes(16), limit)), counted(verified.program)
        assert ended is not None
        assert ended.kind == "BudgetExhausted"
        assert found.executed[2] == int.from_bytes(ended.memory[:8], "little"), limit
        assert found.executed[5] == int.from_bytes(ended.memory[8:], "little"), limit
