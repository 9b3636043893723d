"""Helpers that are not there are found before the program runs, where it surely calls them."""

from __future__ import annotations

import pytest

from ebpfjit.assembler import assemble
from ebpfjit.errors import HelperNotFound
from ebpfjit.program import Program
from ebpfjit.runtime.helpers.presence import missing


def names(text: str) -> list[tuple[str, int]]:
    found = missing(Program.from_bytes(assemble(text)))
    return [(name, insn.pc) for name, insn in found.items()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mov r0, 0\nexit", []),
        ("call 5\nexit", []),
        ("call 166\nexit", [("bpf_sys_bpf", 0)]),
        ("call 9999\nexit", [("helper 9999", 0)]),
        ("call 5\ncall 149\ncall 166\ncall 149\nexit", [("bpf_snprintf_btf", 1)]),
        # Each way comes by one, but not by the same.
        (
            "jeq r1, 0, other\ncall 149\nexit\nother:\ncall 166\nexit",
            [("bpf_snprintf_btf", 1), ("bpf_sys_bpf", 3)],
        ),
        # One way leads around it.
        ("jeq r1, 0, out\ncall 166\nout:\nexit", []),
        # Both ways come by one.
        ("jeq r1, 0, other\ncall 5\nja end\nother:\ncall 5\nend:\ncall 166\nexit", [("bpf_sys_bpf", 4)]),
        # An early exit leads around all that follows.
        ("jeq r1, 0, go\nexit\ngo:\ncall 166\nexit", []),
        # In a loop that is left in the middle.
        ("again:\ncall 166\njne r0, 0, again\nexit", [("bpf_sys_bpf", 0)]),
        ("again:\njne r0, 0, out\ncall 166\nja again\nout:\nexit", []),
        # Functions: called surely, perhaps, never.
        ("call f\nexit\nf:\ncall 166\nexit", [("bpf_sys_bpf", 2)]),
        ("jeq r1, 0, out\ncall f\nout:\nexit\nf:\ncall 166\nexit", []),
        ("call f\nexit\nf:\njeq r1, 0, out\ncall 166\nout:\nexit", []),
        ("call f\ncall 166\nexit\nf:\nexit", [("bpf_sys_bpf", 1)]),
        ("call f\nexit\nf:\ncall g\nexit\ng:\ncall 166\nexit", [("bpf_sys_bpf", 4)]),
        ("again:\nja again", []),
        # A tail call may end the program, and so may a packet load.
        ("call 12\ncall 166\nexit", []),
        ("ldabsb 0\ncall 166\nexit", []),
        ("call 166\ncall 12\nexit", [("bpf_sys_bpf", 0)]),
    ],
)
def test_missing(text: str, expected: list[tuple[str, int]]) -> None:
    assert names(text) == expected


def test_what_is_there_may_be_said() -> None:
    program = Program.from_bytes(assemble("call 5\ncall 7\nexit"))
    assert list(missing(program, {5})) == ["bpf_get_prandom_u32"]


def test_a_long_program_is_no_matter() -> None:
    text = "jeq r1, 0, end\n" + "call 166\nmov r0, 0\n" * 5000 + "end:\nexit"
    assert names(text) == []
    assert names(text.removeprefix("jeq r1, 0, end\n")) == [("bpf_sys_bpf", 0)]


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_a_run_is_refused_before_it_starts(engine: str) -> None:
    program = Program.from_bytes(assemble("mov r0, 0\nstxdw [r10+8], r0\ncall 166\nexit"))
    with pytest.raises(HelperNotFound, match="pc 2: call of helper 166"):
        program.run(engine=engine)  # the store before it would be a fault


def test_a_helper_of_the_users_is_there() -> None:
    program = Program.from_bytes(assemble("call 166\nexit"), type="raw_tracepoint")
    with pytest.raises(HelperNotFound, match="bpf_sys_bpf"):
        program.compile()
    assert program.compile(helpers={166: lambda r1, r2, r3, r4, r5: 8})() == 8
