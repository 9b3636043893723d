"""Code that is compiled with `optimize=False`: the same results and faults, found with little looking."""

from __future__ import annotations

import pytest

from ebpfjit import BudgetExhausted, EbpfVmFixedMbuff, EbpfVmMbuff, EbpfVmRaw, MemoryFault, Program, load
from ebpfjit.analysis.accesses import Origin
from ebpfjit.analysis.baseline import baseline
from ebpfjit.analysis.verified import prepare
from ebpfjit.assembler import assemble
from ebpfjit.bench.inputs import KERNELS, SOURCES
from ebpfjit.jit.timing import time_stages
from tests.support.rows import over


def facts_of(text: str) -> dict[int, tuple[str, Origin]]:
    found = baseline(prepare(Program.from_bytes(assemble(text)))).by_pc
    return {pc: (access.proof, access.origin) for pc, access in found.items()}


def test_only_the_frame_needs_no_check() -> None:
    text = "stxdw [r10-8], r1\nldxw r0, [r10-512]\nldxw r0, [r10-513]\nldxw r0, [r10-3]\nldxb r0, [r1]\nexit"
    proofs = [proof for proof, _ in facts_of(text).values()]
    assert proofs == ["frame", "frame", "", "", ""]


def test_the_likely_region_follows_from_the_order() -> None:
    text = (
        "ldxw r0, [r1]\nmov r2, r10\nadd r2, -8\nldxb r0, [r2]\nldxdw r3, [r1]\nldxb r0, [r3]\nmov r2, 1\n"
        "ldxb r0, [r2]\nexit"
    )
    origins = [origin for _, origin in facts_of(text).values()]
    assert origins == [Origin.ARGUMENT, Origin.STACK, Origin.ARGUMENT, Origin.PACKET, Origin.PACKET]


def test_frames_are_zeroed_where_a_program_uses_one() -> None:
    assert not baseline(prepare(Program.from_bytes(assemble("ldxb r0, [r1]\nexit")))).zeroed
    assert baseline(prepare(Program.from_bytes(assemble("ldxb r0, [r10-1]\nexit")))).zeroed == {0}


@over("kernel", KERNELS)
def test_kernels_do_the_same(kernel: object) -> None:
    name, memory = kernel.name, kernel.memory(kernel.small)  # type: ignore[attr-defined] # a Kernel
    program = load(SOURCES / f"{name}.o").program("kernel")
    one, other = bytearray(memory), bytearray(memory)
    assert program.compile(optimize=False)(one) == program.compile()(other)
    assert one == other


@over("limit", range(1, 40))
def test_budgets_end_where_the_interpreter_does(limit: int) -> None:
    text = (
        "mov r0, 0\nmov r3, 5\nl: add r0, 1\njeq r0, 3, n\nstxb [r1], r0\nn: sub r3, 1\njne r3, 0, l\n"
        "call local f\nexit\nf: ldxb r4, [r1+1]\nadd r0, r4\nexit"
    )
    vm = EbpfVmRaw(assemble(text), instruction_limit=limit, optimize=False)
    vm.jit_compile()
    outcomes = []
    for run in (vm.execute_program, vm.execute_program_jit):
        memory = bytearray(4)
        try:
            outcomes.append((run(memory), bytes(memory)))
        except BudgetExhausted as error:
            outcomes.append((error.pc, bytes(memory)))
    assert outcomes[0] == outcomes[1]


def test_machines_with_metadata() -> None:
    text = "ldxdw r2, [r1+8]\nldxdw r3, [r1+16]\nldxb r0, [r2+1]\nsub r3, r2\nadd r0, r3\nexit"
    fixed = EbpfVmFixedMbuff(assemble(text), 8, 16, optimize=False)
    fixed.jit_compile()
    assert fixed.execute_program_jit(bytearray(b"\x01\x02\x03")) == 5
    vm = EbpfVmMbuff(assemble("ldxb r0, [r1+3]\nexit"), optimize=False)
    vm.jit_compile()
    with pytest.raises(MemoryFault) as caught:
        vm.execute_program_jit(bytearray(1), bytearray(3))
    assert (caught.value.pc, caught.value.size) == (0, 1)


def test_keystone_is_called_once_and_nothing_is_looked_into() -> None:
    timing = time_stages(assemble("mov r0, 12345678\nexit"), optimize=False)
    assert timing.keystone_calls <= 1
    verified = prepare(Program.from_bytes(assemble("ldxb r0, [r1]\nexit")))
    EbpfVmRaw(verified.program, optimize=False).jit_compile()
    baseline(verified)
    assert "liveness" not in vars(verified)


def test_only_functions_that_name_their_frame_have_it_zeroed() -> None:
    def zeroed(text: str) -> frozenset[int]:
        return baseline(prepare(Program.from_bytes(assemble(text)))).zeroed

    leaf = "call local leaf\nexit\nleaf: mov r0, 1\nexit"
    assert zeroed(leaf) == frozenset()
    assert zeroed("stxdw [r10-8], r1\n" + leaf) == {0}
    assert zeroed("call local leaf\nexit\nleaf: ldxb r0, [r10-1]\nexit") == {2}
    handed = "call local leaf\nmov r1, r10\nexit\nleaf: mov r0, 1\nexit"
    assert zeroed(handed) == zeroed("stxdw [r10-8], r10\n" + leaf) | {3} == {0, 3}
    falls = "call local leaf\nleaf: ldxb r0, [r10-1]\nexit"
    assert zeroed(falls) == {0, 1}
    shared = "jeq r1, 0, inside\ncall local leaf\nexit\nleaf: mov r0, 1\ninside: ldxb r0, [r10-1]\nexit"
    assert zeroed(shared) == {0, 3}  # what the second function names is the frame of either
