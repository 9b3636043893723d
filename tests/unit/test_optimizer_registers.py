"""Registers for values: moves that are made one after the other, and where operations find their values."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
from support.placed_code import code_of, on_both, placed_of, steps_of, verified, with_kind

from ebpfjit.analysis.accesses import Promises
from ebpfjit.difftest.case import Input
from ebpfjit.errors import OptimizationError
from ebpfjit.isa.spec import Kind
from ebpfjit.optimizer.check_placed import check_placed
from ebpfjit.optimizer.code import Code
from ebpfjit.optimizer.passes import PASSES, stages
from ebpfjit.optimizer.placed import Move, Placed, PlacedCode, Places
from ebpfjit.optimizer.registers import place, sequential
from ebpfjit.runtime.execution import CODE_ADDRESS
from ebpfjit.translators.machine import SPILLED, Registers
from ebpfjit.translators.x86_64.target import AUDITED_VALUES, VALUES

SCRATCH = 12
FEW = replace(VALUES, reserved=0b1111_1000_0000)
"""Seven registers: r0 to r6."""

Mapping = dict[int, int]


# -- moves ----------------------------------------------------------------------------------------------


def mappings(places: tuple[int, ...]) -> itertools.chain[Mapping]:
    """Every way to give each of these places what is in one of them, or to leave it alone."""
    sources = itertools.product((None, *places), repeat=len(places))
    return itertools.chain(
        {dst: src for dst, src in zip(places, each, strict=True) if src is not None} for each in sources
    )


def complaint(moves: Mapping) -> str:
    """Execute what is made of copies at once; return what is wrong."""
    before = {each: f"what was in {each}" for each in (*range(5), SPILLED, SPILLED + 1, SCRATCH)}
    after = dict(before)
    steps = sequential(moves, SCRATCH)
    for step in steps:
        after[step.dst] = after[step.src]
    wrong = [dst for dst in before if dst != SCRATCH and after[dst] != before[moves.get(dst, dst)]]
    return f"{moves}: {wrong} are wrong behind {steps}" if wrong else ""


@pytest.mark.parametrize("places", [(0, 1, 2, 3, 4), (0, 1, 2, SPILLED, SPILLED + 1)])
def test_copies_at_once_are_moves_in_a_row(places: tuple[int, ...]) -> None:
    assert [said for moves in mappings(places) if (said := complaint(moves))] == []


def test_of_five_registers_and_two_words_many_are() -> None:
    """All 2 million take too long: all that only exchange, and some of the others."""
    places = (0, 1, 2, 3, 4, SPILLED, SPILLED + 1)
    exchanges = (dict(zip(places, each, strict=True)) for each in itertools.permutations(places))
    rng = random.Random(1)
    others = ({dst: rng.choice(places) for dst in places if rng.random() < 0.8} for _ in range(6_000))
    assert [said for moves in itertools.chain(exchanges, others) if (said := complaint(moves))] == []


def test_no_more_moves_than_are_needed() -> None:
    assert sequential({1: 1}, SCRATCH) == []
    assert sequential({1: 2, 2: 3}, SCRATCH) == [Move(1, 2), Move(2, 3)]
    assert len(sequential({1: 2, 2: 1}, SCRATCH)) == 3
    assert len(sequential({1: 2, 2: 1, 3: 4, 4: 3}, SCRATCH)) == 6


# -- operations -----------------------------------------------------------------------------------------


def numbers(count: int, first: int = 1) -> str:
    """Return operations that define values, from `first` on, each its own number of v0's memory."""
    return "\n".join(f"  v{first + each} = *(u8 *)(v0 + {each})" for each in range(count))


def named(values: list[int]) -> str:
    """Return values as they are named in a row."""
    return ", ".join(f"v{each}" for each in values)


