"""Calls: helpers, functions of the program, and functions by address."""

from __future__ import annotations

from collections.abc import Callable

from ebpfjit.isa.spec import FRAME_POINTER
from ebpfjit.program import Instruction
from ebpfjit.translators.block import LEAVE_FUNCTION
from ebpfjit.translators.labels import COUNTS, enter_label, return_label
from ebpfjit.translators.x86_64.maps import emit_map_call
from ebpfjit.translators.x86_64.tails import TAIL_CALL
from ebpfjit.translators.x86_64.target import BLOCK, Context, drop, pin, register, translates

SAVED = (6, 7, 8, 9)  # the registers that a callee hands back unchanged, besides r10


@translates("CALL")
def call_helper(insn: Instruction, cx: Context) -> None:
    """Call [helper's slot]; the arguments are where the System V ABI wants them."""
    number = insn.imm & 0xFFFFFFFF

    def call() -> None:
        leaves = number == cx.settings.tail_call or number in cx.settings.calling
        _call_out(cx, f"helper_{number}", cx.settings.helpers.get(number), leaves=leaves)

    map_call = cx.plan.map_calls.get(insn.pc)
    routine = cx.settings.packet_helpers.get(number)
    if routine is not None:
        _call_routine(cx, routine, call)
    elif map_call is None:
        call()
    else:
        emit_map_call(cx, map_call, call, lambda: _forget_arguments(cx))


def _call_routine(cx: Context, routine: str, call: Callable[[], None]) -> None:
    """Call a routine of `packets`, `tails` or `events`, and the Python helper where that has done nothing."""
    done, slow = cx.new_label("done"), cx.new_label("slow")
    cx.used.add(routine)
    if routine == TAIL_CALL:
        cx.emit("lea r10, [rsp+$offset]", offset=cx.spilled)
    cx.jump("call", routine)
    cx.jump("jb", slow)
    _forget_arguments(cx)
    cx.label(done)
    with cx.out_of_line(slow):
        call()
        cx.jump("jmp", done)


@translates("CALL_KFUNC")
def call_kfunc(insn: Instruction, cx: Context) -> None:
    """As a helper call, by BTF id."""
    number = insn.imm & 0xFFFFFFFF
    _call_out(cx, f"kfunc_{number}", cx.settings.kfuncs.get(number), leaves=True)


def _call_out(cx: Context, symbol: str, native: bool | None, *, leaves: bool) -> None:
    """Call native code directly, a Python object through its routine; None: nobody is there.

    Where it `leaves`, a Python object may ask that the running function ends.
    """
    if native is None:
        cx.raise_fault("helper_missing")
        return
    if native:
        cx.emit(f"mov qword ptr {BLOCK['budget']}, r9")
        cx.emit("call qword ptr [rip+$symbol]", symbol=symbol)
        cx.emit(f"mov r9, qword ptr {BLOCK['budget']}")
    else:
        cx.used.add("call_python")
        cx.emit("mov r10, qword ptr [rip+$symbol]", symbol=COUNTS)
        cx.emit("inc qword ptr [r10+$offset]", offset=8 * cx.insn.pc)
        cx.emit("mov r11, qword ptr [rip+$symbol]", symbol=symbol)
        cx.jump("call", "call_python")
    _forget_arguments(cx)
    if leaves and not native:
        _leave_where_asked(cx)


def _forget_arguments(cx: Context) -> None:
    """Make r1 to r5 zero: what the host left there is not the program's to see.

    Code says of each value where it comes from, and reads nothing else.
    """
    if cx.live is None:
        _clear_arguments(cx)
        pin(cx)


def _clear_arguments(cx: Context) -> None:
    for argument in range(1, 6):
        name = register(argument, 32)
        cx.emit(f"xor {name}, {name}")


def _leave_where_asked(cx: Context) -> None:
    """Exit from the running function, or from all of them, where the helper asked for it.

    rsp is then where it was when the host, or a helper that calls functions of the program, came in.
    """
    leaving, function = cx.new_label("leaving"), cx.new_label("leaving_function")
    cx.emit(f"cmp qword ptr {BLOCK['leave']}, 0")
    cx.jump("jne", leaving)
    with cx.out_of_line(leaving):
        cx.emit(f"cmp qword ptr {BLOCK['leave']}, {LEAVE_FUNCTION}")
        cx.emit(f"mov qword ptr {BLOCK['leave']}, 0")  # moves leave the flags alone
        cx.jump("je", function)
        cx.emit(f"mov rsp, qword ptr {BLOCK['host_stack']}")
        cx.emit("ret")
        cx.label(function)
        if cx.live is not None:
            _clear_arguments(cx)  # the caller may read them
        drop(cx)
        cx.emit("ret")


@translates("CALL_LOCAL")
def call_local(insn: Instruction, cx: Context) -> None:
    """Save what the callee may change, take a frame, call; a function without a frame is just called."""
    target = insn.target
    if target is None or target not in cx.program.functions:
        cx.raise_fault("target")
        return
    saved = _saved(cx)
    if target in cx.plan.frameless:
        _around(cx, saved, lambda: cx.jump("call", cx.functions(target)))
        return
    _in_frame(cx, saved, enter_label(target))


@translates("CALLX")
def call_register(insn: Instruction, cx: Context) -> None:
    """As a local call, to the function whose address is in dst: a routine finds it."""
    cx.used.add("call_by_address")
    cx.emit(f"mov r11, {cx.dst64}")
    _in_frame(cx, _saved(cx), "call_by_address")


def _saved(cx: Context) -> list[str]:
    """Return the registers saved around a call: what is read behind it, as far as that is known."""
    numbers = SAVED if cx.live is None else cx.live
    return [register(number) for number in numbers if number != FRAME_POINTER]


def _in_frame(cx: Context, saved: list[str], label: str) -> None:
    """Call what takes a frame of its own; the depth is counted where it may be too much."""
    counts = cx.plan.counts_frames
    if counts:
        cx.emit(f"dec qword ptr {BLOCK['frames_left']}")
        cx.jump("js", cx.fault(cx.plan.depth_fault))
    words = [*saved, register(FRAME_POINTER), f"qword ptr {BLOCK['stack_start']}"]
    if cx.has_may_goto:
        words.append(f"qword ptr {BLOCK['loops']}")

    def call() -> None:
        cx.jump("call", label)
        if cx.live is None:
            cx.label(return_label(cx.insn.pc))
            cx.returns.append(cx.insn.pc)

    _around(cx, words, call)
    if cx.live is None:
        pin(cx)  # the callee may have gone on in other code
    if counts:
        cx.emit(f"inc qword ptr {BLOCK['frames_left']}")


def _around(cx: Context, words: list[str], call: Callable[[], None]) -> None:
    """Keep words on the stack: an odd number, so that rsp is a multiple of 16 in the callee."""

    def keep() -> None:
        for word in words:
            cx.emit(f"push {word}")
        if len(words) % 2 == 0:
            cx.emit("sub rsp, 8")

    def give_back() -> None:
        if len(words) % 2 == 0:
            cx.emit("add rsp, 8")
        for word in reversed(words):
            cx.emit(f"pop {word}")

    cx.repeat(("keep", *words), keep)
    call()
    cx.repeat(("give back", *words), give_back)
