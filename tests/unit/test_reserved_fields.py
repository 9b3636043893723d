"""Fields that must be zero, and other input that is refused: at load where it can be known."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from support.machines import CHECKED, Job, constant, run_jobs, word

from ebpfjit import EbpfVmNoData, EbpfVmRaw
from ebpfjit.analysis import verifier
from ebpfjit.errors import (
    AlignmentFault,
    ExecutionError,
    HelperNotFound,
    IllegalInstruction,
    LoadError,
    VerifierError,
)
from ebpfjit.isa.spec import Row
from ebpfjit.isa.table import TABLE, match
from ebpfjit.program import Instruction, Program, decode
from tests.support.rows import over

EXIT = bytes.fromhex("9500000000000000")
START = bytes.fromhex("b700000000000000")  # mov64 r0, 0

# RFC 9669, 3.1: "Unused fields shall be cleared to zero."
#    what                             opcode dst src offset   imm
PROGRAMS = (
    ("ALU64 K with src_reg",           0x07, 1, 2, 0,         5),
    ("ALU64 K with offset",            0x07, 1, 0, 4,         5),
    ("ALU64 X with imm",               0x0F, 1, 2, 0,         5),
    ("ALU64 X with offset",            0x0F, 1, 2, 4,         0),
    ("ALU K with src_reg",             0x04, 1, 2, 0,         5),
    ("ALU K with offset",              0x04, 1, 0, -1,        5),
    ("ALU X with imm",                 0x0C, 1, 2, 0,        -1),
    ("ALU X with offset",              0x0C, 1, 2, 1,         0),
    ("SUB with SDIV's offset",         0x17, 1, 0, 1,         5),
    ("MUL X with imm",                 0x2F, 1, 2, 0,         1),
    ("DIV with offset 2",              0x37, 1, 0, 2,         5),
    ("DIV X with imm",                 0x3F, 1, 2, 0,         5),
    ("SDIV K with src_reg",            0x37, 1, 2, 1,         5),
    ("SDIV X with imm",                0x3F, 1, 2, 1,         5),
    ("MOD with offset -1",             0x97, 1, 0, -1,        5),
    ("SMOD K with src_reg",            0x94, 1, 2, 1,         5),
    ("LSH K with src_reg",             0x67, 1, 2, 0,         5),
    ("RSH X with imm",                 0x7F, 1, 2, 0,         5),
    ("ARSH with offset",               0xC7, 1, 0, 8,         5),
    ("MOV K with MOVSX's offset",      0xB7, 1, 0, 8,         5),
    ("MOV K with src_reg",             0xB4, 1, 2, 0,         5),
    ("MOV X with imm",                 0xBF, 1, 2, 0,         5),
    ("MOVSX from 64 bits",             0xBF, 1, 2, 64,        0),
    ("MOVSX from 24 bits",             0xBF, 1, 2, 24,        0),
    ("MOVSX 32 from 32 bits",          0xBC, 1, 2, 32,        0),
    ("MOVSX with imm",                 0xBF, 1, 2, 8,         1),
    ("NEG with src_reg",               0x87, 1, 2, 0,         0),
    ("NEG with imm",                   0x87, 1, 0, 0,         1),
    ("NEG with offset",                0x84, 1, 0, 1,         0),
    ("NEG X",                          0x8F, 1, 2, 0,         0),
    ("LE with src_reg",                0xD4, 1, 2, 0,        16),
    ("LE with offset",                 0xD4, 1, 0, 1,        32),
    ("LE of 8 bits",                   0xD4, 1, 0, 0,         8),
    ("BE with src_reg",                0xDC, 1, 2, 0,        64),
    ("BE of 0 bits",                   0xDC, 1, 0, 0,         0),
    ("BSWAP with src_reg",             0xD7, 1, 2, 0,        16),
    ("BSWAP with offset",              0xD7, 1, 0, 1,        16),
    ("BSWAP with the source bit",      0xDF, 1, 0, 0,        16),
    ("JA with dst_reg",                0x05, 1, 0, 0,         0),
    ("JA with src_reg",                0x05, 0, 1, 0,         0),
    ("JA with imm",                    0x05, 0, 0, 0,         1),
    ("JA X",                           0x0D, 0, 0, 0,         0),
    ("JA32 with offset",               0x06, 0, 0, 1,         0),
    ("JA32 with dst_reg",              0x06, 1, 0, 0,         0),
    ("JEQ K with src_reg",             0x15, 1, 2, 0,         5),
    ("JEQ X with imm",                 0x1D, 1, 2, 0,         5),
    ("JSLE32 K with src_reg",          0xD6, 1, 2, 0,         5),
    ("JSLE32 X with imm",              0xDE, 1, 2, 0,         5),
    ("MAY_GOTO with dst_reg",          0xE5, 1, 0, 0,         0),
    ("MAY_GOTO with imm",              0xE5, 0, 0, 0,         1),
    ("MAY_GOTO with src_reg",          0xE5, 0, 1, 0,         0),
    ("CALL with dst_reg",              0x85, 1, 0, 0,         5),
    ("CALL with offset",               0x85, 0, 0, 1,         5),
    ("CALL with src_reg 3",            0x85, 0, 3, 0,         5),
    ("local CALL with dst_reg",        0x85, 1, 1, 0,         0),
    ("local CALL with offset",         0x85, 0, 1, 1,         0),
    ("kfunc CALL with dst_reg",        0x85, 1, 2, 0,         5),
    ("CALLX with src_reg",             0x8D, 1, 2, 0,         0),
    ("CALLX with offset",              0x8D, 1, 0, 1,         0),
    ("CALLX with imm",                 0x8D, 1, 0, 0,         1),
    ("EXIT with dst_reg",              0x95, 1, 0, 0,         0),
    ("EXIT with src_reg",              0x95, 0, 1, 0,         0),
    ("EXIT with offset",               0x95, 0, 0, 1,         0),
    ("EXIT with imm",                  0x95, 0, 0, 0,         1),
    ("EXIT X",                         0x9D, 0, 0, 0,         0),
    ("EXIT of class JMP32",            0x96, 0, 0, 0,         0),
    ("CALL of class JMP32",            0x86, 0, 0, 0,         5),
    ("LDX with imm",                   0x61, 1, 10, -8,       1),
    ("LDXS with imm",                  0x81, 1, 10, -8,       1),
    ("LDXS of a double word",          0x99, 1, 10, -8,       0),
    ("ST with src_reg",                0x62, 10, 1, -8,       1),
    ("STX with imm",                   0x7B, 10, 1, -8,       1),
    ("LDABS with dst_reg",             0x20, 1, 0, 0,         0),
    ("LDABS with src_reg",             0x28, 0, 1, 0,         0),
    ("LDABS with offset",              0x30, 0, 0, 1,         0),
    ("LDIND with dst_reg",             0x40, 1, 2, 0,         0),
    ("LDIND with offset",              0x50, 0, 2, 1,         0),
    ("atomic with an unknown imm",     0xDB, 10, 1, -8,    0x02),
    ("atomic FETCH of nothing",        0xDB, 10, 1, -8,    0x11),
    ("atomic XCHG without FETCH",      0xDB, 10, 1, -8,    0xE0),
    ("atomic CMPXCHG without FETCH",   0xC3, 10, 1, -8,    0xF0),
    ("atomic MUL",                     0xC3, 10, 1, -8,    0x20),
    ("atomic with imm's upper bits",   0xDB, 10, 1, -8, 0x10000),
    ("atomic ADD of a byte",           0xD3, 10, 1, -8,    0x00),
    ("atomic ADD of a half word",      0xCB, 10, 1, -8,    0x00),
    ("load-acquire with other bits",   0xDB, 10, 1, -8,   0x101),
    ("store-release with other bits",  0xD3, 10, 1, -8,   0x111),
)  # fmt: skip


def encoded(opcode: int, dst: int, src: int, offset: int, imm: int) -> bytes:
    return struct.pack("<BBhi", opcode, src << 4 | dst, offset, imm)


def refusal(instruction: bytes) -> VerifierError:
    """Return the verifier's error for a program that has `instruction` at pc 1."""
    with pytest.raises(VerifierError) as caught:
        verifier.check(START + instruction + START + EXIT)
    return caught.value


