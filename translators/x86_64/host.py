"""Routines between machine code and its host, CPython: one copy of them serves all programs.

    run            a C function: runs the program whose block Python has filled
    slice          the end of a slice: signals are looked for, other threads get a turn, where it is time
    next_slice     the same in optimised code, which goes on
    call_python    a Python helper: arguments boxed, called, its result unboxed; then as at a slice's end

A program reaches the last two, and those of `checks`, through stubs of its own, so that it names them
by labels like any other routine. Where the host raises, the exception stays pending and the program
ends with the fault "raised". While a run is without Python's lock, its block holds the thread state to
take it back with; whatever needs the lock takes it and gives it back.
"""

from __future__ import annotations

from ebpfjit.translators.emitter import NO_PC, Emitter
from ebpfjit.translators.host import SMALL_INTS, Ints
from ebpfjit.translators.labels import LOCK_MAP, PACKETS, host_symbol
from ebpfjit.translators.x86_64.checks import (
    CHECKS,
    FIND_ARENA,
    REPORTS,
    ROUTINES,
    check_routine,
    emit_checks,
)
from ebpfjit.translators.x86_64.target import BLOCK, HOST_SAVED, Context

CALLER_SAVED = ("rax", "rdi", "rsi", "rdx", "rcx", "r8")
ARGUMENTS = ("rdi", "rsi", "rdx", "rcx", "r8")
FINDING = ("is_load", "is_store", "find_load", LOCK_MAP, *FIND_ARENA.values())
SHARED = ("slice", "next_slice", "call_python", *FINDING, *PACKETS, *REPORTS, *CHECKS)
"""The routines that programs reach through stubs."""
STUBS = ("slice", "next_slice", "call_python", *FINDING, *PACKETS, *REPORTS, *ROUTINES)
"""The stubs: which of the checks is meant depends on the program."""
TURN = 20_000_000
"""Nanoseconds between two looks for signals and for other threads, where slices are shorter."""
ARGUMENTS_OFFSET = 1 << 63  # PY_VECTORCALL_ARGUMENTS_OFFSET: the word before the arguments is free


def emit_host_calls(cx: Context) -> None:
    """Emit the stubs that the program turned out to use."""
    for stub in STUBS:
        if stub in cx.used:
            routine = check_routine(stub, cx.pinned) if stub in CHECKS else stub
            cx.begin(NO_PC)
            cx.label(stub)
            cx.emit("jmp qword ptr [rip+$symbol]", symbol=host_symbol(routine))


def call(cx: Emitter, function: str) -> None:
    """Emit a call of a function of the host."""
    cx.emit("call qword ptr [rip+$symbol]", symbol=function)


def emit_routines(cx: Emitter, slice_length: int, clock: int, ints: Ints, lock: int) -> None:
    """Emit the routines of this module; a slice is so many instructions long, time is that of a `clock`.

    The lock of a map is at an offset from its header.
    """
    _emit_run(cx)
    _emit_slice(cx, slice_length, "slice", changes_tier=True)
    _emit_slice(cx, slice_length, "next_slice", changes_tier=False)
    _emit_turn(cx, clock)
    _emit_call_python(cx, ints)
    emit_checks(cx, lock)


def release_lock(cx: Emitter) -> None:
    """Emit: go on without Python's lock."""
    call(cx, "PyEval_SaveThread")
    cx.emit(f"mov qword ptr {BLOCK['thread']}, rax")


def take_lock(cx: Emitter) -> None:
    """Emit: take Python's lock back where the run is without; rdi is the thread state, for later."""
    held = cx.new_label("held")
    cx.emit(f"mov rdi, qword ptr {BLOCK['thread']}")
    cx.emit("test rdi, rdi")
    cx.jump("je", held)
    cx.emit(f"mov qword ptr {BLOCK['thread']}, 0")
    call(cx, "PyEval_RestoreThread")
    cx.label(held)


