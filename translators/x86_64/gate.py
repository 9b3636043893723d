"""The way in from Python: machine code that CPython calls as it calls its own built-in functions.

    call_SHAPE     a vectorcall function: takes the buffers, runs the program, returns r0 as an int

One copy serves all programs: what is particular to one is in its state, and the stack of the thread that
calls holds all there is of a run (`runs`).
What is unusual (keywords, too many arguments, an object without a flat buffer) goes to the function
that does without all this, which raises what Python raises; what went wrong inside goes to a
function that raises. An error that is pending meanwhile is set aside and put back.
"""

from __future__ import annotations

from ebpfjit.translators.block import CALL_COST, NANOSECOND_COST, STATE_WORDS
from ebpfjit.translators.emitter import NO_PC, Emitter
from ebpfjit.translators.host import SHAPES, SMALL_INTS, Layout, Shape
from ebpfjit.translators.x86_64.batches import emit_batches
from ebpfjit.translators.x86_64.events import emit_events
from ebpfjit.translators.x86_64.host import ARGUMENTS_OFFSET, call, release_lock, take_lock
from ebpfjit.translators.x86_64.lanes import emit_lanes, lane_word
from ebpfjit.translators.x86_64.packets import emit_packets
from ebpfjit.translators.x86_64.runs import (
    COUNT,
    FIRST,
    HELD,
    HELD_BITS,
    SECOND,
    TAKEN,
    TRACEBACK,
    TYPE,
    VALUE,
    VIEW_FORMAT,
    VIEW_OBJECT,
    VIEW_READONLY,
    VIEW_SIZE,
    block_word,
    emit_link,
    fill_context,
    fill_headers,
    fill_limits,
    fill_region,
    leave,
    link_where_asked,
    make_frame,
    prepare,
    prepare_special,
    release_views,
    start,
    state_word,
    take_bytes,
    unlink_where_asked,
    view,
)
from ebpfjit.translators.x86_64.tails import emit_tails
from ebpfjit.translators.x86_64.target import HOST_SAVED

BUFFER_FLAGS = 0x0C  # PyBUF_FORMAT | PyBUF_ND: contiguous, and it says what is in it


def emit_gate(cx: Emitter, layout: Layout) -> None:
    """Emit all of it."""
    for name, shape in SHAPES.items():
        _emit_shape(cx, name, shape, layout)
    _emit_go(cx, "go", layout)
    _emit_go(cx, "go_lane", layout, lane=True)
    _emit_refusals(cx)
    emit_lanes(cx, layout.structs, layout.room)
    _emit_take_object(cx)
    _emit_report(cx)
    _emit_finish(cx)
    _emit_hot(cx)
    _emit_tier_up(cx, layout.slice_length)
    _emit_count_time(cx, layout.clock)
    emit_link(cx)
    emit_batches(cx, layout)
    emit_packets(cx, layout.structs, layout.room)
    emit_events(cx)
    emit_tails(cx, layout)


def _emit_shape(cx: Emitter, name: str, shape: Shape, layout: Layout) -> None:
    """Emit `call_NAME(callable, args, nargsf, kwnames)`.

    r13 is the arguments, r14 and r15 the start and the size of what r1 points to.
    """
    irregular = f".{name}_irregular"
    cx.begin(NO_PC)
    cx.label(f"call_{name}", 16)
    for saved in HOST_SAVED:
        cx.emit(f"push {saved}")
    cx.emit("mov rbx, qword ptr [rdi+$offset]", offset=layout.state)
    cx.emit("test rcx, rcx")
    cx.jump("jne", irregular)
    cx.emit("lea rax, [rdx+rdx]")  # without ARGUMENTS_OFFSET, twice the number
    cx.emit(f"cmp rax, {2 * shape.buffers:#x}")
    cx.jump("ja" if shape.optional else "jne", irregular)
    cx.emit("mov r13, rsi")
    make_frame(cx, name)
    if shape.argument == "context":
        _take(cx, name, 0, shape, layout)
        _enter_lane(cx)
    elif shape.buffers:
        _take(cx, name, 0, shape, layout)
        fill_region(cx, "packet")
    else:
        cx.emit("xor r14d, r14d")
        cx.emit("xor r15d, r15d")
        cx.emit("xor ecx, ecx")
        fill_region(cx, "packet")
    if shape.argument == "mbuff":
        _take(cx, name, 1, shape, layout)
    elif shape.argument == "fixed":
        _make_mbuff(cx)
    if shape.argument == "context":
        cx.jump("jmp", "go_lane")
    else:
        fill_region(cx, "argument")
        cx.jump("jmp", "go")
    with cx.out_of_line(irregular):
        assert HOST_SAVED[:2] == ("rbp", "rbx")  # what `irregular` pops
        for saved in reversed(HOST_SAVED[2:]):
            cx.emit(f"pop {saved}")
        cx.jump("jmp", "irregular")


