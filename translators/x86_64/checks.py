"""What checks accesses out of line and reports faults: one copy that serves all programs, as `host`'s.

check_load, check_store    r10 bytes at r11 lie in some region, or it is a fault; one for each
region that may be pinned in r11
audit_load, audit_store    the same, but that it is a fault of the analysis where they do not
is_load, is_store          the same as a question
find_load                  r11 becomes where r10 bytes are that a pointer of the kernel's gives at r11: there,
where that is in some region, in a copy of the kernel's memory, or at a word that is zero
find_arena_SIZE            r11 becomes where so many bytes are that a program finds at r11 in its arena, whose
descriptor is at r10; carry is set where they are not all there, and r11 leads to a word that is zero
lock_map, take_map         the lock of a map that code without Python's lock uses
fault_KIND                 reached by a call, so the return address tells which pc it was; records
kind, place, address and the live stack, drops all frames and returns to the host
"""

from __future__ import annotations

from ebpfjit.translators.block import FAULTS, FOREIGN_SIZE, REGION_SIZE, TABLE
from ebpfjit.translators.context import PINNABLE
from ebpfjit.translators.emitter import NO_PC, Emitter
from ebpfjit.translators.labels import LOCK_MAP, TAKE_MAP
from ebpfjit.translators.x86_64.target import BLOCK, emit_pin

REPORTS = tuple(f"fault_{kind}" for kind in FAULTS[1:])


FIND_ARENA = {size: f"find_arena_{size}" for size in (1, 2, 4, 8)}
"""The routine for each size of an access to an arena."""
ARENA = {"start": 0, "size": 8, "table": 0x10, "base": 0x18, "zero": 0x20}
"""Where the words of an arena's descriptor are (`runtime.maps.arena`)."""
PAGE_SHIFT = 12
HELD, UNHELD, LOCKED = 1, 2, 3
"""What the lock of a shared map is: Python has it, nobody has it, machine code has it."""
MOST_SPINS = 4096


def check_routine(name: str, pinned: str | None) -> str:
    """Return the name of the routine for a program that has this region pinned."""
    return name if pinned is None else f"{name}_{pinned}"


#  routine         for stores  fault
ROUTINES = {
    "check_load":  (False, "memory"),
    "check_store": (True,  "memory"),
    "audit_load":  (False, "audit"),
    "audit_store": (True,  "audit"),
}  # fmt: skip

CHECKS = {check_routine(name, pinned): (name, pinned) for name in ROUTINES for pinned in (None, *PINNABLE)}
"""The routines for each region that they may have to put into r11 again."""


def emit_checks(cx: Emitter, lock: int) -> None:
    """Emit the routines of this module; a map's lock is at an offset from its header."""
    for label, (name, pinned) in CHECKS.items():
        stores, fault = ROUTINES[name]
        _emit_check(cx, label, stores=stores, fault=fault, pinned=pinned)
    _emit_check(cx, "is_load", stores=False, fault=None)
    _emit_check(cx, "is_store", stores=True, fault=None)
    _emit_find(cx)
    _emit_lock_map(cx, lock)
    _emit_take_map(cx, lock)
    for size, name in FIND_ARENA.items():
        _emit_find_in_arena(cx, name, size)
    for kind in FAULTS[1:]:
        _emit_fault(cx, kind)


def _emit_fault(cx: Emitter, kind: str) -> None:
    """Emit `fault_KIND`: note what happened and where, and return to where the program was called."""
    cx.begin(NO_PC)
    cx.label(f"fault_{kind}")
    cx.emit("pop r10")
    cx.emit(f"mov qword ptr {BLOCK['fault_place']}, r10")
    cx.emit(f"mov qword ptr {BLOCK['fault_address']}, r11")
    cx.emit(f"mov r10, qword ptr {BLOCK['stack_start']}")
    cx.emit(f"mov qword ptr {BLOCK['fault_stack']}, r10")
    cx.emit(f"mov qword ptr {BLOCK['fault_kind']}, {FAULTS.index(kind):#x}")
    cx.emit(f"mov rsp, qword ptr {BLOCK['host_stack']}")
    cx.emit("ret")


