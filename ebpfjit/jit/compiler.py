"""Verified -> Listing: the assembly text of every instruction, from the registry of translators."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise

from ebpfjit.analysis.accesses import Access, Facts, Promises
from ebpfjit.analysis.baseline import baseline
from ebpfjit.analysis.calls import UNKNOWN
from ebpfjit.analysis.cfg import NEVER_FALLS_THROUGH, is_inside
from ebpfjit.analysis.charges import Charges
from ebpfjit.analysis.entries import OUTWARD_CALLS, Entries
from ebpfjit.analysis.facts import analyse
from ebpfjit.analysis.liveness import live_after
from ebpfjit.analysis.values import Origin
from ebpfjit.analysis.verified import Verified
from ebpfjit.errors import TranslationError
from ebpfjit.isa.spec import FRAME_POINTER, Kind
from ebpfjit.jit import cpu
from ebpfjit.jit.audit import MEMORY, audits_of
from ebpfjit.jit.lower import lower, writes_frame_pointer
from ebpfjit.jit.map_calls import known_maps, map_calls
from ebpfjit.jit.stages import done
from ebpfjit.memo import Memo
from ebpfjit.optimizer.code import BOUND, Code
from ebpfjit.optimizer.passes import ALL_PASSES, optimised
from ebpfjit.optimizer.registers import place
from ebpfjit.optimizer.remarks import Remark, blamed
from ebpfjit.options import DEFAULTS, Options
from ebpfjit.program import Instruction
from ebpfjit.record import lazy
from ebpfjit.runtime.execution import CODE_ADDRESS, MAX_LOOPS
from ebpfjit.runtime.helpers.names import NUMBERS
from ebpfjit.translators import registry, x86_64
from ebpfjit.translators.emitter import Jump, Part, Piece, Snippet, Text, lines_of
from ebpfjit.translators.x86_64.fusion import Fusion
from ebpfjit.translators.x86_64.memory import emit_check
from ebpfjit.translators.x86_64.pairs import Pair
from ebpfjit.translators.x86_64.plan import ArenaPlan, Border, Check, Plan, Predicate, Settings, Sweep
from ebpfjit.translators.x86_64.predicates import emit_predicate, emit_predicate_apart
from ebpfjit.translators.x86_64.target import (
    AUDITED_VALUES,
    VALUES,
    Context,
    Limit,
    emit_charge,
    emit_end_of_program,
    emit_entry,
    emit_function_entry,
    emit_resume,
    emit_shared,
    function_label,
    leave_label,
    pay,
    pc_label,
    slow_block_label,
    slow_label,
)
from ebpfjit.translators.x86_64.trace import emit_trace_point, emit_trace_routine

LOOP_ALIGNMENT = 32
TAIL_CALL = NUMBERS["bpf_tail_call"]
REGIONS = {Origin.STACK: "stack", Origin.ARGUMENT: "argument", Origin.PACKET: "packet"}
RAW_REGIONS = {**REGIONS, Origin.PACKET: "argument"}
"""Where the argument is the packet: it is measured."""


@dataclass(frozen=True)
class Listing:
    """A program as assembly text, the cold pieces last.

    `limits` are the words that the host puts behind the block, in order. `notes` say of each
    access (by pc) why it is checked or not. `traced` are the pcs that traced code records, `resumes` those
    where a run of baseline code can go on; at those of `returns` it calls functions. `why_baseline` is that
    of the recipe. From the piece `baseline_from` on it is baseline code, for side exits. `remarks` are what
    passes left alone.
    """

    verified: Verified
    text: Text
    limits: tuple[Limit, ...]
    notes: dict[int, str]
    harden: bool = False
    traced: frozenset[int] = frozenset()
    resumes: tuple[int, ...] = ()
    returns: tuple[int, ...] = ()
    why_baseline: str = ""
    baseline_from: int | None = None
    remarks: tuple[Remark, ...] = ()

    @property
    def parts(self) -> list[Part]:
        """What the text consists of."""
        return self.text.parts

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """The text, piece by piece, for who reads it."""
        return self.text.pieces


@dataclass(frozen=True)
class Recipe:
    """All that a listing is made from.

    `helpers` and `kfuncs` are the numbers that are registered; True for native code, False for what the host
    must call. `why_baseline` says why the program is not optimised though that was asked for.
    """

    verified: Verified
    options: Options = DEFAULTS
    helpers: Mapping[int, bool] = field(default_factory=dict)
    kfuncs: Mapping[int, bool] = field(default_factory=dict)
    why_baseline: str = ""

    @lazy
    def promises(self) -> Promises:
        """What every run will have: where nothing says which helpers may call the program, all may."""
        promises = self.options.promises
        if promises.calling is not None:
            return promises
        return replace(promises, calling=frozenset(self.helpers))

    @lazy
    def settings(self) -> Settings:
        """What translators read, the runtime's constants filled in."""
        options, calling = self.options, self.promises.calling
        assert calling is not None  # it was filled in
        return Settings(
            cpu.features() if options.features is None else options.features,
            options.harden,
            self.helpers,
            self.kfuncs,
            calling,
            MAX_LOOPS,
            CODE_ADDRESS,
            TAIL_CALL,
            options.trace,
        )

    @property
    def by_values(self) -> bool:
        """True for code that the optimizer makes; a trace wants every instruction in its place."""
        options = self.options
        return bool(options.optimize and options.values and not options.trace)

    @lazy
    def entries(self) -> Entries:
        """The ways into the program, as its helpers are."""
        return self.verified.entries_with(self.promises.calling)

    @property
    def charges(self) -> Charges:
        """What is paid where."""
        optimized = self.options.optimize and not self.by_values
        return self.verified.charges if optimized else self.verified.own_charges

    def facts(self) -> Facts:
        """Return what is known of the program's accesses. Raises OptimizationError where that takes too much.

        Nothing is checked before loops in hardened code, as that would carry numbers of the program.
        """
        options = self.options
        if not options.optimize:
            return baseline(self.verified)
        return analyse(self.verified, self.promises, hoists=options.checked and not options.harden)

    def baseline(self, reason: str) -> Recipe:
        """Return the recipe of the same program's baseline code, which is taken for a reason."""
        options = replace(self.options, optimize=False, resumes=frozenset())
        return replace(self, options=options, why_baseline=reason)

    def listing(self) -> Listing:
        """Return the program's assembly text.

        Raises TranslationError where an operation has no translator, and as `facts`.
        """
        if self.by_values:
            listing = _optimised(self)
        else:
            facts = self.facts()
            done("analyse")
            listing = _translate(self, facts)
        done("translate")
        return listing


