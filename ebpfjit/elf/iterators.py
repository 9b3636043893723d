"""The contexts of iterators, as a program's types have them: "iter/task" gets a struct bpf_iter__task."""

from __future__ import annotations

from ebpfjit.elf.btf import Kind, Type
from ebpfjit.elf.objects import STRUCTS, members_of
from ebpfjit.errors import ExecutionError
from ebpfjit.program import Program
from ebpfjit.runtime.attach import attachment
from ebpfjit.runtime.contexts.fields import Field, Struct

PREFIX = "bpf_iter__"
BPF_TRACE_ITER = 28
LARGEST = 1 << 12
NUMBERS = frozenset({Kind.PTR, Kind.INT, Kind.ENUM})


def iterator_layout(program: Program) -> Struct | None:
    """Return the struct that an iterator is given, None for a program that is none.

    Raises ExecutionError where no types say what it looks like.
    """
    attached = attachment(program.type, program.section)
    if program.type != "tracing" or attached.type != BPF_TRACE_ITER or not attached.is_said:
        return None
    name, types = PREFIX + attached.target.partition("/")[0], program.kernel_types
    ids = types.named(name, STRUCTS) if types is not None else ()
    if not ids:
        raise ExecutionError(
            f"program {program.name!r}: its types do not say what struct {name} looks like; give load(btf=) "
            f"the types of a kernel, or the struct's bytes as data"
        )
    type_: Type = types.type(ids[0])
    fields: dict[str, Field] = {}
    for member, bit in members_of(types, type_):
        resolved = types.resolve(member.type)
        if resolved.kind not in NUMBERS or bit % 8:
            continue
        size = types.size_of(member.type)
        if size in (1, 2, 4, 8) and bit // 8 + size <= type_.size:
            pointer = "memory" if resolved.kind is Kind.PTR else ""
            fields[member.name] = Field(member.name, bit // 8, size, pointer=pointer)
    if type_.size > LARGEST:
        raise ExecutionError(
            f"struct {name} has {type_.size} bytes; contexts of iterators have {LARGEST} at most"
        )
    return Struct(name, type_.size, tuple(fields.values()))
