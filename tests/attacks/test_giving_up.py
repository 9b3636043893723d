"""What is too large or too tangled for a pass is left alone and told; errors of the optimizer hurt nobody."""

from __future__ import annotations

import struct
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ebpfjit import EbpfWarning, Program, assembler, options
from ebpfjit.analysis.accesses import Promises
from ebpfjit.analysis.verified import prepare
from ebpfjit.difftest.children import run_forked
from ebpfjit.errors import OptimizationError
from ebpfjit.jit import compiler
from ebpfjit.memo import forget
from ebpfjit.optimizer import passes, registers
from ebpfjit.optimizer.build import build
from ebpfjit.optimizer.code import Code
from ebpfjit.optimizer.registers import place
from ebpfjit.optimizer.remarks import PassFailed
from ebpfjit.translators.x86_64.target import VALUES
from tests.support.limits import limit_memory

SUM = """
  mov r0, 0
loop:
  ldxb r3, [r1+0]
  add r0, r3
  add r1, 1
  sub r2, 1
  jne r2, 0, loop
  exit
"""


@pytest.fixture(autouse=True)
def _by_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "VALUES", True, raising=False)


def explained(text: str, **chosen: Any) -> list[str]:
    """Return what is said of a program, by line."""
    lines: list[str] = (
        Program(assembler.assemble(text)).compile(optimize=True, **chosen).explain().splitlines()
    )
    return lines


# -- errors inside of passes -------------------------------------------------------------------------


