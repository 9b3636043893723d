"""Jumps, conditional jumps, exit."""

from __future__ import annotations

from ebpfjit.program import Instruction
from ebpfjit.translators.registry import Translator
from ebpfjit.translators.x86_64.target import BLOCK, Context, translates

#    eBPF     x86-64 condition after cmp dst, operand
CONDITIONS = {
    "JEQ": "je",
    "JNE": "jne",
    "JGT": "ja",
    "JGE": "jae",
    "JLT": "jb",
    "JLE": "jbe",
    "JSGT": "jg",
    "JSGE": "jge",
    "JSLT": "jl",
    "JSLE": "jle",
}


def _target(insn: Instruction) -> int:
    assert insn.target is not None  # only jumps are translated here
    return insn.target


@translates("JA", "JA32")
def jump_always(insn: Instruction, cx: Context) -> None:
    """Jmp."""
    cx.goto("jmp", _target(insn))


def _compare(jump: str) -> Translator:
    def translate(insn: Instruction, cx: Context) -> None:
        if not cx.has_flags:
            cx.emit_constant(f"cmp {cx.dst}, {cx.operand}", cx.imm)
        cx.goto(jump, _target(insn))

    translate.__doc__ = f"cmp, {jump}."
    return translate


for _meaning, _jump in CONDITIONS.items():
    translates(_meaning, f"{_meaning}32")(_compare(_jump))


@translates("JSET", "JSET32")
def jump_if_set(insn: Instruction, cx: Context) -> None:
    """test, jne."""
    cx.emit_constant(f"test {cx.dst}, {cx.operand}", cx.imm, (32,))
    cx.goto("jne", _target(insn))


@translates("MAY_GOTO")
def may_goto(insn: Instruction, cx: Context) -> None:
    """Fall through while the frame's loop budget lasts, then jump."""
    cx.emit(f"cmp qword ptr {BLOCK['loops']}, 0")
    cx.goto("je", _target(insn))
    cx.emit(f"dec qword ptr {BLOCK['loops']}")


@translates("EXIT")
def exit_(insn: Instruction, cx: Context) -> None:
    """ret: to the local call, or to the host."""
    if cx.before_exit is not None:
        cx.before_exit(cx)
    cx.emit("ret")
