"""Sources aimed at one kind of hole each get where they are aimed; guard memory tells who leaves his own."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from ebpfjit.assembler import assemble
from ebpfjit.difftest import guards
from ebpfjit.difftest.arena import MEMORY, arena
from ebpfjit.difftest.case import GUARDS, Case, CorpusError, Input, from_text, to_text
from ebpfjit.difftest.check import OUTSIDE, RAISED, Checker
from ebpfjit.difftest.children import run_forked
from ebpfjit.difftest.coverage import Coverage
from ebpfjit.difftest.engines import prepared as prepared_case
from ebpfjit.difftest.fuzz import Options, fuzz
from ebpfjit.difftest.holes import HOLES
from ebpfjit.difftest.sources import HOSTILE, TYPED, case_of
from ebpfjit.difftest.typed import MAPS, Seen, depends_on_addresses, depends_on_stack, runner
from ebpfjit.errors import EbpfError, LoadError
from ebpfjit.interpreter import interpret
from ebpfjit.isa.spec import Kind
from ebpfjit.program import Program
from ebpfjit.runtime.contexts import packet_context, prepared, program_type
from ebpfjit.runtime.helpers import table
from ebpfjit.runtime.helpers.names import NUMBERS
from ebpfjit.runtime.maps.creation import create
from ebpfjit.runtime.memory import STACK_SIZE
from tests.support.whole import WHOLE

SECONDS = 60.0


def cases(source: str, count: int = 80) -> list[Case]:
    return [case_of(3, number, (source,)) for number in range(count)]


def steps_of(case: Case) -> list[list[int]]:
    """The pcs that the interpreter executes: of each program that runs, on each input."""
    if case.type:
        seen = Seen()
        for given in case.inputs:
            runner(case, "interpreter", seen)(given)
        return [pcs for _, pcs in seen.steps]
    verified = prepared_case(case)
    found = []
    for given in case.inputs:
        pcs: list[int] = []
        with suppress(EbpfError):
            interpret(verified, arena().start(given), lambda pc, registers, pcs=pcs: pcs.append(pc))
        found.append(pcs)
    return found


# -- sources ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", HOSTILE)
def test_a_number_is_the_same_program_each_time_and_a_case_that_can_be_run(source: str) -> None:
    made = cases(source, 40)
    assert made == cases(source, 40)
    assert len({(case.code, case.tail) for case in made}) == len(made)
    for case in made:
        case.check()
        assert bool(case.type) == (source in TYPED)
        rows = [insn.row for insn in Program.from_bytes(case.code).instructions]
        assert None not in rows
        assert from_text(to_text(case, case.inputs[0]), case.name).code == case.code


# Of all programs, so many execute so many instructions.
FAR = {
    "wide": (0.6, 10), "paths": (0.9, 10), "rounds": (0.6, 12), "frames": (0.55, 20), "callbacks": (0.65, 10),
    "tails": (0.5, 10),
    "overlaps": (0.9, 40), "growth": (0.9, 25), "ends": (0.6, 15), "helpers": (0.9, 18),
    "idioms": (0.7, 30), "calls": (0.7, 40), "spills": (0.7, 15), "arrays": (0.75, 16),
}  # fmt: skip


@pytest.mark.parametrize("source", HOSTILE)
def test_most_programs_get_somewhere(source: str) -> None:
    share, far = FAR[source]
    lengths = []
    for case in cases(source):
        try:
            lengths.append(max(map(len, steps_of(case))))
        except LoadError:
            lengths.append(0)  # refused
    assert sum(length >= far for length in lengths) >= share * len(lengths), sorted(lengths)


def executed(source: str, count: int = 120) -> list[tuple[Case, set[int], int]]:
    """Of each case the helpers that its first program called, and how many programs ran."""
    found = []
    for case in cases(source, count):
        slots = Program.from_bytes(case.code).slots
        try:
            steps = steps_of(case)
        except LoadError:
            continue
        called = {
            insn.imm
            for pc in steps[0]
            if (insn := slots[pc]) is not None and insn.row is not None and insn.row.kind is Kind.CALL_HELPER
        }
        found.append((case, called, len(steps)))
    return found


def test_functions_are_called_back_and_main_is() -> None:
    """A start that is executed more often than once was called, by whomever."""
    again = helpers = 0
    for case in cases("callbacks"):
        pcs = steps_of(case)[0]
        again += pcs.count(0) > 1
        functions = set(Program.from_bytes(case.code).functions)
        helpers += bool(functions - {0}) and any(pc in functions - {0} for pc in pcs)
    assert again >= 15
    assert helpers >= 15


def test_programs_go_on_in_others_of_their_type_and_of_another() -> None:
    runs = executed("tails")
    assert sum(programs > 1 for case, _, programs in runs if case.tail_type == case.type) >= 20
    assert any(case.tail_type != case.type for case in cases("tails"))


def test_every_helper_is_called() -> None:
    """But for those that tell the time, and tail calls: these have a source of their own."""
    called = {
        insn.imm
        for case in cases("helpers", 1500)
        for insn in Program.from_bytes(case.code).instructions
        if insn.row is not None and insn.row.kind is Kind.CALL_HELPER
    }
    names = {table.helpers()[number].name for number in table.helpers().keys() - called}
    assert {name for name in names if "ktime" not in name} <= {
        "bpf_tail_call", "bpf_get_prandom_u32", "bpf_jiffies64", "bpf_timer_start",
    }  # fmt: skip


def test_maps_are_changed_through_what_lies_in_them() -> None:
    names = ("update", "delete", "push", "pop")
    operations = {NUMBERS[f"bpf_map_{name}_elem"] for name in names}
    seen = [called & operations for _, called, _ in executed("overlaps")]
    assert set().union(*seen) == operations
    assert sum(len(called) > 1 for called in seen) >= 20


def test_packets_grow_and_shrink() -> None:
    sizes = []
    for case in cases("growth", 60):
        outcome = runner(case, "interpreter")(case.inputs[0])
        assert outcome is not None
        if outcome.memory is not None:
            sizes.append(len(outcome.memory) - len(case.inputs[0].memory))
    assert sum(size > 0 for size in sizes) >= 10
    assert sum(size < 0 for size in sizes) >= 10


# -- guards -------------------------------------------------------------------------------------------


def touch(address: int, size: int = 1) -> None:
    """Write where nobody asks whether one may."""
    ctypes.memset(address, 0x11, size)


@pytest.mark.parametrize("guard", GUARDS)
def test_what_lies_around_an_inputs_memory_is_seen_or_cannot_be_touched(guard: str) -> None:
    def after(where: Callable[[int, int], int]) -> str:
        execution = arena().start(Input(bytes(24), guard=guard))
        start, size = execution.arguments
        assert arena().outside() == ""
        touch(where(start, size))
        return arena().outside()

    before, behind = (
        run_forked(lambda where=where: after(where), SECONDS)
        for where in (lambda start, size: start - 1, lambda start, size: start + size)
    )
    for name, ended in (("before", before), ("after", behind)):
        if guard == name:
            assert ended.signal == "SIGSEGV"
        else:
            assert ended.value == "what lies around the memory was changed"
    assert run_forked(lambda: after(lambda start, size: start + size - 1), SECONDS).value == ""


def test_pointers_in_an_input_point_to_where_it_is() -> None:
    words = struct.pack("<QQ", MEMORY, 7)
    for guard in GUARDS:
        execution = arena().start(Input(words, guard=guard))
        assert struct.unpack("<QQ", execution.regions[0].view) == (execution.arguments[0], 7)
    assert len({arena().start(Input(words, guard=guard)).arguments[0] for guard in GUARDS}) == len(GUARDS)


def test_the_stack_and_what_is_granted_lie_apart() -> None:
    stack = arena().start(Input()).stack
    for address in (stack.top - STACK_SIZE - 1, stack.top):
        assert run_forked(lambda address=address: touch(address), SECONDS).signal == "SIGSEGV"


@pytest.mark.parametrize("index", range(len(MAPS["hostile"])))
def test_map_values_end_where_nobody_may_go_on(index: int) -> None:
    def work(behind: bool) -> tuple[str, str]:
        guards.install()
        made = create(MAPS["hostile"][index])
        before = guards.outside(None, [made])
        storage = getattr(made, "storage", None) or made._storage
        region = made.regions[0] if made.regions else None
        start = storage.address + storage.offsets[-1] if region is None else region.start
        end = storage.address + len(storage.memory) - guards.PAGE
        touch(end if behind else (start - 1 if len(storage.offsets) > 1 else end - 1))
        return before, guards.outside(None, [made])

    assert run_forked(lambda: work(True), SECONDS).signal == "SIGSEGV"
    left = run_forked(lambda: work(False), SECONDS).value
    assert left is not None
    assert left[0] == ""
    name = MAPS["hostile"][index].name
    if name not in ("ring", "queue", "programs", "perf"):  # the first fills its pages; others have no values
        assert left[1] == f"what lies before the values of map {name!r} was changed"


def test_contexts_lie_between_pages_that_nobody_may_touch() -> None:
    def work(behind: bool) -> None:
        guards.install()
        for _ in range(2):  # every other one lies at the end of its pages
            memory, page = packet_context(program_type("xdp")).memory, guards.PAGE
            start, end = memory.start & -page, -(-(memory.start + memory.size) // page) * page
            touch(end if behind else start - 1)

    assert run_forked(lambda: work(True), SECONDS).signal == "SIGSEGV"
    assert run_forked(lambda: work(False), SECONDS).signal == "SIGSEGV"


def test_a_packet_that_left_its_memory_is_told() -> None:
    with prepared(program_type("tc"), memoryview(bytes(64)), None) as context:
        assert guards.outside(context, ()) == ""
        context._data = context._data_meta = context.first - 1
        assert guards.outside(context, ()).startswith("the packet left its memory: first, ")


def test_a_case_with_another_guard_is_none() -> None:
    with pytest.raises(CorpusError, match="no guard 'above'; there are before, after"):
        from_text("code: 9500000000000000\nguard: above\n", "x")
    with pytest.raises(CorpusError, match="no maps 'some'; there are hostile"):
        from_text("code: 9500000000000000\ntype: xdp\nmaps: some\n", "x")


# -- what the fuzzer says of them ---------------------------------------------------------------------


def test_memory_that_is_not_there_is_a_finding() -> None:
    report = fuzz(Options(sources=("helpers",), programs=400, planted="zeros-first", stop_at=1, shrink=0))
    # The batch that holds the first may hold more: whether memory is there is the machine's to say.
    assert any(found.nature == RAISED and "MemoryError" in found.text for found in report.findings)


def test_a_run_that_changes_what_is_not_its_own_is_a_finding() -> None:
    def work() -> tuple[str, str] | None:
        place = arena()
        sum_of = place.helpers[5]

        def and_more(*arguments: int) -> int:
            touch(MEMORY - 1)
            return sum_of(*arguments)

        place.helpers[5] = and_more  # type: ignore[index] # it is a dict
        code = bytes.fromhex("8500000005000000 b700000000000000 9500000000000000")
        problem = Checker(("interpreter", "jit")).check(Case(code, (Input(bytes(8)),)))
        return None if problem is None else (problem.nature, problem.text)

    nature, text = run_forked(work, SECONDS).value
    assert nature == OUTSIDE
    assert text.startswith("interpreter: what lies around the memory was changed")


SLOW_TO_FIND = {"not-called-back", "update-while-read", "fault-stack-lost", "helpers-are-free"}
"""Others of their sources are found sooner; `make nightly` plants all (EBPFJIT_WHOLE=1)."""
PLANTED = [bug for bug in HOLES if WHOLE or bug.name not in SLOW_TO_FIND]


def test_each_source_is_asked_for_a_hole() -> None:
    assert {bug.sources for bug in PLANTED} == {bug.sources for bug in HOLES}


@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.name)
def test_holes_are_found_again(bug) -> None:
    options = Options(
        bug.engines,
        sources=bug.sources,
        programs=240,
        planted=bug.name,
        stop_at=1,
        shrink=0,
        hang_seconds=20,
    )
    assert fuzz(options).findings


def test_nothing_is_found_otherwise() -> None:
    programs = (20 if WHOLE else 8) * len(HOSTILE)
    report = fuzz(Options(sources=tuple(HOSTILE), programs=programs, seed=5, shrink=0))
    assert [(finding.number, finding.text) for finding in report.findings] == []


def test_hostile_cases_count_what_they_reach() -> None:
    coverage = Coverage()
    checker = Checker(("interpreter", "jit"), coverage)
    for case in cases("tails", 8):
        checker.check(case)
    assert sum(coverage.of("ending").values()) == 8


def test_what_is_called_is_promised_nothing() -> None:
    """A call may bring any memory: code that counts on some of it is for runs that Python prepares."""
    case = Case(bytes.fromhex("7910000000000000 9500000000000000"), (Input(bytes(8)),), promised=8)
    assert Checker(("interpreter", "jit", "gate", "tiered")).check(case) is None


def test_a_run_that_depends_on_the_highest_byte_of_its_packets_address_is_seen_to() -> None:
    """The next mapping shares that byte with the last one, most of the time."""
    text = "ldxw r0, [r1+4]\nrsh r0, 24\nlddw r1, map[idx:0]\nexit"
    case = replace(Case(assemble(text), (Input(bytes(64)),)), type="xdp")
    assert depends_on_addresses(case, case.inputs[0])
    case = replace(case, code=assemble(text.replace("+4", "+12")))
    assert not depends_on_addresses(case, case.inputs[0])


@pytest.mark.parametrize("type_", ["syscall", "kprobe", "untyped"])
def test_a_run_that_depends_on_where_its_context_lies_is_seen_to(type_: str) -> None:
    """Contexts that are bytes lie where there is room, and that is the same place again and again."""
    text = "mov r0, r1\nlddw r1, map[idx:0]\nexit"
    case = replace(Case(assemble(text), (Input(bytes(60_000)),)), type=type_)
    assert depends_on_addresses(case, case.inputs[0])
    case = replace(case, code=assemble(text.replace("r1\n", "7\n", 1)))
    assert not depends_on_addresses(case, case.inputs[0])


def test_a_typed_run_that_depends_on_its_stacks_address_is_seen_to() -> None:
    """Where maps and packets lie at the same addresses, the stack of a call is the thread's all the same."""
    text = "mov r0, r10\nlddw r1, map[idx:0]\nexit"
    case = replace(Case(assemble(text), (Input(bytes(64)),)), type="xdp")
    assert depends_on_stack(case, case.inputs[0])
    assert Checker(("interpreter", "jit", "gate", "tiered")).check(case) is None
    assert not depends_on_stack(replace(case, code=assemble(text.replace("r10", "7"))), case.inputs[0])
