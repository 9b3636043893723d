"""The memory a program may touch: pinned buffers, regions, and the address space they make.

Addresses are real host addresses, so that a metadata buffer can hold them. Nothing is read or
written before the access was found inside one region:

        region.start        address        address + size      region.stop
    ----[-------------------[==============]-------------------)----------
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ebpfjit.bits import W64
from ebpfjit.errors import ExecutionError
from ebpfjit.record import dataclass, field
from ebpfjit.runtime import c_stack, faults
from ebpfjit.runtime.rights import Rights

if TYPE_CHECKING:
    from ebpfjit.runtime.execution import Mark
    from ebpfjit.runtime.shared import SharedRegions
    from ebpfjit.runtime.world import World

STACK_FRAME_SIZE = 512
MAX_FRAMES = 8
STACK_SIZE = STACK_FRAME_SIZE * MAX_FRAMES

FREE_SIZE, WORK_SIZE = 4096, 64
"""What helpers do is paid for: so many bytes at once go with the call, each further 64 are an instruction."""

MOST_GRANTS = 1024
"""How many regions more than at its start a run may have at a time."""


class _PyBuffer(ctypes.Structure):
    """CPython's Py_buffer (Include/pybuffer.h)."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


# Without `argtypes`: at the recursion limit they would make a RecursionError an ArgumentError.
_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.restype = ctypes.c_int
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.restype = None
_PYBUF_SIMPLE = 0


class NotContiguous(BufferError, ValueError):  # noqa: N818 - as those of ebpfjit.errors
    """A buffer whose bytes do not lie one behind the other: a BufferError, as Python has it."""

    def __init__(self, view: memoryview) -> None:
        super().__init__(
            f"the buffer is not C-contiguous: its bytes do not lie one behind the other (shape {view.shape},"
            f" strides {view.strides}); numpy.ascontiguousarray(it), or bytes(it), is a copy in which they do"
        )


def flat_view(buffer: Any) -> memoryview:
    """Return `buffer` as a contiguous memoryview of bytes.

    Raises TypeError for an object without the buffer protocol and NotContiguous, a BufferError and a
    ValueError, for one that is not contiguous.
    """
    view = memoryview(buffer)
    if not view.c_contiguous:
        raise NotContiguous(view)
    if "O" in (view.format or ""):
        raise TypeError("a buffer of Python objects is not a buffer of bytes")
    if view.nbytes == 0:
        return memoryview(b"") if view.readonly else memoryview(bytearray())
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


def address_of(buffer: Any) -> int:
    """Return the address of a buffer's first byte (u64), to be put into a metadata buffer.

    The address is good while the buffer lives and keeps its size. Raises TypeError for an object without the
    buffer protocol, as Python does, and NotContiguous, a BufferError, for one that is not contiguous.
    """
    flat = memoryview(buffer)
    if not flat.c_contiguous:
        raise NotContiguous(flat)
    if flat.nbytes and not flat.readonly:
        return ctypes.addressof(ctypes.c_char.from_buffer(flat))  # a tenth of the time
    pinned = _PyBuffer()
    _get_buffer(ctypes.py_object(flat), ctypes.byref(pinned), _PYBUF_SIMPLE)
    address = pinned.buf or 0
    _release_buffer(ctypes.byref(pinned))
    return address


@dataclass(slots=True)
class Region:
    """A stretch of memory, `start` <= address < `stop`; `view` covers its bytes.

    With `rights` it is a struct, of which they say what accesses there may be.
    """

    name: str
    start: int
    stop: int
    writable: bool
    view: memoryview = field(repr=False)
    rights: Rights | None = None

    @property
    def size(self) -> int:
        """Bytes in the region."""
        return self.stop - self.start

    @classmethod
    def of_buffer(cls, name: str, buffer: Any) -> Region:
        """Return a region over a buffer, which stays exported (and so in place) meanwhile."""
        view = flat_view(buffer)
        start = address_of(view)
        return cls(name, start, start + view.nbytes, not view.readonly, view)

    @classmethod
    def of_range(cls, name: str, start: int, stop: int) -> Region:
        """Return a writable region over raw addresses that the caller vouches for."""
        return cls(name, start, stop, True, memory_at(start, stop - start))

    @property
    def rights_address(self) -> int:
        """Where machine code finds the rights, 0 without any."""
        if self.rights is None:
            return 0
        assert self.size <= len(self.rights.table)  # machine code does not look
        return self.rights.address

    def contains(self, address: int, size: int) -> bool:
        """True where all `size` bytes at `address` lie inside."""
        return self.start <= address and address + size <= self.stop


