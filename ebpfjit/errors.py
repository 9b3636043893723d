"""Every exception the library raises for bad programs, bad objects and bad packets; and its warnings.

EbpfError
  DecodeError            bytes that are not a program
  AssemblyError          text that is not a program (line, column)
  LoadError              an object file that cannot be loaded
    MapRefused             a map that the kernel would not create (errno)
  CaptureError           a capture that is none, is damaged or was cut off (packets, position)
  FilterError            a filter expression that libpcap refuses
  MapError               an operation on a map that the kernel would not do (errno)
  PicklingRefused        a map that cannot be copied or sent to another process, or what has one
  VerifierError          a program that breaks a rule (pc, rule)
  TranslationError       a program that cannot become machine code
    OptimizationError      a program that cannot be optimised: it stays in baseline code
  InputError             a packet, a field or an option that the program, or the engine, does not take
  JitUnavailable         this machine cannot run machine code of ours
  ExecutionError         a program that went wrong while it ran (pc)
    MemoryFault            an access outside the program's memory
    AlignmentFault         an atomic access at an unaligned address
    AuditFailure           what was found out about the program does not hold (audit builds)
    IllegalInstruction     control reached something that is no instruction
    BudgetExhausted        the instruction limit was reached
    CallDepthExceeded      too many frames
    HelperNotFound         a call to a helper that is not registered
    Stopped                another thread ended the run

EbpfWarning              what programs are none the worse for
  LicenseWarning           a program runs here that Linux refuses for its license
"""

from __future__ import annotations

from ebpfjit.named import cut


class EbpfError(Exception):
    """The root of everything that wrong programs, objects and packets can raise: `message` says why."""

    def __repr__(self) -> str:
        return cut(super().__repr__())


class DecodeError(EbpfError):
    """Bytes that cannot be read as eBPF instructions; `pc` is the slot, where there is one."""

    def __init__(self, message: str, pc: int | None = None) -> None:
        super().__init__(message)
        self.pc = pc

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.pc)


class AssemblyError(EbpfError):
    """Assembly text that cannot be encoded.

    `line` and `column` count from 1. The text of the exception shows the line (`source_line`) with a
    caret below the column; `reason` is the sentence alone.
    """

    def __init__(self, reason: str, line: int, column: int, source_line: str = "") -> None:
        caret = " " * (column - 1) + "^"
        shown = f"\n  {source_line}\n  {caret}" if source_line else ""
        super().__init__(f"line {line}, column {column}: {reason}{shown}")
        self.reason = reason
        self.line = line
        self.column = column
        self.source_line = source_line

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.reason, self.line, self.column, self.source_line)


class LoadError(EbpfError):
    """An object file, or a reference inside a program, that cannot be loaded."""


class CaptureError(EbpfError):
    """A capture that is none, or that is damaged, or ends, behind so many `packets`, at a byte `position`."""

    def __init__(self, message: str, packets: int = 0, position: int = 0) -> None:
        super().__init__(message)
        self.packets = packets
        self.position = position

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.packets, self.position)


class FilterError(EbpfError):
    """A filter expression that libpcap refuses, or that cannot be compiled here."""


class MapRefused(LoadError):  # noqa: N818 - as the refusals of the kernel are called
    """A map whose type or sizes are not to be had; `errno` is the kernel's number (positive)."""

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.errno)


class MapError(EbpfError):
    """An operation on a map that the kernel would not do; `errno` is its number (positive)."""

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.errno)


class PicklingRefused(EbpfError, TypeError):  # noqa: N818 - as MapRefused
    """What cannot be copied, or sent to another process, since a map's memory is this process's."""


EMPTY = "the program is empty: it needs at least an exit"


class VerifierError(EbpfError):
    """A program that breaks a rule of the verifier.

    `pc` is the slot (None when the rule is about the whole program), `rule` the rule's short name.
    """

    def __init__(self, message: str, pc: int | None = None, rule: str = "") -> None:
        super().__init__(message)
        self.pc = pc
        self.rule = rule

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.pc, self.rule)


