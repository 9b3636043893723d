"""The contexts that a program's own types lay out.

SEC("iter/task")              struct bpf_iter__task of the kernel that the program is for
SEC("tp/sched/sched_switch")  the struct that its function takes: trace_event_raw_sched_switch, of that kernel
SEC("raw_tp/sys_enter")       the same; where it takes none, struct bpf_raw_tracepoint_args
SEC("syscall")                the struct that its function takes, as the program's own
SEC("struct_ops/ssthresh")    the arguments of the member that it is for: tcp_congestion_ops.ssthresh
"""

from __future__ import annotations

from collections.abc import Iterator

from ebpfjit.elf.btf import VOID, Btf, Kind, Type, essential_name
from ebpfjit.elf.codec import Array, Converted, Raw, Struct, codec_of
from ebpfjit.elf.objects import STRUCTS, members_of
from ebpfjit.elf.operations import member_of, structs_of
from ebpfjit.errors import InputError, LoadError
from ebpfjit.program import Program
from ebpfjit.runtime.attach import attachment
from ebpfjit.runtime.contexts.arguments import Argument, Prototype
from ebpfjit.runtime.contexts.described import Layout, Tail
from ebpfjit.runtime.maps.definition import Codec

PREFIX = "bpf_iter__"
BPF_TRACE_ITER = 28
NUMBERS = frozenset({Kind.INT, Kind.ENUM, Kind.ENUM64})
LARGEST = (1 << 16) - 1
"""Bytes of a context: what bpf_prog_test_run_syscall takes."""

RAW = frozenset({"raw_tracepoint", "raw_tracepoint_writable"})
BY_FUNCTION = frozenset({"tracepoint", "syscall", *RAW})
"""Program types whose context is the struct that the program's function takes."""

RAW_SIZE = 8 * 12
"""Bytes of a raw tracepoint's context at most: MAX_BPF_FUNC_ARGS words."""


def _words(count: int) -> Codec:
    return Array(Converted(8), count)


RAW_ARGUMENTS = Layout("bpf_raw_tracepoint_args", 0, {}, tail=Tail("args", 0, _words), most=RAW_SIZE)


def context_layout(program: Program) -> Layout | Prototype | None:
    """Return the struct, or the arguments, that a program is given.

    None where its type tells, or where it gets words that have no names.

    Raises InputError where no types say what it looks like.
    """
    try:
        if program.type in BY_FUNCTION:
            return _layout_of_function(program)
        if program.type == "struct_ops":
            return _prototype(program)
        attached = attachment(program.type, program.section)
        if program.type == "tracing" and attached.type == BPF_TRACE_ITER and attached.is_said:
            return _layout_of_iterator(program, PREFIX + attached.target.partition("/")[0])
    except LoadError as error:  # its types are damaged
        raise InputError(f"program {program.name!r}: what its context looks like: {error}") from error
    return None


def _layout_of_iterator(program: Program, name: str) -> Layout:
    types: Btf | None = program.kernel_types
    ids = types.named(name, STRUCTS) if types is not None else ()
    if types is None or not ids:
        raise InputError(
            f"program {program.name!r}: its types do not say what struct {name} looks like; give load(btf=) "
            f"the types of a kernel, or the struct's bytes as data"
        )
    return _layout(types, types.type(ids[0]), has_memory=True)


def _prototype(program: Program) -> Prototype:
    """Return what an operation is called with, as the kernel that it is for declares it; else as it does."""
    own = Btf(program.types.btf, f"program {program.name!r}: BTF") if program.types is not None else None
    structs, member = structs_of(program), member_of(program)
    for types in (program.kernel_types, own) if own is not None else (program.kernel_types,):
        for name in structs if types is not None else ():
            for id in types.named(name, STRUCTS):
                members = {each.name: each.type for each in types.type(id).members}
                pointer = types.resolve(members[member]) if member in members else VOID
                prototype = types.resolve(pointer.target) if pointer.kind is Kind.PTR else VOID
                if prototype.kind is Kind.FUNC_PROTO:
                    arguments = tuple(_argument(types, id) for _, id in prototype.parameters)
                    return Prototype(f"{name}.{member}", arguments)
    raise InputError(
        f"program {program.name!r}: its types do not say which operation it is, so its arguments have "
        "no types: give their words as data, or let a member of a struct in .struct_ops point to it"
    )


