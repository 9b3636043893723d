"""Baseline code: each instruction as it stands, by its translator.

Where an instruction is the same wherever it stands, what it was translated to before is repeated.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from ebpfjit.analysis.accesses import Access, Accesses, Origin
from ebpfjit.analysis.baseline import baseline
from ebpfjit.analysis.entries import OUTWARD_CALLS
from ebpfjit.analysis.likely_maps import likely_maps
from ebpfjit.analysis.reasons import reasons_of
from ebpfjit.analysis.segments import BRANCH, SEGMENT
from ebpfjit.analysis.verified import Verified
from ebpfjit.isa.spec import Kind
from ebpfjit.jit.audit import audits_of
from ebpfjit.jit.cpu import machine
from ebpfjit.jit.map_calls import map_calls
from ebpfjit.jit.recipe import Listing, Recipe
from ebpfjit.jit.stages import done
from ebpfjit.memo import Memo
from ebpfjit.program import Instruction
from ebpfjit.translators.context import Context
from ebpfjit.translators.emitter import Jump, Snippet, lines_of
from ebpfjit.translators.labels import leave_label, pc_label
from ebpfjit.translators.plan import ArenaPlan, Check, Plan, Settings

LOOP_ALIGNMENT = 32
RELIED = "no check: relied on the verdict"
REGIONS = {Origin.STACK: "stack", Origin.ARGUMENT: "argument", Origin.PACKET: "packet"}
RAW_REGIONS = {**REGIONS, Origin.PACKET: "argument"}
"""Where the argument is the packet: it is measured."""


def baseline_listing(recipe: Recipe) -> Listing:
    """Return the text of a program's baseline code, traced where that is asked for.

    Raises TranslationError where an operation has no translator.
    """
    verified, settings = recipe.verified, recipe.settings
    program = verified.program
    accesses = baseline(verified)
    done("analyse")
    cx = machine().context(program, verified.frame_sizes, plan_of(recipe, accesses), settings)
    cx.keep_limits(recipe.options.limits)
    cx.entry()
    for pc in program.functions:
        cx.function_entry(pc)
    emit_baseline(cx, verified)
    if not recipe.options.is_sound:
        cx.end_of_program(len(program))
    resumes = tuple(sorted(recipe.options.resumes & recipe.entries.tested))
    for pc in resumes:
        cx.resume(pc)
    cx.shared()
    cold_from = cx.piece_count
    return Listing(
        verified,
        cx.text(),
        tuple(cx.limits),
        notes_of(recipe, accesses),
        settings.harden,
        resumes,
        tuple(cx.returns),
        recipe.why_baseline,
        cold_from=cold_from,
        cold_baseline_from=cold_from,
        in_code=cx.calls_in_code(),
    )


def emit_baseline(cx: Context, verified: Verified, left: Collection[int] = ()) -> None:
    """Emit baseline code, that can be entered at the slots that optimised code leaves to."""
    plan, traced = cx.plan, bool(cx.settings.trace)
    arena = plan.arena.accesses if plan.arena is not None else ()
    apart = {*plan.checks, *plan.audits, *plan.kernel_loads, *arena, *verified.illegal}
    segments, branches = plan.segments, plan.branches
    phrases = Phrases(cx.settings, len(cx.program))
    known, words, blocks = phrases.known, cx.program.words, verified.blocks
    labels = {pc: pc_label(pc) for pc in blocks}
    # Where runs are counted, exits may be to the start of a block, behind what is paid and counted there.
    entered = {**labels, **{pc: leave_label(pc) for pc in left if pc not in blocks or segments}}
    apart.update(branches)
    noted = {*segments, *plan.reasons, *entered}
    place, find = cx.place, known.get
    for instruction in cx.program.instructions:
        pc = instruction.pc
        phrase = find(words[pc]) if pc not in apart else None
        if phrase is not None and not phrase[1] and pc not in noted and not traced:
            place(pc, phrase[0])  # most instructions: what was written before, and nothing else
            continue
        cx.begin(pc)
        if pc in noted:
            if pc in labels:
                cx.start(instruction)
                _block_start(cx, verified, pc, labels[pc])
            if pc in segments:
                cx.count(pc, SEGMENT)
            if pc in entered and entered[pc] != labels.get(pc):
                cx.label(entered[pc])
        if traced:
            cx.trace(pc)
        if pc in plan.reasons:
            cx.give_reasons(pc, plan.reasons[pc])
        target = instruction.target if phrase is not None and phrase[1] else None
        if phrase is None or (target is not None and target not in labels):
            cx.start(instruction)
            before = phrases.before(cx)
            _anew(cx, verified, instruction)
            if pc not in apart:
                phrases.learn(cx, instruction, before)
            elif pc in branches:
                cx.count(pc, BRANCH)
            continue
        cx.insert(phrase[0])
        if target is not None:
            cx.jump(phrase[1], labels[target])


def _block_start(cx: Context, verified: Verified, pc: int, label: str) -> None:
    """Emit the label of a basic block, and its payment."""
    cx.label(label, LOOP_ALIGNMENT if pc in verified.loop_headers else 1)
    if pc in verified.tested:
        cx.charge(verified.costs[pc])
    else:
        cx.pay(verified.costs[pc])


def _anew(cx: Context, verified: Verified, instruction: Instruction) -> None:
    """Translate one instruction; what no engine can run becomes a fault."""
    row = instruction.row
    if row is None or instruction.pc in verified.illegal:
        cx.raise_fault("illegal")
        return
    cx.translate(instruction)


def plan_of(recipe: Recipe, accesses: Accesses, *, runs: bool = True) -> Plan:
    """Return what translators of baseline code are told; where nothing leads to it, it never `runs`."""
    verified, options = recipe.verified, recipe.options
    regions = RAW_REGIONS if options.promises.argument_is_measured else REGIONS
    elsewhere = verified.found_elsewhere
    checks = {
        pc: _check(access, regions)
        for pc, access in (accesses.by_pc.items() if options.checked else ())
        if not access.proof and pc not in elsewhere
    }
    looks = runs and bool(checks)  # what a verdict has proven as well: frames are zeroed as without it
    checks = {pc: check for pc, check in checks.items() if pc not in options.promises.proven}
    return Plan(
        checks,
        _zeroed(recipe, accesses, looks=looks),
        map_calls=map_calls(verified, likely_maps(verified.program), {}, options, sure=False),
        is_called_back=recipe.entries.is_called_back,
        segments=verified.segments.starts if options.counted else frozenset(),
        branches=verified.segments.branches if options.counted else frozenset(),
        reasons=reasons_of(verified) if options.reasons else {},
        is_audited=options.audit,
        audits=audits_of(verified) if options.audit else {},
        kernel_loads=verified.kernel_loads,
        struct_rights=_struct_rights(recipe),
        arena=_arena(verified),
    )


def _check(access: Access, regions: Mapping[Origin, str]) -> Check:
    return Check(regions[access.origin], access.size, access.stores, access.frame_size)


def _struct_rights(recipe: Recipe) -> bytes:
    """Return the rights of the struct that r1 points to, where there are some and all of it is there."""
    promises = recipe.options.promises
    rights = promises.argument_rights
    return rights.table if rights is not None and promises.argument_size >= len(rights.table) else b""


def _arena(verified: Verified) -> ArenaPlan | None:
    """Return what a program does with its arena, as translators have it."""
    use = verified.arena
    if use is None:
        return None
    upper = use.map.user_start >> 32 if use.map.converts else 0
    return ArenaPlan(use.map.address, upper, use.accesses)


def _zeroed(recipe: Recipe, accesses: Accesses, *, looks: bool) -> frozenset[int]:
    """Return the functions whose frame is zeroed where it is taken: all, where anything may look there.

    The code `looks` where it checks accesses at run time, or leads to code that does. What a check lets
    through, or what is called outside may read, is whatever address the program made up; only where there is
    neither does it depend on what names a frame.
    """
    program = recipe.verified.program
    if (
        looks
        or not recipe.verified.knows_all
        or (recipe.options.checked and not OUTWARD_CALLS.isdisjoint(program.operations))
    ):
        return frozenset(program.functions)
    return accesses.zeroed


def notes_of(recipe: Recipe, accesses: Accesses) -> dict[int, str]:
    """Return what the listing says of accesses: how each is checked."""
    verified, checked = recipe.verified, recipe.options.checked
    notes = {pc: access.reason if checked else "not checked" for pc, access in accesses.by_pc.items()}
    if checked:
        proven = recipe.options.promises.proven
        notes |= {pc: RELIED for pc, access in accesses.by_pc.items() if pc in proven and not access.proof}
    notes |= dict.fromkeys(verified.kernel_loads, "the kernel's memory, or zero")
    if verified.arena is not None:
        notes |= dict.fromkeys(verified.arena.accesses, "the arena, or nothing")
    return notes


PLACELESS = frozenset(
    {Kind.BINARY, Kind.MOVE, Kind.UNARY, Kind.LOAD, Kind.STORE, Kind.JUMP, Kind.BRANCH, Kind.EXIT}
)
"""What is translated the same wherever it stands, but for where it jumps to."""

Phrase = tuple[Snippet, str]
"""Lines, and the jump to the instruction's target that comes behind them ("": none)."""

