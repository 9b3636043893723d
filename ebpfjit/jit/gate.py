"""The native gate: what machine code reads of a program when Python calls it, and what it leaves to Python.

What is called is made in `callables`. Where the gate cannot work, `why_not` says why, and everything goes
through `Compiled.run`.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol
from weakref import WeakValueDictionary

from ebpfjit.bits import W64
from ebpfjit.errors import ExecutionError
from ebpfjit.isa.spec import Kind
from ebpfjit.isa.table import TABLE, told_by
from ebpfjit.jit.cpu import machine
from ebpfjit.jit.entry import Compiled, Run, slices_of
from ebpfjit.jit.lanes import Lane
from ebpfjit.jit.promises import Given, check
from ebpfjit.jit.routines import (
    BYTEARRAY_EXPORTS,
    BYTEARRAY_START,
    BYTES_DATA,
    SIZE,
    WORD,
    word,
)
from ebpfjit.jit.sending import Channels
from ebpfjit.jit.stock import LeafHelper
from ebpfjit.jit.tails import Table
from ebpfjit.once import OwnLock, once
from ebpfjit.options import Options
from ebpfjit.program import Program
from ebpfjit.record import dataclass
from ebpfjit.runtime import faults, held
from ebpfjit.runtime.execution import Execution, Stops
from ebpfjit.runtime.memory import (
    MAX_FRAMES,
    STACK_SIZE,
    AddressSpace,
    Region,
    Stack,
    address_of,
    memory_at,
)
from ebpfjit.runtime.rights import Rights
from ebpfjit.runtime.shared import SharedRegions
from ebpfjit.runtime.world import World
from ebpfjit.translators.block import FAULTS, MOST_LIMITS, STATE_WORDS, block_size, limit_place
from ebpfjit.translators.host import SHAPES

SUPPORTED = ((3, 11), (3, 12), (3, 13), (3, 14))
"""The versions of CPython whose objects are laid out as the gate expects."""


def _aligned(size: int) -> int:
    return -(-size // 16) * 16


LARGEST_MBUFF = 1024
"""A fixed mbuff of more bytes is made by Python."""

SPARE_LIMITS = 16
"""How many limits more than its own code's a run has room for, where it may go on in better code."""

LARGEST_BLOCK = _aligned(block_size(MOST_LIMITS + SPARE_LIMITS))
"""Bytes for the block of a run that goes on in other programs."""

LARGEST_FRAME = 8 * 1024
"""A run that needs more of the thread's stack goes another way; what a program asks for keeps below."""

PACKET_LOADS = told_by(*(row for row in TABLE if row.kind is Kind.PACKET_LOAD))
"""As in `Program.operations`."""

_STATE = {name: index for index, name in enumerate(STATE_WORDS)}
_STACK_LIMIT, _STACK_TOP, _PACKET_SIZE, _STOPS, _TAIL_CALLS, _GIVEN = (
    WORD[name] >> 3 for name in ("stack_limit", "stack_top", "packet_size", "stops", "tail_calls", "given")
)


@once
def why_not() -> str:
    """Return why the native gate is not to be had here, "" where it is.

    The environment variable EBPFJIT_GATE=ctypes turns it off.
    """
    if os.environ.get("EBPFJIT_GATE") == "ctypes":
        return "turned off by EBPFJIT_GATE"
    if sys.implementation.name != "cpython":
        return f"{sys.implementation.name} is not CPython"
    if sys.version_info[:2] not in SUPPORTED:
        return f"not tested with CPython {sys.version_info.major}.{sys.version_info.minor}"
    if hasattr(sys, "gettotalrefcount"):
        return "this is a debug build"
    if "t" in getattr(sys, "abiflags", ""):
        return "this is a free-threaded build"
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        return "pointers do not have 64 bits"
    return "" if _layout_is_as_expected() else "objects are not laid out as expected"


def _layout_is_as_expected() -> bool:
    sample, array = bytes(range(7, 40)), bytearray(range(100))
    del array[:3]  # now it does not start where its memory does
    seen = [_peek(sample, SIZE - 8), _peek(sample, SIZE), _peek(array, SIZE - 8), _peek(array, SIZE)]
    if seen != [id(bytes), len(sample), id(bytearray), len(array)]:
        return False
    exports = [_peek(array, BYTEARRAY_EXPORTS)]
    with memoryview(array):
        exports.append(_peek(array, BYTEARRAY_EXPORTS))
    exports.append(_peek(array, BYTEARRAY_EXPORTS))
    data = ctypes.string_at(id(sample) + BYTES_DATA, len(sample))
    return data == sample and exports == [0, 1, 0] and _peek(array, BYTEARRAY_START) == address_of(array)


