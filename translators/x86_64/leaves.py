"""What leaves optimised code: bounds, payments. `cx.exit` is the label of the side exit.

Cold code keeps r11, which may hold a value.
"""

from __future__ import annotations

from ebpfjit.translators.labels import SLICE_ENDS
from ebpfjit.translators.operation import Operation
from ebpfjit.translators.x86_64.memory import load_address
from ebpfjit.translators.x86_64.target import BLOCK, Context, pay, register, translates
from ebpfjit.translators.x86_64.values import address_text

ONLY = "only "
"""What regions start with that bounds are not looked for outside of."""

LOWEST = 1 << 12
"""No region starts below this address."""


@translates("BOUND")
def bound(insn: Operation, cx: Context) -> None:
    """These bytes are the program's; the likely region inline, anything else out of line.

    lea r10, [base+offset];  sub r10, [start];  cmp r10, [limit];  jae other
    Where its distance from the argument's start is at hand:  cmp index, [limit], or
    lea r10, [index*scale+offset];  cmp r10, [limit]
    In the frame, whose size is known:  ...;  sub r10, [stack_start];  cmp r10, frame - size;  ja other
    """
    is_span = len(insn.args) == 2 and not insn.scale
    if not insn.args:
        _argument(insn, cx)
    elif insn.region.startswith(ONLY):
        _inside(insn, cx, is_span=is_span)
    elif is_span:
        _span(insn, cx)
    else:
        _bytes(insn, cx)


def _bytes(insn: Operation, cx: Context) -> None:
    """These bytes are somewhere in the program's memory."""
    base, size, region = address_text(insn), insn.imm, insn.region or cx.likely
    other, back = cx.new_label("other"), cx.new_label("inside")
    near = region == "argument" and _at_a_distance(insn, cx, other)
    limit = cx.limit(region, size, insn.stores) if not near and region in ("argument", "packet") else None
    if near:
        pass
    elif limit is not None:
        _compare(cx, base, insn.offset, region, limit)
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


def _compare(cx: Context, base: str, offset: int, region: str, limit: int) -> None:
    """Compare the distance of base + offset from a region's start with a limit; clobbers r10."""

    def compare() -> None:
        load_address(cx, base, offset, "r10")
        cx.emit(f"sub r10, qword ptr {BLOCK[region + '_start']}")
        cx.emit("cmp r10, qword ptr [r12+$offset]", offset=limit)

    cx.repeat(("bound", base, offset, region, limit), compare)


def _at_a_distance(insn: Operation, cx: Context, other: str) -> bool:
    """Emit a bound whose distance from the argument's start is at hand; False where it is not.

    What is added to a register goes into the limit: the room that the register may use up.
    """
    if cx.distance is None:
        return False
    number, scale, more = cx.distance
    distance, far = register(number), more + insn.offset
    limit = cx.wide_limit("argument", far + insn.imm, insn.stores) if scale == 1 and far >= 0 else None
    if limit is None:
        limit = cx.limit("argument", insn.imm, insn.stores)
        if limit is None:
            return False
        if scale > 1:  # without a base a displacement always has four bytes
            cx.emit(f"lea r10, [{distance}*{scale}+$imm]", imm=far, imm_sizes=(32,))
        else:
            cx.emit(f"lea r10, [{distance}+$offset]", offset=far)
        distance = "r10"
    cx.emit(f"cmp {distance}, qword ptr [r12+$offset]", offset=limit)
    cx.jump("jae", other)
    return True


def _argument(insn: Operation, cx: Context) -> None:
    """So many bytes lie behind the start of the argument, and may be written: in the whole run or not at all.

    cmp qword ptr [limit], 0;  je exit
    """
    behind = max(insn.offset + insn.imm, 1)  # where only writing is asked about: of one byte
    limit = cx.limit("argument", behind, insn.stores)
    if limit is not None:
        cx.emit("cmp qword ptr [r12+$offset], $imm", imm=0, offset=limit)
        cx.jump("je", cx.exit)
        return
    word = "argument_room" if insn.stores else "argument_size"
    cx.emit("mov r10, $imm", imm=behind, imm_sizes=(32,))
    cx.emit(f"cmp qword ptr {BLOCK[word]}, r10")
    cx.jump("jb", cx.exit)


def _inside(insn: Operation, cx: Context, *, is_span: bool) -> None:
    """These bytes, or all from the first address on to behind the last one, are in one region, or it leaves.

    The words of a region say that nothing of it may be touched where it is a struct with rights.

    lea r10, [base+offset];  sub r10, [start];  cmp r10, [limit];  jae exit;  of a span as in `_span`
    Where there is no room for a limit:  ...;  jb exit;  add r10, size;  jb exit;  cmp r10, [size];  ja exit
    """
    region = insn.region.removeprefix(ONLY)
    if is_span:
        first, last = bases = [register(each) for each in insn.args]
        cx.emit(f"cmp {last}, {first}")
        cx.jump("jb", cx.exit)
        if 0 <= insn.offset < LOWEST:
            cx.emit(f"cmp {first}, qword ptr {BLOCK[region + '_start']}")
            cx.jump("jb", cx.exit)
            bases = [last]
    else:
        bases = [address_text(insn)]
    limit = cx.limit(region, insn.imm, insn.stores)
    for base in bases:
        load_address(cx, base, insn.offset, "r10")
        cx.emit(f"sub r10, qword ptr {BLOCK[region + '_start']}")
        if limit is not None:
            cx.emit("cmp r10, qword ptr [r12+$offset]", offset=limit)
            cx.jump("jae", cx.exit)
            continue
        cx.jump("jb", cx.exit)
        cx.emit("add r10, $imm", imm=insn.imm)
        cx.jump("jb", cx.exit)
        cx.emit(f"cmp r10, qword ptr {BLOCK[region + ('_room' if insn.stores else '_size')]}")
        cx.jump("ja", cx.exit)