def _emit_run(cx: Emitter) -> None:
    """Emit `run(block, program, unlocked) -> r0`: a C function that runs the program at an address.

    Where `unlocked` is not 0 the program runs without Python's lock, which the caller holds.
    """
    go, done = ".run_go", ".run_done"
    cx.begin(NO_PC)
    cx.label("run")
    for name in HOST_SAVED:
        cx.emit(f"push {name}")
    cx.emit("sub rsp, 8")
    cx.emit("mov r12, rdi")
    cx.emit("mov rbx, rsi")
    cx.emit("test rdx, rdx")
    cx.jump("je", go)
    release_lock(cx)
    cx.label(go)
    cx.emit(f"mov r9, qword ptr {BLOCK['budget']}")
    cx.emit(f"mov rdi, qword ptr {BLOCK['argument_1']}")
    cx.emit(f"mov rsi, qword ptr {BLOCK['argument_2']}")
    enter_program(cx, "rbx")
    cx.emit(f"mov qword ptr {BLOCK['budget']}, r9")
    cx.emit(f"cmp qword ptr {BLOCK['thread']}, 0")
    cx.jump("je", done)
    cx.emit("mov rbx, rax")
    take_lock(cx)
    cx.emit("mov rax, rbx")
    cx.label(done)
    cx.emit("add rsp, 8")
    for name in reversed(HOST_SAVED):
        cx.emit(f"pop {name}")
    cx.emit("ret")


def enter_program(cx: Emitter, entry: str) -> None:
    """Emit a call of a program, where rsp is a multiple of 16: r0 is in rax and r9 stays.

    Only rsp and r12 are kept.
    """
    cx.emit("sub rsp, 8")  # the program wants rsp to be a multiple of 16 inside
    cx.emit(f"call {entry}")
    cx.emit("add rsp, 8")


def _emit_slice(cx: Emitter, slice_length: int, name: str, *, changes_tier: bool) -> None:
    """Emit `slice`, called where r9 does not pay for a basic block. Guest registers are kept.

    The next slice is what is left, at most the usual length; where nothing is left it is a fault. A run that
    came through the gate may go on in better code, where it `changes_tier`: then the return address is
    changed.
    """
    raised, go = f".{name}_raised", f".{name}_go"
    cx.begin(NO_PC)
    cx.label(name)
    cx.emit(f"mov r10, qword ptr {BLOCK['later']}")
    cx.emit("test r10, r10")
    cx.jump("je", "fault_budget")
    cx.emit("mov r11d, $imm", imm=slice_length, imm_sizes=(32,))
    cx.emit("cmp r10, r11")
    cx.emit("cmovb r11, r10")
    cx.emit(f"sub qword ptr {BLOCK['later']}, r11")
    cx.emit("add r9, r11")
    cx.emit(f"mov qword ptr {BLOCK['budget']}, r9")
    for name in CALLER_SAVED:
        cx.emit(f"push {name}")
    cx.emit("sub rsp, 8")  # eight words with the return address: rsp is a multiple of 16 again
    cx.jump("call", "turn")
    cx.emit("test eax, eax")
    cx.jump("jne", raised)
    if changes_tier:
        cx.emit(f"cmp qword ptr {BLOCK['state']}, 0")
        cx.jump("je", go)
        return_address = f"qword ptr [rsp+{8 + 8 * len(CALLER_SAVED):#x}]"
        cx.emit(f"lea rax, {return_address.removeprefix('qword ptr ')}")
        cx.emit(f"mov qword ptr {BLOCK['return_place']}, rax")
        cx.emit(f"mov rax, {return_address}")
        cx.emit(f"mov qword ptr {BLOCK['fault_place']}, rax")
        cx.jump("call", "tier_up")
        cx.emit("test rax, rax")
        cx.jump("je", go)
        cx.emit("cmp rax, -1")
        cx.jump("je", raised)
        cx.emit(f"mov {return_address}, rax")
    cx.label(go)
    cx.emit(f"mov r9, qword ptr {BLOCK['budget']}")
    cx.emit("add rsp, 8")
    for name in reversed(CALLER_SAVED):
        cx.emit(f"pop {name}")
    cx.emit("ret")
    cx.label(raised)
    cx.emit(f"mov r9, qword ptr {BLOCK['budget']}")
    cx.emit(f"add rsp, {8 + 8 * len(CALLER_SAVED):#x}")
    cx.jump("jmp", "fault_raised")


