"""What stands around a bare function: a stack frame and saved registers, as far as it uses them."""

from __future__ import annotations

from ebpfjit.isa.spec import FRAME_POINTER, Kind
from ebpfjit.program import Program
from ebpfjit.translators.emitter import NO_PC
from ebpfjit.translators.x86_64.target import Context, register

KEPT = (6, 7, 8, 9, FRAME_POINTER)  # where they lie, the System V ABI wants them back unchanged


class Routine:
    """The entry and the exits of one.

    push rbx;  push rbp;  mov rbp, rsp;  sub rsp, frame
    add rsp, frame;  pop rbp;  pop rbx;  ret
    """

    def __init__(self, program: Program) -> None:
        named: set[int] = set()
        depth = 0
        for insn in program.instructions:
            assert insn.row is not None  # the verifier saw the program
            named |= {insn.dst_reg, insn.src_reg}
            base = insn.src_reg if insn.row.kind is Kind.LOAD else insn.dst_reg
            if base == FRAME_POINTER:
                depth = max(depth, -insn.offset)
        self._saved = [register(number) for number in KEPT if number in named]
        self._frame = -(-depth // 8) * 8

    def enter(self, cx: Context) -> None:
        """Emit the entry."""
        cx.begin(NO_PC)
        cx.label("entry")
        for name in self._saved:
            cx.emit(f"push {name}")
        if self._frame:
            cx.emit("mov rbp, rsp")
            cx.emit("sub rsp, $imm", imm=self._frame)

    def leave(self, cx: Context) -> None:
        """Emit an exit."""
        if self._frame:
            cx.emit("add rsp, $imm", imm=self._frame)
        for name in reversed(self._saved):
            cx.emit(f"pop {name}")
        cx.emit("ret")
