"""Rows of operations that no program says, and optimised code does: they have no encoding.

Their fields are said in `ebpfjit.optimizer.code`. What loads and runs programs does without them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ebpfjit.bits import W32, W64, WIDTH_OF_SIZE, Width
from ebpfjit.isa.spec import Imm, Kind, Offset, Reg, Row
from ebpfjit.isa.table import BINARY_OPERATIONS, CONDITIONS, SIZES
from ebpfjit.record import replace

NO_OPCODE = -1
OPERANDS: tuple[tuple[str, dict[str, Any]], ...] = (("K", {"imm": Imm.OPERAND}), ("X", {"src": Reg.READ}))


def _only_in_code() -> Iterator[Row]:
    for kind in (Kind.BOUND, Kind.ALIGNED, Kind.PAY, Kind.LEAVE, Kind.COUNT):
        yield Row(kind.name, kind.name, kind, NO_OPCODE, mnemonic=kind.name.lower(), symbol=kind.name.lower())
    for width in (W64, W32):
        bits = width.bits
        yield Row(
            f"ROTATE{bits}", f"ROTATE{bits}", Kind.BINARY, NO_OPCODE, dst=Reg.UPDATE, imm=Imm.OPERAND,
            meaning="ROTATE", width=width, mnemonic=f"rotate{bits}", symbol="rotate",
        )  # fmt: skip
        yield Row(
            f"SUM{bits}", f"SUM{bits}", Kind.SUM, NO_OPCODE, dst=Reg.WRITE, src=Reg.READ,
            meaning="SUM", width=width, mnemonic=f"sum{bits}", symbol="+",
        )  # fmt: skip
    yield Row(
        "MULHI64", "MULHI64", Kind.BINARY, NO_OPCODE, dst=Reg.UPDATE, src=Reg.READ,
        meaning="MULHI", mnemonic="mulhi64", symbol="mulhi",
    )  # fmt: skip
    for width, ending in ((W64, ""), (W32, "32")):
        for meaning, _, symbol in CONDITIONS:
            operation = f"SELECT_{meaning}{ending}"
            for form, read in OPERANDS:
                yield Row(
                    f"{operation}_{form}", operation, Kind.SELECT, NO_OPCODE, dst=Reg.WRITE,
                    meaning=meaning, width=width, mnemonic=operation.lower(), symbol=symbol, **read,
                )  # fmt: skip
    for suffix, _, size in SIZES:
        yield from _addressed(suffix.upper(), size)
        for width in (W64, W32):
            yield from _reductions(suffix.upper(), size, width)


REDUCTIONS = {"ADD": "+", "OR": "|", "AND": "&", "XOR": "^"}
"""What elements are put together by."""


def _reductions(letter: str, size: int, width: Width) -> Iterator[Row]:
    """What puts elements together that lie one behind the other, or their products with others."""

    def row(meaning: str, symbol: str, **fields: Any) -> Row:
        name = f"REDUCE_{meaning}{width.bits}_LDX{letter}"
        return Row(
            name, name, Kind.REDUCE, NO_OPCODE, dst=Reg.WRITE, offset=Offset.DISPLACEMENT, imm=Imm.OPERAND,
            meaning=meaning, width=width, size=size, mnemonic=name.lower(), symbol=symbol, **fields,
        )  # fmt: skip

    if size <= width.bytes:
        yield from (row(meaning, symbol) for meaning, symbol in REDUCTIONS.items())
    if size <= 4:
        yield row("DOT", "*", src=Reg.READ)


MEMORY_OPERANDS = ("ADD", "SUB", "MUL", "OR", "AND", "XOR")
"""Operations whose second operand may lie in memory; but MUL, the first one may as well."""


def _addressed(letter: str, size: int) -> Iterator[Row]:
    """What finds its bytes at base + index * scale + offset."""
    width = WIDTH_OF_SIZE[size]
    memory: dict[str, Any] = {"size": size, "width": width, "offset": Offset.DISPLACEMENT}

    def row(name: str, kind: Kind, **fields: Any) -> Row:
        return Row(name, name, kind, NO_OPCODE, mnemonic=name.lower(), **{"symbol": "=", **memory, **fields})

    def forms(name: str, kind: Kind, **fields: Any) -> Iterator[Row]:
        for form, read in OPERANDS:
            yield replace(row(name, kind, **fields, **read), name=f"{name}_{form}")

    load, store = {"dst": Reg.WRITE, "src": Reg.READ}, {"dst": Reg.READ, "src": Reg.READ}
    yield row(f"INDEXED_LDX{letter}", Kind.INDEXED_LOAD, **load)
    if size < 8:
        yield row(f"INDEXED_LDXS{letter}", Kind.INDEXED_LOAD, signed=True, **load)
    yield row(f"INDEXED_STX{letter}", Kind.INDEXED_STORE, **store)
    yield row(f"INDEXED_ST{letter}", Kind.INDEXED_STORE, dst=Reg.READ, imm=Imm.OPERAND)
    if size > 1:
        swap = {"meaning": f"BSWAP{width.bits}", "symbol": f"be{width.bits}"}
        yield row(f"SWAPPED_LDX{letter}", Kind.INDEXED_LOAD, **load, **swap)
        yield row(f"SWAPPED_STX{letter}", Kind.INDEXED_STORE, **store, **swap)
    symbols = {meaning: symbol for meaning, _, _, symbol in BINARY_OPERATIONS}
    for meaning in MEMORY_OPERANDS:
        said = {"meaning": meaning, "symbol": symbols[meaning]}
        if size >= 4:
            yield row(f"{meaning}_LDX{letter}", Kind.BINARY_LOAD, dst=Reg.UPDATE, src=Reg.READ, **said)
        if meaning != "MUL":
            yield from forms(f"{meaning}_ST{letter}", Kind.UPDATE, dst=Reg.READ, **said)
    for meaning, _, symbol in CONDITIONS:
        yield from forms(f"{meaning}_LDX{letter}", Kind.BRANCH_LOAD, meaning=meaning, symbol=symbol)


UNENCODED: dict[str, Row] = {row.name: row for row in _only_in_code()}
"""The rows, by name."""
