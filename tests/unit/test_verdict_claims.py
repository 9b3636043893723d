"""Runs lie in what is claimed; what is claimed wrongly is seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ebpfjit.difftest.verdicts import generate
from ebpfjit.difftest.verdicts.claims import unclaimed
from ebpfjit.difftest.verdicts.sample import Sample
from ebpfjit.verifier import formats
from ebpfjit.verifier.values import Pointer, known, mark_precise

INDEXED = """
    r6 = r1
    r2 = *(u32 *)(r1 + 0)
    r1 = *(u32 *)(r1 + 12)
    r1 &= 31
    r3 = map[single][0]+0
    r3 += r1
    r0 = *(u8 *)(r3 + 0)
    r0 = *(u32 *)(r6 + 16)
    r0 = r2
    r0 = 0
    exit
"""


@pytest.fixture(scope="module")
def sample() -> Sample:
    return Sample.of_text("xdp", INDEXED)


def test_runs_lie_in_what_is_claimed_of_generated_programs() -> None:
    accepted = 0
    for number in range(40):
        made = generate.sample(number)
        verdict = made.program().verify(claims=True, seconds=0)
        if verdict.is_accepted and verdict.visited < 2000:
            accepted += 1
            assert unclaimed(made, verdict, number, 2) is None
    assert accepted > 10


@pytest.mark.parametrize(
    ("pc", "register", "claimed"),
    [
        (6, 1, 77),
        (4, 6, Pointer("ctx", off=8)),
        (4, 6, Pointer("stack", 0, off=-8)),
    ],
)
def test_a_wrong_claim_is_seen(sample: Sample, pc: int, register: int, claimed: object) -> None:
    verdict = sample.program().verify(claims=True, seconds=0)
    assert unclaimed(sample, verdict, 1, 3) is None
    assert verdict.claims is not None
    states = [state.copy(pc) for state in verdict.claims[pc]]
    for state in states:
        if isinstance(claimed, int):
            state.registers[register] = known(claimed)
            mark_precise(state.registers[register])
        else:
            state.registers[register] = claimed
    wrong = replace(verdict, claims={**verdict.claims, pc: states})
    found = unclaimed(sample, wrong, 1, 3)
    assert found is not None
    assert found.pc == pc


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (b"", 0), (b"100%%", 0), (b"%d %u", 2), (b"%-08lld|%llx", 2),
        (b"%s.", 1), (b"%sx", None), (b"%c%c", 2),
        (b"%p", 1), (b"%pI4 %pi6", 2), (b"%pI5", None), (b"%pks", 1),
        (b"%q", None), (b"%", None), (b"\x80", None),
        (b"%pz", None), (b"%lc", None), (b"%f", None),
    ],
)  # fmt: skip
def test_formats_are_those_of_linux(text: bytes, count: int | None) -> None:
    assert formats.arguments_of(text) == count
