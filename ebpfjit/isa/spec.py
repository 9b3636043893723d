"""The types that one row of the instruction table is made of.

An instruction word (RFC 9669, section 3), little-endian:

    byte  0        1               2..3      4..7      8..15 (wide instructions only)
          opcode   src_reg dst_reg offset    imm       a second word: zeros and next_imm
                   (high)  (low)   (signed)  (signed)

The opcode byte alone does not name an operation, so a row says of every field what it must be:
an integer (fixed; 0 where the field is reserved) or the role it plays.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from ebpfjit.bits import W64, Width
from ebpfjit.record import dataclass, field

REGISTER_COUNT = 11
"""r0 to r10."""

FRAME_POINTER = 10
"""r10, which programs only read."""


FROM_ARENA, TO_ARENA = 1, 1 << 16
"""The imm of casts: from address space 1, an arena's, to 0, where programs load and store; and back."""


class Kind(Enum):
    """The shape of an instruction: what an engine does with its fields."""

    BINARY = "dst = dst op (src or imm)"
    MOVE = "dst = (src or imm)"
    UNARY = "dst = op dst"
    CAST = "dst = src, as a pointer of another address space"
    LOAD_IMM64 = "dst = imm64, or what the reference resolves to"
    LOAD = "dst = *(src + offset)"
    STORE = "*(dst + offset) = (src or imm)"
    ATOMIC = "*(dst + offset) op= src, with or without fetch"
    PACKET_LOAD = "r0 = packet[imm] or packet[src + imm], network byte order"
    JUMP = "goto target"
    BRANCH = "if dst op (src or imm) goto target"
    MAY_GOTO = "goto target when the loop budget is used up"
    CALL_HELPER = "r0 = helper imm (r1..r5)"
    CALL_LOCAL = "call the function at pc + 1 + imm"
    CALL_KFUNC = "r0 = the function with BTF id imm (r1..r5)"
    CALL_REGISTER = "call the function whose address is in dst"
    EXIT = "return r0"
    # Of rows without an encoding, which only optimised code has.
    BOUND = "these bytes of a region may be read, or written: or leave"
    ALIGNED = "the address is a multiple: or leave"
    PAY = "take so many instructions from the budget; or leave where there are none left"
    LEAVE = "go on in baseline code"
    COUNT = "one more in a word that counts"
    SELECT = "dst = one value if x op (y or imm), else another"
    SUM = "dst = base + index * scale + offset"
    INDEXED_LOAD = "dst = *(base + index * scale + offset), its bytes swapped or not"
    INDEXED_STORE = "*(base + index * scale + offset) = (src or imm), its bytes swapped or not"
    BINARY_LOAD = "dst = dst op *(base + index * scale + offset)"
    UPDATE = "*(base + index * scale + offset) op= (src or imm)"
    BRANCH_LOAD = "if *(base + index * scale + offset) op (src or imm) goto target"
    REDUCE = "dst = imm elements from base + offset on, or their products with others, put together"

    __hash__ = object.__hash__  # that of Enum is written in Python, and takes ten times as long


class Reg(Enum):
    """What an instruction does with the register that a field names."""

    READ = "read"
    WRITE = "write"
    UPDATE = "read, then written"


class Offset(Enum):
    """What a free offset field means."""

    DISPLACEMENT = "bytes added to the base address"
    TARGET = "slots from the next instruction"
    BTF_FD = "index of the BTF object that a kfunc's id belongs to"


class Imm(Enum):
    """What a free imm (or next_imm) field means."""

    OPERAND = "second operand, sign-extended to the operation's width"
    LOW = "low half of a 64-bit constant"
    HIGH = "high half of a 64-bit constant"
    TARGET = "slots from the next instruction"
    HELPER = "number of a helper"
    BTF_ID = "BTF id of a type, function or variable"
    MAP = "file descriptor or index of a map"
    VALUE_OFFSET = "bytes from the start of a map's value"
    PACKET = "bytes from the start of the packet"
    SPACES = "the address spaces of a cast: to << 16 | from"


