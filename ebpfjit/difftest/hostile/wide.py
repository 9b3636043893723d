"""Numbers at the borders of 8, 16, 32 and 64 bits, wherever a number may stand.

loops        counters, bounds and steps beyond 32 bits; a pointer steps as the counter does, scaled
distances    one base at many distances, billions apart
indexes      a number that is masked, scaled and compared, behind r1 or below r10
lengths      a number that is compared with r2, the size of the memory, with something added
"""

from __future__ import annotations

import random

from ebpfjit.difftest.case import Case, Input
from ebpfjit.difftest.hostile.writer import FRAME, U64, Writer, border, signed32

LIMIT = 400
SIZES = (1, 8, 16, 24, 32, 33, 48, 64)
UPWARDS, DOWNWARDS = ("jlt", "jle", "jne", "jslt", "jsle"), ("jgt", "jge", "jne", "jsgt", "jsge")


def _loop(writer: Writer) -> None:
    """A few rounds in which a pointer is the counter, scaled, behind r1."""
    rng = writer.rng
    rounds, shift = rng.randrange(1, 5), rng.choice((0, 0, 1, 2, 3, 3, 4, 8, 16, 31, 32, 33))
    width = rng.choice((8, 16, 31, 32, 32, 32, 33, 33, 47, 62, 63, 64))  # of the pointer's step
    step = (1 << max(0, width - shift)) + rng.choice((0, 0, 0, 1, -1))
    step = step if writer.chance(0.8) else signed32(step)
    down = writer.chance(0.2)
    first = rng.choice((0, 0, 0, 0, 1, 8, border(rng)))
    last = first + rounds * step + rng.choice((0, 0, 1, -1))
    if down:
        first, last, step = last, first, -step
    writer.constant("r3", first)
    writer.constant("r5", last)
    steps_by_register = step != signed32(step) or writer.chance(0.2)
    if steps_by_register:
        writer.constant("r8", step)
    again, out = writer.label(), writer.label()
    moving = writer.chance(0.3)
    if moving:  # the pointer steps by itself
        writer.emit("mov r4, r1")
        writer.constant("r9", step << shift)
    writer.emit(f"{again}:")
    if not moving:
        writer.emit("mov r4, r3")
        scale = 1 << shift
        if shift and scale == signed32(scale) and writer.chance(0.3):
            writer.emit(f"mul r4, {scale}")
        elif shift:
            writer.emit(f"lsh r4, {shift}")
        writer.emit("add r4, r1")
    for _ in range(rng.choice((1, 1, 2))):
        writer.access(f"r4{rng.choice((0, 0, 0, 1, 8, -1)):+}")
    writer.emit("add r3, r8" if steps_by_register else f"add r3, {step}")
    if moving:
        writer.emit("add r4, r9")
    writer.emit(f"{rng.choice(DOWNWARDS if down else UPWARDS)} r3, r5, {again}", f"{out}:")


def _distances(writer: Writer) -> None:
    """Accesses behind one base, which moves by billions, and perhaps back."""
    rng = writer.rng
    writer.emit(f"mov r4, {rng.choice(('r1', 'r1', 'r6', 'r10'))}")
    if writer.chance(0.3):
        writer.emit("ldxdw r4, [r1+0]")
    off = rng.choice((0, 0, 0, -8, 8))
    writer.access(f"r4{off:+}")
    for _ in range(rng.randrange(1, 4)):
        far = border(rng)
        for _ in range(rng.choice((1, 1, 2))):
            if far == signed32(far) & U64 and writer.chance(0.7):
                writer.emit(f"add r4, {signed32(far)}")
            elif writer.chance(0.3):
                writer.emit(*["add r4, 0x7fffffff"] * rng.randrange(1, 4), f"add r4, {rng.randrange(4)}")
            else:
                writer.constant("r5", far)
                writer.emit(f"{rng.choice(('add', 'add', 'sub'))} r4, r5")
        skipped = writer.label()
        if writer.chance(0.4):
            writer.emit(f"jeq r7, {rng.randrange(3)}, {skipped}")
        if writer.chance(0.8):
            writer.access(f"r4{rng.choice((0, 0, 1, 8, -8, 32767, -32768)):+}")
        writer.emit(f"{skipped}:")


