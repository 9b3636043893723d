"""Kfuncs and variables of the kernel, in the code of a program: BTF ids and addresses in their places.

    call -1      extern bpf_iter_num_new     ->  call kfunc 12345        FUNC of the kernel's BTF
    lddw r1, 0   extern runqueues            ->  lddw r1, btf_id 23456   VAR, or FUNC, of the kernel's BTF
    lddw r1, 0   extern bpf_prog_active      ->  lddw r1, its address    of /proc/kallsyms
    the same of a weak symbol that the kernel has not                    0, and calls that it refuses

As bpf_object__resolve_externs in libbpf.c; of the kernel's modules nothing is asked.
"""

from __future__ import annotations

import struct
from copy import copy
from functools import cache
from pathlib import Path

from ebpfjit.elf.btf import Kind
from ebpfjit.errors import LoadError
from ebpfjit.isa.spec import Kind as Does
from ebpfjit.kernel import vmlinux
from ebpfjit.program import SLOT_SIZE, Kfunc, Program
from ebpfjit.runtime.faults import WEAK_POISON

_CALL, _LDDW = 0x85, 0x18
_PSEUDO_KFUNC, _PSEUDO_BTF_ID = 2, 3
_WORD = struct.Struct("<BBhi")


def with_symbols(program: Program, code: bytes) -> bytes:
    """Return the code with the kernel's ids and addresses. Raises LoadError for one that it lacks."""
    if not program.kernel_symbols and not program.kfuncs:
        return code
    made = bytearray(code)
    calls = _kfunc_calls(program)
    for pc, name in {**program.kernel_symbols, **{pc: called.name for pc, called in calls.items()}}.items():
        at = pc * SLOT_SIZE
        if not 0 <= at < len(made):
            raise LoadError(f"program {program.name!r}: symbol {name!r} at pc {pc}, which is not there")
        found = _call(made, at, name) if made[at] == _CALL else _load(made, at, name)
        if found:
            continue
        if (error := program.unmet.get(pc)) is not None:
            raise copy(error)
        if pc in calls and not calls[pc].is_weak:
            raise LoadError(f"pc {pc}: this kernel has no kfunc {name!r} (in {vmlinux.PATH})")
    return bytes(made)


def _kfunc_calls(program: Program) -> dict[int, Kfunc]:
    """Return the kernel functions that a program calls by ids of its own BTF, by pc."""
    rows = ((insn.pc, insn.row, insn.imm) for insn in program.instructions if program.kfuncs)
    return {
        pc: program.kfuncs[imm]
        for pc, row, imm in rows
        if row is not None and row.kind is Does.CALL_KFUNC and imm in program.kfuncs
    }


def _call(code: bytearray, at: int, name: str) -> int:
    """Let a call be one of the kernel's function of a name, or of nothing; return its id, 0 for none."""
    found = vmlinux.find(name, Kind.FUNC)
    _WORD.pack_into(code, at, _CALL, *((_PSEUDO_KFUNC << 4, 0, found) if found else (0, 0, WEAK_POISON)))
    return found


def _load(code: bytearray, at: int, name: str) -> int:
    """Let a wide load give what the kernel has under a name; return that, 0 where it has nothing."""
    if code[at] != _LDDW or at + 2 * SLOT_SIZE > len(code):
        return 0
    register = code[at + 1] & 0x0F
    if id := vmlinux.find(name, Kind.VAR) or vmlinux.find(name, Kind.FUNC):
        _WORD.pack_into(code, at, _LDDW, _PSEUDO_BTF_ID << 4 | register, 0, id)
        _WORD.pack_into(code, at + SLOT_SIZE, 0, 0, 0, 0)
        return id
    address = _addresses().get(name, 0)
    _WORD.pack_into(code, at, _LDDW, register, 0, 0)
    struct.pack_into("<I", code, at + 4, address & 0xFFFFFFFF)
    struct.pack_into("<I", code, at + SLOT_SIZE + 4, address >> 32)
    return address


@cache
def _addresses() -> dict[str, int]:
    """Return the kernel's symbols by name; none where it does not show them."""
    try:
        lines = Path("/proc/kallsyms").read_text(errors="replace").splitlines()
    except OSError:
        return {}
    rows = (line.split() for line in lines)
    return {row[2]: int(row[0], 16) for row in rows if len(row) == 3}