def sum_of(values: list[int], into: int) -> str:
    """Return operations whose last value, `into` and some more, depends on all of these in their order."""
    lines, last = [], values[0]
    for each, value in enumerate(values[1:]):
        lines += [
            f"  v{into + 2 * each} = v{last} * 7",
            f"  v{into + 2 * each + 1} = v{into + 2 * each} + v{value}",
        ]
        last = into + 2 * each + 1
    return "\n".join([*lines, f"  exit v{last}"])


def agrees(code: Code, build: str = "native") -> None:
    """Assert that machine code does what the interpreter does with it, and that it ends well."""
    expected, got = next(on_both(code, build=build))
    assert (expected.kind, got.kind) == ("ok", "ok"), (expected.message, got.message)
    assert (got.value, got.memory) == (expected.value, expected.memory)


def test_what_is_read_again_is_copied_before_it_is_changed() -> None:
    """Two addresses: dst is the result's register; where dst is read later, that of a copy."""
    code = code_of("entry 0: b0 (r1, r2)\nb0 pc 0 (v0, v1):\n  v2 = v0 - v1\n  v3 = v2 - v0\n  exit v3")
    first, second, end = [step for step in steps_of(placed_of(code), 0) if isinstance(step, Placed)]
    assert first.results == (first.args[0],)
    assert first.results != (1,)  # v0 stays where it is
    assert second.args == (first.results[0], 1)
    assert end.args == (0,)
    agrees(code)


def test_of_what_commutes_the_one_that_ends_is_changed() -> None:
    code = code_of("entry 0: b0 (r1, r2)\nb0 pc 0 (v0, v1):\n  v2 = v0 + v1\n  v3 = v2 + v0\n  exit v3")
    assert len(steps_of(placed_of(code), 0)) == 4  # with one move, into r0
    agrees(code)


@pytest.mark.parametrize("build", ["native", "audit"])
@pytest.mark.parametrize("alive", range(14))
def test_values_stay_while_a_helper_is_called(alive: int, build: str) -> None:
    """Of so many that are read behind the call five stay in registers that it keeps, others on the stack."""
    values = [*range(1, 1 + alive)]
    text = f"entry 0: b0 (r1)\nb0 pc 0 (v0):\n{numbers(alive)}\n  v50 = v0 + 9\n"
    text += "  v51 = call 5(v0, v50, v50, v0, v50)\n  v52 = *(u8 *)(v0 + 60) ; 1\n"
    code = code_of(text + sum_of([52, 51, *values], 60), "call 5\nexit")
    placed = placed_of(code)
    (call,) = with_kind(steps_of(placed, 0), Kind.CALL_HELPER)
    assert len(call.kept) == min(alive + 1, 5)
    assert placed.words == max(0, alive + 1 - 5)
    assert call.args == (1, 2, 3, 4, 5)
    agrees(code, build)


@pytest.mark.parametrize("alive", range(0, 14, 2))
def test_values_stay_while_a_function_is_called(alive: int) -> None:
    values = [*range(1, 1 + alive)]
    text = f"entry 0: b0 (r1)\nentry 2: b1 (r1, r2, r3)\nb0 pc 0 (v0):\n{numbers(alive)}\n  v50 = v0 + 9\n"
    text += "  v51, v52, v53, v54, v55, v56 = function 2(v50, v0, v50) else leave 0 (r1 = v0)\n"
    text += sum_of([51, 52, 53, 54, 55, 56, *values, 50], 60)
    clobbered = "\n".join(f"  v{203 + each} = v{200 + each} * 5" for each in range(9))
    text += f"\nb1 pc 2 (v200, v201, v202):\n{clobbered}\n  exit v202, v201, v200, v202, v211, v210"
    code = code_of(text, "call f\nexit\nf: exit")
    (call,) = with_kind(steps_of(placed_of(code), 0), Kind.CALL_LOCAL)
    assert call.args == (1, 2, 3)
    assert not {0, 1, 2, 3, 4, 5} & set(call.kept)
    agrees(code)


