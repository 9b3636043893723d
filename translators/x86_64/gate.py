"""The way in from Python: machine code that CPython calls as it calls its own built-in functions.

    call_SHAPE     a vectorcall function: takes the buffers, runs the program, returns r0 as an int
    batch          a C function: runs the program over many packets, one after the other
    check_pairs    a C function: are all packets inside the buffer that they are said to be in?

One copy serves all programs: what is particular to one is in its state. The stack of the thread that
calls holds all there is of a run, r12 at the bottom:

    r12    block    limits    the program's stack    fixed mbuff    what the gate keeps    rsp on entry
           [r12+word]        low          high                      [rbp-place]            rbp

What is unusual (keywords, too many arguments, an object without a flat buffer) goes to the function
that does without all this, which raises what Python raises; what went wrong inside goes to a
function that raises. An error that is pending meanwhile is set aside and put back.
"""

from __future__ import annotations

from dataclasses import dataclass

from ebpfjit.translators.emitter import Emitter
from ebpfjit.translators.x86_64.host import (
    ARGUMENTS_OFFSET,
    SMALL_INTS,
    Ints,
    call,
    enter_program,
    release_lock,
    take_lock,
)
from ebpfjit.translators.x86_64.lanes import Structs, emit_lanes, lane_word
from ebpfjit.translators.x86_64.target import BLOCK, BLOCK_WORDS, FAULTS, HOST_SAVED

# The state of a program, 8-byte words that Python writes.
STATE_WORDS = (
    "entry",  # the program's address
    "first",  # instructions in the first slice
    "later",  # instructions behind it
    "frame",  # bytes of the thread's stack that a run takes
    "low",  # where the program's stack is, counted from the block
    "high",
    "regions",  # regions besides the arguments: as the block's word
    "limits_start",  # how to fill the limits: (offset of a size, span - 1, offset of the limit) each
    "limits_stop",
    "special",  # not 0 where one of the next two is, or the program loads from the packet
    "linked",  # the program calls Python: its runs are in the list of those
    "unlocked",  # the program runs without Python's lock
    "irregular",  # Python functions: called in place of the gate,
    "on_fault",  # on_fault(block, error): raises what the fault is, adds the pc to a pending error,
    "on_finish",  # on_finish(block): drops what Python keeps of the run
    "mbuff_size",  # of a fixed mbuff, and where it ends and takes the packet's addresses
    "mbuff_end",
    "data_offset",
    "data_end_offset",
    "lane",  # where programs with a context have their packet (`lanes`), 0 for others
)
STATE = {name: f"[rbx+{8 * index:#x}]" for index, name in enumerate(STATE_WORDS)}

# A batch: 8-byte words that Python writes; `index` and `turn` are counted in place.
BATCH_WORDS = (
    "index",  # the packet that is next, or that stopped the batch
    "count",
    "results",  # address of as many u64
    "turn",  # instructions until signals are looked for
    "source",  # address of the routine that finds a packet
    "unlocked",  # run without Python's lock
    "fills",  # not 0: a fault's result is `fill`
    "fill",
    "base",  # the buffer that packets are in
    "size",
    "writable",  # all ones or 0
    "stride",
    "offsets",  # arrays of integers, of these kinds; without lengths a packet goes up to the next
    "offset_kind",
    "lengths",
    "length_kind",
    "items",  # address of as many Python objects
)
BATCH = {name: f"[r13+{8 * index:#x}]" for index, name in enumerate(BATCH_WORDS)}
KINDS = ("64", "i32", "u32")  # the integers that offsets and lengths may be, by their number
SOURCES = ("stride", "pairs", "objects")
FINISHED, RAISED, OUT_OF_BOUNDS = range(3)  # what `batch` returns
TURN = 1 << 25  # instructions between two looks for signals
PACKET_COST = 32  # what a packet counts for besides its instructions

# What the gate keeps of a call, below rbp (rsp after the host's registers were saved).
COUNT = "[rbp-8]"  # number of arguments, for who is called in place of the gate
TYPE, VALUE, TRACEBACK = "[rbp-0x10]", "[rbp-0x18]", "[rbp-0x20]"  # an error that is set aside
FIRST, SECOND = "[rbp-0x30]", "[rbp-0x28]"  # arguments for Python, behind a free word
TAKEN = "[rbp-0x40]"  # a bit for each Py_buffer that is to be released, and for each bytearray
VIEWS = (0x90, 0xE0)  # Py_buffers
HELD = (0xE8, 0xF0)  # where bytearrays count their exports
HELD_BITS = (4, 8)  # in TAKEN
KEPT_SIZE = 0xF0
VIEW_START, VIEW_OBJECT, VIEW_SIZE, VIEW_READONLY, VIEW_FORMAT = 0, 8, 0x10, 0x20, 0x28
BUFFER_FLAGS = 0x0C  # PyBUF_FORMAT | PyBUF_ND: contiguous, and it says what is in it

