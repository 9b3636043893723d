"""Memory of ours that a program may read: a helper hands out the address of a table's value."""

from ebpfjit import EbpfVmNoData, MemoryFault, address_of
from ebpfjit.assembler import assemble

LOOKUP = 1
PROGRAM = assemble(f"""
    mov64 r1, 7
    call {LOOKUP}
    jeq r0, 0, +1
    ldxw r0, [r0]
    exit
""")


def main() -> None:
    """Run the program without and with the right to read the value."""
    value = bytearray((1234).to_bytes(4, "little"))

    def lookup(key: int, _r2: int, _r3: int, _r4: int, _r5: int) -> int:
        return address_of(value) if key == 7 else 0

    vm = EbpfVmNoData(PROGRAM)
    vm.register_helper(LOOKUP, lookup)
    try:
        vm.execute_program()
    except MemoryFault as fault:
        print(f"not allowed: pc {fault.pc}, a {fault.access} of {fault.size} bytes")
    vm.register_allowed_memory(value)
    print(f"allowed: {vm.execute_program()}")


if __name__ == "__main__":
    main()
