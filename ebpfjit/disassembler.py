"""Bytecode becomes text: one instruction a line, in the words of rbpf or in the C of Linux.

    rbpf     add64 r1, 0x605    ldxw r0, [r1+0x4]         jeq r1, 0x5, +0x2
    linux    r1 += 1541         r0 = *(u32 *)(r1 + 4)     if r1 == 5 goto +2

The assembler reads both back to the same bytes. What no row describes, or what has something in
a reserved field, is written as the words it is: `.8byte 0x1ff`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from ebpfjit.bits import W16, W32, W64
from ebpfjit.isa.spec import REGISTER_COUNT, Kind, Offset, Reference, Row
from ebpfjit.isa.table import TABLE
from ebpfjit.program import SLOT_SIZE, Buffer, Instruction, Program, decode
from ebpfjit.record import dataclass, field

_Writer = Callable[[Instruction], str]

_OPERATOR = {row.meaning: row.symbol for row in TABLE if row.kind is Kind.BINARY}


@dataclass(frozen=True, slots=True)
class HLInsn:
    """An instruction as rbpf's `to_insn_vec` describes it.

    `opc` is the opcode, `name` the mnemonic, `desc` the instruction in rbpf's dialect, `dst` and
    `src` the register fields, `off` the offset (s16) and `imm` the immediate (s64: LDDW's halves
    are merged). `pc` is the slot; it does not take part in comparisons.
    """

    opc: int
    name: str
    desc: str
    dst: int
    src: int
    off: int
    imm: int
    pc: int = field(default=0, compare=False)


def disassemble(prog: Buffer | Program, dialect: str = "rbpf") -> str:
    """Return the instructions of `prog` in `dialect`, one a line, with no newline at the end.

    `prog` is bytes or a Program, `dialect` "rbpf" or "linux". Raises DecodeError where the length is no
    multiple of 8 or an LDDW lacks its second slot, ValueError for another dialect.
    """
    write = _writer(dialect)
    return "\n".join([write(insn) for insn in _instructions(prog)])


def disassemble_instruction(insn: Instruction, dialect: str = "rbpf") -> str:
    """Return one instruction (`insn`) in `dialect`; what is none is written as `.8byte` words.

    Raises ValueError for a dialect other than "rbpf" and "linux".
    """
    return _writer(dialect)(insn)


def to_insn_vec(prog: Buffer | Program) -> list[HLInsn]:
    """Return rbpf's description of each instruction of `prog` (bytes or a Program), in order.

    Raises DecodeError as `disassemble` does.
    """
    return [_describe(insn) for insn in _instructions(prog)]


def _instructions(prog: Buffer | Program) -> tuple[Instruction, ...]:
    return prog.instructions if isinstance(prog, Program) else decode(bytes(memoryview(prog)))


def _writer(dialect: str) -> _Writer:
    try:
        return _WRITERS[dialect]
    except KeyError:
        raise ValueError(f"dialect is {' or '.join(map(repr, _WRITERS))}, not {dialect!r}") from None


def _describe(insn: Instruction) -> HLInsn:
    desc = _write_words(insn)
    imm = insn.imm if insn.next_imm is None else W64.signed(insn.imm64)
    return HLInsn(
        insn.opcode, _name(insn.row, desc), desc, insn.dst_reg, insn.src_reg, insn.offset, imm, insn.pc
    )


def _name(row: Row | None, desc: str) -> str:
    """Return the mnemonic of `desc`; rbpf leaves the width out of be16 and le16."""
    if row is None or desc.startswith("."):
        return ".8byte"
    if row.kind is Kind.CALL_LOCAL:
        return "callx"
    return row.mnemonic.rstrip("0123456789") if row.kind is Kind.UNARY and row.imm else row.mnemonic


def _describes(row: Row | None, insn: Instruction) -> bool:
    """Whether `row` says all there is in `insn`: registers exist, reserved fields are zero."""
    return (
        row is not None
        and insn.dst_reg < REGISTER_COUNT
        and insn.src_reg < REGISTER_COUNT
        and not insn.reserved
        and not row.mismatches(insn.dst_reg, insn.src_reg, insn.offset, insn.imm, insn.next_imm)
    )


def _write_data(insn: Instruction) -> str:
    code = insn.encode()
    slots = (code[start : start + SLOT_SIZE] for start in range(0, len(code), SLOT_SIZE))
    return ".8byte " + ", ".join(f"0x{int.from_bytes(slot, 'little'):x}" for slot in slots)


def _hex32(value: int) -> str:
    """Write a 32-bit number as rbpf does: in hexadecimal, as unsigned."""
    return f"0x{value & W32.mask:x}"


def _hex_signed(value: int) -> str:
    """Write an offset as rbpf does: in hexadecimal after its sign."""
    return f"{value:+#x}"


def _write_words(insn: Instruction) -> str:
    """Write `insn` as rbpf does; in bpf_conformance's words where rbpf has none."""
    row = insn.row
    if row is None or not _describes(row, insn):
        return _write_data(insn)
    word, dst, src, imm = row.mnemonic, f"r{insn.dst_reg}", f"r{insn.src_reg}", _hex32(insn.imm)
    second = src if row.uses_src else imm
    match row.kind:
        case Kind.BINARY | Kind.MOVE:
            return f"{word} {dst}, {second}"
        case Kind.CAST:
            return f"{word} {dst}, {src}, {imm}"
        case Kind.UNARY | Kind.CALL_REGISTER:
            return f"{word} {dst}"
        case Kind.LOAD_IMM64:
            constant = f"0x{insn.imm64:x}" if row.reference is None else _reference(insn, row.reference)
            return f"{word} {dst}, {constant}"
        case Kind.LOAD:
            return f"{word} {dst}, [{src}{_hex_signed(insn.offset)}]"
        case Kind.STORE | Kind.ATOMIC:
            return f"{word} [{dst}{_hex_signed(insn.offset)}], {second}"
        case Kind.PACKET_LOAD:
            return f"{word} {src}, {imm}" if row.uses_src else f"{word} {imm}"
        case Kind.JUMP | Kind.MAY_GOTO:
            return f"{word} {_hex_signed(_distance(insn, row))}"
        case Kind.BRANCH:
            return f"{word} {dst}, {second}, {_hex_signed(insn.offset)}"
        case Kind.CALL_HELPER:
            return f"{word} {imm}"
        case Kind.CALL_LOCAL:
            return f"callx {imm}"
        case Kind.CALL_KFUNC:
            return f"{word} {imm}" + (f", {_hex_signed(insn.offset)}" if insn.offset else "")
        case Kind.EXIT:
            return word
        case (
            Kind.BOUND | Kind.ALIGNED | Kind.PAY | Kind.LEAVE | Kind.SELECT | Kind.SUM
            | Kind.INDEXED_LOAD | Kind.INDEXED_STORE | Kind.BINARY_LOAD | Kind.UPDATE | Kind.BRANCH_LOAD
            | Kind.REDUCE | Kind.COUNT
        ):  # fmt: skip
            raise AssertionError(f"{row.name} is in no program")
        case _:
            assert_never(row.kind)


