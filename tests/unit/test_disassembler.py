"""The disassembler: rbpf's and Linux's words, and back to the same bytes from both."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebpfjit.assembler import assemble
from ebpfjit.disassembler import HLInsn, disassemble, disassemble_instruction, to_insn_vec
from ebpfjit.errors import DecodeError
from ebpfjit.isa.table import TABLE
from ebpfjit.program import Instruction, Program, decode
from tests.support.rows import over

DIALECTS = ("rbpf", "linux")

README_BYTES = bytes.fromhex(
    "0701000005060000 b702000032000000 bf01000000000000 dc00000010000000 8702000000000000 9500000000000000"
)


def test_readme_snippet_of_rbpf():
    assert disassemble(README_BYTES).splitlines() == [
        "add64 r1, 0x605",
        "mov64 r2, 0x32",
        "mov64 r1, r0",
        "be16 r0",
        "neg64 r2",
        "exit",
    ]


def instructions_of(row):
    """Every combination of edge values that the fields of `row` may hold."""

    def values(fixed, free):
        return (fixed,) if isinstance(fixed, int) else free

    words = (0, 1, -1, -(2**31), 2**31 - 1)
    for dst, src, offset, imm, next_imm in itertools.product(
        values(row.dst, (0, 10)),
        values(row.src, (1, 10)),
        values(row.offset, (0, 1, -1, -32768, 32767)),
        values(row.imm, words),
        (None,) if row.next_imm is None else values(row.next_imm, words),
    ):
        yield Instruction(0, row.opcode, dst, src, offset, imm, next_imm, row)


@over("dialect", DIALECTS)
@over("row", TABLE)
def test_every_row_comes_back(row, dialect):
    code = b"".join(insn.encode() for insn in instructions_of(row))
    text = disassemble(code, dialect)
    assert ".8byte" not in text
    assert assemble(text) == code


@over("dialect", DIALECTS)
def test_rows_are_written_apart(dialect):
    texts = {}
    for row in TABLE:
        for insn in instructions_of(row):
            text = disassemble_instruction(insn, dialect)
            assert texts.setdefault(text, insn.encode()) == insn.encode()


def fields(code):
    return [(i.opcode, i.dst_reg, i.src_reg, i.offset, i.imm, i.next_imm, i.reserved) for i in decode(code)]


@settings(deadline=None, max_examples=300)
@given(st.lists(st.binary(min_size=8, max_size=8), max_size=20), st.sampled_from(DIALECTS))
def test_any_words_come_back(words, dialect):
    code = b"".join([*words, bytes(8)])  # an LDDW in the last word has its second slot
    assert assemble(disassemble(code, dialect)) == code


OPCODES = sorted({row.opcode for row in TABLE})


@settings(deadline=None, max_examples=500)
@given(
    st.lists(
        st.tuples(st.sampled_from(OPCODES), st.sampled_from([0, 0x10, 0x21, 0x1B, 0xB1]),
                  st.sampled_from([0, 1, 8, 32, -1]), st.sampled_from([0, 1, 16, 64, 0xF1, 0x100, -1])),
        max_size=12,
    ),
    st.sampled_from(DIALECTS),
)  # fmt: skip
def test_real_opcodes_with_odd_fields_come_back(parts, dialect):
    code = b"".join(
        bytes([opcode, registers])
        + offset.to_bytes(2, "little", signed=True)
        + imm.to_bytes(4, "little", signed=True)
        for opcode, registers, offset, imm in parts
    ) + bytes(8)
    text = disassemble(code, dialect)
    assert assemble(text) == code
    assert fields(assemble(text)) == fields(code)


# From rbpf's tests of its disassembler: what it writes, it must read to the same.
RBPF = """\
add64 r1, r3
add32 r1, 0xffffffff
ldxw r1, [r2+0x5]
stw [r2+0x5], 0x7
stxdw [r10-0x8], r1
stw [r1-0x8000], 0x1
ja +0x8
ja -0x3
jeq r1, 0x4, +0x8
jsge r1, r2, -0x3
jeq32 r1, 0x2, -0x8000
call 0x3
callx 0x4
be32 r1
lddw r1, 0x1234abcd5678eeff
lddw r1, 0xff11ee22dd33cc44
ldabsdw 0x1
ldinddw r1, 0x2
exit"""


def test_words_of_rbpf():
    assert disassemble(assemble(RBPF)) == RBPF


BPF_CONFORMANCE = """\
lock fetch add [r1+0x8], r2
lock cmpxchg32 [r1-0x8], r2
lock xchg [r1+0x0], r2
lock add [r1+0x0], r2
movsx864 r0, r1
sdiv64 r0, 0x3
smod32 r0, r1
ldxsb r0, [r1+0x0]
bswap16 r0
jeq32 r0, r1, +0x0
ja32 +0x5
call kfunc 0x7
call kfunc 0x7, +0x2
callx r1"""


def test_words_of_bpf_conformance_where_rbpf_has_none():
    assert disassemble(assemble(BPF_CONFORMANCE)) == BPF_CONFORMANCE


LINUX = """\
r0 += r1
w0 s/= 3
r0 = -5
r0 = (s8)r1
r0 = *(u32 *)(r1 + 4)
r0 = *(s16 *)(r1 - 2)
*(u32 *)(r1 - 8) = 5
*(u64 *)(r1 + 0) = r2
if r1 s> 5 goto +3
if w1 & w2 goto -3
goto +3
gotol +5
may_goto +2
lock *(u64 *)(r1 + 0) += r2
lock *(u32 *)(r1 + 0) ^= w2
r2 = atomic_fetch_add((u64 *)(r1 + 0), r2)
w2 = atomic_fetch_or((u32 *)(r1 + 0), w2)
r0 = cmpxchg_64(r1 + 0, r0, r2)
w0 = cmpxchg32_32(r1 + 0, w0, w2)
r2 = xchg_64(r1 + 0, r2)
w2 = xchg32_32(r1 + 0, w2)
r0 = load_acquire((u64 *)(r1 + 0))
w0 = load_acquire((u16 *)(r1 + 0))
store_release((u64 *)(r1 + 0), r2)
r1 = 5 ll
r1 = -1 ll
r1 = map[fd:5]
r1 = map[fd:5][0]+4294967295
r1 = map[idx:5][0]+8
r1 = btf[id:7][fd:0]
r1 = subprog[-4]
r0 = be16 r0
r0 = bswap32 r0
r0 = -r0
w0 = -w0
call 5
call pc+4
call kfunc 7, 2
callx r1
r0 = *(u8 *)skb[5]
r0 = *(u16 *)skb[r1 + 5]
r0 = *(u64 *)skb[r1 - 5]
exit"""


def test_words_of_linux():
    assert disassemble(assemble(LINUX), "linux") == LINUX


@over("dialect", DIALECTS)
@over(
    ("words", "text"),
    [
        ("ff01000000000000", ".8byte 0x1ff"),  # no such opcode
        ("0701000105000000", ".8byte 0x501000107"),  # an offset where none belongs
        ("b70b000000000000", ".8byte 0xbb7"),  # there is no r11
        ("dc00000011000000", ".8byte 0x11000000dc"),  # no such width
        ("1801000005000000 0000010000000000", ".8byte 0x500000118, 0x10000"),  # a second slot not empty
        ("1871000005000000 9500000000000000", ".8byte 0x500007118\nexit"),  # no such reference
    ],
)
def test_what_is_no_instruction_is_written_as_words(words, text, dialect):
    code = bytes.fromhex(words)
    assert disassemble(code, dialect) == text
    assert assemble(text) == code
    assert to_insn_vec(code)[0].name == ".8byte"


def test_any_buffer_and_programs():
    for prog in (bytearray(README_BYTES), memoryview(README_BYTES), Program.from_bytes(README_BYTES)):
        assert disassemble(prog) == disassemble(README_BYTES)
    assert disassemble(b"") == ""


def test_wrong_lengths_and_dialects():
    with pytest.raises(DecodeError, match="multiple of 8 bytes, this one has 9"):
        disassemble(bytes(9))
    with pytest.raises(DecodeError, match="pc 0: lddw takes two slots"):
        to_insn_vec(bytes.fromhex("1801000000000000"))
    with pytest.raises(ValueError, match="dialect is 'rbpf' or 'linux', not 'intel'"):
        disassemble(README_BYTES, "intel")


def test_to_insn_vec_is_that_of_rbpf():
    code = bytes.fromhex("1800000088776655 0000000044332211 9500000000000000")
    described = to_insn_vec(code)
    assert described == [
        HLInsn(0x18, "lddw", "lddw r0, 0x1122334455667788", 0, 0, 0, 0x1122334455667788),
        HLInsn(0x95, "exit", "exit", 0, 0, 0, 0),
    ]
    assert [insn.pc for insn in described] == [0, 2]


def test_insn_vec_is_signed_and_names_as_rbpf_does():
    described = to_insn_vec(assemble("lddw r1, -2\nmov r1, -3\nstb [r1-4], 5\nbe16 r0\ncallx 4\nneg32 r3"))
    assert [(insn.name, insn.off, insn.imm) for insn in described] == [
        ("lddw", 0, -2),
        ("mov64", 0, -3),
        ("stb", -4, 5),
        ("be", 0, 16),
        ("callx", 0, 4),
        ("neg32", 0, 0),
    ]
