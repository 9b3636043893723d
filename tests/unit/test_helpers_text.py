"""Helpers that write and read text: bpf_snprintf, bpf_trace_printk, bpf_strtol, bpf_strncmp."""

from __future__ import annotations

import errno
import struct

import pytest

from ebpfjit.errors import MemoryFault
from ebpfjit.kernel import KernelVerifierError
from tests.support.helper_runs import Outcome, as_linux, constant, in_kernel, needs_kernel, run
from tests.support.rows import over

BUFFER = 128
U64 = (1 << 64) - 1

SNPRINTF = """
    mov r4, r1
    add r4, 128
    {no_data}
    lddw r3, {{text_value}}
    mov r2, {size}
    mov r5, {bytes}
    call 165
    exit
"""


def snprintf(text: bytes, arguments: tuple[int, ...], size: int = BUFFER) -> tuple[str, bytes, dict]:  # type: ignore[type-arg]
    """Return program, memory and maps of one call: buffer, then arguments, in r1's memory."""
    no_data = "" if arguments else "mov r4, 0"
    program = SNPRINTF.format(no_data=no_data, size=size, bytes=8 * len(arguments))
    data = bytes([0xEE]) * BUFFER + b"".join(struct.pack("<Q", value & U64) for value in arguments)
    return program, data, {"text": constant(text + b"\0")}


def written(outcome: Outcome) -> bytes:
    return outcome.data[:BUFFER].split(b"\0")[0]


FORMATS: list[tuple[bytes, tuple[int, ...], bytes]] = [
    (b"hello", (), b"hello"),
    (b"%d %u", (-5, 5), b"-5 5"),
    (b"%x %X %lx %llX", (0xDEADBEEFCAFE, 0xAB, 0xDEADBEEF, U64), b"beefcafe AB deadbeef " + b"F" * 16),
    (b"%5d|%-5d|%05d|%+d|% d|", (1, 2, -3, 4, 5), b"    1|2    |-0003|+4| 5|"),
    (b"%-05d|%+5u|%+x|", (1, 2, 3), b"1    |    2|3|"),
    (b"%+05d|% 05d|%+ d", (3, 4, 5), b"+0003| 0004|+5"),
    (b"%c%c|%5c|%-5c|%05c", (65, 0x142, 66, 67, 68), b"AB|    B|C    |    D"),
    (b"%%d %i %cx", (-1, 65), b"%d -1 Ax"),
    (b"%ld %lld %lu", (-1, -2, -3), b"-1 -2 18446744073709551613"),
    (b"%s|%10s|%05s,", (0, 1, 1), b"|          |     ,"),
    (b"%px|%ps|%pS|%pB", (0x1234,) * 4, b"0000000000001234|0x1234|0x1234|0x1234"),
    (b"%20px|%-20px|%020px", (1, 2, 3), b"%20d|%-20d|%020d" % (1, 2, 3)),
    (b"%5px|%d", (0x123456789, 2), b"123456789|2"),
    (b"%pxabc|%psz|%d", (1, 2, 3), b"0000000000000001|0x2|3"),
    (b"%pI4|%pi4|%20pI4", (1,) * 4, b"0.0.0.0|000.000.000.000|0.0.0.0"),
    (b"%pI6c|", (1,) * 4, b":".join([b"0000"] * 8) + b"|"),
    (b"%pi6", (1,), b"0" * 32),
    (b"%pks|%pus|", (1, 1), b"||"),
    (b"%30ps|%-30ps|", (0x1234, 0x1234), b"%30s|%-30s|" % (b"0x1234", b"0x1234")),
    (b"a\tb\n\v\f\r", (), b"a\tb\n\v\f\r"),
    (b"\xc3\xa4 \x80\xff", (), b"\xc3\xa4 \x80\xff"),
    (b"%px\xe4\xd7%s\xa9%s\xf7%s\xa0", (1, 1, 1, 1), b"0000000000000001\xd7\xa9\xf7\xa0"),
    (b"%d" * 12, tuple(range(12)), b"01234567891011"),
    (b"one is left over: %d", (1, 2), b"one is left over: 1"),
]  # fmt: skip


@over(("text", "arguments", "expected"), FORMATS)
def test_snprintf(text: bytes, arguments: tuple[int, ...], expected: bytes) -> None:
    outcome = run(*snprintf(text, arguments))
    assert outcome.signed == len(expected) + 1
    assert written(outcome) == expected[: BUFFER - 1]


