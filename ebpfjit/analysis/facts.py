"""Which memory accesses need a check, and why: a forward dataflow over basic blocks.

The state at a point holds a `Value` for each register, the spans of bytes that earlier accesses on
every path have shown to be the program's (by symbol), and which bytes of the frame are written.
An access needs no check where

    frame       it lies in the running function's frame for every possible value of its base
    covered     an earlier access on every path touched these bytes, from the same base
    argument    the caller promises that many bytes behind r1
    length      it loads inside the argument's memory, by comparisons with its length
    asked       it stores where a load on every path was checked as a store would be
    map value   it lies in a map's values: at an address that is known, or behind what a lookup
                returned and a comparison has shown not to be zero

A call of a helper that may move or shrink memory ends what earlier accesses have shown.

What is left is checked. In a basic block the checks on one base are merged into one over their
whole span; where that one fails, the block goes on in a copy that checks one by one, so that the
fault has the pc it should have. A load that is asked more than it needs goes on in the copy too where
that fails, and so do the blocks behind it that rely on the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from heapq import heappop, heappush

from ebpfjit.analysis import lengths
from ebpfjit.analysis.accesses import (
    ASSUMED,
    EXACT,
    NO_SPANS,
    READ,
    RIGHTS,
    WITHIN,
    WRITTEN,
    Access,
    Facts,
    Merger,
    Predicate,
    Promises,
    Span,
    Spans,
    distance_of,
    likely_region,
)
from ebpfjit.analysis.cfg import (
    ENDS_BLOCK,
    meeting_points,
)
from ebpfjit.analysis.entries import CALLED, Way
from ebpfjit.analysis.loops import changes
from ebpfjit.analysis.predication import Walked, candidates, predicates
from ebpfjit.analysis.states import (
    State,
    blocks_before,
    covers,
    entered_loop,
    joined_states,
    refined_by,
    registers_of,
    seen_through,
)
from ebpfjit.analysis.values import (
    ANY,
    CONSTANT,
    FRAME_VALUE,
    FULL,
    REFINEMENTS,
    SUMS,
    UNKNOWN,
    Bounds,
    Origin,
    Value,
    at_width,
    bounds_of,
    constant,
    join_symbol,
    loaded_bounds,
    moved,
    moved_bounds,
)
from ebpfjit.analysis.verified import Verified
from ebpfjit.bits import U64_MASK, W32, W64
from ebpfjit.errors import OptimizationError
from ebpfjit.isa import semantics
from ebpfjit.isa.spec import FRAME_POINTER, REGISTER_COUNT, Kind, Row
from ebpfjit.program import Instruction

LEAVING = ENDS_BLOCK | {Kind.CALL_HELPER}
MEMORY = frozenset({Kind.LOAD, Kind.STORE, Kind.ATOMIC})
MOST_SPANS = 12
MOST_VISITS = 1
MOST_WALKS = 32
"""How often all instructions may be walked, on the average; twice is usual."""
MOST_WALKED = 10_000
"""So many may be in any case."""
MOST_KEPT = 1 << 21
"""The spans that may be kept where paths meet, in a whole program."""
ASSUMING = "assuming"
"""The proof, within this module, of a store that relies on a load which asked."""


_Seen = tuple[Instruction, Row, Value, Span, str]
"""An access as a walk came by: its instruction and row, its base, its bytes, and the proof."""

_Transfer = Callable[["Analysis", State, Instruction, Row], None]

_Way = tuple[int, bool | None]
"""Where a block goes on, and whether a comparison that tells something held or not."""


@dataclass(slots=True)
class _Node:
    """What the fixpoint knows at the start of a block.

    `seen` are the accesses of the last walk through it, with None where checks of before and
    after are not to be merged.
    """

    state: State
    function: int
    joined: set[int] = field(default_factory=set)
    visits: int = 0
    seen: list[_Seen | None] = field(default_factory=list)


ARGUMENT = join_symbol(0, 1)
LENGTH = join_symbol(0, 2)
"""The symbols of r1 and r2 at the start."""


class Analysis:
    """The fixpoint over one program."""

    def __init__(self, verified: Verified, promises: Promises, *, hoists: bool = True) -> None:
        self.program = program = verified.program
        self.frame_sizes = verified.frame_sizes
        self.promises = promises
        self.argument_size = promises.argument_size
        self.rights = promises.argument_rights
        # What an access of one size shows of a struct with rights says nothing of another.
        self.exact = EXACT if promises.meets_rights or self.rights is not None else 0
        self.map_at = {map_.address: index for index, map_ in enumerate(program.maps)}
        steady = [map_ for map_ in program.maps if map_.value_is_stable and map_.is_steady]
        self.values = [region for map_ in steady for region in map_.regions]
        self.known_maps: dict[int, int] = {}
        self.in_frame: dict[int, dict[int, Bounds]] = {}
        self.blocks = verified.blocks
        self.nesting = verified.nesting
        self.loops = changes(verified.liveness, self.nesting)
        self.liveness = verified.liveness
        self.live_at, self.ways = self.liveness.at, self.liveness.ways
        innermost = self.nesting.innermost() if hoists else {}
        self.looked_into = candidates(self.liveness, innermost, program.functions)
        self.walked = Walked()
        self.watched = {block for blocks in self.looked_into.values() for block in blocks}
        self.illegal = verified.illegal
        self.nodes: dict[int, _Node] = {}
        self.zeroed: set[int] = set()
        self.effort = self.kept = 0
        rows = [(insn, insn.row) for insn in program.instructions if insn.row is not None]
        leaving = [(insn, row) for insn, row in rows if row.kind in LEAVING]
        self.entries = verified.entries_with(promises.calling)
        main = self.entries.ways.get(0, frozenset())
        # Where the program's start is called, by whomever, it starts as any other function does.
        self.main_is_called = not main.isdisjoint(CALLED)
        self.moves = any(self._is_moving(insn) for insn, _ in leaving)
        # Where a jump goes back to the start, r1 may mean something else there than the argument.
        self.main_loops = Way.JUMP in main
        self.meeting_points = meeting_points(program, self.blocks)
        # r1 and r2 have their symbols of the start for good, and mean the same memory all the time.
        self.is_measured = promises.argument_is_measured and not (
            self.main_loops or self.main_is_called or not self.live_at[0] >> 2 & 1
        )

    def _is_moving(self, insn: Instruction) -> bool:
        """True for a call of a helper that may move memory, or take it away; any kfunc may."""
        row = insn.row
        if row is None or row.kind is not Kind.CALL_HELPER:
            return row is not None and row.kind is Kind.CALL_KFUNC
        return W32.wrap(insn.imm) in self.promises.moving

    def _may_move(self, insn: Instruction, row: Row) -> bool:
        """True where memory may be moved by what is called: functions are not looked into."""
        return self.moves and (
            row.kind in (Kind.CALL_LOCAL, Kind.CALL_REGISTER)
            or self._is_moving(insn)
            or self.entries.calls_back(insn)
        )

    def _promised(self) -> dict[int, Spans]:
        """The bytes that are the program's whatever happens, by symbol."""
        size = self.argument_size
        if not size or self.main_is_called:
            return {}
        level = WRITTEN if self.promises.argument_writable else READ
        if self.rights is not None:
            level = RIGHTS
        return {ARGUMENT: frozenset({(0, size, level)})}

    def run(self) -> Facts:
        """Find the fixpoint, then write down what holds there. Raises as `analyse`."""
        for pc in self.program.functions:
            start = seen_through(self._start_of_function(pc), self.live_at[pc])
            self.nodes[pc] = _Node(start, pc, set(range(FRAME_POINTER)))
        order = self.nesting.order
        place = {pc: index for index, pc in enumerate(order)}
        work = sorted(place[pc] for pc in self.program.functions)  # a heap: what leads to others goes first
        waiting = set(self.program.functions)
        while work:
            pc = order[heappop(work)]
            waiting.discard(pc)
            node = self.nodes[pc]
            node.visits += 1
            state = node.state.copy()
            instructions = self._walk(pc, state, node)
            self._account(len(instructions))
            if len(instructions) < self.blocks[pc]:
                continue  # no engine gets behind the one that it cannot run
            last = instructions[-1]
            if pc in self.watched:
                self.walked.ends[pc], self.walked.last[pc] = state.registers, last
            for target, holds in self._ways(pc, last):
                refined = state if holds is None else self._on_way(state, last, holds=holds)
                if self._join(target, refined, node.function) and target not in waiting:
                    waiting.add(target)
                    heappush(work, place[target])
        # The last walk through a block was the one from what the fixpoint knows at its start.
        asked, relying = self._doubts()
        accesses: dict[int, Access] = {}
        for node in self.nodes.values():
            accesses.update(self._accesses(node, asked))
        before = self._predicates(accesses)
        doubtful = relying.union(*(predicate.blocks for predicate in before.values()))
        zeroed = frozenset(self.zeroed)
        return Facts(accesses, zeroed, self.known_maps, self.in_frame, doubtful, before, relying)

    def _account(self, walked: int, kept: int = 0) -> None:
        """Note what the analysis takes. Raises OptimizationError where that becomes too much."""
        self.effort += walked
        self.kept += kept
        most = MOST_WALKED + MOST_WALKS * len(self.program)
        if self.effort > most or self.kept > MOST_KEPT:
            raise OptimizationError(
                f"analysis would take too much: {self.effort} instructions walked (at most {most}), "
                f"{self.kept} spans kept (at most {MOST_KEPT})"
            )

    def _predicates(self, accesses: dict[int, Access]) -> dict[int, Predicate]:
        """Return what is asked before loops; the accesses that need no check then come to say so."""
        walked = self.walked
        for header, blocks in self.looked_into.items():
            if header not in self.nodes:
                continue
            walked.starts[header] = self.nodes[header].state.registers
            walked.joined[header] = self.nodes[header].joined
            for block in blocks & walked.ends.keys():
                for seen in self.nodes[block].seen:
                    if seen is not None:
                        walked.bases[seen[0].pc] = seen[2], seen[0].offset
        return predicates(self.liveness, self.looked_into, walked, accesses)

    def _on_way(self, state: State, insn: Instruction, *, holds: bool) -> State:
        """Return the state where a comparison held, or did not."""
        refined = refined_by(state, insn, holds=holds)
        if state.limits:
            assert insn.row is not None  # it is a comparison
            limits = lengths.learnt(state.limits, state.registers, insn, insn.row, holds=holds)
            if limits is not None:
                refined = refined.copy() if refined is state else refined
                refined.limits = limits
        return refined

    def _doubts(self) -> tuple[set[int], frozenset[int]]:
        """Return the symbols of which stores assume that loads were checked for them, and `Facts.relying`."""
        uses: dict[int, list[int]] = {}
        for pc, node in self.nodes.items():
            for seen in node.seen:
                if seen is not None and seen[4] == ASSUMING:
                    uses.setdefault(seen[2].symbol, []).append(pc)
        starts = {pc: node.state for pc, node in self.nodes.items()}
        return set(uses), blocks_before(uses, starts, self.ways)

    def _start_of_function(self, pc: int) -> State:
        registers = [Value(join_symbol(pc, register), 0) for register in range(10)]
        registers.append(FRAME_VALUE)
        state = State(registers)
        if pc == 0 and not self.main_is_called:
            registers[1] = Value(ARGUMENT, 0, Origin.ARGUMENT, (0, 0))
            for register in (0, *range(3, 10)):
                registers[register] = constant(0)
            state.spans.update(self._promised())
            if self.is_measured:
                state.limits = lengths.start(LENGTH)
        return state

    # -- one block ------------------------------------------------------------------------------

    def _instructions(self, pc: int) -> list[Instruction]:
        """Return the instructions of the block at `pc`, up to the first that no engine can run."""
        found: list[Instruction] = []
        slots = self.program.slots
        for _ in range(self.blocks[pc]):
            insn = slots[pc]
            assert insn is not None  # blocks consist of instructions
            if pc in self.illegal:
                break
            found.append(insn)
            pc = insn.pc + (1 if insn.next_imm is None else 2)
        return found

    def _ways(self, pc: int, last: Instruction) -> list[_Way]:
        """Return where control goes on after the last instruction of the block at `pc`."""
        row, ways = last.row, self.ways[pc]
        assert row is not None  # the block was walked to its end
        if row.kind is not Kind.BRANCH or row.meaning not in REFINEMENTS or last.offset == 0:
            return [(way, None) for way in ways]
        target = last.target
        return [(way, way == target) for way in ways]

    def _walk(self, pc: int, state: State, node: _Node) -> list[Instruction]:
        """Carry the state through a block, whose instructions are returned."""
        instructions = self._instructions(pc)
        if node.visits > 1:
            state.present = {value.symbol for value in state.registers}.union(state.spans, state.values)
            if state.limits:
                indexes = [value.index[0] for value in state.registers if value.index is not None]
                state.present.update(state.limits, indexes)
        seen = node.seen
        seen.clear()
        for insn in instructions:
            row = insn.row
            assert row is not None  # it is legal
            transfer, touches = _shape_of(row)
            if touches:
                self._access(state, insn, row, node)
            if transfer is not None:
                transfer(self, state, insn, row)
                if self.moves and self._may_move(insn, row):
                    seen.append(None)
        return instructions

    def _access(self, state: State, insn: Instruction, row: Row, node: _Node) -> None:
        stores = row.kind is not Kind.LOAD
        base = state.registers[insn.dst_reg if stores else insn.src_reg]
        start = base.offset + insn.offset
        span = (start, start + row.size, WRITTEN if stores else READ)
        proof = self._proof(state, base, insn, row, node.function, span)
        node.seen.append((insn, row, base, span, proof))
        if (not proof or proof == WITHIN) and base.symbol > CONSTANT:
            known = state.spans.get(base.symbol, NO_SPANS)
            if len(known) < MOST_SPANS:
                shown = start, span[1], (WRITTEN if stores else ASSUMED) | self.exact
                state.spans[base.symbol] = known | {shown}

    def _accesses(self, node: _Node, asked: set[int]) -> dict[int, Access]:
        """Return the accesses of a block by pc, their checks merged."""
        found: dict[int, Access] = {}
        if not node.seen:
            return found
        size = self.frame_sizes[node.function]
        merger = Merger(found)
        for seen in node.seen:
            if seen is None:
                merger.finish()
                continue
            insn, row, base, span, proof = seen
            distance = distance_of(base, insn)
            stores = span[2] == WRITTEN
            asks = not stores and not proof and base.symbol in asked
            assumes, within = proof == ASSUMING, proof == WITHIN
            proof = "asked" if assumes else "" if within else proof
            origin = likely_region(base.origin)
            access = Access(
                insn.pc,
                row.size,
                stores,
                proof,
                origin,
                size,
                distance,
                asks=asks,
                assumes=assumes,
                within=within,
            )
            merger.add(access, base, span)
        merger.finish()
        return found

    def _proof(
        self, state: State, base: Value, insn: Instruction, row: Row, function: int, span: Span
    ) -> str:
        if base.origin is Origin.STACK:
            bounds = base.bounds
            size = self.frame_sizes[function]
            if bounds is None:
                self._expose()
                return ""
            low, high = bounds[0] + insn.offset, bounds[1] + insn.offset + row.size
            inside = -size <= low and high <= 0
            exact = bounds[0] == bounds[1]
            if not inside:
                self._expose()
            self._note_frame(state, row, function, low, high, exact=exact and inside)
            return "frame" if inside else ""
        spans = state.spans.get(base.symbol, NO_SPANS)
        asked = span[0], span[1], span[2] | self.exact
        for other in spans:
            if covers(other, asked, self.rights):
                is_argument = base.symbol == ARGUMENT and span[1] <= self.argument_size
                return "argument" if is_argument and span[0] >= 0 else "covered"
        if (
            state.limits
            and base.origin is Origin.ARGUMENT
            and lengths.is_within(state.limits, LENGTH, base, insn.offset, row.size)
        ):
            return WITHIN if span[2] else "length"
        if spans and span[2] and base.symbol > CONSTANT:
            assumed = (span[0], span[1], ASSUMED | self.exact)
            if any(covers(other, assumed, self.rights) for other in spans):
                return ASSUMING
        if self.values and base.origin is Origin.SCALAR and base.bounds is not None:
            low, high = base.bounds[0] + insn.offset, base.bounds[1] + insn.offset + row.size
            if any(r.start <= low and high <= r.stop and (r.writable or not span[2]) for r in self.values):
                return "map value"
        return ""

    def _is_lookup(self, insn: Instruction, row: Row) -> bool:
        return row.kind is Kind.CALL_HELPER and insn.imm in self.promises.lookups

    def _map_in(self, value: Value) -> int | None:
        """Return the index of the map whose address a value is."""
        return self.map_at.get(value.offset) if value.symbol == CONSTANT else None

    def _note_frame(self, state: State, row: Row, function: int, low: int, high: int, *, exact: bool) -> None:
        """Keep account of which bytes of the frame are written before they are read."""
        mask = ((1 << (high - low)) - 1) << -high if exact else 0
        if row.kind is not Kind.STORE and (not exact or state.written & mask != mask):
            self.zeroed.add(function)
        if row.kind is Kind.STORE and exact:
            state.written |= mask

    # -- one instruction ------------------------------------------------------------------------

    def _copy(self, state: State, insn: Instruction, row: Row) -> None:
        state.registers[insn.dst_reg] = state.registers[insn.src_reg]

    def _constant(self, state: State, insn: Instruction, row: Row) -> None:
        state.registers[insn.dst_reg] = constant(row.width.wrap(insn.imm))

    def _wide_constant(self, state: State, insn: Instruction, row: Row) -> None:
        state.registers[insn.dst_reg] = constant(insn.imm64)

    def _reference(self, state: State, insn: Instruction, row: Row) -> None:
        if insn.pc in self.program.references:
            state.registers[insn.dst_reg] = constant(W64.wrap(self.program.references[insn.pc]))
        else:
            self._fresh(state, insn, insn.dst_reg)

    def _narrow_copy(self, state: State, insn: Instruction, row: Row) -> None:
        source = state.registers[insn.src_reg]
        self._leave(state, insn.src_reg)
        scalar = source.bounds if source.origin is Origin.SCALAR else None
        self._fresh(state, insn, insn.dst_reg, bounds=at_width(W32, scalar))

    def _rewritten(self, state: State, insn: Instruction, row: Row) -> None:
        self._leave(state, insn.src_reg if row.uses_src else insn.dst_reg)
        # Conformance group base32 is where results fit 32 bits, byte swaps included.
        self._fresh(state, insn, insn.dst_reg, bounds=FULL[32 if row.group == "base32" else 64])

    def _stored(self, state: State, insn: Instruction, row: Row) -> None:
        self._leave(state, insn.src_reg)

    def _atomic(self, state: State, insn: Instruction, row: Row) -> None:
        self._leave(state, insn.src_reg)
        if row.meaning == "CMPXCHG":
            self._leave(state, 0)
            self._fresh(state, insn, 0)
        elif row.fetch:
            self._fresh(state, insn, insn.src_reg)

    def _exit(self, state: State, insn: Instruction, row: Row) -> None:
        # What the caller finds in r0 to r5 may outlive the frame, and point into the next.
        for register in range(6):
            self._leave(state, register)

    def _packet_loaded(self, state: State, insn: Instruction, row: Row) -> None:
        self._fresh(state, insn, 0)

    def _fresh(
        self,
        state: State,
        insn: Instruction,
        register: int,
        origin: Origin = Origin.SCALAR,
        bounds: Bounds | None = ANY,
        index: tuple[int, int] | None = None,
    ) -> None:
        """Give a register a value of its own: nothing is known of its distance to any other.

        The symbol may be in use from an earlier round of a loop; it means the new value now.
        """
        symbol = 32 * insn.pc + 2 * register + 2
        if symbol in state.present:  # an instruction makes its symbols once in a walk
            state.spans.pop(symbol, None)
            state.values.pop(symbol, None)
            for other, value in enumerate(state.registers):
                if value.symbol == symbol:
                    state.registers[other] = Value(UNKNOWN, 0, value.origin, value.bounds)
                elif value.index is not None and value.index[0] == symbol:
                    state.registers[other] = Value(value.symbol, value.offset, value.origin, value.bounds)
            if symbol in state.limits:
                state.limits = {other: limit for other, limit in state.limits.items() if other != symbol}
            if index is not None and index[0] == symbol:
                index = None
        state.registers[register] = Value(symbol, 0, origin, bounds, index)

    def _leave(self, state: State, register: int) -> None:
        """A pointer into the frame goes where it is not followed: something else may read there."""
        if state.registers[register].origin is Origin.STACK:
            self._expose()

    def _expose(self) -> None:
        """Any byte of any frame may be read from here on."""
        self.zeroed.update(self.program.functions)

    def _binary(self, state: State, insn: Instruction, row: Row) -> None:
        registers = state.registers
        dst = registers[insn.dst_reg]
        src = registers[insn.src_reg] if row.uses_src else constant(insn.imm & U64_MASK)
        if dst.origin is not Origin.SCALAR or src.origin is not Origin.SCALAR or src.symbol == CONSTANT:
            if row.width is W64 and row.meaning in SUMS and self._sum(state, insn, row, dst, src):
                return
            for register in (insn.dst_reg, insn.src_reg) if row.uses_src else (insn.dst_reg,):
                self._leave(state, register)
            if dst.symbol == CONSTANT and src.symbol == CONSTANT:
                w = row.width
                known = semantics.BINARY[row.meaning](w, w.wrap(dst.offset), w.wrap(src.offset))
                registers[insn.dst_reg] = constant(known)
                return
        elif (
            dst.symbol == CONSTANT
            and row.meaning == "ADD"
            and row.width is W64
            and self._sum(state, insn, row, dst, src)
        ):
            return
        self._fresh(state, insn, insn.dst_reg, bounds=bounds_of(row, dst, src))
        if row.width is W64 and (row.meaning == "ADD" or (row.meaning == "LSH" and not row.uses_src)):
            self.walked.made[registers[insn.dst_reg].symbol] = row.meaning, dst, src

    def _sum(self, state: State, insn: Instruction, row: Row, dst: Value, src: Value) -> bool:
        """Follow a 64-bit addition or subtraction of what is a constant or a pointer; False: cannot."""
        sum_ = moved(dst, src, row.meaning)
        if sum_ is not None:
            state.registers[insn.dst_reg] = sum_
            return True
        pointer, scalar = (
            (src, dst) if row.meaning == "ADD" and src.origin is not Origin.SCALAR else (dst, src)
        )
        if pointer.origin is Origin.SCALAR or scalar.origin is not Origin.SCALAR:
            return False
        bounds = moved_bounds(pointer, scalar, row.meaning)
        index = None
        if pointer.symbol == ARGUMENT and row.meaning == "ADD" and scalar.symbol > CONSTANT:
            index = scalar.symbol, scalar.offset + pointer.offset
        self._fresh(state, insn, insn.dst_reg, pointer.origin, bounds, index)
        if row.meaning == "ADD":
            self.walked.made[state.registers[insn.dst_reg].symbol] = row.meaning, dst, src
        return True

    def _loaded(self, state: State, insn: Instruction, row: Row) -> None:
        base = state.registers[insn.src_reg]
        pointer = row.size == 8 and base.origin is Origin.ARGUMENT
        origin = Origin.PACKET if pointer else Origin.SCALAR
        self._fresh(state, insn, insn.dst_reg, origin, loaded_bounds(row))

    def _called(self, state: State, insn: Instruction, row: Row) -> None:
        """After a call r1 to r5 are zero (helpers) or unknown (functions), r0 is the result.

        What helpers and callees do with a pointer into the frame is their business: they may read.
        Helpers see their arguments, functions all registers.
        """
        helper = row.kind in (Kind.CALL_HELPER, Kind.CALL_KFUNC)
        for register in row.implicit_reads if helper else range(FRAME_POINTER):
            self._leave(state, register)
        if self._may_move(insn, row):
            found = {
                symbol: span for symbol, span in state.values.items() if span in state.spans.get(symbol, ())
            }
            state.spans = {} if self.main_loops else self._promised()
            state.spans.update((symbol, frozenset({span})) for symbol, span in found.items())
        given = self._map_in(state.registers[1]) if row.kind is Kind.CALL_HELPER else None
        if given is not None:
            self.known_maps[insn.pc] = given
            self.in_frame[insn.pc] = self._frame_arguments(state)
        else:
            self.known_maps.pop(insn.pc, None)  # so it was in an earlier walk only
        looked_in = given if self._is_lookup(insn, row) else None
        for register in row.implicit_writes:
            self._fresh(state, insn, register)
        if looked_in is not None:
            self._fresh(state, insn, 0, Origin.MAP_VALUE)
            map_ = self.program.maps[looked_in]
            if map_.value_is_stable:
                span = (0, map_.definition.value_size, READ if map_.is_readonly else WRITTEN)
                state.values[state.registers[0].symbol] = span
        if helper:
            for register in row.implicit_writes[1:]:
                state.registers[register] = constant(0)

    def _frame_arguments(self, state: State) -> dict[int, Bounds]:
        """Return which of r2 and r3 point into the frame, and where."""
        found = {}
        for register in (2, 3):
            value = state.registers[register]
            if value.origin is Origin.STACK and value.bounds is not None:
                found[register] = value.bounds
        return found

    # -- between blocks -------------------------------------------------------------------------

    def _join(self, pc: int, incoming: State, function: int) -> bool:
        """Merge a state into the start of a block; True where that changed it."""
        node = self.nodes.get(pc)
        if node is None:
            loop = self.loops.get(pc)
            entered = entered_loop(incoming, pc, loop) if loop else incoming
            self.nodes[pc] = _Node(seen_through(entered, self.live_at[pc]), function, set(loop or ()))
            return True
        if node.function != function:
            # Code that two functions share: which frame it runs on is not known here.
            return self._forget(node, pc)
        old = node.state
        if pc not in self.meeting_points:
            node.state = seen_through(incoming, self.live_at[pc])  # there is no other way to come here
            return node.state != old
        live = registers_of(self.live_at[pc])
        differing = [r for r in live if old.registers[r] is not incoming.registers[r]]
        for register in differing:
            a, b = old.registers[register], incoming.registers[register]
            if (a.origin is Origin.STACK) != (b.origin is Origin.STACK):
                self._expose()  # it may be a pointer into the frame, and is no longer followed
            if a.symbol != b.symbol or a.offset != b.offset:
                node.joined.add(register)
        # What is the same on both paths stays, but where a function starts, which knows less than that.
        looked_at = live if pc in self.program.functions else differing
        widen = node.visits > MOST_VISITS
        joined = joined_states(
            old, incoming, pc, live, looked_at, node.joined, widen=widen, rights=self.rights
        )
        if joined is None:
            return False
        self._account(0, sum(map(len, joined.spans.values())))
        node.state = joined
        return True

    def _forget(self, node: _Node, pc: int) -> bool:
        unknown = State(
            [Value(join_symbol(pc, register), 0, Origin.SCALAR) for register in range(REGISTER_COUNT)]
        )
        self._expose()
        changed = node.state != unknown
        node.state = unknown
        return changed


