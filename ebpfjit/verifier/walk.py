"""The walk: every way through a program, one state after the other, as Linux's verifier does (do_check).

    todo    states whose ways were not walked yet
    points  states that were kept, by slot and by the calls that are under way: a newer one that such a state
            covers is walked no further

A refused instruction is noted and the walk goes on with what a right program would have had there, so that
all errors are found which do not follow from one another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ebpfjit.analysis.cfg import block_sizes, illegal_reason, loop_headers, meeting_points
from ebpfjit.analysis.liveness import live_after, live_before, liveness_of, ways_of
from ebpfjit.compatibility.find import caller_of
from ebpfjit.isa.spec import FRAME_POINTER, FROM_ARENA, Kind, Row
from ebpfjit.isa.spec import Reference as Refers
from ebpfjit.program import Instruction, Program
from ebpfjit.record import dataclass
from ebpfjit.runtime.helpers.names import NAMES
from ebpfjit.runtime.maps.definition import MapType
from ebpfjit.verifier import (
    arithmetic,
    branches,
    calls,
    contexts,
    functions,
    kfuncs,
    lsm_hooks,
    memory,
    pruning,
    structure,
    unprivileged,
)
from ebpfjit.verifier.arguments import Dynptr, Given
from ebpfjit.verifier.kfunc_effects import buffer_of, is_over
from ebpfjit.verifier.numbers import DOMAIN
from ebpfjit.verifier.objects import Objects
from ebpfjit.verifier.proven import Reaches
from ebpfjit.verifier.refusals import Refused, Undecided
from ebpfjit.verifier.state import MOST_FRAMES, Callback, Frame, Point, State, Step, keep
from ebpfjit.verifier.values import (
    Pointer,
    Poison,
    Scalar,
    Value,
    fresh,
    known,
    mark_precise,
    poison,
    unknown,
)

END = -1
"""Where a way ends."""

_KEPT_APART = 8
"""Instructions between two states that are kept (Linux: add_new_state)."""

_KEPT_APART_IN_LOOPS = 100
"""The same where a way came there before, and is walked still: rounds of a loop are not all worth it."""

_MOST_WAYS = 8192
"""Ways that wait at most (Linux: BPF_COMPLEXITY_LIMIT_JMP_SEQ)."""

_FEW = 10
"""One state for each 1 << _FEW instructions that were walked is kept for a slot whether it covers others or
not: a long walk is worth more of them."""

_MOST_POINTS = 512
"""States kept for one slot; those that covered nothing go first."""

_MOST_MISSES = 3
"""How often a kept state is compared in vain, for each time that it covers one, before it goes (Linux)."""

_ROUNDS = 64
"""The same of a state at which rounds begin that are walked still."""

_MOST_ERRORS = 100
"""Errors of one program that are told."""

_PATIENCE = 20_000
"""Instructions that are walked behind an error to find another one: the verdict does not change any more."""

_CALLED_BACK = frozenset({"bpf_loop", "bpf_for_each_map_elem", "bpf_user_ringbuf_drain", "bpf_find_vma"})


def _patience(point: Point, is_looping: bool) -> int:
    """Return how often a kept state may cover nothing, for each time that it did (is_state_visited)."""
    return _ROUNDS if is_looping and point.branches > 0 else _MOST_MISSES


_ALIKE = frozenset({"ctx", "socket", "sock_common", "tcp_sock", "xdp_sock", "btf_id", "arena"})
"""Pointers whose loads and stores Linux rewrites: one instruction is for one of them alone."""


@dataclass(frozen=True, slots=True)
class Found:
    """An error: its slot, what Refused said, the way that led there, and the registers."""

    pc: int
    kind: str
    message: str
    advice: str
    way: Step | None
    registers: tuple[Value, ...]


class Stop(Exception):  # noqa: N818 - it never leaves this module
    """The walk takes too long."""


class Walk:
    """One walk through a program. `found` are its errors, `undecided` what it could not decide, by slot."""

    def __init__(
        self,
        program: Program,
        setting: memory.Setting,
        *,
        limit: int,
        claims: bool = False,
    ) -> None:
        self.program = program
        self.setting = setting
        self.limit = limit
        self.is_sleepable = setting.is_sleepable
        self.caller = caller_of(program)
        self.hook = lsm_hooks.hook_of(program)
        self.found: dict[tuple[int, str], Found] = {}
        self.undecided: dict[int, str] = {}
        self.visited = 0
        self.until = limit
        self.kept = 0
        self._kept_at = 0
        self.visits: dict[int, int] = {}
        self.depths: dict[int, int] = {}
        self.reaches = Reaches()
        self.functions = functions.Functions(program)
        self.objects = setting.objects or Objects(program)
        self.called: set[int] = set()
        self.later: set[int] = set()
        self.slices_in_frames = False
        self._ends = structure.ending(program)
        self.gives_nothing = _gives_nothing(program, self.hook, setting)
        self.moves = unprivileged.Moves()
        self.claims: dict[int, list[State]] | None = {} if claims else None
        self.todo: list[State] = []
        self.points: dict[tuple[int, ...], list[Point]] = {}
        blocks = block_sizes(program)
        known_live = liveness_of(program, blocks, ways_of(program, blocks))
        self._before, self._after = live_before(known_live), live_after(known_live)
        self._pointers: dict[int, str] = {}
        self._illegal = {insn.pc for insn in program.instructions if illegal_reason(insn) is not None}
        self._looping = {insn.pc for insn in program.instructions if _comes_again(program, insn)}
        self._meeting = meeting_points(program, blocks) | set(loop_headers(program)) | self._looping

    # -- the walk -----------------------------------------------------------------------------------------

    def run(self, registers: list[Value]) -> None:
        """Walk all ways through the program, and through each global function that is called.

        Raises Stop at the limit.
        """
        self._walk(0, registers)
        done: set[int] = set()
        if self.program.exception_callback is not None:
            self.called.add(self.program.exception_callback)
        while self.called - done:
            start = min(self.called - done)
            done.add(start)
            try:
                given = self.functions.values(start)
                if start == self.program.exception_callback:
                    given = self.functions.thrown(start)
            except Undecided as undecided:
                self.undecided.setdefault(start, str(undecided))
            except Refused as refused:
                self.note(State(start, [Frame(start, END, [None] * 11)]), refused)
            else:
                self._walk(start, given)

    def _walk(self, start: int, registers: list[Value]) -> None:
        registers = [*registers, *([None] * (10 - len(registers))), Pointer("stack", 0)]
        state = State(start, [Frame(start, END, registers)])
        self._begin(state)
        self.todo.append(state)
        while self.todo:
            self._follow(self.todo.pop())

    def _begin(self, state: State) -> None:
        keep(state)

    def _follow(self, state: State) -> None:
        """Walk from one state until its way ends."""
        slots, meeting, visits = self.program.slots, self._meeting, self.visits
        while True:
            pc = state.pc
            if pc in meeting and self._is_covered(state):
                break
            self.visited += 1
            visits[pc] = visits.get(pc, 0) + 1
            state.since += 1
            if self.visited > self.until:
                raise Stop
            insn = slots[pc]
            assert insn is not None  # the structural verifier saw to that
            assert insn.row is not None
            if self.claims is not None:
                self.claims.setdefault(pc, []).append(state.copy(pc))
            try:
                if pc in self._illegal:
                    raise Refused("structure", "frame pointer is read only", "keep another register for that")
                goes = TRANSFER[insn.row.kind](self, state, insn, insn.row)
            except Refused as refused:
                self.note(state, refused)
                goes = _repaired(self, state, insn, insn.row)
            except Undecided as undecided:
                self.undecided.setdefault(pc, str(undecided))
                if not undecided.goes_on:
                    break
                goes = _repaired(self, state, insn, insn.row)
            if goes is None:
                state.pc = insn.next_pc
            elif goes == END:
                break
            else:
                state.pc = goes
        self._ended(state)

    def note(self, state: State, refused: Refused) -> None:
        """Note an error, once for each place and kind."""
        key = state.pc, refused.kind
        if key not in self.found:
            self.found[key] = Found(
                state.pc, refused.kind, refused.message, refused.advice, state.way, tuple(state.registers)
            )
            self.until = min(self.limit, self.visited + _PATIENCE)
            if len(self.found) >= _MOST_ERRORS:
                raise Stop

    def _ended(self, state: State) -> None:
        """Say that a way was walked to its end."""
        point = state.point
        while point is not None:
            point.branches -= 1
            if point.branches:
                break
            point = point.before

    def same_kind(self, pc: int, base: Value) -> None:
        """Raise Refused where an instruction is for pointers that Linux rewrites it for, and for others."""
        if not isinstance(base, Pointer):
            return
        before = self._pointers.setdefault(pc, base.kind)
        if before != base.kind and not _ALIKE.isdisjoint((before, base.kind)):
            raise Refused(
                "type",
                f"same insn cannot be used with different pointers: {arithmetic.named(base)} and {before}",
                "load or store by one instruction for each kind",
            )

    def fork(self, state: State, pc: int) -> State:
        """Return a copy of a state that is walked later, at another slot."""
        if len(self.todo) > _MOST_WAYS:
            too_many = Refused(
                "termination",
                f"The sequence of {len(self.todo)} jumps is too complex.",
                "let the loop end after a known and small number of rounds, or use bpf_loop or may_goto",
            )
            self.note(state, too_many)
            raise Stop
        state.choices += 1
        other = state.copy(pc)
        if state.point is not None:
            state.point.branches += 1
        self.todo.append(other)
        return other

    # -- states seen before -------------------------------------------------------------------------------

    def live(self, state: State) -> list[int]:
        """Return the registers (bit n: rn) of each frame that may be read from here on."""
        masks = []
        for frame in state.frames[1:]:
            mask = self._after[frame.call] & ~0b111111
            masks.append(mask | self._before[frame.call] if frame.callback is not None else mask)
        return [*masks, self._before[state.pc]]

    def _is_covered(self, state: State) -> bool:
        """True where a state is walked no further; else it may be kept."""
        pc = state.pc
        if pc not in self._ends:
            endless = Refused(
                "termination",
                f"infinite loop: no exit follows insn {pc}",
                "let the loop end after a number of rounds",
            )
            self.note(state, endless)
            return True
        points = self.points.setdefault((pc, *(frame.call for frame in state.frames[1:])), [])
        live = self.live(state)
        is_looping = pc in self._looping and not is_over(state)
        privileged = self.setting.privileged
        since = self.visited - self._kept_at
        keeps = is_looping or since >= _KEPT_APART
        for point in reversed(points):
            is_before = point.branches > 0
            if is_before and (not is_looping or point.state.rounds == state.rounds):
                if state.since >= 1 and self._goes_round(point, state, live):
                    endless = Refused(
                        "termination",
                        f"infinite loop detected at insn {pc}: what ends it is the same in each round",
                        "count the rounds, and leave the loop by the counter",
                    )
                    self.note(state, endless)
                    return True
                keeps = keeps and (is_looping or since >= _KEPT_APART_IN_LOOPS)
                point.misses += keeps
                continue
            exact = is_before or not point.is_done
            strict = self.moves.is_strict
            if pruning.covers(point, state, live, exact=exact, privileged=privileged, strict=strict):
                point.hits += 1
                if not point.is_done:
                    self._depends(state, point)
                pruning.say_what_matters(point, state, live)
                return True
            point.misses += keeps
        if keeps:
            if len(points) >= self.visited >> _FEW:
                points[:] = [
                    each for each in points if each.misses <= _patience(each, is_looping) * (each.hits + 1)
                ]
            points.append(keep(state))
            self.kept += 1
            self._kept_at = self.visited
            if len(points) > _MOST_POINTS:
                self._drop(points)
        return False

    def widened(self, state: State, point: Point | None, pc: int) -> None:
        """Forget numbers of a state that changed since it came to a slot the last time, from `point` back."""
        where = [(frame.start, frame.call) for frame in state.frames]
        while point is not None:
            old = point.state
            if old.pc == pc and [(frame.start, frame.call) for frame in old.frames] == where:
                pruning.widen(old, state)
                return
            point = point.before

    def _goes_round(self, point: Point, state: State, live: list[int]) -> bool:
        """True where a run that came by a kept state to this one may, or must, go round for ever."""
        if point.state.rounds != state.rounds:
            return False
        if pruning.is_same(point, state, live):
            return True
        # No run could go another way since then: what decided that is known, and is as it was.
        return point.state.choices == state.choices and pruning.covers(
            point, state, live, exact=False, privileged=self.setting.privileged
        )

    def _depends(self, state: State, loop: Point) -> None:
        """Say of what was kept on the way here that what mattered there is known when the loop is done."""
        while not loop.branches:  # what it waits for itself: on the way here, as ways are walked depth first
            assert loop.loop is not None
            loop = loop.loop
        point = state.point
        while point is not None and point is not loop:
            if point.loop is None:
                point.loop = loop
            point = point.before

    @staticmethod
    def _drop(points: list[Point]) -> None:
        """Forget the state that is of least use."""
        worst = min(
            range(len(points) - 1), key=lambda n: (points[n].branches > 0, points[n].hits, -points[n].misses)
        )
        del points[worst]

    # -- functions ----------------------------------------------------------------------------------------

    def enter(
        self, state: State, start: int, call: int, registers: list[Value], callback: Callback | None = None
    ) -> None:
        """Let a state go on in a function of the program. Raises Refused."""
        if len(state.frames) >= MOST_FRAMES:
            raise Refused("stack", f"the call stack of {len(state.frames) + 1} frames is too deep")
        frame_pointer = Pointer("stack", len(state.frames))
        made = [*registers, *([None] * (10 - len(registers))), frame_pointer]
        state.frames.append(Frame(start, call, made, callback=callback))
        state.pc = start
        state.way = Step(state.way, call, None)

    def callback(self, state: State, insn: Instruction, name: str, given: Given) -> None:
        """Walk a function that a helper calls, as often as it may, beside what follows. Raises Refused."""
        assert given.function is not None
        arguments, results, is_async = _callback(self, state, name, given)
        frame = state.frame
        if name == "bpf_loop":
            rounds = frame.registers[1]
            if isinstance(rounds, Scalar):
                mark_precise(rounds)
                if rounds.number.umax <= frame.rounds:
                    frame.rounds = 0
                    return
        other = self.fork(state, insn.pc)
        other.rounds += 1
        other.frame.rounds += 1
        if is_async:
            self.later.add(given.function)
            other.references, other.lock, other.sections = (), None, ()
            other.frames = []
            self.enter(other, given.function, END, arguments, Callback(name, END, results, is_async=True))
            other.frames[0].registers[FRAME_POINTER] = Pointer("stack", 0)
        else:
            self.enter(other, given.function, insn.pc, arguments, Callback(name, insn.pc, results))
        frame.rounds = 0

    def deepened(self, state: State, base: Value, offset: int = 0) -> None:
        """Remember how deep a function's frame is: an access is there."""
        if isinstance(base, Pointer) and base.kind == "stack":
            low = base.off + offset + (base.var.smin if base.var is not None else 0)
            start = state.frames[base.what].start
            self.depths[start] = max(self.depths.get(start, 0), -low)

    def check_result(self, state: State, result: Value, register: str = "R0") -> None:
        """Hold a result of the program against what programs of its type may return. Raises Refused."""
        later, type_ = state.frames[0].callback, self.setting.type
        if later is not None:
            _in_range(result, later.results, "async callback", register)
            return
        if self.hook:
            results = lsm_hooks.result_range(self.hook, self.setting.attach)
        else:
            results = contexts.result_range(type_, self.setting.attach) if type_ is not None else None
        if results is not None:
            _in_range(result, results, "program exit", register, is_half=bool(self.hook))

    def leave(self, state: State, insn: Instruction, result: Value, moved_by: str = "") -> None:
        """Walk on behind the function that an instruction may end: r0 is `result`, and packets may have been
        moved by something. Raises Refused.
        """
        other = state.copy(insn.pc)
        if moved_by:
            calls.packet_moved(other, moved_by, privileged=self.setting.privileged)
        other.registers[0] = result
        assert insn.row is not None
        self.fork(other, _exit(self, other, insn, insn.row))
        state.choices += 1


