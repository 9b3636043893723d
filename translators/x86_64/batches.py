"""Batches: a native loop that runs a program over many packets, each a run of its own.

    batch          a C function: runs the program over the packets, one after the other
    source_NAME    a part of its loop, one of several: where the next packet is
    check_NAME     a C function: are all packets inside the buffer that they are said to be in?

r13 is the batch, rbx the state of the program, r12 the block of all its runs (`runs`).
"""

from __future__ import annotations

from ebpfjit.translators.block import BATCH_WORDS, FAULTS, KINDS, NO_ROOM, OUT_OF_BOUNDS, RAISED, USUAL_PAIRS
from ebpfjit.translators.emitter import NO_PC, Emitter
from ebpfjit.translators.host import Layout
from ebpfjit.translators.x86_64.host import call, release_lock, take_lock
from ebpfjit.translators.x86_64.lanes import lane_word
from ebpfjit.translators.x86_64.runs import (
    TAKEN,
    block_word,
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
from ebpfjit.translators.x86_64.tails import return_to_origin
from ebpfjit.translators.x86_64.target import BLOCK, HOST_SAVED

BATCH = {name: f"[r13+{8 * index:#x}]" for index, name in enumerate(BATCH_WORDS)}
SOURCES = ("stride", "pairs", *USUAL_PAIRS, "objects")
ANY = "any"  # the kind of integers that is looked up in the batch
AHEAD = 8  # packets: what a few runs take is longer than memory does
HEADERS = 0x38  # bytes: from there on a frame's ports are in IPv6; most frames' headers are in two lines
PACKET_COST = 32  # what a packet counts for besides its instructions


def _batch(name: str) -> str:
    return f"qword ptr {BATCH[name]}"


def emit_batches(cx: Emitter, layout: Layout) -> None:
    """Emit all of it."""
    _emit_batch(cx, layout)
    _emit_keep(cx, layout)
    _emit_source_stride(cx)
    for name, kinds in {"pairs": (ANY, ANY), **USUAL_PAIRS}.items():
        _emit_source_pairs(cx, name, *kinds)
        _emit_check(cx, name, *kinds)
    _emit_source_objects(cx, layout)


def _emit_batch(cx: Emitter, layout: Layout) -> None:
    """Emit `batch(batch, state)`; returns FINISHED, RAISED (an error is pending) or OUT_OF_BOUNDS.

    r13 is the batch. Each packet is a run of its own: budget, stack, limits start anew.
    """
    cx.begin(NO_PC)
    cx.label("batch", 16)
    for saved in HOST_SAVED:
        cx.emit(f"push {saved}")
    cx.emit("mov r13, rdi")
    cx.emit("mov rbx, rsi")
    make_frame(cx, "batch")
    prepare(cx)
    prepare_special(cx)
    cx.emit(f"mov {block_word('batch')}, r13")
    cx.emit(f"mov rax, {_batch('stops')}")
    cx.emit(f"mov {block_word('stops')}, rax")
    _forget_packet(cx)
    link_where_asked(cx, ".refused")
    cx.emit(f"cmp {_batch('unlocked')}, 0")
    cx.jump("je", ".go_on")
    release_lock(cx)

    cx.label(".go_on")
    cx.emit(f"mov rax, {_batch('index')}")
    cx.label(".packet")
    cx.emit(f"jmp {_batch('source')}")

    cx.label(".found", 16)
    cx.emit(f"mov rdx, {state_word('lane')}")
    cx.emit("test rdx, rdx")
    cx.jump("jne", ".lane")
    for region in ("packet", "argument"):
        fill_region(cx, region)
    fill_limits(cx, "batch")
    cx.label(".sized")
    start(cx, layout)
    cx.label(".ran")
    cx.emit(f"mov rbx, {block_word('state')}")
    cx.emit(f"mov rbp, {block_word('frame_top')}")
    cx.emit(f"mov r13, {block_word('batch')}")
    cx.emit(f"mov rcx, {state_word('first')}")
    cx.emit("sub rcx, r9")
    cx.emit(f"add rcx, {PACKET_COST:#x}")
    cx.emit(f"sub {_batch('turn')}, rcx")
    cx.emit(f"cmp {block_word('fault_kind')}, 0")
    cx.jump("jne", ".packet_failed")
    cx.label(".result")
    cx.emit(f"mov rcx, {_batch('index')}")
    cx.emit(f"mov rdx, {_batch('results')}")
    cx.emit("mov qword ptr [rdx+rcx*8], rax")
    cx.emit(f"mov rdx, {_batch('reasons')}")
    for word in (
        block_word("attached"), _batch("after_offsets"), block_word("tail_calls"), _batch("reserved"),
    ):  # fmt: skip
        cx.emit(f"or rdx, {word}")
    cx.emit(f"or rdx, qword ptr {TAKEN}")
    cx.jump("jne", ".more")
    cx.label(".next")
    cx.emit("lea rax, [rcx+1]")
    cx.emit(f"mov {_batch('index')}, rax")
    cx.emit(f"cmp {_batch('turn')}, 0")
    cx.jump("jge", ".packet")
    cx.emit("mov rax, $imm", imm=layout.slice_length, imm_sizes=(32,))
    cx.emit(f"mov {_batch('turn')}, rax")
    cx.jump("call", "turn")
    cx.emit("test eax, eax")
    cx.jump("je", ".go_on")
    cx.emit("mov r14d, $imm", imm=RAISED, imm_sizes=(32,))
    cx.jump("jmp", ".close")
    _emit_ends(cx)
    _emit_lanes(cx, layout)
    _emit_failed(cx)
    _emit_more(cx)


def _emit_ends(cx: Emitter) -> None:
    """Emit how a batch ends; r14 is what it returns."""
    cx.label(".finished")
    cx.emit("xor eax, eax")
    cx.jump("jmp", ".stopped")
    cx.label(".outside")
    cx.emit(f"mov eax, {OUT_OF_BOUNDS:#x}")
    cx.label(".stopped")
    cx.emit("mov r14d, eax")
    cx.label(".close")
    take_lock(cx)
    unlink_where_asked(cx)
    cx.label(".closed")
    release_views(cx)
    cx.emit("mov eax, r14d")
    leave(cx)
    cx.emit("ret")

    cx.label(".refused")
    cx.emit("mov r14d, $imm", imm=RAISED, imm_sizes=(32,))
    cx.jump("jmp", ".closed")


def _emit_lanes(cx: Emitter, layout: Layout) -> None:
    """Emit runs whose packets are copied to a lane."""
    cx.label(".lane")
    cx.emit(f"cmp {lane_word('is_struct')}, 0")
    cx.jump("jne", ".packet_struct")
    cx.jump("call", "place")
    cx.jump("jb", ".outside")
    cx.emit("mov rsi, r14")
    fill_context(cx)
    cx.emit(f"mov {block_word('packet_room')}, rcx")
    cx.emit(f"cmp r15, {block_word('packet_size')}")
    cx.emit(f"mov {block_word('packet_size')}, r15")
    cx.emit(f"mov {block_word('packet_start')}, rsi")
    cx.jump("je", ".lane_sized")
    fill_limits(cx, "lane")
    cx.label(".lane_sized")
    start(cx, layout, lane=True)
    cx.jump("jmp", ".ran")

    cx.label(".packet_struct")
    cx.jump("call", "place_struct")
    cx.jump("jb", ".outside")
    fill_limits(cx, "struct")
    start(cx, layout, lane=True)
    cx.jump("jmp", ".ran")


def _emit_failed(cx: Emitter) -> None:
    """Emit what becomes of a run with a fault: its result is one for all, or it ends the batch."""
    cx.label(".packet_failed")
    cx.emit(f"cmp {block_word('fault_kind')}, {FAULTS.index('raised'):#x}")
    cx.jump("jae", ".packet_raised")
    cx.emit(f"cmp {_batch('fills')}, 0")
    cx.emit(f"mov rax, {_batch('fill')}")
    cx.jump("jne", ".result")
    cx.label(".packet_raised")
    take_lock(cx)
    cx.jump("call", "report")
    cx.label(".raised")
    cx.emit("mov r14d, $imm", imm=RAISED, imm_sizes=(32,))
    cx.jump("jmp", ".close")


def _emit_more(cx: Emitter) -> None:
    """Emit what single runs leave to be done, or to be kept, before the next one."""
    cx.label(".more")
    cx.emit(f"cmp {_batch('reasons')}, 0")
    cx.jump("jne", ".reason")
    cx.label(".reasoned")
    cx.emit(f"cmp {block_word('attached')}, 0")
    cx.jump("jne", ".detach")
    cx.emit(f"cmp {_batch('reserved')}, 0")
    cx.jump("jne", ".detach")
    cx.emit(f"cmp {_batch('after_offsets')}, 0")
    cx.jump("jne", ".keep")
    cx.label(".detached")
    cx.emit(f"cmp {block_word('tail_calls')}, 0")
    cx.jump("jne", ".return_to_origin")
    cx.label(".at_origin")
    cx.emit(f"cmp qword ptr {TAKEN}, 0")
    cx.jump("je", ".released")
    take_lock(cx)
    release_views(cx)
    cx.emit(f"mov qword ptr {TAKEN}, 0")
    _give_lock_back(cx)
    cx.label(".released")
    cx.emit(f"mov rcx, {_batch('index')}")
    cx.jump("jmp", ".next")

    cx.label(".detach")
    take_lock(cx)
    cx.jump("call", "finish")
    cx.emit("test eax, eax")
    cx.jump("jne", ".raised")
    _give_lock_back(cx)
    # The program may have moved its packet, or been given more memory: nothing of it stays.
    _forget_packet(cx)
    cx.emit(f"mov rax, {state_word('regions')}")
    cx.emit(f"mov {block_word('regions')}, rax")
    cx.jump("jmp", ".detached")

    cx.label(".reason")
    cx.emit(f"mov rcx, {_batch('index')}")
    cx.emit(f"mov rdx, {_batch('reasons')}")
    cx.emit(f"mov eax, dword ptr {BLOCK['reason_0']}")
    cx.emit("mov rdi, -1")
    cx.emit(f"cmp {block_word('fault_kind')}, 0")
    cx.emit("cmovne rax, rdi")
    cx.emit("mov qword ptr [rdx+rcx*8], rax")
    cx.jump("jmp", ".reasoned")

    cx.label(".keep")
    cx.jump("call", "keep")
    cx.jump("jae", ".detached")
    cx.emit("mov eax, $imm", imm=NO_ROOM, imm_sizes=(32,))
    cx.jump("jmp", ".stopped")

    cx.label(".return_to_origin")
    return_to_origin(cx)
    _forget_packet(cx)
    cx.jump("jmp", ".at_origin")


def _emit_keep(cx: Emitter, layout: Layout) -> None:
    """Emit `keep`: copies what a run left of its packet to where the batch collects that; r13 is the batch.

    Carry is set where there is no room: then `left_start` and `left_size` say what is to be copied. A run
    that ended with a fault leaves no bytes. Keeps r12, r13, rbx and rbp.
    """
    fields = layout.structs.xdp_md
    cx.begin(NO_PC)
    cx.label("keep", 16)
    cx.emit(f"mov rsi, {block_word('packet_start')}")
    cx.emit(f"mov r8, {block_word('packet_size')}")
    cx.emit(f"cmp {_batch('has_ends')}, 0")
    cx.jump("je", ".keep_whole")
    cx.emit(f"mov rax, {block_word('argument_start')}")
    cx.emit(f"mov esi, dword ptr [rax+{fields['data']:#x}]")
    cx.emit(f"mov r8d, dword ptr [rax+{fields['data_end']:#x}]")
    cx.emit("sub r8, rsi")
    cx.label(".keep_whole")
    cx.emit(f"mov rax, {_batch('hidden')}")
    cx.emit("sub rsi, rax")
    cx.emit("add r8, rax")
    cx.emit("xor eax, eax")
    cx.emit(f"cmp {block_word('fault_kind')}, 0")
    cx.emit("cmovne r8, rax")
    cx.emit(f"mov rdi, {_batch('after_used')}")
    cx.emit(f"mov rax, {_batch('after_room')}")
    cx.emit("sub rax, rdi")
    cx.emit("cmp rax, r8")
    cx.jump("jb", ".keep_no_room")
    cx.emit(f"mov rcx, {_batch('index')}")
    cx.emit(f"mov rdx, {_batch('after_offsets')}")
    cx.emit("mov qword ptr [rdx+rcx*8], rdi")
    cx.emit(f"mov rdx, {_batch('after_lengths')}")
    cx.emit("mov qword ptr [rdx+rcx*8], r8")
    cx.emit(f"add {_batch('after_used')}, r8")
    cx.emit(f"add rdi, {_batch('after')}")
    cx.emit("lea rdx, [r8-0x10]")
    cx.emit("cmp r8, 0x10")
    cx.jump("jb", ".keep_short")
    cx.emit("xor ecx, ecx")
    cx.label(".keep_again")
    cx.emit("movups xmm0, xmmword ptr [rsi+rcx]")
    cx.emit("movups xmmword ptr [rdi+rcx], xmm0")
    cx.emit("add rcx, 0x10")
    cx.emit("cmp rcx, rdx")
    cx.jump("jb", ".keep_again")
    cx.emit("movups xmm0, xmmword ptr [rsi+rdx]")  # the last 16 bytes, some of them again
    cx.emit("movups xmmword ptr [rdi+rdx], xmm0")
    cx.emit("clc")
    cx.emit("ret")
    cx.label(".keep_short")
    cx.label(".keep_byte")
    cx.emit("sub r8, 1")
    cx.jump("jb", ".keep_kept")
    cx.emit("mov al, byte ptr [rsi+r8]")
    cx.emit("mov byte ptr [rdi+r8], al")
    cx.jump("jmp", ".keep_byte")
    cx.label(".keep_kept")
    cx.emit("clc")
    cx.emit("ret")
    cx.label(".keep_no_room")
    cx.emit(f"mov {_batch('left_start')}, rsi")
    cx.emit(f"mov {_batch('left_size')}, r8")
    cx.emit("stc")
    cx.emit("ret")


def _forget_packet(cx: Emitter) -> None:
    """Emit what makes the next packet be taken for another one; in a lane its headers are at their place."""
    other = cx.new_label("no_headers")
    cx.emit(f"mov {block_word('packet_size')}, -1")  # nothing is like it: the limits are to be filled
    cx.emit(f"mov rdx, {state_word('lane')}")
    cx.emit("test rdx, rdx")
    cx.jump("je", other)
    fill_headers(cx)
    cx.label(other)


def _give_lock_back(cx: Emitter) -> None:
    locked = cx.new_label("locked")
    cx.emit(f"cmp {_batch('unlocked')}, 0")
    cx.jump("je", locked)
    release_lock(cx)
    cx.label(locked)


#   sources: rax is the packet's index; r14, r15, rcx are to be its start, size and writable size


def _begin_source(cx: Emitter, name: str) -> None:
    cx.begin(NO_PC)
    cx.label(f"source_{name}", 16)
    cx.emit(f"cmp rax, {_batch('count')}")
    cx.jump("jae", ".finished")


def _emit_source_stride(cx: Emitter) -> None:
    """Emit the source of packets of one size: what was filled for the last one stays."""
    _begin_source(cx, "stride")
    cx.emit(f"mov r15, {_batch('stride')}")
    cx.emit("imul rax, r15")
    cx.emit(f"add rax, {_batch('base')}")
    cx.emit("mov r14, rax")
    cx.emit("mov rcx, r15")
    cx.emit(f"and rcx, {_batch('writable')}")
    cx.emit(f"cmp r15, {block_word('packet_size')}")
    cx.jump("jne", ".found")
    cx.emit(f"cmp {state_word('lane')}, 0")
    cx.jump("jne", ".found")
    cx.emit(f"mov {block_word('packet_start')}, r14")
    cx.emit(f"mov {block_word('argument_start')}, r14")
    cx.jump("jmp", ".sized")


def _emit_source_pairs(cx: Emitter, name: str, offset: str, length: str) -> None:
    """Emit the source of packets that two arrays of integers of these kinds name.

    Without lengths a packet goes up to the next one's offset. The numbers may change while the batch runs:
    what is used is what was checked.
    """
    _begin_source(cx, name)
    cx.emit(f"mov rdi, {_batch('offsets')}")
    if length:
        cx.emit(f"mov rsi, {_batch('lengths')}")
    if offset != ANY:
        _emit_look_ahead(cx, offset)
    _emit_find(cx, offset, length, _batch("size"), ".outside")
    cx.emit(f"add r14, {_batch('base')}")
    cx.emit("mov rcx, r15")
    cx.emit(f"and rcx, {_batch('writable')}")
    cx.jump("jmp", ".found")


def _emit_look_ahead(cx: Emitter, kind: str) -> None:
    """Emit a hint that a packet some places on will be read: it is no more, wherever that is said to be."""
    none = cx.new_label("none_ahead")
    cx.emit(f"lea rdx, [rax+{AHEAD:#x}]")
    cx.emit(f"cmp rdx, {_batch('count')}")
    cx.jump("jae", none)
    cx.emit(_element(kind, "rdx", "rdi", "rdx"))
    cx.emit(f"add rdx, {_batch('base')}")
    cx.emit("prefetcht0 byte ptr [rdx]")
    cx.emit(f"prefetcht0 byte ptr [rdx+{HEADERS:#x}]")
    cx.label(none)


def _emit_find(cx: Emitter, offset: str, length: str, size: str, bad: str) -> None:
    """Emit: r14 and r15 are offset and size of packet rax; a jump where they are not inside of the buffer.

    rdi and rsi are the arrays of offsets and lengths, of these kinds; `size` is the buffer's.
    """
    implied, sized = cx.new_label("implied"), cx.new_label("sized")
    _emit_number(cx, offset, "offset", "r14", "rdi")
    if length == ANY:
        cx.emit("test rsi, rsi")
        cx.jump("je", implied)
    if length:
        _emit_number(cx, length, "length", "r15", "rsi")
    if length == ANY:
        cx.jump("jmp", sized)
        cx.label(implied)
    if length in ("", ANY):
        _emit_number(cx, offset, "offset", "r15", "rdi", 1)
        cx.emit("sub r15, r14")
    cx.label(sized)
    cx.emit(f"mov rdx, {size}")
    cx.emit("sub rdx, r14")
    cx.jump("jb", bad)
    cx.emit("cmp r15, rdx")
    cx.jump("ja", bad)


def _emit_number(cx: Emitter, kind: str, what: str, into: str, array: str, more: int = 0) -> None:
    """Emit what loads element rax + `more` of an array: those below 0 become huge."""
    if kind != ANY:
        cx.emit(_element(kind, into, array, "rax", more))
        return
    loaded = cx.new_label("loaded")
    cx.emit(f"mov rdx, {_batch(what + '_kind')}")
    *others, last = KINDS
    for number, each in enumerate(others):
        other = cx.new_label(f"not_{each}")
        cx.emit(f"cmp edx, {number:#x}")
        cx.jump("jne", other)
        cx.emit(_element(each, into, array, "rax", more))
        cx.jump("jmp", loaded)
        cx.label(other)
    cx.emit(_element(last, into, array, "rax", more))
    cx.label(loaded)


def _element(kind: str, into: str, array: str, index: str, more: int = 0) -> str:
    """Return what loads an integer of an array: those below 0 become huge."""
    size = 8 if kind == "64" else 4
    place = f"[{array}+{index}*{size}{f'+{more * size:#x}' if more else ''}]"
    if kind == "64":
        return f"mov {into}, qword ptr {place}"
    if kind == "i32":
        return f"movsxd {into}, dword ptr {place}"
    return f"mov {_DWORDS[into]}, dword ptr {place}"


_DWORDS = {"r14": "r14d", "r15": "r15d", "rdx": "edx"}


def _emit_source_objects(cx: Emitter, layout: Layout) -> None:
    other = ".objects_other"
    _begin_source(cx, "objects")
    cx.emit(f"mov rdx, {_batch('items')}")
    cx.emit("mov rdi, qword ptr [rdx+rax*8]")
    take_bytes(cx, layout, other)
    cx.jump("jmp", ".found")
    cx.label(other)
    cx.emit("mov r15, rdi")
    take_lock(cx)
    cx.emit("mov rdi, r15")
    cx.emit(f"mov qword ptr {TAKEN}, 1")
    cx.emit(f"lea rsi, {view(0, 0)}")
    cx.jump("call", "take_object")
    cx.emit("test eax, eax")
    cx.jump("jne", ".objects_refused")
    cx.emit(f"cmp {_batch('unlocked')}, 0")
    cx.jump("je", ".found")
    cx.emit("sub rsp, 0x10")
    cx.emit("mov qword ptr [rsp], rcx")
    release_lock(cx)
    cx.emit("mov rcx, qword ptr [rsp]")
    cx.emit("add rsp, 0x10")
    cx.jump("jmp", ".found")
    cx.label(".objects_refused")
    call(cx, "PyErr_Clear")
    cx.jump("jmp", ".outside")


def _emit_check(cx: Emitter, name: str, offset: str, length: str) -> None:
    """Emit `check_NAME(batch)`: the index of the first packet that is out of bounds, or the count."""
    again, out = f".check_{name}_next", f".check_{name}_out"
    kept = ("r13", "r14", "r15")
    cx.begin(NO_PC)
    cx.label(f"check_{name}")
    for saved in kept:
        cx.emit(f"push {saved}")
    cx.emit("mov r13, rdi")
    for register, word in {"rdi": "offsets", "rsi": "lengths", "r8": "size", "r9": "count"}.items():
        cx.emit(f"mov {register}, {_batch(word)}")
    cx.emit("xor eax, eax")
    cx.label(again, 16)
    cx.emit("cmp rax, r9")
    cx.jump("jae", out)
    _emit_find(cx, offset, length, "r8", out)
    cx.emit("inc rax")
    cx.jump("jmp", again)
    cx.label(out)
    for saved in reversed(kept):
        cx.emit(f"pop {saved}")
    cx.emit("ret")
