"""Who pays for which basic blocks: on every way the same sum as paying at the start of each."""

from __future__ import annotations

import random

import pytest

from ebpfjit import Program
from ebpfjit.analysis.charges import SETTLES
from ebpfjit.analysis.verified import Verified, prepare
from ebpfjit.assembler import assemble
from ebpfjit.difftest.pointers import Writer


def verified_of(text: str) -> Verified:
    return prepare(Program.from_bytes(assemble(text)))


def complaints(verified: Verified) -> list[str]:
    """Follow every edge: what was paid in advance is what the next block takes as paid."""
    charges, blocks, found = verified.charges, verified.costs, []
    paid_before = {
        pc: 0 if pc in verified.tested else size + charges.advance[pc] for pc, size in blocks.items()
    }
    starts = sorted(blocks)
    for start, end in zip(starts, [*starts[1:], len(verified.program)], strict=True):
        insns = [insn for insn in verified.program.instructions if start <= insn.pc < end]
        if start in verified.tested and charges.paid[start] != blocks[start] + charges.advance[start]:
            found.append(f"{start} pays {charges.paid[start]}")
        settles = any(insn.row is not None and insn.row.kind in SETTLES for insn in insns)
        if charges.advance[start] and settles:
            found.append(f"{start} is not exact")
        last = insns[-1]
        if last.row is None or last.row.name == "EXIT":
            continue
        ways = [(charges.taken, last.target)] if last.row.name != "CALL_LOCAL" else []
        if last.row.name not in ("JA", "JA32"):
            ways.append((charges.through, last.next_pc))
        for edge, pc in ways:
            if pc in blocks and charges.advance[start] + edge.get(last.pc, 0) != paid_before[pc]:
                found.append(f"{start} to {pc}")
    return found


def test_every_way_pays_what_it_runs() -> None:
    for seed in range(300):
        program = Program.from_bytes(Writer(random.Random(seed)).program())
        assert complaints(prepare(program)) == [], seed


LOOP = "l: jeq r1, 5, m\nldxb r1, [r2]\nja n\nm: add r1, 2\nn: add r1, 3\njne r1, 9, l\nexit"


@pytest.mark.parametrize(
    ("text", "costs"),
    [
        ("jeq r1, 5, m\nadd r1, 1\nm: exit", {0: 2, 1: 0, 2: 1}),  # skipped or not
        ("jeq r1, 5, m\nldxb r1, [r2]\nm: exit", {0: 1, 1: 1, 2: 1}),  # no arithmetic
        ("jeq r1, 5, m\nadd r1, 1\nadd r1, 1\nja n\nm: add r1, 2\nn: exit", {0: 4, 1: 0, 4: 0, 5: 1}),
        ("jeq r1, 5, m\nadd r1, 1\nja n\nm: ldxb r1, [r2]\nn: exit", {0: 1, 1: 2, 3: 1, 4: 1}),
        ("jeq r1, 5, m\nl: add r1, 1\nm: jeq r1, 9, l\nexit", {0: 1, 1: 1, 2: 1, 3: 1}),  # a loop
        ("jeq r1, 5, m\n" + "add r1, 1\n" * 9 + "m: exit", {0: 1, 1: 9, 10: 1}),  # too long
    ],
)
def test_arms_cost_what_the_longer_one_does_whichever_is_taken(text: str, costs: dict[int, int]) -> None:
    assert verified_of(text).costs == costs


def test_a_loop_pays_once_on_its_likely_way() -> None:
    charges = verified_of(LOOP).charges
    assert charges.paid == {0: 1 + 1 + 2, 6: 1}  # the way of the jump: blocks at 0, 3 and 4
    assert charges.through == {0: 1}  # the other way has one instruction more
    assert charges.taken == {}
    assert charges.advance == {0: 3, 1: 2, 3: 2, 4: 0, 6: 0}


@pytest.mark.parametrize("call", ["call 1", "call local f", "ldabsb 0"])
def test_nothing_is_paid_in_advance_where_the_account_is_looked_at(call: str) -> None:
    verified = verified_of(f"{call}\njeq r1, 5, m\nadd r1, 1\nm: exit\nf: exit")
    starts = [pc for pc in verified.blocks if pc < 2]
    assert verified.charges.advance[starts[0]] == 0


def test_what_falls_off_the_end_pays_for_itself() -> None:
    program = Program.from_bytes(assemble("jeq r1, 5, m\nexit\nm: add r1, 1"))
    assert prepare(program).charges.advance[2] == 0