def _comes_again(program: Program, insn: Instruction) -> bool:
    """True of instructions at which rounds of a loop begin whose end the verifier is not to find."""
    row = insn.row
    if row is None:
        return False
    if row.kind is Kind.CALL_KFUNC:
        return kfuncs.comes_again(program, insn)
    return row.kind is Kind.MAY_GOTO or (row.kind is Kind.CALL_HELPER and NAMES.get(insn.imm) in _CALLED_BACK)


def _callback(walk: Walk, state: State, name: str, given: Given) -> tuple[list[Value], tuple[int, int], bool]:
    """Return what a callback is given from r0 on, what it may return, and whether it runs later."""
    context = given.values[2] if len(given.values) > 2 else None
    match name:
        case "bpf_loop":
            return [None, unknown(), context], (0, 1), False
        case "bpf_for_each_map_elem":
            return [None, *_entry_of(given.map), context], (0, 1), False
        case "bpf_user_ringbuf_drain":
            sample = Pointer("dynptr", Dynptr("local", 0, 0, fresh(), rdonly=False))
            return [None, sample, context], (0, 1), False
        case "bpf_rbtree_add":
            node = given.special["node"]
            lent = node.but(ref=0, flags=node.flags | {"borrowed"})
            return [None, lent.but(id=fresh()), lent.but(id=fresh())], (0, 1), False
        case "bpf_timer_set_callback" | "bpf_wq_set_callback_impl":
            map_ = given.source.what if given.source is not None else given.map
            return [None, *_entry_of(map_)], (0, 0), True
        case "bpf_find_vma":
            trusted = frozenset({"trusted"})
            found = [Pointer("btf_id", each, flags=trusted) for each in ("task_struct", "vm_area_struct")]
            return [None, *found, given.values[3]], (0, 1), False
    raise Undecided(f"functions that {name} calls are not known here")


