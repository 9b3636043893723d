"""The table is what everything derives from, so its shape is tested hardest."""

from __future__ import annotations

import itertools

import pytest

from ebpfjit.isa.spec import Kind, Reg, Row
from ebpfjit.isa.table import BY_NAME, OPERATIONS, TABLE, match, told_by
from tests.support.rows import over

GROUPS = {"base32", "base64", "divmul32", "divmul64", "atomic32", "atomic64", "packet", "linux", "rbpf"}


def _may_overlap(a: Row, b: Row) -> bool:
    """True where some word fits both rows: no field is fixed to different values."""
    if a.opcode != b.opcode:
        return False
    fields = ("src", "offset", "imm")
    return not any(
        isinstance(x := getattr(a, field), int) and isinstance(y := getattr(b, field), int) and x != y
        for field in fields
    )


def test_no_two_rows_match_the_same_word() -> None:
    overlapping = [(a.name, b.name) for a, b in itertools.combinations(TABLE, 2) if _may_overlap(a, b)]
    assert overlapping == []


def test_names_are_unique() -> None:
    assert len(BY_NAME) == len(TABLE)


@over("row", TABLE)
def test_a_row_is_found_by_its_own_fixed_fields(row: Row) -> None:
    src = row.src if isinstance(row.src, int) else 3
    offset = row.offset if isinstance(row.offset, int) else 7
    imm = row.imm if isinstance(row.imm, int) else 11
    assert match(row.opcode, src, offset, imm) is row


@over("row", TABLE)
def test_a_row_says_what_every_engine_needs(row: Row) -> None:
    assert row.group in GROUPS
    assert row.mnemonic
    assert row.symbol
    assert 0 <= row.opcode <= 0xFF
    if row.kind in (Kind.LOAD, Kind.STORE, Kind.ATOMIC, Kind.PACKET_LOAD):
        assert row.size in (1, 2, 4, 8)
    if row.group in ("linux", "rbpf"):
        assert row.source, "what the RFC does not have must cite where it comes from"


@pytest.mark.parametrize(("group", "count"), [("atomic64", 10), ("atomic32", 10), ("packet", 6)])
def test_a_conformance_group_is_whole(group: str, count: int) -> None:
    assert sum(row.group == group for row in TABLE) == count


def test_operations_group_their_rows() -> None:
    assert [row.name for row in OPERATIONS["ADD64"]] == ["ADD64_K", "ADD64_X"]
    assert [row.name for row in OPERATIONS["EXIT"]] == ["EXIT"]


@pytest.mark.parametrize(
    ("opcode", "src", "offset", "imm"),
    [
        (0x00, 0, 0, 0),  # no such opcode
        (0x37, 0, 2, 5),  # DIV with an offset that is neither DIV nor SDIV
        (0xBF, 1, 24, 0),  # MOV with a width that is none
        (0xDB, 1, 0, 0x02),  # an unknown atomic
        (0xD4, 0, 0, 24),  # LE of 24 bits
        (0x18, 7, 0, 0),  # LDDW of an unknown reference
        (0x85, 3, 0, 0),  # an unknown kind of call
    ],
)
def test_unknown_encodings_match_nothing(opcode: int, src: int, offset: int, imm: int) -> None:
    assert match(opcode, src, offset, imm) is None


def test_registers_read_and_written() -> None:
    assert BY_NAME["ADD64_X"].dst is Reg.UPDATE
    assert BY_NAME["STXDW"].dst is Reg.READ
    assert BY_NAME["LDXDW"].dst is Reg.WRITE
    assert BY_NAME["ATOMIC_CMPXCHG64"].implicit_writes == (0,)
    assert BY_NAME["CALL"].implicit_reads == (1, 2, 3, 4, 5)


def test_what_opcode_and_source_tell() -> None:
    calls = {0x1085 | dst << 8 for dst in range(16)}
    assert told_by(BY_NAME["CALL_LOCAL"]) == calls
    assert told_by(BY_NAME["CALL_LOCAL"], BY_NAME["LDDW_CODE"]) == calls | {
        0x4018 | n << 8 for n in range(16)
    }
    assert told_by(BY_NAME["MAY_GOTO"]) == {0xE5 | registers << 8 for registers in range(256)}
