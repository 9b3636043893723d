"""What analysis finds out holds on every way, numbers fit where they go, optimising takes what it may."""

from __future__ import annotations

import resource
import struct
import time
from functools import partial
from typing import Any

import pytest

from ebpfjit import EbpfError, EbpfVmRaw, assembler
from ebpfjit.analysis.verified import prepare
from ebpfjit.difftest.children import run_forked
from ebpfjit.errors import OptimizationError, TranslationError
from ebpfjit.jit import assembler as stencils
from ebpfjit.jit import compiler, entry, relocation
from ebpfjit.program import Program
from ebpfjit.translators.emitter import Line, new_line
from tests.support.limits import limit_memory
from tests.support.whole import WHOLE

MARGIN = 16
Outcome = tuple[str, bytes]


@pytest.fixture(autouse=True, scope="module")
def _routines() -> None:
    """What all programs share is made here, not in each child."""
    EbpfVmRaw(assembler.assemble("exit"), optimize=True).jit_compile()


def run_both(code: bytes, packet: bytes, limit: int = 100_000) -> list[Outcome]:
    """Return how the interpreter and optimised code end on a packet, and the bytes around it."""
    vm = EbpfVmRaw(code, optimize=True, instruction_limit=limit)
    vm.jit_compile()
    ends = []
    for run in (vm.execute_program, vm.execute_program_jit):
        around = bytearray(range(MARGIN)) + packet + bytearray(range(MARGIN))
        try:
            end = hex(run(memoryview(around)[MARGIN : MARGIN + len(packet)]))
        except EbpfError as error:
            end = f"{type(error).__name__} at pc {getattr(error, 'pc', None)}"
        ends.append((end, bytes(around)))
    return ends


def both_agree(text: str, packet: bytes) -> str:
    """Run a program on both engines, in a child; return how it ends on both."""
    expected, found = run_forked(lambda: run_both(assembler.assemble(text), packet), 20).value
    assert found == expected
    end: str = expected[0]
    return end


DEAD_AT_A_JOIN = """
  ldxdw r3, [r1+0]
  neg r3
  mov r9, r3             # the same symbol; r9 is dead from J on
  jlt r3, 100, B
  mov r5, 0
  ja J
B:
  mov r5, 1
J:
  mov r4, r3
  add r4, 8
  jgt r4, r2, out
  mov r5, r1
  add r5, r3
  {access}
  exit
out:
  mov r0, 0xfff
  exit
"""


@pytest.mark.parametrize("access", ["ldxb r0, [r5+0]", "stb [r5+0], 99"])
def test_bounds_of_a_dead_register_hold_on_no_way(access: str) -> None:
    packet = struct.pack("<q", 4).ljust(32, b"\0")
    assert both_agree(DEAD_AT_A_JOIN.format(access=access), packet) == "MemoryFault at pc 12"


def test_a_loop_does_not_believe_its_first_round() -> None:
    text = """
      mov r3, 0
      mov r9, 0              # dead in the loop, but for its copy
    L:
      mov r9, r3
      mov r4, r3
      add r4, 8
      jgt r4, r2, out
      mov r5, r1
      add r5, r3
      stb [r5+0], 99
      ldxdw r3, [r1+8]       # in the second round any number
      ja L
    out:
      mov r0, r3
      exit
    """
    packet = struct.pack("<qq", 0, -4).ljust(32, b"\0")
    assert both_agree(text, packet) == "MemoryFault at pc 8"


WIDE_STEP = """
  mov r3, 0
  lddw r5, 0x20000001
L:
  mov r4, r3
  lsh r4, 3              # the pointer steps by 4 GiB as the counter steps by 512 MiB
  add r4, r1
  {access}
  add r3, 0x20000000
  jlt r3, r5, L
  mov r0, 0
  exit
"""


@pytest.mark.parametrize("access", ["ldxb r0, [r4+0]", "stb [r4+0], 1"])
def test_a_step_beyond_32_bits(access: str) -> None:
    assert both_agree(WIDE_STEP.format(access=access), bytes(64)) == "MemoryFault at pc 6"


