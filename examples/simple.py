"""The smallest program: no data, one number back. From rbpf's README, test_vm_add."""

from ebpfjit import EbpfVmNoData

PROGRAM = bytes.fromhex(
    "b4 00 00 00 00 00 00 00"  # mov32 r0, 0
    "b4 01 00 00 02 00 00 00"  # mov32 r1, 2
    "04 00 00 00 01 00 00 00"  # add32 r0, 1
    "0c 10 00 00 00 00 00 00"  # add32 r0, r1
    "95 00 00 00 00 00 00 00"  # exit
)


def main() -> None:
    """Interpret the program and print r0."""
    vm = EbpfVmNoData(PROGRAM)
    print(hex(vm.execute_program()))


if __name__ == "__main__":
    main()
