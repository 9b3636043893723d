"""Machine code on packet data: r1 is the packet's address. From rbpf's README, test_jit_ldxh."""

from ebpfjit import EbpfVmRaw

PROGRAM = bytes.fromhex(
    "71 10 02 00 00 00 00 00"  # ldxb r0, [r1+2]
    "95 00 00 00 00 00 00 00"  # exit
)


def main() -> None:
    """Compile the program, run it on five bytes and print r0."""
    vm = EbpfVmRaw(PROGRAM)
    vm.jit_compile()
    print(hex(vm.execute_program_jit(bytearray.fromhex("aa bb 11 cc dd"))))


if __name__ == "__main__":
    main()
