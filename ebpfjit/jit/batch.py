"""Batches: one program over many packets, inside one native loop.

Packets are objects of their own, records of one size in a buffer, or places in a buffer that two
arrays of integers name. Each packet is a run of its own; the first fault stops the batch, or its
place in the results is filled with a value and the batch goes on.
"""

from __future__ import annotations

import ctypes
import operator
from array import array
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from ebpfjit.errors import AuditFailure, ExecutionError, InputError, Stopped
from ebpfjit.jit.callables import tier_up
from ebpfjit.jit.gate import Gate, called_at, takers
from ebpfjit.jit.lanes import Lane
from ebpfjit.jit.routines import routines
from ebpfjit.jit.sending import Event, Sending
from ebpfjit.named import of_packet
from ebpfjit.record import field, record
from ebpfjit.runtime import counters
from ebpfjit.runtime.changed import NO_REASON, Changed
from ebpfjit.runtime.contexts import XdpContext
from ebpfjit.runtime.execution import SLICE, Execution, Mark
from ebpfjit.runtime.memory import address_of, flat_view
from ebpfjit.runtime.world import World, empty_buffers
from ebpfjit.sealed import inside
from ebpfjit.translators.block import BATCH_WORDS, CALL_COST, FINISHED, KINDS, NO_ROOM, USUAL_PAIRS

_BATCH = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_CHECK = ctypes.PYFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p)
_WORD = {name: index for index, name in enumerate(BATCH_WORDS)}
_Words = ctypes.c_uint64 * len(BATCH_WORDS)
_ALL_ONES = (1 << 64) - 1
_USUAL = {kinds: name for name, kinds in USUAL_PAIRS.items()}
CHUNK = 2048
"""How many objects are held at a time: few enough to stay in the processor's cache meanwhile."""

#  formats of the struct module that are integers of 64 or 32 bits here, by their size
_SIGNED, _UNSIGNED = "qlin", "QLIN"


@record
class Packets:
    """Where packets are, and `count`, how many: `words` for the machine code, `at` for Python.

    Machine code counts in the words: they are for one batch. `owners` are kept alive, and buffers among
    them in place.
    """

    source: str
    count: int
    words: ctypes.Array[ctypes.c_uint64]
    at: Callable[[int], Any]
    owners: tuple[Any, ...] = field(repr=False)


def check_options(offsets: Any, lengths: Any, stride: Any, on_fault: Any) -> None:
    """Raise TypeError for ways to say where packets are that exclude each other, and for no number."""
    if stride is not None and offsets is not None:
        raise TypeError("packets have a stride or offsets, not both")
    if lengths is not None and offsets is None:
        raise TypeError("lengths go with offsets")
    if on_fault is not None and not hasattr(on_fault, "__index__"):
        raise TypeError(f"on_fault is a number, not {type(on_fault).__name__}")


def records(buffer: Any, stride: int) -> Packets:
    """Return the records of `stride` bytes, one behind the other, that fill a buffer.

    Raises ValueError where they do not.
    """
    view = flat_view(buffer)
    if not hasattr(stride, "__index__"):
        raise TypeError(f"stride is a number of bytes, not {type(stride).__name__}")
    stride = operator.index(stride)  # numpy's numbers too
    if stride <= 0:
        raise ValueError(f"stride is a positive number of bytes, not {stride}")
    if view.nbytes % stride:
        raise ValueError(f"{view.nbytes} bytes are not a whole number of records of {stride} bytes")

    def at(index: int) -> memoryview:
        return view[index * stride : (index + 1) * stride]

    count = view.nbytes // stride
    words = _words(count, view)
    words[_WORD["stride"]] = stride
    return Packets("stride", count, words, at, (view,))


def places(buffer: Any, offsets: Any, lengths: Any = None, *, natively: bool = True) -> Packets:
    """Return the packets at `offsets` in a buffer, of `lengths` bytes; both are buffers of integers.

    Without `lengths` there is one offset more, and each packet goes up to the next offset.
    Raises ValueError for a packet that is not inside the buffer, which is seen `natively` or in Python.
    """
    view = flat_view(buffer)
    starts = _integers(offsets, "offsets")
    sizes = _integers(lengths, "lengths") if lengths is not None else None
    count = len(starts) if sizes is not None else len(starts) - 1
    if count < 0:
        raise ValueError("offsets without lengths are one more than packets: at least one")
    if sizes is not None and len(sizes) != count:
        raise ValueError(f"there are {count} offsets and {len(sizes)} lengths")
    words = _words(count, view)
    offset_kind, length_kind = _KINDS[starts.format], 0
    words[_WORD["offsets"]], words[_WORD["offset_kind"]] = address_of(starts), offset_kind
    if sizes is not None:
        length_kind = _KINDS[sizes.format]
        words[_WORD["lengths"]], words[_WORD["length_kind"]] = address_of(sizes), length_kind

    def bounds(index: int) -> tuple[int, int]:
        start = starts[index]
        return start, sizes[index] if sizes is not None else starts[index + 1] - start

    def at(index: int) -> memoryview:
        start, size = bounds(index)
        if min(start, size) < 0 or start + size > view.nbytes:
            where = f"{size} bytes at offset {start}"
            raise ValueError(f"packet {index}: {where} are not inside the buffer ({view.nbytes} bytes)")
        return view[start : start + size]

    kinds = KINDS[offset_kind], "" if sizes is None else KINDS[length_kind]
    packets = Packets(_USUAL.get(kinds, "pairs"), count, words, at, (view, starts, sizes))
    if natively:
        _check_bounds(packets)
    else:
        for index in range(count):
            at(index)
    return packets