def test_results_that_nothing_reads_leave_their_registers_to_others() -> None:
    """They are restored: so a value may stay in r2 while a function is called that writes r2."""
    text = "entry 0: b0 (r1, r2)\nentry 2: b1 (r1)\nb0 pc 0 (v0, v1):\n"
    text += "  v2, v3, v4, v5, v6, v7 = function 2(v0) else leave 0 (r1 = v0)\n  v8 = v2 + v1 ; 1\n  exit v8"
    code = code_of(f"{text}\nb1 pc 2 (v9):\n  exit v9, v9, v9, v9, v9, v9", "call f\nexit\nf: exit")
    (call,) = with_kind(steps_of(placed_of(code), 0), Kind.CALL_LOCAL)
    assert call.kept == (2,)
    agrees(code)


def test_a_function_by_address_reads_all_registers() -> None:
    """The address lies where none of r0 to r9 does; values that are read later are on the stack then."""
    names = ", ".join(f"v{each}" for each in range(1, 11))
    text = f"entry 0: b0 (r1)\nentry 4: b1 (r1, r9)\nb0 pc 0 (v0):\n{numbers(14)}\n"
    text += f"  v30 = {CODE_ADDRESS + 4} ll\n"
    names = f"v30, {names[4:]}"  # the interpreter calls what r0 has
    text += f"  v31, v32, v33, v34, v35, v36 = callx 0(v30, {names}) else leave 2 (r1 = v0) ; 2\n"
    text += sum_of([31, 32, 14, 13, 12, 11, 5], 40)
    text += "\nb1 pc 4 (v80, v81):\n  v82 = v80 * 3\n  v83 = v82 + v81\n  exit v83, v82, v81, v81, v81, v81"
    code = code_of(text, "r0 = f ll\ncallx r0\nexit\nf: exit")
    (call,) = with_kind(steps_of(placed_of(code), 0), Kind.CALL_REGISTER)
    assert call.args == (VALUES.spare, *range(10))
    agrees(code)
    agrees(code, "audit")


@pytest.mark.parametrize("registers", [VALUES, AUDITED_VALUES], ids=["all", "audited"])
def test_the_address_of_a_call_does_not_stay_where_no_values_are(registers: Registers) -> None:
    """It is read again, from a register that the call writes."""
    text = "entry 0: b0 (r1)\nentry 4: b1 (r1)\nb0 pc 0 (v0):\n  v1 = *(u64 *)(v0 + 0)\n"
    names = ", ".join(["v0", "v0", "v1", *["v0"] * 7])
    text += f"  v2, v3, v4, v5, v6, v7 = callx 0(v1, {names}) else leave 2 (r1 = v0) ; 2\n"
    code = code_of(
        text + sum_of([2, 3, 4, 1], 10) + "\nb1 pc 4 (v80):\n  exit v80, v80, v80, v80, v80, v80",
        "r0 = f ll\ncallx r0\nexit\nf: exit",
    )
    (call,) = with_kind(steps_of(placed_of(code, registers), 0), Kind.CALL_REGISTER)
    assert len(call.kept) == 1
    assert VALUES.spare not in call.kept


ATOMICS = ("atomic_fetch_add", "atomic_fetch_or", "atomic_fetch_and", "atomic_fetch_xor", "xchg")


@pytest.mark.parametrize("build", ["native", "audit"])
@pytest.mark.parametrize("alive", [0, 5, 13])
def test_atomic_operations_that_fetch(alive: int, build: str) -> None:
    """With the address as the operand too, and results that are read or not."""
    lines, values = [numbers(alive)], [*range(1, 1 + alive)]
    for each, name in enumerate(ATOMICS):
        lines.append(f"  v{30 + 4 * each} = {name}((u64 *)(v0 + {8 * each}), v0)")
        lines.append(f"  v{31 + 4 * each} = v{30 + 4 * each} + {each}")
        lines.append(f"  v{32 + 4 * each} = {name}((u64 *)(v0 + {8 * each}), v{31 + 4 * each})")
        lines.append(f"  v{33 + 4 * each} = {name}((u64 *)(v0 + {8 * each}), v{31 + 4 * each})")
        values += [30 + 4 * each, 31 + 4 * each, *([33 + 4 * each] if each % 2 else [])]
    code = code_of("\n".join(["entry 0: b0 (r1)\nb0 pc 0 (v0):", *lines, sum_of([0, *values], 100)]))
    agrees(code, build)


