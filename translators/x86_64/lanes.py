"""Where packets of programs with a context are put, for runs that start without Python.

A lane is memory for one run at a time: the context's struct, and a packet with room around it. Its
words, 8 bytes each, say whether a run is using it, and what is where. `place` copies a packet there
and what the struct starts as, then a routine for the kind of context fills in what follows from the
packet, as `runtime.contexts` does: `fill_xdp_md`, `fill_sk_buff`. Where there is no packet, the caller's
bytes are the struct: `place_struct`.
"""

from __future__ import annotations

from collections.abc import Mapping

from ebpfjit.translators.block import BLOCK_WORDS, LANE_WORDS
from ebpfjit.translators.emitter import NO_PC, Emitter
from ebpfjit.translators.host import Room, Structs

LANE = {name: f"[rdx+{8 * index:#x}]" for index, name in enumerate(LANE_WORDS)}

SMALLEST = 14  # an Ethernet header: what BPF_PROG_TEST_RUN takes at least
ETHERTYPE, SMALLEST_ETHERTYPE = 12, 0x600
ETH_P_802_3, ETH_P_802_2 = 0x0001, 0x0004
ETH_P_IP, ETH_P_IPV6, AF_INET, AF_INET6 = 0x0800, 0x86DD, 2, 10
PACKET_MULTICAST, PACKET_OTHERHOST = 2, 3


def lane_word(name: str) -> str:
    """Return the operand of a lane's word; rdx is the lane."""
    return f"qword ptr {LANE[name]}"


def emit_lanes(cx: Emitter, structs: Structs, room: Room) -> None:
    """Emit `place` and what fills the structs, and `place_struct`."""
    _emit_place(cx, room)
    _emit_place_struct(cx)
    _emit_fill_xdp_md(cx, structs.xdp_md)
    _emit_fill_sk_buff(cx, structs)


def _emit_place(cx: Emitter, room: Room) -> None:
    """Emit `place`: r14 and r15 are start and size of a packet, rdx the lane.

    Then r14, r15 and rcx are start, size and writable size of what the program sees of the copy, and
    rax is the struct. For a packet too short, or too long, carry is set and nothing done. Keeps r12,
    r13, rbx, rbp and rdx.
    """
    short, out, moved, clean = ".place_short", ".place_out", ".place_moved", ".place_clean"
    cx.begin(NO_PC)
    cx.label("place", 16)
    cx.emit(f"lea rax, [r15-{SMALLEST:#x}]")
    cx.emit(f"mov rcx, {lane_word('room')}")
    cx.emit(f"sub rcx, {SMALLEST:#x}")
    cx.emit("cmp rcx, rax")
    cx.jump("jb", out)
    cx.emit(f"mov rdi, {lane_word('packet')}")
    cx.emit(f"mov {lane_word('size')}, r15")
    cx.emit(f"cmp {lane_word('moved')}, 0")
    cx.jump("jne", moved)
    cx.label(clean)
    cx.emit("lea rsi, [r15-0x10]")
    cx.emit("cmp r15, 0x10")
    cx.jump("jb", short)
    cx.emit("xor ecx, ecx")
    cx.label(".place_again")
    cx.emit("movups xmm0, xmmword ptr [r14+rcx]")
    cx.emit("movups xmmword ptr [rdi+rcx], xmm0")
    cx.emit("add rcx, 0x10")
    cx.emit("cmp rcx, rsi")
    cx.jump("jb", ".place_again")
    cx.emit("movups xmm0, xmmword ptr [r14+rsi]")  # the last 16 bytes, some of them again
    cx.emit("movups xmmword ptr [rdi+rsi], xmm0")
    cx.label(".place_copied")
    cx.emit(f"mov rax, {lane_word('struct')}")
    cx.emit(f"mov rsi, {lane_word('template')}")
    cx.emit(f"mov rcx, {lane_word('template_size')}")
    cx.label(".place_template")
    cx.emit("movups xmm0, xmmword ptr [rsi+rcx-0x10]")
    cx.emit("movups xmmword ptr [rax+rcx-0x10], xmm0")
    cx.emit("sub rcx, 0x10")
    cx.jump("jne", ".place_template")
    cx.emit(f"mov rsi, {lane_word('hidden')}")
    cx.emit("lea r14, [rdi+rsi]")
    cx.emit("sub r15, rsi")
    cx.emit(f"call {lane_word('fill')}")
    cx.emit("mov rcx, r15")
    cx.emit(f"and rcx, {lane_word('writable')}")  # carry is clear
    cx.label(out)
    cx.emit("ret")
    with cx.out_of_line(short):
        cx.emit("mov rax, qword ptr [r14]")
        cx.emit("mov rcx, qword ptr [r14+r15-8]")
        cx.emit("mov qword ptr [rdi], rax")
        cx.emit("mov qword ptr [rdi+r15-8], rcx")
        cx.jump("jmp", ".place_copied")
    with cx.out_of_line(moved):
        cx.emit(f"mov {lane_word('moved')}, 0")
        cx.emit("xorps xmm0, xmm0")
        for place in range(room.headroom, 0, -0x10):
            cx.emit(f"movups xmmword ptr [rdi-{place:#x}], xmm0")
        cx.jump("jmp", clean)