def _emit_check(
    cx: Emitter, name: str, *, stores: bool, fault: str | None, pinned: str | None = None
) -> None:
    """Emit a routine that returns where r10 bytes at r11 lie inside one region.

    Where they do not, it reports a fault of this kind for its caller's pc, or returns with carry set where
    there is none (clear where they do). It keeps all registers but the flags, and r11 where there is
    a region that is pinned there.
    start <= address and size <= stop - address: nothing wraps.
    """
    next_region, out = f".{name}_next", f".{name}_out"
    cx.begin(NO_PC)
    cx.label(name)
    cx.emit("push rax")
    cx.emit("push rcx")
    cx.emit("push rdx")
    cx.emit(f"mov rcx, qword ptr {BLOCK['stack_start']}")
    cx.emit(f"mov rax, qword ptr {BLOCK['stack_top']}")
    _emit_inside(cx, None, f".{name}_not_stack")
    cx.jump("jmp", out)
    cx.label(f".{name}_not_stack")
    for region in ("packet", "argument"):
        other = f".{name}_not_{region}"
        cx.emit(f"mov rcx, qword ptr {BLOCK[region + '_start']}")
        cx.emit(f"mov rax, qword ptr {BLOCK[region + '_size']}")
        cx.emit("add rax, rcx")
        _emit_inside(cx, BLOCK[f"{region}_room"] if stores else None, other)
        cx.jump("jmp", out)
        cx.label(other)
    cx.emit(f"mov rcx, qword ptr {BLOCK['regions']}")
    cx.emit("push rcx")
    cx.label(f".{name}_table")
    cx.emit(f"mov rdx, qword ptr [rcx+{TABLE['first']:#x}]")
    cx.emit(f"sub rdx, {REGION_SIZE:#x}")
    cx.label(next_region)
    cx.emit(f"add rdx, {REGION_SIZE:#x}")
    cx.emit("mov rcx, qword ptr [rsp]")
    cx.emit(f"cmp rdx, qword ptr [rcx+{TABLE['behind']:#x}]")
    cx.jump("jae", f".{name}_end")
    cx.emit("mov rcx, qword ptr [rdx]")
    cx.emit("mov rax, qword ptr [rdx+8]")
    _emit_inside(cx, "[rdx+0x10]" if stores else None, next_region)
    struct, allowed = f".{name}_struct", f".{name}_allowed"
    cx.emit("mov rcx, qword ptr [rdx+0x18]")
    cx.emit("test rcx, rcx")
    cx.jump("jne", struct)
    cx.label(allowed)
    cx.emit("pop rcx")
    cx.label(out)
    cx.emit("pop rdx")
    cx.emit("pop rcx")
    cx.emit("pop rax")
    if pinned is not None:
        emit_pin(cx, pinned)
    if fault is None:
        cx.emit("clc")
    cx.emit("ret")
    cx.label(f".{name}_end")
    cx.emit(f"mov rcx, qword ptr [rcx+{TABLE['next']:#x}]")
    cx.emit("mov qword ptr [rsp], rcx")
    cx.emit("test rcx, rcx")
    cx.jump("jne", f".{name}_table")
    cx.emit("add rsp, 8")
    cx.emit("pop rdx")
    cx.emit("pop rcx")
    cx.emit("pop rax")
    if fault is not None:
        cx.jump("jmp", f"fault_{fault}")
    else:
        cx.emit("stc")
        cx.emit("ret")
    _emit_rights(cx, struct, allowed, next_region, stores=stores)


def _emit_rights(cx: Emitter, struct: str, allowed: str, next_region: str, *, stores: bool) -> None:
    """Emit, out of line, a jump to `allowed` where a struct's rights allow an access of r10 bytes at r11.

    rcx is where the rights are, rdx the region's row; rax and rcx are lost. Sizes are 1, 2, 4 and 8, and
    there is a bit for each (`ebpfjit/runtime/rights.py`).
    """
    with cx.out_of_line(struct):
        cx.emit("mov rax, r11")
        cx.emit("sub rax, qword ptr [rdx]")
        cx.emit("movzx eax, byte ptr [rcx+rax]")
        cx.emit("shr eax, 4" if stores else "and eax, 0xf")
        cx.emit("test rax, r10")
        cx.jump("je", next_region)
        cx.emit("lea rcx, [r10-1]")
        cx.emit("test rcx, r10")
        cx.jump("je", allowed)
        cx.jump("jmp", next_region)


def _emit_find(cx: Emitter) -> None:
    """Emit `find_load`, after which r10 bytes (8 at most) at r11 may be read, whatever r11 was.

    A row of the table says: what is from start to stop has its bytes elsewhere, all of them. Keeps all
    registers but r11 and the flags.
    """
    cx.begin(NO_PC)
    cx.label("find_load")
    cx.jump("call", "is_load")
    cx.jump("jae", ".find_load_here")
    cx.emit("push rax")
    cx.emit("push rcx")
    cx.emit("push rdx")
    cx.emit(f"mov rdx, qword ptr {BLOCK['foreign']}")
    cx.emit("test rdx, rdx")
    cx.jump("je", ".find_load_zero")
    cx.emit("mov rcx, qword ptr [rdx]")
    cx.emit(f"sub rcx, {FOREIGN_SIZE:#x}")
    cx.label(".find_load_next")
    cx.emit(f"add rcx, {FOREIGN_SIZE:#x}")
    cx.emit("cmp rcx, qword ptr [rdx+8]")
    cx.jump("jae", ".find_load_zero")
    cx.emit("cmp r11, qword ptr [rcx]")
    cx.jump("jb", ".find_load_next")
    cx.emit("mov rax, qword ptr [rcx+8]")
    cx.emit("sub rax, r11")
    cx.jump("jb", ".find_load_next")
    cx.emit("cmp rax, r10")
    cx.jump("jb", ".find_load_next")
    cx.emit("sub r11, qword ptr [rcx]")
    cx.emit("add r11, qword ptr [rcx+0x10]")
    cx.jump("jmp", ".find_load_out")
    cx.label(".find_load_zero")
    cx.emit(f"lea r11, {BLOCK['zero']}")
    cx.label(".find_load_out")
    cx.emit("pop rdx")
    cx.emit("pop rcx")
    cx.emit("pop rax")
    cx.label(".find_load_here")
    cx.emit("ret")