def _check_bounds(packets: Packets) -> None:
    """Raise ValueError for the first packet that is out of bounds."""
    bad = _CHECK(routines().addresses[f"check_{packets.source}"])(ctypes.addressof(packets.words))
    if bad < packets.count:
        packets.at(bad)


def _words(count: int, view: memoryview | None = None) -> ctypes.Array[ctypes.c_uint64]:
    """Return the words of a batch of so many packets, in a buffer where there is one."""
    words = _Words()
    words[_WORD["count"]], words[_WORD["turn"]] = count, SLICE
    if view is not None:
        words[_WORD["base"]], words[_WORD["size"]] = address_of(view), view.nbytes
        words[_WORD["writable"]] = 0 if view.readonly else _ALL_ONES
    return words


def _integers(values: Any, what: str) -> memoryview:
    """Return integers as a flat memoryview that machine code can read; others are converted.

    Raises TypeError for what is no sequence of integers, ValueError for integers of more than 64 bits.
    """
    try:
        view = memoryview(values)
    except TypeError:
        try:
            return memoryview(array("q", values))  # a list, say
        except OverflowError:
            raise ValueError(f"{what} are numbers of 64 bits, signed") from None
        except TypeError as error:
            raise TypeError(f"{what} are integers in one dimension: {error}") from None
    if view.format in _KINDS and view.ndim == 1 and view.c_contiguous:
        return view
    letter = (view.format or "B").lstrip("@=<")
    if view.ndim != 1 or letter not in (*_SIGNED, *_UNSIGNED, *"bBhH"):
        other = (
            "; they are of the other byte order: numpy's astype('int64') converts"
            if letter[:1] == ">"
            else ""
        )
        raise TypeError(f"{what} are integers in one dimension, not {view.format!r} in {view.ndim}{other}")
    if letter in "bBhH" or not view.c_contiguous:
        return memoryview(array("q", view.tolist()))
    flat = view.cast("B")
    if letter in _UNSIGNED:
        return flat.cast("Q") if view.itemsize == 8 else flat.cast("I")
    return flat.cast("q") if view.itemsize == 8 else flat.cast("i")


_KINDS = {
    letter: KINDS.index(kind) for letter, kind in {"q": "64", "Q": "64", "i": "i32", "I": "u32"}.items()
}


def _zeros(count: int) -> array[int]:
    """Return so many u64. array("Q", bytes(8 * count)) takes ten times as long."""
    return array("Q", (0,)) * count


Line = tuple[int, str]