PAGE = 0x1000


@dataclass(frozen=True, slots=True)
class Layout:
    """Where CPython keeps things in its objects, in bytes; found out at run time."""

    bytes_data: int
    size: int
    bytearray_start: int
    bytearray_exports: int
    state: int
    max_frames: int
    ints: Ints
    structs: Structs


@dataclass(frozen=True, slots=True)
class Shape:
    """The arguments of a gate: how many buffers, and what r1 points to."""

    buffers: int
    argument: str  # "none", "packet", "mbuff" (the second buffer), "fixed" (made by the gate), "context"
    optional: bool = False


SHAPES = {
    "none": Shape(0, "none"),
    "mem": Shape(1, "packet"),
    "optional": Shape(1, "packet", optional=True),
    "mbuff": Shape(2, "mbuff"),
    "fixed": Shape(1, "fixed"),
    "context": Shape(1, "context"),
}


def _word(name: str) -> str:
    """Return the operand of a word of the block."""
    return f"qword ptr {BLOCK[name]}"


def _state(name: str) -> str:
    return f"qword ptr {STATE[name]}"


def _batch(name: str) -> str:
    return f"qword ptr {BATCH[name]}"


def _view(index: int, part: int) -> str:
    return f"[rbp-{VIEWS[index] - part:#x}]"


def emit_gate(cx: Emitter, layout: Layout) -> None:
    """Emit all of it."""
    for name, shape in SHAPES.items():
        _emit_shape(cx, name, shape, layout)
    _emit_go(cx, "go", layout)
    _emit_go(cx, "go_lane", layout, lane=True)
    _emit_refusals(cx)
    emit_lanes(cx, layout.structs)
    _emit_take_object(cx)
    _emit_report(cx)
    _emit_finish(cx)
    _emit_link(cx)
    _emit_batch(cx, layout)
    _emit_source_stride(cx)
    _emit_source_pairs(cx)
    _emit_source_objects(cx, layout)
    _emit_check_pairs(cx)


# --- one call ---


def _emit_shape(cx: Emitter, name: str, shape: Shape, layout: Layout) -> None:
    """Emit `call_NAME(callable, args, nargsf, kwnames)`.

    r13 is the arguments, r14 and r15 the start and the size of what r1 points to.
    """
    irregular = f".{name}_irregular"
    cx.begin(None)
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
    _make_frame(cx, name)
    if shape.argument == "context":
        _take(cx, name, 0, shape, layout)
        _enter_lane(cx)
    elif shape.buffers:
        _take(cx, name, 0, shape, layout)
        _fill_region(cx, "packet")
    else:
        cx.emit("xor r14d, r14d")
        cx.emit("xor r15d, r15d")
        cx.emit("xor ecx, ecx")
        _fill_region(cx, "packet")
    if shape.argument == "mbuff":
        _take(cx, name, 1, shape, layout)
    elif shape.argument == "fixed":
        _make_mbuff(cx)
    if shape.argument == "context":
        cx.jump("jmp", "go_lane")
    else:
        _fill_region(cx, "argument")
        cx.jump("jmp", "go")
    with cx.out_of_line(irregular):
        assert HOST_SAVED[:2] == ("rbp", "rbx")  # what `irregular` pops
        for saved in reversed(HOST_SAVED[2:]):
            cx.emit(f"pop {saved}")
        cx.jump("jmp", "irregular")


def _make_frame(cx: Emitter, name: str) -> None:
    """Take the run's place on the stack, page by page: no guard page is ever jumped over.

    rbp is then the top, r12 the block. Keeps rdx, rsi.
    """
    big, again, framed = f".{name}_big", f".{name}_page", f".{name}_framed"
    cx.emit("mov rbp, rsp")
    cx.emit(f"mov rax, {_state('frame')}")
    cx.emit(f"cmp rax, {PAGE:#x}")
    cx.jump("ja", big)
    cx.label(framed)
    cx.emit("sub rsp, rax")
    cx.emit("test qword ptr [rsp], rsp")
    cx.emit("mov r12, rsp")
    cx.emit(f"mov {_word('frame_top')}, rbp")
    cx.emit(f"mov {_word('state')}, rbx")
    cx.emit(f"mov qword ptr {TAKEN}, 0")
    with cx.out_of_line(big):
        cx.label(again)
        cx.emit(f"sub rsp, {PAGE:#x}")
        cx.emit("test qword ptr [rsp], rsp")
        cx.emit(f"sub rax, {PAGE:#x}")
        cx.emit(f"cmp rax, {PAGE:#x}")
        cx.jump("ja", again)
        cx.jump("jmp", framed)


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
    _take_bytes(cx, layout, other)
    cx.label(taken)
    with cx.out_of_line(other):
        _take_bytearray(cx, index, layout, f".{name}_object_{index}")
        cx.jump("jmp", taken)
        cx.label(f".{name}_object_{index}")
        cx.emit(f"or qword ptr {TAKEN}, {1 << index}")
        cx.emit(f"lea rsi, {_view(index, 0)}")
        cx.jump("call", "take_object")
        cx.emit("test eax, eax")
        cx.jump("je", taken)
        cx.emit(f"mov qword ptr {COUNT}, {shape.buffers}")
        cx.jump("jmp", "refused")


