"""rbpf's fluent builder: `BpfCode().mov(Source.Imm, Arch.X64).set_imm(5).push().exit().push()`.

As in rbpf the builder fills in fields and checks only that they fit: an instruction can be built
that no machine will run, and an LDDW is two pushes, `load(MemSize.DoubleWord)` with the low half
of the constant and `load(MemSize.Word)` with the high half.
"""

from __future__ import annotations

from enum import Enum

from ebpfjit.bits import W16, W32
from ebpfjit.errors import AssemblyError
from ebpfjit.isa.spec import REGISTER_COUNT
from ebpfjit.isa.table import BY_NAME
from ebpfjit.program import SLOT_SIZE, Instruction


class Source(Enum):
    """Where arithmetic and jumps take their second operand from; the value ends a row's name."""

    Imm = "K"
    Reg = "X"


class Arch(Enum):
    """The width of arithmetic; the value is part of a row's name."""

    X64 = "64"
    X32 = "32"


class Endian(Enum):
    """The byte order `swap_bytes` converts to; the value starts a row's name."""

    Little = "LE"
    Big = "BE"


class MemSize(Enum):
    """The size of a memory access; the value ends a row's name."""

    Byte = "B"
    HalfWord = "H"
    Word = "W"
    DoubleWord = "DW"


class Cond(Enum):
    """When a jump is taken; the value starts a row's name."""

    Abs = "JA"
    Equals = "JEQ"
    Greater = "JGT"
    GreaterEquals = "JGE"
    Lower = "JLT"
    LowerEquals = "JLE"
    BitAnd = "JSET"
    NotEquals = "JNE"
    GreaterSigned = "JSGT"
    GreaterEqualsSigned = "JSGE"
    LowerSigned = "JSLT"
    LowerEqualsSigned = "JSLE"


class BuiltInstruction:
    """An instruction of `code` under construction: its opcode is set, its other fields are zero until set.

    Each setter returns the instruction itself. A value that does not fit its field raises
    AssemblyError: `line` is the slot the instruction would take, counted from 1, `column` is 1.
    """

    def __init__(self, code: BpfCode, opcode: int) -> None:
        self._code = code
        self._opcode = opcode
        self._dst = self._src = self._off = self._imm = 0

    def set_dst(self, dst: int) -> BuiltInstruction:
        """Set the destination register (`dst`), 0..10."""
        self._dst = self._fitting("dst", dst, 0, REGISTER_COUNT - 1)
        return self

    def set_src(self, src: int) -> BuiltInstruction:
        """Set the source register (`src`), 0..10."""
        self._src = self._fitting("src", src, 0, REGISTER_COUNT - 1)
        return self

    def set_off(self, offset: int) -> BuiltInstruction:
        """Set the offset, signed 16 bits: bytes for memory, slots for jumps."""
        self._off = self._fitting("off", offset, -W16.int_min, W16.int_min - 1)
        return self

    def set_imm(self, imm: int) -> BuiltInstruction:
        """Set the immediate (`imm`), 32 bits, given as signed or unsigned."""
        self._imm = W32.signed(self._fitting("imm", imm, -W32.int_min, W32.mask))
        return self

    def get_dst(self) -> int:
        """Return the destination register."""
        return self._dst

    def get_src(self) -> int:
        """Return the source register."""
        return self._src

    def get_off(self) -> int:
        """Return the offset, signed."""
        return self._off

    def get_imm(self) -> int:
        """Return the immediate, signed."""
        return self._imm

    def opt_code_byte(self) -> int:
        """Return the opcode."""
        return self._opcode

    def push(self) -> BpfCode:
        """Append the instruction to its program, and return the program."""
        return self._code._append(self.into_bytes())

    def into_bytes(self) -> bytes:
        """Return the instruction's 8 bytes."""
        return Instruction(0, self._opcode, self._dst, self._src, self._off, self._imm).encode()

    def __bytes__(self) -> bytes:
        return self.into_bytes()

    def _fitting(self, name: str, value: int, lowest: int, highest: int) -> int:
        if not isinstance(value, int):
            raise TypeError(f"{name} is an int, not {type(value).__name__}")
        if not lowest <= value <= highest:
            raise self._code._error(f"{name} is {lowest}..{highest}, not {value}")
        return value


