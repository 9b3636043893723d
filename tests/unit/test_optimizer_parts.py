"""Parts of a program that are optimised by themselves: which there are; they do what the whole does."""

from __future__ import annotations

import pytest
from support.placed_code import verified

from ebpfjit.difftest.check import Checker
from ebpfjit.difftest.children import run_forked
from ebpfjit.difftest.sources import case_of
from ebpfjit.optimizer import build as module
from ebpfjit.optimizer.build import build, build_parts
from ebpfjit.optimizer.check import check
from ebpfjit.optimizer.parts import cut
from ebpfjit.optimizer.text import to_text


@pytest.mark.parametrize(
    ("count", "connected", "least", "expected"),
    [
        (0, [], 1, []),
        (3, [], 1, [(0, 1), (1, 2), (2, 3)]),
        (5, [], 2, [(0, 2), (2, 4), (4, 5)]),
        (6, [(0, 2), (5, 3)], 1, [(0, 3), (3, 6)]),
        (6, [(2, 0), (4, 1)], 1, [(0, 5), (5, 6)]),
        (6, [(2, 0), (4, 1)], 6, [(0, 6)]),
        (4, [(1, 1), (3, 0)], 1, [(0, 4)]),
    ],
)
def test_nothing_leads_from_one_part_to_another(
    count: int, connected: list[tuple[int, int]], least: int, expected: list[tuple[int, int]]
) -> None:
    assert [(part.start, part.stop) for part in cut(count, connected, least)] == expected


CALLING = """
  mov r6, r1
  call f
  call g
  exit
f:
  ldxb r0, [r1+0]
  jeq r0, 0, +1
  add r0, r2
  exit
g:
  ldxb r0, [r1+1]
  exit
"""


def test_a_part_is_as_a_program_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    program, whole = verified(CALLING), build(verified(CALLING))
    assert [to_text(part) for part in build_parts(program)] == [to_text(whole)]
    monkeypatch.setattr(module, "LEAST", 1)
    parts = [*build_parts(program, {4})]
    assert [list(part.entries) for part in parts] == [[0], [4], [8]]
    for part in parts:
        check(part)
        assert {entry.block for entry in part.entries.values()} == {0}
        assert part.remarks is parts[0].remarks
    assert [block.pc for part in parts for block in part.blocks] == [block.pc for block in whole.blocks]


def test_small_functions_are_with_those_that_call_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST", 1)
    small = CALLING.replace("ldxb r0, [r1+1]", "mov r0, r2")
    assert [list(part.entries) for part in build_parts(verified(small))] == [[0, 4, 8]]


def test_parts_do_what_the_program_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each function by itself, in programs that the fuzzer makes: they are too small to be cut otherwise."""
    monkeypatch.setattr(module, "LEAST", 1)

    def work() -> list[str]:
        checker, found = Checker(("interpreter", "jit")), []
        for number in range(120):
            case = case_of(4, number, ("calls", "callbacks", "valid", "spills"), builds=("native", "audit"))
            problem = checker.check(case, sampled=False)
            found += [] if problem is None else [f"{case.name}: {problem}"]
        return found

    ended = run_forked(work, 60)
    assert ended.value == [], ended
