"""Bytecode to assembly text. From rbpf's README."""

from ebpfjit.disassembler import disassemble

PROGRAM = bytes.fromhex(
    "07 01 00 00 05 06 00 00"
    "b7 02 00 00 32 00 00 00"
    "bf 01 00 00 00 00 00 00"
    "dc 00 00 00 10 00 00 00"
    "87 02 00 00 00 00 00 00"
    "95 00 00 00 00 00 00 00"
)


def main() -> None:
    """Print the program in two dialects."""
    print(disassemble(PROGRAM))
    print()
    print(disassemble(PROGRAM, dialect="linux"))


if __name__ == "__main__":
    main()