def _entry_of(map_: Any) -> list[Value]:
    """Return the map, key and value that a callback is given; anything where nobody said of which."""
    if map_ is None:
        return [poison(), poison(), poison()]
    return [Pointer("map", map_), Pointer("map_key", map_), Pointer("map_value", map_, id=fresh())]


# -- one transfer function for each kind of instruction ---------------------------------------------------


def read(state: State, number: int) -> Value:
    """Return what a register holds. Raises Refused where nothing was written to it."""
    value = state.frames[-1].registers[number]
    if value is None:
        raise Refused(
            "uninitialised", f"R{number} !read_ok", "write the register on every path that leads here"
        )
    return value


def _operand(state: State, insn: Instruction, row: Row) -> Value:
    return read(state, insn.src_reg) if row.uses_src else arithmetic.constant(row, insn.imm)


def _binary(walk: Walk, state: State, insn: Instruction, row: Row) -> None:
    said = arithmetic.refused_operand(insn)
    if said:
        raise Refused("structure", said)
    src, dst = _operand(state, insn, row), read(state, insn.dst_reg)
    if (
        insn.src_reg == insn.dst_reg
        and row.uses_src
        and row.meaning in ("SUB", "XOR")
        and isinstance(dst, Scalar)
    ):
        result: Value = known(0)
    else:
        signs = arithmetic.two_signs(row, dst, src)
        if signs is not None:
            other = walk.fork(state, insn.pc)
            dst, other.registers[insn.dst_reg] = signs
        result = arithmetic.binary(row, insn.dst_reg, dst, src, privileged=walk.setting.privileged)
    if not walk.setting.privileged:
        unprivileged.moved(walk.moves, insn, row, (dst, src), result)
    state.registers[insn.dst_reg] = result


