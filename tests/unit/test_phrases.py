"""What was translated before is repeated: with the tables or without, the machine code is the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from ebpfjit import EbpfError, Program, load
from ebpfjit.analysis.verified import Verified, prepare
from ebpfjit.difftest.sources import SOURCES, case_of
from ebpfjit.jit import assembler
from ebpfjit.jit.entry import Compiled, compile_program
from ebpfjit.memo import forget
from ebpfjit.options import Options
from tests.support.whole import WHOLE, part

KERNELS = sorted((Path(__file__).parents[2] / "ebpfjit" / "bench" / "kernels").glob("*.o"))
FEATURES = (frozenset[str](), frozenset({"bmi2", "movbe"}))
HELPERS = {number: lambda *arguments: 0 for number in (5, 6, 7)}


def _programs() -> list[Program]:
    return [program for path in KERNELS for program in load(path).programs.values()]


def _generated(first: int, last: int) -> list[Verified]:
    found = []
    for number in range(first, last):
        try:
            found.append(prepare(Program(case_of(1, number, list(SOURCES)).code)))
        except EbpfError:
            continue  # bytes that are no program, or a reference that nothing resolves
    return found


def _compile(verified: Verified, *, checked: bool, features: frozenset[str]) -> Compiled:
    return compile_program(verified, Options(checked, features=features), HELPERS, HELPERS)


@pytest.mark.parametrize(
    ("checked", "features"),
    part([(True, FEATURES[1]), (True, FEATURES[0]), (False, FEATURES[1]), (False, FEATURES[0])], 3),
)
def test_machine_code_is_the_same_whatever_was_compiled_before(
    checked: bool, features: frozenset[str]
) -> None:
    programs = [prepare(program) for program in _programs()] + _generated(0, 150 if WHOLE else 30)
    fresh = []
    for verified in programs:
        forget()
        fresh.append(_compile(verified, checked=checked, features=features).image)
    forget()
    for _ in range(2):
        for number, (verified, image) in enumerate(zip(programs, fresh, strict=True)):
            again = _compile(verified, checked=checked, features=features).image
            assert again == image, f"program {number}"


def test_listings_are_the_same_too() -> None:
    verified = prepare(_programs()[0])
    forget()
    first, second = (_compile(verified, checked=True, features=FEATURES[0]).listing for _ in range(2))
    texts = [[item.text for piece in listing.pieces for item in piece.items] for listing in (first, second)]
    assert texts[0] == texts[1]


def test_keystone_is_called_once_for_a_large_program() -> None:
    verified = prepare(Program(b"".join(program.code for program in _programs())))
    forget()
    before = assembler.calls
    compile_program(verified)
    assert assembler.calls == before + 1
    compile_program(verified, Options(checked=False))
    assert assembler.calls <= before + 2
    compile_program(verified)
    assert assembler.calls <= before + 2