@pytest.mark.parametrize(
    "far", [1 << 31, (1 << 31) + 1, 1 << 32, (1 << 32) + 8, (1 << 63) + 1, (1 << 64) - 1]
)
@pytest.mark.parametrize("step", [1, 4, 8, 0x40000000])
def test_a_bound_with_a_constant_beyond_32_bits(far: int, step: int) -> None:
    text = f"""
      mov r3, 0
      ldxdw r7, [r1+0]
      lddw r6, {far:#x}
      add r7, r6             # 16 in the end, or far beyond
    L:
      mov r4, r1
      add r4, r3
      ldxb r0, [r4+0]
      add r3, {step}
      jlt r3, r7, L
      mov r0, r3
      exit
    """
    for bound in (16, 1 << 31, (1 << 64) - 1):
        both_agree(text, struct.pack("<Q", (bound - far) % (1 << 64)).ljust(32, b"\0"))


@pytest.mark.parametrize(
    "numbers", [(0x7FFFFFFF,) * 2, (-0x80000000,) * 2, (0x7FFFFFFF,) * 4, (-0x80000000, -1)]
)
def test_sums_of_constants_beyond_32_bits(numbers: tuple[int, ...]) -> None:
    for start in ("mov r4, r3", "add r4, r3", "lsh r3, 2\nmov r4, r5\nadd r4, r3"):
        adds = "\n".join(f"add r4, {number}" for number in numbers)
        text = f"ldxdw r3, [r1+0]\nldxdw r5, [r1+8]\n{start}\n{adds}\nmov r0, r4\nexit"
        assert not both_agree(text, bytes(16)).startswith("MemoryFault")


#      template                        size   fits                        does not fit
HOLES = (
    ("add rdi, $imm",                    8, (-128, 127),                (-129, 128, 255)),
    ("add edi, $imm",                   32, (-(1 << 31), (1 << 32) - 1), (-(1 << 31) - 1, 1 << 32)),
    ("add rdi, $imm",                   32, (-(1 << 31), (1 << 31) - 1), (-(1 << 31) - 1, 1 << 31, 1 << 32)),
    ("cmp rdi, $imm",                   32, (-(1 << 31), (1 << 31) - 1), (1 << 31, 1 << 63)),
    ("mov r10, $imm",                   32, (-(1 << 31), (1 << 31) - 1), (1 << 31, (1 << 32) - 1)),
    ("mov r10d, $imm",                  32, (-1, (1 << 32) - 1),         (1 << 32,)),
    ("mov qword ptr [rdi], $imm",       32, (-1, (1 << 31) - 1),         (1 << 31,)),
    ("mov dword ptr [rdi], $imm",       32, (-1, (1 << 32) - 1),         (1 << 32,)),
    ("mov word ptr [rdi], $imm",        16, (-(1 << 15), (1 << 16) - 1), (-(1 << 15) - 1, 1 << 16)),
    ("mov byte ptr [rdi], $imm",         8, (-128, 255),                 (-129, 256)),
    ("movabs rdi, $imm",                64, (-(1 << 63), (1 << 64) - 1), (-(1 << 63) - 1, 1 << 64)),
)  # fmt: skip


@pytest.mark.parametrize(("template", "size", "fits", "refused"), HOLES)
def test_an_immediate_that_does_not_fit_is_refused(
    template: str, size: int, fits: tuple[int, ...], refused: tuple[int, ...]
) -> None:
    for number in fits:
        assert _encoded(new_line(template, number, (size,), None, None))
    for number in refused:
        with pytest.raises(TranslationError, match="does not fit"):
            _encoded(new_line(template, number, (size,), None, None))


def test_a_displacement_that_does_not_fit_is_refused() -> None:
    for number in (-(1 << 31), -129, -128, 127, 128, (1 << 31) - 1):
        assert _encoded(new_line("lea r10, [rdi+$offset]", None, (8, 32), number, None))
    for number in (-(1 << 31) - 1, 1 << 31, (1 << 32) + 1):
        with pytest.raises(TranslationError, match="does not fit"):
            _encoded(new_line("lea r10, [rdi+$offset]", None, (8, 32), number, None))