def _move(walk: Walk, state: State, insn: Instruction, row: Row) -> None:
    src = _operand(state, insn, row)
    if isinstance(src, Pointer) and not walk.setting.privileged:
        if row.width.bits != 64:
            raise Refused("leak", f"R{insn.src_reg} partial copy of pointer")
        if row.meaning.startswith("MOVSX"):
            raise Refused("leak", f"R{insn.src_reg} sign-extension part of pointer")
    state.registers[insn.dst_reg] = arithmetic.moved(row, src)


def _unary(walk: Walk, state: State, insn: Instruction, row: Row) -> None:
    dst = read(state, insn.dst_reg)
    if isinstance(dst, Pointer) and not walk.setting.privileged:
        raise Refused("leak", f"R{insn.dst_reg} pointer arithmetic prohibited")
    state.registers[insn.dst_reg] = arithmetic.unary(row, dst)


def _cast(walk: Walk, state: State, insn: Instruction, row: Row) -> None:
    read(state, insn.src_reg)
    if walk.program.arena is None:
        raise Refused(
            "type", "addr_space_cast insn can only be used in a program that has an associated arena"
        )
    state.registers[insn.dst_reg] = Pointer("arena") if insn.imm == FROM_ARENA else unknown()


def _wide(walk: Walk, state: State, insn: Instruction, row: Row) -> None:
    state.registers[insn.dst_reg] = _referred(walk, insn, row)