def _peek(value: object, offset: int) -> int:
    """Return a word of an object."""
    return ctypes.c_uint64.from_address(id(value) + offset).value


@dataclass(frozen=True)
class Mbuff:
    """A metadata buffer that the gate makes: its size, and where the packet's addresses go."""

    size: int
    data_offset: int
    data_end_offset: int


class Gate:
    """A compiled program, ready for calls of one shape: its state, and its runs that Python knows.

    `names` are those of the buffers, the packet first. Where there is a `lane`, `begin(size, stack)`
    gives the execution of a run that is in the middle of a packet of so many bytes there. `better`
    compiles, as options say, what is to take this program's place once its calls have cost `heat`
    instructions, and what its runs go on in. `stops` counts how often the calls were stopped. Each run
    writes `cells` first, words by their address. `rights` are those of a lane's struct. Blocks of runs get
    `room` bytes at least: a run that goes on in other code keeps its block. Who changes a gate that may be
    replaced meanwhile holds `lock`, which goes over to the new one. Where it `grows`, runs may come to have
    memory in a lane that `allowed` has not: that of maps inside of maps. `tails` is where runs go on in other
    programs: they get room for whatever these need. `world` makes what the helpers of a run work on, where
    there is no lane, whose `begin` does. `channels` are the maps to which batches may send without Python,
    as they are when one begins. Calls that find the lane in use go on with the `other` gate, one of the same
    program in another lane.
    Raises ExecutionError for code that was promised more than runs of this shape have.
    """

    def __init__(
        self,
        compiled: Compiled,
        shape: str,
        names: Sequence[str],
        *,
        limit: int | None = None,
        allowed: SharedRegions | None = None,
        checked: bool = True,
        mbuff: Mbuff | None = None,
        lane: Lane | None = None,
        begin: Callable[[int, Stack], Execution] | None = None,
        better: Callable[[Options], Compiled] | None = None,
        heat: int = 0,
        stops: Stops | None = None,
        rights: Rights | None = None,
        room: int = 0,
        cells: Sequence[tuple[int, int]] = (),
        grows: bool = False,
        tails: Table | None = None,
        world: Callable[[], World] | None = None,
        channels: Callable[[], Channels] | None = None,
        other: Gate | None = None,
    ) -> None:
        check(compiled.recipe, _given(shape, lane, mbuff, rights))
        self.rights = rights
        self.compiled = compiled
        self.stops = stops or Stops()
        self.better = self.anew = better
        self.lock = OwnLock()
        self.lane, self.begin, self.world = lane, begin, world
        self.mbuff = mbuff
        self.shape = shape
        self.names = names
        self.checked = checked
        self.regions = SharedRegions() if allowed is None else allowed
        self.state = (ctypes.c_uint64 * len(STATE_WORDS))()
        self._runs: dict[int, _NativeRun] = {}
        self._kept: tuple[tuple[int, int, int], memoryview, memoryview] | None = None
        self._limits = _limit_table(compiled)
        self.cells, self.grows, self.tails = cells, grows, tails
        self.channels, self.other = channels, other
        self._cells = (ctypes.c_uint64 * (2 * len(cells)))(*(word for cell in cells for word in cell))
        program = compiled.verified.program
        loads_packets = not PACKET_LOADS.isdisjoint(program.operations)
        leaves = all(isinstance(helper, LeafHelper) for helper in compiled.helpers)
        linked = tails is not None or not leaves  # a run keeps its place in the list in all its programs
        self.set_words(
            entry=compiled.entry,
            limits_start=ctypes.addressof(self._limits),
            limits_stop=ctypes.addressof(self._limits) + ctypes.sizeof(self._limits),
            cells_start=ctypes.addressof(self._cells),
            cells_stop=ctypes.addressof(self._cells) + ctypes.sizeof(self._cells),
            linked=linked,
            unlocked=compiled.unlocked,
            special=linked or compiled.unlocked or loads_packets or better is not None,
            lane=lane.address if lane is not None else 0,
            other=ctypes.addressof(other.state) if other is not None else 0,
            heat=heat,
            stop_cell=self.stops.address,
            tails=tails.address if tails is not None else 0,
            **_frame_of(
                compiled,
                mbuff,
                0 if better is None else SPARE_LIMITS,
                room if tails is None else max(room, LARGEST_BLOCK),
                jumps=tails is not None,
            ),
        )
        self.set_words(regions=self.regions.address)
        self.set_limit(limit)
        _gates[ctypes.addressof(self.state)] = self

    @property
    def chain(self) -> Iterator[Gate]:
        """Yield the gate, and those that calls go on with, one after the other, where its lane is in use."""
        gate: Gate | None = self
        while gate is not None:
            yield gate
            gate = gate.other

    @property
    def memory(self) -> tuple[Any, ...]:
        """What machine code reads of the gate and of its program, for whoever is to keep it."""
        compiled, lane = self.compiled, self.lane
        return (
            *(self.state, self._limits, self._cells, self.regions, self.stops),
            *(compiled.buffer, compiled.helpers, compiled.pins, lane and (lane, lane.memory), self.tails),
        )

    def set_words(self, **words: int) -> None:
        """Set words of the state."""
        for name, value in words.items():
            self.state[_STATE[name]] = value

    def set_limit(self, limit: int | None) -> None:
        """Give each run from now on so many instructions, None for no limit."""
        self.limit = limit
        first, later = slices_of(limit)
        self.set_words(first=first, later=later)

    def spend(self, instructions: int) -> bool:
        """Count what calls have cost, or will; True where that is all that they may cost."""
        heat = W64.signed(self.state[_STATE["heat"]]) - instructions
        self.set_words(heat=W64.wrap(heat))
        return heat <= 0

    def shorten(self, first: int) -> None:
        """End the first slice of each run after so many instructions, as if it had used up the heat."""
        budget = self.state[_STATE["first"]] + self.state[_STATE["later"]]
        first = min(first, budget)
        self.set_words(first=first, later=budget - first, heat=1)

    def like(self, compiled: Compiled) -> Gate:
        """Return a gate for the same calls of other code."""
        gate = Gate(
            compiled,
            self.shape,
            self.names,
            limit=self.limit,
            allowed=self.regions,
            checked=self.checked,
            mbuff=self.mbuff,
            lane=self.lane,
            begin=self.begin,
            stops=self.stops,
            rights=self.rights,
            room=self.room,
            cells=self.cells,
            grows=self.grows,
            tails=self.tails,
            world=self.world,
            channels=self.channels,
            other=None if self.other is None else self.other.like(compiled),
        )
        gate.lock, gate.anew = self.lock, self.anew
        return gate

    @property
    def fits(self) -> bool:
        """False where a run would take too much of the thread's stack."""
        small = self.state[_STATE["mbuff_size"]] <= LARGEST_MBUFF
        return small and self.state[_STATE["frame"]] <= LARGEST_FRAME

    def memory_of(self, block: int) -> tuple[memoryview, Stack]:
        """Return the words of a block, and a stack where the run has it.

        Calls in a loop have the same places again and again: what shows them is kept.
        """
        kept = self._kept
        words = kept[1] if kept is not None and kept[0][0] == block else _words(self.compiled, block)
        low, high = words[_STACK_LIMIT], words[_STACK_TOP]
        if kept is None or kept[0] != (block, low, high):
            kept = self._kept = (block, low, high), words, memory_at(low, high - low)
        return words, Stack.over(low, kept[2])

    def attach(self, block: int) -> _NativeRun:
        """Return the run at a block, which machine code is in the middle of; the same each time."""
        if word(block, "attached"):
            return self._runs[block]
        run = self._runs[block] = _NativeRun(self, block)
        _spaces[block] = run.space
        run.set_word("attached", 1)
        taker = _taker_of(run)
        if taker is not None:
            taker.adopt(run.execution)
        return run

    @property
    def room(self) -> int:
        """How many bytes there are for the block of a run."""
        return self.state[_STATE["low"]]

    def take_over(self, block: int, room: int) -> int:
        """Return the address where a run at the end of a slice goes on in this code, 0 where it cannot.

        Registers, frame and budget are the same in both, and the other code's limits are the first of this
        one's: its functions return there. Only where the run's block, of `room` bytes, is large enough for
        all limits; not in functions that a helper called, as Python has the other code in its hands.
        """
        old, compiled = gate_of(block), self.compiled
        fits = block_size(len(compiled.image.limits)) <= room
        same = self.state[_STATE["linked"]] == old.state[_STATE["linked"]]
        nested = word(block, "frames_left") != MAX_FRAMES - 1
        if not fits or not same or (nested and compiled.recipe.callers.is_called_back):
            return 0
        offset = compiled.image.resumes.get(old.compiled.pc_of(word(block, "fault_place")))
        if offset is None:
            return 0
        if nested:
            _return_to(compiled, word(block, "return_place") + 8)
        if word(block, "attached"):
            self._runs[block] = run = old._runs.pop(block)
            run.go_on_in(compiled)
        for size, less, place in zip(*[iter(self._limits)] * 3, strict=True):
            room = ctypes.c_uint64.from_address(block + size).value - less
            ctypes.c_uint64.from_address(block + place).value = max(room, 0)
        ctypes.c_uint64.from_address(block + WORD["state"]).value = ctypes.addressof(self.state)
        return compiled.buffer.address + offset

    def on_finish(self, block: int) -> None:
        """Forget a run that ended well. Raises ExecutionError where it holds what it had to give back."""
        run = self._runs.get(block) or self.attach(block)  # what machine code has reserved is known there
        run.set_word("attached", 0)
        kept = False
        try:
            if run.execution.world is not None:
                held.check(run.execution.world)
            kept = True
        finally:
            _hand_over(run, changed=kept)
            self._forget(block)

    def _forget(self, block: int) -> None:
        _spaces.pop(block, None)
        self._runs.pop(block).close()
        if self.lane is not None:
            self.lane.clear()

    def on_fault(self, block: int, error: BaseException | None) -> None:
        """Raise what went wrong, or add the pc to the error that a helper raised."""
        run, program = self.attach(block), self.compiled.verified.program
        run.follow_stack()
        try:
            if error is None:
                error = self.compiled.exception(run, FAULTS[run.word("fault_kind")])
                raise faults.name_line(error, program)
            if isinstance(error, Exception):
                self.compiled.name_helper(error, run)
            if isinstance(error, ExecutionError):
                faults.name_line(error, program)
        finally:
            _hand_over(run, changed=False)
            self._forget(block)