def _take_bytes(cx: Emitter, layout: Layout, other: str) -> None:
    """Take the `bytes` in rdi; what is something else goes to `other`."""
    cx.emit("mov rax, qword ptr [rip+$symbol]", symbol="PyBytes_Type")
    cx.emit("cmp qword ptr [rdi+8], rax")
    cx.jump("jne", other)
    cx.emit("lea r14, [rdi+$offset]", offset=layout.bytes_data)
    cx.emit("mov r15, qword ptr [rdi+$offset]", offset=layout.size)
    cx.emit("xor ecx, ecx")


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


def _fill_region(cx: Emitter, region: str) -> None:
    cx.emit(f"mov {_word(region + '_start')}, r14")
    cx.emit(f"mov {_word(region + '_size')}, r15")
    cx.emit(f"mov {_word(region + '_room')}, rcx")


def _enter_lane(cx: Emitter) -> None:
    """Put the packet into the lane; a run that finds it in use, or the packet too odd, goes without."""
    odd = ".lane_odd"
    cx.emit(f"mov rdx, {_state('lane')}")
    cx.emit(f"cmp {lane_word('busy')}, 0")
    cx.jump("jne", odd)
    cx.jump("call", "place")
    cx.jump("jb", odd)
    cx.emit(f"mov {lane_word('busy')}, 1")
    _fill_region(cx, "packet")
    _fill_context(cx)
    with cx.out_of_line(odd):
        cx.emit(f"mov qword ptr {COUNT}, 1")
        cx.jump("jmp", "refused")


def _fill_context(cx: Emitter) -> None:
    """Fill in where the struct is, after `place`; r14 is then the struct, which r1 points to."""
    cx.emit("mov r14, rax")
    cx.emit(f"mov {_word('argument_start')}, rax")
    cx.emit(f"mov rax, {lane_word('struct_size')}")
    cx.emit(f"mov {_word('argument_size')}, rax")
    cx.emit(f"mov {_word('argument_room')}, 0")


def _make_mbuff(cx: Emitter) -> None:
    """Make the fixed mbuff: zero but for the packet's addresses, 0 and 0 for an empty one."""
    again = ".mbuff_again"
    cx.emit("xor eax, eax")
    cx.emit("test r15, r15")
    cx.emit("cmove r14, rax")
    cx.emit("add r15, r14")
    cx.emit(f"mov rdi, {_state('high')}")
    cx.emit("add rdi, r12")
    cx.emit("mov rdx, rdi")
    cx.emit(f"mov rsi, {_state('mbuff_end')}")
    cx.emit("add rsi, r12")
    cx.emit("xorps xmm0, xmm0")
    cx.label(again)
    cx.emit("movups xmmword ptr [rdi], xmm0")
    cx.emit("add rdi, 0x10")
    cx.emit("cmp rdi, rsi")
    cx.jump("jb", again)
    for word, value in (("data_offset", "r14"), ("data_end_offset", "r15")):
        cx.emit(f"mov rax, {_state(word)}")
        cx.emit(f"mov qword ptr [rdx+rax], {value}")
    cx.emit("mov r14, rdx")
    cx.emit(f"mov r15, {_state('mbuff_size')}")
    cx.emit("mov rcx, r15")


def _prepare(cx: Emitter) -> None:
    """Fill what a run and all runs of a batch have in common."""
    for word, offset in (("stack_limit", "low"), ("stack_top", "high")):
        cx.emit(f"mov rax, {_state(offset)}")
        cx.emit("add rax, r12")
        cx.emit(f"mov {_word(word)}, rax")
    cx.emit(f"mov rax, {_state('regions')}")
    cx.emit(f"mov {_word('regions')}, rax")
    cx.emit(f"mov {_word('thread')}, 0")


def _prepare_special(cx: Emitter) -> None:
    """Fill what only matters where Python is called, or for a fault."""
    for word in ("leave", "attached", "link_header", "network_header"):
        cx.emit(f"mov {_word(word)}, 0")


