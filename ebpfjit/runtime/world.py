"""What the helpers of one run work on: its memory, maps, context, output; and the engine below them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from ebpfjit.errors import ExecutionError
from ebpfjit.record import dataclass, field
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.foreign import NOTHING, ForeignMemory
from ebpfjit.runtime.memory import running

RETVAL, SEQUENCE, SIGNALS = "retval", "seq", "signals"
"""Under which keys of `World.kept` the result of the hook, the text of the iterator and the signals are."""

if TYPE_CHECKING:
    from ebpfjit.program import Program
    from ebpfjit.runtime.execution import Mark
    from ebpfjit.runtime.held import Taken
    from ebpfjit.runtime.maps.base import Map
    from ebpfjit.runtime.maps.special import ObjectLayout
    from ebpfjit.runtime.maps.structs import MapStructs
    from ebpfjit.runtime.timers import Callback


class Thrown(ExecutionError):  # noqa: N818 - who called the helper takes it for an end, not for an error
    """A function that a helper called has ended its program, with `value` as r0; the helper lets it pass.

    It is an error only of a function that is called by itself, as a timer's: there is no program to end.
    """

    def __init__(self, value: int) -> None:
        super().__init__("bpf_throw in a function that is called by itself: it has no program to end")
        self.value = value

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.value,), vars(self)


class Engine(Protocol):
    """What a helper may ask of the engine that runs the program."""

    def call_function(self, address: int, arguments: tuple[int, ...]) -> int:
        """Run a function of the program (its address as LDDW gives it) and return its r0."""

    def budget_left(self) -> int | None:
        """Return how many instructions the run may still execute, None for no limit."""

    def spend(self, instructions: int) -> None:
        """Take instructions off what the run may still execute; raises BudgetExhausted (without pc)."""

    def place(self) -> tuple[Program, int]:
        """Return the program that calls the helper, and the slot of the call."""

    def leave_function(self) -> None:
        """Make the function that called this helper exit, with the helper's result as its r0."""

    def leave_program(self) -> None:
        """Make the program exit, from whatever function it is in, with this helper's result as its r0.

        Where a helper is in between, which called a function of the program, that call raises `Thrown`.
        """


MOST_LEFT, LEAST_LEFT = 1 << 26, 256
"""Bytes that a run leaves at most in lines, events and copies of packets; each counts for at least 256."""


@dataclass(slots=True)
class World:
    """The state that helpers of one run share; made anew for each run.

    `maps` are the program's maps by address. `context` is what r1 points to, as
    `runtime.contexts` made it, None for plain memory. `output` takes the lines of
    bpf_trace_printk, `events` what goes to perf and ring buffers: (map name, bytes). The memory of the run is
    `runtime.memory.running()`.
    `run_program` runs another program on the same context, world and budget and returns its r0:
    what a tail call does; `tail_calls` counts them. `kept` is what helpers remember until the run
    ends, under keys of their own: reserved records, sockets. `shown` is what they remember of the memory of
    the program that runs now, and not of one behind a tail call: objects, maps in maps. `lock` is the spin
    lock that is held: its address, and which it is in words. `mark` is that of the run.
    `later` makes of a function of the program that runs (its address) what calls it when the run is over.
    `object_types` are the structs of its BTF by id, of which it makes objects, `map_structs` what it sees of
    its maps, None for nothing.
    `held` is what the program has to give back before it ends, from the first that it took on
    (`runtime.held`). `left` counts the bytes of `output`, `events` and copies of packets. `foreign` is the
    memory that is not the program's, `current_task` the address of the process in it. It `has_result` where
    the context ends with what the traced function returned.
    """

    environment: Environment
    maps: Mapping[int, Map] = field(default_factory=dict)
    context: Any = None
    output: list[str] = field(default_factory=list)
    events: list[tuple[str, bytes]] = field(default_factory=list)
    engine: Engine | None = None
    run_program: Callable[[Any], int] | None = None
    tail_calls: int = 0
    kept: dict[Any, Any] = field(default_factory=dict)
    shown: dict[Any, Any] = field(default_factory=dict)
    lock: tuple[int, str] | None = None
    left: int = 0
    mark: Mark | None = None
    later: Callable[[int], Callback] | None = None
    object_types: Callable[[int], ObjectLayout | None] | None = None
    map_structs: MapStructs | None = None
    held: dict[Hashable, Taken] = field(default_factory=dict)
    foreign: ForeignMemory = NOTHING
    has_result: bool = False
    current_task: int = 0

    def end(self) -> None:
        """Let go of what runs the programs, which points back: what a run leaves goes with its result."""
        self.engine = self.run_program = self.later = None

    def leaves(self, size: int) -> bool:
        """Count `size` bytes among what the run leaves; False where that would be more than MOST_LEFT."""
        size = max(size, LEAST_LEFT)
        if self.left + size > MOST_LEFT:
            return False
        self.left += size
        return True


@contextmanager
def engine_of(world: World | None, engine: Engine) -> Iterator[None]:
    """Make `engine` the one that a world's helpers speak to; runs may be nested (tail calls)."""
    if world is None:
        yield
        return
    outer, world.engine = world.engine, engine
    try:
        yield
    finally:
        world.engine = outer


def current() -> World | None:
    """Return the world of the program that runs in this thread, None outside of a run."""
    space = running()
    return space.world if space is not None else None


def empty_buffers(world: World) -> None:
    """Empty the buffers whose events the result hands over, so that they are not full one day."""
    if world.maps and (world.events or world.kept):  # a record that was discarded takes room as well
        for map_ in world.maps.values():
            map_.drop_events()
