"""Programs of many ways that come together: what one of them knows must not be taken for what all know.

Numbers go through registers r7 to r9 and words of the stack; ways part at numbers that nobody knows and at
these themselves, and meet again, in functions, loops and callbacks too; at the end, or between, numbers are
indices. What a verifier forgets of a state that it kept, or does not compare, lets a wrong index pass.
"""

from __future__ import annotations

from collections.abc import Callable

from ebpfjit.difftest.verdicts.pieces import piece
from ebpfjit.difftest.verdicts.writer import FIELDS, LETTERS, Writer

_NUMBERS = ("r7", "r8", "r9")
_SLOTS = (-8, -16, -24)
_LIMITS = (0, 1, 5, 15, 31, 40, 60, 62)
"""Numbers that are right as indices of 64 bytes; those that are not are rare."""


def _constant(w: Writer) -> int:
    return w.pick(_LIMITS) if not w.oops() else w.pick((63, 64, 70, 4096, -1))


def _unknown(w: Writer) -> str:
    """Load a number that nobody knows into r0."""
    return f"r0 = *(u32 *)(r6 + {w.pick(FIELDS[w.type])})"


def _set(w: Writer, waiting: list[str]) -> None:
    w.say(f"{w.pick(_NUMBERS)} = {_constant(w)}")


def _copy(w: Writer, waiting: list[str]) -> None:
    a, b = w.pick(_NUMBERS), w.pick(_NUMBERS)
    w.say(w.pick((f"{a} = {b}", f"{a} = {b}", f"w{a[1]} = w{b[1]}", f"{a} = (s8){b}")))


def _compute(w: Writer, waiting: list[str]) -> None:
    a, b = w.pick(_NUMBERS), w.pick(_NUMBERS)
    w.say(
        w.pick((
            f"{a} += {w.pick((1, 2, 8, -1))}", f"{a} &= {w.pick((1, 15, 31, 63))}",
            f"{a} += {b}", f"{a} ^= {b}",
            f"{a} >>= 1", f"w{a[1]} &= 31", f"{a} |= 1", f"{a} -= {b}",
        ))
    )  # fmt: skip


def _spill(w: Writer, waiting: list[str]) -> None:
    size = w.pick((8, 8, 8, 4, 1))
    w.say(f"*({LETTERS[size]} *)(r10 {w.pick(_SLOTS)}) = {w.pick((*_NUMBERS, str(_constant(w))))}")


def _fill(w: Writer, waiting: list[str]) -> None:
    size = w.pick((8, 8, 8, 4, 1))
    w.say(f"{w.pick(_NUMBERS)} = *({LETTERS[size]} *)(r10 {w.pick(_SLOTS)})")


def _part(w: Writer, waiting: list[str]) -> None:
    label = w.label()
    waiting.append(label)
    a, b = w.pick(_NUMBERS), w.pick(_NUMBERS)
    symbol = w.pick(("==", "!=", ">", "<", "s>", "<=", "&"))
    form = w.rng.randrange(5)
    if form < 2:
        w.say(f"{_unknown(w)}; if r0 {symbol} {w.pick((0, 1, 7, 63))} goto {label}")
    elif form < 4:
        w.say(f"if {a} {symbol} {w.pick(_LIMITS)} goto {label}")
    else:
        w.say(f"if {a} {symbol} {b} goto {label}")


def _meet(w: Writer, waiting: list[str]) -> None:
    if waiting:
        w.say(f"{waiting.pop(w.rng.randrange(len(waiting)))}:")
    if w.chance(0.5):  # states that are kept are some instructions apart
        w.say("; ".join(["r0 = 0"] * 8))


def _use(w: Writer, waiting: list[str]) -> None:
    w.say(f"r1 = map[single][0]+0; r1 += {w.pick(_NUMBERS)}; r0 = *(u8 *)(r1 + 0)")


def _number(w: Writer, waiting: list[str]) -> None:
    a = w.pick(_NUMBERS)
    w.say(f"{_unknown(w)}; {a} = r0; {a} &= {w.pick((1, 3, 31, 63))}")


