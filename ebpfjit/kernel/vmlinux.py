"""The running kernel's own types: what tracing programs are attached to, and kfuncs, by BTF id.

fentry/vfs_read   FUNC vfs_read              iter/task      FUNC bpf_iter_task
tp_btf/sched_exec TYPEDEF btf_trace_...      lsm/file_open  FUNC bpf_lsm_file_open
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ebpfjit.elf.btf import Btf, Kind
from ebpfjit.elf.budget import Budget
from ebpfjit.elf.operations import member_of, structs_of
from ebpfjit.errors import EbpfError, LoadError
from ebpfjit.program import Program
from ebpfjit.runtime.attach import Attachment

PATH = Path("/sys/kernel/btf/vmlinux")

#  attach type: how the name of what a program is attached to starts, and its kind
_TARGETS = {
    23: ("btf_trace_", Kind.TYPEDEF),
    24: ("", Kind.FUNC),
    25: ("", Kind.FUNC),
    26: ("", Kind.FUNC),
    27: ("bpf_lsm_", Kind.FUNC),
    28: ("bpf_iter_", Kind.FUNC),
    43: ("bpf_lsm_", Kind.FUNC),
}


@cache
def types() -> Btf | None:
    """Return the kernel's types, None where it does not show them."""
    try:
        data = PATH.read_bytes()
        return Btf(data, str(PATH), Budget(str(PATH), 1 << 30))
    except (OSError, EbpfError):
        return None


@cache
def find(name: str, kind: Kind) -> int:
    """Return the id of the kernel's type of that name and kind, 0 where there is none."""
    btf = types()
    ids = btf.named(name, {kind}) if btf is not None else []
    return ids[0] if ids else 0


def size_of(name: str) -> int:
    """Return how many bytes a struct of the kernel has, 0 where it has none of that name."""
    id, btf = find(name, Kind.STRUCT), types()
    return btf.size_of(id) if btf is not None and id else 0


def attach_id(what: Attachment) -> int:
    """Return the BTF id of what a program is attached to, 0 for types that are attached otherwise.

    Raises LoadError where the section names nothing, or nothing that this kernel has.
    """
    if what.type not in _TARGETS:
        return 0
    prefix, kind = _TARGETS[what.type]
    if not what.target:
        raise LoadError(
            "its section names nothing that it could be attached to: write it behind a slash, as "
            "in 'fentry/do_unlinkat', so that Linux can load it"
        )
    found = find(prefix + what.target, kind)
    if not found:
        raise LoadError(f"this kernel has no {prefix}{what.target!s} to attach it to (in {PATH})")
    return found


def struct_ops(program: Program) -> tuple[int, int]:
    """Return which member of a struct of operations a program is for, and the id of that struct.

    That is what the object's struct in .struct_ops says; where none points to the program, the member of such
    a struct that its section names. Raises LoadError where there is none that the kernel has.
    """
    names, member = structs_of(program), member_of(program)
    for name in names:
        id = find(name, Kind.STRUCT)
        btf = types()
        members = [each.name for each in btf.type(id).members] if id and btf is not None else []
        if member in members:
            return members.index(member), id
    if program.operation is not None:
        raise LoadError(f"this kernel has no member {member!r} of struct {names[0]} (in {PATH})")
    said = f"has a member {member!r}" if member else "points to it"
    raise LoadError(
        f"no struct in section .struct_ops that this kernel has {said}: "
        "let a member of one point to the program"
    )
