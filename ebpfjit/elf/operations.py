"""Which operation each struct_ops program is: the member of a struct in .struct_ops that points to it.

.struct_ops + 8   R_BPF_64_ABS64 ssthresh   the program "ssthresh" is tcp_congestion_ops.ssthresh

The section of the program does not say, as with libbpf (bpf_object__collect_st_ops_relos).
"""

from __future__ import annotations

from ebpfjit.elf.btf import Btf, Kind, essential_name
from ebpfjit.elf.budget import STEP
from ebpfjit.elf.pointers import pointer_in
from ebpfjit.elf.reader import ObjectFile, Section
from ebpfjit.elf.relocation import R_BPF_64_ABS64
from ebpfjit.program import Program
from ebpfjit.runtime.attach import attachment

SECTIONS = frozenset({".struct_ops", ".struct_ops.link", "?.struct_ops", "?.struct_ops.link"})

Operations = dict[tuple[int, int], tuple[str, str]]
"""The names of a struct and of its member, by the index of a section and the byte where a program starts."""


def find_operations(file: ObjectFile, btf: Btf | None) -> Operations:
    """Return the operations of an object. Raises LoadError for types that are damaged."""
    found: Operations = {}
    for section in file.sections:
        if btf is None or section.name not in SECTIONS or not section.is_data:
            continue
        members = _members(file, section, btf)
        for relocation in file.relocations.get(section.index, ()):
            target = relocation.symbol.section
            member = members.get(relocation.offset)
            if relocation.type == R_BPF_64_ABS64 and target is not None and target.is_program and member:
                at = relocation.symbol.value + (relocation.addend or pointer_in(section, relocation.offset))
                found.setdefault((target.index, at), member)
    return found


def structs_of(program: Program) -> list[str]:
    """Return the names of the structs that a program may be an operation of: that which points to it.

    Where none does, those that its object has. Raises LoadError for types that are damaged.
    """
    if program.operation is not None:
        return [program.operation[0]]
    if program.types is None:
        return []
    btf = Btf(program.types.btf, "the object's BTF")
    names: list[str] = []
    for section in (".struct_ops", ".struct_ops.link"):
        for id in btf.named(section, {Kind.DATASEC}):
            variables = [btf.type(entry.type) for entry in btf.type(id).variables]
            names += [essential_name(btf.resolve(variable.target).name) for variable in variables]
    return names


def member_of(program: Program) -> str:
    """Return the member of a struct that a program is for: which points to it, or which its section names."""
    said = program.operation
    return said[1] if said is not None else attachment(program.type, program.section).target


def _members(file: ObjectFile, section: Section, btf: Btf) -> dict[int, tuple[str, str]]:
    """Return the struct and the member at each offset of a section of structs."""
    file.budget.spend(STEP * len(file.symbols), "structs of operations")
    starts = {
        s.name: s.value for s in file.symbols if s.section is not None and s.section.index == section.index
    }
    found: dict[int, tuple[str, str]] = {}
    for id in btf.named(section.name, {Kind.DATASEC}):
        for entry in btf.type(id).variables:
            variable = btf.type(entry.type)
            struct = btf.resolve(variable.target)
            file.budget.spend(STEP * len(struct.members), "structs of operations")
            if variable.name in starts and struct.is_composite:
                name, start = essential_name(struct.name), starts[variable.name]
                found |= {start + each.bit_offset // 8: (name, each.name) for each in struct.members}
    return found
