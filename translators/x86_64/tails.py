"""Tail calls without Python: a run that came through the gate goes on in the code behind another gate.

    call tail_call;  jb slow     slow:  the helper in Python, which runs the other program inside of this run

The block, the packet and what is left of the budget stay; all else is the other program's: its state,
regions, limits, an empty stack. So whoever looks at the run from then on, as faults and helpers do, finds
the other one. It is done where Python does not know the run yet, by the function that the run began with;
where the other program is known (`jit.tails`), has the same lane, is in the list of runs, and takes no
more of the thread's stack.

    a state's table:  [ map, entries, count ] ...  0     an entry:  a compiled function, EMPTY, 0: ask Python
"""

from __future__ import annotations

from ebpfjit.translators.block import CALL_COST, EMPTY, STATE_WORDS, TABLE_ROW
from ebpfjit.translators.emitter import NO_PC, Emitter
from ebpfjit.translators.host import Layout
from ebpfjit.translators.x86_64.runs import block_word, fill_limits, state_word, write_cells

TAIL_CALL = "tail_call"
"""The routine; r10 is where the machine's stack would be, were nothing on it but the address to return to."""
MAX_TAIL_CALLS = 33  # MAX_TAIL_CALL_CNT in include/linux/bpf.h
E2BIG, ELOOP, ENOENT = 7, 40, 2


def emit_tails(cx: Emitter, layout: Layout) -> None:
    """Emit `tail_call`: r1 to r3 as of the helper.

    Carry is set where nothing was done, else rax is the result. Where the run goes on in another program it
    does not return.
    """
    slow, found, other = ".tail_slow", ".tail_found", ".tail_other_map"

    def state(register: str, word: str) -> str:
        return f"qword ptr [{register}+{8 * STATE_WORDS.index(word):#x}]"

    cx.begin(NO_PC)
    cx.label(TAIL_CALL, 16)
    cx.emit(f"cmp r10, {block_word('host_stack')}")
    cx.jump("jne", slow)
    cx.emit(f"cmp rdi, {block_word('argument_start')}")
    cx.jump("jne", slow)
    cx.emit(f"mov r11, {block_word('state')}")
    cx.emit("test r11, r11")
    cx.jump("je", slow)
    cx.emit(f"cmp {block_word('attached')}, 0")
    cx.jump("jne", slow)
    cx.emit(f"mov rax, {state('r11', 'tails')}")
    cx.emit("test rax, rax")
    cx.jump("je", slow)
    cx.label(other)
    cx.emit("mov r10, qword ptr [rax]")
    cx.emit("test r10, r10")
    cx.jump("je", slow)
    cx.emit("cmp r10, rsi")
    cx.jump("je", found)
    cx.emit(f"add rax, {TABLE_ROW:#x}")
    cx.jump("jmp", other)

    cx.label(found)
    cx.emit("mov r10d, edx")
    cx.emit("cmp r10, qword ptr [rax+0x10]")
    cx.jump("jae", ".tail_outside")
    cx.emit(f"cmp {block_word('tail_calls')}, {MAX_TAIL_CALLS:#x}")
    cx.jump("jae", ".tail_too_many")
    cx.emit("mov rax, qword ptr [rax+8]")
    cx.emit("mov rax, qword ptr [rax+r10*8]")
    cx.emit(f"cmp rax, {EMPTY}")
    cx.jump("jb", slow)
    cx.jump("je", ".tail_empty")
    cx.emit("mov rax, qword ptr [rax+$offset]", offset=layout.state)
    cx.emit(f"mov r10, {state('rax', 'lane')}")
    cx.emit(f"cmp r10, {state('r11', 'lane')}")
    cx.jump("jne", slow)
    cx.emit(f"mov r10, {state('rax', 'linked')}")
    cx.emit(f"and r10, {state('r11', 'linked')}")
    cx.jump("je", slow)
    cx.emit(f"mov r10, {state('rax', 'unlocked')}")
    cx.emit(f"or r10, {state('r11', 'unlocked')}")
    cx.jump("jne", slow)
    cx.emit(f"mov r10, {block_word('stack_limit')}")
    cx.emit("sub r10, r12")
    cx.emit(f"cmp {state('rax', 'low')}, r10")
    cx.jump("ja", slow)
    cx.emit(f"mov r10, {block_word('stack_top')}")
    cx.emit(f"sub r10, {block_word('stack_limit')}")
    cx.emit(f"add r10, {state('rax', 'low')}")
    cx.emit(f"cmp {state('rax', 'high')}, r10")
    cx.jump("ja", slow)
    _emit_heat(cx, state("r11", "on_hot"), state("r11", "heat"), slow)
    _emit_switch(cx, layout)
    for label, number in ((".tail_outside", E2BIG), (".tail_too_many", ELOOP), (".tail_empty", ENOENT)):
        cx.label(label)
        cx.emit("mov rax, $imm", imm=-number, imm_sizes=(32,))
        cx.emit("clc")
        cx.emit("ret")
    cx.label(slow)
    cx.emit("stc")
    cx.emit("ret")


def _emit_heat(cx: Emitter, on_hot: str, heat: str, slow: str) -> None:
    """Count the call of the program that is left: where it has become hot, it has to be there at the end."""
    cold = ".tail_cold"
    cx.emit(f"cmp {on_hot}, 0")
    cx.jump("je", cold)
    cx.emit(f"cmp {block_word('batch')}, 0")
    cx.jump("jne", cold)  # a batch has counted all of its packets
    cx.emit(f"sub {heat}, {CALL_COST:#x}")
    cx.jump("jle", slow)
    cx.label(cold)


def _emit_switch(cx: Emitter, layout: Layout) -> None:
    """Make the run one of the program whose state is rax; r11 is that of the one it was."""
    first, again = ".tail_first", ".tail_again"
    cx.emit(f"cmp {block_word('tail_calls')}, 0")
    cx.jump("jne", again)
    cx.label(first)
    cx.emit(f"mov {block_word('origin')}, r11")
    cx.label(again)
    cx.emit(f"inc {block_word('tail_calls')}")
    cx.emit(f"mov {block_word('state')}, rax")
    cx.emit("mov rbx, rax")
    cx.emit(f"mov rax, {block_word('later')}")
    cx.emit("add rax, r9")
    cx.emit(f"mov {block_word('given')}, rax")
    cx.emit(f"mov rax, {state_word('regions')}")
    cx.emit(f"mov {block_word('regions')}, rax")
    fill_limits(cx, "tail")
    write_cells(cx)
    cx.emit(f"mov rax, {block_word('stack_top')}")
    cx.emit(f"mov {block_word('stack_start')}, rax")
    cx.emit(f"mov {block_word('frames_left')}, {layout.max_frames - 1:#x}")
    cx.emit(f"mov rdi, {block_word('argument_start')}")
    cx.emit("xor esi, esi")
    cx.emit(f"mov rsp, {block_word('host_stack')}")
    cx.emit(f"jmp {state_word('entry')}")


def return_to_origin(cx: Emitter) -> None:
    """Emit what makes the next run of a batch one of the program that the batch is of, in rbx again.

    Its limits are to be filled anew.
    """
    cx.emit(f"mov {block_word('tail_calls')}, 0")
    cx.emit(f"mov rbx, {block_word('origin')}")
    cx.emit(f"mov {block_word('state')}, rbx")
    cx.emit(f"mov rax, {state_word('regions')}")
    cx.emit(f"mov {block_word('regions')}, rax")