@over(("what", "opcode", "dst", "src", "offset", "imm"), PROGRAMS)
def test_refused(what: str, opcode: int, dst: int, src: int, offset: int, imm: int) -> None:
    error = refusal(encoded(opcode, dst, src, offset, imm))
    assert error.pc == 1, what
    assert error.rule in ("reserved-fields", "known-opcode"), what
    assert f"[{error.rule}]" in str(error)
    assert str(error).startswith("pc 1: ")


def test_there_are_at_least_45_of_them() -> None:
    assert len({fields for _, *rest in PROGRAMS for fields in [tuple(rest)]}) >= 45


# --- the same, derived: each fixed field of each row ---

WRONG = (1, -1, 2, 3, 5, 7, 9, 0x100, 0x111, 0x40)
RANGES = {"dst": (0, 16), "src": (0, 16), "offset": (-(1 << 15), 1 << 15), "imm": (-(1 << 31), 1 << 31)}


def a_valid_one(row: Row) -> dict[str, int]:
    """Return the fields of an instruction of `row` that the verifier accepts at pc 1."""
    base = {"dst": 10 if row.kind.name in ("STORE", "ATOMIC") else 1, "src": 1, "offset": 0, "imm": 1}
    if row.size and row.kind.name != "PACKET_LOAD":
        base["offset"] = -8
    return {
        field: required if isinstance(required := getattr(row, field), int) else value
        for field, value in base.items()
    }