def _translate(recipe: Recipe, facts: Facts) -> Listing:
    verified, settings = recipe.verified, recipe.settings
    program = verified.program
    assert verified.knows_all or not recipe.options.optimize  # what is known of loads holds for others only
    cx = Context(program, verified.frame_sizes, _plan(recipe, facts), settings)
    cx.keep_limits(recipe.options.limits)
    emit_entry(cx)
    for pc in program.functions:
        emit_function_entry(cx, pc)
    shortcuts = NO_SHORTCUTS
    if recipe.options.optimize:
        shortcuts = _shortcuts(verified, cx.checks, harden=settings.harden, trace=bool(settings.trace))
    phrases = Phrases(settings, len(program))
    blocks, words = verified.blocks, program.words
    repeated = {} if settings.trace else phrases.known
    plan = cx.plan
    apart = _apart(cx, verified, shortcuts)
    labels = {pc: pc_label(pc) for pc in blocks}
    nothing = set() if settings.trace else shortcuts.nothing(cx) - blocks.keys()
    for instruction in program.instructions:
        pc = instruction.pc
        phrase = repeated.get(words[pc])
        if phrase is not None and pc not in apart:  # most instructions: what was written before
            snippet, jump = phrase
            target = instruction.target if jump else None
            label = labels.get(target, "") if target is not None and target not in plan.predicates else ""
            if not jump and pc not in blocks:
                cx.place(pc, snippet)
                continue
            if label or not jump:
                cx.begin(pc)
                if pc in blocks:
                    cx.start(instruction)
                    _block_start(cx, verified, pc, labels[pc])
                cx.insert(snippet)
                if jump:
                    cx.jump(jump, label)
                continue
        cx.begin(pc)
        if pc in nothing:
            continue  # what comes later does its work
        cx.start(instruction)
        if pc in plan.predicates:
            _before_loop(cx, pc, shortcuts)
        if pc in shortcuts.skipped:
            if pc in blocks:
                cx.label(labels[pc], LOOP_ALIGNMENT if pc in verified.loop_headers else 1)
            continue  # the conditional jump before it did its work
        if pc in blocks:
            _block_start(cx, verified, pc, labels[pc])
        _trace(cx, pc, shortcuts)
        _instruction(cx, verified, instruction, shortcuts, phrases)
    if not recipe.options.is_sound:
        emit_end_of_program(cx, len(program))
    _slow_copies(cx, verified, shortcuts, phrases)
    resumes = sorted(recipe.options.resumes & recipe.entries.tested - shortcuts.skipped)
    for pc in resumes:
        emit_resume(cx, pc)
    if settings.trace:
        emit_trace_routine(cx)
    emit_shared(cx)
    x86_64.host.emit_host_calls(cx)
    return Listing(
        verified,
        cx.text(),
        tuple(cx.limits),
        _notes(recipe, facts),
        settings.harden,
        frozenset(cx.traced),
        tuple(resumes),
        tuple(cx.returns),
        recipe.why_baseline,
    )