def fail_in(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a pass, or what comes before or behind them, fail at the load."""
    forget()

    def failing(code: Any, *_: Any, **__: Any) -> Any:
        for op in code.blocks[1].ops if isinstance(code, Code) else ():
            if op.pc == 1 and op.results:
                raise KeyError("v17")
        raise IndexError

    places = {
        "build": (passes, "build_parts"),
        "registers": (compiler, "place"),
        "lowering": (compiler, "lower"),
    }
    if name in places:
        monkeypatch.setattr(*places[name], failing)
    else:
        monkeypatch.setitem(passes.PASSES, name, failing)


@pytest.mark.parametrize("name", ["build", "select", "guards", "hoisting", "layout", "registers", "lowering"])
def test_an_error_in_a_pass_leaves_a_program_in_baseline_code(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EBPFJIT_FAILURES", "")
    fail_in(name, monkeypatch)
    program = Program(assembler.assemble(SUM), name="sum")
    with pytest.warns(EbpfWarning, match=f"program 'sum' .*in the pass '{name}'") as told:
        function = program.compile(optimize=True, cache=tmp_path)
    assert len(told) == 1
    if name not in ("build", "lowering"):  # these saw no code
        assert "at pc 1: KeyError: 'v17'" in str(told[0].message)
    assert function(bytes([1, 2, 3])) == 6
    assert not function.is_optimized
    assert function.explain().startswith(f"baseline code: an error in the pass '{name}'")
    assert not [*tmp_path.iterdir()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Program(assembler.assemble(SUM)).compile(optimize=True)(bytes([1, 2])) == 3


def test_tests_see_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_in("guards", monkeypatch)
    with pytest.raises(PassFailed, match="'guards' at pc 1") as raised:
        Program(assembler.assemble(SUM)).compile(optimize=True)
    assert isinstance(raised.value.__cause__, KeyError)


def test_a_hot_program_goes_on_where_a_pass_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EBPFJIT_FAILURES", "")
    monkeypatch.setenv("EBPFJIT_TIERS", "on")
    fail_in("guards", monkeypatch)
    text = "mov r0, 0\nL:\nadd r0, 1\njlt r0, 10000000, L\nexit"
    function = Program(assembler.assemble(text)).compile()
    with pytest.warns(EbpfWarning, match="in the pass 'guards'") as told:
        assert [function(b"") for _ in range(3)] == [10_000_000] * 3
    assert len(told) == 1
    assert not function.is_optimized


def test_a_warning_that_is_an_error_is_one_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EBPFJIT_FAILURES", "")
    fail_in("guards", monkeypatch)
    program = Program(assembler.assemble(SUM))
    with warnings.catch_warnings():
        warnings.simplefilter("error", EbpfWarning)
        for _ in range(2):
            with pytest.raises(EbpfWarning, match="stays in baseline code"):
                program.compile(optimize=True)


# -- what is left alone ------------------------------------------------------------------------------


def test_what_is_not_optimised_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    assert explained("mov r0, 1\nexit") == ["optimised code"]
    plain = Program(assembler.assemble("mov r0, 1\nexit")).compile(optimize=False)
    assert plain.explain() == "baseline code: it was not asked to be optimised\n"
    monkeypatch.setattr(passes, "MOST_INSTRUCTIONS", 3)
    assert explained("mov r0, 1\nadd r0, 1\nadd r0, 1\nexit") == [
        "baseline code: it has 4 instructions, more than the 3 that are optimised"
    ]


def test_values_that_find_no_place_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registers, "MOST_WORDS", 1)
    made = [f"ldxdw r3, [r1+{8 * each}]\nmul r3, {each}\nstxdw [r10-{8 * each}], r3" for each in range(3, 23)]
    read = [f"ldxdw r3, [r10-{8 * each}]\nadd r0, r3" for each in range(3, 23)]
    text = "\n".join(["mov r0, 0", *made, *read, "exit"])
    line, *others = explained(text)
    assert line == "optimised code"
    assert [one for one in others if one.startswith("slots leaves the program alone: there are too few reg")]

    def find_none(*given: Any) -> None:
        raise OptimizationError("there are too few registers for its values at pc 9")

    monkeypatch.setattr(compiler, "place", find_none)
    (line,) = explained(text, cache=tmp_path)
    assert line == "baseline code: there are too few registers for its values at pc 9"
    assert not [*tmp_path.iterdir()]


def test_calls_of_python_are_told() -> None:
    function = Program(assembler.assemble("call 5\ncall 9\ncall 5\nexit")).compile(
        optimize=True, helpers={5: lambda *_: 1, 9: lambda *_: 2}
    )
    assert function.explain().splitlines() == [
        "optimised code",
        "helper 5 (bpf_ktime_get_ns) is a Python function: called at pc 0, 2, so far 0 times",
        "helper 9 (bpf_skb_store_bytes) is a Python function: called at pc 1, so far 0 times",
    ]


TANGLED = """
  mov r0, 0
  mov r4, 0
  jeq r2, 77, middle
head:
  ldxb r3, [r1+0]
  add r0, r3
middle:
  add r4, 1
  jlt r4, 3, head
"""


def test_a_loop_that_is_left_alone_does_not_keep_others_from_being_optimised() -> None:
    lines = explained(TANGLED + SUM.replace("mov r0, 0", "mov r5, 0"))
    assert lines[0] == "optimised code"
    assert "hoisting leaves what is at pc 3 alone: it is a loop with several ways in" in lines
    assert "unroll leaves what is at pc 3 alone: it is a loop with several ways in" in lines
    assert not any("at pc 8 " in line or "at pc 3, 8 " in line for line in lines)


LEFT_ALONE = (
    # text, and what is said of it
    ("mov r3, r10\nldxdw r0, [r3-8]\nexit", "slots leaves what is at pc 0 alone: the frame's address"),
    ("ldxdw r0, [r10-520]\nexit", "slots leaves what is at pc 0 alone: it is outside of the frame"),
    ("mov r0, 0\nL:\nldxb r3, [r1+0]\nadd r0, r3\njne r3, 0, L\nexit", None),
    ("mov r0, 0\nL:\nldxb r3, [r1+0]\nadd r1, r3\njne r3, 0, L\nexit",
     "hoisting leaves what is at pc 1 alone: no test says how far the addresses of the loop get"),
    ("mov r0, 0\nmov r6, r1\nL:\nldxb r3, [r6+0]\nadd r6, 1\ncall 5\njne r0, 0, L\nexit",
     "hoisting leaves what is at pc 2 alone: it is a loop with calls"),
    ("mov r0, 0\nL:\n" + "add r0, 3\nmul r0, r0\n" * 13 + "jne r0, 0, L\nexit",
     "unroll leaves what is at pc 1 alone: it is a loop of more than 24 operations"),
    ("\n".join(f"stxw [r10-{4 * each}], r1" for each in range(66, 0, -1)) + "\nmov r0, 0\nexit",
     "slots leaves what is at pc 0 alone: of its 66 slots 64 are values"),
)  # fmt: skip


@pytest.mark.parametrize(("text", "said"), LEFT_ALONE)
def test_passes_say_what_they_leave_alone(text: str, said: str | None) -> None:
    lines = explained(text, helpers={5: lambda *_: 0})
    assert lines[0] == "optimised code"
    if said is None:
        assert len(lines) == 1
    else:
        assert any(line.startswith(said) for line in lines), lines


# -- what it takes -----------------------------------------------------------------------------------


def insn(opcode: int, dst: int = 0, src: int = 0, offset: int = 0, imm: int = 0) -> bytes:
    return struct.pack("<BBhi", opcode, dst | src << 4, offset, imm)


MOVE, COPY, ADD, PLUS, EXIT = (partial(insn, opcode) for opcode in (0xB7, 0xBF, 0x0F, 0x07, 0x95))
LOAD, LOAD_BYTE, CALL, JUMP = (partial(insn, opcode) for opcode in (0x79, 0x71, 0x85, 0x05))
IF_EQUAL, IF_LESS, IF_LESS_THAN = (partial(insn, opcode) for opcode in (0x15, 0xA5, 0xAD))


def loops(count: int) -> bytes:
    """Loops one after the other, each with a check that steps."""
    walk = LOAD_BYTE(5, 3) + ADD(0, 5) + PLUS(3, imm=1) + PLUS(4, imm=1) + IF_LESS_THAN(4, 2, -5)
    return MOVE() + (COPY(3, 1) + MOVE(4) + walk) * (count // 7) + EXIT()


def loops_in_loops(count: int) -> bytes:
    """All loops inside of one another."""
    depth = count // 3
    ends = (LOAD_BYTE(5, 1) + IF_LESS(5, 0, -3 * each - 3, 10) for each in range(depth))
    return MOVE(3) + MOVE() + PLUS(3, imm=1) * depth + b"".join(ends) + EXIT()


def diamonds(count: int) -> bytes:
    """Branches inside of one another, that join in reverse order."""
    depth = count // 4
    heads = (IF_EQUAL(3, 0, 4 * (depth - each - 1) + 1, each) for each in range(depth))
    tails = (JUMP(0, 0, 2) + PLUS(imm=1) + PLUS(3, imm=each) for each in range(depth))
    return MOVE() + LOAD(3, 1) + b"".join(heads) + b"".join(tails) + EXIT()


def choices(count: int) -> bytes:
    """Branches around next to nothing, which become one block."""
    steps = (IF_EQUAL(3, 0, 1, each) + PLUS(imm=3) + ADD(3) for each in range(count // 3))
    return MOVE() + LOAD(3, 1) + b"".join(steps) + EXIT()


def rounds(count: int) -> bytes:
    """A loop that comes round at many places, each behind a check of an address that steps."""
    steps = (
        LOAD_BYTE(5, 3, each % 32) + ADD(0, 5) + PLUS(3, imm=1) + IF_EQUAL(5, 0, -4 * each - 4, each)
        for each in range(count // 4)
    )
    return MOVE() + COPY(3, 1) + b"".join(steps) + EXIT()


def functions(count: int) -> bytes:
    """Functions with a loop each."""
    size = count // 8
    body = MOVE() + MOVE(4) + LOAD_BYTE(5, 1) + ADD(0, 5) + PLUS(4, imm=1) + IF_LESS(4, 0, -4, 10) + EXIT()
    calls = b"".join(CALL(0, 1, 0, size - each + 7 * each + 1) for each in range(size))
    return calls + MOVE() + EXIT() + body * size


def one_block(count: int) -> bytes:
    """A single block."""
    steps = (LOAD_BYTE(5, 1, each % 60) + ADD(0, 5) + insn(0x27, 0, imm=3) for each in range(count // 3))
    return MOVE() + b"".join(steps) + EXIT()


def middles(count: int) -> bytes:
    """Loops that are entered in the middle."""
    one = (
        IF_EQUAL(1, 0, 2, 5) + PLUS(3, imm=1) + IF_EQUAL(3, 0, 2, 9) + PLUS(4, imm=1) + IF_EQUAL(4, 0, -4, 8)
    )
    return MOVE() + MOVE(3) + MOVE(4) + one * (count // 5) + EXIT()


SHAPES = (
    # shape          size   passes up to
    (loops,            600, "registers"),
    (loops_in_loops,   600, "registers"),
    (diamonds,         600, "registers"),
    (choices,        3_000, "select"),
    (rounds,         1_000, "hoisting"),
    (functions,        600, "registers"),
    (one_block,      2_000, "registers"),
    (middles,          600, "registers"),
)  # fmt: skip


def seconds_by_pass(code: bytes, last: str) -> dict[str, float]:
    """Return what each pass takes for a program, up to the last one."""
    verified = prepare(Program(code))
    known = passes.Known(Promises())
    table: dict[str, Callable[[Any, passes.Known], Any]] = {
        "build": lambda program, _: build(program),
        **passes.PASSES,
        "registers": lambda code, _: place(code, VALUES),
    }
    found: dict[str, float] = {}
    made: Any = verified
    for name, change in table.items():
        start = time.process_time()
        made = change(made, known)
        found[name] = time.process_time() - start
        if name == last:
            break
    return found


@pytest.mark.parametrize(("shape", "size", "last"), SHAPES)
def test_each_pass_takes_time_by_the_size_of_a_program(
    shape: Callable[[int], bytes], size: int, last: str
) -> None:
    def job() -> tuple[dict[str, float], dict[str, float]]:
        limit_memory()
        return seconds_by_pass(shape(size), last), seconds_by_pass(shape(4 * size), last)

    small, large = run_forked(job, 60).value
    for name, seconds in large.items():  # 16 times as much where it is quadratic
        assert seconds < 8 * small[name] + 0.03, name
