"""Objects that Python calls into machine code with: types whose calls CPython hands to a native gate.

    callable object   [vectorcall] -> call_SHAPE, in `routines`
                      [state] ------> the words of a `Gate`
                      inside -> gate, and all that its state points to

A callable that has become hot goes on with another gate, that of better code; what runs behind the old one
ends there.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import ref

from ebpfjit.errors import EbpfError
from ebpfjit.jit.gate import Gate, attach
from ebpfjit.jit.routines import STATE_OFFSET, routines, watch
from ebpfjit.once import once
from ebpfjit.sealed import Entry, Sealed, inside
from ebpfjit.translators.x86_64.gate import SHAPES

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
    functions: dict[str, Any] = {
        "irregular": irregular,
        "on_fault": gate.on_fault,
        "on_finish": gate.on_finish,
    }
    if gate.better is not None:
        functions["on_hot"] = _OnHot(ref(entry))
        functions["on_slice"] = _OnSlice(ref(entry))
    gate.set_words(**{name: id(function) for name, function in functions.items()})
    contents: Entry = inside(entry)
    # Runs may be behind the gate that was there before: nothing is let go of.
    contents.keep = (*functions.values(), gate, gate.memory, contents.keep)
    contents.gate = gate
    assert gate.shape in SHAPES
    _note(entry, gate)


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
    """What machine code calls where that is so at the end of a slice: the address to go on at, or 0."""

    entry: ref[Any]

    def __call__(self, block: int) -> int:
        entry = self.entry()
        if entry is None:
            return 0
        tier_up(entry)
        gate: Gate = inside(entry).gate
        return gate.take_over(block)


def tier_up(entry: Sealed) -> None:
    """Have an object's calls from now on go to better code, where there is to be any and it was not made yet.

    It is tried once. Where it cannot be made, for want of memory say, all goes on as it is.
    """
    contents: Entry = inside(entry)
    old = contents.gate
    assert old is not None  # it is called through one
    with old.lock:
        better, old.better = old.better, None
        old.set_words(on_hot=0, on_slice=0)
    if better is None:
        return
    try:
        compiled = better()
    except (EbpfError, OSError, MemoryError):
        return
    with old.lock:
        new = old.like(compiled)
        if not new.fits:
            return
        contents.plain.compiled = compiled  # calls that the gate does not understand go there as well
        open_gate(entry, new, contents.keep[0])


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