class Left:
    """What the runs of a batch leave besides r0, as far as somebody wants it: packets, events, lines, pcs.

    `first` is the number of the first packet of the words that machine code has.
    """

    def __init__(
        self,
        changed: Changed | None,
        events: list[Event] | None,
        output: list[Line] | None,
        reasons: array[int] | None = None,
    ) -> None:
        self.changed, self.events, self.output, self.reasons = changed, events, output, reasons
        self.causes = array("Q")
        self.data = bytearray()
        self.used = 0
        self.offsets, self.lengths = array("Q"), array("Q")
        self.words: Any = None
        self.first = 0
        self.sending: Sending | None = None

    def begin(self, count: int, size: int) -> None:
        """Make room for so many packets, and for so many bytes at first."""
        if self.reasons is not None:
            self.causes = array("Q", [NO_REASON]) * count
        if self.changed is not None:
            self.data = self.changed.memory(size)
            self.offsets, self.lengths = _zeros(count), _zeros(count)

    def end(self) -> None:
        """Hand packets and reasons over."""
        if self.reasons is not None:
            self.reasons.extend(self.causes)
        if self.changed is not None:
            self.changed.fill(self.data, self.used, self.offsets, self.lengths)

    def lend(self, words: Any, first: int, gate: Gate) -> None:
        """Write into a batch's words where machine code is to put packets, and what runs send."""
        self.words, self.first = words, first
        if self.events is not None and gate.channels is not None and (channels := gate.channels()):
            self.sending = Sending(channels, words, first, self.events, called_at)
        if self.reasons is not None:
            words[_WORD["reasons"]] = self.causes.buffer_info()[0] + 8 * first
        if self.changed is not None:
            lane = gate.lane
            context = lane.context if lane is not None else None
            words[_WORD["after_offsets"]] = self.offsets.buffer_info()[0] + 8 * first
            words[_WORD["after_lengths"]] = self.lengths.buffer_info()[0] + 8 * first
            words[_WORD["has_ends"]] = isinstance(context, XdpContext)
            words[_WORD["hidden"]] = lane.hidden if lane is not None else 0
            self._lend_memory()

    def _lend_memory(self) -> None:
        words = self.words
        words[_WORD["after"]] = address_of(self.data)
        words[_WORD["after_room"]], words[_WORD["after_used"]] = len(self.data), self.used

    def give_back(self) -> None:
        """Take over how much machine code has put there."""
        if self.words is not None and self.changed is not None:
            self.used = self.words[_WORD["after_used"]]

    def keep(self, index: int, packet: Any) -> None:
        """Put what a run left of its packet behind the others."""
        if self.changed is None:
            return
        self.give_back()
        stop = self.used + len(packet)
        if stop > len(self.data):
            self.data.extend(bytes(max(stop, 2 * len(self.data)) - len(self.data)))
        self.data[self.used : stop] = packet
        self.offsets[index], self.lengths[index] = self.used, len(packet)
        self.used = stop
        if self.words is not None:
            self._lend_memory()

    def fault(self, index: int) -> None:
        """A run ended with an error: it left no packet, and has no reason."""
        self.keep(index, b"")
        if self.reasons is not None:
            self.causes[index] = NO_REASON

    def take(self, index: int, execution: Execution, *, ended: bool) -> None:
        """Take what a run leaves that Python knows of."""
        world = execution.world
        if world is not None:
            self.take_sent(index, world)
        if self.changed is None:
            return
        if not ended:
            self.keep(index, b"")
        elif world is not None and world.context is not None:
            self.keep(index, world.context.outcome().frame)
        else:
            self.keep(index, execution.packet.view if execution.packet is not None else b"")

    def take_sent(self, index: int, world: World) -> None:
        """Take events and lines of a run."""
        if self.events is not None and (world.events or world.kept):
            self.events += [(index, name, data) for name, data in world.events]
            empty_buffers(world)
        if self.output is not None and world.output:
            self.output += [(index, line) for line in world.output]

    def adopt(self, execution: Execution) -> None:
        """Give what a run of the words that were lent has sent to its world."""
        if self.sending is not None and execution.world is not None:
            self.sending.adopt(execution.world)

    def hand_over(self, execution: Execution, *, ended: bool) -> None:
        """Take what a run of the words that were lent leaves."""
        self.take(self.first + self.words[_WORD["index"]], execution, ended=ended)

    def take_events(self) -> None:
        """Take what machine code has collected of events: no run of the words is going on."""
        if self.sending is not None:
            self.sending.take()

    def stop_taking(self) -> None:
        """Machine code has come to the end of the words."""
        self.take_events()
        self.give_back()
        self.words = self.sending = None


def check_reasons(function: Any, reasons: Any) -> None:
    """Raise TypeError for what takes no reasons, ValueError for a function that has none."""
    if not isinstance(reasons, array) or reasons.typecode != "Q":
        raise TypeError('reasons is an array("Q")')
    if not inside(function).plain.compiled.recipe.options.reasons:
        raise ValueError("this function remembers no reasons: compiling.with_reasons makes one that does")


