"""Writes to r10: refused where every run comes; behind a branch, which may be dead, a fault when reached.

Linux's verifier never looks at what it finds dead, so that it loads programs with such branches.
"""

from __future__ import annotations

import pytest
from support.machines import word

from ebpfjit import EbpfVmRaw, IllegalInstruction, Program, VerifierError, kernel, verifier
from ebpfjit.assembler import assemble
from ebpfjit.isa.spec import FRAME_POINTER, Kind, Reg, Row
from ebpfjit.isa.table import TABLE

REASON = kernel.unavailable_reason()
EXIT = assemble("exit")
WRITING = [
    row
    for row in TABLE
    if (row.dst in (Reg.WRITE, Reg.UPDATE) or row.src is Reg.UPDATE) and row.reference is None
]
"""All that may write a register that it names."""


def writing(row: Row) -> bytes:
    """Return an instruction that writes r10."""
    fetches = row.src is Reg.UPDATE
    registers = (1, FRAME_POINTER) if fetches else (FRAME_POINTER, 1 if row.uses_src else 0)
    return word(row.name, *registers, imm=int(row.kind is Kind.CAST))


def behind_a_branch(code: bytes) -> bytes:
    """Return a program that comes to `code` where the first byte of its memory is 9; else r0 is 3."""
    start = assemble("ldxb r2, [r1]\njeq r2, 9, +2\nmov r0, 3\nexit")
    return start + code + assemble("ldxdw r0, [r10-8]\nexit")


def run(code: bytes, engine: str, memory: bytes, **options: bool) -> int:
    program = Program(code, "p")
    if engine == "interpreter":
        return program.run(memory, engine=engine).return_value
    return program.compile(**options)(memory)


ENGINES: dict[str, tuple[str, dict[str, bool]]] = {
    "interpreter": ("interpreter", {}),
    "optimised": ("jit", {"optimize": True}),
    "baseline": ("jit", {"optimize": False}),
    "hardened": ("jit", {"harden": True}),
    "unchecked": ("jit", {"checked": False}),
}


@pytest.mark.parametrize("engine", ENGINES)
def test_it_is_a_fault_where_it_is_reached(engine: str) -> None:
    """Each instruction that can, on each engine: the same words, at its own pc."""
    name, options = ENGINES[engine]
    runs = [row for row in WRITING if row.kind is not Kind.CAST]  # that takes an arena
    rows = runs if name == "interpreter" else runs[:: 1 + 6 * (engine != "baseline")]
    for row in rows:
        code = behind_a_branch(writing(row))
        assert run(code, name, bytes(8), **options) == 3
        with pytest.raises(IllegalInstruction) as caught:
            run(code, name, b"\x09" + bytes(7), **options)
        assert (caught.value.pc, str(caught.value)) == (4, f"pc 4: {row.mnemonic}: r10 is read-only"), (
            row.name
        )


def test_what_every_run_comes_to_is_refused() -> None:
    for row in WRITING:
        for before in (b"", assemble("mov r1, 1\nja +0"), assemble("call local f\nexit\nf: mov r1, 1")):
            with pytest.raises(VerifierError, match="r10 is read-only") as caught:
                verifier.check(before + writing(row) + EXIT)
            assert (caught.value.pc, caught.value.rule) == (len(before) // 8, "registers"), row.name


def test_the_same_instruction_counts_by_where_it_stands() -> None:
    """What was accepted in one program is refused in the next."""
    write = assemble("mov r10, r1")
    verifier.check(behind_a_branch(write))
    with pytest.raises(VerifierError, match=r"pc 0: .*r10 is read-only"):
        verifier.check(write + EXIT)
    assert verifier.check(behind_a_branch(write)) is None


def test_code_that_nothing_leads_to_may_have_it() -> None:
    assert run(assemble("mov r0, 5\nja l\nmov r10, r1\nl: exit"), "jit", bytes(8)) == 5
    loop = assemble("l: ja l\nmov r10, r1\nexit")
    assert verifier.check(loop) is None


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_frames_are_where_they_were(engine: str) -> None:
    """In a callee, with a frame above: what follows a write knows r10 as it was."""
    text = """
        stdw [r10-8], 7
        call local f
        ldxdw r1, [r10-8]
        add r0, r1
        exit
    f:  ldxb r2, [r1]
        jeq r2, 9, bad
    on: stdw [r10-8], 5
        ldxdw r0, [r10-8]
        exit
    bad: add r10, 512
        ja on
    """
    assert run(assemble(text), engine, bytes(8)) == 12
    with pytest.raises(IllegalInstruction, match=r"pc \d+: add64: r10 is read-only"):
        run(assemble(text), engine, b"\x09" + bytes(7))


@pytest.mark.parametrize("compiled", [False, True])
def test_another_verifier_lets_nothing_write_it(compiled: bool) -> None:
    vm = EbpfVmRaw()
    vm.set_verifier(lambda code: None)
    vm.set_program(assemble("mov r0, 1\nmov r10, 1\nexit"))
    if compiled:
        vm.jit_compile()
    with pytest.raises(IllegalInstruction, match="pc 1: mov64: r10 is read-only"):
        (vm.execute_program_jit if compiled else vm.execute_program)(bytearray(8))


@pytest.mark.skipif(REASON is not None, reason=f"the kernel as an engine: {REASON}")
def test_linux_takes_what_it_finds_dead() -> None:
    dead = "mov r0, 7\njne r0, 7, l\nmov r0, 5\nexit\nl: mov r10, 1\nmov r0, 6\nexit"
    program = Program(assemble(dead), "dead", type="tc")
    for engine in ("interpreter", "jit", "kernel"):
        assert program.run(bytes(64), engine=engine).return_value == 5
    live = Program(assemble(dead.replace("mov r0, 7", "ldxw r0, [r1]")), "live", type="tc")
    with pytest.raises(VerifierError, match="frame pointer is read only"):
        live.run(bytes(64), engine="kernel")
    with pytest.raises(IllegalInstruction, match="r10 is read-only"):
        live.run(bytes(64), engine="jit")
