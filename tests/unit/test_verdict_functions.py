"""Verdicts on global functions, and on what they are given: as Linux says."""

from __future__ import annotations

from pathlib import Path

import pytest

from ebpfjit import load
from ebpfjit.engines import unavailable
from ebpfjit.errors import EbpfError
from ebpfjit.kernel import load_program

OBJECT = Path(__file__).resolve().parents[1] / "elf/global_functions.o"
NO_KERNEL = unavailable("kernel")

REFUSED = {
    "gives_too_little": "access to stack R1 off=-8 size=16",
    "calls_unsafe": "R1 invalid mem access 'mem_or_null'",
    "moves_the_packet": "are void after a call of moved()",
    "trusts_the_result": "math between pkt pointer and register with unbounded min value",
    "loses_what_it_compared": "invalid access to packet, off=0 size=1, R6(r=0)",
    "gives_a_pointer_for_a_number": "R1 is not a scalar",
}
ACCEPTED = {"gives_a_value", "gives_the_stack"}


def test_every_program_is_here() -> None:
    assert REFUSED.keys() | ACCEPTED == load(OBJECT).programs.keys()


@pytest.mark.parametrize("name", sorted(ACCEPTED))
def test_accepted(name: str) -> None:
    assert load(OBJECT).program(name).verify().status == "accepted"


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    (error,) = load(OBJECT).program(name).verify(seconds=0).errors
    assert REFUSED[name] in error.message
    assert error.line is not None


@pytest.mark.skipif(bool(NO_KERNEL), reason=f"Linux cannot be asked: {NO_KERNEL}")
@pytest.mark.parametrize("name", [*sorted(ACCEPTED), *REFUSED])
def test_linux_says_the_same(name: str) -> None:
    program = load(OBJECT).program(name)
    if name in ACCEPTED:
        load_program(program)
    else:
        with pytest.raises(EbpfError):
            load_program(program)