def _referred(walk: Walk, insn: Instruction, row: Row) -> Value:
    program, refers = walk.program, row.reference
    match refers:
        case None:
            return known(insn.imm64)
        case Refers.MAP_BY_INDEX | Refers.MAP_VALUE_BY_INDEX:
            if not 0 <= insn.imm < len(program.maps):
                raise Refused("type", f"map {insn.imm} is none of the program's {len(program.maps)}")
            map_ = program.maps[insn.imm]
            if refers is Refers.MAP_BY_INDEX:
                return Pointer("map", map_)
            if map_ is program.arena:
                return unknown()
            offset = insn.next_imm or 0
            if map_.definition.type != MapType.ARRAY or map_.definition.max_entries != 1:
                raise Refused("type", "direct value access is of an array of one entry", "look its value up")
            if not 0 <= offset < map_.definition.value_size:
                raise Refused("memory", f"invalid access to map value pointer, off={offset}")
            return Pointer("map_value", map_, off=offset)
        case Refers.CODE:
            return Pointer("func", insn.pc + 1 + insn.imm)
        case Refers.VARIABLE:
            if insn.imm64 == 0:
                return known(0)
            name = program.kernel_symbols.get(insn.pc, "")
            return Pointer("btf_id", name, flags=frozenset({"trusted", "percpu", "symbol"}))
    if program.section is not None:  # it is from an object, whose maps relocations name
        raise Refused("type", f"fd {insn.imm} is not pointing to valid bpf_map")
    raise Undecided("a map is named by a file descriptor, which means something to who made it only")


def _load(walk: Walk, state: State, insn: Instruction, row: Row) -> None:
    base = read(state, insn.src_reg)
    if row.is_ordered:
        _ordered(insn.src_reg, base, insn.offset, row)
    walk.same_kind(insn.pc, base)
    value = memory.load(walk.setting, state, insn.src_reg, base, insn.offset, row.size)
    walk.reaches.see(insn.pc, base, insn.offset, row.size, stores=False)
    walk.deepened(state, base, insn.offset)
    is_in_value = isinstance(base, Pointer) and base.kind == "map_value"
    if row.is_ordered and is_in_value and isinstance(value, Pointer):
        raise Refused("type", "kptr in map can only be accessed using BPF_MEM instruction mode")
    if row.signed:
        if isinstance(value, Pointer):
            raise Refused("type", f"R{insn.src_reg} a pointer is loaded with its sign extended")
        if isinstance(value, Scalar) and not isinstance(value, Poison):
            number = DOMAIN.extended(value.number, 8 * row.size, True)
            value = value if number is value.number else Scalar(number, (value,))
    state.registers[insn.dst_reg] = value


