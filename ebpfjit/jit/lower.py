"""Placed Code -> assembly text, by the registry of translators.

b_3:                        a block; moves and operations in order
  ...
  jcc b_5                   or where the moves of that way are, out of line
cold:
  other:  a bound's search  -> exit
  exit:   moves to the homes of r0 to r10; what is refunded; -> leave_PC in baseline code
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from ebpfjit.analysis.verified import Verified
from ebpfjit.isa.spec import REGISTER_COUNT, Kind, Row
from ebpfjit.isa.table import BY_NAME, TABLE
from ebpfjit.isa.unencoded import UNENCODED
from ebpfjit.memo import Memo
from ebpfjit.optimizer.code import BOUND, PAY, Exit, Op, Way
from ebpfjit.optimizer.placed import Move, Placed, PlacedBlock, PlacedCode, Places
from ebpfjit.optimizer.registers import sequential
from ebpfjit.optimizer.rules.addresses import from_start
from ebpfjit.record import lazy
from ebpfjit.translators.context import Context, Counted
from ebpfjit.translators.emitter import Jump, Snippet, lines_of
from ebpfjit.translators.labels import (
    SLICE_ENDS,
    block_label,
    function_label,
    leave_label,
    pc_label,
    resume_label,
)
from ebpfjit.translators.machine import SPILLED, Registers

LOOP_ALIGNMENT = 32
JUMP, EXIT, MAY_GOTO = (BY_NAME[name] for name in ("JA", "EXIT", "MAY_GOTO"))
PLACELESS_KINDS = frozenset(
    {Kind.BINARY, Kind.MOVE, Kind.UNARY, Kind.LOAD, Kind.STORE, Kind.LOAD_IMM64, Kind.SUM, Kind.SELECT}
    | {Kind.INDEXED_LOAD, Kind.INDEXED_STORE, Kind.BINARY_LOAD, Kind.UPDATE, Kind.PAY, Kind.REDUCE}
)
PLACELESS = frozenset(row for row in (*TABLE, *UNENCODED.values()) if row.kind in PLACELESS_KINDS)
"""What is translated the same wherever it stands, where it has no exit."""
BRANCHES = frozenset(row for row in TABLE if row.kind is Kind.BRANCH)
BINARIES = frozenset(row for row in (*TABLE, *UNENCODED.values()) if row.kind is Kind.BINARY)
ADDRESSED = frozenset(
    {Kind.INDEXED_LOAD, Kind.INDEXED_STORE, Kind.BINARY_LOAD, Kind.UPDATE, Kind.BRANCH_LOAD}
)
"""Accesses that the machine does together with something else."""
PLAIN = frozenset({Kind.LOAD, Kind.STORE})
"""Accesses that are audited by their translators, where they are an instruction's own."""

Key = tuple[Row, tuple[int, ...], tuple[int, ...], int, int, int]
Branch = tuple[Row, tuple[int, ...], int, int, int, bool]
NO_FRAME = 1 << 32
SIGNS = {"ADD64_X": 1, "ADD32_X": 1, "ADD64_K": 1, "ADD32_K": 1, "SUB64_K": -1, "SUB32_K": -1}
SUMS = {BY_NAME[name]: sign for name, sign in SIGNS.items()}
"""What lea does of a copy: the sign of what is added."""
_known: defaultdict[frozenset[str], Memo[Key, Snippet]] = defaultdict(Memo)
_branches: defaultdict[frozenset[str], Memo[Branch, tuple[Snippet, str]]] = defaultdict(Memo)
"""Of conditional jumps what comes before them, and their mnemonic."""


def lower(cx: Context, parts: list[PlacedCode], registers: Registers, *, checked: bool) -> set[int]:
    """Emit the text of a program's parts, which are gone then; return the slots that they leave to.

    What it does not say of baseline code, where each exit goes on, is `leave_label` of a slot inside of a
    block, `pc_label` of one where a block starts.
    """
    verified, left, first = parts[0].code.verified, set[int](), 0
    sizes = _frame_sizes(cx, verified)
    parts.reverse()
    while parts:
        lowering = _Lowering(cx, parts.pop(), registers, sizes, first, checked=checked)
        left |= lowering.lower()
        first += len(lowering.numbers)
    return left


