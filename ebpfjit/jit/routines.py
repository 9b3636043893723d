"""The machine code that all programs share: put into memory once, when the first program is compiled.

Their text is made in `routine_text.py`; what they call are functions of CPython, whose addresses ctypes
tells.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable
from threading import get_ident
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ebpfjit.errors import JitUnavailable
from ebpfjit.jit.code_buffer import CodeBuffer
from ebpfjit.jit.image import Image, relocate
from ebpfjit.once import import_alone, once
from ebpfjit.record import dataclass
from ebpfjit.runtime import c_stack, faults, memory
from ebpfjit.runtime.execution import SLICE
from ebpfjit.runtime.memory import MAX_FRAMES
from ebpfjit.translators.block import BLOCK_WORDS, STATE_WORDS
from ebpfjit.translators.host import SMALL_INTS, Ints

if TYPE_CHECKING:
    from ebpfjit.jit.recipe import Listing

STATE_OFFSET = 0x88
"""Where an object that is called through the gate holds the address of its state."""

WORD = {name: 8 * index for index, name in enumerate(BLOCK_WORDS)}
"""The offset of each word of the block."""

STOP_CELL = 8 * STATE_WORDS.index("stop_cell")

# CPython's objects (Include/cpython/bytesobject.h, bytearrayobject.h); `gate` looks whether it is so.
SIZE = object.__basicsize__
BYTES_DATA = bytes.__basicsize__ - 1
BYTEARRAY_START = SIZE + 24
BYTEARRAY_EXPORTS = SIZE + 32
NO_TAG = 0x7FFFFFFF


def _ints() -> Ints:
    """Look what ints are like; where it is not as expected no tag fits, and functions are called."""
    samples = [int(text) for text in ("500", "70000", "500000000", str(2**30 - 1))]
    others = [int(text) for text in ("0", "-1", "-500000000", str(2**30), str(2**62))]
    tags = {_word_at(value, SIZE) for value in samples}
    read = [_word_at(value, SIZE + 8) & 0xFFFFFFFF for value in samples]
    expected = read == samples and len(tags) == 1 and not tags & {_word_at(value, SIZE) for value in others}
    tag = tags.pop() if expected else NO_TAG
    return Ints(SIZE, SIZE + 8, tag, immortal=sys.version_info >= (3, 12))


def _word_at(value: object, offset: int) -> int:
    return ctypes.c_uint64.from_address(id(value) + offset).value


INTS = _ints()


running = ctypes.c_uint64(0)
"""The address of the block that was linked last: the head of the list of runs that may call Python."""

_random_state = ctypes.c_uint64(0)
_small_ints = list(range(SMALL_INTS))
_small_int_table = (ctypes.c_uint64 * SMALL_INTS)(*map(id, _small_ints))


@dataclass(frozen=True)
class Routines:
    """The routines in memory: `labels` are their offsets in the image, `addresses` where they are.

    `host` are the objects of ours whose addresses are in them: threads may be in machine code when this
    module is taken apart.
    """

    image: Image
    labels: dict[str, int]
    buffer: CodeBuffer
    addresses: dict[str, int]
    host: tuple[Any, ...]

    @property
    def listing(self) -> Listing:
        """The text of all routines."""
        found: Listing = text().listing()
        return found


_provided: list[tuple[Image, dict[str, int]]] = []


def provide(image: Image, labels: dict[str, int]) -> None:
    """Use routines that another process of the same build assembled, unless there are some already."""
    _provided[:] = [(image, labels)]


def layout_of_host() -> list[int]:
    """Return the numbers of this host that are in the routines."""
    objects = [SIZE, BYTES_DATA, BYTEARRAY_START, BYTEARRAY_EXPORTS, INTS.tag]
    return [*objects, MAX_FRAMES, SLICE, time.CLOCK_MONOTONIC]


def text() -> ModuleType:
    """Return the module that makes the text, which a process with saved images needs nothing of."""
    import_alone("ebpfjit.jit.routine_text")
    from ebpfjit.jit import routine_text

    return routine_text


@once
def routines() -> Routines:
    """Return the routines, assembled when first asked for. Raises JitUnavailable."""
    _seed()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork)
    image, labels = _provided[0] if _provided else text().assembled()
    buffer = CodeBuffer(relocate(image, {symbol: address_of(symbol) for symbol in image.slots}))
    if os.environ.get("EBPFJIT_PERF"):
        import_alone("ebpfjit.jit.perf").tell_routines(labels, image.code, buffer.address)
    addresses = {name: buffer.address + at for name, at in labels.items()}
    kept = (running, _random_state, _small_ints, _small_int_table, look, c_stack.look)
    return Routines(image, labels, buffer, addresses, kept)


def are_ready() -> bool:
    """True where they are in memory, or need not be assembled."""
    return bool(_provided) or routines.is_made


def address_of(symbol: str) -> int:
    """Return the address of something of the host."""
    ours: dict[str, Any] = {
        "running": running,
        "small_ints": _small_int_table,
        "random_state": _random_state,
    }
    if symbol in ours:
        return ctypes.addressof(ours[symbol])
    if symbol == "look":
        return id(look)
    if symbol == "look_at_stack":
        return id(c_stack.look)
    api = getattr(ctypes, "pythonapi", None)
    if api is None:
        raise JitUnavailable("machine code needs CPython's C API; the interpreter works without")
    if symbol.endswith(("_Type", "Struct")):
        return ctypes.addressof(ctypes.c_char.in_dll(api, symbol))
    return ctypes.cast(getattr(api, symbol), ctypes.c_void_p).value or 0


def word(block: int, name: str) -> int:
    """Return a word of the block at an address."""
    return _word_of(block, WORD[name])


def look(block: int) -> None:
    """Raise Stopped where the run at a block, or one that it is inside of, was stopped.

    Machine code calls it now and then. That it is a function in Python is what lets signals, exceptions that
    other threads ask for and other threads themselves in.
    """
    thread = get_ident()
    memory.check_marks()
    _check_stopped(block)
    find = _find_run()
    older = find(0, thread)
    while older:
        _check_stopped(older)
        older = find(older, thread)


def _check_stopped(block: int) -> None:
    state = word(block, "state")
    cell = _word_of(state, STOP_CELL) if state else word(block, "stop_cell")
    if cell and ctypes.c_uint64.from_address(cell).value != word(block, "stops"):
        raise faults.stopped(None)


def _word_of(start: int, offset: int) -> int:
    return ctypes.c_uint64.from_address(start + offset).value


def innermost_block() -> int:
    """Return the address of the innermost block of this thread in the list of runs, 0 for none."""
    if not running.value:
        return 0
    try:
        block: int = _find_run()(0, get_ident())
    except ctypes.ArgumentError as error:  # ctypes words what ends a recursion in this way
        raise RecursionError(str(error)) from None
    return block


@once
def _find_run() -> Callable[[int, int], int]:
    """Return `find_run` of the routines: in one call, as threads that end take their blocks along."""
    return _FIND(routines().addresses["find_run"])


_FIND = ctypes.PYFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64)


def _seed() -> None:
    """Start the pseudo-random numbers anywhere but at 0, where they would stay."""
    _random_state.value = int.from_bytes(os.urandom(8), "little") | 1


def _after_fork() -> None:
    """In a child process: other threads and their runs are not there; nor are the same random numbers."""
    _seed()
    mine, block, thread = [], running.value, get_ident()
    while block:
        if word(block, "thread_id") == thread:
            mine.append(block)
        block = word(block, "older")
    running.value = mine[0] if mine else 0
    for newer, here, older in zip([0, *mine], mine, [*mine[1:], 0], strict=False):
        ctypes.c_uint64.from_address(here + WORD["newer"]).value = newer
        ctypes.c_uint64.from_address(here + WORD["older"]).value = older


def watch(attach: Callable[[int], memory.AddressSpace]) -> None:
    """Let helpers find the memory of runs that are in the list: `attach(block)` makes it known."""
    memory.watch_blocks(innermost_block, attach)
