"""The instruction table: one row for each way to encode each operation.

Decoder, encoder, verifier, assembler, disassembler, engines, test strategies and the reference
page in docs/ all read these rows. Opcodes are built from RFC 9669's parts:

    class  LD 0  LDX 1  ST 2  STX 3  ALU 4  JMP 5  JMP32 6  ALU64 7      (low three bits)
    source K 0x00 (imm)  X 0x08 (src register)                           (arithmetic and jumps)
    size   W 0x00  H 0x08  B 0x10  DW 0x18                               (loads and stores)
    mode   IMM 0x00  ABS 0x20  IND 0x40  MEM 0x60  MEMSX 0x80  ATOMIC 0xc0
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any, TypeVar

from ebpfjit.bits import W32, W64, WIDTH_OF_SIZE, Width
from ebpfjit.isa.spec import Imm, Kind, Offset, Reg, Row

LD, LDX, ST, STX, ALU, JMP, JMP32, ALU64 = range(8)
K, X = 0x00, 0x08
MODE_IMM, MODE_ABS, MODE_IND, MODE_MEM, MODE_MEMSX, MODE_ATOMIC = 0x00, 0x20, 0x40, 0x60, 0x80, 0xC0

#            suffix  code  bytes
SIZES = (
    ("b", 0x10, 1),
    ("h", 0x08, 2),
    ("w", 0x00, 4),
    ("dw", 0x18, 8),
)

#  meaning  code  offset  symbol   (offset tells apart what shares a code)
BINARY_OPERATIONS = (
    ("ADD", 0x00, 0, "+="),
    ("SUB", 0x10, 0, "-="),
    ("MUL", 0x20, 0, "*="),
    ("DIV", 0x30, 0, "/="),
    ("SDIV", 0x30, 1, "s/="),
    ("OR", 0x40, 0, "|="),
    ("AND", 0x50, 0, "&="),
    ("LSH", 0x60, 0, "<<="),
    ("RSH", 0x70, 0, ">>="),
    ("MOD", 0x90, 0, "%="),
    ("SMOD", 0x90, 1, "s%="),
    ("XOR", 0xA0, 0, "^="),
    ("ARSH", 0xC0, 0, "s>>="),
)
DIVISIONS = ("MUL", "DIV", "SDIV", "MOD", "SMOD")

#  meaning  code  symbol
CONDITIONS = (
    ("JEQ", 0x10, "=="),
    ("JGT", 0x20, ">"),
    ("JGE", 0x30, ">="),
    ("JSET", 0x40, "&"),
    ("JNE", 0x50, "!="),
    ("JSGT", 0x60, "s>"),
    ("JSGE", 0x70, "s>="),
    ("JLT", 0xA0, "<"),
    ("JLE", 0xB0, "<="),
    ("JSLT", 0xC0, "s<"),
    ("JSLE", 0xD0, "s<="),
)

#  meaning  imm   fetch   mnemonic
ATOMICS = (
    ("ADD", 0x00, False, "lock add"),
    ("OR", 0x40, False, "lock or"),
    ("AND", 0x50, False, "lock and"),
    ("XOR", 0xA0, False, "lock xor"),
    ("ADD", 0x01, True, "lock fetch add"),
    ("OR", 0x41, True, "lock fetch or"),
    ("AND", 0x51, True, "lock fetch and"),
    ("XOR", 0xA1, True, "lock fetch xor"),
    ("XCHG", 0xE1, True, "lock xchg"),
    ("CMPXCHG", 0xF1, True, "lock cmpxchg"),
)

#  src  operation            imm          next_imm
WIDE_LOADS = (
    (0, "LDDW", Imm.LOW, Imm.HIGH),
    (1, "LDDW_MAP_FD", Imm.MAP, 0),
    (2, "LDDW_MAP_VALUE", Imm.MAP, Imm.VALUE_OFFSET),
    (3, "LDDW_VARIABLE", Imm.BTF_ID, Imm.BTF_ID),
    (4, "LDDW_CODE", Imm.TARGET, 0),
    (5, "LDDW_MAP_IDX", Imm.MAP, 0),
    (6, "LDDW_MAP_IDX_VALUE", Imm.MAP, Imm.VALUE_OFFSET),
)

CALLER_SAVED = (1, 2, 3, 4, 5)
LINUX_ATOMICS = "Linux Documentation/bpf/standardization, BPF_LOAD_ACQ and BPF_STORE_REL (6.15)"
LINUX_CAST = "Linux kernel/bpf/verifier.c, BPF_ADDR_SPACE_CAST (6.9)"
LINUX_MAY_GOTO = "Linux include/uapi/linux/bpf.h, BPF_JCOND with BPF_MAY_GOTO (6.9)"
LINUX_KFUNC = "Linux Documentation/bpf/kfuncs.rst; offset indexes the fd_array of BTF objects"
CLANG_CALLX = "clang's encoding of an indirect call: the register is in dst_reg"
INT_MIN_RULE = "RFC 9669, 4.1; INT_MIN / -1 is INT_MIN and INT_MIN % -1 is 0 (Linux, all JITs)"


def _alu() -> Iterator[Row]:
    for width, class_ in ((W64, ALU64), (W32, ALU)):
        bits = width.bits
        base = f"base{bits}"
        for meaning, code, offset, symbol in BINARY_OPERATIONS:
            group = f"divmul{bits}" if meaning in DIVISIONS else base
            note = INT_MIN_RULE if meaning in ("SDIV", "SMOD") else ""
            operation, mnemonic = f"{meaning}{bits}", f"{meaning.lower()}{bits}"
            yield Row(
                f"{operation}_K", operation, Kind.BINARY, class_ | K | code,
                dst=Reg.UPDATE, offset=offset, imm=Imm.OPERAND,
                meaning=meaning, width=width, mnemonic=mnemonic, symbol=symbol, group=group, source=note,
            )  # fmt: skip
            yield Row(
                f"{operation}_X", operation, Kind.BINARY, class_ | X | code,
                dst=Reg.UPDATE, src=Reg.READ, offset=offset,
                meaning=meaning, width=width, mnemonic=mnemonic, symbol=symbol, group=group, source=note,
            )  # fmt: skip
        move: dict[str, Any] = {"width": width, "symbol": "=", "group": base}
        yield Row(
            f"MOV{bits}_K", f"MOV{bits}", Kind.MOVE, class_ | K | 0xB0,
            dst=Reg.WRITE, imm=Imm.OPERAND, meaning="MOV", mnemonic=f"mov{bits}", **move,
        )  # fmt: skip
        yield Row(
            f"MOV{bits}_X", f"MOV{bits}", Kind.MOVE, class_ | X | 0xB0,
            dst=Reg.WRITE, src=Reg.READ, meaning="MOV", mnemonic=f"mov{bits}", **move,
        )  # fmt: skip
        for from_bits in (8, 16, 32):
            if from_bits < bits:
                operation = f"MOVSX{bits}_{from_bits}"
                yield Row(
                    operation, operation, Kind.MOVE, class_ | X | 0xB0,
                    dst=Reg.WRITE, src=Reg.READ, offset=from_bits, meaning=f"MOVSX{from_bits}",
                    mnemonic=f"movsx{from_bits}{bits}", **move,
                )  # fmt: skip
        if width is W64:
            yield Row(
                "ADDR_SPACE_CAST", "ADDR_SPACE_CAST", Kind.CAST, class_ | X | 0xB0,
                dst=Reg.WRITE, src=Reg.READ, offset=1, imm=Imm.SPACES, width=width,
                mnemonic="addr_space_cast", symbol="addr_space_cast", group="linux", source=LINUX_CAST,
            )  # fmt: skip
        yield Row(
            f"NEG{bits}", f"NEG{bits}", Kind.UNARY, class_ | K | 0x80,
            dst=Reg.UPDATE, meaning="NEG", width=width, mnemonic=f"neg{bits}", symbol="-", group=base,
        )  # fmt: skip
    for word, class_, source in (("LE", ALU, K), ("BE", ALU, X), ("BSWAP", ALU64, K)):
        for bits in (16, 32, 64):
            yield Row(
                f"{word}{bits}", f"{word}{bits}", Kind.UNARY, class_ | source | 0xD0,
                dst=Reg.UPDATE, imm=bits, meaning=f"{word}{bits}",
                mnemonic=f"{word.lower()}{bits}", symbol=f"{word.lower()}{bits}",
                group="base64" if bits == 64 else "base32",
            )  # fmt: skip


def _jumps() -> Iterator[Row]:
    yield Row(
        "JA", "JA", Kind.JUMP, JMP | 0x00, offset=Offset.TARGET,
        mnemonic="ja", symbol="goto", group="base32",
    )  # fmt: skip
    yield Row(
        "JA32", "JA32", Kind.JUMP, JMP32 | 0x00, imm=Imm.TARGET,
        mnemonic="ja32", symbol="gotol", group="base32",
    )  # fmt: skip
    for width, class_, suffix in ((W64, JMP, ""), (W32, JMP32, "32")):
        group = f"base{width.bits}"
        for meaning, code, symbol in CONDITIONS:
            operation, mnemonic = f"{meaning}{suffix}", f"{meaning.lower()}{suffix}"
            yield Row(
                f"{operation}_K", operation, Kind.BRANCH, class_ | K | code,
                dst=Reg.READ, offset=Offset.TARGET, imm=Imm.OPERAND,
                meaning=meaning, width=width, mnemonic=mnemonic, symbol=symbol, group=group,
            )  # fmt: skip
            yield Row(
                f"{operation}_X", operation, Kind.BRANCH, class_ | X | code,
                dst=Reg.READ, src=Reg.READ, offset=Offset.TARGET,
                meaning=meaning, width=width, mnemonic=mnemonic, symbol=symbol, group=group,
            )  # fmt: skip
    yield Row(
        "MAY_GOTO", "MAY_GOTO", Kind.MAY_GOTO, JMP | 0xE0, offset=Offset.TARGET,
        mnemonic="may_goto", symbol="may_goto", group="linux", source=LINUX_MAY_GOTO,
    )  # fmt: skip
    calls: dict[str, Any] = {"implicit_reads": CALLER_SAVED, "implicit_writes": (0, *CALLER_SAVED)}
    yield Row(
        "CALL", "CALL", Kind.CALL_HELPER, JMP | 0x80, src=0, imm=Imm.HELPER,
        mnemonic="call", symbol="call", group="base32", **calls,
    )  # fmt: skip
    yield Row(
        "CALL_LOCAL", "CALL_LOCAL", Kind.CALL_LOCAL, JMP | 0x80, src=1, imm=Imm.TARGET,
        mnemonic="call local", symbol="call", group="base32", **calls,
    )  # fmt: skip
    yield Row(
        "CALL_KFUNC", "CALL_KFUNC", Kind.CALL_KFUNC, JMP | 0x80, src=2,
        offset=Offset.BTF_FD, imm=Imm.BTF_ID,
        mnemonic="call kfunc", symbol="call", group="base32", source=LINUX_KFUNC, **calls,
    )  # fmt: skip
    yield Row(
        "CALLX", "CALLX", Kind.CALL_REGISTER, JMP | X | 0x80, dst=Reg.READ,
        mnemonic="callx", symbol="callx", group="linux", source=CLANG_CALLX, **calls,
    )  # fmt: skip
    yield Row(
        "EXIT", "EXIT", Kind.EXIT, JMP | 0x90, mnemonic="exit", symbol="exit", group="base32",
        implicit_reads=(0,),
    )  # fmt: skip


def _loads_and_stores() -> Iterator[Row]:
    for src, operation, imm, next_imm in WIDE_LOADS:
        yield Row(
            operation, operation, Kind.LOAD_IMM64, LD | MODE_IMM | 0x18,
            dst=Reg.WRITE, src=src, imm=imm, next_imm=next_imm, mnemonic="lddw", symbol="=",
        )  # fmt: skip
    for suffix, code, size in SIZES:
        letter = suffix.upper()
        group = "base64" if size == 8 else "base32"
        memory: dict[str, Any] = {"size": size, "group": group, "symbol": "="}
        value = WIDTH_OF_SIZE[size]
        yield Row(
            f"LDX{letter}", f"LDX{letter}", Kind.LOAD, LDX | MODE_MEM | code,
            dst=Reg.WRITE, src=Reg.READ, offset=Offset.DISPLACEMENT,
            width=value, mnemonic=f"ldx{suffix}", **memory,
        )  # fmt: skip
        if size < 8:
            yield Row(
                f"LDXS{letter}", f"LDXS{letter}", Kind.LOAD, LDX | MODE_MEMSX | code,
                dst=Reg.WRITE, src=Reg.READ, offset=Offset.DISPLACEMENT, signed=True,
                width=value, mnemonic=f"ldxs{suffix}", **{**memory, "group": "base64"},
            )  # fmt: skip
        yield Row(
            f"ST{letter}", f"ST{letter}", Kind.STORE, ST | MODE_MEM | code,
            dst=Reg.READ, offset=Offset.DISPLACEMENT, imm=Imm.OPERAND,
            width=value, mnemonic=f"st{suffix}", **memory,
        )  # fmt: skip
        yield Row(
            f"STX{letter}", f"STX{letter}", Kind.STORE, STX | MODE_MEM | code,
            dst=Reg.READ, src=Reg.READ, offset=Offset.DISPLACEMENT,
            width=value, mnemonic=f"stx{suffix}", **memory,
        )  # fmt: skip
    packet_modes: tuple[tuple[str, int, int | Reg], ...] = (("ABS", MODE_ABS, 0), ("IND", MODE_IND, Reg.READ))
    for word, mode, index in packet_modes:
        for suffix, code, size in SIZES:
            yield Row(
                f"LD{word}{suffix.upper()}", f"LD{word}{suffix.upper()}", Kind.PACKET_LOAD,
                LD | mode | code, src=index, imm=Imm.PACKET, size=size, width=WIDTH_OF_SIZE[size],
                mnemonic=f"ld{word.lower()}{suffix}", symbol="skb",
                group="rbpf" if size == 8 else "packet", implicit_writes=(0,),
                source="rbpf, src/ebpf.rs" if size == 8 else "RFC 9669, 5.5; Linux bpf_skb_load_helper_*",
            )  # fmt: skip


def _atomics() -> Iterator[Row]:
    def atomic(operation: str, meaning: str, imm: int, width: Width, fetch: bool, word: str) -> Row:
        code = 0x18 if width is W64 else 0x00
        compares = meaning == "CMPXCHG"
        return Row(
            operation, operation, Kind.ATOMIC, STX | MODE_ATOMIC | code,
            dst=Reg.READ, src=Reg.UPDATE if fetch and not compares else Reg.READ,
            offset=Offset.DISPLACEMENT, imm=imm, meaning=meaning, width=width, size=width.bytes,
            fetch=fetch, mnemonic=word if width is W64 else f"{word}32", symbol="lock",
            group=f"atomic{width.bits}",
            implicit_reads=(0,) if compares else (), implicit_writes=(0,) if compares else (),
        )  # fmt: skip

    for width in (W64, W32):
        for meaning, imm, fetch, word in ATOMICS:
            fetched = "FETCH_" if fetch and meaning not in ("XCHG", "CMPXCHG") else ""
            yield atomic(f"ATOMIC_{fetched}{meaning}{width.bits}", meaning, imm, width, fetch, word)
    for suffix, code, size in SIZES:
        letter, opcode = suffix.upper(), STX | MODE_ATOMIC | code
        ordered: dict[str, Any] = {"offset": Offset.DISPLACEMENT, "size": size, "width": WIDTH_OF_SIZE[size],
                   "group": "linux", "source": LINUX_ATOMICS}  # fmt: skip
        yield Row(
            f"LOAD_ACQ{letter}", f"LOAD_ACQ{letter}", Kind.LOAD, opcode, dst=Reg.WRITE, src=Reg.READ,
            imm=0x100, mnemonic=f"load_acquire{suffix}", symbol="load_acquire", **ordered,
        )  # fmt: skip
        yield Row(
            f"STORE_REL{letter}", f"STORE_REL{letter}", Kind.STORE, opcode, dst=Reg.READ, src=Reg.READ,
            imm=0x110, mnemonic=f"store_release{suffix}", symbol="store_release", **ordered,
        )  # fmt: skip


TABLE: tuple[Row, ...] = (*_alu(), *_jumps(), *_loads_and_stores(), *_atomics())

BY_NAME: dict[str, Row] = {row.name: row for row in TABLE}


Key = TypeVar("Key", int, str)


def _rows_by(key: Callable[[Row], Key]) -> dict[Key, tuple[Row, ...]]:
    """Return the rows of the table that have the same key, in its order."""
    found: dict[Key, list[Row]] = {}
    for row in TABLE:
        found.setdefault(key(row), []).append(row)
    return {each: tuple(rows) for each, rows in found.items()}


BY_OPCODE: dict[int, tuple[Row, ...]] = dict(sorted(_rows_by(attrgetter("opcode")).items()))
OPERATIONS: dict[str, tuple[Row, ...]] = _rows_by(attrgetter("operation"))


def _telling_fields() -> dict[int, tuple[int, ...]]:
    """For each opcode, which of (src, offset, imm) have different fixed values in its rows."""

    def fixed_values(rows: tuple[Row, ...], field: str) -> set[int]:
        return {value for row in rows if isinstance(value := getattr(row, field), int)}

    return {
        opcode: tuple(
            index
            for index, field in enumerate(("src", "offset", "imm"))
            if len(fixed_values(rows, field)) > 1
        )
        for opcode, rows in BY_OPCODE.items()
    }


_TELLING = _telling_fields()


def match(opcode: int, src: int, offset: int, imm: int) -> Row | None:
    """Return the row these fields name, or None; reserved fields are not looked at.

    Only the fields that tell rows of one opcode apart decide, so a DIV with a wrong register
    number or a reserved field that is not zero is still a DIV (the verifier refuses it).
    """
    rows = BY_OPCODE.get(opcode)
    if rows is None:
        return None
    telling = _TELLING[opcode]
    if not telling:
        return rows[0]
    fields = (src, offset, imm)
    for row in rows:
        wanted = (row.src, row.offset, row.imm)
        if all(not isinstance(wanted[i], int) or wanted[i] == fields[i] for i in telling):
            return row
    return None


def told_by(*rows: Row) -> frozenset[int]:
    """Return the first 16 bits (opcode, registers) of words for which `match` gives one of these rows.

    Only for rows that opcode and source register tell from all others.
    """
    wanted = set(rows)
    found = {(row.opcode, src) for row in rows for src in range(16) if match(row.opcode, src, 0, 0) in wanted}
    return frozenset(opcode | dst << 8 | src << 12 for opcode, src in found for dst in range(16))
