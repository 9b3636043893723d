"""A metadata buffer that holds the packet's address. From rbpf's README, test_jit_mbuff."""

import struct

from ebpfjit import EbpfVmMbuff, address_of

PROGRAM = bytes.fromhex(
    "79 11 08 00 00 00 00 00"  # ldxdw r1, [r1+8]
    "69 10 02 00 00 00 00 00"  # ldxh r0, [r1+2]
    "95 00 00 00 00 00 00 00"  # exit
)


def main() -> None:
    """Store the packet's start at 8 and its end at 24, run the program and print r0."""
    packet = bytearray.fromhex("aa bb 11 22 cc dd")
    metadata = bytearray(32)
    struct.pack_into("<Q", metadata, 8, address_of(packet))
    struct.pack_into("<Q", metadata, 24, address_of(packet) + len(packet))
    vm = EbpfVmMbuff(PROGRAM)
    vm.jit_compile()
    print(hex(vm.execute_program_jit(packet, metadata)))


if __name__ == "__main__":
    main()