def _fill_headers(cx: Emitter) -> None:
    """Fill in what legacy loads count from, in a lane."""
    cx.emit(f"mov rdx, {_state('lane')}")
    for word in ("link_header", "network_header"):
        cx.emit(f"mov rax, {lane_word(word)}")
        cx.emit(f"mov {_word(word)}, rax")


def _fill_limits(cx: Emitter, name: str) -> None:
    """How many places each span has in its region: size - (span - 1), 0 where that is negative."""
    again, done = f".{name}_limit", f".{name}_limits"
    cx.emit(f"mov rsi, {_state('limits_start')}")
    cx.emit(f"mov rdi, {_state('limits_stop')}")
    cx.emit("cmp rsi, rdi")
    cx.jump("je", done)
    cx.emit("xor ecx, ecx")
    cx.label(again)
    cx.emit("mov rax, qword ptr [rsi]")
    cx.emit("mov rax, qword ptr [r12+rax]")
    cx.emit("sub rax, qword ptr [rsi+8]")
    cx.emit("cmovb rax, rcx")
    cx.emit("mov rdx, qword ptr [rsi+0x10]")
    cx.emit("mov qword ptr [r12+rdx], rax")
    cx.emit("add rsi, 0x18")
    cx.emit("cmp rsi, rdi")
    cx.jump("jne", again)
    cx.label(done)


def _start(cx: Emitter, layout: Layout, *, lane: bool = False) -> None:
    """Reset what a run uses up, and run the program on r14 (start) and r15 (size).

    In a lane r14 is the context and r2 is 0; of the result 32 bits count.
    """
    cx.emit(f"mov rax, {_word('stack_top')}")
    cx.emit(f"mov {_word('stack_start')}, rax")
    cx.emit(f"mov {_word('frames_left')}, {layout.max_frames - 1:#x}")
    cx.emit(f"mov {_word('fault_kind')}, 0")
    cx.emit(f"mov rax, {_state('later')}")
    cx.emit(f"mov {_word('later')}, rax")
    cx.emit(f"mov r9, {_state('first')}")
    cx.emit("mov rdi, r14")
    if lane:
        cx.emit("xor esi, esi")
    else:
        cx.emit("test r15, r15")
        cx.emit("cmove rdi, r15")
        cx.emit("mov rsi, r15")
    enter_program(cx, _state("entry"))
    if lane:
        cx.emit("mov eax, eax")


def _emit_go(cx: Emitter, name: str, layout: Layout, *, lane: bool = False) -> None:
    """Emit the second half of a call, and its ends.

    r13 keeps the result while Python is called.
    """
    cx.begin(None)
    cx.label(name, 16)
    _prepare(cx)
    _fill_limits(cx, name)
    cx.emit(f"cmp {_state('special')}, 0")
    cx.jump("jne", f".{name}_special")
    cx.label(f".{name}_ready")
    _start(cx, layout, lane=lane)
    cx.emit(f"mov rbx, {_word('state')}")
    cx.emit(f"mov rbp, {_word('frame_top')}")
    cx.emit(f"cmp {_word('fault_kind')}, 0")
    cx.jump("jne", f".{name}_failed")
    cx.emit(f"cmp {_state('special')}, 0")
    cx.jump("jne", f".{name}_special_end")
    cx.label(f".{name}_ended")
    if lane:
        _leave_lane(cx)
    cx.emit(f"cmp qword ptr {TAKEN}, 0")
    cx.jump("jne", f".{name}_release")
    cx.label(f".{name}_released")
    _leave(cx)
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
    _release_views(cx)
    cx.emit("mov rax, r13")
    cx.jump("jmp", f".{name}_released")

    cx.label(f".{name}_special")
    _prepare_special(cx)
    if lane:
        _fill_headers(cx)
    _link_where_asked(cx)
    cx.emit(f"cmp {_state('unlocked')}, 0")
    cx.jump("je", f".{name}_ready")
    release_lock(cx)
    cx.jump("jmp", f".{name}_ready")

    cx.label(f".{name}_special_end")
    cx.emit("mov r13, rax")
    take_lock(cx)
    _unlink_where_asked(cx)
    cx.emit(f"cmp {_word('attached')}, 0")
    cx.emit("mov rax, r13")
    cx.jump("je", f".{name}_ended")
    cx.jump("call", "finish")
    cx.emit("test eax, eax")
    cx.emit("mov rax, r13")
    cx.jump("je", f".{name}_ended")
    cx.jump("jmp", f".{name}_nothing")

    cx.label(f".{name}_failed")
    cx.emit(f"cmp {_state('special')}, 0")
    cx.jump("jne", f".{name}_failed_special")
    _prepare_special(cx)
    cx.label(f".{name}_failed_special")
    take_lock(cx)
    _unlink_where_asked(cx)
    cx.jump("call", "report")
    cx.label(f".{name}_nothing")
    if lane:
        _leave_lane(cx)
    _release_views(cx)
    _leave(cx)
    cx.emit("xor eax, eax")
    cx.emit("ret")


