"""Differential testing: cases and corpus files, comparing, traces, generators, shrinking, planted bugs."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.packets import packets

from ebpfjit import EbpfError, disassembler, kernel, load
from ebpfjit.analysis import verifier
from ebpfjit.assembler import assemble
from ebpfjit.classic import assemble as assemble_classic
from ebpfjit.classic import disassemble as disassemble_classic
from ebpfjit.classic.interpreter import ARITHMETIC
from ebpfjit.difftest import (
    BUILDS,
    Case,
    CorpusError,
    Input,
    UnknownEngine,
    classic,
    compare,
    metamorphic,
    read_case,
    read_corpus,
    strategies,
)
from ebpfjit.difftest import acceptable as acceptable_programs
from ebpfjit.difftest.arena import MEMORY
from ebpfjit.difftest.case import MOST_CODE, MOST_MEMORY, from_text, to_text
from ebpfjit.difftest.check import DIFFERS, Checker
from ebpfjit.difftest.children import run_forked
from ebpfjit.difftest.compare import compare_case
from ebpfjit.difftest.coverage import BRANCH, EDGE, ENDING, PAIRING, ROW, Coverage, reachable
from ebpfjit.difftest.engines import check_engines, compiled_case, default_engines, prepared
from ebpfjit.difftest.finding import examine, found, shrunk
from ebpfjit.difftest.items import put_together, take_apart, without
from ebpfjit.difftest.packets import PROGRAMS, map_of
from ebpfjit.difftest.planted import PLANTED, UnknownBug, plant
from ebpfjit.difftest.shrink import shrink
from ebpfjit.difftest.sources import SOURCES, TYPED, UnknownSource, case_of, check_sources
from ebpfjit.difftest.trace import parting, trace_interpreter, trace_jit
from ebpfjit.difftest.typed import compare_typed, contents, linked
from ebpfjit.isa.spec import Kind
from ebpfjit.isa.table import TABLE
from ebpfjit.program import Program
from tests.support.whole import WHOLE, part

EXIT = "\nexit"


# -- cases and corpus files ---------------------------------------------------------------------


@given(
    code=st.binary(min_size=1, max_size=40),
    memory=st.binary(max_size=20),
    limit=st.none() | st.integers(1, 10**9),
    read_only=st.booleans(),
    build=st.sampled_from(BUILDS),
    twin=st.binary(max_size=16),
    filter_=st.binary(max_size=16),
)
def test_a_corpus_file_holds_a_case(code, memory, limit, read_only, build, twin, filter_) -> None:
    promised = 0 if read_only else len(memory) // 2
    given_ = (Input(memory, limit, read_only),)
    case = Case(code, given_, build, promised, twin, "name", classic=filter_, relies=read_only)
    assert from_text(to_text(case, case.inputs[0], ["a comment", ""]), "name") == case


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("memory: 00", "it has no line `code"),
        ("code: 9500000000000000\nlimit: many", "line 2: 'many' is no limit"),
        ("code: 9x", "line 1: '9x' is no code"),
        ("code: 95\ncode: 95", "line 2: a second code"),
        ("# fine\n\ncoda: 95", "line 3: 'coda: 95' is none of: code, memory"),
        ("nothing", "line 1: 'nothing' is none of"),
        ("code: 95\nread-only: perhaps", "line 2: 'perhaps' is no read-only"),
        ("code: 95\nbuild: fast", "no build 'fast'; there are native, plain, hardened, baseline"),
        ("code: 95\nlimit: 0", "an instruction limit is positive"),
        ("code: 95\npromised: 3", "3 writable bytes are promised and not there"),
        (f"code: {'00' * (MOST_CODE + 8)}", "is too large: at most"),
        (f"code: 95\nmemory: {'00' * (MOST_MEMORY + 1)}", "bytes of memory, at most"),
    ],
)
def test_a_corpus_file_that_does_not_parse(text: str, said: str) -> None:
    with pytest.raises(CorpusError) as refused:
        from_text(text, "case.txt")
    assert str(refused.value).startswith("case.txt: ")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_corpus_folders(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("code: 95\n")
    (tmp_path / "a.txt").write_text("code: 9500\n")
    assert [case.code.hex() for case in read_corpus(tmp_path)] == ["9500", "95"]
    (tmp_path / "c.txt").write_bytes(b"\xff")
    with pytest.raises(CorpusError, match=r"c\.txt: not text"):
        read_corpus(tmp_path)
    with pytest.raises(CorpusError, match="no such folder"):
        read_corpus(tmp_path / "none")
    with pytest.raises(OSError, match="none"):
        read_case(tmp_path / "none.txt")


# -- comparing ----------------------------------------------------------------------------------

LOOP = """
mov r3, 3
mov r4, 0
ldxb r5, [r1]
add r4, r5
sub r3, 1
jne r3, 0, -3
mov r0, r4
exit
"""


def test_engines_agree_and_their_registers_are_told() -> None:
    report = compare(assemble(LOOP), [b"\x07", Input(b"\x01\x02", limit=100)])
    assert report.agree
    for comparison, value in zip(report.comparisons, (21, 3), strict=True):
        assert comparison.parting is None
        for outcome in comparison.outcomes.values():
            assert outcome is not None
            assert outcome.value == outcome.registers[0] == value
            assert outcome.registers[1] == MEMORY
            assert outcome.registers[3] == 0
    assert report.comparisons[0].outcomes["jit"].budget_left is None
    assert report.comparisons[1].outcomes["jit"].budget_left == 100 - 14
    assert "they agree" in str(report)


def test_a_fault_is_compared_with_its_attributes() -> None:
    (comparison,) = compare(assemble("ldxw r0, [r1+2]\nexit"), [b"1234"]).comparisons
    for outcome in comparison.outcomes.values():
        assert outcome is not None
        assert (outcome.kind, outcome.pc) == ("MemoryFault", 0)
        assert dict(outcome.attributes)["address"] == MEMORY + 2


# -- programs with a type ----------------------------------------------------------------------------

EVENTS = Path(__file__).parents[2] / "examples" / "packets" / "event_logger.o"
FRAME = bytes(range(64))
LOAD_A_BYTE = """
ldxw r2, [r1]
ldxw r3, [r1+4]
mov r4, r2
add r4, 14
jgt r4, r3, +2
ldxb r5, [r2+13]
mov r0, r5
exit
"""
AS_ROOT = () if kernel.unavailable_reason() else ("kernel",)


def test_programs_with_maps_are_compared_with_what_they_leave() -> None:
    """Each engine starts from the maps as they are, and they stay so; events are told."""
    obj = load(EVENTS)
    program = obj.programs["log_connections"]
    before = contents(program)
    frames = [packets()[name] for name in ("tcp", "udp", "arp")]
    report = compare(program, frames, ("interpreter", "jit", "gate", *AS_ROOT))
    assert report.agree, str(report)
    told = [comparison.outcomes["interpreter"] for comparison in report.comparisons]
    assert any(outcome.events for outcome in told)
    assert all(outcome.registers and outcome.budget_left is None for outcome in told)
    assert all(dict(outcome.context).get("data") == 0 for outcome in told)
    assert contents(program) == before
    assert "event for " in str(report)


@pytest.mark.parametrize("number", [5, 7, 14], ids=["time", "random", "process"])
def test_engines_see_one_world(number: int) -> None:
    """Each runs in a process of its own, a little later than the other."""
    twice = f"call {number}\nmov r6, r0\ncall {number}\nlsh r0, 7\nxor r0, r6\nexit"
    report = compare(Program.from_bytes(assemble(twice), type="xdp"), [FRAME], ("interpreter", "jit", "gate"))
    assert report.agree, str(report)


def test_where_programs_with_a_type_part() -> None:
    """Step by step, at the same addresses; the pc, and its machine code."""

    def planted() -> tuple[object, ...]:
        plant("ldxb-sign-extends")
        program = Program.from_bytes(assemble(LOAD_A_BYTE), type="xdp")
        report = compare(program, [FRAME, Input(FRAME[:13] + b"\x80" + FRAME[14:], limit=100)])
        return [one.agree for one in report.comparisons], report.comparisons[1], str(report)

    agree, comparison, text = run_forked(planted, 60).value
    assert agree == [True, False]
    assert comparison.differing == ("value",)
    assert comparison.outcomes["jit"].value == 0xFFFFFF80
    assert comparison.outcomes["interpreter"].budget_left == 100 - 8
    assert comparison.parting.pc == 5
    assert comparison.parting.registers == (5,)
    assert "after pc 5" in text
    assert "ldxb r5" in comparison.assembly
    assert "movsx" in comparison.assembly


def test_a_program_that_is_tail_called_is_traced_too() -> None:
    """It has a stack of its own, which is elsewhere in each run: shown as if it were at one place."""

    def planted() -> tuple[object, ...]:
        plant("or-xors")
        tail = assemble("mov r6, r10\nmov r1, 3\nmov r2, 1\nor r1, r2\nmov r0, r1" + EXIT)
        code = map_of(2, PROGRAMS) + assemble("mov r3, 1\ncall 12\nmov r0, 9" + EXIT)
        case = Case(code, (Input(FRAME),), build="baseline", type="xdp", tail=tail)
        (comparison,) = compare_case(case, default_engines()).comparisons
        return comparison.parting, comparison.assembly, comparison.differing

    found, assembly, differing = run_forked(planted, 60).value
    assert differing == ("value",)
    assert (found.program, found.pc, found.registers) == ("tail", 3, (1,))
    assert "or64 r1, r2" in assembly


@pytest.mark.parametrize("source", ["packets", "unguarded"])
def test_traces_of_programs_with_a_type_agree(source: str) -> None:
    for number in range(8):
        case = case_of(5, number, (source,))
        made = compare_typed(linked(case), case.inputs[0], ("interpreter", "jit"), case.build)
        assert made.parting is None, case.name
        one, other = made.outcomes.values()
        assert not one.differing(other), case.name


def test_a_crash_of_a_program_with_a_type_is_an_outcome() -> None:
    def planted() -> object:
        plant("sdiv-minus-one")
        code = "mov r1, 1\nlsh r1, 63\nmov r2, -1\nsdiv r1, r2\nmov r0, 0" + EXIT
        program = Program.from_bytes(assemble(code), type="xdp")
        return compare(program, [FRAME], build="baseline").comparisons[0].outcomes

    outcomes = run_forked(planted, 60).value
    assert outcomes["interpreter"].kind == "ok"
    assert outcomes["jit"].kind == "crash"
    assert "SIGFPE" in outcomes["jit"].message


def test_results_that_depend_on_addresses_are_no_finding() -> None:
    """Linux has other addresses, and the stack of a call is the thread's."""
    engines = ("interpreter", "jit", "gate", *AS_ROOT)
    for text in ("mov r0, r1", "mov r0, r10"):
        assert Checker(engines).check(Case(assemble(text + EXIT), (Input(b"1"),))) is None
    typed = Case(map_of(0, 0) + assemble("exit"), (Input(FRAME),), type="xdp")
    assert Checker(("interpreter", "jit")).check(typed) is None