def _emit_place_struct(cx: Emitter) -> None:
    """Emit `place_struct`: r14 and r15 are start and size of a struct's bytes, rdx the lane.

    Then r14 is the copy, and the block says where it is. For a struct too short, too long, or with pointers
    of its own, carry is set and nothing is done that counts. Keeps r12, r13, rbx, rbp and rdx.
    """
    small, byte, copied, out, odd = (
        f".struct_{name}" for name in ("small", "byte", "copied", "out", "odd")
    )  # fmt: skip
    cx.begin(NO_PC)
    cx.label("place_struct", 16)
    cx.emit("mov rax, r15")
    cx.emit(f"sub rax, {lane_word('least')}")
    cx.emit(f"mov rcx, {lane_word('room')}")
    cx.emit(f"sub rcx, {lane_word('least')}")
    cx.emit("cmp rcx, rax")
    cx.jump("jb", out)
    cx.emit(f"mov rdi, {lane_word('struct')}")
    cx.emit(f"mov {lane_word('size')}, r15")
    cx.emit("lea rsi, [r15-0x10]")
    cx.emit("cmp r15, 0x10")
    cx.jump("jb", small)
    cx.emit("xor ecx, ecx")
    cx.label(".struct_again")
    cx.emit("movups xmm0, xmmword ptr [r14+rcx]")
    cx.emit("movups xmmword ptr [rdi+rcx], xmm0")
    cx.emit("add rcx, 0x10")
    cx.emit("cmp rcx, rsi")
    cx.jump("jb", ".struct_again")
    cx.emit("movups xmm0, xmmword ptr [r14+rsi]")  # the last 16 bytes, some of them again
    cx.emit("movups xmmword ptr [rdi+rsi], xmm0")
    cx.label(copied)
    _emit_pairs(cx, "links")
    cx.emit("cmp qword ptr [rdi+r8], 0")
    cx.jump("jne", odd)
    cx.emit("mov qword ptr [rdi+r8], r9")
    _end_pairs(cx, "links")
    _emit_pairs(cx, "copies")
    cx.emit("mov eax, dword ptr [rdi+r8]")
    cx.emit("mov dword ptr [r9], eax")
    _end_pairs(cx, "copies")
    cx.emit("mov r14, rdi")
    cx.emit(f"and r15, {lane_word('measured')}")
    cx.emit("mov rcx, r15")
    cx.emit(f"and rcx, {lane_word('writable')}")
    for word in ("start", "size", "room"):
        cx.emit(f"mov {_block_word(f'packet_{word}')}, 0")
    for word, value in (("start", "r14"), ("size", "r15"), ("room", "rcx")):
        cx.emit(f"mov {_block_word(f'argument_{word}')}, {value}")
    cx.emit("clc")
    cx.label(out)
    cx.emit("ret")
    cx.label(odd)
    cx.emit("stc")
    cx.emit("ret")
    cx.label(small)
    cx.emit("mov rcx, r15")
    cx.label(byte)
    cx.emit("sub rcx, 1")
    cx.jump("jb", copied)
    cx.emit("mov al, byte ptr [r14+rcx]")
    cx.emit("mov byte ptr [rdi+rcx], al")
    cx.jump("jmp", byte)


def _block_word(name: str) -> str:
    return f"qword ptr [r12+{8 * BLOCK_WORDS.index(name):#x}]"


def _emit_pairs(cx: Emitter, name: str) -> None:
    """Emit the start of a loop over pairs of a lane's: r8 and r9 are one of them, rsi where it stands."""
    cx.emit(f"mov rsi, {lane_word(name)}")
    cx.label(f".{name}_again")
    cx.emit(f"cmp rsi, {lane_word(name + '_stop')}")
    cx.jump("je", f".{name}_done")
    cx.emit("mov r8, qword ptr [rsi]")
    cx.emit("mov r9, qword ptr [rsi+8]")


def _end_pairs(cx: Emitter, name: str) -> None:
    cx.emit("add rsi, 0x10")
    cx.jump("jmp", f".{name}_again")
    cx.label(f".{name}_done")


#   fillers: rax is the struct, rdi the frame, r14 and r15 start and size of what the program sees of it;
#   they may change rcx, rsi and r8 to r11


def _emit_fill_xdp_md(cx: Emitter, fields: Mapping[str, int]) -> None:
    cx.begin(NO_PC)
    cx.label("fill_xdp_md", 16)
    cx.emit("lea ecx, [r14+r15]")
    for name, value in (("data", "r14d"), ("data_end", "ecx"), ("data_meta", "r14d")):
        cx.emit(f"mov dword ptr [rax+{fields[name]:#x}], {value}")
    cx.emit("ret")


