"""Assembly text to bytecode. From rbpf's README."""

from ebpfjit.assembler import assemble

TEXT = """
    add64 r1, 0x605
    mov64 r2, 0x32
    mov64 r1, r0
    be16 r0
    neg64 r2
    exit
"""


def main() -> None:
    """Print the program's bytes, an instruction a line."""
    code = assemble(TEXT)
    for start in range(0, len(code), 8):
        print(code[start : start + 8].hex(" "))


if __name__ == "__main__":
    main()
