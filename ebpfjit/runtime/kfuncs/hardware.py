"""Kernel functions that ask a network card about a packet: no card here has an answer, as in a test run."""

from __future__ import annotations

import errno

from ebpfjit.runtime import memory
from ebpfjit.runtime.kfuncs.table import kfunc
from ebpfjit.runtime.world import World


@kfunc("bpf_xdp_metadata_rx_timestamp")
def rx_timestamp(world: World, context: int, timestamp: int) -> int:
    """Say when the card received the packet: always -EOPNOTSUPP."""
    memory.check(timestamp, 8, "store")
    return -errno.EOPNOTSUPP


@kfunc("bpf_xdp_metadata_rx_hash")
def rx_hash(world: World, context: int, hash: int, kind: int) -> int:
    """Say what the card hashed the packet to: always -EOPNOTSUPP."""
    memory.check(hash, 4, "store")
    memory.check(kind, 4, "store")
    return -errno.EOPNOTSUPP


@kfunc("bpf_xdp_metadata_rx_vlan_tag")
def rx_vlan_tag(world: World, context: int, protocol: int, tag: int) -> int:
    """Say which VLAN tag the card took off: always -EOPNOTSUPP."""
    memory.check(protocol, 2, "store")
    memory.check(tag, 2, "store")
    return -errno.EOPNOTSUPP
