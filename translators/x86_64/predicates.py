"""What is asked where a loop is entered: that the bytes of all its rounds are the program's.

Where they are, the loop is entered that does not ask; otherwise the copy that checks one by one.
"""

from __future__ import annotations

from ebpfjit.translators.x86_64.plan import Border, Predicate, Sweep
from ebpfjit.translators.x86_64.target import (
    BLOCK,
    Context,
    pc_label,
    pin,
    predicate_label,
    register,
    slow_block_label,
)

FARTHEST = 0x7FFFFFFF
"""How far a counter may get: no product with it leaves 64 bits."""


def emit_predicate(cx: Context, header: int, predicate: Predicate) -> None:
    """Emit `predicate_N`, which goes on behind itself or, where the predicate fails, in the slow loop.

    For one sweep, of a counter that rises:
        mov r10, bound;  sub r10, counter;  add r10, plus;  cmp r10, FARTHEST;  ja slow;  and r10, -unit
        lea r11, [base+offset];  imul r10, r10, factor
        sub r11, [start];  cmp r11, [size];  ja slow;  lea r10, [r10+r11+size];  cmp r10, [size];  ja slow
    """
    failed = cx.new_label("unsure")
    cx.label(predicate_label(header))
    if predicate.border is not None:
        _emit_border(cx, predicate.border, failed)
    _emit_distance(cx, predicate, failed)
    several = len(predicate.sweeps) > 1
    if several:
        cx.emit("mov qword ptr [rsp-8], r10")  # the ABI keeps what is so close below rsp
    for index, sweep in enumerate(predicate.sweeps):
        if index:
            cx.emit("mov r10, qword ptr [rsp-8]")
        _emit_sweep(cx, sweep, failed)
    pin(cx)
    with cx.out_of_line(failed):
        pin(cx)
        cx.jump("jmp", slow_block_label(header))


def emit_predicate_apart(cx: Context, header: int, predicate: Predicate) -> None:
    """Emit the same out of line, where what stands before the loop is part of it."""
    apart = cx.new_label("before")
    with cx.out_of_line(apart):
        emit_predicate(cx, header, predicate)
        cx.jump("jmp", pc_label(header))


def _emit_border(cx: Context, border: Border, failed: str) -> None:
    """Emit a jump to `failed` where the number is on the wrong side."""
    name = register(border.register)
    if border.offset:
        cx.emit(f"lea r10, [{name}+$offset]", offset=border.offset)
        name = "r10"
    number = border.number - (1 << 64) if border.number >> 63 else border.number
    cx.emit(f"cmp {name}, $imm", imm=number)
    cx.jump("ja" if border.is_most else "jb", failed)


def _emit_distance(cx: Context, predicate: Predicate, failed: str) -> None:
    """Put how far the counter gets into r10."""
    if predicate.minuend is None:
        cx.emit("mov r10, $imm", imm=predicate.plus, imm_sizes=(32,))
    elif predicate.plus:
        cx.emit(f"lea r10, [{register(predicate.minuend)}+$offset]", offset=predicate.plus)
    else:
        cx.emit(f"mov r10, {register(predicate.minuend)}")
    if predicate.subtrahend is not None:
        cx.emit(f"sub r10, {register(predicate.subtrahend)}")
    cx.emit("cmp r10, $imm", imm=FARTHEST, imm_sizes=(32,))
    cx.jump("ja", failed)
    if predicate.exact and predicate.unit > 1:
        cx.emit("test r10d, $imm", imm=predicate.unit - 1, imm_sizes=(32,))
        cx.jump("jne", failed)
    elif predicate.unit > 1:
        cx.emit("and r10, $imm", imm=-predicate.unit)


def _emit_sweep(cx: Context, sweep: Sweep, failed: str) -> None:
    """Emit a jump to `failed` unless a sweep's bytes are inside its region; r10 and r11 are lost."""
    _emit_sum(cx, sweep)
    factor = abs(sweep.factor)
    if not factor:
        cx.emit("xor r10d, r10d")
    elif factor > 1:
        cx.emit("imul r10, r10, $imm", imm=factor, imm_sizes=(32,))
    if sweep.factor < 0:
        cx.emit("sub r11, r10")
    room = BLOCK[f"{sweep.region}_room" if sweep.stores else f"{sweep.region}_size"]
    cx.emit(f"sub r11, qword ptr {BLOCK[f'{sweep.region}_start']}")
    cx.emit(f"cmp r11, qword ptr {room}")
    cx.jump("ja", failed)
    cx.emit("lea r10, [r10+r11+$offset]", offset=sweep.size)
    cx.emit(f"cmp r10, qword ptr {room}")
    cx.jump("ja", failed)


def _emit_sum(cx: Context, sweep: Sweep) -> None:
    """Put where a sweep's first round starts into r11."""
    (first, by), *others = sorted(sweep.terms, key=lambda term: term[1])
    base = register(first)
    if by > 1:
        cx.emit(f"lea r11, [{base}*{by}]")
        base = "r11"
    for number, by in others:
        cx.emit(f"lea r11, [{base}+{register(number)}*{by}]")
        base = "r11"
    if sweep.offset:
        cx.emit(f"lea r11, [{base}+$offset]", offset=sweep.offset)
    elif base != "r11":
        cx.emit(f"mov r11, {base}")
