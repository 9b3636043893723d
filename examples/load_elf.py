"""A clang object on a real packet, in both engines, and the machine code it became.

block_port.c drops TCP packets from or to port 0x9999. The packet is that of rbpf's README.
"""

from pathlib import Path

from ebpfjit import EbpfVmFixedMbuff, JitUnavailable, helpers, load

OBJECT = Path(__file__).with_name("block_port.o")
DATA_OFFSET, DATA_END_OFFSET = 0x40, 0x50

PACKET = bytes.fromhex(
    "01 23 45 67 89 ab fe dc ba 98 76 54 08 00"  # Ethernet
    "45 00 00 3b a6 ab 40 00 40 06 96 0f 7f 00 00 01 7f 00 00 01"  # IPv4
    "99 99 c6 cc d1 e5 c4 9d d4 30 b5 d2 80 18 01 56 fe 2f 00 00"  # TCP
    "01 01 08 0a 00 23 75 89 00 23 63 2d 71 64 66 73 64 66 0a"
)
SOURCE_PORT = 34
VERDICTS = {0: "accept", 0xFFFFFFFF: "drop"}


def main() -> None:
    """Print what both engines say about two packets, then the listing."""
    program = load(OBJECT).programs["block_port"]
    vm = EbpfVmFixedMbuff(program, DATA_OFFSET, DATA_END_OFFSET)
    vm.register_helper(helpers.BPF_TRACE_PRINTK_IDX, helpers.bpf_trace_printf)
    engines = {"interpreter": vm.execute_program}
    try:
        vm.jit_compile()
        engines["machine code"] = vm.execute_program_jit
    except JitUnavailable as unavailable:
        print(f"no machine code here: {unavailable}")

    for port in (0x9999, 0x9876):
        packet = bytearray(PACKET)
        packet[SOURCE_PORT : SOURCE_PORT + 2] = port.to_bytes(2, "big")
        for engine, execute in engines.items():
            verdict = execute(packet)
            print(f"source port {port:#x}, {engine}: {verdict:#x} ({VERDICTS[verdict]})")
    if "machine code" in engines:
        print()
        print(vm.listing())


if __name__ == "__main__":
    main()
