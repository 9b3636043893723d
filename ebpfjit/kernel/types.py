"""A program's BTF, as bpf(2) is given it: types, which function starts where, which line is where.

    program.types          ->  BTF_LOAD -> descriptor      the same one for all programs of an object
    its calls, callbacks   ->  struct bpf_func_info        one for each function that Linux will see
    program.types.lines    ->  struct bpf_line_info        where each function starts with one

Linux wants a BTF function for each subprogram, or for none; those that BTF does not know (memcpy of
the loader's, code without debugging information) get one that says nothing: static, returning int.
"""

from __future__ import annotations

import re
import struct
from functools import lru_cache

from ebpfjit.elf.btf import HEADER, MAGIC, Btf, Kind
from ebpfjit.errors import EbpfError
from ebpfjit.kernel.objects import KernelBtf
from ebpfjit.program import Program, TypeInfo
from ebpfjit.record import dataclass

_EMPTY = HEADER.pack(MAGIC, 1, 0, HEADER.size, 0, 0, 0, 1) + b"\0"
_FUNCTION_INFO = struct.Struct("=II")
_LINE_SIZE = 16
_SIGNED, _INT_SIZE = 1 << 24, 4


@dataclass(frozen=True, slots=True)
class LoadedTypes:
    """What BPF_PROG_LOAD is told: the kernel's BTF, struct bpf_func_info and struct bpf_line_info."""

    btf: KernelBtf
    functions: bytes
    lines: bytes


def types_of(program: Program) -> LoadedTypes | None:
    """Return a program's types, None where it has none and needs none, or where Linux does not take them."""
    starts = _function_starts(program)
    info = program.types
    if info is None:
        if len(starts) == 1:
            return None
        info = TypeInfo(_EMPTY)
    known = dict(info.functions)
    unknown = tuple(pc for pc in starts if not known.get(pc))
    data = info.btf
    if unknown:
        try:
            data, first = _with_functions(data, tuple(_identifier(program, pc) for pc in unknown))
        except EbpfError:
            return None
        known |= {pc: first + number for number, pc in enumerate(unknown)}
    btf = _load(data)
    if isinstance(btf, EbpfError):
        return None
    functions = b"".join(_FUNCTION_INFO.pack(pc, known[pc]) for pc in starts)
    return LoadedTypes(btf, functions, info.lines if _lines_are_whole(info.lines, starts) else b"")


@lru_cache(maxsize=32)
def _load(data: bytes) -> KernelBtf | EbpfError:
    """Return types in the kernel, or why it refuses them; the same ones as long as they are kept."""
    try:
        return KernelBtf(data)
    except EbpfError as error:
        return error


def loaded(data: bytes) -> KernelBtf | None:
    """Return the types of a map in the kernel, None where it refuses them."""
    found = _load(data)
    return None if isinstance(found, EbpfError) else found


def refused(program: Program) -> str:
    """Return in words that the kernel refuses a program's types; "" where it takes them, or none are."""
    found = None if program.types is None else _load(program.types.btf)
    if not isinstance(found, EbpfError):
        return ""
    return f"{found}, so that the program and its maps are without types there"


def _function_starts(program: Program) -> list[int]:
    """Return the slots at which Linux will see functions: 0, what is called or has its address taken.

    It finds the function that bpf_throw calls by the program's types.
    """
    starts = {0}
    if program.exception_callback is not None:
        starts.add(program.exception_callback)
    for insn in program.instructions:
        if insn.row is not None and insn.row.operation in ("CALL_LOCAL", "LDDW_CODE"):
            starts.add(insn.pc + 1 + insn.imm)
    return sorted(starts)


def _lines_are_whole(lines: bytes, starts: list[int]) -> bool:
    """True where each function starts with a line: Linux takes all of them, or none."""
    slots = {struct.unpack_from("=I", lines, at)[0] for at in range(0, len(lines), _LINE_SIZE)}
    return slots.issuperset(starts)


def _identifier(program: Program, pc: int) -> str:
    name = re.sub(r"\W", "_", program.functions.get(pc, ""), flags=re.ASCII)[:64]
    return name if name[:1].isalpha() else f"function_{pc}"


@lru_cache(maxsize=64)
def _with_functions(data: bytes, names: tuple[str, ...]) -> tuple[bytes, int]:
    """Return BTF with static functions of these names behind its types, and the id of the first.

    Raises LoadError for BTF that is damaged.
    """
    count = len(Btf(data))
    header_size, type_at, type_size, string_at, string_size = HEADER.unpack_from(data)[3:]
    types = bytearray(data[header_size + type_at :][:type_size])
    strings = bytearray(data[header_size + string_at :][:string_size])

    def text(name: str) -> int:
        at = len(strings)
        strings.extend(name.encode() + b"\0")
        return at

    integer, prototype = count, count + 1
    types += struct.pack("<IIII", text("int"), Kind.INT << 24, _INT_SIZE, _SIGNED | 8 * _INT_SIZE)
    types += struct.pack("<III", 0, Kind.FUNC_PROTO << 24, integer)
    for name in names:
        types += struct.pack("<III", text(name), Kind.FUNC << 24, prototype)
    header = HEADER.pack(MAGIC, 1, 0, HEADER.size, 0, len(types), len(types), len(strings))
    return header + bytes(types) + bytes(strings), count + 2