def _write_c(insn: Instruction) -> str:
    """Write `insn` as llvm-objdump and bpftool do."""
    row = insn.row
    if row is None or not _describes(row, insn):
        return _write_data(insn)
    letter = "w" if row.width is W32 else "r"
    dst, src = f"{letter}{insn.dst_reg}", f"{letter}{insn.src_reg}"
    second = src if row.uses_src else str(insn.imm)
    symbol = row.symbol
    match row.kind:
        case Kind.BINARY:
            return f"{dst} {symbol} {second}"
        case Kind.MOVE:
            return f"{dst} = (s{row.offset}){src}" if row.offset else f"{dst} = {second}"
        case Kind.CAST:
            return f"{dst} = {symbol}({src}, {insn.imm >> 16 & W16.mask:#x}, {insn.imm & W16.mask:#x})"
        case Kind.UNARY:
            return f"{dst} = -{dst}" if symbol == "-" else f"{dst} = {symbol} {dst}"
        case Kind.LOAD_IMM64:
            constant = f"{W64.signed(insn.imm64)} ll"
            return f"{dst} = {constant if row.reference is None else _reference(insn, row.reference)}"
        case Kind.LOAD | Kind.STORE | Kind.ATOMIC | Kind.PACKET_LOAD:
            return _write_c_access(insn, row, letter)
        case Kind.JUMP | Kind.MAY_GOTO:
            return f"{symbol} {_distance(insn, row):+}"
        case Kind.BRANCH:
            return f"if {dst} {symbol} {second} goto {insn.offset:+}"
        case Kind.CALL_HELPER:
            return f"call {insn.imm}"
        case Kind.CALL_LOCAL:
            return f"call pc{insn.imm:+}"
        case Kind.CALL_KFUNC:
            return f"{row.mnemonic} {insn.imm}" + (f", {insn.offset}" if insn.offset else "")
        case Kind.CALL_REGISTER:
            return f"{symbol} {dst}"
        case Kind.EXIT:
            return symbol
        case (
            Kind.BOUND | Kind.ALIGNED | Kind.PAY | Kind.LEAVE | Kind.SELECT | Kind.SUM
            | Kind.INDEXED_LOAD | Kind.INDEXED_STORE | Kind.BINARY_LOAD | Kind.UPDATE | Kind.BRANCH_LOAD
            | Kind.REDUCE | Kind.COUNT
        ):  # fmt: skip
            raise AssertionError(f"{row.name} is in no program")
        case _:
            assert_never(row.kind)


