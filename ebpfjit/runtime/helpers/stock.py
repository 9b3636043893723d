"""The helpers that rbpf ships, by the same numbers and names.

Each takes five u64 and returns u64; what an argument is not named for is unused. Pointers are
followed inside the running program's memory only (MemoryFault), or, called from Python outside of
a run, wherever the caller says.
"""

from __future__ import annotations

import math
import time

from ebpfjit.bits import U64_MASK
from ebpfjit.runtime import memory

BPF_KTIME_GETNS_IDX = 5
"""Number of bpf_ktime_get_ns in Linux (include/uapi/linux/bpf.h); here `bpf_time_getns`."""

BPF_TRACE_PRINTK_IDX = 6
"""Number of bpf_trace_printk in Linux; here `bpf_trace_printf`."""

MEMFROB_KEY = 0x2A
"""What GNU memfrob(3) does to each byte."""

_FROBBED = bytes(byte ^ MEMFROB_KEY for byte in range(256))
_CHUNK = 4096
_FREE_STEPS = 64


def bpf_time_getns(unused1: int, unused2: int, unused3: int, unused4: int, unused5: int) -> int:
    """Return the monotonic clock in nanoseconds (u64)."""
    return time.monotonic_ns() & U64_MASK


def trace_line(unused1: int, unused2: int, arg3: int, arg4: int, arg5: int) -> str:
    """Return the line that `bpf_trace_printf` prints, without its newline."""
    return f"bpf_trace_printf: {arg3:#x}, {arg4:#x}, {arg5:#x}"


def bpf_trace_printf(unused1: int, unused2: int, arg3: int, arg4: int, arg5: int) -> int:
    """Print `arg3`, `arg4` and `arg5` to standard output and return the bytes of the line.

    The line, its newline counted, is `bpf_trace_printf: 0x1, 0xf, 0x20`. It also goes to the
    logger `ebpfjit.trace`, at level INFO, for those who collect it there.
    """
    line = trace_line(unused1, unused2, arg3, arg4, arg5)
    print(line)
    import logging  # few programs print

    logging.getLogger("ebpfjit.trace").info(line)
    return len(line) + 1


def gather_bytes(arg1: int, arg2: int, arg3: int, arg4: int, arg5: int) -> int:
    """Return arg1 << 32 | arg2 << 24 | arg3 << 16 | arg4 << 8 | arg5, modulo 2**64."""
    return (arg1 << 32 | arg2 << 24 | arg3 << 16 | arg4 << 8 | arg5) & U64_MASK


def memfrob(pointer: int, length: int, unused3: int, unused4: int, unused5: int) -> int:
    """Flip bits (xor 42) of `length` bytes at `pointer`; return 0.

    Raises MemoryFault where the bytes are not the program's to write.
    """
    memory.check(pointer, length, "store")
    for start in range(0, length, _CHUNK):
        size = min(_CHUNK, length - start)
        data = memory.read(pointer + start, size)
        memory.spend((start > 0) * (size // memory.WORK_SIZE))  # the first is free
        memory.write(pointer + start, data.translate(_FROBBED))
    return 0


def sqrti(arg1: int, unused2: int, unused3: int, unused4: int, unused5: int) -> int:
    """Return the square root of arg1, rounded down as a double gives it."""
    return int(math.sqrt(arg1))


def strcmp(arg1: int, arg2: int, unused3: int, unused4: int, unused5: int) -> int:
    """Compare the C strings at `arg1` and `arg2`: 0, or the distance of the first bytes that differ.

    A null pointer compares as 2**64 - 1. Raises MemoryFault where a string leaves the program's
    memory.
    """
    if arg1 == 0 or arg2 == 0:
        return U64_MASK
    index = 0
    while True:
        if index >= _FREE_STEPS:
            memory.spend(1)  # a byte takes as long as an instruction in the interpreter
        a = memory.read(arg1 + index, 1)[0]
        b = memory.read(arg2 + index, 1)[0]
        if a != b or a == 0:
            return abs(a - b)
        index += 1


def rand(minimum: int, maximum: int, unused3: int, unused4: int, unused5: int) -> int:
    """Return a random u64, from `minimum` to `maximum` inclusive where that is a range."""
    import random  # few programs ask for it, and it imports much

    value = random.getrandbits(64)
    return value % (maximum + 1 - minimum) + minimum if minimum < maximum else value
