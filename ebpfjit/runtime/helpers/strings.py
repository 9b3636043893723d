"""Helpers that read text: numbers, comparison (kernel/bpf/helpers.c, lib/kstrtox.c)."""

from __future__ import annotations

import errno

from ebpfjit.bits import W32, W64
from ebpfjit.runtime import memory
from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.world import World

_BASES = (0, 8, 10, 16)
_LONGEST_NUMBER = 63
_SPACE = b"\t\n\v\f\r \xa0"
_DIGITS = {ord(digit): int(digit, 16) for digit in "0123456789abcdefABCDEF"}


class _Refused(Exception):  # noqa: N818 - carries a helper's result
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _radix(text: bytes, base: int) -> tuple[bytes, int]:
    """Return the text without the prefix of its base, and the base; 0 asks the text."""
    prefixed = text[:2].lower() == b"0x"
    if base == 0:
        base = 10 if text[:1] != b"0" else 16 if prefixed and text[2:3] and text[2] in _DIGITS else 8
    return (text[2:] if base == 16 and prefixed else text), base


def _parse(address: int, size: int, flags: int) -> tuple[int, bool, int]:
    """Return (magnitude, whether it is negative, bytes read) of the number at `address`."""
    data = memory.read(address, size)
    base = flags & 0x1F
    if not size or base not in _BASES or flags & ~0x1F:
        raise _Refused(errno.EINVAL)
    text = data.lstrip(_SPACE)
    negative = text.startswith(b"-")
    text = text[negative:]
    skipped = size - len(text)
    number = text[:_LONGEST_NUMBER].partition(b"\0")[0]
    digits, base = _radix(number, base)
    value = count = 0
    for byte in digits:
        if (digit := _DIGITS.get(byte, base)) >= base:
            break
        value, count = value * base + digit, count + 1
    if value > W64.mask:
        raise _Refused(errno.ERANGE)
    if not count:
        raise _Refused(errno.EINVAL)
    return value, negative, skipped + len(number) - len(digits) + count


def _store_number(address: int, size: int, flags: int, result: int, *, signed: bool) -> int:
    memory.write(result, bytes(8))
    try:
        value, negative, count = _parse(address, size, flags)
    except _Refused as refused:
        return -refused.number
    if negative and not signed:
        return -errno.EINVAL
    if signed and value > W64.mask // 2 + negative:
        return -errno.ERANGE
    memory.write(result, W64.wrap(-value if negative else value).to_bytes(8, "little"))
    return count


@helper("bpf_strtol")
def strtol(world: World, buffer: int, size: int, flags: int, result: int) -> int:
    """Read a signed number; return how many bytes it took, or a negative error number."""
    return _store_number(buffer, size, flags, result, signed=True)


@helper("bpf_strtoul")
def strtoul(world: World, buffer: int, size: int, flags: int, result: int) -> int:
    """Read an unsigned number; return how many bytes it took, or a negative error number."""
    return _store_number(buffer, size, flags, result, signed=False)


@helper("bpf_strncmp")
def strncmp(world: World, first: int, size: int, second: int) -> int:
    """Compare at most `size` bytes of two strings: -1, 0 or 1."""
    data = memory.read(first, W32.wrap(size))
    other = memory.string(second, len(data))
    if other is None:
        other = memory.read(second, len(data))  # no zero byte: all of it must be there
    head = data.partition(b"\0")[0]
    return (head > other) - (head < other)