def _store(walk: Walk, state: State, insn: Instruction, row: Row) -> None:
    value = _operand(state, insn, row)
    if not row.uses_src:
        value = known(insn.imm)
    base = read(state, insn.dst_reg)
    if row.is_ordered:
        _ordered(insn.dst_reg, base, insn.offset, row)
    if (
        isinstance(value, Pointer) and value.kind == "stack" and isinstance(base, Pointer)
        and base.kind == "stack" and base.what != len(state.frames) - 1
    ):  # fmt: skip
        raise Refused("type", "cannot spill pointers to stack into stack frame of the caller")
    walk.same_kind(insn.pc, base)
    memory.store(walk.setting, state, insn.dst_reg, base, insn.offset, row.size, value)
    walk.reaches.see(insn.pc, base, insn.offset, row.size, stores=True)
    walk.deepened(state, base, insn.offset)


_NOT_ATOMIC = frozenset({
    "ctx", "packet", "packet_meta", "flow_keys", "socket", "sock_common", "tcp_sock", "xdp_sock",
})  # fmt: skip


def _ordered(number: int, base: Value, offset: int, row: Row) -> None:
    """Raise Refused where an atomic or ordered access is not of memory for that, or not aligned."""
    if not isinstance(base, Pointer):
        return
    if base.kind in _NOT_ATOMIC:
        raise Refused("type", f"BPF_ATOMIC access into R{number} {arithmetic.named(base)} is not allowed")
    at = DOMAIN.known(base.off + offset)
    if base.var is not None:
        at = DOMAIN.binary("ADD", True, base.var, at)
    if (at.value | at.mask) & row.size - 1 and base.kind != "arena":
        raise Refused(
            "memory", f"misaligned {arithmetic.named(base)} access off {base.off + offset} size {row.size}"
        )


def _atomic(walk: Walk, state: State, insn: Instruction, row: Row) -> None:
    value, base = read(state, insn.src_reg), read(state, insn.dst_reg)
    if row.meaning == "CMPXCHG":
        read(state, 0)
    if isinstance(value, Pointer) and not walk.setting.privileged:
        raise Refused("leak", f"R{insn.src_reg} leaks addr into mem")
    _ordered(insn.dst_reg, base, insn.offset, row)
    if isinstance(base, Pointer) and base.kind == "stack" and base.var is not None:
        raise Refused("memory", f"variable offset stack pointer R{insn.dst_reg} in an atomic operation")
    loaded = _to_be_changed(walk, state, insn, row, base)
    if isinstance(loaded, Pointer) and not walk.setting.privileged:
        raise Refused("leak", f"R{insn.dst_reg} leaks addr into mem")
    memory.store(walk.setting, state, insn.dst_reg, base, insn.offset, row.size, unknown())
    walk.reaches.see(insn.pc, base, insn.offset, row.size, stores=True)
    walk.deepened(state, base, insn.offset)
    if row.fetch:
        fetched = 0 if row.meaning == "CMPXCHG" else insn.src_reg
        state.registers[fetched] = loaded if isinstance(loaded, Scalar) else Scalar(DOMAIN.sized(row.size))


def _to_be_changed(walk: Walk, state: State, insn: Instruction, row: Row, base: Value) -> Value:
    """Return what an atomic operation loads. What must not be written is refused, known or not."""
    try:
        return memory.load(walk.setting, state, insn.dst_reg, base, insn.offset, row.size)
    except Undecided:
        memory.store(walk.setting, state, insn.dst_reg, base, insn.offset, row.size, unknown())
        raise


def _packet_load(walk: Walk, state: State, insn: Instruction, row: Row) -> None:
    type_ = walk.setting.type
    if type_ is not None and not contexts.has_legacy_loads(type_):
        raise Refused("call", "BPF_LD_[ABS|IND] instructions not allowed for this program type")
    calls.held_at(state, "BPF_LD_[ABS|IND] would lead to reference leak", "BPF_LD_[ABS|IND]")
    context = read(state, 6)
    if type_ is not None and (not isinstance(context, Pointer) or context.kind != "ctx"):
        raise Refused("type", "at the time of BPF_LD_ABS|IND R6 != pointer to skb")
    if isinstance(context, Pointer) and (context.off or context.var is not None):
        raise Refused("type", f"dereference of modified ctx ptr R6 off={context.off} disallowed")
    if row.uses_src:
        read(state, insn.src_reg)
    registers = state.registers
    if len(state.frames) > 1:  # what is behind the packet's end ends the function
        walk.leave(state, insn, known(0))
    for number in range(1, 6):
        registers[number] = None
    registers[0] = Scalar(DOMAIN.sized(row.size))


def _jump(walk: Walk, state: State, insn: Instruction, row: Row) -> int:
    assert insn.target is not None
    return insn.target


