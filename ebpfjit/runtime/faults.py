"""The exceptions of a run, worded in one place, so that both engines raise the very same ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ebpfjit.bits import W64
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
from ebpfjit.runtime import counters
from ebpfjit.runtime.helpers.names import NAMES

if TYPE_CHECKING:
    from ebpfjit.runtime.memory import Region
    from ebpfjit.runtime.provenance import Provenance


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
    fault = MemoryFault(message, pc, address, size, access)
    if not around:
        fault.around = tuple((region.name, region.start, region.size) for region in regions)
    return fault


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


TAIL_CALL = "bpf_tail_call"
NULL_PAGE = 4096
"""Addresses below are null and an offset."""

FARTHEST = 1 << 20
"""Bytes from a region that are told as an offset from it; what is farther away is some other number."""

_PACKETS, _STACK = ("packet", "mem"), "stack"
_ARGUMENTS = range(1, 6)


def _explained(fault: MemoryFault, program: Program) -> str:
    """Return what address it was in the program's own terms, "" where that cannot be told.

    The registers that it may have come from are asked for their history: it is the same on both engines.
    """
    from ebpfjit.runtime.provenance import provenance_of  # few runs need it

    insn = program.slots[fault.pc] if fault.pc is not None and fault.pc < len(program.slots) else None
    row = insn.row if insn is not None else None
    if insn is None or row is None:
        return ""
    is_call = row.kind in (Kind.CALL_HELPER, Kind.CALL_KFUNC)
    registers = _ARGUMENTS if is_call else (insn.src_reg if row.kind is Kind.LOAD else insn.dst_reg,)
    found = [provenance_of(program, insn.pc, register) for register in registers]
    base = fault.address if is_call else W64.wrap(fault.address - insn.offset)
    if min(base, fault.address) < NULL_PAGE:
        results = [each for each in found if each.calls]
        return _null(program, results if len(results) == 1 else ())  # of two arguments it may be either
    return _place(fault, program, found)


def _null(program: Program, found: Iterable[Provenance]) -> str:
    """Word a null pointer: which call has returned it, and whether anything looked."""
    results = [
        f"{called(program, pc)} at pc {pc}{'' if pc in each.tested else ', not tested'}"
        for each in found
        for pc in sorted(each.calls)
    ]
    return f"null pointer (result of {' or '.join(results)})" if results else "null pointer"


def called(program: Program, pc: int) -> str:
    """Return the name of what is called at a pc."""
    insn = program.slots[pc]
    assert insn is not None  # whoever asks has found a call there
    number = insn.imm & 0xFFFFFFFF
    if insn.row is not None and insn.row.kind is Kind.CALL_KFUNC:
        kfunc = program.kfuncs.get(insn.imm)
        return f"kfunc {number}" if kfunc is None else kfunc.name
    return NAMES.get(number, f"helper {number}")


def _place(fault: MemoryFault, program: Program, found: Iterable[Provenance]) -> str:
    """Word an address as an offset from the one region that it was made of, "" where there are several.

    Which of them is nearest would be by chance: how regions lie differs from process to process.
    """
    names = _regions(fault, program, found)
    possible = [each for each in fault.around if each[0] in names]
    if len(possible) != 1:
        return ""
    name, start, size = possible[0]
    offset = fault.address - start
    if not -FARTHEST < offset < size + FARTHEST:
        return ""
    if offset < 0:
        return f"{name} - {-offset}: {_bytes(-offset)} before its start ({_bytes(size)})"
    beyond = offset + fault.size - size
    return f"{name} + {offset}: {_bytes(beyond)} past its end ({_bytes(size)})" if beyond > 0 else ""


def _regions(fault: MemoryFault, program: Program, found: Iterable[Provenance]) -> set[str]:
    """Return the names of the regions that a value may have been made of."""
    from ebpfjit.runtime.provenance import provenance_of

    names: set[str] = set()
    others = [name for name, *_ in fault.around[:2] if name not in (*_PACKETS, _STACK)]
    for each in found:
        names.update(_PACKETS if "packet" in each.places else ())
        names.update({_STACK} & each.places)
        if "argument" in each.places:
            names.update(others[:1] or _PACKETS)
        looked_up: set[int | None] = set()
        for pc in each.calls:  # a lookup's result lies in the map that it was given
            looked_up |= {program.references.get(load) for load in provenance_of(program, pc, 1).maps}
        values = [program.references.get(pc, 0) for pc in each.maps]  # a map's own address is in no region
        names.update(
            str(map_.definition)
            for map_ in program.maps
            if map_.address in looked_up
            or any(region.contains(value, 0) for region in map_.regions for value in values)
        )
    return names


def name_helper(error: Exception, program: Program, pc: int) -> None:
    """Add a note to an exception that came out of a helper: which helper it was, and where it is called."""
    insn = program.slots[pc] if pc < len(program.slots) else None
    kind = insn.row.kind if insn is not None and insn.row is not None else None
    if kind not in (Kind.CALL_HELPER, Kind.CALL_KFUNC) or isinstance(error, Stopped):
        return
    if called(program, pc) == TAIL_CALL:
        return  # it came out of the other program: this one has ended
    line = program.line_at(pc)
    whose = "" if program.name is None else f" of program {program.name!r}"
    note = f"in {called(program, pc)} at pc {pc}{whose}{'' if line is None else f' ({line})'}"
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)


def name_line(error: ExecutionError, program: Program) -> ExecutionError:
    """Add the source line to a fault that leaves `program`, the first it leaves, and what explains it."""
    if error.line is None:
        counters.note_fault(error, program)
        if isinstance(error, HelperNotFound) and error.pc in program.absent:
            error.args = (f"{error}: {program.absent[error.pc]}",)
        if isinstance(error, MemoryFault) and error.around:
            reason = _explained(error, program)
            error.args = (f"{error}; {reason}" if reason else str(error),)
            del error.around
        line = program.line_at(error.pc)
        error.line = "" if line is None else str(line)
        if program.name is not None:
            error.program = program.name
        if line is not None:
            error.args = (f"{error} ({line})",)
    return error


def locate(error: BaseException, pc: int) -> BaseException:
    """Give a fault that a helper met in the program's memory the pc of the call."""
    if isinstance(error, AccessFault | ExecutionError) and error.pc is None:
        error.pc = pc
        error.args = (f"{_at(pc)}{error}",)
    return error