_known_phrases: defaultdict[frozenset[str], Memo[int, Phrase]] = defaultdict(Memo)


class Phrases:
    """What instructions were translated to before, by their word.

    Only where a translator wrote lines and nothing else, perhaps with the jump to the target behind
    them, and only for instructions that nothing sets apart: no check, no audit.
    """

    def __init__(self, settings: Settings, size: int) -> None:
        self._learns = not settings.harden
        self.known: dict[int, Phrase] = _known_phrases[settings.features].trim(size) if self._learns else {}

    def before(self, cx: Context) -> tuple[int, ...]:
        """Return what tells later whether a translator did more than write lines here."""
        return len(cx.written()), len(cx.cold), len(cx.used), len(cx.limits)

    def learn(self, cx: Context, instruction: Instruction, before: tuple[int, ...]) -> None:
        """Remember what an instruction was just translated to, if it is the same elsewhere."""
        row = instruction.row
        assert row is not None  # it was translated
        parts = cx.written()[before[0] :]
        if not self._learns or row.kind not in PLACELESS or self.before(cx)[1:] != before[1:]:
            return
        jump = ""
        last = parts[-1] if parts else None
        if isinstance(last, Jump):
            if last.label != pc_label(instruction.target or 0):
                return
            jump = last.mnemonic
            parts.pop()
        lines = lines_of(parts)
        if lines is not None:
            self.known[cx.program.words[instruction.pc]] = Snippet(lines), jump
