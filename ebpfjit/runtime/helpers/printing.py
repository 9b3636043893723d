"""Helpers that write text: bpf_trace_printk, bpf_trace_vprintk, bpf_snprintf."""

from __future__ import annotations

import errno
import struct

from ebpfjit.bits import W32
from ebpfjit.errors import MemoryFault
from ebpfjit.runtime import memory
from ebpfjit.runtime.helpers.printf import BadFormat, render
from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.world import World

MAX_ARGUMENTS = 12
"""How many arguments a format takes at most (MAX_BPRINTF_VARARGS)."""

MAX_LINE = 1024
"""Bytes of a traced line, its zero byte counted (MAX_BPRINTF_BUF)."""

MAX_FORMAT = 1 << 16
_POINTER = 8


def _format(address: int, size: int) -> bytes | None:
    """Return the format at `address` up to its zero byte, None where `size` bytes hold none."""
    text, zero, _ = memory.read(address, size).partition(b"\0")
    return text if zero else None


def _arguments(address: int, size: int) -> tuple[int, ...] | None:
    """Return the u64 at `address`, None where Linux refuses their size."""
    if size % _POINTER or size > MAX_ARGUMENTS * _POINTER or (size and not address):
        return None
    return struct.unpack(f"<{size // _POINTER}Q", memory.read(address, size))


def _trace(world: World, text: bytes | None, arguments: tuple[int, ...] | None) -> int:
    """Add a line to the output; return its bytes, or a negative error number."""
    if text is None or arguments is None:
        return -errno.EINVAL
    try:
        line, size = render(text, arguments, MAX_LINE, world.foreign)
    except BadFormat as bad:
        return -bad.number
    shown = line[: MAX_LINE - 1].removesuffix(b"\n")
    if world.leaves(len(shown)):
        world.output.append(shown.decode("utf-8", "replace"))
    return size


@helper("bpf_trace_printk", gpl=True)
def trace_printk(world: World, text: int, size: int, first: int, second: int, third: int) -> int:
    """Add a line to the run's output; return its bytes, or a negative error number."""
    return _trace(world, _format(text, W32.wrap(size)), (first, second, third))


@helper("bpf_trace_vprintk", gpl=True)
def trace_vprintk(world: World, text: int, size: int, data: int, data_size: int) -> int:
    """As bpf_trace_printk, its arguments in an array of u64."""
    arguments = _arguments(data, W32.wrap(data_size))
    return _trace(world, _format(text, W32.wrap(size)), arguments)


@helper(
    "bpf_snprintf",
    gpl=True,
    differs="%ps is a number, %p is not hashed; IP addresses past the buffer's end are counted",
)
def snprintf(world: World, buffer: int, size: int, text: int, data: int, data_size: int) -> int:
    """Format into a buffer; return the bytes that were needed, the zero byte counted."""
    size, data_size = W32.wrap(size), W32.wrap(data_size)
    memory.check(buffer, size, "store")
    arguments = _arguments(data, data_size)
    if arguments is None:
        return -errno.EINVAL
    format_text = memory.string(text, MAX_FORMAT)
    if format_text is None:
        raise MemoryFault(
            f"load of the format string at {text:#x}: it leaves the program's memory",
            address=text, size=1, access="load",
        )  # fmt: skip
    try:
        line, needed = render(format_text, arguments, size, world.foreign)
    except BadFormat as bad:
        return -bad.number
    if size:
        memory.write(buffer, line[: size - 1] + b"\0")
    return needed + 1