@pytest.mark.parametrize("alive", [0, 5, 13])
@pytest.mark.parametrize("is_read", [True, False])
def test_what_is_compared_is_read_again_though_r0_is_written(alive: int, is_read: bool) -> None:
    text = f"entry 0: b0 (r0, r1)\nb0 pc 0 (v90, v0):\n{numbers(alive)}\n  v50 = *(u64 *)(v0 + 8)\n"
    text += "  v51 = cmpxchg((u64 *)(v0 + 8), v0, v50)\n  v52 = cmpxchg((u64 *)(v0 + 16), v50, v50)\n"
    text += "  v53 = cmpxchg((u64 *)(v0 + 8), v0, v0)\n"
    values = [50, 0, *range(1, 1 + alive), *([51, 52, 53] if is_read else [])]
    agrees(code_of(text + sum_of(values, 100)))


def test_a_load_from_the_packet_writes_r0_though_nothing_reads_it() -> None:
    text = "entry 0: b0 (r0, r1)\nb0 pc 0 (v0, v1):\n"
    text += "  v2 = *(u8 *)skb[12] else leave 0 (r0 = v0, r1 = v1)\n  exit v0 ; 1"
    code = code_of(text, "r0 = *(u8 *)skb[12]\nexit")
    expected, got = next(on_both(code))
    assert (expected.value, got.value) == (0, 0)  # r0 as it was at the start


def test_values_that_no_two_registers_have_are_seen() -> None:
    """`check_placed` is what the others stand on: it sees what is wrong."""
    code = code_of("entry 0: b0 (r1, r2)\nb0 pc 0 (v0, v1):\n  v2 = v0 - v1\n  v3 = v2 - v0\n  exit v3")
    placed = placed_of(code)
    (block,) = placed.blocks
    assert block is not None
    (_, *other), *rest = block.places
    elsewhere: list[Places] = [((9,), *other), *rest]
    for wrong in (replace(block, between={}), replace(block, places=elsewhere)):
        with pytest.raises(AssertionError, match=r"v\d is not in \d"):
            check_placed(PlacedCode(code, (wrong,), placed.arrivals), VALUES)


def test_a_function_without_a_frame_keeps_r10_of_its_caller() -> None:
    """However many values it has at once: it is called with nothing saved but what is read behind it."""
    source = "r2 = 5\ncall f\nr3 = r10\nr0 += r3\nexit\nf: r0 = r1\nexit"
    values = [*range(21, 34)]
    lines = [f"  v{each} = v20 * {each}" for each in values]
    text = "entry 0: b0 (r1, r10)\nentry 5: b1 (r1)\nb0 pc 0 (v0, v1):\n"
    text += (
        "  v2, v3, v4, v5, v6, v7 = function 5(v0) else leave 1 (r1 = v0, r10 = v1) ; 1\n  v8 = v2 ^ v1 ; 2\n"
    )
    text += "  exit v8\nb1 pc 5 (v20):\n" + "\n".join(lines) + "\n" + sum_of(values, 40)
    code = code_of(text, source)
    assert code.verified.calls.frameless == {5}
    expected, got = next(on_both(code))
    assert got.value == expected.value


# -- loops under pressure -------------------------------------------------------------------------------