def instruction(row: Row, fields: dict[str, int]) -> bytes:
    next_imm = 0 if row.is_wide else None
    return Instruction(
        1, row.opcode, fields["dst"], fields["src"], fields["offset"], fields["imm"], next_imm
    ).encode()


def is_another_row(row: Row, fields: dict[str, int]) -> bool:
    """Whether the fields are a valid instruction of some other row: DIV with offset 1 is SDIV.

    What is no cast any more is a MOV, whose imm is reserved: nothing says that a cast was meant.
    """
    other = match(row.opcode, fields["src"], fields["offset"], fields["imm"])
    is_other = other is not None and other is not row
    return is_other and (row.kind.name == "CAST" or not other.mismatches(**fields))


def wrong_values(row: Row) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield (field, fields) where that field is not what the row fixes it to."""
    good = a_valid_one(row)
    for field, (low, high) in RANGES.items():
        required = getattr(row, field)
        if not isinstance(required, int):
            continue
        for value in (required + change for change in WRONG):
            fields = {**good, field: value}
            if low <= value < high and value != required and not is_another_row(row, fields):
                yield field, fields


@over("row", TABLE)
def test_each_fixed_field_of_a_row(row: Row) -> None:
    padding = START * 3
    verifier.check(START + instruction(row, a_valid_one(row)) + padding + EXIT)
    fields_seen = set()
    for field, fields in wrong_values(row):
        error = refusal(instruction(row, fields) + padding)
        assert (error.pc, error.rule in ("reserved-fields", "known-opcode")) == (1, True), (
            field,
            fields,
            error,
        )
        assert {"dst": "dst_reg", "src": "src_reg"}.get(field, field) in str(error), (field, fields, error)
        fields_seen.add(field)
    fixed = {field for field in RANGES if isinstance(getattr(row, field), int)}
    # With every one of 16 values taken by LDDW's kinds or CALL's, some value is still refused.
    assert fields_seen == fixed


@pytest.mark.parametrize("row", [row for row in TABLE if row.is_wide], ids=lambda row: row.name)
def test_second_slot_of_a_wide_instruction(row: Row) -> None:
    """RFC 9669, 3.2: opcode, dst_reg, src_reg and offset of the pseudo instruction are zero."""
    first = instruction(row, a_valid_one(row))[:8]
    for bad in (
        "b700000000000000",
        "0001000000000000",
        "0010000000000000",
        "0000010000000000",
        "0000008000000000",
    ):
        error = refusal(first + bytes.fromhex(bad) + START * 3)
        assert (error.pc, error.rule) == (1, "reserved-fields")
    if row.next_imm == 0:
        error = refusal(first + bytes.fromhex("0000000001000000") + START * 3)
        assert (error.pc, error.rule) == (1, "reserved-fields")
        assert "next_imm" in str(error)


@over("row", [row for row in TABLE if not row.is_wide])
def test_registers_that_do_not_exist(row: Row) -> None:
    for field in ("dst", "src"):
        if isinstance(getattr(row, field), int):
            continue
        for number in (11, 12, 15):
            error = refusal(instruction(row, {**a_valid_one(row), field: number}) + START * 3)
            assert (error.pc, error.rule) == (1, "registers")
            assert f"{field}_reg" in str(error)


def test_r10_is_never_written() -> None:
    for row in TABLE:
        for field in ("dst", "src"):
            role = getattr(row, field)
            if isinstance(role, int) or role.name == "READ":
                continue
            valid = a_valid_one(row)
            error = refusal(instruction(row, {**valid, "dst": valid["dst"] % 9, field: 10}) + START * 3)
            assert (error.pc, error.rule) == (1, "registers"), row.name
            assert "r10" in str(error)


# --- bad input, of issue 3 ---


def failures(
    programs: dict[str, bytes], memory: bytes | None = None
) -> dict[str, set[tuple[str, int | None]]]:
    """Run programs that the verifier accepts; return the exceptions and pcs that engines raised."""
    jobs = [Job(name, code, (memory,), CHECKED) for name, code in programs.items()]
    return {
        job.name: {(runs[0].error, runs[0].pc) for runs in result.values()}
        for job, result in zip(jobs, run_jobs(jobs), strict=True)
    }


def test_callx_to_what_is_no_function() -> None:
    """0xebf0... plus a pc is how functions are addressed here: only their starts will do."""
    function_0 = 0xEBF0000000000000
    wild = (0, 1, 4, function_0 + 1, function_0 + 2, function_0 + 0xFFFFFFFF, (1 << 64) - 1)
    programs = {
        hex(address): constant(3, address) + START + word("CALLX", 3) + EXIT
        for address in (*wild, function_0)
    }
    found = failures(programs)
    # Function 0 is this one: a call of itself, without end.
    assert found.pop(hex(function_0)) == {("CallDepthExceeded", 3)}
    assert found == {hex(address): {(IllegalInstruction.__name__, 3)} for address in wild}
    assert issubclass(IllegalInstruction, ExecutionError)


ORDERED = [row for row in TABLE if row.size and (row.kind.name == "ATOMIC" or row.group == "linux")]


def unaligned(row: Row, base: int, offset: int) -> bytes:
    """A program with the row at pc 1, at base + offset."""
    registers = (0, base) if row.kind.name == "LOAD" else (base, 0)
    return START + word(row.name, *registers, offset) + EXIT


def test_unaligned_atomics() -> None:
    """Each engine finds out where the address is known only then."""
    programs = {f"{row.name} +{at}": unaligned(row, 1, at) for row in ORDERED for at in range(1, row.size)}
    assert failures(programs, bytes(24)) == {name: {(AlignmentFault.__name__, 1)} for name in programs}
    aligned = {row.name: unaligned(row, 1, 8) for row in ORDERED}
    assert failures(aligned, bytes(24)) == {name: {("", None)} for name in aligned}


@over("row", ORDERED)
def test_unaligned_atomic_on_the_stack(row: Row) -> None:
    """There it is known at load: r10 is a multiple of 16."""
    verifier.check(unaligned(row, 10, -16))
    for misplaced in range(1, row.size):
        with pytest.raises(VerifierError) as caught:
            verifier.check(unaligned(row, 10, misplaced - 16))
        assert (caught.value.pc, caught.value.rule) == (1, "aligned-atomics"), misplaced


@pytest.mark.parametrize("opcode", [0xDB, 0xC3, 0xD3, 0xCB])
def test_atomic_with_an_unknown_imm(opcode: int) -> None:
    """Every imm but the ones that RFC 9669 (5.3) and Linux define."""
    simple = {0x00, 0x40, 0x50, 0xA0}
    known = {*simple, *(op | 1 for op in simple), 0xE1, 0xF1} if opcode in (0xDB, 0xC3) else set()
    known |= {0x100, 0x110}
    numbers = [*range(0x200), 0x1000, 0x80000000 - 0x100000000, -1]
    refused = [imm for imm in numbers if imm not in known]
    for imm in known:
        verifier.check(START + encoded(opcode, 1, 2, 0, imm) + EXIT)
    for imm in refused:
        error = refusal(encoded(opcode, 1, 2, 0, imm))
        assert (error.pc, error.rule) == (1, "known-opcode"), hex(imm)


@pytest.mark.parametrize("name", ["CALL", "CALL_KFUNC"])
def test_call_of_what_is_not_registered(name: str) -> None:
    code = START + word(name, imm=0x7FFFFFF0) + EXIT
    assert failures({name: code}) == {name: {(HelperNotFound.__name__, 1)}}
    vm = EbpfVmRaw(code)
    vm.jit_compile()
    for run in (vm.execute_program, vm.execute_program_jit):
        with pytest.raises(HelperNotFound, match="not registered") as caught:
            run(bytearray(4))
        assert (caught.value.pc, caught.value.helper) == (1, 0x7FFFFFF0)


@pytest.mark.parametrize(
    "name", ["LDDW_MAP_FD", "LDDW_MAP_VALUE", "LDDW_VARIABLE", "LDDW_MAP_IDX", "LDDW_MAP_IDX_VALUE"]
)
def test_reference_that_nothing_resolves(name: str) -> None:
    code = START + word(name, 1, imm=3) + EXIT
    with pytest.raises(LoadError, match=r"pc 1: .*nothing resolves"):
        EbpfVmNoData(code)
    vm = EbpfVmNoData(Program(code, references={1: 77}))
    assert vm.execute_program() == 0


def test_code_reference_to_no_instruction() -> None:
    verifier.check(START + word("LDDW_CODE", 1, imm=-1) + EXIT)
    for distance in (100, -100):
        error = refusal(word("LDDW_CODE", 1, imm=distance))
        assert (error.pc, error.rule) == (1, "jump-targets")
    second_half = START + word("LDDW_CODE", 1, imm=0) + EXIT
    with pytest.raises(VerifierError, match="second half"):
        verifier.check(second_half)


def test_decoding_never_fails_on_an_unknown_instruction() -> None:
    """What no row matches keeps its fields; the verifier names it and no engine runs it."""
    for what, *fields in PROGRAMS:
        (decoded,) = decode(encoded(*fields))
        assert decoded.encode() == encoded(*fields), what
