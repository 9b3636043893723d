"""Helpers on packets that need no Python where all is as usual: they move the packet's ends, and copy bytes.

    call xdp_adjust_head;  jb slow         slow:  the helper in Python

Each gets r1 to r5 as the helper does. Carry says that nothing was done: the context is not this run's, an
argument is no usual one, or the helper would raise; then Python does it, and raises what is to be raised.
Else carry is clear, rax the result, and r1 to r5 are lost. rax, r10 and r11 are lost either way.

What moves ends does so only in a lane (`lanes`), as long as Python does not know the run: who gets to know
it finds in the lane that its packet has moved (`jit.gate.Lane`). What XDP programs may do is what
`runtime.helpers.packet` says, after bpf_xdp_adjust_head and its neighbours in net/core/filter.c.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ebpfjit.translators.block import LANE_WORDS, STATE_WORDS
from ebpfjit.translators.emitter import NO_PC, Emitter
from ebpfjit.translators.host import Room, Structs
from ebpfjit.translators.x86_64.lanes import SMALLEST
from ebpfjit.translators.x86_64.runs import block_word, fill_limits

EINVAL, EACCES, ENOMEM = 22, 13, 12
LARGEST_COPY = 4096
"""Bytes that a call pays for: what copies more takes them off the budget, which Python does."""


def _lane(name: str) -> str:
    """Return the operand of a lane's word; r10 is the lane."""
    return f"qword ptr [r10+{8 * LANE_WORDS.index(name):#x}]"


def _begin(cx: Emitter, name: str) -> None:
    """Emit the label, and a way out with carry set unless r1 is the run's context."""
    cx.begin(NO_PC)
    cx.label(name, 16)
    cx.emit(f"cmp rdi, {block_word('argument_start')}")
    cx.jump("jne", f".{name}_slow")


def _end(cx: Emitter, name: str, refusals: Mapping[str, int]) -> None:
    """Emit the ways out: results that are errors, and what Python does."""
    for label, number in refusals.items():
        cx.label(f".{name}_{label}")
        cx.emit("mov rax, $imm", imm=-number, imm_sizes=(32,))
        cx.emit("clc")
        cx.emit("ret")
    cx.label(f".{name}_slow")
    cx.emit("stc")
    cx.emit("ret")


def emit_packets(cx: Emitter, structs: Structs, room: Room) -> None:
    """Emit all of them."""
    _emit_adjust_head(cx, structs.xdp_md, room)
    _emit_adjust_tail(cx, structs.xdp_md, room)
    _emit_adjust_meta(cx, structs.xdp_md, room)
    _emit_packet_moved(cx)
    _emit_xdp_length(cx, structs.xdp_md)
    _emit_copy(cx, "xdp_load_bytes", lambda: _xdp_bounds(cx, "xdp_load_bytes", structs.xdp_md))
    _emit_copy(cx, "xdp_store_bytes", lambda: _xdp_bounds(cx, "xdp_store_bytes", structs.xdp_md), stores=True)
    _emit_copy(cx, "skb_load_bytes", lambda: _skb_bounds(cx, "skb_load_bytes", structs.sk_buff))
    _emit_pull_data(cx, structs.sk_buff)


# -- the ends of an XDP packet: rdi is xdp_md, esi the distance ------------------------------------


def _begin_move(cx: Emitter, name: str) -> None:
    """Emit the start of what moves a packet: r10 is the lane, rsi the distance, signed."""
    _begin(cx, name)
    slow = f".{name}_slow"
    cx.emit(f"mov r10, {block_word('state')}")
    cx.emit("test r10, r10")
    cx.jump("je", slow)
    cx.emit(f"cmp {block_word('attached')}, 0")
    cx.jump("jne", slow)
    cx.emit(f"mov r10, qword ptr [r10+{8 * STATE_WORDS.index('lane'):#x}]")
    cx.emit("test r10, r10")
    cx.jump("je", slow)


def _emit_adjust_head(cx: Emitter, fields: Mapping[str, int], room: Room) -> None:
    """Metadata would move with the start: that is left to Python."""
    name = "xdp_adjust_head"
    _begin_move(cx, name)
    cx.emit(f"mov eax, dword ptr [rdi+{fields['data']:#x}]")
    cx.emit(f"cmp eax, dword ptr [rdi+{fields['data_meta']:#x}]")
    cx.jump("jne", f".{name}_slow")
    cx.emit("movsxd rsi, esi")
    cx.emit("add rsi, rax")
    _not_before(cx, f".{name}_invalid", room)
    cx.emit(f"mov edx, dword ptr [rdi+{fields['data_end']:#x}]")
    cx.emit(f"lea rcx, [rdx-{SMALLEST:#x}]")
    cx.emit("cmp rsi, rcx")
    cx.jump("jg", f".{name}_invalid")
    for field in ("data", "data_meta"):
        cx.emit(f"mov dword ptr [rdi+{fields[field]:#x}], esi")
    cx.jump("jmp", "packet_moved")
    _end(cx, name, {"invalid": EINVAL})


