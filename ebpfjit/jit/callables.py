"""Objects that Python calls into machine code with: types whose calls CPython hands to a native gate.

    callable object   [vectorcall] -> call_SHAPE, in `routines`
                      [state] ------> the words of a `Gate`
                      inside -> gate, and all that its state points to

A callable that has become hot goes on with another gate, that of better code; what runs behind the old one
ends there.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from weakref import ref

from ebpfjit.errors import EbpfError
from ebpfjit.jit.entry import Compiled
from ebpfjit.jit.gate import Gate, attach, gate_of
from ebpfjit.jit.routines import STATE_OFFSET, routines, watch, word
from ebpfjit.jit.tiers import heat_of
from ebpfjit.once import once
from ebpfjit.options import Options
from ebpfjit.record import dataclass, replace
from ebpfjit.runtime.execution import SLICE
from ebpfjit.sealed import Entry, Sealed, inside
from ebpfjit.translators.host import SHAPES

_VECTORCALL_OFFSET = STATE_OFFSET - 8


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


@once
def native_type(base: type[_T]) -> type[_T]:
    """Return a subclass of `base` whose objects are called through the address that they hold.

    `base` is a `Sealed` class without slots of its own.
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


def open_gate(entry: Sealed, gate: Gate, irregular: Callable[..., int]) -> None:
    """Connect an object of a native type, in which is an `Entry`, with a gate.

    `irregular` is called with the arguments of a call that the gate does not understand.
    """
    watch(attach)
    contents: Entry = inside(entry)
    contents.irregular = irregular
    for each in gate.chain:
        functions: dict[str, Any] = {
            "irregular": irregular,
            "on_fault": each.on_fault,
            "on_finish": each.on_finish,
        }
        if each.better is not None:
            functions["on_hot"] = _OnHot(ref(entry))
        if each.anew is not None:
            functions["on_slice"] = _OnSlice(ref(entry))
        _connect(contents, each, functions)
    contents.gate, contents.first = gate, contents.first or gate
    assert gate.shape in SHAPES
    _note(entry, gate)


def _connect(contents: Entry, gate: Gate, functions: Mapping[str, Any]) -> None:
    """Have machine code behind a gate call these functions, by the word that names each.

    Runs may be behind the gates that were there before: nothing is let go of.
    """
    gate.set_words(**{name: id(function) for name, function in functions.items()})
    contents.keep = (functions, gate, gate.memory, contents.keep)


@dataclass(frozen=True)
class _OnHot:
    """What machine code calls once a callable's calls have cost enough."""

    entry: ref[Any]

    def __call__(self) -> None:
        entry = self.entry()
        if entry is not None:
            tier_up(entry)


@dataclass(frozen=True)
class _OnSlice:
    """What baseline code calls where that is so at the end of a slice: the address to go on at, or 0."""

    entry: ref[Any]

    def __call__(self, block: int) -> int:
        entry = self.entry()
        if entry is None:
            return 0
        return go_on(entry, block)


def tier_up(entry: Sealed) -> None:
    """Have an object's calls from now on go to better code, where there is to be any and it was not made yet.

    It is tried once. Where it cannot be made, for want of memory say, all goes on as it is.
    """
    contents: Entry = inside(entry)
    old = contents.gate
    assert old is not None  # it is called through one
    with old.lock.held:
        better, old.better = old.better, None
        for each in old.chain:
            each.set_words(on_hot=0)  # runs that are behind it may still go on in other code
    if better is None:
        return
    with old.lock.held:
        new = _better(contents, old, better, frozenset())
        if new is None:
            return
        contents.plain.compiled = new.compiled  # calls that the gate does not understand go there as well
        assert contents.irregular is not None  # its gate was opened
        open_gate(entry, new, contents.irregular)


def go_on(entry: Sealed, block: int) -> int:
    """Return the address where a run at the end of a slice goes on in better code, 0 where it stays.

    That code is made for runs which are at this tested block (on-stack replacement), and has a way in there:
    calls have code without, once the run has ended. The next such code has to be earned again.
    """
    contents: Entry = inside(entry)
    old, first = gate_of(block), contents.first
    assert first is not None  # it is called through one
    with first.lock.held:
        pc = old.compiled.pc_of(word(block, "fault_place"))
        contents.slices -= 1
        if pc not in contents.resumed and contents.slices <= 0:
            contents.resumed[pc] = None  # it is tried once
            contents.slices = heat_of(old.compiled.verified.program) // SLICE
            contents.resumed[pc] = _resuming(entry, old, pc)
        gate = contents.resumed.get(pc)
        return 0 if gate is None else gate.take_over(block, first.room)


def _resuming(entry: Sealed, old: Gate, pc: int) -> Gate | None:
    """Return a gate of code in which runs go on that are at a tested block; None where it cannot be made."""
    contents: Entry = inside(entry)
    assert old.anew is not None  # it has made this code
    gate = _better(contents, old, old.anew, frozenset({pc}))
    if gate is None:
        return None
    functions = {"on_fault": gate.on_fault, "on_finish": gate.on_finish}
    _connect(contents, gate, functions | {"on_hot": _OnHot(ref(entry)), "on_slice": _OnSlice(ref(entry))})
    gate.set_words(special=1)  # as of the gate that the run came through
    return gate


def _better(
    contents: Entry, old: Gate, make: Callable[[Options], Compiled], resumes: frozenset[int]
) -> Gate | None:
    """Return a gate of better code, in which runs go on at these blocks; None where it cannot be made.

    What stayed baseline code is no better for runs.
    Runs may be in any of the code that there was, and go on in this: all have the same first limits.
    """
    latest = contents.latest or old.compiled
    limits = latest.image.limits
    try:
        compiled = make(replace(latest.recipe.options.better, resumes=resumes, limits=limits))
    except (EbpfError, OSError, MemoryError):
        return None
    if not resumes <= compiled.image.resumes.keys():
        return None
    gate = old.like(replace(compiled, before=latest))
    if not gate.fits or compiled.image.limits[: len(limits)] != limits:
        return None
    contents.latest = gate.compiled
    return gate


@once
def _method_of(shape: str, name: str, doc: str) -> _MethodDef:
    address = routines().addresses[f"call_{shape}"]
    return _MethodDef(name.encode(), address, _METH_FASTCALL | _METH_KEYWORDS, doc.encode())


def built_in(entry: Sealed, name: str, doc: str = "") -> Callable[..., int]:
    """Return a built-in function that does what a call of `entry`, which has a gate, does.

    CPython calls such a function a few nanoseconds faster than any other object.
    """
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.restype, make.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)
    method = _method_of(inside(entry).gate.shape, name, doc)
    function: Callable[..., int] = make(ctypes.byref(method), entry, None)
    return function


def _note(entry: Sealed, gate: Gate) -> None:
    """Write into an object where its state is, and what to call."""
    here = id(entry)
    ctypes.c_uint64.from_address(here + STATE_OFFSET).value = ctypes.addressof(gate.state)
    address = routines().addresses[f"call_{gate.shape}"]
    ctypes.c_uint64.from_address(here + _VECTORCALL_OFFSET).value = address
