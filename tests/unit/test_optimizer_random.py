"""Random Code, rewritten by each pass and by all of them in turn: what it gives and leaves is the same."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from support.code_maker import SIZE, CodeMaker

from ebpfjit.analysis.accesses import Promises
from ebpfjit.analysis.verified import prepare
from ebpfjit.assembler import assemble
from ebpfjit.difftest.optimized import CodeState
from ebpfjit.interpreter import interpret
from ebpfjit.optimizer.check import check
from ebpfjit.optimizer.code import Code
from ebpfjit.optimizer.passes import PASSES, Known
from ebpfjit.optimizer.text import from_text, to_text
from ebpfjit.program import Program
from ebpfjit.runtime.execution import Execution
from ebpfjit.runtime.memory import Region

PROGRAM = prepare(Program.from_bytes(assemble("r0 = 0\nexit")))
EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 1 << 31, 0xFFFFFFFF, 1 << 63, 2**64 - 1)
NAMES = [name for name in PASSES if name not in ("guards", "hoisting", "payments", "jumps")]
SEEDS = 8
"""Pieces of Code in a test."""


def memory_of(rng: random.Random) -> bytes:
    words = (rng.choice(EDGES) if rng.random() < 0.5 else rng.getrandbits(64) for _ in range(SIZE // 8))
    return b"".join(word.to_bytes(8, "little") for word in words)


def run(code: Code, memory: bytes) -> tuple[int, bytes]:
    """What code gives, and what it leaves of the memory."""
    buffer = bytearray(memory)
    region = Region.of_buffer("mem", buffer)
    execution = Execution((region.start, region.size), [region])
    return interpret(PROGRAM, execution, machine=lambda each: CodeState(code, each)), bytes(buffer)


def rewritten(code: Code) -> Iterator[tuple[str, Code]]:
    """Yield what each pass makes of code, and what they make of it one after the other."""
    for name in NAMES:
        yield name, PASSES[name](code, Known(Promises()))
    known = Known(Promises())
    for name in NAMES:
        code = PASSES[name](code, known)
        yield f"all up to {name}", code


@pytest.mark.parametrize("part", range(5))
def test_rewritten_code_does_the_same(part: int) -> None:
    for seed in range(part * SEEDS, (part + 1) * SEEDS):
        rng = random.Random(f"rewritten {seed}")
        text = CodeMaker(rng).text()
        code = from_text(text, PROGRAM)
        memories = [memory_of(rng) for _ in range(2)]
        wanted = [run(code, memory) for memory in memories]
        for name, other in rewritten(code):
            check(other)
            got = [run(other, memory) for memory in memories]
            assert got == wanted, f"{seed}, {name}:\n{text}\n{to_text(other)}"


def test_most_of_it_is_rewritten() -> None:
    """The generator makes what the passes are for: of each row that only Code has, some."""
    made: set[str] = set()
    for seed in range(60):
        code = from_text(CodeMaker(random.Random(f"rewritten {seed}")).text(), PROGRAM)
        *_, (_, code) = rewritten(code)
        made |= {op.row.kind.name for block in code.blocks for op in block.all_ops}
        made |= {op.row.name for block in code.blocks for op in block.ops}
    assert {"SELECT", "SUM", "INDEXED_LOAD", "INDEXED_STORE", "BINARY_LOAD", "UPDATE", "BRANCH_LOAD"} <= made
    assert {"ROTATE64", "ROTATE32", "SWAPPED_LDXW", "SWAPPED_STXW", "INDEXED_LDXDW", "ADD_LDXDW"} <= made
