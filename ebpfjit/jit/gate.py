"""The native gate: objects that Python calls into machine code with, and what it leaves to Python.

    callable object   [vectorcall] -> call_SHAPE, in `routines`
                      [state] ------> words that say what is particular to this program
                      gate, and the Python functions whose addresses are in the state

Where the gate cannot work, `why_not` says why, and everything goes through `Compiled.run`.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from ebpfjit.errors import ExecutionError
from ebpfjit.isa.spec import Kind
from ebpfjit.jit.entry import Compiled, Run, slices_of
from ebpfjit.jit.routines import (
    BYTEARRAY_EXPORTS,
    BYTEARRAY_START,
    BYTES_DATA,
    SIZE,
    STATE_OFFSET,
    WORD,
    routines,
    watch,
    word,
)
from ebpfjit.jit.stock import LeafHelper
from ebpfjit.runtime import faults
from ebpfjit.runtime.contexts import SkbContext, XdpContext
from ebpfjit.runtime.contexts.packet import LINK_HEADER_SIZE
from ebpfjit.runtime.execution import Execution
from ebpfjit.runtime.memory import STACK_SIZE, AddressSpace, Region, Stack, address_of
from ebpfjit.translators.x86_64.gate import SHAPES
from ebpfjit.translators.x86_64.lanes import LANE_WORDS
from ebpfjit.translators.x86_64.runs import KEPT_SIZE, STATE_WORDS
from ebpfjit.translators.x86_64.target import BLOCK_SIZE, FAULTS, REGION_SIZE, limit_place

SUPPORTED = ((3, 11), (3, 12), (3, 13), (3, 14))
"""The versions of CPython whose objects are laid out as the gate expects."""

LARGEST_MBUFF = 1024
"""A fixed mbuff of more bytes is made by Python."""

LARGEST_FRAME = 64 * 1024
"""A run that needs more of the thread's stack goes another way."""

_STATE = {name: index for index, name in enumerate(STATE_WORDS)}
_LANE = {name: index for index, name in enumerate(LANE_WORDS)}
_VECTORCALL_OFFSET = STATE_OFFSET - 8
_ALL_ONES = (1 << 64) - 1


@cache
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


class Lane:
    """The memory of a context, into which the gate puts one packet after the other."""

    def __init__(self, context: XdpContext | SkbContext) -> None:
        self.context = context
        template = context.template
        self._template = ctypes.create_string_buffer(template, _aligned(len(template)))
        hidden = LINK_HEADER_SIZE if context.type.network_layer else 0
        link = context.memory.start + context.first + context.headroom
        has_headers = isinstance(context, SkbContext)
        words = {
            "fill": routines().addresses[f"fill_{context.struct.name.strip('_')}"],
            "struct": context.argument.start,
            "struct_size": context.argument.size,
            "template": ctypes.addressof(self._template),
            "template_size": len(self._template),
            "packet": link,
            "room": context.room,
            "hidden": hidden,
            "writable": _ALL_ONES if context.type.writes_packet else 0,
            "shown": _ALL_ONES if context.type.reads_packet else 0,
            "link_header": link if has_headers else 0,
            "network_header": link + LINK_HEADER_SIZE if has_headers else 0,
        }
        self._words = (ctypes.c_uint64 * len(LANE_WORDS))()
        for name, value in words.items():
            self._words[_LANE[name]] = value

    @property
    def other_regions(self) -> list[Region]:
        """What runs may touch of the context besides packet and struct."""
        own = (self.context.packet, self.context.argument)
        return [region for region in self.context.regions if not any(region is each for each in own)]

    @property
    def address(self) -> int:
        """Where the lane's words are."""
        return ctypes.addressof(self._words)

    @contextmanager
    def taken(self) -> Iterator[bool]:
        """Keep the lane for the length of a block; False where a run is using it."""
        if self._words[_LANE["busy"]]:
            yield False
            return
        self._words[_LANE["busy"]] = 1
        try:
            yield True
        finally:
            self._words[_LANE["busy"]] = 0


