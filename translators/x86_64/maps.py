"""Calls of map helpers where the map is known: done here, without Python.

Array lookup, inline:                 Everything else, by the map's routine:
    mov r10d, [rsi]                       call hash_lookup_4(header, key)
    cmp r10d, entries;  jae nothing
    imul r10, r10, stride
    movabs rax, values;  add rax, r10

Key and value must be the program's: a pointer that analysis has not shown to be in the frame is
checked. Where the check fails the Python helper is called, whose fault is the right one; so it
is where Python is in the middle of changing the table: the helper waits for that.
"""

from __future__ import annotations

from collections.abc import Callable

from ebpfjit.translators.labels import LOCK_MAP, map_symbol
from ebpfjit.translators.plan import Audit, MapCall, MapOperation
from ebpfjit.translators.x86_64.checks import LOCKED, UNHELD
from ebpfjit.translators.x86_64.memory import emit_audit
from ebpfjit.translators.x86_64.target import BLOCK, Context, load_constant, register

EINVAL = 22
INSIDE = "is_load"
"""A routine: carry is set where not all r10 bytes at r11 may be read."""

SHIFTS = {1 << shift: shift for shift in range(1, 64)}


def emit_map_call(cx: Context, call: MapCall, slow: Callable[[], None], after: Callable[[], None]) -> None:
    """Emit the call; `slow` emits that of the Python helper, `after` what every call ends with."""
    done, other = cx.new_label("done"), cx.new_label("slow")
    if call.guard:
        cx.emit("movabs r10, $imm", imm=call.guard, imm_sizes=(64,))
        cx.emit("cmp rdi, r10")
        cx.jump("jne", other)
    checked = [(name, size) for name, size in (("rsi", call.key_size), ("rdx", call.value_size)) if size]
    for name, size in checked:
        _emit_argument_check(cx, name, size, call.frame_size, other)
    _emit_audits(cx, call)
    if checked or call.busy or call.guard:
        with cx.out_of_line(other):
            slow()
            cx.jump("jmp", done)
    nothing, found = cx.new_label("nothing"), cx.new_label("found")
    if call.lengths:
        _emit_lengths(cx, call, nothing, other)
    if call.routine and call.busy:
        _emit_locked(cx, call, other)
    elif call.routine:
        cx.emit("call qword ptr [rip+$symbol]", symbol=map_symbol(call.routine))
    elif call.operation is MapOperation.LOOKUP:
        _emit_array_lookup(cx, call, nothing)
    else:
        cx.emit("mov rax, $imm", imm=-EINVAL, imm_sizes=(32,))
    cx.label(found)
    if call.lengths or (call.operation is MapOperation.LOOKUP and not call.routine):
        with cx.out_of_line(nothing):
            cx.emit("xor eax, eax")
            cx.jump("jmp", found)
    after()
    cx.label(done)


def _emit_locked(cx: Context, call: MapCall, other: str) -> None:
    """Call the routine of a table: nobody changes it meanwhile, or the helper is called."""
    symbol, version = map_symbol(call.routine), call.busy + 8
    changes = call.operation is not MapOperation.LOOKUP

    def call_locked() -> None:
        held, waits = cx.new_label("held"), cx.new_label("waits")
        cx.emit(f"mov eax, {UNHELD}")
        cx.emit(f"mov r10d, {LOCKED}")
        cx.emit(f"lock cmpxchg dword ptr [rdi+{call.busy + 4:#x}], r10d")
        cx.jump("jne", waits)
        cx.label(held)
        with cx.out_of_line(waits):
            cx.used.add(LOCK_MAP)
            cx.jump("call", LOCK_MAP)
            cx.jump("jb", other)
            cx.jump("jmp", held)
        if changes:
            cx.emit(f"inc dword ptr [rdi+{version:#x}]")
        cx.emit("push rdi")
        cx.emit("call qword ptr [rip+$symbol]", symbol=symbol)
        cx.emit("pop r10")
        if changes:
            cx.emit(f"inc dword ptr [r10+{version:#x}]")
        cx.emit(f"mov dword ptr [r10+{call.busy + 4:#x}], {UNHELD}")

    if call.locks and call.only_reads:
        _emit_unlocked(cx, symbol, version, call_locked)
        return
    if call.locks:
        call_locked()
        return
    shared, called = cx.new_label("shared"), cx.new_label("called")
    cx.emit(f"cmp qword ptr [rdi+{call.busy:#x}], 0")
    cx.jump("jne", shared)
    cx.emit("call qword ptr [rip+$symbol]", symbol=symbol)
    cx.label(called)
    with cx.out_of_line(shared):
        call_locked()
        cx.jump("jmp", called)