def _index(writer: Writer) -> None:
    """A number of the memory, bounded by something wide, as an index behind r1 or below r10."""
    rng = writer.rng
    writer.load("r4", f"r1+{rng.choice((0, 8, 16))}", (4, 8))
    out = writer.label()
    for _ in range(rng.randrange(1, 4)):
        match rng.randrange(6):
            case 0:
                writer.constant("r5", border(rng))
                writer.emit(f"{rng.choice(('and', 'or', 'xor', 'add', 'sub', 'mul', 'mod'))} r4, r5")
            case 1:
                writer.constant("r5", border(rng))
                writer.emit(f"{rng.choice(('jgt', 'jge', 'jlt', 'jsgt', 'jslt', 'jsge'))} r4, r5, {out}")
            case 2:
                writer.emit(f"{rng.choice(('lsh', 'rsh', 'arsh'))} r4, {rng.choice((1, 8, 31, 32, 33, 63))}")
            case 3:
                writer.emit(f"and r4, {rng.choice((7, 15, 31, 255, 0x7FFFFFFF, -1, -8))}")
            case 4:
                writer.emit(f"add r4, {signed32(border(rng))}")
            case _:
                writer.emit("mov32 r4, r4", f"jgt32 r4, {rng.choice((7, 31, 63, 0x7FFFFFFF))}, {out}")
    if writer.chance(0.5):
        writer.emit("mov r5, r10", "add r5, r4")
        writer.access(f"r5{rng.choice((-8, -8, -16, -FRAME, -FRAME // 2, 0)):+}")
    else:
        writer.emit("mov r5, r1", "add r5, r4")
        writer.access(f"r5{rng.choice((0, 0, 1, 8, -8)):+}")
    writer.emit(f"{out}:")


def _length(writer: Writer) -> None:
    """A number plus something wide, compared with the size of the memory."""
    rng = writer.rng
    out = writer.label()
    writer.load("r3", f"r1+{rng.choice((0, 8, 16))}", (4, 8, 8))
    if writer.chance(0.4):
        writer.emit("neg r3")
    if writer.chance(0.3):
        writer.constant("r5", border(rng))
        writer.emit(f"{rng.choice(('jgt', 'jlt', 'jsgt', 'jslt'))} r3, r5, {out}")
    writer.emit("mov r4, r3")
    for _ in range(rng.choice((1, 1, 2))):
        if writer.chance(0.5):
            writer.emit(f"add r4, {rng.choice((1, 4, 8, 8, 0x7FFFFFFF, -1, -8, -0x80000000))}")
        else:
            writer.constant("r5", border(rng))
            writer.emit("add r4, r5")
    measure = writer.rng.choice(("r2", "r2", "r2", "r7"))
    writer.emit(f"{rng.choice(('jgt', 'jgt', 'jge', 'jsgt'))} r4, {measure}, {out}")
    writer.emit("mov r5, r1", f"add r5, {rng.choice(('r3', 'r3', 'r4'))}")
    writer.access(f"r5{rng.choice((0, 0, 0, 4, 8, -8)):+}")
    writer.emit(f"{out}:")


PARTS = (_loop, _loop, _loop, _distances, _index, _index, _length, _length)


def _word(rng: random.Random) -> int:
    """A word of memory: small, of either sign, or at a border."""
    return rng.choice((rng.randrange(40), -rng.randrange(40), border(rng))) & U64


def case(rng: random.Random) -> Case:
    """A program on memories of a few sizes and contents."""
    writer = Writer(rng)
    writer.emit("mov r6, r1", "mov r7, 1", "mov r0, 0")
    for _ in range(rng.randrange(1, 4)):
        rng.choice(PARTS)(writer)
    writer.emit("exit")
    words = [b"".join(_word(rng).to_bytes(8, "little") for _ in range(8)) for _ in range(4)]
    inputs = tuple(Input(memory[: rng.choice(SIZES)], LIMIT, rng.random() < 0.1) for memory in words)
    return Case(writer.code(), inputs)