def _transfer_of(row: Row) -> _Transfer | None:
    """Return what an instruction of `row` does to the state, None where that is nothing."""
    match row.kind:
        case Kind.MOVE if row.meaning == "MOV" and row.uses_src:
            return Analysis._copy if row.width is W64 else Analysis._narrow_copy
        case Kind.MOVE if row.meaning == "MOV":
            return Analysis._constant
        case Kind.MOVE | Kind.UNARY | Kind.CAST:
            return Analysis._rewritten
        case Kind.STORE:
            return Analysis._stored if row.uses_src else None
        case Kind.LOAD_IMM64:
            return Analysis._wide_constant if row.reference is None else Analysis._reference
        case _ if row.kind in TRANSFERS:
            return TRANSFERS[row.kind]
        case _:
            return Analysis._called if row.implicit_writes else None


TRANSFERS: dict[Kind, _Transfer | None] = {
    Kind.BINARY: Analysis._binary,
    Kind.LOAD: Analysis._loaded,
    Kind.ATOMIC: Analysis._atomic,
    Kind.PACKET_LOAD: Analysis._packet_loaded,
    Kind.EXIT: Analysis._exit,
    Kind.BRANCH: None,  # comparing pointers tells nothing that another run could not tell
}


@cache
def _shape_of(row: Row) -> tuple[_Transfer | None, bool]:
    """Return what `row` does to the state, and whether it touches memory."""
    return _transfer_of(row), row.kind in MEMORY


def analyse(verified: Verified, promises: Promises | None = None, *, hoists: bool = True) -> Facts:
    """Return what is known of a program's accesses; where it `hoists`, what to check before loops as well.

    Raises OptimizationError where that would take too much time or memory.
    """
    return Analysis(verified, promises or Promises(), hoists=hoists).run()