def _return_to(compiled: Compiled, place: int) -> None:
    """Have a function return to this code whose return address is at a place, where baseline code called it.

    Baseline code keeps the same words around a call wherever it is. So what calls the function in a loop
    calls the better one from then on.
    """
    address, code = ctypes.c_uint64.from_address(place), compiled.before
    while code is not None:
        for pc, offset in code.image.returns.items():
            if address.value == code.buffer.address + offset and pc in compiled.image.returns:
                address.value = compiled.buffer.address + compiled.image.returns[pc]
                return
        code = code.before


_gates: WeakValueDictionary[int, Gate] = WeakValueDictionary()


def called_at(state: int, place: int) -> tuple[Program, int]:
    """Return the program of a state, and the slot of the call in its code behind which an address is."""
    compiled = _gates[state].compiled
    return compiled.verified.program, compiled.pc_of(place)


def gate_of(block: int) -> Gate:
    """Return the gate of the run at a block, which machine code is in the middle of."""
    return _gates[word(block, "state")]


_spaces: dict[int, AddressSpace] = {}
"""The memory of runs that Python knows, by their blocks, as long as a block says that it is known."""
_ATTACHED = WORD["attached"]


class Taker(Protocol):
    """What takes what the runs of a batch leave."""

    def adopt(self, execution: Execution) -> None:
        """Give what a run has sent without Python to its world: from here on Python knows the run."""

    def hand_over(self, execution: Execution, *, ended: bool) -> None:
        """Take what a run leaves that `ended` well, or not."""


