"""Which frames must hold zeros when they are taken."""

from __future__ import annotations

import pytest

from ebpfjit.analysis.accesses import Promises
from ebpfjit.analysis.verified import prepare
from ebpfjit.assembler import assemble
from ebpfjit.optimizer.build import build
from ebpfjit.optimizer.frames import looked_at
from ebpfjit.optimizer.guards import guarded
from ebpfjit.program import Program

READ, WRITE = "r0 = *(u64 *)(r10 - 8)\n", "*(u64 *)(r10 - 8) = r3\n"
NOBODY, MAIN = frozenset[int](), frozenset({0})


def frames(source: str, *, checked: bool = True, changing: bool = False) -> frozenset[int]:
    program = prepare(Program.from_bytes(assemble(source)))
    code = build(program, program.tested if changing else (), slots=not changing)
    return looked_at(*guarded(code, Promises(16, argument_is_measured=True)), checked=checked)


@pytest.mark.parametrize("changing", [False, True])
@pytest.mark.parametrize(
    ("source", "seen"),
    [
        ("r0 = 0\nexit", NOBODY),
        ("*(u64 *)(r10 - 8) = r1\nr0 = *(u32 *)(r10 - 4)\nexit", NOBODY),
        ("*(u32 *)(r10 - 8) = r1\nr0 = *(u64 *)(r10 - 8)\nexit", MAIN),
        ("if r1 == 0 goto +1\n*(u32 *)(r10 - 4) = r1\nr0 = *(u32 *)(r10 - 4)\nexit", MAIN),
        ("r2 &= 7\nr3 = r10\nr3 -= r2\n*(u8 *)(r3 - 8) = 0\nr0 = 0\nexit", NOBODY),
        ("r2 &= 7\nr3 = r10\nr3 -= r2\n*(u8 *)(r3 - 8) = 0\nr0 = *(u8 *)(r3 - 8)\nexit", MAIN),
        ("r0 = r10\nexit", MAIN),
        ("*(u64 *)(r10 - 8) = r10\nr0 = 0\nexit", MAIN),
        ("r2 = r10\nr2 ^= 8\nr0 = 0\nexit", MAIN),
        ("r0 = 1\nif r10 > r1 goto +1\nr0 = 0\nexit", NOBODY),  # it is no more than a number of one bit
        ("r0 = *(u8 *)(r1 + 15)\nexit", NOBODY),
        ("r0 = *(u8 *)(r1 + 16)\nexit", MAIN),  # this is looked for, and may be any address
        ("*(u64 *)(r10 - 8) = 0\nr1 = 0\nr0 = 0\ncall 5\nr0 = 0\nexit", MAIN),
        (f"{WRITE}r3 = 5\nloop: r3 -= 1\nif r3 != 0 goto loop\n{READ}exit", NOBODY),
        (f"r3 = 5\nloop: {READ}{WRITE}r3 -= 1\nif r3 != 0 goto loop\nexit", MAIN),
    ],
)  # fmt: skip
def test_frames(source: str, seen: frozenset[int], changing: bool) -> None:
    """Without runs that come in elsewhere slots are values here, zero as such."""
    found = frames(source, changing=changing)
    assert found == seen if changing else found <= seen


def test_of_functions_those_that_look() -> None:
    source = """
        call one
        call two
        exit
        one: *(u64 *)(r10 - 8) = 1
        r0 = *(u64 *)(r10 - 8)
        exit
        two: r0 = *(u64 *)(r10 - 8)
        exit
    """
    assert frames(source, changing=True) == {6}
    given = source.replace("call one", "r1 = r10\ncall one")
    assert frames(given, changing=True) == {7}  # nobody reads it
    assert frames(given.replace("one: *", "one: r3 = r1\n*"), changing=True) == {0, 4, 8}


def test_code_without_checks_goes_nowhere_else() -> None:
    source = "r0 = *(u8 *)(r1 + 16)\ncall 5\nexit"
    assert frames(source) == MAIN
    assert frames(source, checked=False) == NOBODY