def _emit_unlocked(cx: Context, symbol: str, version: int, call_locked: Callable[[], None]) -> None:
    """Call a routine that only reads, without the lock: once more, with it, where the table was changed.

    Meanwhile chains may lead from one to another, and keys be half written, but all stays in the table.
    """
    locked, called = cx.new_label("locked"), cx.new_label("called")
    saved = ("rdi", "rsi", "r10")
    cx.emit(f"mov r10d, dword ptr [rdi+{version:#x}]")
    cx.emit("test r10b, 1")
    cx.jump("jne", locked)
    for name in saved:
        cx.emit(f"push {name}")
    cx.emit("call qword ptr [rip+$symbol]", symbol=symbol)
    for name in reversed(saved):
        cx.emit(f"pop {name}")
    cx.emit(f"cmp dword ptr [rdi+{version:#x}], r10d")
    cx.jump("jne", locked)
    cx.label(called)
    with cx.out_of_line(locked):
        call_locked()
        cx.jump("jmp", called)


def _emit_audits(cx: Context, call: MapCall) -> None:
    """Emit faults for what analysis found of the call, where it does not hold."""
    if call.address:
        cx.emit("movabs r10, $imm", imm=call.address, imm_sizes=(64,))
        cx.emit("mov r11, rdi")
        cx.emit("cmp r10, r11")
        cx.jump("jne", cx.fault("audit_map"))
    for number, size in call.audits:
        emit_audit(cx, register(number), 0, Audit(size, stores=False))


def _emit_argument_check(cx: Context, pointer: str, size: int, frame_size: int, other: str) -> None:
    """Emit a check of an argument: in the frame inline, anywhere else by a routine."""
    cx.used.add(INSIDE)
    if frame_size < size:
        _emit_search(cx, pointer, size, other)
        return
    inside, search = cx.new_label("inside"), cx.new_label("search")
    cx.emit(f"mov r10, {pointer}")
    cx.emit(f"sub r10, qword ptr {BLOCK['stack_start']}")
    cx.emit("cmp r10, $imm", imm=frame_size - size)
    cx.jump("ja", search)
    cx.label(inside)
    with cx.out_of_line(search):
        _emit_search(cx, pointer, size, other)
        cx.jump("jmp", inside)


def _emit_search(cx: Context, pointer: str, size: int, other: str) -> None:
    cx.emit(f"mov r11, {pointer}")
    cx.emit("mov r10d, $imm", imm=size, imm_sizes=(32,))
    cx.jump("call", INSIDE)
    cx.jump("jb", other)


def _emit_lengths(cx: Context, call: MapCall, nothing: str, other: str) -> None:
    """Pay for all prefix lengths of an LPM trie but one; where this slice does not, the helper does."""
    cx.emit("cmp dword ptr [rsi], $imm", imm=call.bits)
    cx.jump("ja", nothing)
    cx.emit("mov r10, qword ptr [rdi+$offset]", offset=call.lengths)
    cx.emit("mov r10d, dword ptr [r10]")
    cx.emit("sub r10d, 1")
    cx.jump("jb", nothing)
    cx.emit("cmp r9, r10")
    cx.jump("jl", other)
    cx.emit("sub r9, r10")


def _emit_array_lookup(cx: Context, call: MapCall, nothing: str) -> None:
    cx.emit("mov r10d, dword ptr [rsi]")
    cx.emit("cmp r10d, $imm", imm=_signed32(call.entries), imm_sizes=(8, 32))
    cx.jump("jae", nothing)
    if call.stride in SHIFTS:
        cx.emit("shl r10, $imm", imm=SHIFTS[call.stride], imm_sizes=(8,))
    else:
        cx.emit("imul r10, r10, $imm", imm=call.stride)
    if call.values:
        load_constant(cx, 0, call.values)
    else:
        cx.emit("mov rax, qword ptr [rdi]")  # the header's first word: the running CPU's values
    cx.emit("add rax, r10")


def _signed32(number: int) -> int:
    return number - (1 << 32) if number >> 31 else number
