"""What programs send to ring and perf buffers, without Python: of batches whose caller takes the events.

    call ringbuf_output;  jb slow         slow:  the helper in Python

As `packets`: carry says that nothing was done, and Python does it. Else carry is clear, rax the result, and
r1 to r5 are lost. rax, r10 and r11 are lost either way.

A batch has channels, one for each map that its runs may send to. What a run sends is put behind what was sent
before, as an entry; Python takes all of them when the batch is over, or gets to know a run (`jit.sending`).
Ring records lie where they do without a batch, and move the same positions on, so that programs see no
difference. What is unusual is Python's: two records that are reserved at a time, a full ring, many bytes.
"""

from __future__ import annotations

from ebpfjit.translators.block import (
    BATCH_WORDS,
    CHANNEL_WORDS,
    DISCARDED,
    ENTRY_SIZE,
    PERF_CHANNEL,
    RING_CHANNEL,
    RING_HEADER,
)
from ebpfjit.translators.emitter import NO_PC, Emitter
from ebpfjit.translators.x86_64.runs import block_word

LARGEST = 4096
"""Bytes of an event that the call pays for: for more, Python takes something off the budget."""
CHANNEL_SIZE = 8 * len(CHANNEL_WORDS)


def _batch(name: str) -> str:
    """Return the operand of a batch's word; r10 is the batch."""
    return f"qword ptr [r10+{8 * BATCH_WORDS.index(name):#x}]"


def _channel(name: str) -> str:
    """Return the operand of a channel's word; r11 is the channel."""
    return f"qword ptr [r11+{8 * CHANNEL_WORDS.index(name):#x}]"


def emit_events(cx: Emitter) -> None:
    """Emit all of them."""
    _emit_ringbuf_output(cx)
    _emit_ringbuf_reserve(cx)
    _emit_taken_back(cx, "ringbuf_submit")
    _emit_taken_back(cx, "ringbuf_discard")
    _emit_perf_event_output(cx)
    _emit_find_channel(cx)
    _emit_find_room(cx)
    _emit_put_event(cx)
    _emit_copy_bytes(cx)


def _begin(cx: Emitter, name: str) -> str:
    """Emit the label; return that of a way out with carry set."""
    cx.begin(NO_PC)
    cx.label(name, 16)
    return f".{name}_slow"


def _end(cx: Emitter, slow: str) -> None:
    cx.label(slow)
    cx.emit("stc")
    cx.emit("ret")


def _need_batch(cx: Emitter, slow: str) -> None:
    """Emit a jump unless Python takes what runs send when the batch is over; r10 becomes the batch."""
    cx.emit(f"cmp {block_word('attached')}, 0")
    cx.jump("jne", slow)
    cx.emit(f"mov r10, {block_word('batch')}")
    cx.emit("test r10, r10")
    cx.jump("je", slow)
    cx.emit(f"cmp {_batch('sent')}, 0")
    cx.jump("je", slow)


def _need_place(cx: Emitter, size: str, slow: str) -> None:
    """Emit a jump unless an entry of so many bytes finds room. Clobbers rax."""
    cx.emit(f"lea rax, [{size}+{ENTRY_SIZE + 7:#x}]")
    cx.emit("and rax, -8")
    cx.emit(f"add rax, {_batch('sent_used')}")
    cx.emit(f"cmp rax, {_batch('sent_room')}")
    cx.jump("ja", slow)


def _need_bytes(cx: Emitter, start: str, size: str, slow: str) -> None:
    """Emit a jump unless a usual number of bytes may be read there. Clobbers rax."""
    cx.emit(f"lea rax, [{size}-1]")
    cx.emit(f"cmp rax, {LARGEST - 1:#x}")
    cx.jump("ja", slow)
    _need_place(cx, size, slow)
    cx.emit("push r10")
    cx.emit("push r11")
    cx.emit(f"mov r11, {start}")
    cx.emit(f"mov r10, {size}")
    cx.jump("call", "is_load")
    cx.emit("pop r11")
    cx.emit("pop r10")
    cx.jump("jb", slow)