def _frame_sizes(cx: Context, verified: Verified) -> dict[int, int]:
    """Return for each block of the program, by pc, the size of its function's frame, of the smallest where
    it is of several.
    """
    ways, sizes = verified.liveness.ways, dict[int, int]()
    for pc in verified.program.functions:
        _spread(sizes, pc, 0 if pc in cx.plan.frameless else verified.frame_sizes[pc], ways)
    return sizes


_RESULTS = itemgetter(0)


def written_registers(placed: PlacedCode) -> set[int]:
    """Return the registers, and words of the stack, that placed code puts values in.

    Where r10's is one, a function does not hand r10 back.
    """
    written: set[int] = set()
    for block in placed.blocks:
        if block is not None:
            written.update(*map(_RESULTS, block.places))
            if block.between or any(block.moves):
                moved = (*block.between.values(), *block.moves)
                written.update([move.dst for moves in moved for move in moves])
    return written


Last = tuple[Op, tuple[int, ...]]
"""An operation, and the registers of its results."""


def _leaves_flags(flags: Mapping[str, frozenset[str]], last: Last, end: Op, args: tuple[int, ...]) -> bool:
    """True where the flags say how what was made last compares with 0."""
    row = end.row
    if row not in BRANCHES or row.uses_src or end.imm:
        return False
    op, results = last
    jumps = flags.get(op.row.meaning, frozenset()) if op.row in BINARIES else frozenset()
    return row.meaning in jumps and op.row.width is row.width and results[0] == args[0]


def _spread(found: dict[int, int], start: int, size: int, ways: Mapping[int, Iterable[int]]) -> None:
    """Write down a size for all that a block leads to and that has no smaller one."""
    waiting = [start]
    while waiting:
        number = waiting.pop()
        if found.get(number, NO_FRAME) > size:
            found[number] = size
            waiting += ways[number]


def _counts(leaves: Exit, places: Sequence[int | None]) -> tuple[Counted, ...]:
    """Return what an exit adds to words of the counters, by where the values are that count."""
    values = places[leaves.places :]
    found = []
    for word, number, factors in leaves.counts:
        pairs = zip(values, factors, strict=True)
        found.append((word, number, [(at, factor) for at, factor in pairs if at is not None and factor]))
    return tuple(found)


