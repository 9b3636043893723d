"""Audit builds, and the interpreter as a judge of analysis: wrong facts are planted, and both must say so.

What is planted goes into the facts as they are about to be used, one kind of proof after the other. An audit
build looks before it touches anything, so that nothing here can harm the process.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

import ebpfjit
from ebpfjit import AuditFailure, EbpfVmNoData, EbpfVmRaw, LoadError, MemoryFault, assembler
from ebpfjit.analysis.accesses import Facts, Promises
from ebpfjit.analysis.facts import Analysis
from ebpfjit.analysis.values import Origin, constant
from ebpfjit.difftest import typed
from ebpfjit.difftest.case import BUILDS, Case, Input
from ebpfjit.difftest.check import AUDIT, PROOF, Checker
from ebpfjit.difftest.engines import ENGINES, compiled_case, prepared
from ebpfjit.difftest.finding import examine, found, shrunk
from ebpfjit.difftest.outcome import AUDIT_FAILURE, WRONG_PROOF
from ebpfjit.difftest.sources import SOURCES, case_of
from ebpfjit.jit import compiler
from ebpfjit.jit.compiler import Recipe
from ebpfjit.memo import forget
from ebpfjit.program import Program
from ebpfjit.runtime.maps.create import create
from ebpfjit.runtime.maps.definition import MapDefinition, MapType

U64 = (1 << 64) - 1
Change = Callable[[Facts], Facts]


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    yield
    forget()


def plant(monkeypatch: pytest.MonkeyPatch, change: Change) -> None:
    """Have machine code, and the judge, be told of changed facts."""
    facts, run = Recipe.facts, Analysis.run
    monkeypatch.setattr(
        Recipe, "facts", lambda self: change(facts(self)) if self.options.optimize else facts(self)
    )
    monkeypatch.setattr(Analysis, "run", lambda self: change(run(self)))
    monkeypatch.setattr(compiler, "analyse", lambda v, p, **named: facts_of(v, p, run, **named))


def facts_of(verified: Any, promises: Any, run: Callable[[Analysis], Facts], **named: Any) -> Facts:
    """Return the facts as they are; `Recipe.facts` is what changes them."""
    return run(Analysis(verified, promises, **named))


def at(pc: int, **fields: Any) -> Change:
    """Change what was found of the access at a pc."""

    def change(facts: Facts) -> Facts:
        access = facts.accesses.get(pc)
        if access is None:
            return facts  # of a program that is there to see whether an engine is
        return replace(facts, accesses={**facts.accesses, pc: replace(access, **fields)})

    return change


def raw(text: str, **options: Any) -> EbpfVmRaw:
    """A machine with an audit build."""
    vm = EbpfVmRaw(assembler.assemble(text), **{"optimize": True, "audit": True, **options})
    vm.jit_compile()
    return vm


def failure(vm: Any, *memory: Any) -> AuditFailure:
    """Run machine code, and return the failure that it ends with."""
    with pytest.raises(AuditFailure) as caught:
        vm.execute_program_jit(*memory)
    return caught.value


# -- what is planted: a program, the pc, its facts; whether the judge can tell ----------------------

BEHIND = "ldxdw r3, [r1+16]\nmov r0, 0\nexit"
STORE = "stdw [r1+16], 1\nmov r0, 0\nexit"
LATER = "ldxb r3, [r1+0]\nldxdw r4, [r1+16]\nmov r0, 0\nexit"

PROOFS = {
    "frame": (BEHIND, 0, {"proof": "frame"}),
    "covered": (LATER, 1, {"proof": "covered"}),
    "argument": (BEHIND, 0, {"proof": "argument"}),
    "length": (BEHIND, 0, {"proof": "length"}),
    "map value": (BEHIND, 0, {"proof": "map value"}),
    "frame, a store": (STORE, 0, {"proof": "frame"}),
}
"""Accesses of 8 bytes, 16 bytes behind the start of 8 bytes of memory, with a proof that is wrong."""

WEAKENED = {
    "asked": (STORE, 0, {"proof": "asked", "assumes": True}),
    "checked: may it be written": (STORE, 0, {"within": True}),
    "checked, argument first": (BEHIND, 0, {"distance": (0, 0)}),
}
"""The same with checks that are weaker, elsewhere, or of other bytes; by the reason."""


@pytest.mark.parametrize("proof", PROOFS)
def test_a_wrong_proof_is_told_by_both(monkeypatch: pytest.MonkeyPatch, proof: str) -> None:
    text, pc, fields = PROOFS[proof]
    with pytest.raises(MemoryFault) as fault:
        EbpfVmRaw(assembler.assemble(text)).execute_program(memory := bytearray(8))
    plant(monkeypatch, at(pc, **fields))
    told = failure(raw(text), memory)
    assert (told.pc, told.size, told.access) == (pc, 8, fault.value.access)
    assert told.address == fault.value.address
    assert told.reason == proof.partition(",")[0]
    assert str(told).endswith(f"not the program's, although analysis found: {told.reason}")
    case = Case(assembler.assemble(text), (Input(bytes(8), 100),), "audit")
    assert Checker(("interpreter",)).check(case).nature == PROOF
    assert Checker(("jit",)).check(case).nature == AUDIT
    assert Checker(("proofs",)).check(case).nature == PROOF


@pytest.mark.parametrize("reason", WEAKENED)
def test_a_check_that_is_too_weak_is_told(monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    text, pc, fields = WEAKENED[reason]
    plant(monkeypatch, at(pc, **fields))
    told = failure(raw(text), bytearray(8))
    assert (told.pc, told.size, told.reason) == (pc, 8, reason)


def test_a_check_that_stands_for_too_little_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, at(0, span=(0, 8, False)))  # analysis has put both under one
    told = failure(raw(LATER), bytearray(8))
    assert (told.pc, told.reason) == (1, "one at pc 0 covers it")


def test_an_access_that_analysis_does_not_know_of_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, lambda facts: replace(facts, accesses={}))
    assert failure(raw(BEHIND), bytearray(8)).reason == "analysis did not come here"


LOOP = """
  mov r3, 0
  mov r0, 0