def _optimised(recipe: Recipe) -> Listing:
    """Return the text of a program's optimised code, and behind it of the baseline code that it leaves to."""
    verified, settings = recipe.verified, recipe.settings
    program = verified.program
    options = recipe.options
    registers = AUDITED_VALUES if options.audit else VALUES
    chosen = ALL_PASSES if options.passes is None else options.passes
    resumes = options.resumes & recipe.entries.tested
    code = optimised(verified, recipe.promises, resumes, checked=options.checked, chosen=chosen)
    frameless = verified.calls.frameless
    if frameless:  # they are called without r10 being saved
        registers = replace(registers, reserved=1 << FRAME_POINTER)
    with blamed("registers"):
        placed = place(code, registers)
    below = recipe.baseline("")
    plan = _plan(below, below.facts())
    if frameless and writes_frame_pointer(placed):
        frameless = frozenset()
    if frameless:  # a function of baseline code may find another's frame
        plan = _without_frames(plan)
    cx = Context(program, verified.frame_sizes, plan, settings)
    cx.keep_limits(options.limits)
    cx.pinned = None  # r11 has values
    cx.functions, cx.frame_top = function_label, ""
    cx.likely = "argument" if recipe.promises.argument_is_measured else "packet"
    emit_entry(cx)
    for pc in program.functions:
        emit_function_entry(cx, pc)
    cx.plan = replace(
        plan,
        map_calls=map_calls(verified, known_maps(code), {}, options),
        checks={},
        single={},
        bounded=verified.calls.bounded,
        frameless=frameless,
    )
    cx.checks = cx.plan.checks
    with blamed("lowering"):
        left = lower(cx, placed, registers, checked=options.checked)
    cx.plan, cx.checks = plan, plan.checks
    baseline_from = cx.piece_count
    _below(cx, verified, left, Phrases(settings, len(program)))
    emit_end_of_program(cx, len(program))
    for pc in sorted(resumes & program.functions.keys()):
        emit_resume(cx, pc, function_label(pc))
    emit_shared(cx)
    x86_64.host.emit_host_calls(cx)
    return Listing(
        verified,
        cx.text(),
        tuple(cx.limits),
        _notes_of(code, checked=options.checked),
        settings.harden,
        resumes=tuple(sorted(resumes)),
        returns=tuple(cx.returns),
        why_baseline=recipe.why_baseline,
        baseline_from=baseline_from,
        remarks=tuple(code.remarks),
    )


def _without_frames(plan: Plan) -> Plan:
    """Return a plan whose checks take nothing for granted about the frame that they are in."""
    checks = {
        pc: replace(check, frame_size=0) if check.region == "stack" else check
        for pc, check in plan.checks.items()
    }
    return replace(plan, checks=checks, single=checks)


def _notes_of(code: Code, *, checked: bool) -> dict[int, str]:
    """Return what the listing says of accesses: why each is checked or not."""
    accesses = [insn for insn in code.verified.program.instructions if insn.row and insn.row.kind in MEMORY]
    if not checked:
        return {insn.pc: "not checked" for insn in accesses}
    notes = {insn.pc: "no access: what is in the frame there is a value" for insn in accesses}
    for pc, proofs in code.proofs.items():
        rule, by = proofs[-1].rule, proofs[-1].by
        notes[pc] = RULES.get(rule, f"no check: {rule}").format(by=by)
    for block in code.blocks:
        for op in block.ops:
            if op.row is BOUND and op.args and op.pc in notes:
                first = f", {op.region} first" if op.region else ""
                notes[op.pc] = f"checked{first}: {op.imm} bytes"
            elif op.row is BOUND and op.pc in notes:
                notes[op.pc] = f"checked: {op.offset + op.imm} bytes of the argument"
    return notes


RULES = {
    "loop": "no check: made before the loop at pc {by}",
    "covered": "no check: one at pc {by} covers it",
    "writable": "checked: may it be written",
}
"""What a listing says of rules that proofs are by, where that is not the rule's name."""


