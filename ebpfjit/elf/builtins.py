"""The four functions that clang calls though nobody defines them: memcpy, memmove, memset, memcmp.

clang leaves a call where the size is not known, or with -O0. Each is a subprogram that the linker
adds. `SOURCE` is what `CODE` was assembled from; a test assembles it anew.
"""

from __future__ import annotations

from functools import cache

from ebpfjit.elf.reader import Section, Symbol

SOURCE = {
    # r1 destination, r2 source, r3 size
    "memcpy": """
        mov r0, r1
        jlt r3, 8, bytes
    words:
        ldxdw r4, [r2]
        stxdw [r1], r4
        add r1, 8
        add r2, 8
        add r3, -8
        jge r3, 8, words
    bytes:
        jeq r3, 0, done
        ldxb r4, [r2]
        stxb [r1], r4
        add r1, 1
        add r2, 1
        add r3, -1
        ja bytes
    done:
        exit
    """,
    # From the end, where the destination lies inside of the source.
    "memmove": """
        mov r0, r1
        mov r5, r1
        sub r5, r2
        jlt r5, r3, backward
    forward:
        jeq r3, 0, done
        ldxb r4, [r2]
        stxb [r1], r4
        add r1, 1
        add r2, 1
        add r3, -1
        ja forward
    backward:
        add r1, r3
        add r2, r3
    next:
        jeq r3, 0, done
        add r1, -1
        add r2, -1
        ldxb r4, [r2]
        stxb [r1], r4
        add r3, -1
        ja next
    done:
        exit
    """,
    # r1 destination, r2 value, r3 size
    "memset": """
        mov r0, r1
        jeq r3, 0, done
    next:
        stxb [r1], r2
        add r1, 1
        add r3, -1
        jne r3, 0, next
    done:
        exit
    """,
    # r1, r2 what is compared, r3 size; r0 is an int: the difference of the first bytes that differ
    "memcmp": """
        mov r0, 0
    next:
        jeq r3, 0, done
        ldxb r4, [r1]
        ldxb r5, [r2]
        add r1, 1
        add r2, 1
        add r3, -1
        jeq r4, r5, next
        sub r4, r5
        mov r0, r4
    done:
        exit
    """,
}

CODE = {
    "memcpy": bytes.fromhex(
        "bf10000000000000a50306000800000079240000000000007b41000000000000"
        "0701000008000000070200000800000007030000f8ffffff3503faff08000000"
        "1503060000000000712400000000000073410000000000000701000001000000"
        "070200000100000007030000ffffffff0500f9ff000000009500000000000000"
    ),
    "memmove": bytes.fromhex(
        "bf10000000000000bf150000000000001f25000000000000ad35070000000000"
        "15030f0000000000712400000000000073410000000000000701000001000000"
        "070200000100000007030000ffffffff0500f9ff000000000f31000000000000"
        "0f32000000000000150306000000000007010000ffffffff07020000ffffffff"
        "7124000000000000734100000000000007030000ffffffff0500f9ff00000000"
        "9500000000000000"
    ),
    "memset": bytes.fromhex(
        "bf10000000000000150304000000000073210000000000000701000001000000"
        "07030000ffffffff5503fcff000000009500000000000000"
    ),
    "memcmp": bytes.fromhex(
        "b700000000000000150308000000000071140000000000007125000000000000"
        "0701000001000000070200000100000007030000ffffffff1d54f9ff00000000"
        "1f54000000000000bf400000000000009500000000000000"
    ),
}

SECTION_INDEX = -1
"""No section of a file has it."""


@cache
def section() -> Section:
    """Return a section that holds all four, one behind the other."""
    data = b"".join(CODE.values())
    return Section(
        SECTION_INDEX, "<built in>", "SHT_PROGBITS", 0x6, 0, len(data), memoryview(data), 0, 0, 0
    )  # fmt: skip


@cache
def symbols() -> dict[str, Symbol]:
    """Return a symbol for each of the functions."""
    found: dict[str, Symbol] = {}
    start = 0
    for name, code in CODE.items():
        found[name] = Symbol(name, "STT_FUNC", "STB_GLOBAL", section(), start, len(code))
        start += len(code)
    return found