L:
  mov r4, r1
  add r4, r3
  ldxb r5, [r4+0]
  add r0, r5
  add r3, 1
  jlt r3, 40, L
  exit
"""


def test_a_check_before_a_loop_that_asks_for_too_little_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def less(facts: Facts) -> Facts:
        assert facts.predicates  # or the program is not what it was
        return replace(
            facts,
            predicates={
                header: replace(predicate, sweeps=tuple(replace(s, factor=0) for s in predicate.sweeps))
                for header, predicate in facts.predicates.items()
            },
        )

    assert raw(LOOP).execute_program_jit(bytearray(b"\1" * 40)) == 40
    with pytest.raises(MemoryFault):  # in the copy that checks one by one: it is the program's fault
        raw(LOOP).execute_program_jit(bytearray(39))
    plant(monkeypatch, less)
    told = failure(raw(LOOP), bytearray(39))
    assert (told.pc, told.reason) == (4, "made before the loop at pc 2")
    assert raw(LOOP).execute_program_jit(bytearray(b"\1" * 40)) == 40


GATHERED = "ldxb r2, [r1+0]\nldxb r0, [r1+{far}]\nlsh r0, 8\nor r0, r2\nexit"


def test_what_is_gathered_is_audited_load_by_load(monkeypatch: pytest.MonkeyPatch) -> None:
    text = GATHERED.format(far=1)
    assert "movzx eax, word ptr" in raw(text).listing()
    assert raw(text).execute_program_jit(bytearray(b"\1\2")) == 0x201
    plant(monkeypatch, lambda facts: at(1, proof="covered")(at(0, proof="covered")(facts)))
    assert failure(raw(text), bytearray(1)).pc == 1


FUSED = {
    "an operand": ("ldxdw r3, [r1+0]\nadd r0, r3\nexit", 0),
    "a comparison": ("ldxdw r3, [r1+0]\njgt r3, 7, +1\nmov r0, 1\nexit", 0),
    "an update": ("ldxdw r3, [r1+0]\nadd r3, 1\nstxdw [r1+0], r3\nexit", 0),
    "a sum": ("mov r3, r1\nadd r3, r2\nldxdw r3, [r3+0]\nexit", 2),
}


@pytest.mark.parametrize("what", FUSED)
def test_fused_accesses_are_audited(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    text, pc = FUSED[what]
    plant(monkeypatch, at(pc, proof="covered"))
    assert failure(raw(text), bytearray(7)).pc == pc


def test_baseline_code_is_audited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EBPFJIT_TIERS", raising=False)
    old = compiler.baseline
    monkeypatch.setattr(compiler, "baseline", lambda verified: at(0, proof="frame")(old(verified)))
    assert failure(raw(BEHIND, optimize=False), bytearray(8)).reason == "frame"
    assert failure(raw(BEHIND, optimize=None), bytearray(8)).reason == "frame"


def test_both_tiers_are_audited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EBPFJIT_TIERS", raising=False)
    plant(monkeypatch, at(0, proof="frame"))
    with pytest.raises(MemoryFault):  # baseline code checks it
        raw(BEHIND, optimize=None).execute_program_jit(bytearray(8))
    vm = raw(BEHIND, optimize=None)
    vm.listing()  # which makes the code final
    failure(vm, bytearray(8))


def looping(text: str) -> bytes:
    """A program that comes to the end of a slice first."""
    return assembler.assemble("mov r3, 9\nL:\nsub r3, 1\njne r3, 0, L\n" + text)


def test_a_run_that_changes_over_is_audited(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, at(3, proof="frame"))
    case = Case(looping(BEHIND), (Input(bytes(8), 100),), "audit")
    outcome = ENGINES["tiered"](case, prepared(case))(case.inputs[0])
    assert outcome is not None
    assert outcome.kind == AUDIT_FAILURE


# -- calls of map helpers, local calls, frames ------------------------------------------------------


def reference(register: int, number: int) -> bytes:
    """A wide load of a map by its index."""
    return struct.pack("<BBhiBBhi", 0x18, 5 << 4 | register, 0, number, 0, 0, 0, 0)


def lookup(key: str) -> tuple[Program, bytes]:
    """A program that looks up a key, whose place is in r2, in the first of two maps."""
    maps = tuple(create(MapDefinition(name, MapType.ARRAY, 4, 8, 4)) for name in ("one", "other"))
    code = (
        assembler.assemble("stw [r10-4], 1")
        + reference(1, 0)
        + assembler.assemble(f"{key}\ncall 1\njne r0, 0, +1\nexit\nldxdw r0, [r0+0]\nexit")
    )
    maps[0][1] = struct.pack("<Q", 7)
    program = Program(code, name="t", type="xdp", references={1: maps[0].address}, maps=maps)
    return program, bytes(64)


IN_FRAME = "mov r2, r10\nadd r2, -4"
ELSEWHERE = "mov r2, 0\nadd r2, 4096"
CALL = 5


def test_keys_that_are_known_to_lie_in_the_frame_are_audited(monkeypatch: pytest.MonkeyPatch) -> None:
    program, packet = lookup(IN_FRAME)
    function = program.compile(optimize=True, audit=True)
    assert function(packet) == 7
    assert "audit_load" in function.listing()
    program, packet = lookup(ELSEWHERE)
    plant(monkeypatch, lambda facts: replace(facts, in_frame={CALL: {2: (-4, -4)}}))
    with pytest.raises(AuditFailure) as caught:
        program.compile(optimize=True, audit=True)(packet)
    told = caught.value
    assert (told.pc, told.address, told.access) == (CALL, 4096, "call")
    assert told.reason == "key and value are the program's"


def test_the_map_that_a_call_is_known_to_be_given_is_audited(monkeypatch: pytest.MonkeyPatch) -> None:
    program, packet = lookup(IN_FRAME)
    plant(monkeypatch, lambda facts: replace(facts, maps={CALL: 1}))
    with pytest.raises(AuditFailure) as caught:
        program.compile(optimize=True, audit=True)(packet)
    assert (caught.value.pc, caught.value.address) == (CALL, program.maps[0].address)
    assert caught.value.reason == "it is always given the same map"


DEEP = """
  mov r1, 0
  call f
  exit