def _take(cx: Emitter, name: str, index: int, shape: Shape, layout: Layout) -> None:
    """Put start, size and writable size of an argument into r14, r15, rcx.

    A `bytes` cannot move and the caller holds it: it is not asked.
    """
    taken, other, none = (f".{name}_{part}_{index}" for part in ("taken", "other", "none"))
    if shape.optional:
        cx.emit("lea rax, [rdx+rdx]")
        cx.emit("test rax, rax")
        cx.jump("je", none)
        with cx.out_of_line(none):
            cx.emit("xor r14d, r14d")
            cx.emit("xor r15d, r15d")
            cx.emit("xor ecx, ecx")
            cx.jump("jmp", taken)
    cx.emit(f"mov rdi, qword ptr [r13+{8 * index:#x}]")
    take_bytes(cx, layout, other)
    cx.label(taken)
    with cx.out_of_line(other):
        _take_bytearray(cx, index, layout, f".{name}_object_{index}")
        cx.jump("jmp", taken)
        cx.label(f".{name}_object_{index}")
        cx.emit(f"or qword ptr {TAKEN}, {1 << index}")
        cx.emit(f"lea rsi, {view(index, 0)}")
        cx.jump("call", "take_object")
        cx.emit("test eax, eax")
        cx.jump("je", taken)
        cx.emit(f"mov qword ptr {COUNT}, {shape.buffers}")
        cx.jump("jmp", "refused")


def _take_bytearray(cx: Emitter, index: int, layout: Layout, other: str) -> None:
    """Take the `bytearray` in rdi, as its own getbuffer does: exported it keeps its place and size."""
    cx.emit("mov rax, qword ptr [rip+$symbol]", symbol="PyByteArray_Type")
    cx.emit("cmp qword ptr [rdi+8], rax")
    cx.jump("jne", other)
    cx.emit("mov r14, qword ptr [rdi+$offset]", offset=layout.bytearray_start)
    cx.emit("mov r15, qword ptr [rdi+$offset]", offset=layout.size)
    cx.emit("mov rcx, r15")
    cx.emit("lea rax, [rdi+$offset]", offset=layout.bytearray_exports)
    cx.emit("inc qword ptr [rax]")
    cx.emit(f"mov qword ptr [rbp-{HELD[index]:#x}], rax")
    cx.emit(f"or qword ptr {TAKEN}, {HELD_BITS[index]}")


def _enter_lane(cx: Emitter) -> None:
    """Put packet or struct into the lane; a run that finds it in use looks for the next state's.

    One that finds all in use, or packet or struct too odd, goes without. Python's lock is held all the while.
    """
    odd, struct, entered, look, busy = (
        f".lane_{part}" for part in ("odd", "struct", "entered", "look", "busy")
    )  # fmt: skip
    cx.label(look)
    cx.emit(f"mov rdx, {state_word('lane')}")
    cx.emit(f"cmp {lane_word('busy')}, 0")
    cx.jump("jne", busy)
    cx.emit(f"cmp {lane_word('is_struct')}, 0")
    cx.jump("jne", struct)
    cx.jump("call", "place")
    cx.jump("jb", odd)
    fill_region(cx, "packet")
    fill_context(cx)
    cx.label(entered)
    cx.emit(f"mov {lane_word('busy')}, 1")
    with cx.out_of_line(struct):
        cx.jump("call", "place_struct")
        cx.jump("jb", odd)
        cx.jump("jmp", entered)
    with cx.out_of_line(busy):
        cx.emit(f"mov rax, {state_word('other')}")
        cx.emit("test rax, rax")
        cx.jump("je", odd)
        cx.emit("mov rbx, rax")
        cx.emit(f"mov {block_word('state')}, rbx")
        cx.jump("jmp", look)
    with cx.out_of_line(odd):
        cx.emit(f"mov qword ptr {COUNT}, 1")
        cx.jump("jmp", "refused")