def _below(cx: Context, verified: Verified, left: Collection[int], phrases: Phrases) -> None:
    """Emit baseline code, that can be entered at the slots that optimised code leaves to."""
    apart = _apart(cx, verified, NO_SHORTCUTS)
    words, blocks = verified.program.words, verified.blocks
    labels = {pc: pc_label(pc) for pc in blocks}
    entered = {**labels, **{pc: leave_label(pc) for pc in left if pc not in blocks}}
    special = {*apart, *entered}
    known, place_ = phrases.known, cx.place
    for instruction in verified.program.instructions:
        pc = instruction.pc
        phrase = known.get(words[pc])
        if phrase is not None:
            if pc not in special and not phrase[1]:
                place_(pc, phrase[0])  # most instructions: what was written before, and nothing else
                continue
            if pc in apart:
                phrase = None
        cx.begin(pc)
        if pc in labels:
            cx.start(instruction)
            _block_start(cx, verified, pc, labels[pc])
        elif pc in entered:
            cx.label(entered[pc])
        target = instruction.target if phrase is not None and phrase[1] else None
        if phrase is None or (target is not None and target not in labels):
            cx.start(instruction)
            _instruction(cx, verified, instruction, NO_SHORTCUTS, phrases)
            continue
        cx.insert(phrase[0])
        if target is not None:
            cx.jump(phrase[1], labels[target])


def _apart(cx: Context, verified: Verified, shortcuts: Shortcuts) -> set[int]:
    """Return the slots at which something else stands than the instruction alone would have there."""
    plan = cx.plan
    return {
        *cx.checks,
        *plan.audits,
        *plan.kernel_loads,
        *(plan.arena.accesses if plan.arena is not None else ()),
        *shortcuts.slots,
        *verified.illegal,
        *plan.taken,
        *plan.through,
        *plan.predicates,
    }


def _notes(recipe: Recipe, facts: Facts) -> dict[int, str]:
    """Return what the listing says of accesses: how each is checked."""
    verified, checked = recipe.verified, recipe.options.checked
    notes = {pc: access.reason if checked else "not checked" for pc, access in facts.accesses.items()}
    notes |= dict.fromkeys(verified.kernel_loads, "the kernel's memory, or zero")
    if verified.arena is not None:
        notes |= dict.fromkeys(verified.arena.accesses, "the arena, or nothing")
    return notes


def _block_start(cx: Context, verified: Verified, pc: int, label: str) -> None:
    """Emit the label of a basic block, and its payment."""
    cx.label(label, LOOP_ALIGNMENT if pc in verified.loop_headers else 1)
    if pc in verified.tested:
        emit_charge(cx, verified.costs[pc])
    else:
        pay(cx, cx.plan.own.get(pc, 0))


def _before_loop(cx: Context, header: int, shortcuts: Shortcuts) -> None:
    """Emit what is asked before a loop, but not in the way of a loop that comes round to its header there."""
    predicate = cx.plan.predicates[header]
    slots = cx.program.slots
    before = slots[header - 1] or slots[header - 2]
    assert before is not None  # no loop that a function starts with is asked about
    start, falls = before.pc, before.row is not None and before.row.kind not in NEVER_FALLS_THROUGH
    while start in shortcuts.skipped:
        start, falls = start - 1, True  # a pair goes on behind what it skips
    if falls and start in predicate.slots:
        emit_predicate_apart(cx, header, predicate)
    else:
        emit_predicate(cx, header, predicate)


def translate_routine(verified: Verified) -> Listing:
    """Return the text of a bare function: r1 to r5 are what it is called with, r0 what it returns.

    There is no block, no check and no budget; below r10 lies as much stack as the program names. The
    program is one function that calls nothing.
    """
    program = verified.program
    plan = Plan({}, {}, frozenset(), frozenset(), {}, {}, {}, {}, True, frozenset())
    settings = Recipe(verified).settings
    cx = Context(program, verified.frame_sizes, plan, settings)
    routine = x86_64.routine.Routine(program)
    routine.enter(cx)
    shortcuts = _shortcuts(verified, {}, harden=False, trace=False)
    phrases = Phrases(settings, len(program))
    for instruction in program.instructions:
        pc = instruction.pc
        cx.begin(pc)
        cx.start(instruction)
        if pc in verified.blocks:
            cx.label(pc_label(pc), LOOP_ALIGNMENT if pc in verified.loop_headers else 1)
        if pc in shortcuts.skipped:
            continue
        if instruction.row is not None and instruction.row.kind is Kind.EXIT:
            routine.leave(cx)
        else:
            _instruction(cx, verified, instruction, shortcuts, phrases)
    assert not cx.used  # it needs nothing of what programs share
    return Listing(verified, cx.text(), (), {})