def _leave_lane(cx: Emitter) -> None:
    """Let the next run have the lane. Keeps rax."""
    cx.emit(f"mov rdx, {_state('lane')}")
    cx.emit(f"mov {lane_word('busy')}, 0")


def _emit_refusals(cx: Emitter) -> None:
    """Emit where calls go on in Python: with the buffers taken already, or before."""
    cx.begin(None)
    cx.label("refused")
    call(cx, "PyErr_Clear")
    _release_views(cx)
    cx.emit("mov rsi, r13")
    cx.emit(f"mov rdx, qword ptr {COUNT}")
    cx.emit("xor ecx, ecx")
    cx.emit(f"mov rax, {_state('irregular')}")
    _leave(cx)
    cx.emit("mov rdi, rax")
    cx.emit("jmp qword ptr [rip+$symbol]", symbol="PyObject_Vectorcall")

    cx.label("irregular")
    cx.emit(f"mov rdi, {_state('irregular')}")
    cx.emit("pop rbx")
    cx.emit("pop rbp")
    cx.emit("jmp qword ptr [rip+$symbol]", symbol="PyObject_Vectorcall")


def _leave(cx: Emitter) -> None:
    cx.emit("mov rsp, rbp")
    for saved in reversed(HOST_SAVED):
        cx.emit(f"pop {saved}")


def _release_views(cx: Emitter) -> None:
    """Give back what was taken: bytearrays count one export less, Py_buffers are released."""
    for bit, held in zip(HELD_BITS, HELD, strict=True):
        kept = cx.new_label("not_held")
        cx.emit(f"test qword ptr {TAKEN}, {bit}")
        cx.jump("je", kept)
        cx.emit(f"mov rdx, qword ptr [rbp-{held:#x}]")
        cx.emit("dec qword ptr [rdx]")
        cx.label(kept)
    for index in range(len(VIEWS)):
        kept = cx.new_label("not_taken")
        cx.emit(f"test qword ptr {TAKEN}, {1 << index}")
        cx.jump("je", kept)
        cx.emit(f"lea rdi, {_view(index, 0)}")
        call(cx, "PyBuffer_Release")
        cx.label(kept)


def _emit_take_object(cx: Emitter) -> None:
    """Emit `take_object(object, view)`: r14, r15, rcx as above; eax is not 0 where it is refused.

    Single letters of the struct module are plain memory but for "O", Python objects.
    """
    out, odd = ".take_out", ".take_odd"
    cx.begin(None)
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
    cx.begin(None)
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
    cx.emit(f"mov rdi, {_state(function)}")
    cx.emit(f"lea rsi, {FIRST}")
    cx.emit("movabs rdx, $imm", imm=ARGUMENTS_OFFSET | count, imm_sizes=(64,))
    cx.emit("xor ecx, ecx")
    call(cx, "PyObject_Vectorcall")


def _emit_finish(cx: Emitter) -> None:
    """Emit `finish`: on_finish(block); eax is not 0 where that raised."""
    cx.begin(None)
    cx.label("finish")
    cx.emit("sub rsp, 8")
    cx.emit(f"mov {_word('attached')}, 0")
    cx.emit("mov rdi, r12")
    call(cx, "PyLong_FromUnsignedLongLong")
    cx.emit("test rax, rax")
    cx.jump("je", ".finish_raised")
    cx.emit(f"mov qword ptr {FIRST}, rax")
    _call_python_function(cx, "on_finish", 1)
    cx.emit(f"mov rdi, qword ptr {FIRST}")
    cx.emit(f"mov qword ptr {FIRST}, rax")
    call(cx, "Py_DecRef")
    cx.emit(f"mov rdi, qword ptr {FIRST}")
    cx.emit("test rdi, rdi")
    cx.jump("je", ".finish_raised")
    call(cx, "Py_DecRef")
    cx.emit("xor eax, eax")
    cx.jump("jmp", ".finish_out")
    cx.label(".finish_raised")
    cx.emit("mov eax, 1")
    cx.label(".finish_out")
    cx.emit("add rsp, 8")
    cx.emit("ret")


# --- the list of runs that may call Python: changed under Python's lock only ---


def _neighbour(register: str, word: str) -> str:
    return f"qword ptr [{register}+{8 * BLOCK_WORDS.index(word):#x}]"


def _link_where_asked(cx: Emitter) -> None:
    unlinked = cx.new_label("unlinked")
    cx.emit(f"cmp {_state('linked')}, 0")
    cx.jump("je", unlinked)
    cx.jump("call", "link")
    cx.label(unlinked)