f:
  stxdw [r10-8], r1
  add r1, 1
  jgt r1, 100, out
  call f
out:
  ldxdw r0, [r10-8]
  exit
"""


@pytest.mark.parametrize("size", [16, 512])
def test_calls_are_counted_where_that_seems_needless(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    def bounded(old: Any) -> Any:
        return lambda *arguments: replace(old(*arguments), bounded=True)

    def machine() -> EbpfVmNoData:
        vm = EbpfVmNoData(optimize=True, audit=True)
        vm.set_stack_usage_calculator(lambda prog, pc: size)
        vm.set_program(assembler.assemble(DEEP))
        vm.jit_compile()
        return vm

    with pytest.raises(ebpfjit.CallDepthExceeded):
        machine().execute_program_jit()
    monkeypatch.setattr(compiler, "_plan", bounded(compiler._plan))
    told = failure(machine())
    assert (told.pc, told.access, told.reason) == (6, "call", "local calls never are too deep")


def test_a_frame_that_is_not_zeroed_is_not_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "ldxdw r0, [r10-8]\nexit"
    old = compiler._plan
    assert raw(text).execute_program_jit(bytearray(8)) == 0
    monkeypatch.setattr(compiler, "_plan", lambda *given: replace(old(*given), zeroed=frozenset()))
    assert raw(text).execute_program_jit(bytearray(8)) == 0xEBEBEBEBEBEBEBEB


# -- what is right stays as it is -------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["jit", "gate", "tiered"])
@pytest.mark.parametrize("build", [build for build in BUILDS if build.startswith("audit")])
def test_audit_builds_do_as_the_interpreter(engine: str, build: str) -> None:
    checker = Checker(("interpreter", engine))
    for number in range(60):
        case = case_of(5, number, tuple(SOURCES), builds=(build,))
        assert case.build == build
        assert checker.check(case) is None, case.name


def test_audit_is_part_of_the_options(tmp_path: Any) -> None:
    program = Program(assembler.assemble(BEHIND))
    function = program.compile(audit=True)
    with pytest.raises(LoadError, match="audit build"):
        function.save(tmp_path / "file")
    program.compile(audit=True, cache=tmp_path / "folder")
    assert not list((tmp_path / "folder").iterdir())
    assert "audit_load" in pickle.loads(pickle.dumps(function)).listing()
    assert pickle.loads(pickle.dumps(EbpfVmRaw(program, audit=True))).audit
    for refused in (lambda: program.compile(audit=True, checked=False), lambda: raw(BEHIND, checked=False)):
        with pytest.raises(ValueError, match="audit=True"):
            refused()


def test_a_batch_does_not_fill_in_for_an_audit_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, at(0, proof="frame"))
    function = Program(assembler.assemble(BEHIND)).compile(audit=True, optimize=True)
    with pytest.raises(AuditFailure, match="packet 1"):
        function.map([bytearray(24), bytearray(8)], on_fault=0)


def test_the_failure_pickles() -> None:
    told = AuditFailure("text", 3, 4, 5, "load", "covered")
    again = pickle.loads(pickle.dumps(told))
    assert isinstance(again, ebpfjit.ExecutionError)
    assert (str(again), vars(again)) == ("text", vars(told))


# -- the judge --------------------------------------------------------------------------------------

JOINED = """
  ldxdw r3, [r1+0]
  mov r4, r1
  add r4, 8
  jgt r3, 7, +1
  mov r5, 1
  mov r6, r10
  ja +0
  mov r0, 0
  exit