def nested(outer: int, inner: int) -> str:
    """Return two loops, one in the other: `outer` values are read in the outer one only, `inner` in both."""

    def read(count: int, first: int = 0) -> list[str]:
        slots = (8 * (each + 1) for each in range(first, first + count))
        return [f"r3 = *(u64 *)(r10 - {slot})\nr0 *= 3\nr0 += r3" for slot in slots]

    lines = ["r7 = 3"]
    for each in range(outer + inner):
        lines.append(f"r2 = *(u8 *)(r1 + {each})\n*(u64 *)(r10 - {8 * (each + 1)}) = r2")
    lines += ["r0 = 0", "outer: r8 = 4", *read(outer), "inner:", *read(inner, outer)]
    lines += ["r8 -= 1\nif r8 != 0 goto inner", "r7 -= 1\nif r7 != 0 goto outer", "exit"]
    return "\n".join(lines)


@pytest.mark.parametrize("registers", [VALUES, AUDITED_VALUES, FEW], ids=["all", "audited", "few"])
@pytest.mark.parametrize(("outer", "inner"), [(2, 2), (9, 2), (30, 3), (3, 12)])
def test_an_inner_loop_reloads_only_what_it_reads(outer: int, inner: int, registers: Registers) -> None:
    ready = verified(nested(outer, inner))
    chosen = PASSES.keys() - {"unroll"}
    *_, (_, code, _) = stages(ready, Promises(argument_is_measured=True), chosen=chosen)
    placed = placed_of(code, registers)
    (number,) = [
        number for number, block in enumerate(code.blocks) if any(way.block == number for way in block.ways)
    ]
    block = placed.blocks[number]
    assert block is not None
    read = {value for op in code.blocks[number].all_ops for value in op.args}
    again = {move.src for moves in block.moves for move in moves if move.src >= SPILLED}
    reloads = [step for step in block.steps if isinstance(step, Move) and step.src >= SPILLED]
    assert len(again) + len(reloads) <= len(read)
    if inner + 3 <= (registers.count - registers.reserved.bit_count()) - 1:
        assert not again
        assert reloads == []


def test_too_few_registers_are_said() -> None:
    lines = "\n".join(f"  v{each} = v0 * {each}" for each in range(1, 150))
    text = f"entry 0: b0 (r1)\nb0 pc 0 (v0):\n{lines}\n{sum_of([*range(1, 150)], 200)}"
    with pytest.raises(OptimizationError, match="too few registers"):
        place(code_of(text), VALUES)


def test_words_are_used_again() -> None:
    """Values that live one after the other share the stack's words."""
    lines, last = [], 0
    for group in range(6):
        first = 1 + 50 * group
        lines += [f"  v{first + each} = v{last} * {each + 3}" for each in range(20)]
        sums = zip([first, *range(first + 20, first + 38)], range(first + 19, first, -1), strict=True)
        lines += [f"  v{first + 20 + each} = v{a} ^ v{b}" for each, (a, b) in enumerate(sums)]
        last = first + 38
    code = code_of("entry 0: b0 (r1)\nb0 pc 0 (v0):\n" + "\n".join(lines) + f"\n  exit v{last}")
    assert placed_of(code).words < 20
    agrees(code)


def test_words_on_ways_between_blocks() -> None:
    """More arguments than registers: they change places on the way round, some of them on the stack."""
    args = [*range(1, 17)]
    text = f"entry 0: b0 (r1)\nb0 pc 0 (v0):\n{numbers(16, 21)}\n  v50 = 9\n"
    text += f"  goto b1({named([*range(21, 37), 50])})\nb1 pc 1 ({named([*args, 51])}):\n  v52 = v51 + -1\n"
    text += f"  if v52 != 0 goto b1({named([*args[1:], args[0], 52])}) else b2() ; 1\n"
    text += f"b2 pc 2 ():\n{sum_of(args, 60)}"
    code = code_of(text, "r0 = 1\nif r0 != 0 goto -1\nexit")
    agrees(code)


def test_input_of_the_argument_is_what_was_given() -> None:
    """The support of this file runs what it is given."""
    code = code_of("entry 0: b0 (r1)\nb0 pc 0 (v0):\n  v1 = *(u8 *)(v0 + 0)\n  exit v1")
    expected, got = next(on_both(code, [Input(b"\x2a")]))
    assert (expected.value, got.value) == (42, 42)