def test_engines_that_are_not_there() -> None:
    program = assemble("mov r0, 1\nexit")
    with pytest.raises(
        UnknownEngine,
        match="no engine 'llvm'; there are interpreter, optimized, jit, gate, tiered, kernel",
    ):
        compare(program, engines=("interpreter", "llvm"))
    with pytest.raises(UnknownEngine, match="two engines at least"):
        compare(program, engines=("jit", "jit"))
    with pytest.raises(EbpfError, match="multiple of 8"):
        compare(b"123")
    with pytest.raises(TypeError, match="inputs are several memories"):
        compare(program, FRAME)


@pytest.mark.parametrize("source", [name for name in SOURCES if name not in TYPED])
def test_traces_agree_where_engines_do(source: str) -> None:
    """What machine code records is what the interpreter does."""
    partings = []
    for number in range(40 if WHOLE else 16):
        case = case_of(5, number, (source,))
        try:
            verified = prepared(case)
        except EbpfError:
            continue
        for given_input in case.inputs:
            one, steps = trace_interpreter(case, verified, given_input)
            other, machine_steps = trace_jit(case, verified, given_input)
            assert not one.differing(other), case.name
            found = parting(verified, steps, machine_steps)
            if found is not None:
                partings.append((case.name, found))
    assert partings == []


