"""Helpers of lwt_in and lwt_xmit programs: a header in front of the packet (net/core/lwt_bpf.c)."""

from __future__ import annotations

import errno

from ebpfjit.bits import W32
from ebpfjit.errors import ExecutionError
from ebpfjit.runtime import memory
from ebpfjit.runtime.contexts.skb import ETH_P_IP, ETH_P_IPV6, SkbContext
from ebpfjit.runtime.helpers.checksum import ENOTSUPP, fold, partial
from ebpfjit.runtime.helpers.packet import skb_of
from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.world import World

ENCAP_IP = 2
"""BPF_LWT_ENCAP_IP; the others, _SEG6 and _SEG6_INLINE, ask for routes of segments."""
SHORTEST, LARGEST_HEADER = 20, 256
"""struct iphdr; LWT_BPF_MAX_HEADROOM."""
_TYPES = ("lwt_in", "lwt_xmit")
_CHECKSUM_AT = 10


def _with_checksum(header: bytes) -> bytes:
    """Return an IPv4 header with its checksum, which is made where there is none."""
    if header[_CHECKSUM_AT : _CHECKSUM_AT + 2] != b"\0\0":
        return header
    words = header[: 4 * (header[0] & 15)]
    # Of a length that no header has, ip_fast_csum of x86-64 gives back the first two bytes.
    made = fold(partial(words, 0)).to_bytes(2, "little") if len(words) >= SHORTEST else header[:2]
    return header[:_CHECKSUM_AT] + made + header[_CHECKSUM_AT + 2 :]


def _push(skb: SkbContext, header: bytes) -> bool:
    """Put a header in front of the packet: it is the network header then. False: there is no room."""
    if not skb.insert(0, len(header)):
        return False
    is_ipv4 = header[0] >> 4 == 4
    skb.network_header = skb.data
    skb.store_at(0, _with_checksum(header) if is_ipv4 else header)
    skb.encapsulated = True
    skb.protocol = ETH_P_IP if is_ipv4 else ETH_P_IPV6
    skb.set("hash", 0)
    skb.moved()
    return True


@helper(
    "bpf_lwt_push_encap",
    ends_rights=True,
    differs="IP headers alone: of segment routing, and without CONFIG_LWTUNNEL_BPF in Linux, -EINVAL",
)
def lwt_push_encap(world: World, context: int, type: int, header: int, size: int) -> int:
    """Put an IP header, and what is behind it, in front of the packet; 0 or a negative error number."""
    skb = skb_of(world, context, "bpf_lwt_push_encap")
    size = W32.wrap(size)
    memory.check(header, size, "load")
    if skb.type.name not in _TYPES:
        raise ExecutionError(
            f"bpf_lwt_push_encap is for {' and '.join(_TYPES)} programs, this one is {skb.type.name}"
        )
    if W32.wrap(type) != ENCAP_IP or not SHORTEST <= size <= LARGEST_HEADER:
        return -errno.EINVAL
    data = memory.read(header, size)
    least = {4: 4 * (data[0] & 15), 6: 40}.get(data[0] >> 4)
    if least is None or size < least:
        return -errno.EINVAL
    if not _push(skb, data):
        return -errno.ENOMEM
    # A test run says sizes of segments, and never of which protocol they are.
    return -ENOTSUPP if skb.get("gso_size") else 0