@record
class Batch:
    """How packets are run: by the function's gate, where there is one, else by calls, one at a time.

    The `mark` tells when it was stopped. A call also takes a packet that the gate does not understand. With
    `fill` an ExecutionError's place gets this u64 and the batch goes on; `faults` takes the errors
    themselves. What is raised is as a call raises it, but an ExecutionError knows the packet as its `index`
    and any other error has a note.
    """

    function: Any
    fill: int | None
    mark: Mark
    faults: list[ExecutionError | InputError] | None = None
    left: Left | None = None

    def _gate(self, packets: int) -> Gate | None:
        """Return the function's gate; a batch counts as if it ran through the program once a packet."""
        gate: Gate | None = inside(self.function).gate
        if gate is None or gate.better is None:
            return gate
        cost = len(gate.compiled.verified.program) + CALL_COST
        if gate.spend(packets * cost):
            tier_up(self.function)
        after: Gate = inside(self.function).gate
        return after

    def run(self, packets: Packets) -> array[int]:
        """Run the program on each packet; return all r0."""
        results = _zeros(packets.count)
        left = self.left
        if left is not None:
            left.begin(packets.count, packets.words[_WORD["size"]])
        self._run(packets, results, 0)
        if left is not None:
            left.end()
        return results

    def run_objects(self, buffers: Iterable[Any]) -> array[int]:
        """Run the program on each of these objects; return all r0."""
        items = buffers if isinstance(buffers, list | tuple) else list(buffers)
        count = len(items)
        results = _zeros(count)
        left = self.left
        if left is not None:
            left.begin(count, 64 * count)
        for start in range(0, count, CHUNK):
            chunk = tuple(items[start : start + CHUNK])
            words = _words(len(chunk))
            words[_WORD["items"]] = id(chunk) + tuple.__basicsize__
            packets = Packets("objects", len(chunk), words, chunk.__getitem__, (chunk,))
            self._run(packets, results, start)
        if len(items) != count:
            raise RuntimeError("the list changed its size while the batch ran")
        if left is not None:
            left.end()
        return results

    def _run(self, packets: Packets, results: array[int], first: int) -> None:
        """Put what the program returns for packets into the results from `first` on."""
        gate = self._free(self._gate(packets.count))
        if gate is not None:
            try:
                self._run_natively(gate, packets, results, first)
            finally:
                if gate.lane is not None:
                    gate.lane.give_back()
            return
        for index in range(packets.count):
            self.mark.check()
            results[first + index] = self._one(packets, index, first)

    def _free(self, gate: Gate | None) -> Gate | None:
        """Return the first of a function's gates with a lane that fits and is free, and take that."""
        for each in () if gate is None else gate.chain:
            if self._fits(each.lane) and (each.lane is None or each.lane.take()):
                return each
        return None

    def _fits(self, lane: Lane | None) -> bool:
        """True where machine code does all that is asked for: what is left of a struct Python takes."""
        return lane is None or not lane.is_struct or self.left is None or self.left.changed is None

    def _run_natively(self, gate: Gate, packets: Packets, results: array[int], first: int) -> None:
        words = packets.words
        words[_WORD["results"]] = results.buffer_info()[0] + results.itemsize * first
        words[_WORD["source"]] = routines().addresses[f"source_{packets.source}"]
        words[_WORD["unlocked"]] = gate.compiled.unlocked
        words[_WORD["stops"]] = self.mark.count
        words[_WORD["fills"]] = self.fill is not None and self.faults is None and not counters.are_on()
        words[_WORD["fill"]] = self.fill or 0
        left = self.left
        if left is None:
            self._loop(gate, packets, results, first, words)
            return
        left.lend(words, first, gate)
        address = ctypes.addressof(words)
        takers[address] = left
        try:
            self._loop(gate, packets, results, first, words)
        finally:
            del takers[address]
            left.stop_taking()

    def _loop(self, gate: Gate, packets: Packets, results: array[int], first: int, words: Any) -> None:
        """Run packets in machine code, those in between that it leaves to Python by a call."""
        native = _BATCH(routines().addresses["batch"])
        state, left = ctypes.addressof(gate.state), self.left
        while True:
            self.mark.check()
            try:
                status = native(ctypes.addressof(words), state)
            except BaseException as error:
                index = words[_WORD["index"]]
                results[first + index] = self._filled(error, first + index)
                if left is not None:
                    left.fault(first + index)
            else:
                index = words[_WORD["index"]]
                if status == FINISHED:
                    return
                if status == NO_ROOM:
                    assert left is not None
                    left.keep(first + index, self._left_of(gate, packets, words))
                else:
                    results[first + index] = self._one(packets, index, first)
            words[_WORD["index"]] = index + 1

    def _left_of(self, gate: Gate, packets: Packets, words: Any) -> Any:
        """Return what is left of the packet that just ran: in the lane, or where the packet is."""
        if gate.lane is None:
            return flat_view(packets.at(words[_WORD["index"]]))
        return ctypes.string_at(words[_WORD["left_start"]], words[_WORD["left_size"]])

    def _one(self, packets: Packets, index: int, first: int) -> int:
        left, at = self.left, first + index
        if left is not None:
            left.take_events()
        try:
            if left is None:
                value: int = self.function(packets.at(index))
            else:
                value = inside(self.function).plain.taken(packets.at(index), partial(left.take, at))
            return value
        except BaseException as error:
            if left is not None:
                left.fault(at)
            return self._filled(error, at)

    def _filled(self, error: BaseException, index: int) -> int:
        """Return what stands for an error, or raise it, saying which packet it is about."""
        if isinstance(error, ExecutionError | InputError):
            goes_on = self.fill is not None and not isinstance(error, AuditFailure | Stopped)
            if goes_on and self.faults is None:
                return self.fill or 0
            of_packet(error, index)
            if goes_on and self.faults is not None:
                self.faults.append(error.with_traceback(None))
                return self.fill or 0
        elif isinstance(error, Exception):
            error.add_note(f"packet {index} of the batch")
        raise error
