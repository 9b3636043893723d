"""Helpers of sockets: lookup in the table of the environment, what a program may see of one."""

from __future__ import annotations

import errno
import ipaddress
import struct

from ebpfjit.bits import W32, W64
from ebpfjit.errors import ExecutionError
from ebpfjit.runtime import memory
from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.memory import Region
from ebpfjit.runtime.sockets import SOCK_SIZE, TCP_LISTEN, Address, Socket, look_up
from ebpfjit.runtime.world import World

ASSIGNED = "assigned socket"
"""Where `World.kept` has the Socket that bpf_sk_assign chose."""

_OPEN = "sockets"
_TUPLE_SIZES = {12: 4, 36: 16}  # struct bpf_sock_tuple for IPv4 and IPv6: bytes of an address
_CURRENT_NETNS = -1


def _open(world: World) -> dict[int, tuple[Socket, Region]]:
    """The sockets that the program holds, by the address it knows them by."""
    found: dict[int, tuple[Socket, Region]] = world.kept.setdefault(_OPEN, {})
    return found


def _grant(world: World, data: bytes, name: str) -> Region:
    region = memory.grant(data, name)
    world.kept.setdefault("memory", []).append(region)  # until the run ends, also once revoked
    return region


def _tuple(address: int, size: int) -> tuple[Address, Address]:
    """Return source and destination of the struct bpf_sock_tuple at `address`."""
    width = _TUPLE_SIZES[size]
    source, destination, source_port, destination_port = struct.unpack(
        f">{width}s{width}sHH", memory.read(address, size)
    )
    return (
        (str(ipaddress.ip_address(source)), source_port),
        (str(ipaddress.ip_address(destination)), destination_port),
    )


def _look_up(world: World, protocol: str, tuple_at: int, size: int, netns: int, flags: int) -> int:
    size = W32.wrap(size)
    memory.check(tuple_at, size, "load")
    namespace = W64.signed(netns)
    if size not in _TUPLE_SIZES or flags or not _CURRENT_NETNS <= namespace < 1 << 31:
        return 0
    source, destination = _tuple(tuple_at, size)
    found = look_up(world.environment.sockets, protocol, source, destination)
    if found is None:
        return 0
    region = _grant(world, found.to_bytes(), "bpf_sock")
    _open(world)[region.start] = found, region
    return region.start


@helper("bpf_sk_lookup_tcp", "bpf_skc_lookup_tcp", differs="finds sockets of Environment.sockets")
def sk_lookup_tcp(world: World, context: int, tuple_at: int, size: int, netns: int, flags: int) -> int:
    """Return the address of the TCP socket of a connection, 0 where there is none."""
    return _look_up(world, "tcp", tuple_at, size, netns, flags)


@helper("bpf_sk_lookup_udp", differs="finds sockets of Environment.sockets")
def sk_lookup_udp(world: World, context: int, tuple_at: int, size: int, netns: int, flags: int) -> int:
    """Return the address of the UDP socket of a flow, 0 where there is none."""
    return _look_up(world, "udp", tuple_at, size, netns, flags)


@helper("bpf_sk_release", ends_rights=True)
def sk_release(world: World, address: int) -> int:
    """Give a socket back: its memory is not the program's any more."""
    held = _open(world).pop(address, None)
    if held is None:
        raise ExecutionError(f"bpf_sk_release of {address:#x}, which is no socket that a lookup gave")
    memory.revoke(held[1])
    return 0


@helper("bpf_sk_fullsock")
def sk_fullsock(world: World, address: int) -> int:
    """Return the socket itself: all are full ones."""
    memory.check(address, SOCK_SIZE if address else 0, "load")
    return address


@helper("bpf_tcp_sock")
def tcp_sock(world: World, address: int) -> int:
    """Return the address of a socket's struct bpf_tcp_sock, 0 where it is not TCP."""
    held = _open(world).get(address)
    if held is None or held[0].protocol != "tcp":
        return 0
    return _grant(world, held[0].tcp_to_bytes(), "bpf_tcp_sock").start


@helper("bpf_get_listener_sock")
def get_listener_sock(world: World, address: int) -> int:
    """Return the socket where it listens, else 0."""
    held = _open(world).get(address)
    return address if held is not None and held[0].effective_state == TCP_LISTEN else 0


@helper("bpf_sk_assign", differs="remembers the socket; nothing is delivered to it")
def sk_assign(world: World, context: int, address: int, flags: int) -> int:
    """Choose the socket that the packet goes to, 0 for none; 0 or a negative error number."""
    if flags:
        return -errno.EINVAL
    held = _open(world).get(address)
    if address and held is None:
        raise ExecutionError(f"bpf_sk_assign of {address:#x}, which is no socket that a lookup gave")
    world.kept[ASSIGNED] = None if held is None else held[0]
    return 0


@helper("bpf_get_socket_cookie")
def get_socket_cookie(world: World, address: int) -> int:
    """Return the number of a socket, or of the one that the packet belongs to."""
    held = _open(world).get(address)
    return world.environment.socket_cookie if held is None else held[0].cookie


@helper("bpf_get_netns_cookie")
def get_netns_cookie(world: World, context: int) -> int:
    """Return the number of the network namespace."""
    return world.environment.netns_cookie