def _argument(types: Btf, id: int) -> Argument:
    """Return an argument; what a struct is that is only declared, or larger than a context, is not known."""
    what, type_ = types.describe(id), types.resolve(id)
    if type_.kind is not Kind.PTR:
        size = types.size_of(id)
        is_number = type_.kind in NUMBERS and size in (1, 2, 4, 8)
        return Argument(what, Converted(size if is_number else 8), is_signed=is_number and type_.is_signed)
    target = types.resolve(type_.target)
    known = target.kind in STRUCTS and 0 < target.size <= LARGEST
    return Argument(what, codec_of(types, target.id, Converted) if known else None, is_pointer=True)


def _layout_of_function(program: Program) -> Layout:
    own, parameter = first_parameter(program)
    type_ = own.resolve(own.resolve(parameter).target) if own is not None else None
    if own is None or type_ is None or type_.kind not in STRUCTS:
        if program.type in RAW:
            return RAW_ARGUMENTS
        takes = (
            f"its function takes {own.describe(parameter)}" if own is not None and parameter else "no types"
        )
        raise InputError(
            f"program {program.name!r}: {takes}, so that its context has no names: give the struct's bytes "
            "as data, or let the function take a pointer to the struct (and compile with -g)"
        )
    most = RAW_SIZE if program.type in RAW else LARGEST
    if program.type != "syscall":  # the kernel's: where that has it, CO-RE has made the program for that one
        types = program.kernel_types
        ids = types.named(essential_name(type_.name), STRUCTS) if types is not None and type_.name else ()
        if ids:
            return _layout(types, types.type(ids[0]), most=most)
    return _layout(own, type_, most=most)


def first_parameter(program: Program) -> tuple[Btf | None, int]:
    """Return a program's own types, and that of its function's first parameter; 0 for none that is known."""
    own, parameters = parameters_of(program)
    return own, (parameters[0] if parameters else 0)


def parameters_of(program: Program) -> tuple[Btf | None, list[int]]:
    """Return a program's own types, and those of its function's parameters, as far as they are known."""
    info = program.types
    functions = dict(info.functions) if info is not None else {}
    if info is None or not functions.get(0):
        return None, []
    own = Btf(info.btf, f"program {program.name!r}: BTF")
    prototype = own.resolve(own.type(functions[0]).target)
    return own, [id for _, id in prototype.parameters] if prototype.kind is Kind.FUNC_PROTO else []


def _layout(types: Btf, type_: Type, *, has_memory: bool = False, most: int = LARGEST) -> Layout:
    """Return how the members of a struct of up to `most` bytes are written and read.

    Raises LoadError, and InputError for a larger one.
    """
    if type_.size > most:
        what = types.describe(type_.id)
        raise InputError(f"{what} has {type_.size} bytes; a context has {most} at most")
    codec = codec_of(types, type_.id, Converted)
    pointers = frozenset(
        member.name for member, _ in members_of(types, type_) if types.resolve(member.type).kind is Kind.PTR
    )
    tail = next(_tails(types, type_), None)
    places = codec.fields if isinstance(codec, Struct) else {}
    return Layout(type_.name, type_.size, places, pointers, tail, has_memory, most)


def _tails(types: Btf, type_: Type) -> Iterator[Tail]:
    """Yield the member that is an array as long as what is given of it: `char __data[]`."""
    for member, bit in members_of(types, type_):
        array = types.resolve(member.type)
        if array.kind is Kind.ARRAY and not array.count:
            element = codec_of(types, array.target, Converted)
            if 0 < element.size <= LARGEST and not bit % 8:
                is_text = isinstance(element, Converted) and element.size == 1

                def sized(count: int, element: Codec = element, is_text: bool = is_text) -> Codec:
                    return Raw(count) if is_text else Array(element, count)

                yield Tail(member.name, bit // 8, sized)