def _branch(walk: Walk, state: State, insn: Instruction, row: Row) -> int | None:
    src, dst = _operand(state, insn, row), read(state, insn.dst_reg)
    falls, jumps = branches.ways(row, dst, src, privileged=walk.setting.privileged)
    target = insn.target
    assert target is not None
    before = state.way
    if falls is None and jumps is None:
        return END
    if jumps is None:
        assert falls is not None
        falls(state)
        return None
    if falls is None:
        jumps(state)
        return target
    other = walk.fork(state, target)
    other.way = Step(before, insn.pc, True)
    jumps(other)
    state.way = Step(before, insn.pc, False)
    falls(state)
    return None


def _may_goto(walk: Walk, state: State, insn: Instruction, row: Row) -> int | None:
    target = insn.target
    assert target is not None
    # What follows the loop is walked first: what matters there is not forgotten from round to round.
    other = walk.fork(state, insn.next_pc)
    other.way = Step(state.way, insn.pc, False)
    other.rounds += 1
    if state.point is not None:
        walk.widened(other, state.point.before, insn.pc)
    state.way = Step(state.way, insn.pc, True)
    return target


def _helper(walk: Walk, state: State, insn: Instruction, row: Row) -> int | None:
    if kfuncs.is_only_linux_s(walk, insn):
        return _kfunc(walk, state, insn, row)
    calls.call(walk, state, insn)
    return None


def _kfunc(walk: Walk, state: State, insn: Instruction, row: Row) -> int | None:
    return None if kfuncs.call(walk, state, insn) else END


def _local(walk: Walk, state: State, insn: Instruction, row: Row) -> int:
    target = insn.target
    assert target is not None
    registers = state.registers
    parameters = walk.functions.parameters(target)
    if parameters is not None:
        if state.holds_a_lock:
            raise Refused(
                "lock",
                "global function calls are not allowed while holding a lock",
                "make the function static",
            )
        if target in walk.functions.sleeping and (state.sections or not kfuncs.is_sleepable(walk, state)):
            said = "global functions that may sleep are not allowed in non-sleepable context"
            raise Refused("lock", said)
        functions.check_call(walk.setting, state, parameters)
        walk.called.add(target)
        if target in walk.functions.moving:
            name = f"a call of {walk.program.functions[target]}()"
            calls.packet_moved(state, name, privileged=walk.setting.privileged)
        for number in range(1, 6):
            registers[number] = None
        registers[0] = unknown()
        return insn.next_pc
    walk.enter(state, target, insn.pc, [None, *registers[1:6]])
    return target


def _register_call(walk: Walk, state: State, insn: Instruction, row: Row) -> None:
    raise Refused("structure", "calls of what a register holds are none that Linux has")


def _exit(walk: Walk, state: State, insn: Instruction, row: Row) -> int:
    frame = state.frames[-1]
    if len(state.frames) == 1:
        is_void = walk.gives_nothing and not frame.start
        return _ends(walk, state, frame, known(0) if is_void else read(state, 0))
    if walk.slices_in_frames:
        _left(state, buffer_of(len(state.frames) - 1))
    result = frame.registers[0] if frame.callback is None else read(state, 0)
    if isinstance(result, Pointer) and result.kind == "stack" and result.what == len(state.frames) - 1:
        raise Refused("type", "cannot return stack pointer to the caller")
    state.frames.pop()
    caller = state.frames[-1]
    state.way = Step(state.way, insn.pc, None)
    if frame.callback is not None:
        _in_range(result, frame.callback.results, "callback")
        walk.widened(state, state.point, frame.call)
        return frame.call  # it may be called once more
    caller.registers[0] = result
    for number in range(1, 6):
        caller.registers[number] = None
    return frame.call + 1


def _left(state: State, flag: str) -> None:
    """Say that the frame is gone which slices may lie in."""

    def change(value: Value) -> Value:
        return value.but(kind="left") if isinstance(value, Pointer) and flag in value.flags else value

    branches.replaced(state, change)


def _gives_nothing(program: Program, hook: str, setting: memory.Setting) -> bool:
    """True of programs whose result nobody asks for: what they are called by returns nothing."""
    if hook:
        return lsm_hooks.gives_nothing(hook, setting.attach)
    if program.type != "struct_ops" or setting.types is None:
        return False
    return setting.types.operation_gives_nothing()