def _not_before(cx: Emitter, refused: str, room: Room) -> None:
    """Emit a jump where rsi is further in front than anything of the packet may be."""
    cx.emit(f"mov rcx, {_lane('packet')}")
    cx.emit(f"sub rcx, {room.head:#x}")
    cx.emit("cmp rsi, rcx")
    cx.jump("jl", refused)


def _emit_adjust_tail(cx: Emitter, fields: Mapping[str, int], room: Room) -> None:
    """The packet has the rest of its page, or ends at most where it ended."""
    name, grown = "xdp_adjust_tail", ".adjusted_tail"
    _begin_move(cx, name)
    cx.emit("movsxd rsi, esi")
    cx.emit(f"mov edx, dword ptr [rdi+{fields['data_end']:#x}]")
    cx.emit("lea r8, [rdx+rsi]")
    cx.emit(f"mov rcx, {_lane('size')}")
    cx.emit("mov eax, $imm", imm=room.tail, imm_sizes=(32,))
    cx.emit("cmp rcx, rax")
    cx.emit("cmovb rcx, rax")
    cx.emit(f"add rcx, {_lane('packet')}")
    cx.emit("cmp r8, rcx")
    cx.jump("jg", f".{name}_invalid")
    cx.emit(f"mov eax, dword ptr [rdi+{fields['data']:#x}]")
    cx.emit(f"add rax, {SMALLEST:#x}")
    cx.emit("cmp r8, rax")
    cx.jump("jl", f".{name}_invalid")
    cx.emit(f"mov dword ptr [rdi+{fields['data_end']:#x}], r8d")
    cx.emit(f"mov esi, dword ptr [rdi+{fields['data_meta']:#x}]")
    cx.emit("mov rcx, r8")
    cx.emit("sub rcx, rdx")
    cx.jump("jle", grown)
    again, rest = ".adjusted_tail_again", ".adjusted_tail_rest"
    cx.emit("xor eax, eax")
    cx.label(again)
    cx.emit("sub rcx, 8")
    cx.jump("jl", rest)
    cx.emit("mov qword ptr [rdx], rax")
    cx.emit("add rdx, 8")
    cx.jump("jmp", again)
    cx.label(rest)
    cx.emit("cmp rdx, r8")
    cx.jump("je", grown)
    cx.emit("mov byte ptr [rdx], al")
    cx.emit("inc rdx")
    cx.jump("jmp", rest)
    cx.label(grown)
    cx.emit("mov rdx, r8")
    cx.jump("jmp", "packet_moved")
    _end(cx, name, {"invalid": EINVAL})


def _emit_adjust_meta(cx: Emitter, fields: Mapping[str, int], room: Room) -> None:
    name = "xdp_adjust_meta"
    _begin_move(cx, name)
    cx.emit("movsxd rsi, esi")
    cx.emit(f"mov eax, dword ptr [rdi+{fields['data_meta']:#x}]")
    cx.emit("add rsi, rax")
    _not_before(cx, f".{name}_invalid", room)
    cx.emit(f"mov ecx, dword ptr [rdi+{fields['data']:#x}]")
    cx.emit("sub rcx, rsi")
    cx.jump("jl", f".{name}_invalid")
    cx.emit("test ecx, 3")
    cx.jump("jne", f".{name}_odd")
    cx.emit(f"cmp rcx, {room.metadata:#x}")
    cx.jump("ja", f".{name}_odd")
    cx.emit(f"mov dword ptr [rdi+{fields['data_meta']:#x}], esi")
    cx.emit(f"mov edx, dword ptr [rdi+{fields['data_end']:#x}]")
    cx.jump("jmp", "packet_moved")
    _end(cx, name, {"invalid": EINVAL, "odd": EACCES})


def _emit_packet_moved(cx: Emitter) -> None:
    """Emit what tells the run that its packet goes from rsi to rdx now; r10 is the lane."""
    cx.begin(NO_PC)
    cx.label("packet_moved")
    cx.emit(f"mov {_lane('moved')}, 1")
    cx.emit(f"mov {block_word('packet_start')}, rsi")
    cx.emit("sub rdx, rsi")
    cx.emit(f"mov {block_word('packet_size')}, rdx")
    cx.emit(f"and rdx, {_lane('writable')}")
    cx.emit(f"mov {block_word('packet_room')}, rdx")
    cx.emit("push rbx")
    cx.emit(f"mov rbx, {block_word('state')}")
    fill_limits(cx, "moved")
    cx.emit("pop rbx")
    cx.emit("xor eax, eax")  # carry is clear
    cx.emit("ret")


