"""Helpers of Internet checksums: ones' complement sums of 16 bits (RFC 1071), as Linux computes them."""

from __future__ import annotations

import errno
from collections.abc import Callable

from ebpfjit.bits import W32
from ebpfjit.runtime import memory
from ebpfjit.runtime.contexts.skb import SkbContext
from ebpfjit.runtime.helpers.packet import LARGEST_OFFSET, skb_of
from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.world import World

ENOTSUPP = 524
"""The kernel's "not supported"; not in C's errno.h (include/linux/errno.h)."""

BPF_F_HDR_FIELD_MASK = 0xF
BPF_F_PSEUDO_HDR, BPF_F_MARK_MANGLED_0, BPF_F_MARK_ENFORCE, BPF_F_IPV6 = 1 << 4, 1 << 5, 1 << 6, 1 << 7
CSUM_MANGLED_0 = 0xFFFF

SKB_MAX_CSUM_LEVEL = 3

_PIECE = 1 << 14


def add(a: int, b: int) -> int:
    """Return the ones' complement sum of two u32 (csum_add)."""
    total = a + b
    return (total & 0xFFFFFFFF) + (total >> 32)


def fold(total: int) -> int:
    """Return the complement of a u32 sum folded to 16 bits (csum_fold)."""
    return ~fold_to_16(total) & 0xFFFF


def fold_to_16(total: int) -> int:
    """Return a u32 sum folded to 16 bits (csum_from32to16)."""
    total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16)


def partial(data: bytes, start: int) -> int:
    """Return `start` plus the sum of the data's 32-bit words, as u32 (csum_partial)."""
    words = memoryview(data + bytes(-len(data) % 4)).cast("I")
    # Piece by piece, so that a signal need not wait for all of it.
    total = start + sum(sum(words[at : at + _PIECE]) for at in range(0, len(words), _PIECE))
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def inverted(value: int) -> int:
    """Return the complement of a u32."""
    return ~value & 0xFFFFFFFF


@helper("bpf_csum_diff")
def csum_diff(world: World, source: int, source_size: int, to: int, to_size: int, seed: int) -> int:
    """Return the sum of `to` less that of `source`, plus `seed`, folded to 16 bits.

    Bytes that fill no 32-bit word count as if zeros followed them.
    """
    source_size, to_size, seed = W32.wrap(source_size), W32.wrap(to_size), W32.wrap(seed)
    old = memory.read(source, source_size) if source_size else b""
    new = memory.read(to, to_size) if to_size else b""
    if old and new:
        return fold_to_16(add(partial(new, seed), inverted(partial(old, 0))))
    if new:
        return fold_to_16(partial(new, seed))
    if old:
        return fold_to_16(inverted(partial(old, inverted(seed))))
    return fold_to_16(seed)


#  what takes the place of what, as BPF_F_HDR_FIELD_MASK says it


def _by_difference(checksum: int, old: int, difference: int) -> int:
    return fold(add(W32.wrap(difference), inverted(checksum)))


def _by_16_bits(checksum: int, old: int, new: int) -> int:
    def add16(a: int, b: int) -> int:
        total = a + b
        return (total & 0xFFFF) + (total >> 16)

    without = add16(~checksum & 0xFFFF, ~old & 0xFFFF)
    return ~add16(without, new & 0xFFFF) & 0xFFFF


def _by_32_bits(checksum: int, old: int, new: int) -> int:
    return fold(add(add(inverted(checksum), inverted(W32.wrap(old))), W32.wrap(new)))


REPLACEMENTS: dict[int, Callable[[int, int, int], int]] = {
    0: _by_difference,
    2: _by_16_bits,
    4: _by_32_bits,
}


def _place_refusal(skb: SkbContext, offset: int) -> int:
    if offset > LARGEST_OFFSET or offset % 2 or offset + 2 > skb.size:
        return -errno.EFAULT
    return 0


def _load(skb: SkbContext, offset: int) -> int:
    return int.from_bytes(skb.bytes_at(offset, 2), "little")


def _store(skb: SkbContext, offset: int, checksum: int) -> None:
    skb.store_at(offset, checksum.to_bytes(2, "little"))


@helper("bpf_l3_csum_replace", ends_rights=True)
def l3_csum_replace(world: World, context: int, offset: int, old: int, new: int, flags: int) -> int:
    """Make good the IP checksum at `offset` for a field that changes; 0 or a negative error number."""
    skb = skb_of(world, context, "bpf_l3_csum_replace")
    offset = W32.wrap(offset)
    if flags & ~BPF_F_HDR_FIELD_MASK:
        return -errno.EINVAL
    if refusal := _place_refusal(skb, offset):
        return refusal
    replace = REPLACEMENTS.get(flags)
    if replace is None or (flags == 0 and old):
        return -errno.EINVAL
    _store(skb, offset, replace(_load(skb, offset), old, new))
    return 0


_L4_FLAGS = BPF_F_MARK_MANGLED_0 | BPF_F_MARK_ENFORCE | BPF_F_PSEUDO_HDR | BPF_F_HDR_FIELD_MASK | BPF_F_IPV6


@helper("bpf_l4_csum_replace", ends_rights=True)
def l4_csum_replace(world: World, context: int, offset: int, old: int, new: int, flags: int) -> int:
    """Make good the TCP or UDP checksum at `offset`; 0 or a negative error number."""
    skb = skb_of(world, context, "bpf_l4_csum_replace")
    offset = W32.wrap(offset)
    if flags & ~_L4_FLAGS:
        return -errno.EINVAL
    if refusal := _place_refusal(skb, offset):
        return refusal
    checksum = _load(skb, offset)
    mangled = bool(flags & BPF_F_MARK_MANGLED_0)
    if mangled and not flags & BPF_F_MARK_ENFORCE and not checksum:
        return 0  # UDP without a checksum stays so
    width = flags & BPF_F_HDR_FIELD_MASK
    replace = REPLACEMENTS.get(width)
    if replace is None or (width == 0 and old):
        return -errno.EINVAL
    checksum = replace(checksum, old, new)
    _store(skb, offset, CSUM_MANGLED_0 if mangled and not checksum else checksum)
    return 0


@helper("bpf_csum_update")
def csum_update(world: World, context: int, difference: int) -> int:
    """Refuse: no device has summed up the packet (-ENOTSUPP)."""
    skb_of(world, context, "bpf_csum_update")
    return -ENOTSUPP


@helper("bpf_csum_level")
def csum_level(world: World, context: int, level: int) -> int:
    """Change or tell how many checksums of the packet are known to be good; 0 or -errno."""
    skb = skb_of(world, context, "bpf_csum_level")
    known = skb.checksums
    match level:
        case 0:  # BPF_CSUM_LEVEL_QUERY
            return -errno.EACCES if known is None else known
        case 1:  # BPF_CSUM_LEVEL_INC
            skb.checksums = 0 if known is None else min(known + 1, SKB_MAX_CSUM_LEVEL)
        case 2:  # BPF_CSUM_LEVEL_DEC
            skb.checksums = known - 1 if known else None
        case 3:  # BPF_CSUM_LEVEL_RESET
            skb.checksums = None
        case _:
            return -errno.EINVAL
    return 0
