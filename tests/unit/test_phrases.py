"""What was translated before is repeated: with the tables or without, the machine code is the same."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from ebpfjit import EbpfError, Program, load
from ebpfjit.analysis.verified import Verified, prepare
from ebpfjit.difftest.sources import SOURCES, case_of
from ebpfjit.isa.table import BY_NAME, TABLE
from ebpfjit.jit import assembler
from ebpfjit.jit.entry import Compiled, compile_program
from ebpfjit.memo import forget
from ebpfjit.options import Options
from ebpfjit.program import Instruction
from ebpfjit.translators.x86_64 import fusions
from ebpfjit.translators.x86_64.fusion import Matcher

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


@pytest.mark.parametrize("features", FEATURES, ids=["plain", "bmi2"])
@pytest.mark.parametrize("checked", [True, False], ids=["checked", "unchecked"])
def test_machine_code_is_the_same_whatever_was_compiled_before(
    checked: bool, features: frozenset[str]
) -> None:
    programs = [prepare(program) for program in _programs()] + _generated(0, 150)
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


def test_fusions_begin_only_as_their_table_says() -> None:
    """What is found with any second instruction is found with one of the table."""
    thirds = [
        (name, dst, src)
        for name in ("ADD64_X", "OR64_X", "LDXW", "STXW", "RSH64_K")
        for dst, src in ((1, 2), (2, 1))
    ]
    found = set()
    firsts = dict.fromkeys(first for first, _ in fusions.BEGINNINGS)
    matchers = {first: _matchers_of(first) for first in firsts}
    for first, second in itertools.product(firsts, TABLE):
        for dst, src, imm, third in itertools.product((1, 2), (1, 2, 3), (2, 32, 62), thirds):
            window = [_instruction(first, 1, 2, 2), _instruction(second.name, dst, src, imm)]
            window.append(_instruction(*third, 30))
            for matcher in matchers[first]:
                if matcher(window, [0, 0, 0]) is not None:
                    found.add((matcher, first, second.name))
    table = {(matcher, *both) for both, matchers in fusions.BEGINNINGS.items() for matcher in matchers}
    assert len(found) > 20
    assert found <= table


def _matchers_of(first: str) -> list[Matcher]:
    """Return the matchers that may begin with an instruction, whatever the second is."""
    return list(
        dict.fromkeys(m for (one, _), found in fusions.BEGINNINGS.items() if one == first for m in found)
    )


def _instruction(name: str, dst: int, src: int, imm: int) -> Instruction:
    row = BY_NAME[name]
    return Instruction(0, row.opcode, dst, src, 0, imm, None, row)
