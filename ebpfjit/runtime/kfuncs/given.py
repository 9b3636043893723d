"""Kernel functions that whoever runs a program brings along, called as BTF declares them.

kfuncs={"bpf_xdp_ct_lookup": f}      f(context, tuple_at, 12, opts_at, 12) -> bytearray | None

A number comes as its type says (an int of 32 bits from -2**31 on), a pointer as an address, from which
`ebpfjit.runtime.memory.read` and `write` go. What is returned becomes r0: an integer as its type has it, None
as 0, a buffer as the address of memory that the program may touch for the rest of the run.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable, Mapping
from typing import Any

from ebpfjit.bits import U64_MASK, Width
from ebpfjit.errors import ExecutionError
from ebpfjit.isa.spec import Kind
from ebpfjit.named import cut
from ebpfjit.program import Kfunc, Number, Program
from ebpfjit.record import replace
from ebpfjit.runtime import held, memory
from ebpfjit.runtime.execution import HelperFunction, NativeHelper
from ebpfjit.runtime.given import check_functions
from ebpfjit.runtime.memory import Region
from ebpfjit.runtime.world import current

Given = Mapping[int | str, Callable[..., Any]]

_PSEUDO_KFUNC_CALL = 2
_WORD = struct.Struct("<BBhi")
_SHOWN = "memory of kernel functions"


def given_functions(program: Program, given: Given) -> dict[int, HelperFunction]:
    """Return those that a program calls, by the imm of their calls; `given` are by that number, or by name.

    What the program does not call is no matter. Raises TypeError for what cannot be called, or is no mapping.
    """
    given = dict(check_functions("kfunc", given))
    found: dict[int, HelperFunction] = {
        number: _adapted(Kfunc(str(number)), function)
        for number, function in given.items()
        if isinstance(number, int)
    }
    for number, called in program.kfuncs.items():
        named = given.get(called.name, given.get(number))
        if named is not None:
            found[number] = _adapted(called, named)
    return found


def with_weak(program: Program, given: Given) -> Program:
    """Return the program where it calls the weak kernel functions that are given, and finds them to be there.

    Without them, the address of one is 0, and its call a fault (`elf.patches.leave_out`).
    """
    named = {
        pc: kfunc for pc, kfunc in program.weak_kfuncs.items() if kfunc[1].name in given or kfunc[0] in given
    }
    if not named:
        return program
    code = bytearray(program.code)
    for pc, (id, _) in named.items():
        use = program.slots[pc] if pc < len(program.slots) else None
        if use is None or use.row is None:
            continue  # somebody made a program of other bytes
        if use.row.kind is Kind.LOAD_IMM64:
            _WORD.pack_into(code, 8 * pc, use.opcode, use.dst_reg, 0, id)
        elif use.row.kind is Kind.CALL_HELPER:
            _WORD.pack_into(code, 8 * pc, use.opcode, _PSEUDO_KFUNC_CALL << 4, 0, id)
    return replace(
        program,
        code=bytes(code),
        kfuncs={**program.kfuncs, **dict(named.values())},
        absent={pc: what for pc, what in program.absent.items() if pc not in named},
    )


def _adapted(called: Kfunc, function: Callable[..., Any]) -> HelperFunction:
    """Return a function of five u64 that calls one as BTF declares it; native code is called as it is."""
    if isinstance(function, NativeHelper):
        return function

    def call(r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
        values: list[int] = [r1, r2, r3, r4, r5]
        if called.arguments is not None:
            values = [_read(*pair) for pair in zip(values, called.arguments, strict=False)]
        result = result_of(called, function(*values))
        world = current()
        if world is not None:
            held.pass_on(world, values, result)
        return result

    call.__name__ = call.__qualname__ = called.name
    call.__doc__ = function.__doc__
    return call


def _read(value: int, number: Number) -> int:
    """Return what stands in a register as the number that it is."""
    width = Width(8 * number.size)
    return width.signed(value) if number.is_signed else width.wrap(value)


def result_of(called: Kfunc, value: Any, what: str = "kfunc") -> int:
    """Return r0 (u64) of a function of the user's: what it returned as it is declared; a buffer's address.

    A buffer is memory that the program may touch, from then on. `what` the function is says the error. Raises
    TypeError for what is no integer, buffer or None, and where the result is no pointer but a buffer was
    returned, ExecutionError; it does where the run has been given too much.
    """
    if value is None:
        return 0
    try:
        number = operator.index(value)
    except TypeError:  # arrays of numpy have __index__, and are buffers
        return _shown(called, _buffer(called, value, what))
    return (number if called.result is None else _read(number, called.result)) & U64_MASK


def _buffer(called: Kfunc, value: Any, what: str) -> Any:
    """Return a buffer as it is. Raises TypeError for what is none."""
    try:
        memoryview(value).release()
    except TypeError:
        raise TypeError(
            f"{what} {called.name} returned {cut(repr(value), 40)}, of type {type(value).__name__}; "
            "it returns an integer, None, or, where it is declared to return a pointer, a buffer"
        ) from None
    return value


def _shown(called: Kfunc, buffer: Any) -> int:
    """Let the program touch a buffer, once for a run; return its address.

    Raises ExecutionError where the function returns no pointer, or where the run has been given too much.
    """
    if called.result is not None and not called.result.is_pointer:
        kind = type(buffer).__name__
        raise ExecutionError(f"{called.name} returned a buffer ({kind}), and is declared to return a number")
    world = current()
    shown: dict[int, tuple[Any, Region]] = {} if world is None else world.shown.setdefault(_SHOWN, {})
    if id(buffer) not in shown:
        shown[id(buffer)] = buffer, memory.grant(buffer, f"memory of {called.name}")
    return shown[id(buffer)][1].start