def _unlink_where_asked(cx: Emitter) -> None:
    unlinked = cx.new_label("unlinked")
    cx.emit(f"cmp {_state('linked')}, 0")
    cx.jump("je", unlinked)
    cx.jump("call", "unlink")
    cx.label(unlinked)


def _emit_link(cx: Emitter) -> None:
    """Emit `link` and `unlink`: put the block at the head of the list, take it out."""
    cx.begin(None)
    cx.label("link")
    cx.emit("sub rsp, 8")
    call(cx, "PyThread_get_thread_ident")
    cx.emit(f"mov {_word('thread_id')}, rax")
    cx.emit("mov rax, qword ptr [rip+$symbol]", symbol="running")
    cx.emit("mov rcx, qword ptr [rax]")
    cx.emit(f"mov {_word('older')}, rcx")
    cx.emit(f"mov {_word('newer')}, 0")
    cx.emit("test rcx, rcx")
    cx.jump("je", ".link_first")
    cx.emit(f"mov {_neighbour('rcx', 'newer')}, r12")
    cx.label(".link_first")
    cx.emit("mov qword ptr [rax], r12")
    cx.emit("add rsp, 8")
    cx.emit("ret")
    cx.label("unlink")
    cx.emit(f"mov rcx, {_word('older')}")
    cx.emit(f"mov rdx, {_word('newer')}")
    cx.emit("test rdx, rdx")
    cx.jump("je", ".unlink_head")
    cx.emit(f"mov {_neighbour('rdx', 'older')}, rcx")
    cx.jump("jmp", ".unlink_older")
    cx.label(".unlink_head")
    cx.emit("mov rax, qword ptr [rip+$symbol]", symbol="running")
    cx.emit("mov qword ptr [rax], rcx")
    cx.label(".unlink_older")
    cx.emit("test rcx, rcx")
    cx.jump("je", ".unlink_last")
    cx.emit(f"mov {_neighbour('rcx', 'newer')}, rdx")
    cx.label(".unlink_last")
    cx.emit("ret")


# --- batches ---