def _make_mbuff(cx: Emitter) -> None:
    """Make the fixed mbuff: zero but for the packet's addresses, 0 and 0 for an empty one."""
    again = ".mbuff_again"
    cx.emit("xor eax, eax")
    cx.emit("test r15, r15")
    cx.emit("cmove r14, rax")
    cx.emit("add r15, r14")
    cx.emit(f"mov rdi, {state_word('high')}")
    cx.emit("add rdi, r12")
    cx.emit("mov rdx, rdi")
    cx.emit(f"mov rsi, {state_word('mbuff_end')}")
    cx.emit("add rsi, r12")
    cx.emit("xorps xmm0, xmm0")
    cx.label(again)
    cx.emit("movups xmmword ptr [rdi], xmm0")
    cx.emit("add rdi, 0x10")
    cx.emit("cmp rdi, rsi")
    cx.jump("jb", again)
    for word, value in (("data_offset", "r14"), ("data_end_offset", "r15")):
        cx.emit(f"mov rax, {state_word(word)}")
        cx.emit(f"mov qword ptr [rdx+rax], {value}")
    cx.emit("mov r14, rdx")
    cx.emit(f"mov r15, {state_word('mbuff_size')}")
    cx.emit("mov rcx, r15")


def _emit_go(cx: Emitter, name: str, layout: Layout, *, lane: bool = False) -> None:
    """Emit the second half of a call, and its ends.

    r13 keeps the result while Python is called.
    """
    cx.begin(NO_PC)
    cx.label(name, 16)
    prepare(cx)
    fill_limits(cx, name)
    cx.emit(f"cmp {state_word('special')}, 0")
    cx.jump("jne", f".{name}_special")
    cx.label(f".{name}_ready")
    start(cx, layout, lane=lane)
    cx.emit(f"mov rbx, {block_word('state')}")
    cx.emit(f"mov rbp, {block_word('frame_top')}")
    cx.emit(f"cmp {block_word('fault_kind')}, 0")
    cx.jump("jne", f".{name}_failed")
    cx.emit(f"cmp {state_word('special')}, 0")
    cx.jump("jne", f".{name}_special_end")
    cx.label(f".{name}_ended")
    if lane:
        _leave_lane(cx)
    cx.emit(f"cmp qword ptr {TAKEN}, 0")
    cx.jump("jne", f".{name}_release")
    cx.label(f".{name}_released")
    leave(cx)
    cx.emit("cmp rax, $imm", imm=SMALL_INTS, imm_sizes=(32,))
    cx.jump("jae", f".{name}_box")
    cx.emit("mov rcx, qword ptr [rip+$symbol]", symbol="small_ints")
    cx.emit("mov rax, qword ptr [rcx+rax*8]")
    if not layout.ints.immortal:
        cx.emit("inc qword ptr [rax]")
    cx.emit("ret")
    cx.label(f".{name}_box")
    cx.emit("mov rdi, rax")
    cx.emit("jmp qword ptr [rip+$symbol]", symbol="PyLong_FromUnsignedLongLong")

    cx.label(f".{name}_release")
    cx.emit("mov r13, rax")
    release_views(cx)
    cx.emit("mov rax, r13")
    cx.jump("jmp", f".{name}_released")
    _emit_special(cx, name, lane=lane)
    _emit_failed(cx, name, lane=lane)


def _emit_special(cx: Emitter, name: str, *, lane: bool) -> None:
    """Emit what only some functions need, before a run and behind it: links, the lock, heat."""
    cx.label(f".{name}_special")
    prepare_special(cx)
    if lane:
        fill_headers(cx)
    link_where_asked(cx, f".{name}_nothing")
    cx.emit(f"cmp {state_word('unlocked')}, 0")
    cx.jump("je", f".{name}_ready")
    release_lock(cx)
    cx.jump("jmp", f".{name}_ready")

    cx.label(f".{name}_special_end")
    cx.emit("mov r13, rax")
    cx.emit(f"mov {block_word('budget')}, r9")
    take_lock(cx)
    unlink_where_asked(cx)
    cx.emit(f"cmp {block_word('attached')}, 0")
    cx.jump("je", f".{name}_finished")
    cx.jump("call", "finish")
    cx.emit("test eax, eax")
    cx.jump("jne", f".{name}_nothing")
    cx.label(f".{name}_finished")
    cx.emit(f"cmp {state_word('on_hot')}, 0")
    cx.jump("jne", f".{name}_counted")
    cx.label(f".{name}_cool")
    cx.emit("mov rax, r13")
    cx.jump("jmp", f".{name}_ended")

    cx.label(f".{name}_counted")
    _count(cx)
    cx.jump("jg", f".{name}_cool")
    cx.jump("call", "hot")
    cx.emit("test eax, eax")
    cx.jump("je", f".{name}_cool")
    cx.jump("jmp", f".{name}_nothing")


