"""Timers and work queues in the values of maps: what a program starts now, and what is called later.

    bpf_timer_init, set_callback, start  ->  Timer in Map.timers  ->  clock past its deadline  ->  callback

The value holds a handle, as Linux's holds a pointer: a value that was deleted or written over has none, and
its timer is gone. Nothing is called by itself: callbacks run where time passes, which is in
`Environment.clock.advance`, in `Environment.fire_timers`, and before a run of a program that has the map, or
a call of what it was compiled to: one with timers in its maps, or that starts some.
What timers call has the limit of the run that set them: together, each time that time passes, or a run could
start as many as it can pay for, and each would have the whole of it.
"""

from __future__ import annotations

import errno
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, ref

from ebpfjit.bits import W64
from ebpfjit.errors import ExecutionError
from ebpfjit.once import ForkLock
from ebpfjit.record import dataclass, field
from ebpfjit.runtime import memory
from ebpfjit.runtime.heap import heap

if TYPE_CHECKING:
    from ebpfjit.runtime.maps.base import Map
    from ebpfjit.runtime.world import World

HANDLE_SIZE = 8
FEWEST, MAPS_FOR_ONE = 64, 16
"""Places that queues have at least; maps with timers that are looked through for one instruction."""
TIMER_COST = 512
"""Bytes that a timer takes, with what it calls."""
MOST_FIRED = 100_000
"""Callbacks that one passing of time may call: a timer that starts itself at once would have no end."""

_queueing = ForkLock(waits_at_fork=True)
"""Held while starts are put into queues and taken out."""

Spent = dict[object, int]
"""Instructions that callbacks took while time passed once, by the run that all of them go back to."""

Callback = Callable[[int, bytes, int, Spent], None]
"""callback(map, key, value, spent): a function of a program, run by itself, within what is left of the limit
of the run that it goes back to."""


@dataclass(eq=False, slots=True, weakref_slot=True)
class Timer:
    """A timer, or the work of a queue: where it is, the handle that is there, what it calls and when.

    `deadline` is None where it is not started; `order` is another number at each start.
    """

    address: int
    handle: int
    kind: str
    callback: Callback | None = None
    deadline: int | None = None
    order: int = 0

    def __del__(self, give_back: Callable[[int], None] = heap.give_back, cost: int = TIMER_COST) -> None:
        give_back(cost)  # names of this module may be gone: a process ends


Start = tuple[int, int, Timer]
"""A deadline, the order of the start, the timer: the first of two is the one that fires first."""


def _is_on(start: Start) -> bool:
    """True where the timer was neither stopped nor started anew."""
    _, order, timer = start
    return timer.deadline is not None and timer.order == order


@dataclass(eq=False, slots=True)
class Queue:
    """What was started by one clock in a map, the first that fires at the front (a heap)."""

    clock: Callable[[], int]
    starts: list[Start] = field(default_factory=list)
    most: int = FEWEST

    def put(self, start: Start) -> None:
        """Put a start in; those that are on no more are thrown out now and then."""
        if len(self.starts) >= self.most:
            self.starts = [each for each in self.starts if _is_on(each)]
            heapq.heapify(self.starts)
            self.most = FEWEST + 2 * len(self.starts)
        heapq.heappush(self.starts, start)

    def first(self) -> Start | None:
        """Return the first that is on."""
        while self.starts and not _is_on(self.starts[0]):
            heapq.heappop(self.starts)
        return self.starts[0] if self.starts else None


@dataclass(slots=True)
class Timers:
    """The timers in the values of one map, by address; how many were ever made; which one is called now.

    `queues` are those of clocks, by their ids.
    """

    by_address: dict[int, Timer] = field(default_factory=dict)
    queues: dict[int, Queue] = field(default_factory=dict)
    made: int = 0
    most: int = FEWEST
    running: Timer | None = None

    def put(self, clock: Callable[[], int], start: Start) -> None:
        """Let a timer that was started wait for a clock."""
        with _queueing.held:
            queue = self.queues.get(id(clock))
            if queue is None:
                self.queues = {key: each for key, each in self.queues.items() if each.first() is not None}
                queue = self.queues[id(clock)] = Queue(clock)
            queue.put(start)


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
    if not heap.take(TIMER_COST):
        return -errno.ENOMEM
    map_.timers.made += 1
    made = Timer(place, W64.wrap(map_.timers.made), kind)
    map_.timers.by_address[place] = made
    memory.write(place, made.handle.to_bytes(HANDLE_SIZE, "little"))
    return 0