"""
START = 7
"""The last block's."""

CLAIMS: dict[str, Callable[[Any], None]] = {
    "r3 is 0x6, not from 0x8 to 0x9": lambda s: put(
        s, 3, replace(s.registers[3], origin=Origin.SCALAR, bounds=(8, 9))
    ),
    "r3 is 0x6, not from 0x5 to 0x5": lambda s: put(s, 3, constant(5)),
    "r6 is r10+0x0, not -0x8 to -0x8": lambda s: put(s, 6, replace(s.registers[6], bounds=(-8, -8))),
    "r4 is the argument+0x8, not +0x0 to +0x0": lambda s: put(s, 4, replace(s.registers[4], bounds=(0, 0))),
    "r1 is r4-0x8, not r4-0x9": lambda s: put(
        s, 4, replace(s.registers[1], offset=9, origin=Origin.SCALAR, bounds=(0, U64))
    ),
    "16 bytes at r1+0x0": lambda s: s.spans.update({s.registers[1].symbol: frozenset({(0, 16, 0)})}),
    "8 bytes at r1-0x8": lambda s: s.spans.update({s.registers[1].symbol: frozenset({(-8, 0, 0)})}),
    "the argument has 8 bytes, not 9 at least": lambda s: setattr(s, "limits", {0: 9}),
    "r3+0x0 is 0x6: plus 3 above the length, 8": lambda s: setattr(
        s, "limits", {0: 0, s.registers[3].symbol: 3}
    ),
}
"""What is said of the state at START, and how it comes to be wrong."""


def put(state: Any, register: int, value: Any) -> None:
    """Put a value into a register of a state."""
    state.registers[register] = value


LIVE = JOINED.replace(
    "mov r0, 0\n", "mov r0, 0\nadd r0, r1\nadd r0, r3\nadd r0, r4\nadd r0, r5\nadd r0, r6\n"
)