@needs_kernel
@over(("text", "arguments", "expected"), FORMATS)
def test_snprintf_as_linux(text: bytes, arguments: tuple[int, ...], expected: bytes) -> None:
    assert written(as_linux(*snprintf(text, arguments))) == expected[: BUFFER - 1]


@needs_kernel
@pytest.mark.parametrize("size", [0, 1, 2, 5, 6, 7])
def test_snprintf_cuts_as_linux(size: int) -> None:
    assert as_linux(*snprintf(b"hello", (), size)).signed == 6


@needs_kernel
def test_a_wide_field_as_linux() -> None:
    assert as_linux(*snprintf(b"%5000d|", (3,))).signed == 5002


REFUSED = [
    (b"%d", ()), (b"%q", (1,)), (b"%", (1,)), (b"%l", (1,)), (b"%#x", (1,)), (b"%.3d", (1,)), (b"%hd", (1,)),
    (b"\x01", ()), (b"\x7f", ()), (b"%s\xe4", (1,)), (b"%s\x80", (1,)),
    (b"%sx", (1,)), (b"%pz", (1,)), (b"%p1", (1,)), (b"%llld", (1,)),
    (b"%zu", (1,)), (b"%*d", (1, 2)), (b"%e", (1,)), (b"%pIabc", (1,)), (b"%pkz", (1,)), (b"%pksz", (1,)),
]  # fmt: skip


@over(("text", "arguments"), REFUSED)
def test_bad_formats_are_refused(text: bytes, arguments: tuple[int, ...]) -> None:
    outcome = run(*snprintf(text, arguments))
    assert outcome.signed == -errno.EINVAL
    assert outcome.data[0] == 0xEE


@needs_kernel
@over(("text", "arguments"), REFUSED)
def test_linux_refuses_the_same_formats(text: bytes, arguments: tuple[int, ...]) -> None:
    with pytest.raises(KernelVerifierError, match="Invalid format string"):
        in_kernel(*snprintf(text, arguments))


def test_the_widest_field_is_bounded() -> None:
    """A program cannot make us fill memory: Linux stops at FIELD_WIDTH_MAX as well."""
    assert run(*snprintf(b"%99999999999d", (1,))).signed == (1 << 23)


POINTED = """
    mov r3, r1
    add r3, 160
    stxdw [r10-16], r3
    add r3, 8
    stxdw [r10-8], r3
    lddw r3, {text_value}
    mov r2, 128
    mov r4, r10
    add r4, -16
    mov r5, 16
    call 165
    exit
"""


@needs_kernel
@pytest.mark.parametrize("text", [b"%s|%s", b"%-8pks|%8s,", b"%pI4 %pI6", b"%pi4 %pi6", b"%pI6 %s"])
def test_pointers_are_followed_as_linux(text: bytes) -> None:
    data = bytes(160) + b"abcdef\0\0" + bytes([10, 0, 0, 1, 32, 1, 13, 184, 255]).ljust(16, b"\0") + bytes(8)
    as_linux(POINTED, data, {"text": constant(text + b"\0")})


@needs_kernel
@pytest.mark.parametrize("strings", [1, 2, 3])
def test_strings_share_a_buffer_as_linux(strings: int) -> None:
    """All strings of a call have 512 bytes; a format that needs more is -ENOSPC."""
    text = b"%s" * strings + b"\0"
    program = f"""
        mov r6, r1
        mov r7, r10
        add r7, -32
        mov r3, r1
        stxdw [r10-32], r3
        stxdw [r10-24], r3
        stxdw [r10-16], r3
        lddw r3, {{text_value}}
        add r1, 600
        mov r2, 100
        mov r4, r7
        mov r5, {8 * strings}
        call 165
        exit
    """
    as_linux(program, b"x" * 599 + b"\0" + bytes(100), {"text": constant(text)})


