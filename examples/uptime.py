"""A helper: the time since boot, asked for by a program, as machine code where there is any."""

from ebpfjit import EbpfVmNoData, JitUnavailable, helpers
from ebpfjit.assembler import assemble

PROGRAM = assemble(f"""
    mov64 r1, 0
    mov64 r2, 0
    mov64 r3, 0
    mov64 r4, 0
    mov64 r5, 0
    call {helpers.BPF_KTIME_GETNS_IDX}
    exit
""")


def main() -> None:
    """Run the program and print its r0 as days, hours, minutes and seconds."""
    vm = EbpfVmNoData(PROGRAM)
    vm.register_helper(helpers.BPF_KTIME_GETNS_IDX, helpers.bpf_time_getns)
    try:
        vm.jit_compile()
        nanoseconds = vm.execute_program_jit()
    except JitUnavailable:
        nanoseconds = vm.execute_program()
    seconds, rest = divmod(nanoseconds, 10**9)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    print(f"up {days} days {hours:02}:{minutes:02}:{seconds:02}, {rest} ns")


if __name__ == "__main__":
    main()