class _Lowering:
    """The text of one part of a program; its blocks have labels in their order, counted from `first` on."""

    def __init__(
        self,
        cx: Context,
        placed: PlacedCode,
        registers: Registers,
        sizes: Mapping[int, int],
        first: int,
        *,
        checked: bool,
    ) -> None:
        self.cx, self.placed, self.registers, self.checked = cx, placed, registers, checked
        self.code = placed.code
        self.verified = self.code.verified
        self.exits: dict[tuple[Any, ...], str] = {}
        self.left: set[int] = set()
        settings = cx.settings
        self.learns = not settings.harden and not cx.plan.is_audited
        size = len(cx.program)
        self.known: dict[Key, Snippet] = _known[settings.features].trim(size) if self.learns else {}
        self.branches: dict[Branch, tuple[Snippet, str]] = (
            _branches[settings.features].trim(size) if self.learns else {}
        )
        self.numbers = [number for number in self.code.laid_out if placed.blocks[number] is not None]
        self.labels = {number: block_label(first + place) for place, number in enumerate(self.numbers)}
        self.frames = self._frames(sizes)
        self.begun: set[int] = set()  # blocks that were emitted, the one at hand as the last
        self.last: Last | None = None  # what was emitted last in this block, where it stands so
        cx.spilled = (placed.words + 1) // 2 * 16

    def _frames(self, sizes: Mapping[int, int]) -> list[int]:
        """Return for each block the size of its function's frame, by those of blocks of the program.

        Those that only runs of other code come to are of the function that these are in.
        """
        entries, ways = self.code.entries, self.code.shape.ways
        own = {sizes.get(pc, NO_FRAME) for pc in entries}
        if len(own) == 1:
            return [*own] * len(ways)
        following, found = dict(enumerate(ways)), dict[int, int]()
        for pc, entry in entries.items():
            _spread(found, entry.block, sizes.get(pc, NO_FRAME), following)
        return [found.get(number, NO_FRAME) for number in following]

    def lower(self) -> set[int]:
        """Emit all blocks, in the order of their layout."""
        cx = self.cx
        functions = cx.program.functions
        starts: dict[int, list[int]] = {}
        for pc, entry in self.code.entries.items():
            starts.setdefault(entry.block, []).append(pc)
        before, placed, sources = self.code.shape.before, self.placed.blocks, self.code.blocks
        numbers, labels, frames, begun = self.numbers, self.labels, self.frames, self.begun
        heads = self._heads(numbers)
        for number, after in zip(numbers, [*numbers[1:], -1], strict=True):
            block, source = placed[number], sources[number]
            assert block is not None  # it is one of those that are there
            cx.begin(source.pc)
            if number in starts:
                if cx.spilled and any(each >= 0 for each in before[number]):
                    cx.jump("jmp", labels[number])  # what comes from the block above has its words already
                for pc in starts[number]:
                    cx.label((function_label if pc in functions else resume_label)(pc))
                    if cx.spilled:
                        cx.emit("sub rsp, $imm", imm=cx.spilled)
            cx.label(labels[number], LOOP_ALIGNMENT if number in heads else 1)
            begun.add(number)
            cx.frame_size = frames[number]
            self.steps(block, source.pc)
            self.end(block, source.ways, after)
        cx.way, cx.is_turned, cx.exit, cx.live, cx.spilled, cx.counts = None, False, "", None, 0, ()
        return self.left

    def _heads(self, numbers: Sequence[int]) -> set[int]:
        """Return the blocks that loops come round to, those that a later one in their layout leads to."""
        seen, heads, ways = set[int](), set[int](), self.code.shape.ways
        for number in numbers:
            seen.add(number)
            if not seen.isdisjoint(ways[number]):
                heads.update([way for way in ways[number] if way in seen])
        return heads

    def steps(self, block: PlacedBlock, at: int) -> None:
        """Emit the steps of a block that starts at the slot `at`, but for the end."""
        cx, known, between = self.cx, self.known.get, block.between
        insert, placeless, last, steps = cx.written().append, PLACELESS, None, len(block.ops) - 1
        for index, op, places in zip(range(steps), block.ops, block.places, strict=False):
            if between and index in between and self.between(between[index], op, places):
                last = None  # lea leaves the flags alone
                continue
            if op.pc != at:
                at = op.pc
                cx.begin(at)
            row = op.row
            if row in placeless and op.exit is None:  # most operations: what was written before
                results, args, _, _ = places
                key = row, results, args, op.imm, op.offset, op.scale
                snippet = known(key)
                if snippet is not None:
                    insert(snippet)
                else:
                    self.anew(Placed(op, *places), key)
            elif row is not BOUND or self.checked:
                self.translate(Placed(op, *places))
            last = index
        moves = between.get(steps, ()) if between else ()
        for move in moves:
            cx.move(move.dst, move.src)
        self.last = None if moves or last is None else (block.ops[last], block.places[last][0])

    def between(self, moves: Sequence[Move], op: Op, places: Places) -> bool:
        """Emit the moves in front of an operation; True where the last of them and it became a sum."""
        for move in moves[:-1]:
            self.cx.move(move.dst, move.src)
        if op.row in SUMS and self.sum(moves[-1], op, places[1]):
            return True
        self.cx.move(moves[-1].dst, moves[-1].src)
        return False

    def sum(self, copy: Move, op: Op, args: tuple[int, ...]) -> bool:
        """Emit a copy to which something is added at once as a sum, if it is one."""
        if args[0] != copy.dst or copy.src >= SPILLED:
            return False
        bits = op.row.width.bits
        if op.row.uses_src:
            if args[1] == copy.dst:
                return False
            self.cx.sum(copy.dst, copy.src, args[1], bits)
            return True
        return self.learns and self.cx.add(copy.dst, copy.src, SUMS[op.row] * op.imm, bits)

    def anew(self, step: Placed, key: Key) -> None:
        """Emit an operation, and remember what was written where that is nothing but lines."""
        cx = self.cx
        before = len(cx.written()), len(cx.cold), len(cx.used), len(cx.limits)
        self.translate(step)
        if self.learns and before[1:] == (len(cx.cold), len(cx.used), len(cx.limits)):
            lines = lines_of(cx.written()[before[0] :])
            if lines is not None:
                self.known[key] = Snippet(lines)

    def translate(self, step: Placed) -> None:
        """Have the translator of an operation emit it."""
        cx = self.cx
        cx.insn = step  # type: ignore[assignment]  # it has what translators ask of instructions
        if cx.plan.is_audited:
            self.audit(step)
        op = step.op
        leaves = op.exit
        cx.counts = () if leaves is None or step.exit is None else _counts(leaves, step.exit)
        if step.row is PAY and not op.stores:
            cx.exit = SLICE_ENDS if leaves is not None else ""
        else:
            cx.exit = "" if leaves is None or step.exit is None else self.exit(leaves, step.exit)
        cx.live = step.kept
        cx.distance = self.distance(step) if step.row is BOUND else None
        cx.translate(step)

    def audit(self, step: Placed) -> None:
        """Look at an access that is not the instruction's own: it has an index, or is of several loads."""
        kind, audit = step.row.kind, self.cx.plan.audits.get(step.pc)
        is_other = kind in PLAIN and (audit is None or audit.size != step.row.size)
        if is_other or kind in ADDRESSED or kind is Kind.REDUCE:
            self.cx.audit(step)

    def distance(self, step: Placed) -> tuple[int, int, int] | None:
        """Return a register, how often it counts, and a number: how far the base of a bound is from where the
        argument starts; None where nothing holds that.
        """
        if not step.op.scale:
            return None
        base, index = step.op.args
        if base in self.starts:
            return step.args[1], step.op.scale, self.starts[base]
        if index in self.starts and step.op.scale == 1:
            return step.args[0], 1, self.starts[index]
        return None

    @lazy
    def starts(self) -> dict[int, int]:
        """What is so many bytes behind the start of the argument, which function 0 has in r1."""
        entry = self.code.entries.get(0)
        if entry is None or self.verified.entries_with(self.cx.settings.calling).is_main_called:
            return {}
        if any(before >= 0 for before in self.code.shape.before[entry.block]):
            return {}
        return from_start(self.code)

    def exit(self, leaves: Exit, places: tuple[int | None, ...]) -> str:
        """Return the label of a side exit: values in their homes, the account as baseline code expects it."""
        key = leaves.pc, leaves.inside, leaves.refund, leaves.counts, places
        label = self.exits.get(key)
        if label is not None:
            return label
        cx = self.cx
        label = self.exits[key] = cx.new_label("exit")
        self.left.add(leaves.pc)
        with cx.out_of_line(label):
            homes = places[:REGISTER_COUNT]
            if leaves.counts:
                cx.add_counts(_counts(leaves, places))
            if leaves.slots:
                slots = zip(leaves.slots, places[REGISTER_COUNT : leaves.places], strict=True)
                cx.store_slots([(*slot, place) for slot, place in slots if place is not None])
            cx.repeat((Exit, homes, leaves.refund, cx.spilled), lambda: self.go_home(homes, leaves.refund))
            pc = leaves.pc
            is_start = not leaves.inside and (pc in self.verified.blocks or pc >= len(self.verified.program))
            cx.jump("jmp", (pc_label if is_start else leave_label)(pc))
        return label

    def go_home(self, places: Sequence[int | None], refund: int) -> None:
        """Emit the moves of values to their homes, and give back what is to be."""
        cx = self.cx
        moves = {home: place for home, place in enumerate(places) if place is not None}
        for move in sequential(moves, self.registers.scratch):
            self.cx.move(move.dst, move.src)
        cx.drop()
        cx.pay(-refund)
        cx.pin()

    def end(self, block: PlacedBlock, ways: tuple[Way, ...], after: int) -> None:
        """Emit the end of a block, before the block that follows in memory."""
        end = block.ops[-1]
        if end.row is JUMP:
            self.on(ways[0], block.moves[0], after)
        elif ways:
            self.branch(block, ways, after)
        else:
            if end.row is EXIT:
                self.cx.drop()
            self.translate(Placed(end, *block.places[-1]))

    def branch(self, block: PlacedBlock, ways: tuple[Way, ...], after: int) -> None:
        """Emit a branch; what is next in memory is gone on to without a jump, where that can be."""
        cx, end, places = self.cx, block.ops[-1], block.places[-1]
        may_turn = end.row is not MAY_GOTO
        taken, other = ways
        moves, through = block.moves
        turned = (
            may_turn and taken.block == after and not moves
        )  # what is next is where it jumps: so where the condition fails it jumps to the other
        if turned:
            taken, other, moves, through = other, taken, through, moves
        goes_back = bool(moves) and taken.block in self.begun and may_turn
        if goes_back:  # once a round: the moves are in line, and what is left is jumped to
            turned = not turned
            is_next = other.block == after and not through
            label = self.labels[other.block] if is_next else cx.new_label("on")
        else:
            label = self.edge(taken, moves) if moves else self.labels[taken.block]
        has_flags = self.last is not None and _leaves_flags(cx.flags, self.last, end, places[1])
        key = end.row, places[1], end.imm, end.offset, end.scale, has_flags
        known = self.branches.get(key)
        if known is not None:
            snippet, mnemonic = known
            if snippet.lines:
                cx.insert(snippet)
            cx.jump(cx.inverse[mnemonic] if turned else mnemonic, label)
        else:
            cx.way, cx.is_turned, cx.has_flags = label, turned, has_flags
            self.branch_anew(Placed(end, *places), key)
            cx.way, cx.is_turned, cx.has_flags = None, False, False
        if goes_back:
            self.on(taken, moves, -1)
            if is_next:
                return
            cx.label(label)
        self.on(other, through, after)

    def branch_anew(self, end: Placed, key: Branch) -> None:
        """Emit a conditional jump to `cx.way`, and remember the lines in front of it, and which it is."""
        cx = self.cx
        before, cold = len(cx.written()), len(cx.cold)
        self.translate(end)
        *parts, jump = cx.written()[before:]
        if not self.learns or len(cx.cold) != cold or not isinstance(jump, Jump) or jump.label != cx.way:
            return
        lines = lines_of(parts)
        if lines is not None and end.row is not MAY_GOTO:
            mnemonic = cx.inverse[jump.mnemonic] if cx.is_turned else jump.mnemonic
            self.branches[key] = Snippet(lines), mnemonic

    def on(self, way: Way, moves: Iterable[Move], after: int) -> None:
        """Go on at a block."""
        for move in moves:
            self.cx.move(move.dst, move.src)
        if way.block != after:
            self.cx.jump("jmp", self.labels[way.block])

    def edge(self, way: Way, moves: Iterable[Move]) -> str:
        """Return the label of the moves on the way to a block, out of line."""
        label = self.cx.new_label("edge")
        with self.cx.out_of_line(label):
            for move in moves:
                self.cx.move(move.dst, move.src)
            self.cx.jump("jmp", self.labels[way.block])
        return label
