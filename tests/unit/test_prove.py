"""Proofs by a solver: a few rules and translators are proven, planted wrong ones refuted with numbers."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from itertools import chain

import pytest
from typer.testing import CliRunner

z3 = pytest.importorskip("z3", reason="ebpfjit[prove] is not installed: no z3")
pytest.importorskip("triton", reason="ebpfjit[prove] is not installed: no Triton")

from ebpfjit.bits import Width  # noqa: E402 - behind what is asked first
from ebpfjit.cli.full import app_of  # noqa: E402
from ebpfjit.isa import semantics  # noqa: E402
from ebpfjit.isa.table import BY_NAME  # noqa: E402
from ebpfjit.optimizer import intervals  # noqa: E402
from ebpfjit.optimizer.code import Code, Op  # noqa: E402
from ebpfjit.optimizer.rules import algebra, arithmetic, divisions  # noqa: E402
from ebpfjit.optimizer.rules.addresses import index  # noqa: E402
from ebpfjit.optimizer.rules.bytes import gather  # noqa: E402
from ebpfjit.optimizer.rules.operands import use_memory  # noqa: E402
from ebpfjit.optimizer.text import from_text, to_text  # noqa: E402
from ebpfjit.prove import (  # noqa: E402
    algebra_rules,
    code_rules,
    range_rules,
    reductions,
    run,
    stencils,
    value_stencils,
    verifier_rules,
)
from ebpfjit.prove.claims import Claim, Result, Verdict, assume, decide, each_of, paths  # noqa: E402
from ebpfjit.prove.meanings import swapped  # noqa: E402
from ebpfjit.prove.symbolic import (  # noqa: E402
    W32,
    W64,
    Integer,
    SymbolicWidth,
    chosen,
    less,
    variable,
    within,
)
from ebpfjit.prove.theories import Integers, Vectors  # noqa: E402
from ebpfjit.translators import registry  # noqa: E402
from ebpfjit.translators.x86_64 import vectors  # noqa: E402

SECONDS = 5.0


def claims() -> Iterator[Claim]:
    return chain(
        range_rules.range_rules(),
        verifier_rules.verifier_rules(),
        algebra_rules.algebra_rules(),
        stencils.translators(),
        value_stencils.value_translators(),
        reductions.reductions(),
    )


def claim(name: str) -> Claim:
    """The claim of this name, made anew: what is lifted is kept with it."""
    return next(each for each in claims() if each.name == name)


def decided(name: str) -> Result:
    return decide(claim(name), SECONDS)


# -- rules and translators as they are, and wrong ones -------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "MUL of intervals, 64 bits",
        "known bits of XOR, 64 bits",
        "AND of intervals, 32 bits",
        "LSH then RSH with constants, 64 bits",
        "SDIV64_X r4, r1",
        "SMOD32_X r3, r0",
        "LSH64_X r4, r1, old processor",
        "ADD64_K r0, -1, blinded",
        "BE32 r9, 0",
        "JSLT32_X r0, r3",
        "MULHI64 r3, r1 -> r1, 0, +0 * 0, old processor",
        "SELECT_JSLT32_X r0, r4, r3, r4 -> r3, 0, +0 * 0",
        "SUB_LDXDW r1, r2, r3 -> r2, 0, +8 * 4",
        "JGT_LDXB_K r1, r2, 127, +8 * 4",
        "XOR64_X, then JSGT_K without a comparison",
        "REDUCE_ADD32_LDXB of 64: r1 -> r6, +8",
        "REDUCE_DOT32_LDXH of 16: r1, r2 -> r6, +8",
        "a loop of 18 rounds with REDUCE_DOT64_LDXW",
    ],
)
def test_proven(name: str) -> None:
    assert decided(name).verdict is Verdict.PROVEN


def test_a_wrong_rule_over_intervals_is_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(w: Width, a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
        return a[0] + b[0], min(a[1] + b[1], w.mask)  # as if sums did not wrap

    monkeypatch.setitem(intervals.BINARY, "ADD", wrong)
    found = decided("ADD of intervals, 64 bits")
    assert found.verdict is Verdict.REFUTED
    numbers = found.against
    assert numbers["a_low"] <= numbers["x"] <= numbers["a_high"]
    assert numbers["x"] + numbers["y"] > W64.mask


def test_a_wrong_rule_of_arithmetic_is_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(algebra.CHAINS, ("LSH", "LSH"), lambda w, j, k: ("LSH", (j + k) % w.bits))
    found = decided("LSH then LSH with constants, 64 bits")
    assert found.verdict is Verdict.REFUTED
    assert found.against["j"] % 64 + found.against["k"] % 64 >= 64


def wrong_translator(lines: str) -> Callable[[object, stencils.Context], None]:
    def translate(insn: object, cx: stencils.Context) -> None:
        for line in lines.split("; "):
            cx.emit(line.format(dst=cx.dst, src=cx.src, dst64=cx.dst64))

    return translate


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("ADD32_X r0, r3", "add {dst64}, rdx"),  # the upper half stays
        ("LSH64_X r1, r2", "mov rcx, rsi; shl {dst}, cl"),  # r4 is lost
        ("DIV64_X r0, r4", "mov r10, rdx; xor edx, edx; div rcx; mov rdx, r10"),  # a division by 0 traps
        ("NEG64 r9, 0", "neg {dst}; push r10"),  # the stack is not where it was
    ],
)
def test_a_wrong_translator_is_refuted(monkeypatch: pytest.MonkeyPatch, name: str, lines: str) -> None:
    assert decided(name).verdict is Verdict.PROVEN
    row = BY_NAME[name.split()[0]]
    translators = registry._TRANSLATORS[stencils.NAME]
    monkeypatch.setitem(translators, row.operation, wrong_translator(lines))
    assert decided(name).verdict is Verdict.REFUTED


def test_a_jump_the_wrong_way_is_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(insn: object, cx: stencils.Context) -> None:
        cx.emit(f"cmp {cx.dst}, {cx.src}")
        cx.goto("jl", 0)

    monkeypatch.setitem(registry._TRANSLATORS[stencils.NAME], "JLT32", wrong)
    found = decided("JLT32_X r0, r3")
    assert found.verdict is Verdict.REFUTED
    sides = [W32.wrap(found.against.get(name, 0)) for name in ("rax", "rdx")]
    assert (sides[0] < sides[1]) != (W32.signed(sides[0]) < W32.signed(sides[1]))


def test_a_wrong_reduction_is_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [step for step in vectors.SUMS[2, 32][0] if step != "paddd xmm0, xmm2"]
    monkeypatch.setitem(vectors.SUMS, (2, 32), (steps, "paddd"))
    assert decided("REDUCE_ADD32_LDXH of 8: r1 -> r6, +8").verdict is Verdict.REFUTED


def test_names_tell_claims_apart() -> None:
    names = [each.name for each in claims()]
    assert len({*names}) == len(names)


PIECES = [
    (arithmetic.simplify, ("v3 = v0 << 13", "v4 = v0 >> 51", "v5 = v3 | v4", "exit v5")),
    (divisions.divide, ("w3 = w0 % 1000", "exit v3")),
    (gather, ("v3 = *(u8 *)(v0 + 3)", "v4 = *(u8 *)(v0 + 2)", "v5 = v4 << 8", "w6 = w5 + w3", "exit v6")),
    (index, ("v3 = v1 << 3", "v4 = v0 + v3", "*(u32 *)(v4 + 8) = v2", "exit v0")),
    (use_memory, ("v3 = *(u8 *)(v0 + 8)", "w4 = w3 - w2", "*(u8 *)(v0 + 8) = v4", "exit v0")),
    (use_memory, ("v3 = *(u16 *)(v0 + 8)", "if v3 s> 5 goto b1() else b2()")),
]


def piece(change: code_rules.Pass, lines: tuple[str, ...]) -> Claim | None:
    theory = Integers if "% 1000" in lines[0] else Vectors
    return code_rules.claim_of("", change, code_rules.block(lines), (theory,))


@pytest.mark.parametrize(("change", "lines"), PIECES)
def test_passes_are_proven_on_pieces(change: code_rules.Pass, lines: tuple[str, ...]) -> None:
    found = piece(change, lines)
    assert found is not None
    assert decide(found, SECONDS).verdict is Verdict.PROVEN


def wrong(change: code_rules.Pass, old: str, new: str) -> code_rules.Pass:
    """A pass that makes one mistake in what it writes."""

    def pass_(code: Code) -> Code:
        text = to_text(change(code))
        assert old in text
        return from_text(text.replace(old, new), code.verified)

    return pass_


@pytest.mark.parametrize(
    ("number", "old", "new"),
    [
        (0, "rotate 13", "rotate 14"),
        (1, "v4 - v7", "v4 + v7"),
        (2, "be16 ", ""),
        (3, "v1 * 8 + 8", "v1 * 8 + 9"),
        (4, "-= v2", "+= v2"),
        (5, "> 5", "s> 5"),
    ],
)
def test_a_pass_that_errs_is_refuted(number: int, old: str, new: str) -> None:
    change, lines = PIECES[number]
    found = piece(wrong(change, old, new), lines)
    assert found is not None
    assert decide(found, SECONDS).verdict is Verdict.REFUTED


def test_a_choice_the_wrong_way_round_is_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong_select(insn: Op, cx: stencils.Context) -> None:
        cx.emit("cmp rdi, rsi")
        cx.emit("mov rbx, rcx")
        cx.emit("cmovae rbx, rdx")

    name = "SELECT_JGT_X r1, r2, r3, r4 -> r6, 0, +0 * 0"
    assert decided(name).verdict is Verdict.PROVEN
    monkeypatch.setitem(registry._TRANSLATORS[stencils.NAME], "SELECT_JGT", wrong_select)
    assert decided(name).against["rdi"] == decided(name).against["rsi"]


def test_an_access_elsewhere_is_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong_update(insn: Op, cx: stencils.Context) -> None:
        cx.emit("add byte ptr [rdi+rsi*4+$offset], dl", offset=9)

    name = "ADD_STB_X r1, r2, r3, 0, +8 * 4"
    assert decided(name).verdict is Verdict.PROVEN
    monkeypatch.setitem(registry._TRANSLATORS[stencils.NAME], "ADD_STB", wrong_update)
    assert decided(name).verdict is Verdict.REFUTED


# -- numbers, paths ------------------------------------------------------------------------------------------


def test_a_claim_that_assumes_what_cannot_be_is_none() -> None:
    def statement() -> bool:
        assume(variable("x", 8) > 255)
        return False

    with pytest.raises(AssertionError, match="nothing is claimed"):
        decide(Claim("", "", statement), SECONDS)


def test_what_is_undecided_is_no_proof() -> None:
    def statement() -> bool:
        x, y = variable("x", 64), variable("y", 64)
        assume((x > 1) & (y > 1))
        return x * y != 0xF1F1_F1F1_F1F1_F1F1_F1F1  # factors are not found in that time

    assert decide(Claim("", "", statement), 0.05).verdict is Verdict.UNDECIDED


def test_each_path_is_run_once() -> None:
    def statement() -> bool:
        x = within("x", 0, 9)
        return bool(x > 4) == (each_of(x) > 4)

    assert len([*paths(Claim("", "", statement))]) == 10
    assert decide(Claim("", "", statement), SECONDS).verdict is Verdict.PROVEN


def expressions(x: Integer, y: Integer, n: Integer) -> list[Integer]:
    """Everything that numbers do; n is a small one."""
    return [
        x + y, x - y, y - 3, 5 - x, x * y, -x, abs(x - y), x // (y + 1), x % (y + 1), x & y, x | y, x ^ y,
        ~x & y,
        (x - y) & 0xFF, x << n, x >> n, (x - y) >> n, 1 << n, 200 >> n, x.bit_length(), (x - y) * (y - x),
        chosen(less(x, y), x - 9, y), SymbolicWidth(8).signed(x), SymbolicWidth(8).signed(x - y), x % 16,
        300 // (x + 1),
        semantics.arsh(SymbolicWidth(8), x, n), semantics.rotate(SymbolicWidth(8), x, n),
        swapped(2, x << 8 | y),
    ]  # fmt: skip


def test_numbers_are_what_python_makes_of_them() -> None:
    """Each operation, in bits and as integers where it has such, against int."""
    x, y, n = variable("x", 8), variable("y", 8), within("n", 0, 7)
    terms = expressions(x, y, n)
    chance = random.Random(1)
    for _ in range(12):
        values = {"x": chance.randrange(256), "y": chance.randrange(256), "n": chance.randrange(8)}
        wanted = expressions(*values.values())
        for term, number in zip(terms, wanted, strict=True):
            assert term.low <= number <= term.high
            whole = z3.substitute(
                Vectors().bits(term, 24),
                *((z3.BitVec(name, 3 if name == "n" else 8), z3.BitVecVal(value, 3 if name == "n" else 8))
                  for name, value in values.items()),
            )  # fmt: skip
            assert z3.simplify(whole).as_signed_long() == number, term.op


def of_integers(x: Integer, y: Integer) -> list[Integer]:
    return [
        x + y, x - y, x * y, x // (y + 1), x % (y + 1), (x - y) & 0xFF, x << 3, x >> 3, (x - y) >> 2,
        abs(x - y), SymbolicWidth(8).signed(x), SymbolicWidth(8).signed(y), chosen(less(x, y), x, y),
    ]  # fmt: skip


def test_integers_are_what_python_makes_of_them() -> None:
    wanted = of_integers(77, 201)
    for term, number in zip(of_integers(variable("x", 8), variable("y", 8)), wanted, strict=True):
        theory, solver = Integers(), z3.Solver()
        found = theory.integer(term)
        solver.add(*theory.facts(), z3.Int("x") == 77, z3.Int("y") == 201, found != number)
        assert solver.check() == z3.unsat, term.op


def test_bytes_in_the_other_order_are_those_of_the_meaning() -> None:
    for bits in (16, 32, 64):
        for value in [1 << place for place in range(bits)] + [0x0123_4567_89AB_CDEF & (1 << bits) - 1]:
            assert swapped(bits // 8, value) == semantics.swap(Width(bits), value)


# -- the command ---------------------------------------------------------------------------------------------


def test_the_command_tells_what_is_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    some = [claim("XOR of itself, 32 bits")]
    wrong = Claim("algebra", "x is even", lambda: variable("x", 8) & 1 == 0)
    monkeypatch.setattr(run, "claims_of", lambda rooms: some)
    found = CliRunner().invoke(app_of(), ["prove", "algebra"])
    assert found.exit_code == 0, found.output
    assert "1 claims" in found.output
    monkeypatch.setattr(run, "claims_of", lambda rooms: [*some, wrong])
    found = CliRunner().invoke(app_of(), ["prove", "algebra", "--jobs", "2"])
    assert found.exit_code == 1
    assert "algebra: x is even: x = 0x" in found.output
    assert "\u2500" not in found.output  # no lines around tables in a pipe
    found = CliRunner().invoke(app_of(), ["prove", "algebra", "--json"])
    assert [each["verdict"] for each in json.loads(found.output)["claims"]] == ["proven", "refuted"]


def test_a_room_that_is_not_there() -> None:
    found = CliRunner().invoke(app_of(), ["prove", "cellar"])
    assert found.exit_code == 2
    assert "cellar" in found.output