def _span(insn: Operation, cx: Context) -> None:
    """All from the first address on to behind the last one, which is not below it.

    cmp last, first;  jb exit;  lea r10, [last+offset];  sub r10, [start];  cmp r10, [limit];  jae other
    cmp first, [start];  jb other
    Where the offset is below zero, or so large that adding it may wrap, the first is asked for as the last.
    Out of line:  mov r10, last;  sub r10, first;  add r10, size;  lea r11, [first+offset];  call is_load
    """
    first, last = map(register, insn.args)
    other, back = cx.new_label("other"), cx.new_label("inside")
    cx.emit(f"cmp {last}, {first}")
    cx.jump("jb", cx.exit)
    region = insn.region or cx.likely
    limit = cx.limit(region, insn.imm, insn.stores) if region in ("argument", "packet") else None
    is_near = 0 <= insn.offset < LOWEST
    if limit is None:
        cx.jump("jmp", other)
    else:
        for base in (last,) if is_near else (first, last):
            _compare(cx, base, insn.offset, region, limit)
            cx.jump("jae", other)
        if is_near:
            cx.emit(f"cmp {first}, qword ptr {BLOCK[region + '_start']}")
            cx.jump("jb", other)
    cx.label(back)

    def name() -> None:
        cx.emit(f"mov r10, {last}")
        cx.emit(f"sub r10, {first}")
        cx.emit("add r10, $imm", imm=insn.imm)
        cx.emit("push r11")
        load_address(cx, first, insn.offset)

    with cx.out_of_line(other):
        routine = "is_store" if insn.stores else "is_load"
        cx.used.add(routine)
        cx.repeat(("span", first, last, insn.offset, insn.imm), name)
        cx.jump("call", routine)
        cx.emit("pop r11")
        cx.jump("jb", cx.exit)
        cx.jump("jmp", back)


def _search(cx: Context, base: str, insn: Operation) -> None:
    """Look for bytes in all regions: carry is set where they are in none."""

    def name() -> None:
        cx.emit("push r11")
        load_address(cx, base, insn.offset)
        cx.emit("mov r10d, $imm", imm=insn.imm, imm_sizes=(32,))

    routine = "is_store" if insn.stores else "is_load"
    cx.used.add(routine)
    cx.repeat(("search", base, insn.offset, insn.imm), name)
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

    sub r9, n;  jl broke      broke:  add r9, n;  push r11 (twice);  call next_slice;  pop (twice);  jmp again
    Where part of it is for later, its own must be there:
                              broke:  add r9, n;  cmp r9, own;  jl poor;  sub r9, n;  jmp paid
    Where it asks for more:
    cmp r9, own;  jl broke;  sub r9, n      broke:  push r11 (twice);  ...;  jmp again
    Where it leaves, baseline code goes on with what is left of the last slice. While the host looks, counters
    have what optimised code keeps of them in values.
    """
    if not cx.exit:
        pay(cx, insn.imm)
        return
    again, broke, paid = cx.new_label("again"), cx.new_label("broke"), ""
    cx.used.add("next_slice")
    cx.label(again)
    asks_for_more = insn.offset > insn.imm
    if asks_for_more:
        cx.emit("cmp r9, $imm", imm=insn.offset)
        cx.jump("jl", broke)
        pay(cx, insn.imm)
    else:
        pay(cx, insn.imm)
        cx.jump("jl", broke)
    if 0 < insn.offset < insn.imm:
        paid = cx.new_label("paid")
        cx.label(paid)
    with cx.out_of_line(broke):
        if not asks_for_more:
            cx.emit("add r9, $imm", imm=insn.imm)
        if paid:
            poor = cx.new_label("poor")
            cx.emit("cmp r9, $imm", imm=insn.offset)
            cx.jump("jl", poor)
            pay(cx, insn.imm)
            cx.jump("jmp", paid)
            cx.label(poor)
        if cx.exit != SLICE_ENDS:
            cx.emit(f"cmp qword ptr {BLOCK['later']}, 0")
            cx.jump("je", cx.exit)
        if cx.counts:
            cx.add_counts(cx.counts)
        cx.repeat("keep r11", lambda: _twice(cx, "push r11"))
        cx.jump("call", "next_slice")
        cx.repeat("r11 again", lambda: _twice(cx, "pop r11"))
        if cx.counts:
            cx.add_counts(cx.counts, undone=True)
        cx.jump("jmp", again)


def _twice(cx: Context, line: str) -> None:
    """Emit a line two times: the machine's stack stays at a multiple of 16."""
    cx.emit(line)
    cx.emit(line)


@translates("LEAVE")
def leave(insn: Operation, cx: Context) -> None:
    """Go on in baseline code."""
    cx.jump("jmp", cx.exit)
