"""Audit builds, and the interpreter as a judge of Code: wrong proofs are planted, and both must say so.

What is planted goes into Code behind a pass, one kind of proof after the other. An audit build looks before
it touches anything, so that nothing here can harm the process.
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
from ebpfjit.analysis import verified as analysis
from ebpfjit.analysis.accesses import Accesses
from ebpfjit.difftest.case import BUILDS, Case, Input
from ebpfjit.difftest.check import AUDIT, WRONG, Checker
from ebpfjit.difftest.engines import ENGINES, compiled_case, prepared
from ebpfjit.difftest.finding import examine, found, shrunk
from ebpfjit.difftest.outcome import AUDIT_FAILURE, WRONG_CODE
from ebpfjit.difftest.sources import SOURCES, case_of
from ebpfjit.jit import baseline, compiler
from ebpfjit.memo import forget
from ebpfjit.optimizer import passes
from ebpfjit.optimizer.code import BOUND, Code, Op, Proof
from ebpfjit.program import Program
from ebpfjit.runtime.maps.creation import create
from ebpfjit.runtime.maps.definition import MapDefinition, MapType
from tests.support.whole import WHOLE

Change = Callable[[Code], Code]


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    yield
    forget()


def plant(monkeypatch: pytest.MonkeyPatch, *changes: Change, behind: str = "guards") -> None:
    """Have a pass make something else of code."""
    old = passes.PASSES[behind]

    def changed(code: Code, known: passes.Known) -> Code:
        code = old(code, known)
        for change in changes:
            code = change(code)
        return code

    monkeypatch.setitem(passes.PASSES, behind, changed)


def bounds(change: Callable[[Op], Op | None], pc: int | None = None) -> Change:
    """Change the bounds of the access at a pc (None: all), or leave them out."""

    def changed(op: Op) -> Op | None:
        return change(op) if op.row is BOUND and pc in (None, op.pc) else op

    def all_changed(code: Code) -> Code:
        blocks = [
            replace(block, ops=tuple(op for op in map(changed, block.ops) if op is not None))
            for block in code.blocks
        ]
        return replace(code, blocks=tuple(blocks))

    return all_changed


def proven(pc: int, rule: str) -> Change:
    """Say why the access at a pc needs no check."""
    proof = Proof(rule, 0, 16, 8, False, -8, 0, 0)
    return lambda code: replace(code, proofs={**code.proofs, pc: (proof,)})


def gone(pc: int, rule: str) -> tuple[Change, Change]:
    """Leave out the check of the access at a pc, for a reason."""
    return bounds(lambda op: None, pc), proven(pc, rule)


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


# -- what is planted: a program, the pc, what is said of it -----------------------------------------

BEHIND = "ldxdw r3, [r1+16]\nmov r0, r3\nexit"
STORE = "stdw [r1+16], 1\nmov r0, 0\nexit"
LATER = "ldxb r3, [r1+0]\nldxdw r4, [r1+16]\nmov r0, r4\nexit"

PROOFS = {
    "frame": (BEHIND, 0, "frame"),
    "covered": (LATER, 1, "one at pc 0 covers it"),
    "argument": (BEHIND, 0, "argument"),
    "length": (BEHIND, 0, "length"),
    "map value": (BEHIND, 0, "map value"),
    "loop": (BEHIND, 0, "made before the loop at pc 0"),
    "frame, a store": (STORE, 0, "frame"),
}
"""Accesses of 8 bytes, 16 bytes behind the start of 8 bytes of memory: no check, for a wrong reason."""

WEAKENED: dict[str, tuple[str, Callable[[Op], Op]]] = {
    "checked: may it be written": (STORE, lambda op: replace(op, args=(), offset=0, imm=0)),
    "checked: 8 bytes of the argument": (BEHIND, lambda op: replace(op, offset=0)),
    "checked: 1 byte of the argument": (BEHIND, lambda op: replace(op, offset=0, imm=1)),
}
"""The same with checks that are weaker, elsewhere, or of other bytes; by the reason."""

INPUTS = tuple(Input(struct.pack("<Q", number), 100) for number in range(80))
"""The engine `optimized` runs one stage or the other, by the memory: these reach them all."""


@pytest.mark.parametrize("proof", PROOFS)
def test_a_wrong_proof_is_told_by_both(monkeypatch: pytest.MonkeyPatch, proof: str) -> None:
    text, pc, said = PROOFS[proof]
    with pytest.raises(MemoryFault) as fault:
        EbpfVmRaw(assembler.assemble(text)).execute_program(memory := bytearray(8))
    changes = gone(pc, proof.partition(",")[0])
    if proof == "covered":
        changes = (bounds(lambda op: replace(op, imm=1)), *changes)
    plant(monkeypatch, *changes)
    told = failure(raw(text), memory)
    assert (told.pc, told.size, told.access) == (pc, 8, fault.value.access)
    assert told.address == fault.value.address
    assert told.reason == said
    assert str(told).endswith(f"not the program's, although analysis found: {told.reason}")
    case = Case(assembler.assemble(text), INPUTS, "audit")
    assert Checker(("jit",)).check(case).nature == AUDIT
    assert Checker(("interpreter", "optimized")).check(case).nature == WRONG


@pytest.mark.parametrize("reason", WEAKENED)
def test_a_check_that_is_too_weak_is_told(monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    text, weaker = WEAKENED[reason]
    changes = [bounds(weaker)]
    if "written" in reason:
        changes.append(proven(0, "writable"))
    plant(monkeypatch, *changes)
    told = failure(raw(text), bytearray(8))
    assert (told.pc, told.size, told.reason) == (0, 8, reason)


def test_a_check_that_stands_for_too_little_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, bounds(lambda op: replace(op, imm=8)))  # guards have put both under one
    told = failure(raw(LATER), bytearray(8))
    assert (told.pc, told.reason) == (1, "one at pc 0 covers it")


def test_a_check_that_is_gone_for_no_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, bounds(lambda op: None))
    assert failure(raw(BEHIND), bytearray(8)).reason.startswith("no access: nothing comes here")


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
    assert raw(LOOP).execute_program_jit(bytearray(b"\1" * 40)) == 40
    with pytest.raises(MemoryFault):  # in baseline code: it is the program's fault
        raw(LOOP).execute_program_jit(bytearray(39))
    plant(monkeypatch, bounds(lambda op: replace(op, imm=1)), behind="hoisting")
    told = failure(raw(LOOP), bytearray(39))
    assert (told.pc, told.reason) == (4, "made before the loop at pc 2")
    assert raw(LOOP).execute_program_jit(bytearray(b"\1" * 40)) == 40


GATHERED = "ldxb r2, [r1+0]\nldxb r0, [r1+{far}]\nlsh r0, 8\nor r0, r2\nexit"


def test_what_is_gathered_is_audited_load_by_load(monkeypatch: pytest.MonkeyPatch) -> None:
    text = GATHERED.format(far=1)
    assert "movzx eax, word ptr" in raw(text).listing()
    assert raw(text).execute_program_jit(bytearray(b"\1\2")) == 0x201
    plant(monkeypatch, bounds(lambda op: None))
    assert failure(raw(text), memory := bytearray(1)).address == ebpfjit.address_of(memory) + 1


FUSED = {
    "an operand": ("ldxdw r3, [r1+0]\nadd r0, r3\nexit", 0),
    "a comparison": ("ldxdw r3, [r1+0]\njgt r3, 7, +1\nmov r0, 1\nexit", 0),
    "an update": ("ldxdw r3, [r1+0]\nadd r3, 1\nstxdw [r1+0], r3\nexit", 0),
    "a sum": ("mov r3, r1\nadd r3, r2\nldxdw r0, [r3+0]\nexit", 2),
}


@pytest.mark.parametrize("what", FUSED)
def test_fused_accesses_are_audited(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    text, pc = FUSED[what]
    plant(monkeypatch, bounds(lambda op: None))
    assert failure(raw(text), bytearray(7)).pc >= pc


def test_baseline_code_is_audited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EBPFJIT_TIERS", raising=False)
    old = baseline.baseline

    def wrong(verified: Any) -> Accesses:
        found = old(verified)
        return replace(found, by_pc={pc: replace(each, proof="frame") for pc, each in found.by_pc.items()})

    monkeypatch.setattr(baseline, "baseline", wrong)
    assert failure(raw(BEHIND, optimize=False), bytearray(8)).reason == "frame"
    assert failure(raw(BEHIND, optimize=None), bytearray(8)).reason == "frame"


def test_both_tiers_are_audited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EBPFJIT_TIERS", raising=False)
    plant(monkeypatch, *gone(0, "frame"))
    with pytest.raises(MemoryFault):  # baseline code checks it
        raw(BEHIND, optimize=None).execute_program_jit(bytearray(8))
    vm = raw(BEHIND, optimize=None)
    vm.listing()  # which makes the code final
    failure(vm, bytearray(8))


def looping(text: str) -> bytes:
    """A program that comes to the end of a slice first."""
    return assembler.assemble("mov r3, 9\nL:\nsub r3, 1\njne r3, 0, L\n" + text)


def test_a_run_that_changes_over_is_audited(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, *gone(3, "frame"))
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


def test_keys_are_checked_and_audited() -> None:
    program, packet = lookup(IN_FRAME)
    function = program.compile(optimize=True, audit=True)
    assert function(packet) == 7
    assert "audit_load" in function.listing()
    program, packet = lookup(ELSEWHERE)
    with pytest.raises(MemoryFault) as caught:
        program.compile(optimize=True, audit=True)(packet)
    assert (caught.value.pc, caught.value.address) == (CALL, 4096)


def test_the_map_that_a_call_is_known_to_be_given_is_audited(monkeypatch: pytest.MonkeyPatch) -> None:
    program, packet = lookup(IN_FRAME)
    monkeypatch.setattr(compiler, "known_maps", lambda code: {CALL: 1})
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
    monkeypatch.setattr(analysis, "calls_of", bounded(analysis.calls_of))
    told = failure(machine())
    assert (told.pc, told.access, told.reason) == (6, "call", "local calls never are too deep")


def test_a_frame_that_is_not_zeroed_is_not_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "mov r2, r10\nldxdw r0, [r2-8]\nexit"  # so it is no value
    assert raw(text).execute_program_jit(bytearray(8)) == 0
    monkeypatch.setattr(baseline, "_zeroed", lambda *given, **looks: frozenset())
    assert raw(text).execute_program_jit(bytearray(8)) == 0xEBEBEBEBEBEBEBEB


# -- what is right stays as it is -------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["jit", "gate", "tiered"])
@pytest.mark.parametrize("build", [build for build in BUILDS if build.startswith("audit")])
def test_audit_builds_do_as_the_interpreter(engine: str, build: str) -> None:
    checker = Checker(("interpreter", engine))
    for number in range(60 if WHOLE else 24):
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
    plant(monkeypatch, *gone(0, "frame"))
    function = Program(assembler.assemble(BEHIND)).compile(audit=True, optimize=True)
    with pytest.raises(AuditFailure, match="packet 1"):
        function.map([bytearray(24), bytearray(8)], on_fault=0)


def test_the_failure_pickles() -> None:
    told = AuditFailure("text", 3, 4, 5, "load", "covered")
    again = pickle.loads(pickle.dumps(told))
    assert isinstance(again, ebpfjit.ExecutionError)
    assert (str(again), vars(again)) == ("text", vars(told))


# -- the judge --------------------------------------------------------------------------------------

JUDGED = "ldxdw r3, [r1+0]\nmov r4, r1\nadd r4, r3\nldxb r5, [r4-1]\nmov r0, r3\nadd r0, r5\nexit"
SIXES = tuple(Input(struct.pack("<QQ", 6, number), 100) for number in range(80))

CLAIMS: dict[str, tuple[int, dict[str, int]]] = {
    "is 0x6, not from 0x8 to 0x9": (0, {"low": 8, "high": 9}),
    "is 0x6, not from 0x5 to 0x5": (0, {"low": 5, "high": 5}),
    "is 0x6, no multiple of 1 << 3": (0, {"zeros": 3}),
    "is 0x6, which plus 12 is above the length, 16": (0, {"limit": 12}),
    ", not 0 to 5 behind ": (2, {"near": 0, "far": 5}),
}
"""What is said of the value that the instruction at a pc makes, and what is known of it that is not so."""


@pytest.mark.parametrize("said", CLAIMS)
def test_what_is_known_of_values_is_held_against_runs(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    case = Case(assembler.assemble(JUDGED), SIXES)
    assert Checker(("interpreter", "optimized")).check(case) is None
    pc, wrong = CLAIMS[said]
    old = passes.PASSES["guards"]

    def guards(code: Code, known: passes.Known) -> Code:
        made = [op for block in code.blocks for op in block.ops if op.pc == pc and op.results]
        code = old(code, known)
        for name, number in wrong.items() if made else ():  # not of what shows whether an engine is there
            getattr(known.facts, name)[made[-1].results[0]] = number
        return code

    monkeypatch.setitem(passes.PASSES, "guards", guards)
    problem = Checker(("interpreter", "optimized")).check(case)
    assert problem is not None
    assert problem.nature == WRONG
    assert said in problem.text


def test_programs_with_a_type_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "ldxdw r3, [r1+64]\nmov r0, r3\nexit"
    case = Case(assembler.assemble(text), (Input(bytes(64), 100),), type="xdp")
    assert Checker(("interpreter", "optimized")).check(case) is None
    plant(monkeypatch, *gone(0, "argument"))
    for engines, nature in ((("optimized",), WRONG), (("interpreter", "gate"), AUDIT), (("gate",), AUDIT)):
        problem = Checker(engines).check(replace(case, build="audit"))
        assert problem is not None
        assert problem.nature == nature


def test_findings_of_both_shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "mov r5, 3\nmov r6, 4\n" + BEHIND
    plant(monkeypatch, bounds(lambda op: None))
    for engines in (("interpreter", "optimized"), ("interpreter", "jit"), ("jit",)):
        case = Case(assembler.assemble(text), INPUTS, "audit")
        problem = examine(case, engines)
        assert problem is not None
        small = shrunk(found(0, case, problem), engines, 60)
        assert len(small.case.code) < len(case.code)
        assert "ldxdw" in small.details


def test_outcomes_that_are_wrong_by_themselves_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, *gone(0, "frame"))
    report = ebpfjit_compare(BEHIND, ["interpreter", "optimized", "jit"])
    kinds = [
        [outcome.kind for outcome in comparison.outcomes.values() if outcome is not None]
        for comparison in report.comparisons
    ]
    assert ["MemoryFault", WRONG_CODE, AUDIT_FAILURE] in kinds
    assert not report.agree


def ebpfjit_compare(text: str, engines: list[str]) -> Any:
    """Compare an audit build of a program on 8 bytes of memory."""
    from ebpfjit.difftest import compare

    memories = [given.memory for given in INPUTS]
    return compare(assembler.assemble(text), memories, engines, build="audit")


def test_the_audit_build_of_a_case_is_optimised() -> None:
    case = Case(assembler.assemble(LOOP), (Input(bytes(40), 1000),), "audit")
    recipe = compiled_case(case, prepared(case)).recipe
    assert (recipe.options.audit, recipe.options.optimize) == (True, True)
    recipe = compiled_case(replace(case, build="audit-baseline"), prepared(case)).recipe
    assert (recipe.options.audit, recipe.options.optimize) == (True, False)