def timer_at(kind: str, place: int) -> tuple[Map, Timer] | None:
    """Return the timer at an address, and its map; None where none was initialised there."""
    memory.check(place, HANDLE_SIZE, "store")
    maps = _maps()  # the place is the program's, so the map is one that it may touch
    memory.spend(len(maps) // MAPS_FOR_ONE)
    for map_ in maps:
        found = _find(map_, place)
        if found is not None and found.kind == kind:
            return map_, found
    return None


def start(world: World, map_: Map, timer: Timer, deadline: int) -> None:
    """Let a timer of a map call its function once the environment's clock is at `deadline` (ns)."""
    timer.deadline, timer.order = deadline, next(_orders)
    if map_.timers is not None:
        map_.timers.put(world.environment.clock, (deadline, timer.order, timer))


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
    """Forget timers whose values are gone, now and then: there are never many more than are there."""
    timers = map_.timers
    if timers is not None and len(timers.by_address) >= timers.most:
        timers.by_address = {
            at: each for at, each in list(timers.by_address.items()) if _is_there(map_, each)
        }
        timers.most = FEWEST + 2 * len(timers.by_address)


# -- time passes -----------------------------------------------------------------------------------


def _take_due(clock: Callable[[], int], now: int, maps: Iterable[Map]) -> tuple[Map, Queue, Start] | None:
    """Take out the start that is to fire first, with its map and queue; None where none is due."""
    found: tuple[Map, Queue, Start] | None = None
    for map_ in maps:
        if map_.timers is None or map_.timers.running is not None:
            continue
        for queue in list(map_.timers.queues.values()):
            if queue.clock != clock:
                continue
            with _queueing.held:
                first = queue.first()
            if first is not None and first[0] <= now and (found is None or first < found[2]):
                found = map_, queue, first
    if found is None:
        return None
    with _queueing.held:
        if found[1].first() is found[2]:
            heapq.heappop(found[1].starts)
            return found
    return _take_due(clock, now, maps)  # another thread was faster


def fire(
    clock: Callable[[], int], until: Callable[[], int], *, at: Callable[[int], Any] | None = None
) -> int:
    """Call what is due by a clock up to `until()`, in order; `at` is told of each deadline. Return how many.

    Raises what a callback raises, and ExecutionError where there is no end.
    """
    called, spent = 0, Spent()
    for _ in range(MOST_FIRED):
        due = _take_due(clock, until(), _maps())
        if due is None:
            return called
        if at is not None:
            at(due[2][0])
        called += _call(*due, spent)
    raise ExecutionError(
        f"{MOST_FIRED} callbacks in a row, and the next is due: a timer starts itself at once"
    )


def fire_due(maps: Iterable[Map], clock: Callable[[], int]) -> None:
    """Call what is due in some maps, before a program that has them is run.

    What is started meanwhile waits for the next time: a timer that starts itself at once would have no end.
    """
    if not _with_timers:
        return
    mine = [map_ for map_ in maps if map_.timers is not None]
    if not mine:
        return
    now = clock()
    waiting: deque[tuple[Map, Queue, Start]] = deque()
    spent = Spent()
    while (due := _take_due(clock, now, mine)) is not None:
        waiting.append(due)
    try:
        while waiting:
            _call(*waiting.popleft(), spent)
    finally:
        for map_, queue, start_ in waiting:
            assert map_.timers is not None  # it had some
            map_.timers.put(queue.clock, start_)


def _call(map_: Map, queue: Queue, start_: Start, spent: Spent) -> bool:
    """Call a timer's function; False where it is on no more, or its value is gone, and the timer with it."""
    timer, timers = start_[2], map_.timers
    assert timers is not None  # this one is among them
    if not _is_on(start_):
        return False
    if timers.running is not None:
        timers.put(queue.clock, start_)
        return False
    timer.deadline = None
    entry = map_.entry_at(timer.address) if _is_there(map_, timer) else None
    if entry is None or timer.callback is None:
        timers.by_address.pop(timer.address, None)
        return False
    timers.running = timer
    try:
        timer.callback(map_.address, *entry, spent)
    finally:
        timers.running = None
    return True