@pytest.mark.parametrize("back", [False, True])
def test_a_jump_that_does_not_reach_is_refused(back: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    far = "r0 += 1\n" * 100
    text = f"if r1 > 5 goto end\n{far}end: exit"
    if back:
        text = f"r0 = 0\nagain: {far}if r0 < 1000 goto again\nexit"
    entry.compile_program(prepare(Program(assembler.assemble(text))))
    monkeypatch.setattr(relocation, "REACH", 300)
    with pytest.raises(TranslationError, match="out of reach"):
        entry.compile_program(prepare(Program(assembler.assemble(text))))


def _encoded(line: Line) -> bytes:
    stencils.assemble_parts([line])
    return line.code


@pytest.fixture
def _too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the optimizer find every program too much."""

    def refuse(*given: Any, **named: Any) -> None:
        raise OptimizationError("there is too much of it")

    monkeypatch.setattr(compiler, "optimised_parts", refuse)


@pytest.mark.usefixtures("_too_much")
def test_what_cannot_be_optimised_stays_in_baseline_code() -> None:
    text = "mov r0, 7\njeq r1, 0, +1\nmov r0, 9\nexit"
    vm = EbpfVmRaw(assembler.assemble(text), optimize=True)
    vm.jit_compile()
    assert vm.execute_program_jit(bytearray(8)) == 9
    assert vm.listing().startswith("; baseline code: there is too much of it\n")


@pytest.mark.usefixtures("_too_much")
def test_a_hot_program_that_cannot_be_optimised_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EBPFJIT_TIERS", "on")
    text = "mov r0, 0\nL:\nadd r0, 1\njlt r0, 10000000, L\nexit"
    function = Program(assembler.assemble(text)).compile()
    assert [function(b"") for _ in range(3)] == [10_000_000] * 3
    assert not function.is_optimized


# -- what analysis takes -----------------------------------------------------------------------------


def insn(opcode: int, dst: int = 0, src: int = 0, offset: int = 0, imm: int = 0) -> bytes:
    return struct.pack("<BBhi", opcode, dst | src << 4, offset, imm)


END = insn(0xB7) + insn(0x95)


def chain(count: int) -> bytes:
    """Loads through the pointer that the last one gave, in blocks of their own: a symbol with a span each."""
    return insn(0xBF, 3, 1) + (insn(0x79, 3, 3) + insn(0x45, 3, 0, 0, 1)) * (count // 2) + END


def leaving_chain(count: int) -> bytes:
    """The same where nothing is joined: what a block knows goes on to all that come after it."""
    steps = (insn(0x79, 3, 3) + insn(0x45, 3, 0, left - 1, 1) for left in range(count // 2 * 2, 0, -2))
    return insn(0xBF, 3, 1) + b"".join(steps) + insn(0x95) + END


def compared(count: int) -> bytes:
    """Numbers compared with the length, each a symbol with a limit."""
    return (insn(0x79, 4, 1) + insn(0x3D, 4, 2) + insn(0xBF, 3, 4)) * (count // 3) + END


def copies(count: int) -> bytes:
    """One number made of bytes, copied again and again in one block."""
    joined = insn(0x71, 4, 1, 1) + insn(0x67, 4, 0, 0, 8) + insn(0x4F, 4, 2)
    return insn(0x71, 2, 1) + (insn(0xBF, 3, 2) + insn(0xBF, 2, 3)) * (count // 2) + joined + END


def backwards(count: int) -> bytes:
    """Blocks that each jump to the one before: liveness goes back by one of them at a time."""
    return insn(0x05, 0, 0, count) + insn(0x05, 0, 0, count) + insn(0x05, 0, 0, -2) * count + END


def calling(count: int) -> bytes:
    """A function that calls as many others."""
    size = count // 3
    calls = b"".join(insn(0x85, 0, 1, 0, size - index + 1 + 2 * index) for index in range(size))
    return calls + END + END * size


def comparing(count: int) -> bytes:
    """A loop of many blocks, each with a comparison that leaves it and a load that nothing tells about."""
    load = insn(0x79, 5, 1) + insn(0x71, 5, 5) + insn(0x3D, 3, 4, 1)
    body = (load + insn(0x05, 0, 0, 1) + insn(0x95)) * (count // 5)
    return insn(0xB7, 3) + body + insn(0x07, 3, 0, 0, 1) + insn(0x05, 0, 0, -len(body) // 8 - 2) + END


@pytest.mark.parametrize("shape", [chain, leaving_chain, compared, copies, backwards, calling, comparing])
def test_optimising_takes_memory_and_time_by_the_size_of_a_program(shape: Any) -> None:
    def job(count: int) -> tuple[float, int]:
        limit_memory()
        code = shape(count)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.process_time()
        vm = EbpfVmRaw(code, optimize=True)
        vm.jit_compile()
        assert vm._compiled is not None
        assert not vm._compiled.recipe.why_baseline
        return time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    small, large = (
        run_forked(partial(job, count), 60).value for count in ((4_000, 16_000) if WHOLE else (2_000, 8_000))
    )
    assert large[1] < 6 * small[1] + (32 << 10)  # KiB; 16 times as much where it is quadratic
    assert large[0] < 8 * small[0] + 1
