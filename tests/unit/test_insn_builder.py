"""The builder: rbpf's names, rbpf's bytes."""

import pytest

from ebpfjit.assembler import assemble
from ebpfjit.errors import AssemblyError
from ebpfjit.insn_builder import Arch, BpfCode, Cond, Endian, MemSize, Source
from tests.support.rows import over


def test_readme_snippet_of_rbpf():
    program = BpfCode()
    (
        program.add(Source.Imm, Arch.X64).set_dst(1).set_imm(0x605).push()
        .mov(Source.Imm, Arch.X64).set_dst(2).set_imm(0x32).push()
        .mov(Source.Reg, Arch.X64).set_src(0).set_dst(1).push()
        .swap_bytes(Endian.Big).set_dst(0).set_imm(0x10).push()
        .negate(Arch.X64).set_dst(2).push()
        .exit().push()
    )  # fmt: skip
    expected = assemble("add64 r1, 0x605\nmov64 r2, 0x32\nmov64 r1, r0\nbe16 r0\nneg64 r2\nexit")
    assert program.into_bytes() == expected
    assert bytes(program) == expected


ARITHMETIC = {
    "add": "add", "sub": "sub", "mul": "mul", "div": "div", "bit_or": "or", "bit_and": "and",
    "left_shift": "lsh", "right_shift": "rsh", "signed_right_shift": "arsh", "modulo": "mod",
    "bit_xor": "xor", "mov": "mov",
}  # fmt: skip
WIDTHS = [(Arch.X64, "64"), (Arch.X32, "32")]


@over(("arch", "bits"), WIDTHS)
@over(("method", "word"), ARITHMETIC.items())
def test_arithmetic(method, word, arch, bits):
    begin = getattr(BpfCode(), method)
    code = begin(Source.Imm, arch).set_dst(3).set_imm(-7).push()
    getattr(code, method)(Source.Reg, arch).set_dst(3).set_src(4).push()
    assert code.into_bytes() == assemble(f"{word}{bits} r3, -7\n{word}{bits} r3, r4")


@over(("arch", "bits"), WIDTHS)
def test_negate(arch, bits):
    assert BpfCode().negate(arch).set_dst(2).push().into_bytes() == assemble(f"neg{bits} r2")


@pytest.mark.parametrize(("endian", "word"), [(Endian.Little, "le"), (Endian.Big, "be")])
@pytest.mark.parametrize("bits", [16, 32, 64])
def test_swap_bytes(endian, word, bits):
    code = BpfCode().swap_bytes(endian).set_dst(3).set_imm(bits).push()
    assert code.into_bytes() == assemble(f"{word}{bits} r3")


SIZES = [(MemSize.Byte, "b"), (MemSize.HalfWord, "h"), (MemSize.Word, "w"), (MemSize.DoubleWord, "dw")]


@pytest.mark.parametrize(("size", "suffix"), SIZES)
def test_memory(size, suffix):
    code = BpfCode()
    code.load_abs(size).set_imm(5).push()
    code.load_ind(size).set_src(2).set_imm(5).push()
    code.load_x(size).set_dst(1).set_src(2).set_off(-2).push()
    code.store(size).set_dst(1).set_off(0x11).set_imm(0x11223344).push()
    code.store_x(size).set_dst(1).set_src(2).set_off(3).push()
    assert code.into_bytes() == assemble(
        f"ldabs{suffix} 5\nldind{suffix} r2, 5\nldx{suffix} r1, [r2-2]\n"
        f"st{suffix} [r1+0x11], 0x11223344\nstx{suffix} [r1+3], r2"
    )


def test_a_wide_load_is_two_pushes():
    code = BpfCode().load(MemSize.DoubleWord).set_dst(1).set_imm(0x55667788).push()
    code.load(MemSize.Word).set_imm(0x11223344).push()
    assert code.into_bytes() == assemble("lddw r1, 0x1122334455667788")


CONDITIONS = {
    Cond.Equals: "jeq", Cond.Greater: "jgt", Cond.GreaterEquals: "jge", Cond.Lower: "jlt",
    Cond.LowerEquals: "jle", Cond.BitAnd: "jset", Cond.NotEquals: "jne", Cond.GreaterSigned: "jsgt",
    Cond.GreaterEqualsSigned: "jsge", Cond.LowerSigned: "jslt", Cond.LowerEqualsSigned: "jsle",
}  # fmt: skip


@pytest.mark.parametrize(("cond", "word"), CONDITIONS.items())
def test_conditional_jumps(cond, word):
    code = BpfCode().jump_conditional(cond, Source.Imm).set_dst(1).set_imm(9).set_off(-3).push()
    code.jump_conditional(cond, Source.Reg).set_dst(1).set_src(2).set_off(4).push()
    assert code.into_bytes() == assemble(f"{word} r1, 9, -3\n{word} r1, r2, +4")


def test_every_condition_is_tested():
    assert set(CONDITIONS) | {Cond.Abs} == set(Cond)


def test_unconditional_jumps_calls_and_exit():
    code = BpfCode().jump_unconditional().set_off(0x11).push()
    code.jump_conditional(Cond.Abs, Source.Imm).set_off(-1).push()
    code.call().set_imm(0x11223344).push()
    code.call().set_src(1).set_imm(-2).push()
    code.exit().push()
    assert code.into_bytes() == assemble("ja +0x11\nja -1\ncall 0x11223344\ncall local -2\nexit")


def test_getters_and_the_bytes_of_one_instruction():
    insn = BpfCode().store(MemSize.Word).set_dst(1).set_src(2).set_off(-3).set_imm(0xFFFFFFFE)
    assert (insn.get_dst(), insn.get_src(), insn.get_off(), insn.get_imm()) == (1, 2, -3, -2)
    assert insn.opt_code_byte() == insn.into_bytes()[0]
    assert bytes(insn) == insn.into_bytes() == bytes.fromhex("6221fdfffeffffff")


@pytest.mark.parametrize(
    ("setter", "value", "reason"),
    [
        ("set_dst", 11, "dst is 0..10, not 11"),
        ("set_dst", -1, "dst is 0..10, not -1"),
        ("set_src", 16, "src is 0..10, not 16"),
        ("set_off", 32768, "off is -32768..32767, not 32768"),
        ("set_off", -32769, "off is -32768..32767"),
        ("set_imm", 2**32, "imm is -2147483648..4294967295, not 4294967296"),
        ("set_imm", -(2**31) - 1, "imm is"),
    ],
)
def test_values_that_do_not_fit(setter, value, reason):
    insn = BpfCode().exit().push().exit().push().mov(Source.Imm, Arch.X64)
    with pytest.raises(AssemblyError) as caught:
        getattr(insn, setter)(value)
    assert reason in caught.value.reason
    assert (caught.value.line, caught.value.column) == (3, 1)


def test_what_has_no_instruction():
    with pytest.raises(AssemblyError, match="compares nothing"):
        BpfCode().jump_conditional(Cond.Abs, Source.Reg)
    with pytest.raises(TypeError, match="dst is an int, not str"):
        BpfCode().exit().set_dst("1")