def _need_kind(cx: Emitter, kind: int, slow: str) -> None:
    cx.emit(f"cmp {_channel('kind')}, {kind:#x}")
    cx.jump("jne", slow)


def _emit_find_channel(cx: Emitter) -> None:
    """Emit `find_channel`: r10 and r11 become the batch and its channel to the map in rax, else carry is set.

    There is none where Python knows the run.
    """
    none, again, found = ".find_channel_none", ".find_channel_again", ".find_channel_found"
    cx.begin(NO_PC)
    cx.label("find_channel")
    _need_batch(cx, none)
    cx.emit(f"mov r11, {_batch('channels')}")
    cx.label(again)
    cx.emit(f"cmp r11, {_batch('channels_stop')}")
    cx.jump("jae", none)
    cx.emit(f"cmp rax, {_channel('map')}")
    cx.jump("je", found)
    cx.emit(f"add r11, {CHANNEL_SIZE:#x}")
    cx.jump("jmp", again)
    cx.label(found)
    cx.emit("clc")
    cx.emit("ret")
    _end(cx, none)


def _emit_find_room(cx: Emitter) -> None:
    """Emit `find_room`: rbx becomes the offset in a ring of a record of r13 bytes, rax the producer then.

    Carry is set where there is none, or where others have records in the ring. r10 and r11 are batch and
    channel. What earlier runs sent is in their entries: it takes no room.
    """
    first, empty, ours, out = (f".find_room_{part}" for part in ("first", "empty", "ours", "out"))
    cx.begin(NO_PC)
    cx.label("find_room")
    for name in ("rcx", "rdx", "r8"):
        cx.emit(f"push {name}")
    cx.emit(f"mov rcx, {_channel('ends')}")
    cx.emit("mov rax, qword ptr [rcx]")
    cx.emit(f"mov rdx, {_batch('index')}")
    cx.emit(f"cmp rdx, {_channel('index')}")
    cx.jump("jne", first)
    cx.emit(f"cmp rax, {_channel('last')}")
    cx.jump("je", ours)
    cx.emit("stc")
    cx.jump("jmp", out)
    cx.label(first)
    cx.emit(f"cmp rax, {_channel('last')}")
    cx.jump("je", empty)
    cx.emit("cmp rax, qword ptr [rcx+8]")
    cx.jump("je", empty)
    cx.emit("stc")
    cx.jump("jmp", out)
    cx.label(empty)
    cx.emit("mov qword ptr [rcx+8], rax")
    cx.emit(f"mov {_channel('index')}, rdx")
    cx.emit(f"mov {_channel('last')}, rax")
    cx.emit(f"mov {_channel('owed')}, 0")
    cx.label(ours)
    cx.emit("mov rbx, rax")
    cx.emit(f"and rbx, {_channel('mask')}")
    cx.emit(f"lea rdx, [r13+{RING_HEADER + 7:#x}]")
    cx.emit("and rdx, -8")
    cx.emit("add rax, rdx")
    cx.emit("mov r8, rax")
    cx.emit("sub r8, qword ptr [rcx+8]")
    cx.emit(f"cmp {_channel('mask')}, r8")  # at most size - 1 bytes are taken
    cx.label(out)
    for name in ("r8", "rdx", "rcx"):
        cx.emit(f"pop {name}")
    cx.emit("ret")


def _take_room(cx: Emitter) -> None:
    """Emit: the ring's producer is rax. Clobbers rcx."""
    cx.emit(f"mov rcx, {_channel('ends')}")
    cx.emit("push rax")
    cx.emit("sub rax, qword ptr [rcx]")
    cx.emit(f"add {_channel('owed')}, rax")
    cx.emit("pop rax")
    cx.emit("mov qword ptr [rcx], rax")
    cx.emit(f"mov {_channel('last')}, rax")


