"""The exceptions of a run, worded in one place, so that both engines raise the very same ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ebpfjit.errors import (
    AccessFault,
    AlignmentFault,
    AuditFailure,
    BudgetExhausted,
    CallDepthExceeded,
    ExecutionError,
    HelperNotFound,
    IllegalInstruction,
    MemoryFault,
    Stopped,
)
from ebpfjit.isa.spec import Kind, Row
from ebpfjit.program import Instruction, Program
from ebpfjit.runtime.helpers.names import NAMES

if TYPE_CHECKING:
    from ebpfjit.runtime.memory import Region


def _at(pc: int | None) -> str:
    return "" if pc is None else f"pc {pc}: "


def _bytes(count: int) -> str:
    return f"{count} byte" if count == 1 else f"{count} bytes"


def access_of(row: Row) -> str:
    """Return what a row does to memory: "load", "store" or "atomic"."""
    return {Kind.LOAD: "load", Kind.STORE: "store"}.get(row.kind, "atomic")


def memory_fault(
    pc: int | None, address: int, size: int, access: str, regions: Iterable[Region]
) -> MemoryFault:
    """Return the fault of an access that no region allows."""
    regions = list(regions)
    message = f"{_at(pc)}{access} of {_bytes(size)} at {address:#x}: "
    around = [region for region in regions if region.contains(address, size)]
    if around:
        message += _refused(address, size, access, around[0])
    elif regions:
        message += "outside " + ", ".join(map(_extent, regions))
    else:
        message += "the program has no memory"
    return MemoryFault(message, pc, address, size, access)


EMPTY = ": none was given, as data or by context="


def _extent(region: Region) -> str:
    """Name a region with its size."""
    is_missing = not region.size and region.name == "context"
    return f"{region.name} ({_bytes(region.size)}{EMPTY if is_missing else ''})"


def _refused(address: int, size: int, access: str, around: Region) -> str:
    """Word why the region around some bytes does not allow an access."""
    if around.rights is None:
        return f"{around.name} is read-only"
    return around.rights.refusal(address - around.start, size, access)


def alignment_fault(pc: int, address: int, size: int) -> AlignmentFault:
    """Return the fault of an atomic whose address is no multiple of its size."""
    message = f"{_at(pc)}atomic access of {_bytes(size)} at {address:#x}: not a multiple of {size}"
    return AlignmentFault(message, pc, address, size, "atomic")


def audit_failure(pc: int, address: int, size: int, access: str, reason: str) -> AuditFailure:
    """Return the failure of an audit: what was found of an access, or of a call (size 0), does not hold."""
    what = f"{access} of {_bytes(size)} at {address:#x}: not the program's" if size else access
    if not size and address:
        what += f" with {address:#x}"
    message = f"{_at(pc)}{what}, although analysis found: {reason}"
    return AuditFailure(message, pc, address, size, access, reason)


def illegal_instruction(pc: int | None, reason: str) -> IllegalInstruction:
    """Return the fault of reaching something that is no instruction."""
    return IllegalInstruction(f"{_at(pc)}{reason}", pc)


def bad_target(instruction: Instruction, slots: int) -> IllegalInstruction:
    """Return the fault of a jump, taken, to where no instruction starts."""
    target = instruction.target or 0
    where = "into the second half of an lddw" if 0 <= target < slots else "outside the program"
    return illegal_instruction(instruction.pc, f"jump to pc {target}, {where} ({slots} slots)")


def bad_function(pc: int | None, address: int) -> IllegalInstruction:
    """Return the fault of an indirect call to what is no function of the program."""
    reason = f"callx to {address:#x}, which is not the address of a function"
    if address in NAMES:  # what the variable that bpf_helpers.h declares for a helper holds
        reason += (
            f" but the number of {NAMES[address]}: clang makes a call of the helper with -O2, not with -O0"
        )
    return illegal_instruction(pc, reason)


def budget_exhausted(pc: int | None, limit: int | None) -> BudgetExhausted:
    """Return the fault of what the instruction limit does not pay for: a basic block, or a helper's work."""
    return BudgetExhausted(f"{_at(pc)}the instruction limit of {limit} is used up", pc)


def call_depth_exceeded(pc: int | None, frames: int) -> CallDepthExceeded:
    """Return the fault of a local call that finds no frame or no stack left."""
    return CallDepthExceeded(f"{_at(pc)}local call: more than {frames} frames, or their stack", pc)


CORE_POISON, WEAK_POISON = 195_896_080, 2_002_000_000
"""The helpers that libbpf, and the loader, let a program call where it must not go on (relo_core.c;
POISON_CALL_KFUNC_BASE in libbpf.c)."""

POISON = {
    CORE_POISON: "instead of what CO-RE did not find in the target's types",
    WEAK_POISON: "instead of a weak function that nothing defines",
}


def helper_not_found(instruction: Instruction) -> HelperNotFound:
    """Return the fault of calling what is not registered."""
    number = instruction.imm & 0xFFFFFFFF
    kfunc = instruction.row is not None and instruction.row.kind is Kind.CALL_KFUNC
    what = "kfunc" if kfunc else "helper"
    how = "helpers= of run() and compile(), or register_helper() of a machine, adds it"
    if kfunc:
        how = "register_kfunc() adds it"
    name = NAMES.get(number) or POISON.get(number)
    known = "" if kfunc or name is None else f" ({name})"
    message = f"{_at(instruction.pc)}call of {what} {number}{known}"
    if kfunc or number not in POISON:
        message += f", which is not registered; {how}"
    return HelperNotFound(message, instruction.pc, number)


def stopped(pc: int | None) -> Stopped:
    """Return what ends a run that another thread stopped."""
    return Stopped(f"{_at(pc)}the run was stopped", pc)


def name_line(error: ExecutionError, program: Program) -> ExecutionError:
    """Add the source line to a fault that leaves `program`, the first it leaves, and what was absent."""
    if error.line is None:
        if isinstance(error, HelperNotFound) and error.pc in program.absent:
            error.args = (f"{error}: {program.absent[error.pc]}",)
        line = program.line_at(error.pc)
        error.line = "" if line is None else str(line)
        if line is not None:
            error.args = (f"{error} ({line})",)
    return error


def locate(error: BaseException, pc: int) -> BaseException:
    """Give a fault that a helper met in the program's memory the pc of the call."""
    if isinstance(error, AccessFault | ExecutionError) and error.pc is None:
        error.pc = pc
        error.args = (f"{_at(pc)}{error}",)
    return error
