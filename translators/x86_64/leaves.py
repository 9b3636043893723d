"""What leaves optimised code: bounds, payments. `cx.exit` is the label of the side exit.

Cold code keeps r11, which may hold a value.
"""

from __future__ import annotations

from ebpfjit.translators.operation import Operation
from ebpfjit.translators.x86_64.memory import load_address
from ebpfjit.translators.x86_64.target import BLOCK, Context, pay, register, translates


@translates("BOUND")
def bound(insn: Operation, cx: Context) -> None:
    """These bytes are the program's; the likely region inline, anything else out of line.

    lea r10, [base+offset];  sub r10, [start];  cmp r10, [limit];  jae other
    In the frame, whose size is known:  ...;  sub r10, [stack_start];  cmp r10, frame - size;  ja other
    """
    base, size, region = register(insn.args[0]), insn.imm, insn.region
    other, back = cx.new_label("other"), cx.new_label("inside")
    limit = cx.limit(region, size, insn.stores) if region in ("argument", "packet") else None
    if limit is not None:
        load_address(cx, base, insn.offset, "r10")
        cx.emit(f"sub r10, qword ptr {BLOCK[region + '_start']}")
        cx.emit("cmp r10, qword ptr [r12+$offset]", offset=limit)
        cx.jump("jae", other)
    elif region == "stack" and cx.frame_size >= size:
        load_address(cx, base, insn.offset, "r10")
        cx.emit(f"sub r10, qword ptr {BLOCK['stack_start']}")
        cx.emit("cmp r10, $imm", imm=cx.frame_size - size)
        cx.jump("ja", other)
    else:
        cx.jump("jmp", other)
    cx.label(back)
    with cx.out_of_line(other):
        _search(cx, base, insn)
        cx.jump("jb", cx.exit)
        cx.jump("jmp", back)


def _search(cx: Context, base: str, insn: Operation) -> None:
    """Look for bytes in all regions: carry is set where they are in none."""
    routine = "is_store" if insn.stores else "is_load"
    cx.used.add(routine)
    cx.emit("push r11")
    load_address(cx, base, insn.offset)
    cx.emit("mov r10d, $imm", imm=insn.imm, imm_sizes=(32,))
    cx.jump("call", routine)
    cx.emit("pop r11")


@translates("ALIGNED")
def aligned(insn: Operation, cx: Context) -> None:
    """The address is a multiple of a power of two."""
    if insn.imm > 1:
        load_address(cx, register(insn.args[0]), insn.offset, "r10")
        cx.emit("test r10d, $imm", imm=insn.imm - 1, imm_sizes=(32,))
        cx.jump("jne", cx.exit)


@translates("PAY")
def payment(insn: Operation, cx: Context) -> None:
    """Take instructions off the budget; where there are too few, the slice has ended.

    sub r9, n;  jl broke      broke:  add r9, n;  push r11, twice;  call slice;  pop r11, twice;  jmp again
    """
    if not cx.exit:
        pay(cx, insn.imm)
        return
    again, broke = cx.new_label("again"), cx.new_label("broke")
    cx.used.add("slice")
    cx.label(again)
    pay(cx, insn.imm)
    cx.jump("jl", broke)
    with cx.out_of_line(broke):
        cx.emit("add r9, $imm", imm=insn.imm)
        cx.emit("push r11")
        cx.emit("push r11")
        cx.jump("call", "slice")
        cx.emit("pop r11")
        cx.emit("pop r11")
        cx.jump("jmp", again)


@translates("LEAVE")
def leave(insn: Operation, cx: Context) -> None:
    """Go on in baseline code."""
    cx.jump("jmp", cx.exit)