def _emit_put_event(cx: Emitter) -> None:
    """Emit `put_event`: an entry with the rdx bytes at rsi, and the number in rcx; r8 becomes where they are.

    There is room for it. Clobbers all of r1 to r5, and rax.
    """
    cx.begin(NO_PC)
    cx.label("put_event")
    cx.emit(f"mov rdi, {_batch('sent_used')}")
    cx.emit(f"lea rax, [rdx+{ENTRY_SIZE + 7:#x}]")
    cx.emit("and rax, -8")
    cx.emit("add rax, rdi")
    cx.emit(f"mov {_batch('sent_used')}, rax")
    cx.emit(f"add rdi, {_batch('sent')}")
    cx.emit(f"mov rax, {_batch('index')}")
    for offset, value in enumerate(("rax", "r11", "rdx", "rcx")):
        cx.emit(f"mov qword ptr [rdi+{8 * offset:#x}], {value}")
    cx.emit(f"add rdi, {ENTRY_SIZE:#x}")
    cx.emit("mov r8, rdi")
    cx.jump("jmp", "copy_bytes")


def _emit_copy_bytes(cx: Emitter) -> None:
    """Emit `copy_bytes`: rdx bytes from rsi to rdi, which are lost; rax becomes 0, and carry clear."""
    again, rest, byte, out = (f".copy_bytes_{part}" for part in ("again", "rest", "byte", "out"))
    cx.begin(NO_PC)
    cx.label("copy_bytes")
    cx.label(again)
    cx.emit("sub rdx, 8")
    cx.jump("jl", rest)
    cx.emit("mov rax, qword ptr [rsi]")
    cx.emit("mov qword ptr [rdi], rax")
    cx.emit("add rsi, 8")
    cx.emit("add rdi, 8")
    cx.jump("jmp", again)
    cx.label(rest)
    cx.emit("and edx, 7")  # as many as there were: 8 too many were taken off
    cx.jump("je", out)
    cx.label(byte)
    cx.emit("mov al, byte ptr [rsi]")
    cx.emit("mov byte ptr [rdi], al")
    cx.emit("inc rsi")
    cx.emit("inc rdi")
    cx.emit("dec edx")
    cx.jump("jne", byte)
    cx.label(out)
    cx.emit("xor eax, eax")
    cx.emit("ret")


def _emit_ringbuf_output(cx: Emitter) -> None:
    """The record is copied to its entry and then to the ring: it may have come from there."""
    slow = _begin(cx, "ringbuf_output")
    cx.emit("mov rax, rcx")
    cx.emit("shr rax, 2")  # flags: to wake somebody up, or not
    cx.jump("jne", slow)
    cx.emit("mov rax, rdi")
    cx.jump("call", "find_channel")
    cx.jump("jb", slow)
    _need_kind(cx, RING_CHANNEL, slow)
    cx.emit(f"cmp {_batch('reserved')}, 0")
    cx.jump("jne", slow)
    _need_bytes(cx, "rsi", "rdx", slow)
    cx.emit("push rbx")
    cx.emit("push r13")
    cx.emit("mov r13, rdx")
    cx.jump("call", "find_room")
    cx.jump("jb", f"{slow}_full")
    _take_room(cx)
    cx.emit("mov rcx, rbx")
    cx.emit(f"add rbx, {_channel('memory')}")
    cx.jump("call", "put_event")
    cx.emit("mov rsi, r8")
    cx.emit(f"lea rdi, [rbx+{RING_HEADER:#x}]")
    cx.emit("mov rdx, r13")
    cx.jump("call", "copy_bytes")
    cx.emit("pop r13")
    cx.emit("pop rbx")
    cx.emit("ret")
    cx.label(f"{slow}_full")
    cx.emit("pop r13")
    cx.emit("pop rbx")
    _end(cx, slow)


