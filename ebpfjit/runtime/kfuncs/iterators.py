"""Kernel functions: open-coded iterators over numbers, and over the bits of a mask.

bpf_iter_num    0  the last number (s32)    4  the end (s32)
bpf_iter_bits   0  the bits (u64)           8  how many (u32)    12  the last one (s32)

A program could write these bytes itself, or leave out the start: what it gets from that is numbers.
"""

from __future__ import annotations

import errno
import struct

from ebpfjit.bits import W32
from ebpfjit.errors import ExecutionError
from ebpfjit.runtime import memory
from ebpfjit.runtime.kfuncs.table import kfunc
from ebpfjit.runtime.world import World

MAX_LOOPS = 8 * 1024 * 1024
"""Numbers that one iterator goes through at most (BPF_MAX_LOOPS)."""

MAX_WORDS = 511
"""Words of a mask at most (BITS_ITER_NR_WORDS_MAX)."""

_NUMBERS = struct.Struct("<ii")
_BITS = struct.Struct("<QIi")
_LAST_BIT = 12
_MASKS = "masks"
MOST_MASKS = 64
"""Masks of more than a word that a run has at a time: their copies are not the program's memory."""


@kfunc("bpf_iter_num_new", under_lock=True)
def iter_num_new(world: World, place: int, start: int, end: int) -> int:
    """Begin with the numbers from `start` up to, but without, `end`; 0 or a negative error number."""
    start, end = W32.signed(start), W32.signed(end)
    result = -errno.EINVAL if start > end else -errno.E2BIG if end - start > MAX_LOOPS else 0
    memory.write(place, bytes(8) if result else _NUMBERS.pack(W32.signed(start - 1), end))
    return result


@kfunc("bpf_iter_num_next", under_lock=True)
def iter_num_next(world: World, place: int) -> int:
    """Return the address of the next number (s32), 0 behind the last."""
    last, end = _NUMBERS.unpack(memory.read(place, 8))
    following = W32.signed(last + 1)
    if following >= end:
        memory.clear(place, 8)
        return 0
    memory.write(place, _NUMBERS.pack(following, end))
    return place


@kfunc("bpf_iter_num_destroy", under_lock=True)
def iter_num_destroy(world: World, place: int) -> int:
    """End an iteration."""
    memory.clear(place, 8)
    return 0


@kfunc("bpf_iter_bits_new")
def iter_bits_new(world: World, place: int, mask: int, words: int) -> int:
    """Begin with the bits that are set in `words` words of 8 bytes; 0 or a negative error number."""
    words = W32.wrap(words)
    _masks(world).pop(place, None)
    memory.write(place, _BITS.pack(0, 0, -1))
    if not mask or not words:
        return -errno.EINVAL
    if words > MAX_WORDS:
        return -errno.E2BIG
    try:
        bits = int.from_bytes(memory.read(mask, 8 * words), "little")
    except ExecutionError:
        return -errno.EFAULT  # as a kernel's own memory, which is read where it is there
    if words == 1:
        memory.write(place, _BITS.pack(bits, 64, -1))
        return 0
    if len(_masks(world)) >= MOST_MASKS:
        return -errno.ENOMEM
    _masks(world)[place] = bits
    memory.write(place, _BITS.pack(0, 64 * words, -1))
    return 0


@kfunc("bpf_iter_bits_next")
def iter_bits_next(world: World, place: int) -> int:
    """Return the address of the next bit's number (s32), 0 behind the last."""
    bits, count, last = _BITS.unpack(memory.read(place, 16))
    if count != 64:
        bits = _masks(world).get(place, 0)
        count = min(count, 64 * MAX_WORDS)
    if not 0 <= last + 1 < count:
        return 0
    rest = bits >> (last + 1)
    found = last + (rest & -rest).bit_length() if rest else count
    memory.write(place + _LAST_BIT, found.to_bytes(4, "little"))
    return place + _LAST_BIT if found < count else 0


@kfunc("bpf_iter_bits_destroy")
def iter_bits_destroy(world: World, place: int) -> int:
    """End an iteration."""
    memory.check(place, 16, "store")
    _masks(world).pop(place, None)
    return 0


def _masks(world: World) -> dict[int, int]:
    """The masks of more than a word, by the address of their iterators."""
    found: dict[int, int] = world.kept.setdefault(_MASKS, {})
    return found