PLACELESS = frozenset(
    {Kind.BINARY, Kind.MOVE, Kind.UNARY, Kind.LOAD, Kind.STORE, Kind.JUMP, Kind.BRANCH, Kind.EXIT}
)
"""What is translated the same wherever it stands, but for where it jumps to."""

Phrase = tuple[Snippet, str]
"""Lines, and the jump to the instruction's target that comes behind them ("": none)."""

_known_phrases: defaultdict[frozenset[str], Memo[int, Phrase]] = defaultdict(Memo)
_known_fused: defaultdict[frozenset[str], Memo[Fusion, Snippet]] = defaultdict(Memo)
_known_fusions: Memo[tuple[tuple[int, ...], tuple[int, ...]], Fusion | None] = Memo()


class Phrases:
    """What instructions were translated to before, by their word.

    Only where a translator wrote lines and nothing else, perhaps with the jump to the target behind
    them, and only for instructions that nothing sets apart: no check, no fusion.
    """

    def __init__(self, settings: Settings, size: int) -> None:
        self._learns = not settings.harden
        self.known: dict[int, Phrase] = _known_phrases[settings.features].trim(size) if self._learns else {}
        self.fused: dict[Fusion, Snippet] = _known_fused[settings.features].trim(size) if self._learns else {}
        _known_fusions.trim(size)

    def fuse(self, cx: Context, fusion: Fusion) -> None:
        """Emit a fusion: what it wrote before, where that was lines only and it needs no check here."""
        snippet = self.fused.get(fusion)
        is_checked = cx.is_checked(cx.insn.pc)
        if snippet is not None and not is_checked:
            cx.insert(snippet)
            return
        before = self.before(cx)
        fusion.emit(cx)
        lines = lines_of(cx.written()[before[0] :])
        if lines is not None and not is_checked and self.before(cx)[1:] == before[1:]:
            self.fused[fusion] = Snippet(lines)

    def repeat(self, cx: Context, instruction: Instruction) -> bool:
        """Emit what the instruction's word was translated to before; False where that is not known."""
        phrase = self.known.get(cx.program.words[instruction.pc])
        if phrase is None:
            return False
        snippet, jump = phrase
        if jump:
            target = instruction.target
            assert target is not None  # it jumped before
            if not is_inside(cx.program, target):
                return False
            cx.insert(snippet)
            cx.jump(jump, pc_label(target))
        else:
            cx.insert(snippet)
        return True

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


@dataclass(frozen=True)
class Shortcuts:
    """Where several instructions are translated together: pairs by the pc of the first, fusions of the last.

    `skipped` are the slots of pairs but the first of each. `done` are the slots that a fusion behind
    them translates, `later` those of fusions but the first of each; `checked` are those of `done` of
    which the check stays. `flagged` are conditional jumps for which the instruction before them has set
    the flags. `gathered` are the slots of which fast code makes one wide load, in the place of one.
    """

    pairs: Mapping[int, Pair]
    skipped: frozenset[int]
    fusions: Mapping[int, Fusion]
    done: frozenset[int]
    later: frozenset[int]
    checked: frozenset[int] = frozenset()
    flagged: frozenset[int] = frozenset()
    gathered: Mapping[int, Callable[[Context], None] | None] = field(default_factory=dict)

    @lazy
    def slots(self) -> frozenset[int]:
        """All of them."""
        slots = {*self.pairs, *self.skipped, *self.fusions, *self.done, *self.flagged}
        return frozenset(slots.union(self.gathered))

    def nothing(self, cx: Context) -> set[int]:
        """Return the slots of which nothing is left."""
        gathered = {pc for pc, emit in self.gathered.items() if emit is None and not cx.is_checked(pc)}
        return gathered | (self.done - self.checked - self.gathered.keys())


NO_SHORTCUTS = Shortcuts({}, frozenset(), {}, frozenset(), frozenset())
"""Those of code that is not optimised."""