def _emit_batch(cx: Emitter, layout: Layout) -> None:
    """Emit `batch(batch, state)`; returns FINISHED, RAISED (an error is pending) or OUT_OF_BOUNDS.

    r13 is the batch. Each packet is a run of its own: budget, stack, limits start anew.
    """
    cx.begin(None)
    cx.label("batch", 16)
    for saved in HOST_SAVED:
        cx.emit(f"push {saved}")
    cx.emit("mov r13, rdi")
    cx.emit("mov rbx, rsi")
    _make_frame(cx, "batch")
    cx.emit(f"mov {_word('batch')}, r13")
    _prepare(cx)
    _prepare_special(cx)
    cx.emit(f"mov rdx, {_state('lane')}")
    cx.emit("test rdx, rdx")
    cx.jump("je", ".no_headers")
    _fill_headers(cx)
    cx.label(".no_headers")
    cx.emit(f"mov {_word('packet_size')}, -1")  # nothing is like it: the limits are to be filled
    _link_where_asked(cx)
    cx.emit(f"cmp {_batch('unlocked')}, 0")
    cx.jump("je", ".packet")
    release_lock(cx)

    cx.label(".packet", 16)
    cx.emit(f"mov rax, {_batch('index')}")
    cx.emit(f"cmp rax, {_batch('count')}")
    cx.jump("jae", ".finished")
    cx.emit(f"call {_batch('source')}")
    cx.emit("test eax, eax")
    cx.jump("jne", ".stopped")
    cx.emit(f"mov rdx, {_state('lane')}")
    cx.emit("test rdx, rdx")
    cx.jump("jne", ".lane")
    for region in ("packet", "argument"):
        cx.emit(f"mov {_word(region + '_start')}, r14")
    cx.emit(f"cmp r15, {_word('packet_size')}")
    cx.jump("jne", ".resize")
    cx.emit(f"cmp rcx, {_word('packet_room')}")
    cx.jump("jne", ".resize")
    cx.label(".sized")
    _start(cx, layout)
    cx.label(".ran")
    cx.emit(f"mov rbx, {_word('state')}")
    cx.emit(f"mov rbp, {_word('frame_top')}")
    cx.emit(f"mov r13, {_word('batch')}")
    cx.emit(f"mov rcx, {_state('first')}")
    cx.emit("sub rcx, r9")
    cx.emit(f"add rcx, {PACKET_COST:#x}")
    cx.emit(f"sub {_batch('turn')}, rcx")
    cx.emit(f"cmp {_word('fault_kind')}, 0")
    cx.jump("jne", ".packet_failed")
    cx.label(".result")
    cx.emit(f"mov rcx, {_batch('index')}")
    cx.emit(f"mov rdx, {_batch('results')}")
    cx.emit("mov qword ptr [rdx+rcx*8], rax")
    cx.emit(f"cmp {_word('attached')}, 0")
    cx.jump("jne", ".detach")
    cx.label(".detached")
    cx.emit(f"inc {_batch('index')}")
    cx.emit(f"cmp qword ptr {TAKEN}, 0")
    cx.jump("jne", ".return_object")
    cx.label(".returned_object")
    cx.emit(f"cmp {_batch('turn')}, 0")
    cx.jump("jge", ".packet")
    cx.emit("mov rax, $imm", imm=TURN, imm_sizes=(32,))
    cx.emit(f"mov {_batch('turn')}, rax")
    cx.jump("call", "turn")
    cx.emit("test eax, eax")
    cx.jump("je", ".packet")
    cx.emit("mov r14d, $imm", imm=RAISED, imm_sizes=(32,))
    cx.jump("jmp", ".close")

    cx.label(".finished")
    cx.emit("xor eax, eax")
    cx.label(".stopped")
    cx.emit("mov r14d, eax")
    cx.label(".close")
    take_lock(cx)
    _unlink_where_asked(cx)
    _release_views(cx)
    cx.emit("mov eax, r14d")
    _leave(cx)
    cx.emit("ret")

    cx.label(".resize")
    for region in ("packet", "argument"):
        cx.emit(f"mov {_word(region + '_size')}, r15")
        cx.emit(f"mov {_word(region + '_room')}, rcx")
    _fill_limits(cx, "batch")
    cx.jump("jmp", ".sized")

    cx.label(".lane")
    cx.jump("call", "place")
    cx.jump("jb", ".lane_refused")
    cx.emit("mov rsi, r14")
    _fill_context(cx)
    cx.emit(f"mov {_word('packet_room')}, rcx")
    cx.emit(f"cmp r15, {_word('packet_size')}")
    cx.emit(f"mov {_word('packet_size')}, r15")
    cx.emit(f"mov {_word('packet_start')}, rsi")
    cx.jump("je", ".lane_sized")
    _fill_limits(cx, "lane")
    cx.label(".lane_sized")
    _start(cx, layout, lane=True)
    cx.jump("jmp", ".ran")
    cx.label(".lane_refused")
    cx.emit(f"mov eax, {OUT_OF_BOUNDS:#x}")
    cx.jump("jmp", ".stopped")

    cx.label(".packet_failed")
    cx.emit(f"cmp {_word('fault_kind')}, {FAULTS.index('raised'):#x}")
    cx.jump("je", ".packet_raised")
    cx.emit(f"cmp {_batch('fills')}, 0")
    cx.emit(f"mov rax, {_batch('fill')}")
    cx.jump("jne", ".result")
    cx.label(".packet_raised")
    take_lock(cx)
    cx.jump("call", "report")
    cx.label(".raised")
    cx.emit("mov r14d, $imm", imm=RAISED, imm_sizes=(32,))
    cx.jump("jmp", ".close")

    cx.label(".detach")
    take_lock(cx)
    cx.jump("call", "finish")
    cx.emit("test eax, eax")
    cx.jump("jne", ".raised")
    _give_lock_back(cx)
    # The program may have been given another packet's memory: nothing of it stays.
    cx.emit(f"mov {_word('packet_size')}, -1")
    cx.emit(f"mov rax, {_state('regions')}")
    cx.emit(f"mov {_word('regions')}, rax")
    cx.jump("jmp", ".detached")

    cx.label(".return_object")
    take_lock(cx)
    _release_views(cx)
    cx.emit(f"mov qword ptr {TAKEN}, 0")
    _give_lock_back(cx)
    cx.jump("jmp", ".returned_object")


def _give_lock_back(cx: Emitter) -> None:
    locked = cx.new_label("locked")
    cx.emit(f"cmp {_batch('unlocked')}, 0")
    cx.jump("je", locked)
    release_lock(cx)
    cx.label(locked)


#   sources: rax is the packet's index; r14, r15, rcx its start, size and writable size; eax 0 where
#   there is one, else what the batch returns


def _emit_source_stride(cx: Emitter) -> None:
    cx.begin(None)
    cx.label("source_stride", 16)
    cx.emit(f"mov r15, {_batch('stride')}")
    cx.emit("imul rax, r15")
    cx.emit(f"add rax, {_batch('base')}")
    cx.emit("mov r14, rax")
    cx.emit("mov rcx, r15")
    cx.emit(f"and rcx, {_batch('writable')}")
    cx.emit("xor eax, eax")
    cx.emit("ret")


