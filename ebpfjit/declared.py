"""What an object says of a program's parts: source lines, kernel functions, types."""

from __future__ import annotations

from ebpfjit.record import dataclass, record


@dataclass(frozen=True, slots=True)
class SourceLine:
    """A line of source: `line` and `column` count from 1 (column 0: not known), `text` is its text."""

    file: str
    line: int
    column: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}" if self.text else f"{self.file}:{self.line}"


@record
class Number:
    """A number that a kernel function takes or returns: its bytes, how it is read; or an address.

    `to_struct` is true of the address of a struct or a union.
    """

    size: int = 8
    is_signed: bool = False
    is_pointer: bool = False
    to_struct: bool = False


@record
class Kfunc:
    """A kernel function that a program calls, as BTF declares it.

    `arguments` are its first five, `result` is None where it returns nothing. Without BTF, `arguments` is
    None: five u64. One that `is_weak` may be missing.
    """

    name: str
    arguments: tuple[Number, ...] | None = None
    result: Number | None = None
    is_weak: bool = False


@record
class TypeInfo:
    """What BTF says of a program, as Linux is told it when the program is loaded.

    `btf` is little-endian BTF, the same object for all programs of a file. `functions` are (slot, id of the
    BTF_KIND_FUNC) of each function, in order; the id is 0 where BTF does not know it. `lines` are struct
    bpf_line_info, one after the other: slot, file and text (offsets of strings), line << 10 | column.
    """

    btf: bytes
    functions: tuple[tuple[int, int], ...] = ()
    lines: bytes = b""
