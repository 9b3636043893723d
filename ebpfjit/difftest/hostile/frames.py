"""Stack frames read and written through addresses that were not made from r10.

    found      bit by bit, by comparing with r10; kept in memory and loaded again; known beforehand
    reached    frames above, below, of functions that returned, and what lies outside of all
    copied     into the memory, where it is compared

Some functions name their frame, some do not: what nobody names need not be there, but must not be
what lay there before.
"""

from __future__ import annotations

import random

from ebpfjit.difftest.arena import STACK
from ebpfjit.difftest.case import Case, Input
from ebpfjit.difftest.hostile.writer import FRAME, Writer
from ebpfjit.runtime.memory import STACK_SIZE

LIMIT = 1500
FRAMES = (1, 1, 1, 2, 2, 3, 0)
"""How far below, in frames, what is reached starts."""


def find_frame(writer: Writer, register: str = "r3", scratch: str = "r4", *, typed: bool = True) -> None:
    """Find r10, in a few ways; in programs without a type also by knowing where the arena has it."""
    rng = writer.rng
    match rng.randrange(5 if typed else 6):
        case 0 | 1 | 2:  # bit by bit, in as many instructions wherever the stack is
            find, keep, go_on = writer.label(), writer.label(), writer.label()
            writer.emit(
                f"mov {register}, 0", f"mov {scratch}, 1", f"lsh {scratch}, 47", f"{find}:",
                f"or {register}, {scratch}", f"jle {register}, r10, {keep}", f"xor {register}, {scratch}",
                f"ja {go_on}", f"{keep}:", f"or {register}, {scratch}", f"or {register}, {scratch}",
                f"{go_on}:", f"rsh {scratch}, 1", f"jne {scratch}, 0, {find}",
            )  # fmt: skip
        case 3:
            writer.emit(f"mov {register}, r10")
        case 4:  # through a number that analysis does not follow
            mask = rng.getrandbits(31)
            writer.emit(f"mov {register}, r10", f"xor {register}, {mask}", f"xor {register}, {mask}")
        case _:
            writer.emit(f"lddw {register}, {STACK + STACK_SIZE:#x}")


def copied(writer: Writer, register: str, words: int) -> None:
    """Copy words from where a register points into the memory at r6 (or a register that is kept)."""
    again = writer.label()
    writer.emit(
        "mov r5, r6", "mov r4, 0", f"{again}:", f"ldxdw r0, [{register}+0]", "stxdw [r5+0], r0",
        f"add {register}, 8", "add r5, 8", "add r4, 1", f"jne r4, {words}, {again}",
    )  # fmt: skip


def reach(writer: Writer) -> None:
    """Read or write somewhere in the frames, at an address that was found."""
    rng = writer.rng
    find_frame(writer, typed=False)
    writer.emit(f"add r3, {-FRAME * rng.choice(FRAMES) + rng.choice((0, 0, 0, 8, 256, 504))}")
    match rng.randrange(5):
        case 0:
            writer.emit(f"stdw [r3+{8 * rng.randrange(8)}], {rng.randrange(1, 100)}")
        case 1:
            writer.access(f"r3{rng.choice((0, 8, -8, 64)):+}")
        case _:
            copied(writer, "r3", rng.choice((1, 2, 4, 8)))


def used(writer: Writer) -> None:
    """Name the frame, and leave something in it."""
    rng = writer.rng
    for _ in range(rng.randrange(1, 4)):
        writer.emit(f"stdw [r10-{8 * rng.randrange(1, 65)}], {rng.randrange(1, 1000)}")


def body(writer: Writer, callees: list[str]) -> None:
    """What a function does: calls, frames that are named, frames that are reached."""
    rng = writer.rng
    names = writer.chance(0.45)
    for _ in range(rng.randrange(1, 4)):
        chance = rng.random()
        if chance < 0.45 and callees:
            writer.emit("mov r1, r6", f"call {rng.choice(callees)}")
        elif chance < 0.6 and names:
            used(writer)
        else:
            reach(writer)


def case(rng: random.Random) -> Case:
    """Functions that call one another, on a memory of some words."""
    writer = Writer(rng)
    functions = [writer.label() for _ in range(rng.choice((0, 1, 1, 2, 3)))]
    writer.emit("mov r6, r1", "mov r0, 0")
    body(writer, functions)
    writer.emit("exit")
    for index, function in enumerate(functions):
        writer.emit(f"{function}:", "mov r6, r1")
        body(writer, functions[index + 1 :])
        writer.emit("mov r0, 0", "exit")
    return Case(writer.code(), (Input(bytes(64), LIMIT),))