class EbpfWarning(UserWarning):
    """The root of all warnings. As such: the optimizer failed, and a program stays in baseline code."""


class LicenseWarning(EbpfWarning):
    """A program runs here that Linux refuses for its license (`Environment.gpl_only`)."""


class TranslationError(EbpfError):
    """A program or a listing that cannot become machine code."""


class OptimizationError(TranslationError):
    """A program that cannot be optimised; `compile_program` goes back to baseline code, and says why."""


class JitUnavailable(EbpfError):  # noqa: N818 - the name is part of the public API
    """Machine code cannot be made or run here; the message says what is missing."""


class InputError(EbpfError, ValueError):
    """What a run was given is not what its program, or its engine, takes: nothing has run.

    A packet that is too short, a field that its context does not have, an option of another engine. In a
    batch `index` is the packet's number.
    """

    index: int | None = None


class ExecutionError(EbpfError):
    """A program went wrong at slot `pc` while it ran; in a batch, on packet number `index`.

    `line` is the source line ("filter.c:12: return *p;"), "" where the program does not know it;
    None before the fault has left the program. `program` is the program's name: with tail calls it may be
    another than the one that was run.
    """

    line: str | None = None
    index: int | None = None
    program: str | None = None

    def __init__(self, message: str, pc: int | None = None) -> None:
        super().__init__(message)
        self.pc = pc

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.pc), vars(self)


class AccessFault(ExecutionError):  # noqa: N818 - as its two kinds below
    """What the two faults of an access share: address (u64), size (bytes) and access."""

    def __init__(
        self, message: str, pc: int | None = None, address: int = 0, size: int = 0, access: str = ""
    ) -> None:
        super().__init__(message, pc)
        self.address = address
        self.size = size
        self.access = access

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.pc, self.address, self.size, self.access), vars(self)


class MemoryFault(AccessFault):
    """An access of `size` bytes at `address` that the program has no right to.

    `access` is "load", "store" or "atomic"; a helper's reads and writes are "load" and "store". `around` is
    what the program had then (name, start, size), until the fault leaves it.
    """

    around: tuple[tuple[str, int, int], ...] = ()


class AlignmentFault(AccessFault):
    """An atomic access at an `address` that is no multiple of its `size`."""


class AuditFailure(AccessFault):
    """An audit build found that the machine code relies on what does not hold: a bug of ours.

    `reason` is what analysis found of the access: "covered", "frame", "one at pc 5 covers it". `access` is
    "call" (`size` 0) for what was found of a call.
    """

    def __init__(
        self,
        message: str,
        pc: int | None = None,
        address: int = 0,
        size: int = 0,
        access: str = "",
        reason: str = "",
    ) -> None:
        super().__init__(message, pc, address, size, access)
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        return (
            type(self),
            (str(self), self.pc, self.address, self.size, self.access, self.reason),
            vars(self),
        )


class IllegalInstruction(ExecutionError):  # noqa: N818 - the hardware's name for it
    """Control reached a slot that holds no instruction, or left the program."""


class BudgetExhausted(ExecutionError):  # noqa: N818 - the name is part of the public API
    """The instruction limit was reached at the start of the basic block at `pc`."""


class CallDepthExceeded(ExecutionError):  # noqa: N818 - the name is part of the public API
    """A local call at `pc` needs more frames, or more stack, than there are."""


class Stopped(ExecutionError):  # noqa: N818 - what happened to the run, not what was wrong with it
    """The run was ended by `stop()`; at slot `pc` where that is known."""


class StackExhausted(ExecutionError, RecursionError):  # noqa: N818 - as its neighbours
    """A run inside of other runs, for which the thread's C stack has too little left."""


class HelperNotFound(ExecutionError):  # noqa: N818 - the name is part of the public API
    """A call at `pc` of helper number `helper`, which is not registered."""

    def __init__(self, message: str, pc: int | None = None, helper: int | None = None) -> None:
        super().__init__(message, pc)
        self.helper = helper

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.pc, self.helper), vars(self)
