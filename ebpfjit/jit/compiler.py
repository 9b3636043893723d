"""Verified -> Listing: the assembly text of a program, optimised or as it stands.

entry, enter_N        the start state, frames of functions
b_N                   optimised code (`lower`), which leaves at side exits
pc_N, leave_N         baseline code (`baseline`), where these go on
"""

from __future__ import annotations

from collections.abc import Mapping

from ebpfjit.analysis.baseline import baseline
from ebpfjit.analysis.verified import Verified
from ebpfjit.errors import OptimizationError
from ebpfjit.isa.spec import FRAME_POINTER, Kind
from ebpfjit.jit.audit import MEMORY
from ebpfjit.jit.baseline import RELIED, baseline_listing, emit_baseline, notes_of, plan_of
from ebpfjit.jit.cpu import machine
from ebpfjit.jit.lower import lower, written_registers
from ebpfjit.jit.map_calls import in_frame, known_maps, map_calls
from ebpfjit.jit.recipe import Listing, Recipe
from ebpfjit.jit.stages import done
from ebpfjit.optimizer.code import BOUND, ONLY, PAY, Code, Op
from ebpfjit.optimizer.facts import Facts
from ebpfjit.optimizer.passes import ALL_PASSES, SLOTS, optimised_parts
from ebpfjit.optimizer.placed import PlacedCode
from ebpfjit.optimizer.registers import place
from ebpfjit.optimizer.remarks import blamed
from ebpfjit.optimizer.slots import has_slots
from ebpfjit.program import Instruction
from ebpfjit.record import dataclass, field, replace
from ebpfjit.translators.labels import function_label
from ebpfjit.translators.machine import Registers
from ebpfjit.translators.plan import Plan


def listing_of(recipe: Recipe) -> Listing:
    """Return a program's assembly text.

    Raises TranslationError where an operation has no translator, and OptimizationError where optimising
    takes too much.
    """
    return _optimised(recipe) if recipe.is_optimized else baseline_listing(recipe)


def _optimised(recipe: Recipe) -> Listing:
    """Return the text of a program's optimised code, and behind it of the baseline code that it leaves to."""
    verified, settings = recipe.verified, recipe.settings
    program = verified.program
    options = recipe.options
    registers = machine().audited if options.audit else machine().values
    chosen = ALL_PASSES if options.passes is None else options.passes
    resumes = options.resumes & recipe.entries.tested
    frameless = verified.calls.frameless
    if frameless:  # they are called without r10 being saved
        registers = replace(registers, reserved=1 << FRAME_POINTER)
    try:
        found = _placed(recipe, registers, resumes, chosen)
    except OptimizationError as error:
        if SLOTS not in chosen or not has_slots(verified):
            raise
        found = _placed(recipe, registers, resumes, chosen - {SLOTS})
        found.parts[0].code.leave_alone(SLOTS, None, str(error))
    remarks = found.parts[0].code.remarks
    resumes &= {pc for part in found.parts for pc in part.code.entries}  # to others no run ever comes
    below, accesses = recipe.baseline(""), baseline(verified)
    plan = plan_of(below, accesses, runs=any(map(_leaves, found.parts)))
    if found.writes_frame_pointer:
        frameless = frozenset()
    if frameless:  # a function of baseline code may find another's frame
        plan = _without_frames(plan)
    cx = machine().context(program, verified.frame_sizes, plan, settings)
    cx.keep_limits(options.limits)
    cx.pinned = None  # r11 has values
    cx.functions, cx.frame_top = function_label, ""
    cx.likely = "argument" if recipe.promises.argument_is_measured else "packet"
    cx.entry()
    for pc in program.functions:
        cx.function_entry(pc)
    cx.plan = replace(
        plan,
        map_calls=map_calls(verified, found.maps, found.in_frame, options),
        checks={},
        bounded=verified.calls.bounded,
        frameless=frameless,
    )
    in_code = cx.calls_in_code()
    with blamed("lowering"):
        left = lower(cx, found.parts, registers, checked=options.checked)
    cx.plan = plan
    baseline_from, cold_count = cx.piece_count, len(cx.cold)
    emit_baseline(cx, verified, left)
    cx.end_of_program(len(program))
    for pc in sorted(resumes & program.functions.keys()):
        cx.resume(pc, function_label(pc))
    cx.shared()
    cold_from = cx.piece_count
    return Listing(
        verified,
        cx.text(),
        tuple(cx.limits),
        found.notes,
        settings.harden,
        resumes=tuple(sorted(resumes)),
        returns=tuple(cx.returns),
        why_baseline=recipe.why_baseline,
        baseline_from=baseline_from,
        notes_below=notes_of(below, accesses),
        remarks=tuple(remarks),
        cold_from=cold_from,
        cold_baseline_from=cold_from + cold_count,
        in_code=in_code,
    )


