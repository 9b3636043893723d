"""A program from chained calls instead of text. From rbpf's README."""

from ebpfjit.disassembler import disassemble
from ebpfjit.insn_builder import Arch, BpfCode, Endian, Source


def main() -> None:
    """Build the program of assembler.py and print it as text."""
    program = BpfCode()
    (
        program.add(Source.Imm, Arch.X64).set_dst(1).set_imm(0x605).push()
        .mov(Source.Imm, Arch.X64).set_dst(2).set_imm(0x32).push()
        .mov(Source.Reg, Arch.X64).set_src(0).set_dst(1).push()
        .swap_bytes(Endian.Big).set_dst(0).set_imm(0x10).push()
        .negate(Arch.X64).set_dst(2).push()
        .exit().push()
    )  # fmt: skip
    print(disassemble(program.into_bytes()))


if __name__ == "__main__":
    main()