takers: dict[int, Taker] = {}
"""Who takes what the runs of a batch leave, by the batch's address."""


def _taker_of(run: _NativeRun) -> Taker | None:
    return takers.get(run.word("batch")) if takers else None


def _hand_over(run: _NativeRun, *, changed: bool) -> None:
    """Give what a run of a batch leaves to who takes it; a run that faulted leaves its packet to nobody."""
    taker = _taker_of(run)
    if taker is not None:
        taker.hand_over(run.execution, ended=changed and FAULTS[run.word("fault_kind")] == "none")


def attach(block: int) -> AddressSpace:
    """Return the memory of the run at a block, which machine code is in the middle of."""
    if ctypes.c_uint64.from_address(block + _ATTACHED).value:
        return _spaces[block]
    return gate_of(block).attach(block).space


class _NativeRun(Run):
    """A run whose block and stack are on the stack of the thread that called."""

    def __init__(self, gate: Gate, block: int) -> None:
        self._known = 0  # regions in the gate's table, as long as there is no table of the run's own
        words, stack = gate.memory_of(block)
        self._own: list[Region] = []
        if gate.begin is not None:
            execution = gate.begin(words[_PACKET_SIZE], stack)
        else:
            execution = self._on_buffers(gate, block, stack)
        execution.mark = gate.stops.mark(words[_STOPS])
        if execution.world is not None:
            execution.world.mark = execution.mark
            execution.world.tail_calls = words[_TAIL_CALLS]
            if execution.limit is not None and execution.world.tail_calls:
                execution.limit = words[_GIVEN]
        super().__init__(gate.compiled, execution, words, block)
        self.follow_stack()
        if execution.world is not None:
            execution.world.engine = self
        if gate.begin is not None:
            if gate.grows:
                self.publish()
            else:
                self._known = len(self.space.own)

    def publish(self) -> None:
        """Give machine code the memory as it is now: in a lane only the packet moves, until there is more."""
        if self._known != len(self.space.own):
            self._known = 0
            super().publish()
            return
        self._publish_buffers()

    def _on_buffers(self, gate: Gate, block: int, stack: Stack) -> Execution:
        self._own = [
            _region(block, *names) for names in zip(gate.names, ("packet", "argument"), strict=False)
        ]
        return Execution(
            arguments=(0, 0),  # it has started long since
            regions=[*self._own],
            shared=gate.regions,
            packet=self._own[0] if self._own else None,
            argument=self._own[-1] if self._own else None,
            limit=gate.limit,
            checked=gate.checked,
            stack=stack,
            world=None if gate.world is None else gate.world(),
        )

    def go_on_in(self, compiled: Compiled) -> None:
        """Be a run of other code of the program from now on."""
        self.compiled = compiled
        self.words = _words(compiled, self.address)

    def close(self) -> None:
        """Let go of the thread's stack and of the buffers, which are not ours any more, and of the world."""
        self.stop_watching()
        world = self.execution.world
        if world is not None:  # what it holds is freed now, not when cycles are looked for
            world.end()
        nothing = memoryview(b"")
        for region in (*self._own, self.execution.stack.region):
            region.view = nothing