def _ends(walk: Walk, state: State, frame: Frame, result: Value) -> int:
    """Hold the end of a program against what its type may return, and what it has to give back."""
    if state.lock is not None:
        raise Refused("lock", "BPF_EXIT instruction cannot be used inside bpf_spin_lock-ed region")
    if state.sections:
        raise Refused("lock", f"BPF_EXIT instruction cannot be used inside {state.region}-ed region")
    if state.references:
        first = state.references[0]
        raise Refused(
            "reference",
            f"Unreleased reference alloc_insn={first.pc}: {first.by} acquired it",
            "give it back on every path to the end, where it was not NULL",
        )
    if frame.callback is not None:
        walk.check_result(state, result)
        return END
    is_function = frame.start and frame.start != walk.program.exception_callback
    if is_function and not isinstance(result, (Scalar, Poison)):
        raise Refused("result", "At subprogram exit the register R0 is not a scalar value")
    if is_function:
        return END
    if isinstance(result, Pointer) and not walk.setting.privileged:
        raise Refused("leak", "R0 leaks addr as return value")
    walk.check_result(state, result)
    return END


def _in_range(
    result: Value, results: tuple[int, int], where: str, register: str = "R0", *, is_half: bool = False
) -> None:
    if isinstance(result, Poison):
        return
    if not isinstance(result, Scalar):
        what = f"a known value ({arithmetic.named(result)})" if isinstance(result, Pointer) else "a number"
        raise Refused("result", f"At {where} the register {register} is not {what}")
    mark_precise(result)
    number = result.number
    low, high = (number.smin32, number.smax32) if is_half else (number.smin, number.smax)
    if low < results[0] or high > results[1]:
        has = f"smin={low} smax={high}"
        raise Refused(
            "result",
            f"At {where} the register {register} has {has} should have been in [{results[0]}, {results[1]}]",
        )


Transfer = Callable[[Walk, State, Instruction, Row], int | None]

TRANSFER: dict[Kind, Transfer] = {
    Kind.BINARY: _binary,
    Kind.MOVE: _move,
    Kind.UNARY: _unary,
    Kind.CAST: _cast,
    Kind.LOAD_IMM64: _wide,
    Kind.LOAD: _load,
    Kind.STORE: _store,
    Kind.ATOMIC: _atomic,
    Kind.PACKET_LOAD: _packet_load,
    Kind.JUMP: _jump,
    Kind.BRANCH: _branch,
    Kind.MAY_GOTO: _may_goto,
    Kind.CALL_HELPER: _helper,
    Kind.CALL_LOCAL: _local,
    Kind.CALL_KFUNC: _kfunc,
    Kind.CALL_REGISTER: _register_call,
    Kind.EXIT: _exit,
}
"""What each kind of instruction makes of a state; it returns the next slot, None for the one behind, END."""


def _repaired(walk: Walk, state: State, insn: Instruction, row: Row) -> int | None:
    """Let a state go on behind a refused instruction, as if the program had been right there."""
    registers = state.registers
    match row.kind:
        case Kind.EXIT | Kind.CALL_REGISTER:
            return END
        case Kind.CALL_HELPER | Kind.CALL_LOCAL | Kind.CALL_KFUNC | Kind.PACKET_LOAD:
            for number in range(1, 6):
                registers[number] = None
            registers[0] = poison()
        case Kind.LOAD | Kind.STORE | Kind.ATOMIC:
            base = insn.src_reg if row.kind is Kind.LOAD else insn.dst_reg
            _forgiven(state, registers[base])
            if row.kind is Kind.LOAD:
                registers[insn.dst_reg] = poison()
            elif row.fetch:
                registers[0 if row.meaning == "CMPXCHG" else insn.src_reg] = poison()
            for number in {insn.src_reg, insn.dst_reg} if row.kind is not Kind.STORE else {insn.dst_reg}:
                if registers[number] is None:
                    registers[number] = poison()
            if row.kind is Kind.STORE and row.uses_src and registers[insn.src_reg] is None:
                registers[insn.src_reg] = poison()
        case Kind.BRANCH:
            for number in (insn.dst_reg, insn.src_reg if row.uses_src else insn.dst_reg):
                if number < FRAME_POINTER:
                    registers[number] = poison()
            assert insn.target is not None
            other = walk.fork(state, insn.target)
            other.way, state.way = Step(state.way, insn.pc, True), Step(state.way, insn.pc, False)
        case Kind.JUMP | Kind.MAY_GOTO:
            return END
        case _:
            if insn.dst_reg < FRAME_POINTER:
                registers[insn.dst_reg] = poison()
    return None


_STAY = frozenset({"ctx", "stack", "map", "socket", "sock_common", "tcp_sock", "btf_id"})
"""Pointers that are right at another place, after a wrong access."""


def _forgiven(state: State, base: Value) -> None:
    """Take a pointer for one that a right program would have here."""
    if isinstance(base, Pointer) and base.null:
        branches.null(state, base, there=True)
    elif isinstance(base, Pointer) and base.kind in arithmetic.PACKET:
        branches.in_range(state, base, memory.FARTHEST_IN_PACKET)
    elif isinstance(base, (Scalar, Pointer)) and not isinstance(base, Poison):
        if isinstance(base, Pointer) and base.kind in _STAY:
            return
        branches.replaced(state, lambda value: poison() if value is base else value)