def test_tracing_leaves_machine_code_as_it_is() -> None:
    case = case_of(5, 1, ("valid",))
    lines = [
        item.text for piece in compiled_case(case, prepared(case)).listing.pieces for item in piece.items
    ]
    assert not any("trace" in line for line in lines)


# -- generators ---------------------------------------------------------------------------------


def test_a_number_names_a_program() -> None:
    names = tuple(SOURCES)
    assert [case_of(1, n, names) for n in range(50)] == [case_of(1, n, names) for n in range(50)]
    assert case_of(1, 1, names) != case_of(2, 1, names)


def test_all_sources_are_drawn_and_unknown_ones_are_named() -> None:
    drawn = {case_of(1, n, tuple(SOURCES)).name.split()[0] for n in range(900)}
    assert drawn == set(SOURCES)
    with pytest.raises(UnknownSource, match="no source of programs 'dreams'; there are valid, pointers"):
        check_sources(("valid", "dreams"))


def test_mutations_start_from_the_corpus() -> None:
    corpus = (Case(bytes.fromhex("b700000077665544") * 50, (Input(b"memory", 5),)),)
    made = [case_of(1, n, ("mutated",), corpus) for n in range(40)]
    assert (
        sum(b"\x77\x66\x55\x44" * 1 in case.code and case.inputs[0].memory == b"memory" for case in made) > 5
    )