def _emit_ringbuf_reserve(cx: Emitter) -> None:
    """The record is the only one that the run has; who gets to know the run is told where it was taken."""
    slow = _begin(cx, "ringbuf_reserve")
    cx.emit("test rdx, rdx")
    cx.jump("jne", slow)
    cx.emit(f"cmp rsi, {LARGEST:#x}")
    cx.jump("ja", slow)
    cx.emit("mov rax, rdi")
    cx.jump("call", "find_channel")
    cx.jump("jb", slow)
    _need_kind(cx, RING_CHANNEL, slow)
    cx.emit(f"cmp {_batch('reserved')}, 0")
    cx.jump("jne", slow)
    cx.emit("mov rax, qword ptr [rsp]")  # behind the call
    cx.emit("push rbx")
    cx.emit("push r13")
    cx.emit("push rax")
    cx.emit("mov r13, rsi")
    cx.jump("call", "find_room")
    cx.jump("jb", f"{slow}_full")
    _take_room(cx)
    cx.emit(f"mov {_batch('reserved_size')}, rsi")
    cx.emit(f"mov {_batch('reserved_channel')}, r11")
    cx.emit("pop rax")
    cx.emit(f"mov {_batch('reserved_place')}, rax")
    cx.emit(f"mov rax, {block_word('state')}")
    cx.emit(f"mov {_batch('reserved_state')}, rax")
    cx.emit(f"mov rax, {_channel('memory')}")
    cx.emit(f"lea rax, [rax+rbx+{RING_HEADER:#x}]")
    cx.emit(f"mov {_batch('reserved')}, rax")
    cx.emit("pop r13")
    cx.emit("pop rbx")
    cx.emit("clc")
    cx.emit("ret")
    cx.label(f"{slow}_full")
    cx.emit("pop rax")
    cx.emit("pop r13")
    cx.emit("pop rbx")
    _end(cx, slow)


def _emit_taken_back(cx: Emitter, name: str) -> None:
    """The record is what the run has reserved."""
    slow = _begin(cx, name)
    _need_batch(cx, slow)
    cx.emit("test rdi, rdi")
    cx.jump("je", slow)
    cx.emit(f"cmp rdi, {_batch('reserved')}")
    cx.jump("jne", slow)
    cx.emit(f"mov r11, {_batch('reserved_size')}")
    _need_place(cx, "r11", slow)
    cx.emit("mov rdx, r11" if name == "ringbuf_submit" else "xor edx, edx")
    cx.emit(f"mov r11, {_batch('reserved_channel')}")
    cx.emit("mov rsi, rdi")
    cx.emit("mov rcx, rdi")
    cx.emit(f"sub rcx, {_channel('memory')}")
    cx.emit(f"sub rcx, {RING_HEADER:#x}")
    cx.emit(f"mov {_batch('reserved')}, 0")
    cx.jump("call", "put_event")
    if name == "ringbuf_discard":
        cx.emit("movabs rax, $imm", imm=DISCARDED, imm_sizes=(64,))
        cx.emit(f"or rax, {_batch('reserved_size')}")
        cx.emit("mov qword ptr [r8-0x10], rax")  # the size
        cx.emit("xor eax, eax")
    cx.emit("ret")
    _end(cx, slow)


def _emit_perf_event_output(cx: Emitter) -> None:
    """Bytes of the packet, which the upper half of the flags asks for, are Python's."""
    slow, here = _begin(cx, "perf_event_output"), ".perf_event_output_here"
    cx.emit("mov rax, rsi")
    cx.jump("call", "find_channel")
    cx.jump("jb", slow)
    _need_kind(cx, PERF_CHANNEL, slow)
    cx.emit(f"mov rax, {_channel('ends')}")
    cx.emit("mov rax, qword ptr [rax]")
    cx.emit(f"cmp rax, {_channel('last')}")  # somebody listens, or not any more
    cx.jump("jne", slow)
    cx.emit("mov eax, 0xffffffff")  # BPF_F_CURRENT_CPU
    cx.emit("cmp rdx, rax")
    cx.jump("je", here)
    cx.emit(f"cmp rdx, {_channel('memory')}")
    cx.jump("jne", slow)
    cx.label(here)
    _need_bytes(cx, "rcx", "r8", slow)
    cx.emit("mov rsi, rcx")
    cx.emit("mov rdx, r8")
    cx.emit("xor ecx, ecx")
    cx.jump("jmp", "put_event")
    _end(cx, slow)
