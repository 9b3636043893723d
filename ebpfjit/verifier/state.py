"""The state of a run at one instruction, as far as it is known; and states that were seen before."""

from __future__ import annotations

from ebpfjit.record import dataclass
from ebpfjit.verifier.refusals import Refused
from ebpfjit.verifier.values import Cell, Pointer, Scalar, Value

RCU, PREEMPTION, INTERRUPTS = "bpf_rcu_read_lock", "bpf_preempt_disable", "bpf_local_irq_save"
"""Stretches of code, as Linux's messages call them ("cannot be used inside bpf_rcu_read_lock-ed region")."""

RESILIENT = "bpf_spin_lock"
"""The stretch in which a bpf_res_spin_lock is held; behind the word stands which one it is."""

END = -1
"""Where a way ends, in place of a slot."""

MOST_FRAMES = 8
"""Linux: MAX_CALL_FRAMES."""


@dataclass(frozen=True, slots=True)
class Callback:
    """A function that a helper calls, and calls again: at which slot, how often it may still be called.

    `results` is between which numbers what it returns lies; `is_async` where it runs later, on its own.
    """

    helper: str
    call: int
    results: tuple[int, int] = (0, 0)
    is_async: bool = False


class Frame:
    """The registers and the stack of one function that is being executed.

    `registers` are r0 to r10. `stack` has a cell for each eight bytes that were written, by their number: -1
    are the bytes from r10 - 8 on. `start` is the slot where the function starts, `call` the slot of its call.
    `callback` is said of a function that a helper calls. `rounds` is how often the helper that is called from
    here has called one.
    """

    __slots__ = ("call", "callback", "registers", "rounds", "stack", "start")

    def __init__(
        self,
        start: int,
        call: int,
        registers: list[Value],
        stack: dict[int, Cell] | None = None,
        callback: Callback | None = None,
        rounds: int = 0,
    ) -> None:
        self.start = start
        self.rounds = rounds
        self.call = call
        self.registers = registers
        self.stack = {} if stack is None else stack
        self.callback = callback

    def copy(self) -> Frame:
        """Return a frame that can be changed by itself."""
        return Frame(
            self.start, self.call, self.registers.copy(), self.stack.copy(), self.callback, self.rounds
        )


class Step:
    """A decision on the way to a state: at which slot, and whether the jump was taken (None: a call)."""

    __slots__ = ("before", "length", "pc", "taken")

    def __init__(self, before: Step | None, pc: int, taken: bool | None) -> None:
        self.before = before
        self.pc = pc
        self.taken = taken
        self.length: int = 1 if before is None else before.length + 1


@dataclass(frozen=True, slots=True)
class Reference:
    """What the program must give back: its number, the slot that acquired it, and by which function."""

    id: int
    pc: int
    by: str


class State:
    """What is known at one instruction.

    `frames` are those of functions that are being executed, the innermost last. `references` must be given
    back. `lock` is the key of the spin lock that is held and the slot that took it. `sections` are stretches
    that were begun: (name, slot) of RCU, of no preemption, of interrupts, of locks. `way` are the decisions
    that led here, `point` the state that was kept last on the way. `choices` counts where the way might have
    been another.
    """

    __slots__ = (
        "choices", "frames", "lock", "pc", "point", "references", "rounds", "sections", "since", "way",
    )  # fmt: skip

    def __init__(self, pc: int, frames: list[Frame]) -> None:
        self.pc = pc
        self.frames = frames
        self.references: tuple[Reference, ...] = ()
        self.lock: tuple[tuple[object, int], int] | None = None
        self.sections: tuple[tuple[str, int], ...] = ()
        self.way: Step | None = None
        self.point: Point | None = None
        self.since = 0
        self.rounds = 0
        self.choices = 0

    @property
    def region(self) -> str:
        """What the stretch is called that was begun last."""
        return self.sections[-1][0].partition(" ")[0]

    @property
    def holds_a_lock(self) -> bool:
        """True where a spin lock is held, of either kind."""
        return self.lock is not None or any(name.startswith(RESILIENT) for name, _ in self.sections)

    @property
    def frame(self) -> Frame:
        """The frame of the function that is being executed."""
        return self.frames[-1]

    @property
    def registers(self) -> list[Value]:
        """The registers of the function that is being executed."""
        return self.frames[-1].registers

    def copy(self, pc: int) -> State:
        """Return a state that can be changed by itself, at another slot."""
        made = State(pc, [frame.copy() for frame in self.frames])
        made.references, made.lock, made.sections = self.references, self.lock, self.sections
        made.way, made.point, made.since, made.rounds = self.way, self.point, self.since, self.rounds
        made.choices = self.choices
        return made


def read(state: State, number: int) -> Value:
    """Return what a register holds. Raises Refused where nothing was written to it."""
    value = state.frames[-1].registers[number]
    if value is None:
        raise Refused(
            "uninitialised", f"R{number} !read_ok", "write the register on every path that leads here"
        )
    return value


class Point:
    """A state that was kept: `branches` ways from it are not walked to their end yet.

    `loop` is a point that was not done when a way from here was left to it: until that is, no more is known
    of what mattered here than of it.
    """

    __slots__ = ("_shared", "before", "branches", "hits", "loop", "misses", "state")

    def __init__(self, state: State, before: Point | None) -> None:
        self.state = state
        self.before = before
        self.branches = 1
        self.hits = 0
        self.misses = 0
        self.loop: Point | None = None
        self._shared: frozenset[int] | None = None

    def shared_links(self) -> frozenset[int]:
        """Return the links that more than one scalar of the state has."""
        if self._shared is None:
            once: set[int] = set()
            several: set[int] = set()
            for frame in self.state.frames:
                for value in (*frame.registers, *(cell.value for cell in frame.stack.values())):
                    if isinstance(value, Scalar):
                        (several if value.link in once else once).add(value.link)
            self._shared = frozenset(several)
        return self._shared

    @property
    def is_done(self) -> bool:
        """True where all ways from here were walked to their end, and so what mattered is known."""
        point: Point | None = self
        while point is not None:
            if point.branches:
                return False
            point = point.loop
        return True


def keep(state: State) -> Point:
    """Keep a state as it is; it goes on with copies, which say back what mattered."""
    point = Point(state.copy(state.pc), state.point)
    made: dict[int, Scalar] = {}

    def copied(value: Value) -> Value:
        if not isinstance(value, Scalar) or type(value) is not Scalar:
            return value
        known = made.get(id(value))
        if known is None:
            known = made[id(value)] = Scalar(
                value.number, (value,), value.link, value.delta, is_half=value.is_half
            )
        return known

    for frame in state.frames:
        frame.registers = [copied(value) for value in frame.registers]
        for number, cell in frame.stack.items():
            value = copied(cell.value) if isinstance(cell.value, (Scalar, Pointer)) else cell.value
            frame.stack[number] = Cell(cell.kinds, value, cell)
    state.point = point
    state.since = 0
    return point
