"""Batches: one program over many packets, inside one native loop.

Packets are objects of their own, records of one size in a buffer, or places in a buffer that two
arrays of integers name. Each packet is a run of its own; the first fault stops the batch, or its
place in the results is filled with a value and the batch goes on.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from ebpfjit.errors import AuditFailure, ExecutionError, InputError, Stopped
from ebpfjit.jit.callables import tier_up
from ebpfjit.jit.gate import Gate
from ebpfjit.jit.routines import routines
from ebpfjit.runtime.execution import SLICE, Mark
from ebpfjit.runtime.memory import address_of, flat_view
from ebpfjit.sealed import inside
from ebpfjit.translators.x86_64.batches import BATCH_WORDS, FINISHED, KINDS
from ebpfjit.translators.x86_64.runs import CALL_COST

_BATCH = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_CHECK = ctypes.PYFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p)
_WORD = {name: index for index, name in enumerate(BATCH_WORDS)}
_ALL_ONES = (1 << 64) - 1
CHUNK = 2048
"""How many objects are held at a time: few enough to stay in the processor's cache meanwhile."""

#  formats of the struct module that are integers of 64 or 32 bits here, by their size
_SIGNED, _UNSIGNED = "qlin", "QLIN"


@dataclass(frozen=True)
class Packets:
    """Where packets are, and `count`, how many: `words` for the machine code, `at` for Python.

    `owners` are kept alive, and buffers among them in place.
    """

    source: str
    count: int
    words: dict[str, int]
    at: Callable[[int], Any]
    owners: tuple[Any, ...] = field(repr=False)