def _shortcuts(verified: Verified, checks: Mapping[int, Check], *, harden: bool, trace: bool) -> Shortcuts:
    """Find them; hardened code has none but pairs, as fusions carry numbers that the program chose.

    Traced code gathers nothing, as it shows the numbers in between.
    """
    pairs = _pairs(verified)
    skipped = frozenset(slot for pc, pair in pairs.items() for slot in range(pc + 1, pair.stop))
    fusions: dict[int, Fusion] = {}
    done: set[int] = set()
    later: set[int] = set()
    checked: set[int] = set()
    if harden:
        return Shortcuts(pairs, skipped, fusions, frozenset(), frozenset())
    program = verified.program
    live = live_after(verified.liveness)
    gathered = {} if trace else _gathered(verified, live, checks)
    instructions = program.instructions
    names = [insn.row.name if insn.row is not None else "" for insn in instructions]
    words, beginnings = program.words, x86_64.fusions.BEGINNINGS
    apart = {*skipped, *gathered, *verified.illegal}
    stops = {*verified.blocks, *pairs, *gathered, *verified.illegal}
    for index in [index for index, both in enumerate(pairwise(names)) if both in beginnings]:
        first, second = instructions[index], instructions[index + 1]
        if second.pc in stops or first.pc in later or first.pc in apart:
            continue
        window = [first]
        for insn in instructions[index + 1 : index + x86_64.fusions.LONGEST]:
            if insn.pc in stops:
                break
            window.append(insn)
        fusion = _fusion_of(window, words, live) if len(window) > 1 else None
        if fusion is not None:
            *before, last = window[: fusion.count]
            fusions[last.pc] = fusion
            done.update(insn.pc for insn in before)
            later.update(insn.pc for insn in window[1 : fusion.count])
            if fusion.keeps_check:
                checked.add(first.pc)
    return Shortcuts(
        pairs,
        skipped,
        fusions,
        frozenset(done),
        frozenset(later),
        frozenset(checked),
        frozenset(_flagged(verified, pairs, {*fusions, *done, *gathered})),
        gathered,
    )


def _fusion_of(window: list[Instruction], words: Sequence[int], live: Sequence[int]) -> Fusion | None:
    """Return the fusion that a window of instructions begins with, if any, as it was found before."""
    lives = [live[insn.pc] for insn in window]
    key = tuple([words[insn.pc] for insn in window]), tuple(lives)
    try:
        return _known_fusions[key]
    except KeyError:
        found = _known_fusions[key] = x86_64.fusions.fuse(window, lives)
        return found


def _gathered(
    verified: Verified, live: Sequence[int], checks: Mapping[int, Check]
) -> dict[int, Callable[[Context], None] | None]:
    """Return what is gathered, in blocks that have two loads to put together."""
    gather = x86_64.gather
    instructions, effects = verified.program.instructions, verified.liveness.effects
    joins = [i for i, insn in enumerate(instructions) if insn.row and insn.row.name in gather.JOINS]
    found: dict[int, Callable[[Context], None] | None] = {}
    if not joins:
        return found
    stops = list(accumulate(verified.blocks.values()))
    for number in sorted({bisect_right(stops, index) for index in joins}):
        start, stop = stops[number - 1] if number else 0, stops[number]
        block = instructions[start:stop]
        if sum(insn.row is not None and insn.row.name in gather.LOADS for insn in block) < 2:
            continue
        if verified.illegal and any(insn.pc in verified.illegal for insn in block):
            continue
        found.update(gather.gathered(block, effects[start:stop], live[block[-1].pc], checks))
    return found


def _flagged(verified: Verified, pairs: Mapping[int, Pair], fused: set[int]) -> set[int]:
    """Return the conditional jumps that need no comparison, as the instruction before them made one.

    Pairs that do something before they compare are left out.
    """
    instructions, stop = verified.program.instructions, 0
    found = set()
    for count in verified.blocks.values():
        stop += count
        branch = instructions[stop - 1]
        if count == 1 or branch.imm or branch.row is None or branch.row.kind is not Kind.BRANCH:
            continue
        pair = pairs.get(branch.pc)
        if pair is None or pair.compares_first:
            before = instructions[stop - 2]
            if fused.isdisjoint((before.pc, branch.pc)) and x86_64.fusions.leaves_flags(before, branch):
                found.add(branch.pc)
    return found