class _Regions:
    """Regions that runs may touch besides their buffers, as machine code reads them.

    Rows are added and never changed, and where a table starts and stops is told by a pair of words
    of its own: what a run was given stays as it is, and stays. A table is twice as long as the one
    before.
    """

    def __init__(self, regions: Sequence[Region]) -> None:
        self.regions: list[Region] = []
        self._kept: list[Any] = []
        self._grow(max(len(regions), 1))
        for region in regions:
            self.add(region)

    def _grow(self, rows: int) -> None:
        self._table = (ctypes.c_uint64 * (3 * rows))()
        self._kept.append(self._table)
        for index, region in enumerate(self.regions):
            self._put(index, region)
        self._bound()

    def _put(self, index: int, region: Region) -> None:
        self._table[3 * index : 3 * index + 3] = [region.start, region.stop, region.writable]

    def _bound(self) -> None:
        start = ctypes.addressof(self._table)
        self._bounds = (ctypes.c_uint64 * 2)(start, start + REGION_SIZE * len(self.regions))
        self._kept.append(self._bounds)

    def add(self, region: Region) -> None:
        """Add a region; `address` then is another one."""
        if 3 * len(self.regions) == len(self._table):
            self._grow(2 * len(self.regions))
        self._put(len(self.regions), region)
        self.regions.append(region)
        self._bound()

    @property
    def address(self) -> int:
        """The address of the two words that say where the table starts and stops."""
        return ctypes.addressof(self._bounds)


class Gate:
    """A compiled program, ready for calls of one shape: its state, and its runs that Python knows.

    `names` are those of the buffers, the packet first. Where there is a `lane`, `begin(size, stack)`
    gives the execution of a run that is in the middle of a packet of so many bytes there.
    """

    def __init__(
        self,
        compiled: Compiled,
        shape: str,
        names: Sequence[str],
        *,
        limit: int | None = None,
        allowed: Sequence[Region] = (),
        checked: bool = True,
        mbuff: Mbuff | None = None,
        lane: Lane | None = None,
        begin: Callable[[int, Stack], Execution] | None = None,
    ) -> None:
        self.compiled = compiled
        self.lane, self.begin = lane, begin
        self.shape = shape
        self.names = names
        self.checked = checked
        self.regions = _Regions(allowed)
        self.state = (ctypes.c_uint64 * len(STATE_WORDS))()
        self._runs: dict[int, _NativeRun] = {}
        self._limits = _limit_table(compiled)
        linked = not all(isinstance(helper, LeafHelper) for helper in compiled.helpers)
        kinds = {insn.row.kind for insn in compiled.verified.program.instructions if insn.row}
        self._set(
            entry=compiled.entry,
            limits_start=ctypes.addressof(self._limits),
            limits_stop=ctypes.addressof(self._limits) + ctypes.sizeof(self._limits),
            linked=linked,
            unlocked=compiled.unlocked,
            special=linked or compiled.unlocked or Kind.PACKET_LOAD in kinds,
            lane=lane.address if lane is not None else 0,
            **_frame_of(compiled, mbuff),
        )
        self._set(regions=self.regions.address)
        self.set_limit(limit)
        _gates[ctypes.addressof(self.state)] = self

    def _set(self, **words: int) -> None:
        for name, value in words.items():
            self.state[_STATE[name]] = value

    def set_limit(self, limit: int | None) -> None:
        """Give each run from now on so many instructions, None for no limit."""
        self.limit = limit
        first, later = slices_of(limit)
        self._set(first=first, later=later)

    def allow(self, region: Region) -> None:
        """Let runs from now on touch one more region."""
        self.regions.add(region)
        self._set(regions=self.regions.address)

    @property
    def fits(self) -> bool:
        """False where a run would take too much of the thread's stack."""
        small = self.state[_STATE["mbuff_size"]] <= LARGEST_MBUFF
        return small and self.state[_STATE["frame"]] <= LARGEST_FRAME

    def attach(self, block: int) -> _NativeRun:
        """Return the run at a block, which machine code is in the middle of; the same each time."""
        if word(block, "attached"):
            return self._runs[block]
        run = self._runs[block] = _NativeRun(self, block)
        run.set_word("attached", 1)
        return run

    def on_finish(self, block: int) -> None:
        """Forget a run that ended well."""
        self._runs.pop(block).close()
        if self.lane is not None:
            self.lane.context.clear()

    def on_fault(self, block: int, error: BaseException | None) -> None:
        """Raise what went wrong, or add the pc to the error that a helper raised."""
        run, program = self.attach(block), self.compiled.verified.program
        run.follow_stack()
        try:
            if error is None:
                error = self.compiled.exception(run, FAULTS[run.word("fault_kind")])
                raise faults.name_line(error, program)
            if isinstance(error, ExecutionError):
                faults.locate(error, self.compiled.fault_pc(run))
                faults.name_line(error, program)
        finally:
            self.on_finish(block)