def _emit_fill_sk_buff(cx: Emitter, structs: Structs) -> None:
    fields = structs.sk_buff

    def put(name: str, value: str, *, more: int = 0) -> None:
        cx.emit(f"mov dword ptr [rax+{fields[name] + more:#x}], {value}")

    cx.begin(NO_PC)
    cx.label("fill_sk_buff", 16)
    put("len", "r15d")
    put("wire_len", "r15d")
    cx.emit(f"mov rsi, {lane_word('shown')}")
    cx.emit("mov ecx, r14d")
    cx.emit("and ecx, esi")
    put("data", "ecx")
    put("data_meta", "ecx")
    cx.emit("lea ecx, [r14+r15]")
    cx.emit("and ecx, esi")
    put("data_end", "ecx")
    _emit_packet_type(cx)
    put("pkt_type", "ecx")
    _emit_protocol(cx)
    put("protocol", "ecx")
    _emit_sock(cx, structs)


def _emit_packet_type(cx: Emitter) -> None:
    """ecx: what the frame's destination means to the loopback device, whose address is zero."""
    typed = ".fill_typed"
    cx.emit("movzx ecx, word ptr [rdi+4]")
    cx.emit("or ecx, dword ptr [rdi]")
    cx.jump("je", typed)
    cx.emit(f"mov ecx, {PACKET_OTHERHOST}")
    cx.emit("test byte ptr [rdi], 1")
    cx.jump("je", typed)
    cx.emit(f"mov ecx, {PACKET_MULTICAST}")
    cx.label(typed)


def _emit_protocol(cx: Emitter) -> None:
    """ecx: the protocol, as eth_type_trans finds it, in network byte order; r8d in the host's."""
    known, bare = ".fill_protocol", ".fill_802_2"
    cx.emit(f"movzx ecx, word ptr [rdi+{ETHERTYPE:#x}]")
    cx.emit("mov r8d, ecx")
    cx.emit("rol r8w, 8")
    cx.emit(f"cmp r8d, {SMALLEST_ETHERTYPE:#x}")
    cx.jump("jae", known)
    cx.emit("lea r9, [r14+r15-0x10]")  # a frame of 16 bytes or more says which of two it is
    cx.emit("cmp r9, rdi")
    cx.jump("jb", bare)
    cx.emit("cmp word ptr [rdi+0xe], -1")
    cx.jump("jne", bare)
    cx.emit(f"mov r8d, {ETH_P_802_3}")
    cx.emit(f"mov ecx, {ETH_P_802_3 << 8:#x}")
    cx.jump("jmp", known)
    cx.label(bare)
    cx.emit(f"mov r8d, {ETH_P_802_2}")
    cx.emit(f"mov ecx, {ETH_P_802_2 << 8:#x}")
    cx.label(known)


def _emit_sock(cx: Emitter, structs: Structs) -> None:
    """Fill family and addresses of the packet's socket, in bpf_sock and where __sk_buff shows them."""
    fields, sock = structs.sk_buff, structs.bpf_sock

    def family(number: int) -> None:
        for place in (fields["family"], structs.sock + sock["family"]):
            cx.emit(f"mov dword ptr [rax+{place:#x}], {number:#x}")

    def address(size: int, offset: int, shown: str, kept: str) -> None:
        register, kind = ("r9d", "dword") if size == 4 else ("xmm0", "xmmword")
        move = "mov" if size == 4 else "movups"
        cx.emit(f"{move} {register}, {kind} ptr [rdi+{SMALLEST + offset:#x}]")
        for place in (fields[shown], structs.sock + sock[kept]):
            cx.emit(f"{move} {kind} ptr [rax+{place:#x}], {register}")

    other, out = ".fill_not_ipv4", ".fill_out"
    cx.emit("lea r10, [r14+r15]")
    cx.emit("sub r10, rdi")  # the whole frame
    cx.emit(f"cmp r8d, {ETH_P_IP:#x}")
    cx.jump("jne", other)
    family(AF_INET)
    cx.emit(f"cmp r10, {SMALLEST + 20:#x}")
    cx.jump("jb", out)
    address(4, 12, "local_ip4", "src_ip4")
    address(4, 16, "remote_ip4", "dst_ip4")
    cx.emit("ret")
    cx.label(other)
    cx.emit(f"cmp r8d, {ETH_P_IPV6:#x}")
    cx.jump("jne", out)
    family(AF_INET6)
    cx.emit(f"cmp r10, {SMALLEST + 40:#x}")
    cx.jump("jb", out)
    address(16, 8, "local_ip6", "src_ip6")
    address(16, 24, "remote_ip6", "dst_ip6")
    cx.label(out)
    cx.emit("ret")
