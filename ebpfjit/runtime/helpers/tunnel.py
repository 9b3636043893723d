"""Helpers of tunnels: the outer header's key and options, kept beside the packet.

A packet arrives with `Environment.tunnel`; what a program sets is for the packet that leaves.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

from ebpfjit.bits import W32
from ebpfjit.runtime import memory
from ebpfjit.runtime.contexts.skb import SkbContext
from ebpfjit.runtime.helpers.packet import skb_of
from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.network import TunnelKey, ip_address
from ebpfjit.runtime.world import World

if TYPE_CHECKING:
    from ebpfjit.runtime.network import IpAddress

TUNINFO_IPV6, ZERO_CSUM_TX, DONT_FRAGMENT, SEQ_NUMBER, NO_TUNNEL_KEY = (1 << bit for bit in range(5))
TUNINFO_FLAGS = 1 << 4
SET_FLAGS = TUNINFO_IPV6 | ZERO_CSUM_TX | DONT_FRAGMENT | SEQ_NUMBER | NO_TUNNEL_KEY

KEY_SIZE = 44
"""struct bpf_tunnel_key."""

SIZE_FOR_IPV4 = 8
OLDER_SIZES = (28, 24, 22, SIZE_FOR_IPV4)
"""Where the struct ended in older kernels."""

LARGEST_OPTIONS = 255

_KEY = struct.Struct("<I16sBBHI16s")


def _address(address: IpAddress) -> bytes:
    """Return an address as the struct holds it: IPv4 in host byte order, IPv6 as it is."""
    return address.packed[::-1].ljust(16, b"\0") if address.version == 4 else address.packed


def _text(data: bytes, *, ipv6: bool) -> str:
    return str(ip_address(data if ipv6 else data[3::-1]))


def _key_of(world: World, skb: SkbContext) -> TunnelKey | None:
    """Return the key that a packet has: the one that was set, else the one it came with."""
    return skb.tunnel if skb.tunnel is not None else world.environment.tunnel


def _clear(address: int, size: int, result: int) -> int:
    memory.clear(address, size)
    return result


@helper("bpf_skb_get_tunnel_key")
def skb_get_tunnel_key(world: World, context: int, to: int, size: int, flags: int) -> int:
    """Write the packet's struct bpf_tunnel_key; 0 or a negative error number."""
    skb = skb_of(world, context, "bpf_skb_get_tunnel_key")
    size = W32.wrap(size)
    memory.check(to, size, "store")
    key = _key_of(world, skb)
    if key is None or flags & ~(TUNINFO_IPV6 | TUNINFO_FLAGS):
        return _clear(to, size, -errno.EINVAL)
    remote, local = ip_address(key.remote), ip_address(key.local)
    if (remote.version == 6) != bool(flags & TUNINFO_IPV6):
        return _clear(to, size, -errno.EPROTO)
    if size not in (KEY_SIZE, *OLDER_SIZES) or (size == SIZE_FOR_IPV4 and remote.version == 6):
        return _clear(to, size, -errno.EINVAL)
    extra = key.flags if flags & TUNINFO_FLAGS else 0
    label = key.label if remote.version == 6 else 0
    data = _KEY.pack(key.id, _address(remote), key.tos, key.ttl, extra, label, _address(local))
    memory.write(to, data[:size])
    return 0


@helper("bpf_skb_set_tunnel_key")
def skb_set_tunnel_key(world: World, context: int, source: int, size: int, flags: int) -> int:
    """Set the key of the tunnel that the packet leaves by; 0 or a negative error number."""
    skb = skb_of(world, context, "bpf_skb_set_tunnel_key")
    size = W32.wrap(size)
    data = memory.read(source, size)
    if flags & ~SET_FLAGS:
        return -errno.EINVAL
    if size not in (KEY_SIZE, *OLDER_SIZES):
        return -errno.EINVAL
    ipv6 = bool(flags & TUNINFO_IPV6)
    number, remote, tos, ttl, extra, label, local = _KEY.unpack(data.ljust(KEY_SIZE, b"\0"))
    if extra or (label and not ipv6):
        return -errno.EINVAL
    # A key to send with reads back with its ends exchanged: the kernel keeps source and destination.
    skb.tunnel = TunnelKey(number, _text(local, ipv6=ipv6), _text(remote, ipv6=ipv6), tos, ttl, label)
    skb.tunnel_options = b""
    return 0


@helper("bpf_skb_get_tunnel_opt")
def skb_get_tunnel_opt(world: World, context: int, to: int, size: int) -> int:
    """Write the tunnel's options; return their size or a negative error number."""
    skb = skb_of(world, context, "bpf_skb_get_tunnel_opt")
    size = W32.wrap(size)
    memory.check(to, size, "store")
    options = skb.tunnel_options
    if _key_of(world, skb) is None or not options:
        return _clear(to, size, -errno.ENOENT)
    if size < len(options):
        return _clear(to, size, -errno.ENOMEM)
    memory.clear(to, size)
    memory.write(to, options)
    return len(options)


@helper("bpf_skb_set_tunnel_opt")
def skb_set_tunnel_opt(world: World, context: int, source: int, size: int) -> int:
    """Set the options of the tunnel that the packet leaves by, after its key; 0 or -errno."""
    skb = skb_of(world, context, "bpf_skb_set_tunnel_opt")
    size = W32.wrap(size)
    data = memory.read(source, size)
    if skb.tunnel is None or size % 4:
        return -errno.EINVAL
    if size > LARGEST_OPTIONS:
        return -errno.ENOMEM
    skb.tunnel_options = data
    return 0
