"""The walk: every way through a program, one state after the other, as Linux's verifier does (do_check).

    todo    states whose ways were not walked yet
    seen    states that were kept: a newer one that such a state covers is walked no further

A refused instruction is noted and the walk goes on with what a right program would have had there, so that
all errors are found which do not follow from one another.
"""

from __future__ import annotations

from ebpfjit.analysis.cfg import block_sizes, illegal_reason, loop_headers, meeting_points
from ebpfjit.analysis.liveness import liveness_of, ways_of
from ebpfjit.compatibility.find import caller_of
from ebpfjit.isa.spec import FRAME_POINTER
from ebpfjit.program import Instruction, Program
from ebpfjit.record import dataclass
from ebpfjit.verifier import (
    arithmetic,
    callbacks,
    calls,
    endings,
    functions,
    lsm_hooks,
    memory,
    unprivileged,
)
from ebpfjit.verifier.arguments import Given
from ebpfjit.verifier.objects import Objects
from ebpfjit.verifier.proven import Reaches
from ebpfjit.verifier.refusals import Refused, Undecided
from ebpfjit.verifier.repairs import repaired
from ebpfjit.verifier.seen import Seen
from ebpfjit.verifier.state import END, MOST_FRAMES, Callback, Frame, State, Step, keep
from ebpfjit.verifier.transfer import TRANSFER
from ebpfjit.verifier.values import (
    Pointer,
    Scalar,
    Value,
    mark_precise,
)

_MOST_WAYS = 8192
"""Ways that wait at most (Linux: BPF_COMPLEXITY_LIMIT_JMP_SEQ)."""

_MOST_ERRORS = 100
"""Errors of one program that are told."""

_PATIENCE = 20_000
"""Instructions that are walked behind an error to find another one: the verdict does not change any more."""


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
        self.visits: dict[int, int] = {}
        self.depths: dict[int, int] = {}
        self.reaches = Reaches()
        self.functions = functions.Functions(program)
        self.objects = setting.objects or Objects(program)
        self.called: set[int] = set()
        self.later: set[int] = set()
        self.slices_in_frames = False
        self.gives_nothing = endings.gives_nothing(program, self.hook, setting)
        self.moves = unprivileged.Moves()
        self.claims: dict[int, list[State]] | None = {} if claims else None
        self.todo: list[State] = []
        blocks = block_sizes(program)
        self.seen = Seen(self, liveness_of(program, blocks, ways_of(program, blocks)))
        self._pointers: dict[int, str] = {}
        self._illegal = {insn.pc for insn in program.instructions if illegal_reason(insn) is not None}
        self._meeting = meeting_points(program, blocks) | set(loop_headers(program)) | self.seen.looping

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
            if pc in meeting and self.seen.covers(state):
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
                goes = repaired(self, state, insn, insn.row)
            except Undecided as undecided:
                self.undecided.setdefault(pc, str(undecided))
                if not undecided.goes_on:
                    break
                goes = repaired(self, state, insn, insn.row)
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
        arguments, results, is_async = callbacks.given_to(self, state, name, given)
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

    def leave(self, state: State, insn: Instruction, result: Value, moved_by: str = "") -> None:
        """Walk on behind the function that an instruction may end: r0 is `result`, and packets may have been
        moved by something. Raises Refused.
        """
        other = state.copy(insn.pc)
        if moved_by:
            calls.packet_moved(other, moved_by, privileged=self.setting.privileged)
        other.registers[0] = result
        assert insn.row is not None
        self.fork(other, endings.leave(self, other, insn, insn.row))
        state.choices += 1