def _emit_turn(cx: Emitter, clock: int) -> None:
    """Emit `turn`: look(block), a function in Python, where it is time; eax is not 0 where it raised.

    That it is called is what lets CPython handle signals, raise what another thread asked for and give the
    lock to who waits for it; and it raises where the run was stopped. What raised leaves the lock taken.
    """
    early, out = ".turn_early", ".turn_out"
    cx.begin(NO_PC)
    cx.label("turn")
    cx.emit("sub rsp, 0x18")
    cx.emit("mov edi, $imm", imm=clock, imm_sizes=(32,))
    cx.emit("mov rsi, rsp")
    call(cx, "clock_gettime")
    cx.emit("imul rax, qword ptr [rsp], 0x3B9ACA00")
    cx.emit("add rax, qword ptr [rsp+8]")
    cx.emit(f"mov rcx, qword ptr {BLOCK['turned']}")
    cx.emit("test rcx, rcx")
    cx.emit("cmove rcx, rax")  # the first slice: time counts from here
    cx.emit("sub rax, rcx")
    cx.emit("cmp rax, $imm", imm=TURN, imm_sizes=(32,))
    cx.jump("jb", early)
    cx.emit("add rax, rcx")
    cx.emit(f"mov qword ptr {BLOCK['turned']}, rax")
    _take_lock_here(cx, 0x10)
    cx.emit("mov rdi, r12")
    call(cx, "PyLong_FromUnsignedLongLong")
    cx.emit("mov qword ptr [rsp+8], rax")
    cx.emit("test rax, rax")
    cx.jump("je", ".turn_raised")
    cx.emit("mov rdi, qword ptr [rip+$symbol]", symbol="look")
    cx.emit("lea rsi, [rsp+8]")
    cx.emit("movabs rdx, $imm", imm=ARGUMENTS_OFFSET | 1, imm_sizes=(64,))
    cx.emit("xor ecx, ecx")
    call(cx, "PyObject_Vectorcall")
    cx.emit("mov rdi, qword ptr [rsp+8]")
    cx.emit("mov qword ptr [rsp+8], rax")
    call(cx, "Py_DecRef")
    cx.emit("mov rdi, qword ptr [rsp+8]")
    cx.emit("test rdi, rdi")
    cx.jump("je", ".turn_raised")
    call(cx, "Py_DecRef")
    cx.emit("cmp qword ptr [rsp+0x10], 0")
    cx.jump("je", ".turn_done")
    release_lock(cx)
    cx.label(".turn_done")
    cx.emit("xor eax, eax")
    cx.label(out)
    cx.emit("add rsp, 0x18")
    cx.emit("ret")
    cx.label(early)
    cx.emit(f"mov qword ptr {BLOCK['turned']}, rcx")
    cx.emit("xor eax, eax")
    cx.jump("jmp", out)
    cx.label(".turn_raised")
    cx.emit("mov eax, 1")
    cx.jump("jmp", out)


#   the frame of call_python: a free word, five arguments, whether each is ours to drop, the lock, the time
_OURS = 0x30
_UNLOCKED = 0x58
_BEGUN = 0x60
_FRAME = 0x68


def _emit_call_python(cx: Emitter, ints: Ints) -> None:
    """Emit `call_python`: r0 = the object in r11 called with r1 to r5, modulo 2**64.

    Small numbers are taken from a table of ints that live for ever; others are boxed and dropped.
    rbx holds the callable and then the result's value, rbp the result.
    """
    done, raised, called = ".python_done", ".python_raised", ".python_called"
    cx.begin(NO_PC)
    cx.label("call_python")
    cx.emit("mov rax, qword ptr [rsp]")
    cx.emit(f"mov qword ptr {BLOCK['fault_place']}, rax")  # for helpers that remember who called them
    cx.emit(f"mov qword ptr {BLOCK['budget']}, r9")
    cx.emit("push rbx")
    cx.emit("push rbp")
    cx.emit(f"sub rsp, {_FRAME:#x}")  # sixteen words with the return address
    cx.emit("mov rbx, r11")
    for index, name in enumerate(ARGUMENTS, 1):
        cx.emit(f"mov qword ptr [rsp+{8 * index:#x}], {name}")
    _take_lock_here(cx, _UNLOCKED)
    cx.jump("call", "begin_time")
    cx.emit(f"mov qword ptr [rsp+{_BEGUN:#x}], rax")
    for index in range(1, 6):
        _box(cx, index)
    cx.emit("mov rdi, rbx")
    cx.emit("lea rsi, [rsp+8]")
    cx.emit("movabs rdx, $imm", imm=ARGUMENTS_OFFSET | 5, imm_sizes=(64,))
    cx.emit("xor ecx, ecx")
    call(cx, "PyObject_Vectorcall")
    cx.emit("mov rbp, rax")
    for index in range(5, 0, -1):
        cx.label(f".drop_{index}")
        kept = cx.new_label("kept")
        cx.emit(f"mov rdi, qword ptr [rsp+{_OURS + 8 * (index - 1):#x}]")
        cx.emit("test rdi, rdi")
        cx.jump("je", kept)
        call(cx, "Py_DecRef")
        cx.label(kept)
    cx.label(".drop_0")
    cx.emit(f"mov rdi, qword ptr [rsp+{_BEGUN:#x}]")
    cx.jump("call", "count_time")
    cx.emit("test rbp, rbp")
    cx.jump("je", raised)
    _unbox(cx, ints)
    cx.emit("mov rdi, rbp")
    call(cx, "Py_DecRef")
    cx.emit("cmp rbx, -1")
    cx.jump("jne", done)
    call(cx, "PyErr_Occurred")  # -1 is a result, and what a failed conversion gives
    cx.emit("test rax, rax")
    cx.jump("jne", raised)
    cx.label(done)
    cx.jump("call", "turn")  # whatever the helper took: slices count instructions, and this was one
    cx.emit("test eax, eax")
    cx.jump("jne", raised)
    cx.emit(f"cmp qword ptr [rsp+{_UNLOCKED:#x}], 0")
    cx.jump("je", called)
    release_lock(cx)
    cx.label(called)
    cx.emit("mov rax, rbx")
    _leave(cx)
    cx.emit("ret")
    cx.label(raised)
    _leave(cx)
    cx.jump("jmp", "fault_raised")