def memory_at(address: int, size: int) -> memoryview:
    """Return `size` bytes at an address that somebody vouches for."""
    if not size:
        return memoryview(bytearray())  # a view of nothing cannot be cast
    return memoryview((ctypes.c_ubyte * size).from_address(address)).cast("B")


class Stack:
    """The zeroed stack of one run: frames lie one below the other, the live ones are reachable.

    `top` is the address above the first frame, `start` the lowest live byte. `memory` is where the
    caller wants the stack: STACK_SIZE bytes.
    """

    def __init__(self, memory: Any = None) -> None:
        whole = Region.of_buffer("stack", bytearray(STACK_SIZE) if memory is None else memory)
        self._over(whole.start, whole.view)

    @classmethod
    def over(cls, start: int, memory: memoryview) -> Stack:
        """Return the stack in the memory at an address, for which the caller vouches; it may be empty."""
        stack = cls.__new__(cls)
        stack._over(start, memory)
        return stack

    def _over(self, start: int, memory: memoryview) -> None:
        self.memory = memory
        self.limit = start
        self.top = start + memory.nbytes
        self.region = Region("stack", self.top, self.top, True, memory[memory.nbytes :])

    def reset(self) -> None:
        """Make it as new, at the same addresses: zeroed, without frames."""
        self.memory[:] = bytes(self.memory.nbytes)
        self.start = self.top

    @property
    def start(self) -> int:
        """The lowest live address."""
        return self.region.start

    @start.setter
    def start(self, address: int) -> None:
        self.region.start = address
        self.region.view = self.memory[address - self.limit :]

    def push(self, size: int) -> bool:
        """Add a zeroed frame of `size` bytes below the live ones; False where it does not fit."""
        start = self.region.start - size
        if start < self.limit:
            return False
        offset = start - self.limit
        self.memory[offset : offset + size] = bytes(size)
        self.start = start
        return True