PRINTK = """
    mov r6, r1
    mov r3, 7
    lddw r4, 0xfffffffffffffffe
    mov r5, r1
    mov r2, {size}
    call 6
    exit
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"n=%d %lld\n\0", "n=7 -2"),
        (b"n=%d %lld\0", "n=7 -2"),
        (b"two\n\n\0", "two\n"),
        (b"%u %x %s\0", "7 fffffffe %u %x %s"),
    ],
)
def test_trace_printk_adds_a_line(text: bytes, line: str) -> None:
    outcome = run(PRINTK.format(size=len(text)), text)
    assert outcome.output == [line]
    assert outcome.signed == len(line) + text.endswith(b"\n\0")


@needs_kernel
@pytest.mark.parametrize(
    "text", [b"n=%d %lld\n\0", b"%u %x %s\0", b"no end", b"%d%d%d%d\0", b"\0", b"%5d", b"%d\0 x"]
)
def test_trace_printk_returns_what_linux_does(text: bytes) -> None:
    as_linux(PRINTK.format(size=len(text)), text)


@pytest.mark.parametrize("text", [b"no end", b"%d%d%d%d\0", b"%f\0"])
def test_trace_printk_refuses(text: bytes) -> None:
    outcome = run(PRINTK.format(size=len(text)), text)
    assert (outcome.signed, outcome.output) == (-errno.EINVAL, [])


def test_a_format_outside_of_memory_is_a_fault() -> None:
    error = run(PRINTK.format(size=100), b"%d\0").error
    assert isinstance(error, MemoryFault)
    assert error.pc == 6


VPRINTK = """
    mov r6, r1
    stdw [r10-8], 3
    stdw [r10-16], 2
    mov r3, r10
    add r3, -16
    mov r2, {size}
    mov r4, {data}
    call 177
    exit
"""


def test_trace_vprintk() -> None:
    text = b"%d and %d\0"
    assert run(VPRINTK.format(size=len(text), data=16), text).output == ["2 and 3"]


@needs_kernel
@pytest.mark.parametrize("size", [0, 4, 8, 16])
def test_trace_vprintk_as_linux(size: int) -> None:
    text = b"%d and %d\0"
    as_linux(VPRINTK.format(size=len(text), data=size), text)


STRTO = """
    mov r6, r1
    mov r4, r1
    add r4, 80
    mov r2, {size}
    mov r3, {flags}
    call {helper}
    exit
"""

NUMBERS = [
    b"123", b"-123", b"  42 ", b"\t\n\v\f\r 7", b"\xa07", b"0x1F", b"0X1f", b"0x", b"0xg", b"017", b"08",
    b"0", b"", b"-", b"--1", b"+1", b"abc", b"9223372036854775807", b"9223372036854775808",
    b"-9223372036854775808",
    b"-9223372036854775809", b"18446744073709551615", b"18446744073709551616", b"-1", b"12\x003",
    b"   ", b"-0x10",
    b"1" * 70, b"0" * 70, b"00012", b"12ab", b"- 5", b"0 x1",
]  # fmt: skip


@needs_kernel
@over("helper", [105, 106])
@over("text", NUMBERS)
def test_numbers_are_read_as_linux(text: bytes, helper: int) -> None:
    data = text.ljust(80, b" ") + b"\xee" * 8
    for flags in (0, 8, 10, 16, 7, 32):
        for size in {max(len(text), 1), 72}:
            as_linux(STRTO.format(size=size, flags=flags, helper=helper), data)


@pytest.mark.parametrize(
    ("text", "flags", "result", "value"),
    [
        (b"-42 ", 0, 3, -42),
        (b"0x10", 0, 4, 16),
        (b"10", 16, 2, 16),
        (b"10", 3, -errno.EINVAL, 0),
        (b"x", 0, -errno.EINVAL, 0),
        (b"9223372036854775808", 0, -errno.ERANGE, 0),
    ],
)
def test_strtol(text: bytes, flags: int, result: int, value: int) -> None:
    outcome = run(STRTO.format(size=len(text), flags=flags, helper=105), text.ljust(80, b"\0") + b"\xee" * 8)
    assert outcome.signed == result
    assert int.from_bytes(outcome.data[80:], "little", signed=True) == value


STRNCMP = """
    mov r6, r1
    lddw r3, {text_value}
    mov r2, SIZE
    call 182
    exit
"""

PAIRS = [
    (b"abc", b"abc"),
    (b"abc", b"abd"),
    (b"abd", b"abc"),
    (b"ab", b"abc"),
    (b"abc", b"ab"),
    (b"", b""),
    (b"\xff", b"a"),
]


@needs_kernel
@over(("first", "second"), PAIRS)
@over("size", [1, 2, 3, 4])
def test_strncmp_as_linux(first: bytes, second: bytes, size: int) -> None:
    text = STRNCMP.replace("SIZE", str(size))
    as_linux(text, first.ljust(8, b"\0"), {"text": constant(second + b"\0")})


def test_strncmp() -> None:
    text = STRNCMP.replace("SIZE", "4")
    results = [run(text, a.ljust(4, b"\0"), {"text": constant(b + b"\0")}).signed for a, b in PAIRS]
    assert results == [0, -1, 1, -1, 1, 0, 1]
