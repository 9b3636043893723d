"""Verified -> Listing: the assembly text of every instruction, from the registry of translators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from ebpfjit.analysis.cfg import NEVER_FALLS_THROUGH, is_inside
from ebpfjit.analysis.facts import Access, Facts, Promises, analyse
from ebpfjit.analysis.liveness import live_after
from ebpfjit.analysis.values import Origin
from ebpfjit.analysis.verified import Verified
from ebpfjit.errors import TranslationError
from ebpfjit.program import Instruction
from ebpfjit.runtime.execution import CODE_ADDRESS, MAX_LOOPS, SLICE
from ebpfjit.translators import registry, x86_64
from ebpfjit.translators.emitter import Piece
from ebpfjit.translators.x86_64.fusions import Fusion
from ebpfjit.translators.x86_64.pairs import Pair
from ebpfjit.translators.x86_64.target import (
    Check,
    Context,
    Limit,
    Plan,
    Settings,
    emit_charge,
    emit_end_of_program,
    emit_entry,
    emit_function_entry,
    emit_shared,
    pc_label,
    slow_label,
)

LOOP_ALIGNMENT = 16
REGIONS = {Origin.STACK: "stack", Origin.ARGUMENT: "argument", Origin.PACKET: "packet"}


@dataclass(frozen=True)
class Listing:
    """A program as assembly text: pieces in the order of their addresses, the cold ones last.

    `limits` are the words that the host puts behind the block, in order. `notes` say of each
    access (by pc) why it is checked or not.
    """

    verified: Verified
    pieces: tuple[Piece, ...]
    limits: tuple[Limit, ...]
    notes: dict[int, str]


def settings_for(
    *,
    features: frozenset[str] = frozenset(),
    harden: bool = False,
    helpers: Mapping[int, bool] | None = None,
    kfuncs: Mapping[int, bool] | None = None,
    moving: frozenset[int] = frozenset(),
    lookups: frozenset[int] = frozenset(),
) -> Settings:
    """Return translator settings with the runtime's constants filled in."""
    return Settings(
        features, harden, helpers or {}, kfuncs or {}, moving, lookups, MAX_LOOPS, CODE_ADDRESS, SLICE
    )


def translate(
    verified: Verified,
    settings: Settings,
    *,
    checked: bool = True,
    argument_size: int = 0,
    argument_writable: bool = True,
) -> Listing:
    """Return the program's assembly text.

    Without `checked` no access is checked. `argument_size` is how many bytes the caller promises
    behind r1, readable and, where `argument_writable`, writable. Raises TranslationError where an
    operation has no translator.
    """
    program = verified.program
    promises = Promises(argument_size, argument_writable, settings.moving, settings.lookups)
    facts = analyse(program, verified.frame_sizes, promises)
    cx = Context(program, verified.frame_sizes, _plan(facts, checked=checked), settings)
    emit_entry(cx)
    for pc in program.functions:
        emit_function_entry(cx, pc)
    shortcuts = _shortcuts(verified, harden=settings.harden)
    for instruction in program.instructions:
        pc = instruction.pc
        cx.begin(pc)
        cx.label(pc_label(pc), LOOP_ALIGNMENT if pc in verified.loop_headers else 1)
        if pc - 1 in shortcuts.pairs:
            continue  # the conditional jump before it did its work
        cx.start(instruction)
        if pc in verified.blocks:
            emit_charge(cx, verified.blocks[pc], tested=pc in verified.tested)
        _instruction(cx, verified, instruction, shortcuts)
    emit_end_of_program(cx, len(program))
    _slow_copies(cx, verified, shortcuts)
    x86_64.host.emit_host_calls(cx)
    emit_shared(cx)
    notes = {pc: access.reason if checked else "not checked" for pc, access in facts.accesses.items()}
    return Listing(verified, (*cx.pieces, *cx.cold), tuple(cx.limits), notes)


@dataclass(frozen=True)
class Shortcuts:
    """Where several instructions are translated together, by the pc of the first.

    `done` are the slots that a fusion before them has translated.
    """

    pairs: Mapping[int, Pair]
    fusions: Mapping[int, Fusion]
    done: frozenset[int]


