"""Routines by which machine code calls its host, CPython, whose lock the caller holds.

    slice          the end of a slice: signals are looked for, other threads get a turn
    call_python    a Python helper: arguments boxed, called, its result unboxed

Where the host raises, the exception stays pending and the program ends with the fault "raised".
"""

from __future__ import annotations

from ebpfjit.translators.x86_64.target import BLOCK, Context

CALLER_SAVED = ("rax", "rdi", "rsi", "rdx", "rcx", "r8")
ARGUMENTS = ("rdi", "rsi", "rdx", "rcx", "r8")
# Microseconds without the lock: a thread that waits for it is woken by its release, and would find
# it taken again if we did not pause.
NAP = 10
ARGUMENTS_OFFSET = 1 << 63  # PY_VECTORCALL_ARGUMENTS_OFFSET: the word before the arguments is free


def _call(cx: Context, function: str) -> None:
    cx.emit(f"call qword ptr {BLOCK[function]}")


def emit_slice(cx: Context) -> None:
    """Emit `slice`, called where r9 does not pay for a basic block. Guest registers are kept.

    The next slice is what is left, at most the usual length; where nothing is left it is a fault.
    """
    raised = ".slice_raised"
    cx.used |= {"fault_budget", "fault_raised"}
    cx.begin(None)
    cx.label("slice")
    cx.emit(f"mov r10, qword ptr {BLOCK['later']}")
    cx.emit("test r10, r10")
    cx.jump("je", "fault_budget")
    cx.emit("mov r11d, $imm", imm=cx.settings.slice, imm_sizes=(32,))
    cx.emit("cmp r10, r11")
    cx.emit("cmovb r11, r10")
    cx.emit(f"sub qword ptr {BLOCK['later']}, r11")
    cx.emit("add r9, r11")
    cx.emit(f"mov qword ptr {BLOCK['budget']}, r9")
    for name in CALLER_SAVED:
        cx.emit(f"push {name}")
    cx.emit("sub rsp, 8")  # eight words with the return address: rsp is a multiple of 16 again
    _call(cx, "PyErr_CheckSignals")
    cx.emit("test eax, eax")
    cx.jump("jne", raised)
    _call(cx, "PyEval_SaveThread")
    cx.emit("mov qword ptr [rsp], rax")
    cx.emit(f"mov edi, {NAP:#x}")
    _call(cx, "usleep")
    cx.emit("mov rdi, qword ptr [rsp]")
    _call(cx, "PyEval_RestoreThread")
    cx.emit(f"mov r9, qword ptr {BLOCK['budget']}")
    cx.emit("add rsp, 8")
    for name in reversed(CALLER_SAVED):
        cx.emit(f"pop {name}")
    cx.emit("ret")
    cx.label(raised)
    cx.emit(f"mov r9, qword ptr {BLOCK['budget']}")
    cx.emit(f"add rsp, {8 + 8 * len(CALLER_SAVED):#x}")
    cx.jump("jmp", "fault_raised")


def emit_call_python(cx: Context) -> None:
    """Emit `call_python`: r0 = the object in r11 called with r1 to r5, modulo 2**64.

    The frame: a free word, five arguments, a word of padding. rbx holds the callable and then the
    result's value, rbp the result.
    """
    cx.used.add("fault_raised")
    cx.begin(None)
    cx.label("call_python")
    cx.emit(f"mov qword ptr {BLOCK['budget']}, r9")
    cx.emit("push rbx")
    cx.emit("push rbp")
    cx.emit("sub rsp, 0x38")  # ten words with the return address
    cx.emit("mov rbx, r11")
    cx.emit("xor ebp, ebp")
    for index, name in enumerate(ARGUMENTS, 1):
        cx.emit(f"mov qword ptr [rsp+{8 * index:#x}], {name}")
    for index in range(1, 6):
        cx.emit(f"mov rdi, qword ptr [rsp+{8 * index:#x}]")
        _call(cx, "PyLong_FromUnsignedLongLong")
        cx.emit("test rax, rax")
        cx.jump("je", f".drop_{index - 1}")
        cx.emit(f"mov qword ptr [rsp+{8 * index:#x}], rax")
    cx.emit("mov rdi, rbx")
    cx.emit("lea rsi, [rsp+8]")
    cx.emit("movabs rdx, $imm", imm=ARGUMENTS_OFFSET | 5, imm_sizes=(64,))
    cx.emit("xor ecx, ecx")
    _call(cx, "PyObject_Vectorcall")
    cx.emit("mov rbp, rax")
    for index in range(5, 0, -1):
        cx.label(f".drop_{index}")
        cx.emit(f"mov rdi, qword ptr [rsp+{8 * index:#x}]")
        _call(cx, "Py_DecRef")
    cx.label(".drop_0")
    cx.emit("test rbp, rbp")
    cx.jump("je", ".python_raised")
    cx.emit("mov rdi, rbp")
    _call(cx, "PyLong_AsUnsignedLongLongMask")
    cx.emit("mov rbx, rax")
    cx.emit("mov rdi, rbp")
    _call(cx, "Py_DecRef")
    cx.emit("cmp rbx, -1")
    cx.jump("jne", ".python_done")
    _call(cx, "PyErr_Occurred")  # -1 is a result, and what a failed conversion gives
    cx.emit("test rax, rax")
    cx.jump("jne", ".python_raised")
    cx.label(".python_done")
    cx.emit("mov rax, rbx")
    _leave(cx)
    cx.emit("ret")
    cx.label(".python_raised")
    _leave(cx)
    cx.jump("jmp", "fault_raised")


def _leave(cx: Context) -> None:
    cx.emit("add rsp, 0x38")
    cx.emit("pop rbp")
    cx.emit("pop rbx")
    cx.emit(f"mov r9, qword ptr {BLOCK['budget']}")


def emit_host_calls(cx: Context) -> None:
    """Emit the routines of this module that the program turned out to use."""
    emit_slice(cx)
    if "call_python" in cx.used:
        emit_call_python(cx)