_gates: WeakValueDictionary[int, Gate] = WeakValueDictionary()


def _attach(block: int) -> AddressSpace:
    return _gates[word(block, "state")].attach(block).space


class _NativeRun(Run):
    """A run whose block and stack are on the stack of the thread that called."""

    def __init__(self, gate: Gate, block: int) -> None:
        size = BLOCK_SIZE + 8 * len(gate.compiled.image.limits)
        memory = memoryview((ctypes.c_ubyte * size).from_address(block)).cast("B")
        low, high = word(block, "stack_limit"), word(block, "stack_top")
        stack = Stack((ctypes.c_ubyte * (high - low)).from_address(low))
        self._own: list[Region] = []
        if gate.begin is not None:
            execution = gate.begin(word(block, "packet_size"), stack)
        else:
            execution = self._on_buffers(gate, block, stack)
        super().__init__(gate.compiled, execution, memory, block)
        self.follow_stack()
        if execution.world is not None:
            execution.world.engine = self
            self.publish()  # helpers may lead to memory that machine code had no need of: maps in maps

    def _on_buffers(self, gate: Gate, block: int, stack: Stack) -> Execution:
        self._own = [
            _region(block, *names) for names in zip(gate.names, ("packet", "argument"), strict=False)
        ]
        return Execution(
            arguments=(0, 0),  # it has started long since
            regions=[*self._own, *gate.regions.regions],
            packet=self._own[0] if self._own else None,
            argument=self._own[-1] if self._own else None,
            limit=gate.limit,
            checked=gate.checked,
            stack=stack,
        )

    def close(self) -> None:
        """Let go of the thread's stack and of the buffers, which are not ours any more."""
        self.space.before_access = self.space.after_grant = None
        nothing = memoryview(b"")
        for region in (*self._own, self.execution.stack.region):
            region.view = nothing


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


def _frame_of(compiled: Compiled, mbuff: Mbuff | None) -> dict[str, int]:
    """Return where a run has what on the thread's stack, and how much it takes.

    A program that never calls a function of its own has one frame.
    """
    program = compiled.verified.program
    calls = (Kind.CALL_LOCAL, Kind.CALL_REGISTER)
    nested = len(program.functions) > 1 or any(i.row and i.row.kind in calls for i in program.instructions)
    low = _aligned(BLOCK_SIZE + 8 * len(compiled.image.limits))
    high = low + (STACK_SIZE if nested else compiled.verified.frame_sizes[0])
    size = mbuff.size if mbuff else 0
    mbuff_end = high + _aligned(size)
    words = {"low": low, "high": high, "mbuff_size": size, "mbuff_end": mbuff_end}
    if mbuff is not None:
        words |= {"data_offset": mbuff.data_offset, "data_end_offset": mbuff.data_end_offset}
    # Six registers and the return address are above: rsp is then a multiple of 16.
    return words | {"frame": _aligned(mbuff_end + KEPT_SIZE) + 8}