# -- bytes of packets -------------------------------------------------------------------------------


def _emit_copy(cx: Emitter, name: str, bounds: Callable[[], None], *, stores: bool = False) -> None:
    """Emit what copies ecx bytes from (to, where it `stores`) offset esi of the packet to (from) rdx.

    `bounds` puts the packet's bytes at that offset into r8, where they are all in it. Memory that is in the
    packet itself, or cannot be accessed, is left to Python; so are no bytes, and many.
    """
    slow = f".{name}_slow"
    _begin(cx, name)
    cx.emit("lea eax, [rcx-1]")
    cx.emit(f"cmp eax, {LARGEST_COPY - 1:#x}")
    cx.jump("ja", slow)
    cx.emit("mov rax, rdx")
    cx.emit(f"sub rax, {block_word('packet_start')}")
    cx.emit(f"cmp rax, {block_word('packet_size')}")
    cx.jump("jb", slow)
    cx.emit("mov r11, rdx")
    cx.emit("mov r10d, ecx")
    cx.jump("call", "is_load" if stores else "is_store")
    cx.jump("jb", slow)
    cx.emit("mov ecx, ecx")
    bounds()
    cx.emit("mov rdi, r8" if stores else "mov rdi, rdx")
    cx.emit("mov rsi, rdx" if stores else "mov rsi, r8")
    again, rest, copied = (f".{name}_{part}" for part in ("again", "rest", "copied"))
    cx.label(again)
    cx.emit("sub ecx, 8")
    cx.jump("jl", rest)
    cx.emit("mov rdx, qword ptr [rsi]")
    cx.emit("mov qword ptr [rdi], rdx")
    cx.emit("add rsi, 8")
    cx.emit("add rdi, 8")
    cx.jump("jmp", again)
    cx.label(rest)
    cx.emit("and ecx, 7")  # as many as there were: 8 too many were taken off
    cx.jump("je", copied)
    cx.emit("mov dl, byte ptr [rsi]")
    cx.emit("mov byte ptr [rdi], dl")
    cx.emit("inc rsi")
    cx.emit("inc rdi")
    cx.emit("dec ecx")
    cx.jump("jmp", rest)
    cx.label(copied)
    cx.emit("xor eax, eax")
    cx.emit("ret")
    _end(cx, name, {})


def _xdp_bounds(cx: Emitter, name: str, fields: Mapping[str, int]) -> None:
    """Bytes that are not all in the first buffer are an error, or in another one. Clobbers rax, r10, r11."""
    cx.emit(f"mov r8d, dword ptr [rdi+{fields['data']:#x}]")
    cx.emit(f"mov r10d, dword ptr [rdi+{fields['data_end']:#x}]")
    cx.emit("sub r10, r8")
    _at_offset(cx, name)


def _skb_bounds(cx: Emitter, name: str, fields: Mapping[str, int]) -> None:
    """Where there are metadata in front of the packet, the run does not say where that starts."""
    cx.emit(f"mov r10d, dword ptr [rdi+{fields['len']:#x}]")
    cx.emit(f"cmp r10, {block_word('packet_size')}")
    cx.jump("jne", f".{name}_slow")
    cx.emit(f"mov r8, {block_word('packet_start')}")
    _at_offset(cx, name)


def _at_offset(cx: Emitter, name: str) -> None:
    """Emit: r8 is the packet's start, r10 its size; r8 becomes where rcx bytes at offset esi of it are."""
    cx.emit("mov eax, esi")
    cx.emit("lea r11, [rax+rcx]")
    cx.emit("cmp r11, r10")
    cx.jump("ja", f".{name}_slow")
    cx.emit("cmp eax, 0xffff")  # further in no offset is taken by some
    cx.jump("ja", f".{name}_slow")
    cx.emit("add r8, rax")


def _emit_xdp_length(cx: Emitter, fields: Mapping[str, int]) -> None:
    """Of a packet in pieces Python knows all: only in a lane is there one buffer for sure."""
    name = "xdp_get_buff_len"
    _begin_move(cx, name)
    cx.emit(f"mov eax, dword ptr [rdi+{fields['data_end']:#x}]")
    cx.emit(f"sub eax, dword ptr [rdi+{fields['data']:#x}]")
    cx.emit("clc")
    cx.emit("ret")
    _end(cx, name, {})


def _emit_pull_data(cx: Emitter, fields: Mapping[str, int]) -> None:
    """All bytes can be read as it is: it is only said whether there are as many."""
    name = "skb_pull_data"
    _begin(cx, name)
    cx.emit(f"cmp esi, dword ptr [rdi+{fields['len']:#x}]")
    cx.jump("ja", f".{name}_few")
    cx.emit("xor eax, eax")
    cx.emit("ret")
    _end(cx, name, {"few": ENOMEM})