def _emit_failed(cx: Emitter, name: str, *, lane: bool) -> None:
    """Emit the end of a call with an exception."""
    cx.label(f".{name}_failed")
    cx.emit(f"cmp {state_word('special')}, 0")
    cx.jump("jne", f".{name}_failed_special")
    prepare_special(cx)
    cx.label(f".{name}_failed_special")
    take_lock(cx)
    unlink_where_asked(cx)
    cx.jump("call", "report")
    cx.label(f".{name}_nothing")
    if lane:
        _leave_lane(cx)
    release_views(cx)
    leave(cx)
    cx.emit("xor eax, eax")
    cx.emit("ret")


def _count(cx: Emitter) -> None:
    """Take what the run has cost from the program's heat; what is left is compared with 0."""
    cx.emit(f"mov rax, {state_word('first')}")
    cx.emit(f"add rax, {state_word('later')}")
    cx.emit(f"sub rax, {block_word('budget')}")
    cx.emit(f"sub rax, {block_word('later')}")
    cx.emit("add rax, $imm", imm=CALL_COST, imm_sizes=(32,))
    cx.emit(f"sub {state_word('heat')}, rax")


def _leave_lane(cx: Emitter) -> None:
    """Let the next run have the lane. Keeps rax."""
    cx.emit(f"mov rdx, {state_word('lane')}")
    cx.emit(f"mov {lane_word('busy')}, 0")


def _emit_refusals(cx: Emitter) -> None:
    """Emit where calls go on in Python: with the buffers taken already, or before."""
    cx.begin(NO_PC)
    cx.label("refused")
    call(cx, "PyErr_Clear")
    release_views(cx)
    cx.emit("mov rsi, r13")
    cx.emit(f"mov rdx, qword ptr {COUNT}")
    cx.emit("xor ecx, ecx")
    cx.emit(f"mov rax, {state_word('irregular')}")
    leave(cx)
    cx.emit("mov rdi, rax")
    cx.emit("jmp qword ptr [rip+$symbol]", symbol="PyObject_Vectorcall")

    cx.label("irregular")
    cx.emit(f"mov rdi, {state_word('irregular')}")
    cx.emit("pop rbx")
    cx.emit("pop rbp")
    cx.emit("jmp qword ptr [rip+$symbol]", symbol="PyObject_Vectorcall")


def _emit_take_object(cx: Emitter) -> None:
    """Emit `take_object(object, view)`: r14, r15, rcx as above; eax is not 0 where it is refused.

    Single letters of the struct module are plain memory but for "O", Python objects.
    """
    out, odd = ".take_out", ".take_odd"
    cx.begin(NO_PC)
    cx.label("take_object")
    cx.emit("sub rsp, 8")
    cx.emit("mov r14, rsi")
    cx.emit(f"mov edx, {BUFFER_FLAGS:#x}")
    call(cx, "PyObject_GetBuffer")
    cx.emit("test eax, eax")
    cx.jump("jne", ".take_failed")
    cx.emit(f"mov rdx, qword ptr [r14+{VIEW_FORMAT:#x}]")
    cx.emit("test rdx, rdx")
    cx.jump("je", ".take_plain")
    cx.emit("cmp byte ptr [rdx], 0")
    cx.jump("je", odd)
    cx.emit(f"cmp byte ptr [rdx], {ord('O'):#x}")
    cx.jump("je", odd)
    cx.emit("cmp byte ptr [rdx+1], 0")
    cx.jump("jne", odd)
    cx.label(".take_plain")
    cx.emit(f"mov r15, qword ptr [r14+{VIEW_SIZE:#x}]")
    cx.emit("xor ecx, ecx")
    cx.emit(f"cmp dword ptr [r14+{VIEW_READONLY:#x}], 0")
    cx.emit("cmove rcx, r15")
    cx.emit("mov r14, qword ptr [r14]")
    cx.label(out)
    cx.emit("add rsp, 8")
    cx.emit("ret")
    cx.label(odd)
    cx.emit("mov rdi, r14")
    call(cx, "PyBuffer_Release")
    cx.label(".take_failed")
    cx.emit(f"mov qword ptr [r14+{VIEW_OBJECT}], 0")
    cx.emit("mov eax, 1")
    cx.jump("jmp", out)