def _pairs(verified: Verified) -> dict[int, Pair]:
    """Return, by pc, the conditional jumps that are translated with what they skip.

    Nothing else may jump there, and where it goes on must be in the program.
    """
    program = verified.program
    slots = program.slots
    targets: set[int] = set()
    found: dict[int, Pair] = {}
    for insn, second in pairwise(program.instructions):
        row = insn.row
        if row is None or row.kind is not Kind.BRANCH or second.row is None:
            continue
        if second.row.meaning != "MOV" and (second.row.kind is not Kind.JUMP or insn.offset != 1):
            continue
        if not targets:
            targets = {target for _, target in program.jumps} | set(program.functions)
        if second.pc in targets:
            continue
        third = slots[second.next_pc] if second.next_pc < len(slots) else None
        if third is not None and third.pc in targets:
            third = None
        pair = x86_64.pairs.pair_of(insn, second, third)
        if pair is None or any(
            not is_inside(program, target) for target in (insn.target, second.target) if target is not None
        ):
            continue
        if verified.illegal and not verified.illegal.keys().isdisjoint(range(insn.pc, pair.stop)):
            continue
        found[insn.pc] = pair
    return found


def _trace(cx: Context, pc: int, shortcuts: Shortcuts) -> None:
    """Record the state before an instruction, in traced code; of a fusion only before its first.

    What a fusion leaves out has no state of its own, and tracing is not to change what is traced.
    """
    if cx.settings.trace and pc not in shortcuts.later:
        emit_trace_point(cx, pc)


def _instruction(
    cx: Context, verified: Verified, instruction: Instruction, shortcuts: Shortcuts, phrases: Phrases
) -> None:
    """Translate one instruction, or repeat what its word was translated to before."""
    pc = instruction.pc
    if pc in shortcuts.slots or cx.is_checked(pc) or pc in verified.illegal or pc in cx.plan.taken:
        _anew(cx, verified, instruction, shortcuts, phrases)
    elif instruction.target is not None and (cx.is_slow or instruction.target in cx.plan.predicates):
        _anew(
            cx, verified, instruction, shortcuts, phrases
        )  # it may go on in slow code, or where something is asked
    elif not phrases.repeat(cx, instruction):
        before = phrases.before(cx)
        _anew(cx, verified, instruction, shortcuts, phrases)
        phrases.learn(cx, instruction, before)
    if pc not in shortcuts.pairs:
        pay(cx, cx.plan.through.get(pc, 0))


def _anew(
    cx: Context, verified: Verified, instruction: Instruction, shortcuts: Shortcuts, phrases: Phrases
) -> None:
    """Translate one instruction; what no engine can run becomes a fault."""
    row = instruction.row
    if row is None or instruction.pc in verified.illegal:
        cx.raise_fault("illegal")
        return
    target = x86_64.target.NAME
    try:
        translator = registry.translator_of(target, row)
    except KeyError:
        raise TranslationError(f"pc {instruction.pc}: {target} does not translate {row.operation}") from None
    if instruction.pc in shortcuts.slots:
        _shortened(cx, verified, instruction, shortcuts, phrases, translator)
    else:
        cx.has_flags = False
        translator(instruction, cx)


def _shortened(
    cx: Context,
    verified: Verified,
    instruction: Instruction,
    shortcuts: Shortcuts,
    phrases: Phrases,
    translator: registry.Translator,
) -> None:
    """Translate one instruction together with others, as far as that is its turn."""
    if instruction.pc in shortcuts.gathered and not cx.is_slow:
        if cx.is_checked(instruction.pc):
            emit_check(cx, cx.src64, instruction.offset, instruction)
        emit = shortcuts.gathered[instruction.pc]
        if emit is not None:
            emit(cx)
        return
    if instruction.pc in shortcuts.done:
        if instruction.pc in shortcuts.checked:
            emit_check(cx, cx.src64, instruction.offset, instruction)
        return
    fusion = shortcuts.fusions.get(instruction.pc)
    if fusion is not None:
        phrases.fuse(cx, fusion)
        return
    pair = shortcuts.pairs.get(instruction.pc)
    cx.has_flags = instruction.pc in shortcuts.flagged and not cx.settings.trace
    if pair is None:
        translator(instruction, cx)
        return
    second = verified.program.slots[instruction.pc + 1]
    assert second is not None  # a pair is two instructions of one slot
    pair.emit(cx, instruction, second, translator)


