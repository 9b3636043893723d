"""What stands around a bare function: a stack frame and saved registers, as far as it uses them."""

from __future__ import annotations

from collections.abc import Collection

from ebpfjit.isa.spec import FRAME_POINTER
from ebpfjit.translators.context import Context
from ebpfjit.translators.emitter import NO_PC
from ebpfjit.translators.x86_64.target import register

KEPT = (6, 7, 8, 9, FRAME_POINTER)  # where they lie, the System V ABI wants them back unchanged


class Routine:
    """The entry of one, and what comes before an exit.

    push rbx;  push rbp;  mov rbp, rsp;  sub rsp, frame
    add rsp, frame;  pop rbp;  pop rbx
    """

    def __init__(self, written: Collection[int], depth: int) -> None:
        """`written` are the registers it writes, by number; it touches `depth` bytes below r10."""
        changed = {*written, FRAME_POINTER} if depth else written
        self._saved = [register(number) for number in KEPT if number in changed]
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
        """Emit what comes before an exit."""
        if self._frame:
            cx.emit("add rsp, $imm", imm=self._frame)
        for name in reversed(self._saved):
            cx.emit(f"pop {name}")