def _aligned(size: int) -> int:
    return -(-size // 16) * 16


# --- objects that Python calls ---


class _Slot(ctypes.Structure):
    _fields_ = (("slot", ctypes.c_int), ("pfunc", ctypes.c_void_p))


class _Member(ctypes.Structure):
    """CPython's PyMemberDef (Include/structmember.h)."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("type", ctypes.c_int),
        ("offset", ctypes.c_ssize_t),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


class _Spec(ctypes.Structure):
    """CPython's PyType_Spec (Include/object.h)."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("basicsize", ctypes.c_int),
        ("itemsize", ctypes.c_int),
        ("flags", ctypes.c_uint),
        ("slots", ctypes.POINTER(_Slot)),
    )


class _MethodDef(ctypes.Structure):
    """CPython's PyMethodDef (Include/methodobject.h)."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("meth", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


_METH_FASTCALL, _METH_KEYWORDS = 0x80, 0x02
_T_PYSSIZET, _READONLY, _PY_TP_MEMBERS = 19, 1, 72
_HAVE_VECTORCALL, _HAVE_VERSION_TAG = 1 << 11, 1 << 18
_T = TypeVar("_T")


@cache
def native_type(base: type[_T]) -> type[_T]:
    """Return a subclass of `base` whose objects are called through the address that they hold.

    `base` is a Python class with slots only, which say which objects a callable keeps alive.
    """
    assert base.__basicsize__ <= _VECTORCALL_OFFSET, "the objects' own slots reach into the gate's"
    make = ctypes.pythonapi.PyType_FromSpecWithBases
    make.restype, make.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.py_object)
    members = (_Member * 2)(_Member(b"__vectorcalloffset__", _T_PYSSIZET, _VECTORCALL_OFFSET, _READONLY))
    slots = (_Slot * 2)(_Slot(_PY_TP_MEMBERS, ctypes.cast(members, ctypes.c_void_p)))
    name = f"{base.__module__}.{base.__qualname__}".encode()
    spec = _Spec(name, STATE_OFFSET + 8, 0, _HAVE_VECTORCALL | _HAVE_VERSION_TAG, slots)
    made: type[_T] = make(ctypes.byref(spec), (base,))
    _specs.append((name, members, slots, spec))  # the type goes on using its name
    return made


_specs: list[Any] = []


def open_gate(entry: Any, gate: Gate, irregular: Callable[..., int]) -> None:
    """Connect an object of a native type with a gate.

    `irregular` is called with the arguments of a call that the gate does not understand.
    `entry` is to have attributes `gate` and `keep`.
    """
    watch(_attach)
    functions = {"irregular": irregular, "on_fault": gate.on_fault, "on_finish": gate.on_finish}
    gate._set(**{name: id(function) for name, function in functions.items()})
    entry.gate = gate
    entry.keep = tuple(functions.values())
    assert gate.shape in SHAPES
    _note(entry, gate)


@cache
def _method_of(shape: str, name: str, doc: str) -> _MethodDef:
    address = routines().addresses[f"call_{shape}"]
    return _MethodDef(name.encode(), address, _METH_FASTCALL | _METH_KEYWORDS, doc.encode())


def built_in(entry: Any, name: str, doc: str = "") -> Callable[..., int]:
    """Return a built-in function that does what a call of `entry`, which has a gate, does.

    CPython calls such a function a few nanoseconds faster than any other object.
    """
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.restype, make.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)
    method = _method_of(entry.gate.shape, name, doc)
    function: Callable[..., int] = make(ctypes.byref(method), entry, None)
    return function


def _note(entry: Any, gate: Gate) -> None:
    """Write into an object where its state is, and what to call."""
    here = id(entry)
    ctypes.c_uint64.from_address(here + STATE_OFFSET).value = ctypes.addressof(gate.state)
    address = routines().addresses[f"call_{gate.shape}"]
    ctypes.c_uint64.from_address(here + _VECTORCALL_OFFSET).value = address