def _call(w: Writer, waiting: list[str]) -> None:
    on = w.pick(("if r1 > 20 goto +1", "if r1 == 5 goto +1", "if r1 & 1 goto +1"))
    body = w.pick((
        f"{on}; r1 = {_constant(w)}; r0 = r1; exit",
        f"r0 = {_constant(w)}; {on}; r0 = {_constant(w)}; exit",
        f"*(u64 *)(r10 - 8) = r1; {on}; r1 = {_constant(w)}; r0 = *(u64 *)(r10 - 8); exit",
        f"r0 = *(u64 *)(r2 + 0); {on}; *(u64 *)(r2 + 0) = {_constant(w)}; exit",
    ))  # fmt: skip
    called = w.function("f_way", body)
    w.say(
        f"r1 = {w.pick(_NUMBERS)}; r2 = r10; r2 += {w.pick(_SLOTS)}; call {called}; {w.pick(_NUMBERS)} = r0"
    )


def _callback(w: Writer, waiting: list[str]) -> None:
    load, store = "r3 = *(u64 *)(r2 + 0)", "*(u64 *)(r2 + 0) = "
    body = w.pick((
        f"{store}{_constant(w)}; r0 = 0; exit",
        f"{load}; r3 += 1; r3 &= 31; {store}r3; r0 = 0; exit",
        f"{load}; if r3 > {w.pick(_LIMITS)} goto +2; r3 += 1; {store}r3; r0 = 0; exit",
        f"r0 = 0; {load}; if r3 == 3 goto +1; r0 = 1; {store}{_constant(w)}; exit",
        f"{load}; r4 = map[single][0]+0; r4 += r3; r0 = *(u8 *)(r4 + 0); r0 = 0; exit",
    ))  # fmt: skip
    called = w.function("f_often", body)
    w.say(f"r1 = {w.pick((0, 1, 5, 1000))}; r2 = subprog[{called}]; r3 = r10; r3 += {w.pick(_SLOTS)}")
    w.say("r4 = 0; call 181")


def _loop(w: Writer, waiting: list[str]) -> None:
    again = w.label()
    counter = w.pick(_NUMBERS)
    inside = w.pick((
        "r0 = 0", f"*(u64 *)(r10 - 8) = {counter}",
        "r0 = *(u64 *)(r10 - 16); r0 += 1; *(u64 *)(r10 - 16) = r0",
        f"r1 = map[single][0]+0; r1 += {counter}; r0 = *(u8 *)(r1 + 0)",
    ))  # fmt: skip
    if w.chance(0.4):
        done = w.label()
        step = w.pick((f"{counter} += 1; {counter} &= 15", "r0 = 1"))
        w.say(f"{again}: may_goto {done}; {inside}; {step}; goto {again}; {done}:")
    else:
        w.say(f"{counter} = 0; {again}: {inside}; {counter} += 1")
        w.say(f"if {counter} < {w.pick((3, 8, 20))} goto {again}")


_STATEMENTS: tuple[Callable[[Writer, list[str]], None], ...] = (
    _set, _set, _set, _copy, _compute, _spill, _spill, _fill, _fill, _part, _part, _part, _part,
    _meet, _meet, _meet, _use, _use, _number, _call, _callback, _loop,
)  # fmt: skip


@piece(weight=14)
def ways(w: Writer) -> None:
    """Statements one after the other, among them branches forward, whose labels come later."""
    for register in _NUMBERS:
        w.say(f"{register} = {w.pick(_LIMITS)}")
    for slot in _SLOTS:
        w.say(f"*(u64 *)(r10 {slot}) = {w.pick(_LIMITS)}")
    waiting: list[str] = []
    for _ in range(w.rng.randint(6, 24)):
        w.pick(_STATEMENTS)(w, waiting)
    for label in waiting:
        w.say(f"{label}:")
    register = w.pick(_NUMBERS)
    if w.chance(0.3):
        w.say(f"{register} = *(u64 *)(r10 {w.pick(_SLOTS)})")
    w.say(f"r1 = map[single][0]+0; r1 += {register}; r0 = *(u8 *)(r1 + 0)")