def _words(compiled: Compiled, block: int) -> memoryview:
    """Return the words of a block, as many as runs of the code have."""
    size = block_size(len(compiled.image.limits))
    return memoryview((ctypes.c_ubyte * size).from_address(block)).cast("B").cast("Q")


def _region(block: int, name: str, which: str) -> Region:
    start, size = word(block, f"{which}_start"), word(block, f"{which}_size")
    memory = memoryview((ctypes.c_ubyte * size).from_address(start)).cast("B") if size else memoryview(b"")
    writable = word(block, f"{which}_room") != 0 or not size
    return Region(name, start, start + size, writable, memory)


def _limit_table(compiled: Compiled) -> ctypes.Array[ctypes.c_uint64]:
    rows = [
        number
        for index, (region, span, stores) in enumerate(compiled.image.limits)
        for number in (WORD[f"{region}_{'room' if stores else 'size'}"], span - 1, limit_place(index))
    ]
    return (ctypes.c_uint64 * len(rows))(*rows)


def _given(shape: str, lane: Lane | None, mbuff: Mbuff | None, rights: Rights | None) -> Given:
    """Return what every run through a gate of such a shape has behind r1: buffers are of any size."""
    if SHAPES[shape].argument == "context":
        size = lane.struct_size if lane is not None else 0
        told = lane is not None and not lane.is_struct
        return Given(size, writable=False, measured=False, rights=rights, told=told)
    return Given(0 if mbuff is None else mbuff.size, writable=mbuff is not None, measured=True)


def _frame_of(
    compiled: Compiled, mbuff: Mbuff | None, spare: int, room: int, *, jumps: bool
) -> dict[str, int]:
    """Return where a run has what on the thread's stack, and how much it takes.

    A program that never calls a function of its own has one frame, unless it `jumps` to others. There is room
    for `spare` limits more, and `room` bytes at least for the block.
    """
    nested = jumps or compiled.recipe.callers.are_nested
    low = max(_aligned(block_size(len(compiled.image.limits) + spare)), room)
    high = low + (STACK_SIZE if nested else compiled.verified.frame_sizes[0])
    size = mbuff.size if mbuff else 0
    mbuff_end = high + _aligned(size)
    words = {"low": low, "high": high, "mbuff_size": size, "mbuff_end": mbuff_end}
    if mbuff is not None:
        words |= {"data_offset": mbuff.data_offset, "data_end_offset": mbuff.data_end_offset}
    # Six registers and the return address are above: rsp is then a multiple of 16.
    return words | {"frame": _aligned(mbuff_end + machine().gate_size) + 8}