def _shortcuts(verified: Verified, *, harden: bool) -> Shortcuts:
    """Find them; hardened code has none but pairs, as fusions carry numbers that the program chose."""
    pairs = _pairs(verified)
    fusions: dict[int, Fusion] = {}
    done: set[int] = set()
    if harden:
        return Shortcuts(pairs, fusions, frozenset())
    program = verified.program
    live = live_after(program, verified.blocks)
    instructions = program.instructions
    skipped = {pc + 1 for pc in pairs}
    index = 0
    while index < len(instructions):
        window = [instructions[index]]
        for insn in instructions[index + 1 : index + x86_64.fusions.LONGEST]:
            if insn.pc in verified.blocks:
                break
            window.append(insn)
        fusion = None
        if window[0].pc not in skipped and not {insn.pc for insn in window} & verified.illegal.keys():
            fusion = x86_64.fusions.fuse(window, [live[insn.pc] for insn in window])
        if fusion is not None:
            fusions[window[0].pc] = fusion
            done.update(insn.pc for insn in window[1 : fusion.count])
        index += fusion.count if fusion is not None else 1
    return Shortcuts(pairs, fusions, frozenset(done))


def _pairs(verified: Verified) -> dict[int, Pair]:
    """Return, by pc, the conditional jumps that are translated with the one instruction they skip.

    Nothing else may jump to that instruction, and where it goes must be in the program.
    """
    program = verified.program
    targets = {insn.target for insn in program.instructions} | set(program.functions)
    found: dict[int, Pair] = {}
    for insn, second in pairwise(program.instructions):
        row = insn.row
        if row is None or insn.target != insn.pc + 2 or second.slots != 1 or second.pc in targets:
            continue
        if {insn.pc, second.pc} & verified.illegal.keys() or not is_inside(program, insn.pc + 2):
            continue
        if second.target is not None and not is_inside(program, second.target):
            continue
        pair = x86_64.pairs.pair_of(row, second.row)
        if pair is not None and insn.pc - 1 not in found:
            found[insn.pc] = pair
    return found


def _instruction(cx: Context, verified: Verified, instruction: Instruction, shortcuts: Shortcuts) -> None:
    """Translate one instruction; what no engine can run becomes a fault."""
    row = instruction.row
    if row is None or instruction.pc in verified.illegal:
        cx.raise_fault("illegal")
        return
    if instruction.pc in shortcuts.done:
        return
    fusion = shortcuts.fusions.get(instruction.pc)
    if fusion is not None:
        fusion.emit(cx)
        return
    target = x86_64.target.NAME
    try:
        translator = registry.translator_of(target, row)
    except KeyError:
        raise TranslationError(f"pc {instruction.pc}: {target} does not translate {row.operation}") from None
    pair = shortcuts.pairs.get(instruction.pc)
    if pair is None:
        translator(instruction, cx)
        return
    second = verified.program.slots[instruction.pc + 1]
    assert second is not None  # a pair is two instructions of one slot
    pair(cx, instruction, second, translator)


def _slow_copies(cx: Context, verified: Verified, shortcuts: Shortcuts) -> None:
    """Translate the rest of each block that has a merged check once more, checking one by one.

    The fast code comes here, at the merged check's instruction, where that check fails.
    """
    cx.checks = cx.plan.single
    slots = verified.program.slots
    merged = sorted(pc for pc, check in cx.plan.checks.items() if check.merged)
    done = 0
    for leader in merged:
        pc = leader
        if pc < done:
            continue  # the copy of an earlier merged check of this block has passed here
        while True:
            instruction = slots[pc]
            assert instruction is not None  # blocks consist of instructions
            cx.begin(pc)
            cx.label(slow_label(pc))
            cx.start(instruction)
            _instruction(cx, verified, instruction, shortcuts)
            pc = instruction.next_pc
            if pc in verified.blocks or pc >= len(slots):
                break
        done = pc
        if instruction.row is None or instruction.row.kind not in NEVER_FALLS_THROUGH:
            cx.jump("jmp", pc_label(pc + 1 if instruction.pc in shortcuts.pairs else pc))


def _plan(facts: Facts, *, checked: bool) -> Plan:
    if not checked:
        return Plan({}, {}, facts.zeroed)
    checks: dict[int, Check] = {}
    single: dict[int, Check] = {}
    for pc, access in facts.accesses.items():
        if access.proof:
            continue
        single[pc] = _check(access, 0, access.size, stores=access.stores)
        if access.span is not None:
            low, high, stores = access.span
            checks[pc] = _check(access, low, high, stores=stores, merged=True)
        elif access.leader is None:
            checks[pc] = single[pc]
    return Plan(checks, single, facts.zeroed)


def _check(access: Access, low: int, high: int, *, stores: bool, merged: bool = False) -> Check:
    behind = 0
    if access.distance is not None and access.distance[0] + low >= 0:
        behind = access.distance[1] + high
    return Check(REGIONS[access.origin], low, high, stores, access.frame_size, behind, merged)