def test_the_verifier_takes_what_is_meant_to_be_acceptable() -> None:
    for seed in range(200):
        code, _ = acceptable_programs.program(random.Random(seed))
        verifier.check(Program.from_bytes(code))


def test_packet_programs_reach_packets_maps_and_tail_calls() -> None:
    """They are accepted, and leave something behind: of tail calls, both that go and that come back."""
    coverage = Coverage()
    checker = Checker(("interpreter", "jit"), coverage)
    changed = tails = events = 0
    for number in range(30):
        case = case_of(1, number, ("packets",))
        verifier.check(prepared_typed(case))
        assert checker.check(case) is None
        (outcome,) = compare_case(case, ("interpreter",)).comparisons[0].outcomes.values()
        assert outcome is not None
        assert outcome.kind == "ok"
        maps = dict(outcome.maps)
        changed += bool(maps["hash"])
        events += len(outcome.events)
        left = [
            compare_case(replace(case, tail=assemble(f"mov r0, {n}" + EXIT)), ("interpreter",)).comparisons[0]
            for n in (1, 2)
        ]
        tails += left[0].outcomes != left[1].outcomes
        assert len(maps["array"]) == 4
    assert changed > 5
    assert events > 2
    assert tails > 1
    assert coverage.counts[ENDING, "ok"] == 30


def prepared_typed(case: Case) -> Program:
    return Program.from_bytes(case.code, type=case.type)


def test_a_case_with_a_type_is_compared_with_its_maps() -> None:
    case = case_of(1, 3, ("packets",))
    assert from_text(to_text(case, case.inputs[0]), case.name) == replace(case, build=case.build)
    with pytest.raises(CorpusError, match="no programs of type 'struct_ops' are compared"):
        replace(case, type="struct_ops").check()


@pytest.mark.parametrize(
    "rewriting", [*metamorphic.REWRITINGS, None], ids=lambda each: each and each.__name__
)
def test_rewritten_programs_do_the_same(rewriting) -> None:
    """Each way to rewrite by itself, and all of them."""
    changed = 0
    for seed in range(60):
        rng = random.Random(seed)
        code, memory = acceptable_programs.program(rng)
        twin = metamorphic.rewritten(rng, code)
        if rewriting is not None:
            twin = put_together(rewriting(rng, take_apart(code)))
            assert twin is not None
        changed += twin != code
        one, other = (
            compare_case(Case(each, (Input(memory, 10**6),)), ("interpreter",))
            .comparisons[0]
            .outcomes["interpreter"]
            for each in (code, twin)
        )
        assert (one.kind, one.value, one.memory) == (other.kind, other.value, other.memory), seed
    assert changed > 40


@given(strategies.programs())
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
def test_strategies_write_programs_that_decode(code: bytes) -> None:
    program = Program.from_bytes(code)
    assert all(insn.row is not None for insn in program.instructions)
    assert not any(
        insn.row.mismatches(insn.dst_reg, insn.src_reg, insn.offset, insn.imm, insn.next_imm)
        for insn in program.instructions
    )
    disassembler.disassemble(code)


