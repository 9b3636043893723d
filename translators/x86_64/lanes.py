"""Where packets of programs with a context are put, for runs that start without Python.

A lane is memory for one run at a time: the context's struct, and a packet with room around it. Its
words say whether a run is using it, and what is where:

    busy    struct    struct_size    packet    room        8 bytes each

`place` copies a packet there and points the struct at it, as `runtime.contexts.xdp` does: data,
data_end and data_meta are the struct's first three u32.
"""

from __future__ import annotations

from ebpfjit.translators.emitter import Emitter

LANE_WORDS = ("busy", "struct", "struct_size", "packet", "room")
LANE = {name: 8 * index for index, name in enumerate(LANE_WORDS)}
LANE_REGISTER = "rdx"

SMALLEST = 14  # an Ethernet header: what BPF_PROG_TEST_RUN takes at least


def emit_place(cx: Emitter) -> None:
    """Emit `place`: r14 and r15 are start and size of a packet, rdx the lane's words.

    Then r14 is where the copy starts, ecx is 0, and rax the struct; carry is set, and nothing done,
    for a packet that does not fit or is too short. Keeps r12, r13, rbx, rbp.
    """
    short, again, placed = ".place_short", ".place_again", ".place_placed"
    cx.begin(None)
    cx.label("place", 16)
    cx.emit(f"lea rax, [r15-{SMALLEST:#x}]")
    cx.emit(f"mov rcx, qword ptr [rdx+{LANE['room']:#x}]")
    cx.emit(f"sub rcx, {SMALLEST:#x}")
    cx.emit("cmp rcx, rax")
    cx.jump("jb", ".place_out")
    cx.emit(f"mov rdi, qword ptr [rdx+{LANE['packet']:#x}]")
    cx.emit("lea rsi, [r15-0x10]")
    cx.emit("cmp r15, 0x10")
    cx.jump("jb", short)
    cx.emit("xor ecx, ecx")
    cx.label(again)
    cx.emit("movups xmm0, xmmword ptr [r14+rcx]")
    cx.emit("movups xmmword ptr [rdi+rcx], xmm0")
    cx.emit("add rcx, 0x10")
    cx.emit("cmp rcx, rsi")
    cx.jump("jb", again)
    cx.emit("movups xmm0, xmmword ptr [r14+rsi]")  # the last 16 bytes, some of them again
    cx.emit("movups xmmword ptr [rdi+rsi], xmm0")
    cx.label(placed)
    cx.emit("mov r14, rdi")
    cx.emit(f"mov rax, qword ptr [rdx+{LANE['struct']:#x}]")
    cx.emit("lea ecx, [rdi+r15]")
    cx.emit("mov dword ptr [rax], edi")
    cx.emit("mov dword ptr [rax+4], ecx")
    cx.emit("mov dword ptr [rax+8], edi")
    cx.emit("xor ecx, ecx")  # carry is clear
    cx.label(".place_out")
    cx.emit("ret")
    with cx.out_of_line(short):
        cx.emit("mov rax, qword ptr [r14]")
        cx.emit("mov rcx, qword ptr [r14+r15-8]")
        cx.emit("mov qword ptr [rdi], rax")
        cx.emit("mov qword ptr [rdi+r15-8], rcx")
        cx.jump("jmp", placed)