def _slow_copies(cx: Context, verified: Verified, shortcuts: Shortcuts, phrases: Phrases) -> None:
    """Translate once more what goes on where a merged check fails, checking one by one.

    The fast code comes here, at the merged check's instruction. The rest of its block is here, and
    whole blocks that rely on a check that failed; from the others it goes on in the fast code.
    """
    cx.checks = cx.plan.single
    cx.is_slow = True
    slots, blocks, doubtful = verified.program.slots, verified.blocks, cx.plan.doubtful
    leaders = {pc for pc, check in cx.plan.checks.items() if check.merged}
    done = 0
    for start in sorted(leaders | doubtful):
        pc = start
        if pc < done or pc in shortcuts.skipped:
            continue  # an earlier copy has passed here
        while True:
            instruction = slots[pc]
            assert instruction is not None  # blocks consist of instructions
            cx.begin(pc)
            cx.start(instruction)
            if pc in doubtful:
                cx.label(slow_block_label(pc))
                if pc in verified.tested:
                    emit_charge(cx, verified.costs[pc])
            if pc != start or pc in doubtful:
                _trace(cx, pc, shortcuts)  # who comes from the fast code was recorded there
            if pc in leaders:
                cx.label(slow_label(pc))
            _instruction(cx, verified, instruction, shortcuts, phrases)
            pc = instruction.next_pc
            if pc in blocks or pc >= len(slots):
                break
        done = pc
        if instruction.row is None or instruction.row.kind not in NEVER_FALLS_THROUGH:
            pair = shortcuts.pairs.get(instruction.pc)
            cx.jump("jmp", cx.label_of(pc if pair is None else pair.stop))
    cx.is_slow = False


def _plan(recipe: Recipe, facts: Facts) -> Plan:
    verified, options = recipe.verified, recipe.options
    checked = options.checked
    regions = RAW_REGIONS if options.promises.argument_is_measured else REGIONS
    checks: dict[int, Check] = {}
    single: dict[int, Check] = {}
    elsewhere = verified.found_elsewhere
    for pc, access in facts.accesses.items() if checked else ():
        if (access.proof and not access.assumes) or pc in elsewhere:
            continue
        single[pc] = _check(access, regions, 0, access.size, stores=access.stores)
        if access.assumes or access.before is not None:
            continue
        if access.span is not None:
            low, high, stores = access.span
            checks[pc] = _check(access, regions, low, high, stores=stores, merged=True)
        elif access.leader is None:
            checks[pc] = single[pc]
    charges, calls = recipe.charges, verified.calls if options.optimize else UNKNOWN
    return Plan(
        checks,
        single,
        _zeroed(recipe, facts, single),
        facts.doubtful if checked else frozenset(),
        charges.paid,
        charges.through,
        charges.taken,
        calls.writes,
        calls.bounded,
        frozenset() if options.trace else calls.frameless,  # a trace shows r10
        map_calls(verified, facts.maps, facts.in_frame, options),
        _predicates(verified, facts, regions) if checked else {},
        charges.own,
        facts.relying if checked else frozenset(),
        recipe.entries.is_called_back,
        options.audit,
        audits_of(verified) if options.audit else {},
        verified.kernel_loads,
        _struct_rights(recipe),
        _arena(verified),
    )


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


def _zeroed(recipe: Recipe, facts: Facts, single: Mapping[int, Check]) -> frozenset[int]:
    """Return the functions whose frame is zeroed where it is taken: all, where anything may look there.

    What a check at run time lets through, or what is called outside may read, is whatever address the program
    made up; only where there is neither does it depend on what analysis has seen to be named.
    """
    program = recipe.verified.program
    if (
        single
        or not recipe.verified.knows_all
        or (recipe.options.checked and not OUTWARD_CALLS.isdisjoint(program.operations))
    ):
        return frozenset(program.functions)
    return facts.zeroed


def _predicates(verified: Verified, facts: Facts, regions: Mapping[Origin, str]) -> dict[int, Predicate]:
    """Return what is asked before loops, as translators have it."""
    stops = dict(pairwise([*verified.blocks, len(verified.program)])) if facts.predicates else {}
    found = {}
    for header, predicate in facts.predicates.items():
        slots = frozenset(slot for start in predicate.blocks for slot in range(start, stops[start]))
        distance, border = predicate.distance, predicate.distance.border
        found[header] = Predicate(
            slots,
            distance.minuend,
            distance.subtrahend,
            distance.plus,
            distance.unit,
            distance.exact,
            None if border is None else Border(border.register, border.offset, border.is_most, border.number),
            tuple(
                Sweep(
                    sweep.terms, sweep.offset, sweep.size, sweep.factor, sweep.stores, regions[sweep.origin]
                )
                for sweep in predicate.sweeps
            ),
        )
    return found


def _check(
    access: Access, regions: Mapping[Origin, str], low: int, high: int, *, stores: bool, merged: bool = False
) -> Check:
    behind = 1 if access.within else 0
    if not behind and access.distance is not None and access.distance[0] + low >= 0:
        behind = access.distance[1] + high
    return Check(regions[access.origin], low, high, stores, access.frame_size, behind, merged)
