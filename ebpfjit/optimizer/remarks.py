"""What passes leave alone, and why: where a program is too large for one of them, or too tangled.

    hoisting leaves what is at pc 12 alone: it is a loop with several ways in

Such a pass goes on with the rest, and the next ones too; `JitFunction.explain()` says what was left alone.
LLVM calls that missed remarks. An error inside of a pass is no such thing, but a bug of the optimizer:
`PassFailed` says in which pass, and where in the program.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from ebpfjit.errors import EbpfError
from ebpfjit.record import record

MOST_SHOWN = 6
"""Places that are named of those that are left alone for one reason."""


@record
class Remark:
    """What the pass `by` left alone: what is at `pc`, or all it does in this program (None); and why."""

    by: str
    pc: int | None
    why: str


class PassFailed(Exception):  # noqa: N818 - what happened to the compiler, not what is wrong with a program
    """An error inside of the pass `by`, which is its cause; at `pc`, where that can be told."""

    def __init__(self, by: str, pc: int | None, error: Exception) -> None:
        where = "" if pc is None else f" at pc {pc}"
        said = f": {error}" if str(error) else ""
        super().__init__(f"an error in the pass {by!r}{where}: {type(error).__name__}{said}")
        self.by, self.pc = by, pc


class blamed:  # noqa: N801 - it is used as a function is
    """Have errors inside named after a pass: PassFailed for all that no program is to blame for.

    Written out, as `contextlib` takes a microsecond for it. Where there are several passes inside, `name` is
    the one at hand.
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        if isinstance(error, Exception) and not isinstance(error, (EbpfError, MemoryError, PassFailed)):
            raise PassFailed(self.name, _pc_in(traceback), error) from error


def _pc_in(traceback: TracebackType | None) -> int | None:
    """Return the pc of the block, operation or instruction that the innermost function with one was at."""
    found: int | None = None
    while traceback is not None:
        here = traceback.tb_frame.f_locals
        for name in ("op", "end", "step", "insn", "instruction", "block"):
            pc = getattr(getattr(here.get(name), "op", here.get(name)), "pc", None)
            if isinstance(pc, int):
                found = pc
                break
        traceback = traceback.tb_next
    return found


def numbered(pcs: Sequence[int]) -> str:
    """Return pcs as text, the first few by number."""
    more = f" and {len(pcs) - MOST_SHOWN} more" if len(pcs) > MOST_SHOWN else ""
    return ", ".join(map(str, pcs[:MOST_SHOWN])) + more


def to_lines(remarks: Iterable[Remark]) -> list[str]:
    """Return remarks as lines, one for each pass and reason, in the order in which these came up."""
    groups: dict[tuple[str, str], set[int]] = {}
    for remark in remarks:
        group = groups.setdefault((remark.by, remark.why), set())
        if remark.pc is not None:
            group.add(remark.pc)
    lines = []
    for (by, why), pcs in groups.items():
        where = f"what is at pc {numbered(sorted(pcs))}" if pcs else "the program"
        lines.append(f"{by} leaves {where} alone: {why}")
    return lines