class AddressSpace:
    """All regions of one run; every access of the interpreter and of helpers goes through it.

    `own` are the run's, `shared` those of others besides, of which there may be more at any time.
    """

    def __init__(
        self, regions: list[Region], *, checked: bool = True, shared: SharedRegions | None = None
    ) -> None:
        self.own = regions
        self.shared = shared
        self.checked = checked
        # Machine code keeps the stack and the regions in its own block: it is asked before an
        # access (where the stack's live part starts) and told after a region was added or taken away, or
        # any of them changed.
        self.before_access: Callable[[], None] | None = None
        self.after_change: Callable[[], None] | None = None
        self.after_grant: Callable[[Region], None] | None = None
        self.after_revoke: Callable[[Region], None] | None = None
        # Who runs the program: takes instructions off what the run may still execute.
        self.spend: Callable[[int], None] | None = None
        self.world: World | None = None
        self._most = len(regions) + MOST_GRANTS

    @property
    def regions(self) -> list[Region]:
        """All that the program may touch now."""
        return self.own if self.shared is None else [*self.own, *self.shared]

    def changed(self) -> None:
        """Say that a region moved or changed its size."""
        if self.after_change is not None:
            self.after_change()

    def grant(self, region: Region) -> None:
        """Let the running program touch one more region.

        Raises ExecutionError where it was given too many: each makes every access slower.
        """
        if len(self.own) >= self._most:
            raise ExecutionError(
                f"grant of {region.name}: the run holds {MOST_GRANTS} already; revoke some before the next"
            )
        self.own.append(region)
        if self.after_grant is not None:
            self.after_grant(region)

    def revoke(self, region: Region) -> None:
        """Take a region away again; one that is not there is no matter.

        Whoever granted it keeps its memory alive until the run has ended.
        """
        self.own = [other for other in self.own if other is not region]
        if self.after_revoke is not None:
            self.after_revoke(region)

    def _region(self, address: int, size: int, store: bool, *, probe: bool = False) -> Region | None:
        if self.before_access is not None:
            self.before_access()
        end = address + size
        for region in self.own:
            if region.start <= address and end <= region.stop and (region.writable or not store):
                rights = region.rights
                if rights is None or probe or rights.allows(address - region.start, size, store=store):
                    return region
        for region in self.shared or ():
            if region.start <= address and end <= region.stop and (region.writable or not store):
                rights = region.rights
                if rights is None or probe or rights.allows(address - region.start, size, store=store):
                    return region
        return None

    def find(self, address: int, size: int, access: str) -> memoryview | None:
        """Return the `size` bytes at `address`, None where the program may not "load" or "store" them.

        A "probe" is a load that asks for no rights, as helpers do it that read any memory.
        """
        probe = access == "probe"
        region = self._region(address, size, access != "load" and not probe, probe=probe)
        if region is None:
            return None
        offset = address - region.start
        return region.view[offset : offset + size]

    def rest(self, address: int) -> memoryview | None:
        """Return the bytes from `address` to the end of its region, None where there is none to load."""
        region = self._region(address, 1, store=False, probe=True)
        return None if region is None else region.view[address - region.start :]

    def region_of(self, pc: int, address: int, size: int, access: str) -> Region:
        """Return the region in which the program may "load" or "store" these bytes.

        Unchecked, where there is none, it is one of these bytes. Raises MemoryFault.
        """
        region = self._region(address, size, access != "load")
        if region is not None:
            return region
        if not self.checked:
            return Region.of_range("memory", address, address + size)
        raise faults.memory_fault(pc, address, size, access, self.regions)

    def _view(self, pc: int | None, address: int, size: int, access: str) -> memoryview:
        found = self.find(address, size, access)
        if found is not None:
            return found
        if not self.checked:
            return memory_at(address, size)
        raise faults.memory_fault(pc, address, size, "load" if access == "probe" else access, self.regions)

    def load(self, pc: int | None, address: int, size: int, access: str = "load") -> int:
        """Return the `size` bytes at `address` as a little-endian unsigned integer.

        Raises MemoryFault where they are not inside one region.
        """
        return int.from_bytes(self._view(pc, address, size, access), "little")

    def store(self, pc: int | None, address: int, size: int, value: int, access: str = "store") -> None:
        """Write the low `size` bytes of `value` at `address`.

        Raises MemoryFault where they are not inside one writable region.
        """
        mask = (1 << 8 * size) - 1
        self._view(pc, address, size, access)[:] = (value & mask).to_bytes(size, "little")

    def pay(self, size: int) -> None:
        """Take off the run's budget what a helper costs that goes through `size` bytes."""
        if size > FREE_SIZE and self.spend is not None:
            self.spend((size - FREE_SIZE) // WORK_SIZE)

    def read(self, address: int, size: int) -> bytes:
        """Return `size` bytes, for a helper; none need no right. Raises MemoryFault (without pc)."""
        if not size:
            return b""
        view = self._view(None, address, size, "load")
        self.pay(size)
        return bytes(view)

    def write(self, address: int, data: bytes) -> None:
        """Write `data`, for a helper. Raises MemoryFault (without pc)."""
        if data:
            view = self._view(None, address, len(data), "store")
            self.pay(len(data))
            view[:] = data

    def clear(self, address: int, size: int) -> None:
        """Write `size` zeros, for a helper. Raises MemoryFault (without pc)."""
        if size:
            view = self._view(None, address, size, "store")
            self.pay(size)
            view[:] = bytes(size)

    def check(self, address: int, size: int, access: str) -> None:
        """Raise MemoryFault (without pc) where the program may not do this to these bytes."""
        if size:
            self._view(None, address, size, access)


class _Active(threading.local):
    """What runs in a thread: the innermost space that a caller made active, and at which block.

    Machine code that Python enters without a detour has no space until someone asks for it; it is
    known by its block. A block that was not there yet belongs to a run inside the active one.
    """

    space: AddressSpace | None = None
    block: int = 0

    def __init__(self) -> None:
        self.marks: list[Mark | None] = []


_active = _Active()
_innermost_block: Callable[[], int] = int
_attach: Callable[[int], AddressSpace] | None = None


def watch_blocks(innermost: Callable[[], int], attach: Callable[[int], AddressSpace]) -> None:
    """Say how to find the block of this thread's innermost run (0: none), and a block's memory."""
    global _innermost_block, _attach
    _innermost_block, _attach = innermost, attach


def running() -> AddressSpace | None:
    """Return the memory of the program that runs in this thread, None outside of a run."""
    block = _innermost_block()
    if block == _active.block or _attach is None:
        return _active.space
    return _attach(block) if block else _active.space


def check_marks() -> None:
    """Raise Stopped where a run that Python began in this thread, and that is going on, was stopped."""
    for mark in _active.marks:
        if mark is not None:
            mark.check()


def has_marks() -> bool:
    """True where a run that is going on in this thread can be stopped."""
    return any(mark is not None for mark in _active.marks)


@contextmanager
def stopped_by(mark: Mark) -> Iterator[None]:
    """Let what this thread runs be stopped by a mark that is that of no run of its own."""
    _active.marks.append(mark)
    try:
        yield
    finally:
        _active.marks.pop()


@contextmanager
def active(space: AddressSpace, mark: Mark | None = None) -> Iterator[None]:
    """Make `space` what `read` and `write` of this thread go through: that of a run with this `mark`.

    Raises StackExhausted for a run inside of too many others.
    """
    outer, outer_space, outer_block = running(), _active.space, _active.block
    if outer is not None:
        c_stack.look()
    _active.space, _active.block = space, _innermost_block()
    _active.marks.append(mark)
    try:
        yield
    finally:
        _active.marks.pop()
        _active.space, _active.block = outer_space, outer_block
        if outer is not None:
            outer.changed()  # what they share may have moved in the inner run


def grant(memory: Any, name: str = "granted memory") -> Region:
    """Give the running program more memory, from inside a helper; return its region.

    `memory` is a buffer, which is kept alive and in place while the program runs. Raises
    RuntimeError outside of a run.
    """
    space = running()
    if space is None:
        raise RuntimeError("no program is running in this thread; only a helper can grant memory")
    region = Region.of_buffer(name, memory)
    space.grant(region)
    return region


def grant_region(region: Region) -> None:
    """Give the running program a region, perhaps once more after `revoke`; outside of a run: nothing."""
    space = running()
    if space is not None:
        space.grant(region)


def revoke(region: Region) -> None:
    """Take away what `grant` gave, from inside a helper.

    The caller keeps the memory alive until the run has ended: machine code may have checked an
    address in it before.
    """
    space = running()
    if space is not None:
        space.revoke(region)


def find(address: int, size: int, access: str) -> memoryview | None:
    """Return the `size` bytes at `address` where the running program may "load", "store" or "probe" them.

    None where it may not, also in a run that checks nothing, and outside of a run.
    """
    space = running()
    return None if space is None else space.find(W64.wrap(address), size, access)


def string(address: int, limit: int) -> bytes | None:
    """Return the bytes at `address` up to a zero byte, which is left out, at most `limit`.

    None where they leave the memory that the running program may load, and outside of a run.
    """
    space = running()
    rest = None if space is None else space.rest(W64.wrap(address))
    if rest is None:
        return None
    assert space is not None  # it has the rest
    space.pay(min(len(rest), limit))
    head = bytes(rest[:limit])
    text, zero, _ = head.partition(b"\0")
    return text if zero or len(head) == limit else None


def read(address: int, size: int) -> bytes:
    """Return `size` bytes at `address`: what a Python helper uses to follow a pointer.

    Inside a run the bytes must belong to the program (MemoryFault); outside of one, the caller
    vouches for the address.
    """
    space = running()
    if space is not None:
        return space.read(W64.wrap(address), size)
    return ctypes.string_at(address, size)


def write(address: int, data: bytes) -> None:
    """Write `data` at `address`; see `read`."""
    space = running()
    if space is not None:
        space.write(W64.wrap(address), data)
    else:
        ctypes.memmove(address, data, len(data))


def clear(address: int, size: int) -> None:
    """Write `size` zeros at `address`, of which none are made before it is known to be the program's."""
    space = running()
    if space is not None:
        space.clear(W64.wrap(address), size)
    else:
        ctypes.memset(address, 0, size)


def pay(size: int) -> None:
    """Take off the running program's budget what it costs to go through `size` bytes; see `spend`."""
    space = running()
    if space is not None:
        space.pay(size)


def spend(instructions: int) -> None:
    """Take instructions off what the running program may still execute; outside of a run nobody pays.

    For helpers and maps whose work grows with what the program chose: about as many as would take the
    interpreter as long. `read`, `write`, `clear` and `string` do it for the bytes they go through.
    Raises BudgetExhausted (without pc) where there are not so many.
    """
    space = running()
    if space is not None and space.spend is not None and instructions > 0:
        space.spend(instructions)


def check(address: int, size: int, access: str) -> None:
    """Raise MemoryFault where the running program may not "load", "store" or "probe" these bytes.

    For helpers that must not do half of their work; outside of a run the caller vouches.
    """
    space = running()
    if space is not None:
        space.check(W64.wrap(address), size, access)
