"""Timers and work queues in the values of maps: what a program starts now, and what is called later.

    bpf_timer_init, set_callback, start  ->  Timer in Map.timers  ->  clock past its deadline  ->  callback

The value holds a handle, as Linux's holds a pointer: a value that was deleted or written over has none, and
its timer is gone. Nothing is called by itself: callbacks run where time passes, which is in
`Environment.clock.advance`, in `Environment.fire_timers`, and before a run of a program that has the map, or
a call of what it was compiled to: one with timers in its maps, or that starts some.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, ref

from ebpfjit.bits import W64
from ebpfjit.errors import ExecutionError
from ebpfjit.runtime import memory

if TYPE_CHECKING:
    from ebpfjit.runtime.maps.base import Map
    from ebpfjit.runtime.world import World

HANDLE_SIZE = 8
MOST_FIRED = 100_000
"""Callbacks that one passing of time may call: a timer that starts itself at once would have no end."""

Callback = Callable[[int, bytes, int], None]
"""callback(map, key, value): a function of a program, run by itself."""


@dataclass(eq=False, slots=True)
class Timer:
    """A timer, or the work of a queue: where it is, the handle that is there, what it calls and when.

    `deadline` is None where it is not started; `clock` is what it was started by.
    """

    address: int
    handle: int
    kind: str
    callback: Callback | None = None
    deadline: int | None = None
    clock: Callable[[], int] | None = None
    order: int = 0


@dataclass(slots=True)
class Timers:
    """The timers in the values of one map, by address; how many were ever made; which one is called now."""

    by_address: dict[int, Timer] = field(default_factory=dict)
    made: int = 0
    running: Timer | None = None


_with_timers: dict[int, ReferenceType[Map]] = {}
"""Maps that ever had one, by their id. Threads add one, or go through them all, in one step of C."""

_orders = itertools.count()


def _remember(map_: Map) -> None:
    key = id(map_)
    _with_timers[key] = ref(map_, lambda _: _with_timers.pop(key, None))


def _maps() -> list[Map]:
    return [map_ for each in list(_with_timers.values()) if (map_ := each()) is not None]


def initialise(kind: str, place: int, map_: Map, name: str) -> int:
    """Make the timer at an address of one of a map's values; 0, or -EBUSY where there is one.

    Raises ExecutionError where the address is in no value of the map.
    """
    memory.check(place, HANDLE_SIZE, "store")
    if not any(region.contains(place, HANDLE_SIZE) for region in map_.regions):
        raise ExecutionError(f"{name} of {place:#x}, which is in no value of {map_.definition}")
    if map_.timers is None:
        map_.timers = Timers()
        _remember(map_)
    if _find(map_, place) is not None:
        return -errno.EBUSY
    _drop_the_lost(map_)
    map_.timers.made += 1
    made = Timer(place, W64.wrap(map_.timers.made), kind)
    map_.timers.by_address[place] = made
    memory.write(place, made.handle.to_bytes(HANDLE_SIZE, "little"))
    return 0


def timer_at(kind: str, place: int) -> tuple[Map, Timer] | None:
    """Return the timer at an address, and its map; None where none was initialised there."""
    memory.check(place, HANDLE_SIZE, "store")
    for map_ in _maps():  # the place is the program's, so the map is one that it may touch
        found = _find(map_, place)
        if found is not None and found.kind == kind:
            return map_, found
    return None


def start(world: World, timer: Timer, deadline: int) -> None:
    """Let a timer call its function once the environment's clock is at `deadline` (ns)."""
    timer.deadline, timer.clock = deadline, world.environment.clock
    timer.order = next(_orders)


def _find(map_: Map, place: int) -> Timer | None:
    timers = map_.timers
    found = timers.by_address.get(place) if timers is not None else None
    return found if found is not None and _is_there(map_, found) else None


def _is_there(map_: Map, timer: Timer) -> bool:
    """True where the value still holds the timer's handle."""
    for region in map_.regions:
        if region.contains(timer.address, HANDLE_SIZE):
            at = timer.address - region.start
            return int.from_bytes(region.view[at : at + HANDLE_SIZE], "little") == timer.handle
    return False


def _drop_the_lost(map_: Map) -> None:
    """Forget timers whose values are gone, now and then: there are never twice as many as are there."""
    timers = map_.timers
    if timers is not None and len(timers.by_address) >= 2 * map_.definition.max_entries:
        timers.by_address = {
            at: each for at, each in list(timers.by_address.items()) if _is_there(map_, each)
        }


# -- time passes -----------------------------------------------------------------------------------


def _due(clock: Callable[[], int], now: int, maps: Iterable[Map]) -> tuple[Map, Timer, int] | None:
    """Return the timer that is to fire first, its map and its deadline; None where none is due."""
    started = [
        (timer.deadline, timer.order, map_, timer)
        for map_ in maps
        if map_.timers is not None and map_.timers.running is None
        for timer in list(map_.timers.by_address.values())
        if timer.deadline is not None and timer.clock == clock and timer.deadline <= now
    ]
    if not started:
        return None
    deadline, _, map_, timer = min(started, key=lambda each: each[:2])
    return map_, timer, deadline


def fire(
    clock: Callable[[], int], until: Callable[[], int], *, at: Callable[[int], Any] | None = None
) -> int:
    """Call what is due by a clock up to `until()`, in order; `at` is told of each deadline. Return how many.

    Raises what a callback raises, and ExecutionError where there is no end.
    """
    called = 0
    for _ in range(MOST_FIRED):
        due = _due(clock, until(), _maps())
        if due is None:
            return called
        map_, timer, deadline = due
        if at is not None:
            at(deadline)
        called += _call(map_, timer)
    raise ExecutionError(
        f"{MOST_FIRED} callbacks in a row, and the next is due: a timer starts itself at once"
    )


def fire_due(maps: Iterable[Map], clock: Callable[[], int]) -> None:
    """Call what is due in some maps, before a program that has them is run."""
    if not _with_timers:
        return
    mine = [map_ for map_ in maps if map_.timers is not None]
    for _ in range(MOST_FIRED if mine else 0):
        due = _due(clock, clock(), mine)
        if due is None:
            return
        _call(*due[:2])


def _call(map_: Map, timer: Timer) -> bool:
    """Call a timer's function; False where its value is gone, and the timer with it."""
    timer.deadline = None
    timers = map_.timers
    assert timers is not None  # this one is among them
    entry = _entry_of(map_, timer) if _is_there(map_, timer) else None
    if entry is None or timer.callback is None:
        timers.by_address.pop(timer.address, None)
        return False
    timers.running = timer
    try:
        timer.callback(map_.address, *entry)
    finally:
        timers.running = None
    return True


def _entry_of(map_: Map, timer: Timer) -> tuple[bytes, int] | None:
    """Return the key of the value that a timer is in, and the value's address."""
    size = map_.definition.value_size
    entries = ((key, value) for key, value in map_.entries() if value <= timer.address < value + size)
    return next(entries, None)