def _emit_report(cx: Emitter) -> None:
    """Emit `report`: on_fault(block, error) raises, or completes the error that is pending."""
    cx.begin(NO_PC)
    cx.label("report")
    cx.emit("sub rsp, 8")
    cx.emit(f"lea rdi, {TYPE}")
    cx.emit(f"lea rsi, {VALUE}")
    cx.emit(f"lea rdx, {TRACEBACK}")
    call(cx, "PyErr_Fetch")
    cx.emit("mov rdi, r12")
    call(cx, "PyLong_FromUnsignedLongLong")
    cx.emit(f"mov qword ptr {FIRST}, rax")
    cx.emit("test rax, rax")
    cx.jump("je", ".report_restore")
    cx.emit("mov rcx, qword ptr [rip+$symbol]", symbol="_Py_NoneStruct")
    cx.emit(f"mov rax, qword ptr {VALUE}")
    cx.emit("test rax, rax")
    cx.emit("cmove rax, rcx")
    cx.emit(f"mov qword ptr {SECOND}, rax")
    _call_python_function(cx, "on_fault", 2)
    cx.emit("mov rdi, rax")
    call(cx, "Py_DecRef")
    cx.emit(f"mov rdi, qword ptr {FIRST}")
    call(cx, "Py_DecRef")
    cx.label(".report_restore")
    cx.emit(f"mov rdi, qword ptr {TYPE}")
    cx.emit("test rdi, rdi")
    cx.jump("je", ".report_out")
    cx.emit(f"mov rsi, qword ptr {VALUE}")
    cx.emit(f"mov rdx, qword ptr {TRACEBACK}")
    call(cx, "PyErr_Restore")
    cx.label(".report_out")
    cx.emit("add rsp, 8")
    cx.emit("ret")


def _call_python_function(cx: Emitter, function: str, count: int) -> None:
    cx.emit(f"mov rdi, {state_word(function)}")
    cx.emit(f"lea rsi, {FIRST}")
    cx.emit("movabs rdx, $imm", imm=ARGUMENTS_OFFSET | count, imm_sizes=(64,))
    cx.emit("xor ecx, ecx")
    call(cx, "PyObject_Vectorcall")


def _call_with_block(cx: Emitter, function: str, raised: str) -> None:
    """Call function(block); the result, which is ours to drop, is then in rdi and FIRST."""
    cx.emit("mov rdi, r12")
    call(cx, "PyLong_FromUnsignedLongLong")
    cx.emit("test rax, rax")
    cx.jump("je", raised)
    cx.emit(f"mov qword ptr {FIRST}, rax")
    _call_python_function(cx, function, 1)
    cx.emit(f"mov rdi, qword ptr {FIRST}")
    cx.emit(f"mov qword ptr {FIRST}, rax")
    call(cx, "Py_DecRef")
    cx.emit(f"mov rdi, qword ptr {FIRST}")
    cx.emit("test rdi, rdi")
    cx.jump("je", raised)


def _emit_finish(cx: Emitter) -> None:
    """Emit `finish`: on_finish(block); eax is not 0 where that raised."""
    cx.begin(NO_PC)
    cx.label("finish")
    cx.emit("sub rsp, 8")
    cx.emit(f"mov {block_word('attached')}, 0")
    _call_with_block(cx, "on_finish", ".finish_raised")
    call(cx, "Py_DecRef")
    cx.emit("xor eax, eax")
    cx.jump("jmp", ".finish_out")
    cx.label(".finish_raised")
    cx.emit("mov eax, 1")
    cx.label(".finish_out")
    cx.emit("add rsp, 8")
    cx.emit("ret")