def _emit_lock_map(cx: Emitter, lock: int) -> None:
    """Emit `lock_map`: take the lock of the map at rdi; carry is set where Python has it, or it has none.

    Others have it for a few instructions, or are not running just now. rax and r10 are lost.
    """
    cx.begin(NO_PC)
    cx.label(LOCK_MAP)
    cx.emit("push rcx")
    cx.emit("mov ecx, $imm", imm=MOST_SPINS, imm_sizes=(32,))
    cx.label(".lock_map_again")
    cx.emit(f"mov eax, {UNHELD}")
    cx.emit(f"mov r10d, {LOCKED}")
    cx.emit("lock cmpxchg dword ptr [rdi+$offset], r10d", offset=lock)
    cx.jump("je", ".lock_map_held")
    cx.emit(f"cmp eax, {LOCKED}")
    cx.jump("jne", ".lock_map_not")
    cx.emit("pause")
    cx.emit("sub ecx, 1")
    cx.jump("jne", ".lock_map_again")
    cx.label(".lock_map_not")
    cx.emit("pop rcx")
    cx.emit("stc")
    cx.emit("ret")
    cx.label(".lock_map_held")
    cx.emit("pop rcx")
    cx.emit("clc")
    cx.emit("ret")


def _emit_take_map(cx: Emitter, lock: int) -> None:
    """Emit `take_map(header)`, a C function: Python takes the lock; 0 where machine code has it."""
    cx.begin(NO_PC)
    cx.label(TAKE_MAP)
    cx.emit("mov edx, $imm", imm=MOST_SPINS, imm_sizes=(32,))
    cx.label(".take_map_again")
    cx.emit(f"mov eax, {UNHELD}")
    cx.emit(f"mov ecx, {HELD}")
    cx.emit("lock cmpxchg dword ptr [rdi+$offset], ecx", offset=lock)
    cx.jump("je", ".take_map_held")
    cx.emit(f"cmp eax, {LOCKED}")
    cx.jump("jne", ".take_map_held")
    cx.emit("pause")
    cx.emit("sub edx, 1")
    cx.jump("jne", ".take_map_again")
    cx.emit("xor eax, eax")
    cx.emit("ret")
    cx.label(".take_map_held")
    cx.emit("mov eax, 1")
    cx.emit("ret")


def _emit_find_in_arena(cx: Emitter, name: str, size: int) -> None:
    """Emit `find_arena_SIZE`: r11 is a number of 32 bits and an offset, of 64 bits in all, whatever it was.

    What is found lies between base and base + size, and all pages that it is in are allocated. Keeps all
    registers but r11 and the flags.
    """
    nothing = f".{name}_nothing"
    cx.begin(NO_PC)
    cx.label(name)
    cx.emit("push rax")
    cx.emit("push rcx")
    cx.emit(f"sub r11, qword ptr [r10+{ARENA['start']:#x}]")
    cx.emit(f"mov rax, qword ptr [r10+{ARENA['size']:#x}]")
    cx.emit(f"sub rax, {size}")
    cx.emit("cmp r11, rax")
    cx.jump("ja", nothing)
    for byte in (0, size - 1) if size > 1 else (0,):
        cx.emit(f"lea rcx, [r11+{byte}]" if byte else "mov rcx, r11")
        cx.emit(f"shr rcx, {PAGE_SHIFT}")
        cx.emit(f"add rcx, qword ptr [r10+{ARENA['table']:#x}]")
        cx.emit("cmp byte ptr [rcx], 0")
        cx.jump("je", nothing)
    cx.emit(f"add r11, qword ptr [r10+{ARENA['base']:#x}]")
    cx.emit("pop rcx")
    cx.emit("pop rax")
    cx.emit("clc")
    cx.emit("ret")
    cx.label(nothing)
    cx.emit(f"lea r11, [r10+{ARENA['zero']:#x}]")
    cx.emit("pop rcx")
    cx.emit("pop rax")
    cx.emit("stc")
    cx.emit("ret")


def _emit_inside(cx: Emitter, writable: str | None, outside: str) -> None:
    """Emit a jump to `outside` unless r10 bytes at r11 lie between rcx and rax, in a writable region.

    rax is lost.
    """
    cx.emit("cmp r11, rcx")
    cx.jump("jb", outside)
    cx.emit("sub rax, r11")
    cx.jump("jb", outside)
    cx.emit("cmp rax, r10")
    cx.jump("jb", outside)
    if writable is not None:
        cx.emit(f"cmp qword ptr {writable}, 0")
        cx.jump("je", outside)
