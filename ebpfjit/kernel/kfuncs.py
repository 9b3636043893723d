"""Kernel functions as the running kernel knows them: calls by the ids of its own BTF.

call kfunc 9 (the object's FUNC bpf_iter_num_new)   ->   call kfunc 72114 (the kernel's)
"""

from __future__ import annotations

import struct
from dataclasses import replace
from functools import cache
from pathlib import Path

from ebpfjit.elf.btf import Btf, Kind
from ebpfjit.elf.budget import Budget
from ebpfjit.errors import EbpfError, LoadError
from ebpfjit.isa.spec import Kind as Does
from ebpfjit.program import SLOT_SIZE, Program

TYPES = Path("/sys/kernel/btf/vmlinux")


@cache
def function_id(name: str) -> int:
    """Return the id of a function in the kernel's types, 0 where it has none, or does not show its types."""
    types = _types()
    found = types.named(name, {Kind.FUNC}) if types is not None else []
    return found[0] if found else 0


@cache
def _types() -> Btf | None:
    try:
        return Btf(TYPES.read_bytes(), str(TYPES), Budget(str(TYPES), 1 << 30))
    except (OSError, EbpfError):
        return None


def with_kernel_ids(program: Program) -> Program:
    """Return a program with its calls of kernel functions by the running kernel's ids.

    Raises LoadError naming the first that this kernel does not have.
    """
    if not program.kfuncs:
        return program
    code = bytearray(program.code)
    for insn in program.instructions:
        called = program.kfuncs.get(insn.imm & 0xFFFFFFFF)
        if insn.row is None or insn.row.kind is not Does.CALL_KFUNC or called is None:
            continue
        id = function_id(called.name)
        if not id:
            raise LoadError(f"pc {insn.pc}: this kernel has no kfunc {called.name!r} (in {TYPES})")
        struct.pack_into("<i", code, insn.pc * SLOT_SIZE + 4, id)
    return replace(program, code=bytes(code), kfuncs={})