def _emit_hot(cx: Emitter) -> None:
    """Emit `hot`: on_hot(); eax is not 0 where that raised."""
    cx.begin(NO_PC)
    cx.label("hot")
    cx.emit("sub rsp, 8")
    _call_python_function(cx, "on_hot", 0)
    cx.emit("test rax, rax")
    cx.jump("je", ".hot_raised")
    cx.emit("mov rdi, rax")
    call(cx, "Py_DecRef")
    cx.emit("xor eax, eax")
    cx.jump("jmp", ".hot_out")
    cx.label(".hot_raised")
    cx.emit("mov eax, 1")
    cx.label(".hot_out")
    cx.emit("add rsp, 8")
    cx.emit("ret")


def _emit_tier_up(cx: Emitter, slice_length: int) -> None:
    """Emit `tier_up`, called at the end of a slice: where the run is to go on, in rax.

    That is what on_slice(block) returns, once the program has used up its heat. 0: go on as before; all
    ones: an error is pending. Batches go on as they are, and so do runs without Python's lock.
    """
    cx.begin(NO_PC)
    cx.label("tier_up")
    cx.emit("push rbx")
    cx.emit("push rbp")
    cx.emit("sub rsp, 8")
    cx.emit(f"mov rbx, {block_word('state')}")
    cx.emit(f"mov rbp, {block_word('frame_top')}")
    cx.emit(f"cmp {state_word('on_slice')}, 0")
    cx.jump("je", ".tier_stays")
    for other in (state_word("unlocked"), block_word("batch")):
        cx.emit(f"cmp {other}, 0")
        cx.jump("jne", ".tier_stays")
    cx.emit(f"sub {state_word('heat')}, $imm", imm=slice_length, imm_sizes=(32,))
    cx.jump("jg", ".tier_stays")
    _call_with_block(cx, "on_slice", ".tier_raised")
    call(cx, "PyLong_AsUnsignedLongLong")
    cx.emit("mov rbx, rax")
    cx.emit(f"mov rdi, qword ptr {FIRST}")
    call(cx, "Py_DecRef")
    cx.emit("mov rax, rbx")
    cx.jump("jmp", ".tier_out")
    cx.label(".tier_stays")
    cx.emit("xor eax, eax")
    cx.jump("jmp", ".tier_out")
    cx.label(".tier_raised")
    cx.emit("mov rax, -1")
    cx.label(".tier_out")
    cx.emit("add rsp, 8")
    cx.emit("pop rbp")
    cx.emit("pop rbx")
    cx.emit("ret")


def _emit_count_time(cx: Emitter, clock: int) -> None:
    """Emit `begin_time`, which returns when a helper in Python begins (ns), 0 where the run's heat is not
    counted; and `count_time(begun)`, which takes the time since then from it. Only rbx and rbp are kept.
    """
    heat = f"qword ptr [rax+{8 * STATE_WORDS.index('heat'):#x}]"
    on_hot = f"qword ptr [rax+{8 * STATE_WORDS.index('on_hot'):#x}]"

    def jump_unless_counted(label: str) -> None:
        cx.emit(f"mov rax, {block_word('state')}")
        cx.emit("test rax, rax")
        cx.jump("je", label)
        cx.emit(f"cmp {on_hot}, 0")
        cx.jump("je", label)

    def now() -> None:
        cx.emit("mov edi, $imm", imm=clock, imm_sizes=(32,))
        cx.emit("mov rsi, rsp")
        call(cx, "clock_gettime")
        cx.emit("imul rax, qword ptr [rsp], 0x3B9ACA00")
        cx.emit("add rax, qword ptr [rsp+8]")

    cx.begin(NO_PC)
    cx.label("begin_time")
    cx.emit("sub rsp, 0x18")
    jump_unless_counted(".time_uncounted")
    now()
    cx.label(".time_begun")
    cx.emit("add rsp, 0x18")
    cx.emit("ret")
    cx.label(".time_uncounted")
    cx.emit("xor eax, eax")
    cx.jump("jmp", ".time_begun")

    cx.label("count_time")
    cx.emit("sub rsp, 0x18")
    cx.emit("mov qword ptr [rsp+0x10], rdi")
    cx.emit("test rdi, rdi")
    cx.jump("je", ".time_counted")
    now()
    cx.emit("sub rax, qword ptr [rsp+0x10]")
    cx.emit("imul rcx, rax, $imm", imm=NANOSECOND_COST)
    jump_unless_counted(".time_counted")
    cx.emit(f"sub {heat}, rcx")
    cx.label(".time_counted")
    cx.emit("add rsp, 0x18")
    cx.emit("ret")