class BpfCode:
    """A program under construction; each method begins one instruction, `push` ends it.

    `source` says where the second operand is: in src (`Source.Reg`) or in imm (`Source.Imm`). `arch` is how
    wide the operation is: `Arch.X64`, or `Arch.X32`, which zeroes the upper half of dst. `endian` is the
    order that bytes are put in, `mem_size` how many bytes are loaded or stored, `cond` what a jump asks.
    """

    def __init__(self) -> None:
        self._bytes = bytearray()

    def add(self, source: Source, arch: Arch) -> BuiltInstruction:
        """Begin dst += the source."""
        return self._arithmetic("ADD", source, arch)

    def sub(self, source: Source, arch: Arch) -> BuiltInstruction:
        """Begin dst -= the source."""
        return self._arithmetic("SUB", source, arch)

    def mul(self, source: Source, arch: Arch) -> BuiltInstruction:
        """Begin dst *= the source."""
        return self._arithmetic("MUL", source, arch)

    def div(self, source: Source, arch: Arch) -> BuiltInstruction:
        """Begin dst /= the source, unsigned."""
        return self._arithmetic("DIV", source, arch)

    def bit_or(self, source: Source, arch: Arch) -> BuiltInstruction:
        """Begin dst |= the source."""
        return self._arithmetic("OR", source, arch)

    def bit_and(self, source: Source, arch: Arch) -> BuiltInstruction:
        """Begin dst &= the source."""
        return self._arithmetic("AND", source, arch)

    def left_shift(self, source: Source, arch: Arch) -> BuiltInstruction:
        """Begin dst <<= the source."""
        return self._arithmetic("LSH", source, arch)

    def right_shift(self, source: Source, arch: Arch) -> BuiltInstruction:
        """Begin dst >>= the source, unsigned."""
        return self._arithmetic("RSH", source, arch)

    def signed_right_shift(self, source: Source, arch: Arch) -> BuiltInstruction:
        """Begin dst >>= the source, signed."""
        return self._arithmetic("ARSH", source, arch)

    def modulo(self, source: Source, arch: Arch) -> BuiltInstruction:
        """Begin dst %= the source, unsigned."""
        return self._arithmetic("MOD", source, arch)

    def bit_xor(self, source: Source, arch: Arch) -> BuiltInstruction:
        """Begin dst ^= the source."""
        return self._arithmetic("XOR", source, arch)

    def mov(self, source: Source, arch: Arch) -> BuiltInstruction:
        """Begin dst = the source."""
        return self._arithmetic("MOV", source, arch)

    def negate(self, arch: Arch) -> BuiltInstruction:
        """Begin dst = -dst."""
        return self._begin(f"NEG{arch.value}")

    def swap_bytes(self, endian: Endian) -> BuiltInstruction:
        """Begin dst = dst in another byte order; imm is the width, 16, 32 or 64."""
        return self._begin(f"{endian.value}16")

    def load(self, mem_size: MemSize) -> BuiltInstruction:
        """Begin dst = imm: DoubleWord is the first slot of an LDDW, Word its second one."""
        size = BY_NAME["LDXDW"].opcode ^ BY_NAME[f"LDX{mem_size.value}"].opcode
        return BuiltInstruction(self, BY_NAME["LDDW"].opcode ^ size)

    def load_abs(self, mem_size: MemSize) -> BuiltInstruction:
        """Begin r0 = packet[imm]."""
        return self._begin(f"LDABS{mem_size.value}")

    def load_ind(self, mem_size: MemSize) -> BuiltInstruction:
        """Begin r0 = packet[src + imm]."""
        return self._begin(f"LDIND{mem_size.value}")

    def load_x(self, mem_size: MemSize) -> BuiltInstruction:
        """Begin dst = *(src + off)."""
        return self._begin(f"LDX{mem_size.value}")

    def store(self, mem_size: MemSize) -> BuiltInstruction:
        """Begin *(dst + off) = imm."""
        return self._begin(f"ST{mem_size.value}")

    def store_x(self, mem_size: MemSize) -> BuiltInstruction:
        """Begin *(dst + off) = src."""
        return self._begin(f"STX{mem_size.value}")

    def jump_unconditional(self) -> BuiltInstruction:
        """Begin a jump over off slots."""
        return self.jump_conditional(Cond.Abs, Source.Imm)

    def jump_conditional(self, cond: Cond, source: Source) -> BuiltInstruction:
        """Begin a jump over off slots where dst and the source meet `cond`.

        Raises AssemblyError for Cond.Abs with Source.Reg: there is no such jump.
        """
        if cond is not Cond.Abs:
            return self._begin(f"{cond.value}_{source.value}")
        if source is Source.Reg:
            raise self._error("a jump without a condition compares nothing: use Source.Imm")
        return self._begin(cond.value)

    def call(self) -> BuiltInstruction:
        """Begin a call of helper imm; with src 1, of the function imm slots after the next one."""
        return self._begin("CALL")

    def exit(self) -> BuiltInstruction:
        """Begin the return of r0."""
        return self._begin("EXIT")

    def into_bytes(self) -> bytes:
        """Return the bytes of all instructions pushed so far."""
        return bytes(self._bytes)

    def __bytes__(self) -> bytes:
        return self.into_bytes()

    def _arithmetic(self, name: str, source: Source, arch: Arch) -> BuiltInstruction:
        return self._begin(f"{name}{arch.value}_{source.value}")

    def _begin(self, row_name: str) -> BuiltInstruction:
        return BuiltInstruction(self, BY_NAME[row_name].opcode)

    def _append(self, code: bytes) -> BpfCode:
        self._bytes += code
        return self

    def _error(self, reason: str) -> AssemblyError:
        return AssemblyError(reason, len(self._bytes) // SLOT_SIZE + 1, 1)