def _take_lock_here(cx: Emitter, place: int) -> None:
    """Take the lock, and note on the stack whether it is to be given back."""
    held = cx.new_label("held")
    cx.emit(f"mov rdi, qword ptr {BLOCK['thread']}")
    cx.emit(f"mov qword ptr [rsp+{place:#x}], rdi")
    cx.emit("test rdi, rdi")
    cx.jump("je", held)
    take_lock(cx)
    cx.label(held)


def _box(cx: Emitter, index: int) -> None:
    """Make the number in argument `index` an int; where that fails, drop the ones before it."""
    boxed, big = cx.new_label("boxed"), cx.new_label("big")
    ours = f"qword ptr [rsp+{_OURS + 8 * (index - 1):#x}]"
    cx.emit(f"mov rdi, qword ptr [rsp+{8 * index:#x}]")
    cx.emit("cmp rdi, $imm", imm=SMALL_INTS, imm_sizes=(32,))
    cx.jump("jae", big)
    cx.emit("mov rax, qword ptr [rip+$symbol]", symbol="small_ints")
    cx.emit("mov rax, qword ptr [rax+rdi*8]")
    cx.emit(f"mov {ours}, 0")
    cx.label(boxed)
    cx.emit(f"mov qword ptr [rsp+{8 * index:#x}], rax")
    with cx.out_of_line(big):
        call(cx, "PyLong_FromUnsignedLongLong")
        cx.emit(f"mov {ours}, rax")
        cx.emit("test rax, rax")
        cx.jump("jne", boxed)
        cx.emit("xor ebp, ebp")
        cx.jump("jmp", f".drop_{index - 1}")


def _unbox(cx: Emitter, ints: Ints) -> None:
    """Put the value of the result in rbp into rbx, modulo 2**64; -1 where that raised."""
    any_int, unboxed = ".python_any_int", ".python_unboxed"
    cx.emit("mov rax, qword ptr [rip+$symbol]", symbol="PyLong_Type")
    cx.emit("cmp qword ptr [rbp+8], rax")
    cx.jump("jne", any_int)
    cx.emit("cmp qword ptr [rbp+$offset], $imm", offset=ints.size, imm=ints.tag)
    cx.jump("jne", any_int)
    cx.emit("mov ebx, dword ptr [rbp+$offset]", offset=ints.digit)
    cx.label(unboxed)
    with cx.out_of_line(any_int):
        cx.emit("mov rdi, rbp")
        call(cx, "PyLong_AsUnsignedLongLongMask")
        cx.emit("mov rbx, rax")
        cx.jump("jmp", unboxed)


def _leave(cx: Emitter) -> None:
    cx.emit(f"add rsp, {_FRAME:#x}")
    cx.emit("pop rbp")
    cx.emit("pop rbx")
    cx.emit(f"mov r9, qword ptr {BLOCK['budget']}")