@pytest.mark.parametrize("source", SOURCES)
def test_engines_agree_on_cases_that_hypothesis_draws(source: str) -> None:
    """Every generator is a strategy too."""

    @given(strategies.cases(source))
    @settings(
        max_examples=15 if WHOLE else 6, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    def agree(case: Case) -> None:
        assert Checker(("interpreter", "jit")).check(case) is None

    agree()


def test_a_strategy_may_be_of_some_rows_only() -> None:
    divisions = [row for row in TABLE if row.meaning in ("DIV", "SDIV")]
    seen = set()

    @given(strategies.instructions(strategies.rows(divisions)))
    @settings(max_examples=500)
    def look(code: bytes) -> None:
        seen.add(Program.from_bytes(code).instructions[0].row.name)

    look()
    assert seen == {row.name for row in divisions}
    with pytest.raises(UnknownSource):
        strategies.cases("dreams")


# -- items and shrinking ------------------------------------------------------------------------


def test_taking_apart_and_putting_together() -> None:
    for seed in range(100):
        code = case_of(seed, 0, ("valid",)).code
        assert put_together(take_apart(code)) == code


def test_jumps_are_aimed_anew() -> None:
    code = assemble("jeq r1, 0, +2\nmov r0, 1\nmov r0, 2\nmov r0, 3" + EXIT)
    items = take_apart(code)
    assert put_together(without(items, range(1, 2))) == assemble("jeq r1, 0, +1\nmov r0, 2\nmov r0, 3" + EXIT)
    assert put_together(without(items, range(3, 4))) == assemble("jeq r1, 0, +2\nmov r0, 1\nmov r0, 2" + EXIT)
    only = without(items, range(3, 5))  # nothing is left to jump to: the item goes nowhere, as it stands
    assert put_together(only) == assemble("jeq r1, 0, +2\nmov r0, 1\nmov r0, 2")


def test_shrinking_keeps_what_matters() -> None:
    big = case_of(3, 4, ("valid",)).code
    code = big + assemble("r6 = 0x1234567890abcdef ll\nr6 *= r5\nr0 = r6" + EXIT)
    case = Case(code, (Input(b"\xff" * 64, 500, read_only=True),), build="hardened")

    def multiplies(candidate: Case) -> bool:
        rows = [insn.row.operation for insn in Program.from_bytes(candidate.code).instructions if insn.row]
        return "MUL64" in rows and len(candidate.inputs[0].memory) > 2

    small = shrink(case, multiplies)
    assert multiplies(small)
    assert len(small.code) <= 16  # it, and an exit
    assert small.inputs == (Input(bytes(3), 1),)
    assert small.build == "native"
    assert shrink(case, multiplies) == small


@pytest.mark.parametrize("engine", ["classic", "kernel"])
def test_what_a_filter_means_is_judged_from_outside(monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    """By the interpreter of classic BPF, and by Linux: the filter is shrunk, and what it is translated to."""
    if engine == "kernel" and kernel.unavailable_reason() is not None:
        pytest.skip("bpf(2) is not allowed here")
    text = "ldb [3]\njeq #9, 2, 0\nldx #7\nadd x\nret a"
    case = classic.case_of(assemble_classic(text), (Input(bytes(range(20)), 1000),))
    engines = ("interpreter", "jit", "gate", "kernel")
    assert Checker(engines).check(case) is None
    assert compare_case(case, engines).comparisons[0].outcomes[engine].value == 10  # type: ignore[union-attr]
    if engine == "classic":
        monkeypatch.setitem(ARITHMETIC, "add", lambda a, b: a + b + 1)
    else:
        monkeypatch.setattr(classic.classic, "run_in_linux", lambda code, packet: 6 + len(code))
        monkeypatch.setattr(classic, "judges", lambda case: {})
    problem = examine(case, ("interpreter", "jit", "kernel"))
    assert problem is not None
    assert problem.nature == DIFFERS
    small = shrunk(found(0, case, problem), ("interpreter", "jit", "kernel"))
    assert disassemble_classic(small.case.classic).split("\n") == SMALLEST[engine]
    assert f"{engine}: " in small.details
    read = from_text(small.corpus_text(), "")
    assert (read.code, read.classic) == (small.case.code, small.case.classic)
    assert classic.case_of(read.classic, ()).code == read.code


def test_filters_ask_linux_without_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "unavailable_reason", lambda: "no rights")
    with pytest.raises(UnknownEngine, match="the kernel is no engine here: no rights"):
        check_engines(("jit", "kernel"))
    check_engines(("jit", "kernel"), of_filters=True)
    case = classic.case_of(assemble_classic("ldb [1]\nret a"), (Input(b"12", 1000),))
    outcome = compare_case(case, ("jit", "kernel")).comparisons[0].outcomes["kernel"]
    assert outcome is not None
    assert outcome.value == ord("2")


SMALLEST = {"classic": ["        add x", "        ret a", ""], "kernel": ["        ret a", ""]}


def test_what_does_not_decode_is_shrunk_by_its_input() -> None:
    case = Case(b"12345", (Input(b"abc", 7),))
    assert shrink(case, lambda candidate: True).inputs == (Input(b"", 1),)


# -- coverage -----------------------------------------------------------------------------------


def test_coverage_counts_what_was_executed() -> None:
    coverage = Coverage()
    checker = Checker(("interpreter", "jit"), coverage)
    code = assemble(
        "mov r3, r2\njeq r3, 7, +1\nadd32 r3, r2\nstxdw [r1+127], r3\nmov r0, 0\nmov r9, r8\nexit"
        "\nneg r1\nexit"
    )
    assert checker.check(Case(code, (Input(bytes(135)),))) is None
    assert coverage.counts[ROW, "ADD32_X"] == 1
    assert coverage.counts[PAIRING, "MOV64_X r3 r2"] == 1
    assert coverage.counts[BRANCH, "JEQ_K not taken"] == 1
    assert (BRANCH, "JEQ_K taken") not in coverage.counts
    assert (ROW, "NEG64") not in coverage.counts
    assert coverage.counts[EDGE, "displacement 127"] == 1
    assert checker.instructions == 7
    assert "NEG64" in coverage.missing(ROW)
    twice = Coverage()
    twice.add(coverage)
    twice.add(coverage)
    assert twice.counts[ROW, "ADD32_X"] == 2
    assert {name: there for name, _, there in coverage.summary()}[ROW] == len(reachable()[ROW])


def test_every_row_with_two_registers_has_pairings() -> None:
    rows = {item.split()[0] for item in reachable()[PAIRING]}
    assert {row.name for row in TABLE if row.kind in (Kind.ATOMIC, Kind.LOAD)} <= rows
    assert "ADD64_X r9 r10" in reachable()[PAIRING]
    assert "ADD64_X r10 r9" not in reachable()[PAIRING]
    assert "STXB r10 r10" in reachable()[PAIRING]


# -- planted bugs: what finds them is in test_difftest_fuzz.py ----------------------------------------


def test_planted_bugs_have_names() -> None:
    assert len(PLANTED) >= 40
    assert len({bug.name for bug in PLANTED}) == len(PLANTED)
    with pytest.raises(UnknownBug, match="no planted bug 'none'; there are add-subtracts"):
        plant("none")


@pytest.mark.parametrize("bug", part(PLANTED, 3), ids=lambda bug: bug.name)
def test_every_bug_can_be_planted(bug) -> None:
    """It is still about code that is there: what it changes does not fail in Python."""

    def try_it() -> str:
        plant(bug.name)
        problems = [Checker(("interpreter",)).check(case_of(1, n, ("acceptable",))) for n in range(2)]
        for number in range(4):
            case = case_of(1, number, ("valid", "pointers"))
            compiled_case(case, prepared(case))
        return f"planted; what else is wrong: {[problem for problem in problems if problem is not None]}"

    assert run_forked(try_it, 60).value == "planted; what else is wrong: []"


def test_problems_of_one_case_are_told() -> None:
    """An engine that differs: here the interpreter, on a program that is not what it was compiled from."""
    case = Case(assemble("mov r0, 5" + EXIT), (Input(),), twin=assemble("mov r0, 6" + EXIT))
    problem = Checker(("interpreter", "jit")).check(case)
    assert problem is not None
    assert problem.nature == "differs from its twin"
    assert problem.text == "it: r0 = 0x5; twin on interpreter: r0 = 0x6"
    assert Checker(("interpreter", "jit")).check(replace(case, twin=b"")) is None