@dataclass(slots=True)
class _Found:
    """The parts of a program with their values in registers, and what passes have found out.

    `notes` say of accesses how they are checked; `maps` and `in_frame` are of calls of map helpers. Where
    r10's register is to be kept, it is told whether that holds a value as well.
    """

    notes: dict[int, str]
    parts: list[PlacedCode] = field(default_factory=list)
    maps: dict[int, int] = field(default_factory=dict)
    in_frame: dict[int, Mapping[int, int]] = field(default_factory=dict)
    writes_frame_pointer: bool = False


def _placed(recipe: Recipe, registers: Registers, resumes: frozenset[int], chosen: frozenset[str]) -> _Found:
    """Return a program's parts behind the `chosen` passes."""
    verified, checked = recipe.verified, recipe.options.checked
    found = _Found(_notes_of(verified, checked=checked))
    parts = optimised_parts(
        verified, recipe.promises, resumes, checked=checked, chosen=chosen, counted=recipe.options.counted
    )
    for code, known in parts:
        done("analyse")
        with blamed("registers"):
            placed = place(code, registers)
        found.parts.append(placed)
        if registers.reserved and not found.writes_frame_pointer:
            found.writes_frame_pointer = FRAME_POINTER in written_registers(placed)
        if checked:
            _note_checks(found.notes, code, known.facts)
        found.maps |= known_maps(code)
        found.in_frame |= in_frame(code, known.facts)
        done("translate")
    return found


def _leaves(part: PlacedCode) -> bool:
    """True where a part checks anything at run time, or has any other way into baseline code."""
    code = part.code
    exits = (op for number in code.laid_out for op in code.blocks[number].all_ops if op.exit is not None)
    return any(op.row is not PAY or op.stores for op in exits)  # at a payment that stays here a slice ends


def _without_frames(plan: Plan) -> Plan:
    """Return a plan whose checks take nothing for granted about the frame that they are in."""
    checks = {
        pc: replace(check, frame_size=0) if check.region == "stack" else check
        for pc, check in plan.checks.items()
    }
    map_calls = {pc: replace(call, frame_size=0) for pc, call in plan.map_calls.items()}
    return replace(plan, checks=checks, map_calls=map_calls)


def _notes_of(verified: Verified, *, checked: bool) -> dict[int, str]:
    """Return what the listing says of accesses of which nothing else is noted."""
    accesses = [insn for insn in verified.program.instructions if insn.row and insn.row.kind in MEMORY]
    if not checked:
        return {insn.pc: "not checked" for insn in accesses}
    return {insn.pc: IN_FRAME if _base(insn) == FRAME_POINTER else GONE for insn in accesses}


def _note_checks(notes: dict[int, str], code: Code, facts: Facts | None) -> None:
    """Note of accesses in code why each is checked or not."""
    before = set()
    for pc, proofs in code.proofs.items():
        rule, by = proofs[-1].rule, proofs[-1].by
        rule = "covered" if rule == "writable" and by != pc else rule
        notes[pc] = RULES.get(rule, f"no check: {rule}").format(by=by)
        if rule == "loop" and by == pc:  # the loop starts with it, so what is asked before has its pc
            before.add(pc)
    bounds = [op for number in code.laid_out for op in code.blocks[number].ops if op.row is BOUND]
    for op in bounds:
        if op.pc not in notes or op.pc in before:
            continue
        only = [name for name, asks in ONLY.items() if op.region == asks]
        if only:
            notes[op.pc] = f"checked: {_bytes(op.imm)} of the {only[0]}"
        elif op.args:
            first = f", {op.region} first" if op.region else ""
            notes[op.pc] = f"checked{first}: {_bytes(op.imm)}; {_why(op, facts)}"
        elif op.imm:
            notes[op.pc] = f"checked: {_bytes(op.offset + op.imm)} of the argument"


def _why(op: Op, facts: Facts | None) -> str:
    """Return why a bound is still there: what is not known of the address before the run."""
    value = op.args[0]
    if facts is None or value >= facts.count:  # later passes made it
        return WHY[op.region]
    region = facts.region(value) or op.region
    return WHY["far" if region == "argument" and facts.place(value) is None else region]


def _base(insn: Instruction) -> int:
    """Return the register that an access counts from."""
    assert insn.row is not None  # it is an access
    return insn.src_reg if insn.row.kind is Kind.LOAD else insn.dst_reg


def _bytes(count: int) -> str:
    return f"{count} bytes" if count != 1 else "1 byte"


IN_FRAME = "no access: what is in the frame there is a value"
GONE = "no access: nothing comes here, or what it would find is known"

WHY = {
    "argument": "how long that is only the run knows",
    "far": "how far from its start is not known",
    "packet": "where that ends only the run knows",
    "map value": "how far into the value is not known",
    "stack": "where in the frame is not known",
    "": "where it points is not known",
}
"""Why an access is checked, by the region that it most likely is to."""

RULES = {
    "loop": "no check: made before the loop at pc {by}",
    "covered": "no check: one at pc {by} covers it",
    "writable": "checked: may it be written",
    "verdict": RELIED,
}
"""What a listing says of rules that proofs are by, where that is not the rule's name."""