def records(buffer: Any, stride: int) -> Packets:
    """Return the records of `stride` bytes, one behind the other, that fill a buffer.

    Raises ValueError where they do not.
    """
    view = flat_view(buffer)
    if not isinstance(stride, int):
        raise TypeError(f"stride is a number of bytes, not {type(stride).__name__}")
    if stride <= 0:
        raise ValueError(f"stride is a positive number of bytes, not {stride}")
    if view.nbytes % stride:
        raise ValueError(f"{view.nbytes} bytes are not a whole number of records of {stride} bytes")

    def at(index: int) -> memoryview:
        return view[index * stride : (index + 1) * stride]

    words = _buffer_words(view) | {"stride": stride}
    return Packets("stride", view.nbytes // stride, words, at, (view,))


def places(buffer: Any, offsets: Any, lengths: Any = None) -> Packets:
    """Return the packets at `offsets` in a buffer, of `lengths` bytes; both are buffers of integers.

    Without `lengths` there is one offset more, and each packet goes up to the next offset.
    Raises ValueError for a packet that is not inside the buffer.
    """
    view = flat_view(buffer)
    starts = _integers(offsets, "offsets")
    sizes = _integers(lengths, "lengths") if lengths is not None else None
    count = len(starts) if sizes is not None else len(starts) - 1
    if count < 0:
        raise ValueError("offsets without lengths are one more than packets: at least one")
    if sizes is not None and len(sizes) != count:
        raise ValueError(f"there are {count} offsets and {len(sizes)} lengths")
    words = _buffer_words(view) | {"offsets": address_of(starts), "offset_kind": _kind(starts)}
    if sizes is not None:
        words |= {"lengths": address_of(sizes), "length_kind": _kind(sizes)}

    def bounds(index: int) -> tuple[int, int]:
        start = starts[index]
        return start, sizes[index] if sizes is not None else starts[index + 1] - start

    def at(index: int) -> memoryview:
        start, size = bounds(index)
        if min(start, size) < 0 or start + size > view.nbytes:
            where = f"{size} bytes at offset {start}"
            raise ValueError(f"packet {index}: {where} are not inside the buffer ({view.nbytes} bytes)")
        return view[start : start + size]

    packets = Packets("pairs", count, words, at, (view, starts, sizes))
    _check_bounds(packets)
    return packets


def _check_bounds(packets: Packets) -> None:
    """Raise ValueError for the first packet that is out of bounds."""
    words = _words_of(packets)
    bad = _CHECK(routines().addresses["check_pairs"])(ctypes.addressof(words))
    if bad < packets.count:
        packets.at(bad)


def _buffer_words(view: memoryview) -> dict[str, int]:
    return {
        "base": address_of(view),
        "size": view.nbytes,
        "writable": 0 if view.readonly else _ALL_ONES,
    }


def _integers(values: Any, what: str) -> memoryview:
    """Return integers as a flat memoryview that machine code can read; others are converted.

    Raises TypeError for what is no sequence of integers.
    """
    try:
        view = memoryview(values)
    except TypeError:
        return memoryview(array("q", values))  # a list, say
    letter = (view.format or "B").lstrip("@=<")
    if view.ndim != 1 or letter not in (*_SIGNED, *_UNSIGNED, *"bBhH"):
        raise TypeError(f"{what} are integers in one dimension, not {view.format!r} in {view.ndim}")
    if letter in "bBhH" or not view.c_contiguous:
        return memoryview(array("q", view.tolist()))
    flat = view.cast("B")
    if letter in _UNSIGNED:
        return flat.cast("Q") if view.itemsize == 8 else flat.cast("I")
    return flat.cast("q") if view.itemsize == 8 else flat.cast("i")


def _kind(integers: memoryview) -> int:
    return KINDS.index({"q": "64", "Q": "64", "i": "i32", "I": "u32"}[integers.format])


def _words_of(packets: Packets) -> ctypes.Array[ctypes.c_uint64]:
    words = (ctypes.c_uint64 * len(BATCH_WORDS))()
    for name, value in packets.words.items():
        words[_WORD[name]] = value
    words[_WORD["count"]] = packets.count
    words[_WORD["turn"]] = SLICE
    return words


@dataclass(frozen=True)
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
        results = array("Q", bytes(8 * packets.count))
        self._run(packets, results, 0)
        return results

    def run_objects(self, buffers: Iterable[Any]) -> array[int]:
        """Run the program on each of these objects; return all r0."""
        items = buffers if isinstance(buffers, list | tuple) else list(buffers)
        count = len(items)
        results = array("Q", bytes(8 * count))
        for start in range(0, count, CHUNK):
            chunk = tuple(items[start : start + CHUNK])
            words = {"items": id(chunk) + tuple.__basicsize__}
            packets = Packets("objects", len(chunk), words, chunk.__getitem__, (chunk,))
            self._run(packets, results, start)
        if len(items) != count:
            raise RuntimeError("the list changed its size while the batch ran")
        return results

    def _run(self, packets: Packets, results: array[int], first: int) -> None:
        """Put what the program returns for packets into the results from `first` on."""
        gate = self._gate(packets.count)
        with gate.lane.taken() if gate and gate.lane else nullcontext(True) as free:
            if gate is not None and free:
                self._run_natively(gate, packets, results, first)
                return
        for index in range(packets.count):
            self.mark.check()
            results[first + index] = self._one(packets, index, first)

    def _run_natively(self, gate: Gate, packets: Packets, results: array[int], first: int) -> None:
        native = _BATCH(routines().addresses["batch"])
        words = _words_of(packets)
        words[_WORD["results"]] = results.buffer_info()[0] + results.itemsize * first
        words[_WORD["source"]] = routines().addresses[f"source_{packets.source}"]
        words[_WORD["unlocked"]] = gate.compiled.unlocked
        words[_WORD["stops"]] = self.mark.count
        words[_WORD["fills"]] = self.fill is not None and self.faults is None
        words[_WORD["fill"]] = self.fill or 0
        state = ctypes.addressof(gate.state)
        while True:
            self.mark.check()
            try:
                if native(ctypes.addressof(words), state) == FINISHED:
                    return
            except BaseException as error:
                index = words[_WORD["index"]]
                results[first + index] = self._filled(error, first + index)
            else:
                index = words[_WORD["index"]]
                results[first + index] = self._one(packets, index, first)
            words[_WORD["index"]] = index + 1

    def _one(self, packets: Packets, index: int, first: int) -> int:
        try:
            value: int = self.function(packets.at(index))
            return value
        except BaseException as error:
            return self._filled(error, first + index)

    def _filled(self, error: BaseException, index: int) -> int:
        """Return what stands for an error, or raise it, saying which packet it is about."""
        if isinstance(error, ExecutionError | InputError):
            goes_on = self.fill is not None and not isinstance(error, AuditFailure | Stopped)
            if goes_on and self.faults is None:
                return self.fill or 0
            error.index = index
            error.args = (f"packet {index}: {error}",)
            if goes_on and self.faults is not None:
                self.faults.append(error.with_traceback(None))
                return self.fill or 0
        elif isinstance(error, Exception):
            error.add_note(f"packet {index} of the batch")
        raise error
