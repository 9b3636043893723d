"""A program of an object file, loaded as libbpf loads it: type, attachment, licence, types, lines.

Program, its code with descriptors  ->  LoadAttributes  ->  BPF_PROG_LOAD  ->  LoadedProgram
"""

from __future__ import annotations

from ebpfjit.errors import LoadError
from ebpfjit.kernel import vmlinux
from ebpfjit.kernel.objects import LoadedProgram
from ebpfjit.kernel.program_types import PROGRAM_TYPES, ProgramType
from ebpfjit.kernel.reached import only_reached
from ebpfjit.kernel.symbols import with_symbols
from ebpfjit.kernel.syscalls import KernelVerifierError, LoadAttributes
from ebpfjit.kernel.types import refused, types_of
from ebpfjit.program import Program
from ebpfjit.record import replace
from ebpfjit.runtime.attach import attachment
from ebpfjit.runtime.contexts.types import program_type

_KERNEL_NAMES = {"sched_act": "action"}


def kind_of(program: Program) -> ProgramType:
    """Return how the kernel has programs of this type. Raises InputError for a type there is none of."""
    name = program_type(program.type or "").name
    return PROGRAM_TYPES[_KERNEL_NAMES.get(name, name)]


def load_linked(
    program: Program, code: bytes, license: str | None = None, attach_type: int | None = None
) -> LoadedProgram:
    """Load a program whose code has descriptors for its maps.

    `attach_type` is for a program whose section says none.
    `license` stands for what the object says; a program of no object is "GPL". Raises KernelVerifierError,
    KernelUnavailable, and LoadError where what it is to be attached to is not there.
    """
    program, code = only_reached(program, code)
    kind = kind_of(program)
    what = attachment(program.type, program.section)
    if attach_type is not None and not what.is_said:
        what = replace(what, type=attach_type)
    said = program.license if license is None else license
    types = types_of(program)
    try:
        if kind is PROGRAM_TYPES["struct_ops"]:
            expected, attach_id = vmlinux.struct_ops(program)
        else:
            expected, attach_id = what.type, vmlinux.attach_id(what)
    except LoadError as error:
        raise LoadError(f"program {program.name!r}, section {program.section!r}: {error}") from None
    attributes = LoadAttributes(
        expected,
        what.flags | kind.flags,
        "GPL" if said is None else said,
        program.name or "ebpfjit",
        attach_id,
        types.btf.fd if types is not None else 0,
        types.functions if types is not None else b"",
        types.lines if types is not None else b"",
    )
    try:
        return LoadedProgram(with_symbols(program, code), kind.number, attributes)
    except KernelVerifierError as error:
        raise _name_reason(error, program) from None


def _name_reason(error: KernelVerifierError, program: Program) -> KernelVerifierError:
    """Say at the head of a refusal what Linux does not.

    That is what stands where Linux met it, and was not found (libbpf says so), and that it took no types.
    """
    reason, what = "", refused(program)
    if error.pc in program.absent:
        line = program.line_at(error.pc)
        where = f" ({line})" if line is not None else ""
        reason = f"pc {error.pc}: {program.absent[error.pc]}{where}\n"
    if what:
        first, _, rest = str(error).partition("\n")
        error.args = (f"{reason}{first}; {what}\n{rest}".rstrip("\n"),)
    elif reason:
        error.args = (f"{reason}{error}",)
    return error
