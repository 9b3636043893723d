"""What was stored to a frame once is known where it is loaded again, if nothing else may write there."""

from __future__ import annotations

import pytest

from ebpfjit.analysis.accesses import Promises
from ebpfjit.analysis.verified import Verified, prepare
from ebpfjit.assembler import assemble
from ebpfjit.difftest.optimized import CodeState
from ebpfjit.errors import MemoryFault
from ebpfjit.interpreter import interpret
from ebpfjit.optimizer import passes
from ebpfjit.optimizer.check import check
from ebpfjit.optimizer.code import BOUND, Code
from ebpfjit.program import Program
from ebpfjit.runtime.execution import Execution
from ebpfjit.runtime.memory import Region

MEASURED = Promises(argument_is_measured=True)

LOOP = """
    stxdw [r10-8], r1
    mov r6, 0
    {before}
again:
    mov r3, r10
    add r3, r6
    {stores}
    ldxdw r4, [r10-8]
    add r4, r6
    ldxw r5, [r4+0]
    add r0, r5
    add r6, 4
    jne r6, 64, again
    exit
"""
ARRAY = "stxw [r3-80], r6"


def verified(before: str = "", stores: str = ARRAY) -> Verified:
    return prepare(Program.from_bytes(assemble(LOOP.format(before=before, stores=stores))))


def behind(program: Verified, name: str) -> Code:
    found = {stage: code for stage, code, _ in passes.stages(program, MEASURED)}
    check(found[name])
    return found[name]


def result(program: Verified, code: Code | None) -> int:
    """Run a program on 128 bytes, as Code where that is given."""
    region = Region.of_buffer("mem", bytearray(range(128)))
    execution = Execution((region.start, region.size), [region])
    return interpret(program, execution, machine=code and (lambda state: CodeState(code, state)))


def checks_in_rounds(code: Code) -> int:
    depths = code.shape.depths
    return sum(
        op.row is BOUND for number, block in enumerate(code.blocks) if depths[number] for op in block.ops
    )


@pytest.mark.parametrize(
    ("before", "stores"),
    [
        ("", ARRAY),
        ("", "stxw [r3-72], r6"),
        ("", ARRAY + "\nstxdw [r1+0], r6"),  # of the argument only is asked
        ("call local +1\nja +2\nmov r0, 0\nexit", ARRAY),  # which is put in its place
    ],
)
def test_a_pointer_that_was_spilled_is_checked_before_the_loop(before: str, stores: str) -> None:
    program = verified(before, stores)
    assert checks_in_rounds(behind(program, "guards"))
    code = behind(program, "hoisting")
    assert checks_in_rounds(code) == 0
    assert result(program, code) == result(program, None)


@pytest.mark.parametrize(
    ("before", "stores"),
    [
        ("", "stxw [r3-68], r6"),                                   # its last round is in the spilled pointer
        ("", "stxb [r3-67], r6"),
        ("", ARRAY + "\nstxdw [r10-8], r1"),                        # twice
        ("", ARRAY + "\nstxb [r10-1], r6"),
        ("", ARRAY + "\nldxdw r7, [r1+0]\nstxdw [r7+0], r6"),       # where that is may be here
        ("", "add r3, r2\nstxw [r3-80], r6"),
        ("", ARRAY + "\nstxdw [r10-16], r3\nldxdw r4, [r10-16]\nstxb [r4-80], r6"),  # where is not known yet
        ("", ARRAY + "\nlock add [r10-8], r7"),
        ("jset r2, 1, +1\nstxdw [r10-8], r2", ARRAY),               # on one of the ways
        ("call 5", ARRAY),
    ],
)  # fmt: skip
def test_what_may_be_written_again_is_loaded(before: str, stores: str) -> None:
    program = verified(before, stores)
    assert behind(program, "reloads") == behind(program, "guards")


@pytest.mark.parametrize(
    ("stored", "loaded"),
    [
        ("stxw [r10-8], r2", "ldxw r4, [r10-8]"),
        ("stxh [r10-8], r2", "ldxh r4, [r10-8]"),
        ("stxb [r10-8], r2", "ldxb r4, [r10-8]"),
        ("stdw [r10-8], -3", "ldxdw r4, [r10-8]"),
        ("stw [r10-8], -3", "ldxw r4, [r10-8]"),
        ("sth [r10-8], -3", "ldxh r4, [r10-8]"),
        ("stb [r10-8], -3", "ldxb r4, [r10-8]"),
    ],
)
def test_what_is_loaded_has_the_size_of_the_load(stored: str, loaded: str) -> None:
    """Both sizes are the same; what is above is zero."""
    program = prepare(
        Program.from_bytes(
            assemble(f"""
        {stored}
        mov r3, r10
        stxdw [r10-16], r3
        {loaded}
        mov r0, r4
        ldxb r5, [r4+0]
        exit
    """)
        )
    )
    before, code = behind(program, "guards"), behind(program, "reloads")
    assert before != code
    addresses = []
    for each in (code, None):
        with pytest.raises(MemoryFault) as found:
            result(program, each)
        addresses.append(found.value.address)
    assert addresses[0] == addresses[1]