def _emit_source_pairs(cx: Emitter) -> None:
    """The numbers may change while the batch runs: what is used is what was checked."""
    bad, implied, checked = ".pairs_bad", ".pairs_implied", ".pairs_check"
    cx.begin(None)
    cx.label("source_pairs", 16)
    _load_integer(cx, "offset", "r14")
    cx.emit(f"cmp {_batch('lengths')}, 0")
    cx.jump("je", implied)
    _load_integer(cx, "length", "r15")
    cx.label(checked)
    cx.emit(f"mov rdx, {_batch('size')}")
    cx.emit("sub rdx, r14")
    cx.jump("jb", bad)
    cx.emit("cmp r15, rdx")
    cx.jump("ja", bad)
    cx.emit(f"add r14, {_batch('base')}")
    cx.emit("mov rcx, r15")
    cx.emit(f"and rcx, {_batch('writable')}")
    cx.emit("xor eax, eax")
    cx.emit("ret")
    cx.label(implied)
    cx.emit("inc rax")
    _load_integer(cx, "offset", "r15")
    cx.emit("sub r15, r14")
    cx.jump("jmp", checked)
    cx.label(bad)
    cx.emit(f"mov eax, {OUT_OF_BOUNDS:#x}")
    cx.emit("ret")


def _load_integer(cx: Emitter, which: str, into: str) -> None:
    """Load element rax of `offsets` or `lengths`; negative ones become huge."""
    narrow, unsigned, loaded = (cx.new_label(part) for part in ("narrow", "unsigned", "loaded"))
    cx.emit(f"mov rcx, {_batch(which + 's')}")
    cx.emit(f"mov rdx, {_batch(which + '_kind')}")
    cx.emit("test edx, edx")
    cx.jump("jne", narrow)
    cx.emit(f"mov {into}, qword ptr [rcx+rax*8]")
    cx.jump("jmp", loaded)
    cx.label(narrow)
    cx.emit(f"cmp edx, {KINDS.index('i32'):#x}")
    cx.jump("jne", unsigned)
    cx.emit(f"movsxd {into}, dword ptr [rcx+rax*4]")
    cx.jump("jmp", loaded)
    cx.label(unsigned)
    cx.emit(f"mov {into}d, dword ptr [rcx+rax*4]")
    cx.label(loaded)


def _emit_source_objects(cx: Emitter, layout: Layout) -> None:
    other = ".objects_other"
    cx.begin(None)
    cx.label("source_objects", 16)
    cx.emit(f"mov rdx, {_batch('items')}")
    cx.emit("mov rdi, qword ptr [rdx+rax*8]")
    _take_bytes(cx, layout, other)
    cx.emit("xor eax, eax")
    cx.emit("ret")
    cx.label(other)
    cx.emit("sub rsp, 8")
    cx.emit("mov r15, rdi")
    take_lock(cx)
    cx.emit("mov rdi, r15")
    cx.emit(f"mov qword ptr {TAKEN}, 1")
    cx.emit(f"lea rsi, {_view(0, 0)}")
    cx.jump("call", "take_object")
    cx.emit("test eax, eax")
    cx.jump("jne", ".objects_refused")
    cx.emit(f"cmp {_batch('unlocked')}, 0")
    cx.jump("je", ".objects_out")
    cx.emit("mov qword ptr [rsp], rcx")
    release_lock(cx)
    cx.emit("mov rcx, qword ptr [rsp]")
    cx.emit("xor eax, eax")
    cx.jump("jmp", ".objects_out")
    cx.label(".objects_refused")
    call(cx, "PyErr_Clear")
    cx.emit(f"mov eax, {OUT_OF_BOUNDS:#x}")
    cx.label(".objects_out")
    cx.emit("add rsp, 8")
    cx.emit("ret")


def _emit_check_pairs(cx: Emitter) -> None:
    """Emit `check_pairs(batch)`: the index of the first packet that is out of bounds, or the count."""
    cx.begin(None)
    cx.label("check_pairs")
    for saved in ("r13", "r14", "r15"):
        cx.emit(f"push {saved}")
    cx.emit("mov r13, rdi")
    cx.emit("xor r8d, r8d")
    cx.label(".check_next", 16)
    cx.emit(f"cmp r8, {_batch('count')}")
    cx.jump("jae", ".check_out")
    cx.emit("mov rax, r8")
    cx.jump("call", "source_pairs")
    cx.emit("test eax, eax")
    cx.jump("jne", ".check_out")
    cx.emit("inc r8")
    cx.jump("jmp", ".check_next")
    cx.label(".check_out")
    cx.emit("mov rax, r8")
    for saved in ("r15", "r14", "r13"):
        cx.emit(f"pop {saved}")
    cx.emit("ret")