def _write_c_access(insn: Instruction, row: Row, letter: str) -> str:
    """Write a load, a store, an atomic operation or a packet load."""
    base = insn.src_reg if row.kind is Kind.LOAD else insn.dst_reg
    place = f"r{base} {'-' if insn.offset < 0 else '+'} {abs(insn.offset)}"
    pointer = f"({'s' if row.signed else 'u'}{8 * row.size} *)"
    src = f"{letter}{insn.src_reg}"
    if row.kind is Kind.PACKET_LOAD:
        index = f"r{insn.src_reg} {'-' if insn.imm < 0 else '+'} {abs(insn.imm)}"
        return f"r0 = *{pointer}skb[{index if row.uses_src else insn.imm}]"
    if row.kind is Kind.ATOMIC:
        return _write_c_atomic(row, f"{letter}0", src, place, pointer)
    if row.symbol == "=":
        src = f"r{insn.src_reg}" if row.uses_src else str(insn.imm)
        memory = f"*{pointer}({place})"
        return f"r{insn.dst_reg} = {memory}" if row.kind is Kind.LOAD else f"{memory} = {src}"
    letter = "r" if row.width is W64 else "w"
    if row.kind is Kind.LOAD:
        return f"{letter}{insn.dst_reg} = {row.symbol}({pointer}({place}))"
    return f"{row.symbol}({pointer}({place}), {letter}{insn.src_reg})"


def _write_c_atomic(row: Row, r0: str, src: str, place: str, pointer: str) -> str:
    suffix = "_64" if row.width is W64 else "32_32"
    word = row.meaning.lower()
    if row.meaning == "CMPXCHG":
        return f"{r0} = {word}{suffix}({place}, {r0}, {src})"
    if row.meaning == "XCHG":
        return f"{src} = {word}{suffix}({place}, {src})"
    if row.fetch:
        return f"{src} = atomic_fetch_{word}({pointer}({place}), {src})"
    return f"{row.symbol} *{pointer}({place}) {_OPERATOR[row.meaning]} {src}"


def _distance(insn: Instruction, row: Row) -> int:
    """Return the slots from the next instruction to a jump's target."""
    return insn.offset if row.offset is Offset.TARGET else insn.imm


def _reference(insn: Instruction, reference: Reference) -> str:
    """Write what LDDW refers to, after bpftool: map[fd:5][0]+8, btf[id:7][fd:0], subprog[+4]."""
    imm, next_imm = insn.imm, insn.next_imm or 0
    match reference:
        case Reference.MAP_BY_FD:
            return f"map[fd:{imm}]"
        case Reference.MAP_VALUE_BY_FD:
            return f"map[fd:{imm}][0]+{W32.wrap(next_imm)}"
        case Reference.VARIABLE:
            return f"btf[id:{imm}][fd:{next_imm}]"
        case Reference.CODE:
            return f"subprog[{imm:+}]"
        case Reference.MAP_BY_INDEX:
            return f"map[idx:{imm}]"
        case Reference.MAP_VALUE_BY_INDEX:
            return f"map[idx:{imm}][0]+{W32.wrap(next_imm)}"
        case _:
            assert_never(reference)


_WRITERS: dict[str, _Writer] = {"rbpf": _write_words, "linux": _write_c}