class Reference(Enum):
    """What the src_reg of LDDW says the 64-bit value stands for (RFC 9669, section 5.4)."""

    MAP_BY_FD = 1
    MAP_VALUE_BY_FD = 2
    VARIABLE = 3
    CODE = 4
    MAP_BY_INDEX = 5
    MAP_VALUE_BY_INDEX = 6


FieldName = str
"""One of "dst", "src", "offset", "imm", "next_imm"."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One way to encode one operation; each exists once, so rows are compared by identity.

    `operation` is what meanings, translators and users name ("ADD64"); `name` is unique
    ("ADD64_K"). `meaning` names the function in `isa.semantics`. `width` is the width of the
    arithmetic, of the comparison, or of the value that a load leaves in dst; `size` counts the
    bytes a memory instruction touches. `mnemonic` is the word of rbpf and bpf_conformance,
    `symbol` the operator of the Linux dialect. `group` is RFC 9669's conformance group, "linux"
    for what Linux adds, "rbpf" for what only rbpf has. `source` cites where the meaning is
    stated, where that is not RFC 9669.

    What follows from these is worked out once: `uses_src` is True where the second operand is the
    src register (X), not the immediate (K); `is_wide` for the two-slot LDDW; `has_target` where
    control goes, or may go, to a slot that a field names, `imm_is_target` where that is imm; `is_ordered`
    for atomics and acquire or release accesses, which want aligned addresses.
    """

    name: str
    operation: str
    kind: Kind
    opcode: int
    dst: int | Reg = 0
    src: int | Reg = 0
    offset: int | Offset = 0
    imm: int | Imm = 0
    next_imm: int | Imm | None = None
    meaning: str = ""
    width: Width = W64
    size: int = 0
    signed: bool = False
    fetch: bool = False
    mnemonic: str = ""
    symbol: str = ""
    group: str = "base64"
    implicit_reads: tuple[int, ...] = ()
    implicit_writes: tuple[int, ...] = ()
    source: str = ""
    uses_src: bool = field(init=False)
    is_wide: bool = field(init=False)
    has_target: bool = field(init=False)
    imm_is_target: bool = field(init=False)
    is_ordered: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "uses_src", isinstance(self.src, Reg))
        object.__setattr__(self, "is_wide", self.next_imm is not None)
        has_target = self.offset is Offset.TARGET or (self.imm is Imm.TARGET and not self.is_wide)
        object.__setattr__(self, "has_target", has_target)
        object.__setattr__(self, "imm_is_target", self.imm is Imm.TARGET)
        is_access = self.size > 0 and self.opcode & 0xE7 == 0xC3
        object.__setattr__(self, "is_ordered", self.kind is Kind.ATOMIC or is_access)

    def __reduce__(self) -> tuple[Callable[[str], Row], tuple[str]]:
        return row_named, (self.name,)

    @property
    def slots(self) -> int:
        """How many 8-byte slots the instruction takes."""
        return 1 if self.next_imm is None else 2

    @property
    def reference(self) -> Reference | None:
        """The kind of thing an LDDW refers to; None for a plain constant or another row."""
        if self.kind is not Kind.LOAD_IMM64 or self.src == 0:
            return None
        return Reference(self.src)

    def mismatches(
        self, dst: int, src: int, offset: int, imm: int, next_imm: int | None = None
    ) -> list[tuple[FieldName, int, int]]:
        """Return (field, required, actual) for each fixed field that differs."""
        return [
            (field, required, actual)
            for field, required, actual in (
                ("dst", self.dst, dst),
                ("src", self.src, src),
                ("offset", self.offset, offset),
                ("imm", self.imm, imm),
                ("next_imm", self.next_imm, next_imm),
            )
            if isinstance(required, int) and actual is not None and required != actual
        ]

    def __repr__(self) -> str:
        return f"<Row {self.name} 0x{self.opcode:02x}>"


def row_named(name: str) -> Row:
    """Return the row of the table that has this name: what a pickled row becomes."""
    from ebpfjit.isa.table import BY_NAME  # the tables stand on this module

    if name in BY_NAME:
        return BY_NAME[name]
    from ebpfjit.isa.unencoded import UNENCODED

    return UNENCODED[name]