@pytest.mark.parametrize("said", CLAIMS)
def test_claims_of_a_state_are_held_against_runs(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    case = Case(assembler.assemble(LIVE), (Input(struct.pack("<Q", 6), 100),))
    assert Checker(("proofs",)).check(case) is None
    run = Analysis.run

    def changed(self: Analysis) -> Facts:
        facts = run(self)
        CLAIMS[said](self.nodes[START].state)
        return facts

    monkeypatch.setattr(Analysis, "run", changed)
    problem = Checker(("proofs",)).check(case)
    assert problem is not None
    assert problem.nature == PROOF
    assert f"pc {START}: {said}" in problem.text


def test_a_block_that_analysis_did_not_reach_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Analysis.run

    def changed(self: Analysis) -> Facts:
        facts = run(self)
        del self.nodes[START]
        return facts

    monkeypatch.setattr(Analysis, "run", changed)
    problem = Checker(("proofs",)).check(Case(assembler.assemble(LIVE), (Input(bytes(8), 100),)))
    assert problem is not None
    assert "did not come here" in problem.text


def test_programs_with_a_type_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(
        assembler.assemble("ldxdw r3, [r1+64]\nmov r0, 0\nexit"), (Input(bytes(64), 100),), type="xdp"
    )
    assert Checker(("proofs",)).check(case) is None
    plant(monkeypatch, at(0, proof="argument"))
    for engines, nature in ((("proofs",), PROOF), (("interpreter", "gate"), PROOF), (("gate",), AUDIT)):
        problem = Checker(engines).check(replace(case, build="audit"))
        assert problem is not None
        assert problem.nature == nature


def test_findings_of_both_shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "mov r5, 3\nmov r6, 4\n" + BEHIND
    plant(monkeypatch, lambda facts: replace(facts, accesses={
        pc: replace(access, proof="covered") for pc, access in facts.accesses.items()
    }))  # fmt: skip
    for engines in (("proofs",), ("interpreter", "jit"), ("jit",)):
        case = Case(assembler.assemble(text), (Input(bytes(8), 100),), "audit")
        problem = examine(case, engines)
        assert problem is not None
        small = shrunk(found(0, case, problem), engines, 60)
        assert len(small.case.code) < len(case.code)
        assert "covered" in small.details


def test_outcomes_that_are_wrong_by_themselves_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, at(0, proof="frame"))
    report = ebpfjit_compare(BEHIND, ["interpreter", "proofs", "jit"])
    outcomes = report.comparisons[0].outcomes
    kinds = [outcome.kind for outcome in outcomes.values() if outcome is not None]
    assert kinds == ["MemoryFault", WRONG_PROOF, AUDIT_FAILURE]
    assert not report.agree


def ebpfjit_compare(text: str, engines: list[str]) -> Any:
    """Compare an audit build of a program on 8 bytes of memory."""
    from ebpfjit.difftest import compare

    return compare(assembler.assemble(text), [bytes(8)], engines, build="audit")


def test_the_audit_build_of_a_case_is_optimised() -> None:
    case = Case(assembler.assemble(LOOP), (Input(bytes(40), 1000),), "audit")
    recipe = compiled_case(case, prepared(case)).recipe
    assert (recipe.options.audit, recipe.options.optimize) == (True, True)
    recipe = compiled_case(replace(case, build="audit-baseline"), prepared(case)).recipe
    assert (recipe.options.audit, recipe.options.optimize) == (True, False)
    assert Promises().argument_size == 0


def test_a_fault_of_what_was_tail_called_is_not_the_callers() -> None:
    """The caller has an access with a proof at the pc where the other program faults."""
    load = "mov r6, r1\nmov r7, 0\n"
    caller = assembler.assemble(load + "stdw [r10-8], 1\n")
    caller += struct.pack("<BBhiBBhi", 0x18, 5 << 4 | 2, 0, 2, 0, 0, 0, 0)
    caller += assembler.assemble("mov r1, r6\nmov r3, 1\ncall 12\nmov r0, 2\nexit")
    called = assembler.assemble(load + "ldxdw r7, [r7+0]\nmov r0, 0\nexit")
    case = Case(caller, (Input(bytes(64), 1000),), type="xdp", tail=called)
    outcome = typed.runner(case, "proofs")(case.inputs[0])
    assert outcome is not None
    assert (outcome.kind, outcome.pc) == ("MemoryFault", 2)
