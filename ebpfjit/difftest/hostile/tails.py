"""Tail calls between programs of one type and of several, on contexts that are shorter than another's.

main    has done something: left r6 to r9, a frame, a context of its type
tail    is what it would be if it had been started: its context, zeros, a frame of its own
"""

from __future__ import annotations

import random
from functools import cache
from itertools import product

from ebpfjit.difftest.case import UNTYPED, Case, Input
from ebpfjit.difftest.hostile import frames
from ebpfjit.difftest.hostile.writer import FRAME, WIDTHS, Writer
from ebpfjit.difftest.packets import PROGRAMS, TAIL, TAIL_CALL
from ebpfjit.runtime.contexts.types import TYPES as PROGRAM_TYPES

LIMIT = 600
TYPES = ("xdp", "tc", "cgroup_skb", "lwt_xmit", "kprobe", "tracepoint", "syscall", UNTYPED)
HAVE_PACKETS = ("xdp", "tc", "cgroup_skb", "lwt_xmit")
SIZES = {"xdp": 24, "tc": 192, "cgroup_skb": 192, "lwt_xmit": 192}
STRUCT_SIZES = (0, 1, 8, 8, 16, 64, 192)


def _tail_call(writer: Writer, context: str = "r6") -> None:
    """Go on in another program, or not."""
    index = writer.rng.choice((TAIL, TAIL, TAIL, TAIL, TAIL, 0, 4, -1))
    writer.emit(
        f"mov r1, {context}", f"lddw r2, map[idx:{PROGRAMS}]", f"mov r3, {index}", f"call {TAIL_CALL}"
    )


def _context(writer: Writer, type_: str, given: int, register: str = "r6") -> None:
    """Loads of any field that the type has; `given` are the bytes of a context without a struct."""
    rng = writer.rng
    most = SIZES.get(type_, given if writer.chance(0.9) else 64)
    if writer.chance(0.3):  # a context that comes back from the frame
        writer.emit(f"stxdw [r10-8], {register}", "ldxdw r8, [r10-8]", "stdw [r10-8], 0")
        register = "r8"
    loads = [place for place in _places(type_, store=False) if sum(place) <= most]
    for _ in range(rng.randrange(1, 4)):
        if loads and writer.chance(0.97):
            place, size = rng.choice(loads)
        else:
            size = rng.choice([size for size in (4, 4, 4, 1, 8) if size <= most] or [4])
            most = max(most, size)
            place = rng.choice((most - size, rng.randrange(most // size) * size))
        writer.emit(f"ldx{WIDTHS[size]} r7, [{register}+{place}]", "add r9, r7")
    stores = _places(type_, store=True)
    if stores and writer.chance(0.3):
        place, size = rng.choice(stores)
        writer.emit(f"st{WIDTHS[size]} [{register}+{place}], {rng.randrange(100)}")


@cache
def _places(type_: str, *, store: bool) -> tuple[tuple[int, int], ...]:
    """Return the accesses, as offset and size, that programs of a type may do to their struct."""
    known = PROGRAM_TYPES.get(type_)
    rights = None if known is None else known.rights
    if rights is None:
        return ()
    every = product(range(len(rights.table)), WIDTHS)
    return tuple((offset, size) for offset, size in every if rights.allows(offset, size, store=store))


def _packet(writer: Writer, type_: str) -> None:
    """Accesses to the packet, with a bounds check."""
    rng = writer.rng
    data, end = (0, 4) if type_ == "xdp" else (76, 80)
    out = writer.label()
    writer.emit(f"ldxw r7, [r6+{data}]", f"ldxw r8, [r6+{end}]", "mov r5, r7")
    writer.emit(f"add r5, {rng.choice((8, 14, 34, 64))}")
    if writer.chance(0.7):
        writer.emit(f"jgt r5, r8, {out}")
    writer.access(f"r7{rng.choice((0, 6, 8, 13)):+}", "r5")
    writer.emit(f"{out}:")


def _assumed(writer: Writer, *, at_start: bool = False) -> None:
    """Registers and frames as they are when a program starts."""
    rng = writer.rng
    match rng.randrange(4):
        case 0 if at_start or writer.chance(0.2):
            writer.emit("mov r5, r10", f"add r5, {rng.choice(('r3', 'r4', 'r8', 'r8'))}")
            writer.access("r5-8", "r7")
        case 1:
            frames.find_frame(writer)
            writer.emit(f"add r3, {-FRAME * rng.choice((1, 1, 1, 1, 2, -1)) + rng.choice((0, 8, 256))}")
            writer.emit("ldxdw r7, [r3+0]")
        case 2:
            writer.emit(f"stdw [r10-{8 * rng.randrange(1, 65)}], {rng.randrange(100)}")
        case _:
            writer.emit(f"ldxdw r7, [r10-{8 * rng.randrange(1, 65)}]")
    writer.emit("add r9, r7")


def _program(rng: random.Random, type_: str, given: int, *, calls: float) -> bytes:
    """A program of a type, which tail calls in so many cases, perhaps from a function."""
    writer = Writer(rng)
    function = writer.label()
    inside = writer.chance(0.2)
    if writer.chance(0.3):
        _assumed(writer, at_start=True)
    if writer.chance(0.5):
        _context(writer, type_, given, "r1")
    writer.emit("mov r6, r1")
    for _ in range(rng.randrange(0, 3)):
        match rng.randrange(3):
            case 0:
                _context(writer, type_, given)
            case 1 if type_ in HAVE_PACKETS:
                _packet(writer, type_)
            case _:
                _assumed(writer)
    if writer.chance(calls):
        if inside:
            writer.emit("mov r1, r6", f"call {function}")
        else:
            _tail_call(writer)
    if writer.chance(0.3):
        _context(writer, type_, given)
    writer.emit("mov r0, r9", "exit")
    if inside:
        writer.emit(f"{function}:", "mov r6, r1")
        _tail_call(writer)
        writer.emit("mov r0, 3", "exit")
    return writer.code()


def case(rng: random.Random) -> Case:
    """A program and what it tail calls: of its type, or of another."""
    type_ = rng.choice(TYPES)
    other = rng.choice(TYPES) if rng.random() < 0.25 else type_
    size = rng.randrange(14, 100) if type_ in HAVE_PACKETS else rng.choice(STRUCT_SIZES)
    main = _program(rng, type_, size, calls=0.95)
    tail = _program(rng, other, size, calls=0.15)
    return Case(main, (Input(rng.randbytes(size), LIMIT),), type=type_, tail=tail, tail_type=other)
