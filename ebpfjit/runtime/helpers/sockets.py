"""Helpers of sockets: lookup in the table of the environment, what a program may see of one."""

from __future__ import annotations

import errno
import struct

from ebpfjit.bits import W32, W64
from ebpfjit.errors import ExecutionError
from ebpfjit.record import dataclass
from ebpfjit.runtime import held as holdings
from ebpfjit.runtime import memory
from ebpfjit.runtime.contexts.fields import Struct
from ebpfjit.runtime.contexts.named import NamedContext
from ebpfjit.runtime.contexts.skb import SkbContext
from ebpfjit.runtime.contexts.sock_ops import SockOpsContext
from ebpfjit.runtime.contexts.structs import SOCK, TCP_SOCK
from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.memory import Region
from ebpfjit.runtime.network import ip_address
from ebpfjit.runtime.sockets import SOCK_SIZE, TCP_LISTEN, Address, Socket, look_up
from ebpfjit.runtime.world import World

ASSIGNED = "assigned socket"
"""Where `World.kept` has the Socket that bpf_sk_assign chose."""

_OPEN, _KNOWN, _STRANGERS = "sockets", "known sockets", "sockets of unknown cookies"
TCP_ESTABLISHED = 1
_TUPLE_SIZES = {12: 4, 36: 16}  # struct bpf_sock_tuple for IPv4 and IPv6: bytes of an address
_CURRENT_NETNS = -1
ALL_CALLBACKS = 0x7F  # BPF_SOCK_OPS_ALL_CB_FLAGS
REPLACE_SELECTED, NO_REUSEPORT = 1 << 0, 1 << 1
"""BPF_SK_LOOKUP_F_REPLACE, BPF_SK_LOOKUP_F_NO_REUSEPORT."""


@dataclass(slots=True)
class _Held:
    """A socket that a run has looked up: its memory stays in one place until the run ends.

    `count` is how many lookups were not released yet: while there are some, the program may read it.
    """

    socket: Socket
    region: Region
    count: int = 0
    tcp: Region | None = None
    shows_tcp: bool = False


def _open(world: World) -> dict[int, _Held]:
    """The sockets that the program holds, by the address it knows them by."""
    found: dict[int, _Held] = world.kept.setdefault(_OPEN, {})
    return found


def _shown(struct: Struct, content: bytes) -> Region:
    """Return what a program sees of a socket."""
    region = Region.of_buffer(struct.name, content)
    region.rights = struct.rights
    return region


def _hold(world: World, socket: Socket, by: str) -> _Held:
    """Count one more lookup of a socket; the first lets the program read it."""
    known: dict[int, _Held] = world.kept.setdefault(_KNOWN, {})
    held = known.get(id(socket))
    if held is None:
        held = known[id(socket)] = _Held(socket, _shown(SOCK, socket.to_bytes()))
    if not held.count:
        memory.grant_region(held.region)
        _open(world)[held.region.start] = held
    held.count += 1
    holdings.take(
        world, (_OPEN, held.region.start), f"a {socket.protocol} socket", by=by, back="bpf_sk_release"
    )
    return held


def hold_by_cookie(world: World, cookie: int, by: str) -> int:
    """Let the program have the socket of a cookie, and return its address.

    Of one that the environment does not have nothing is known: a connected TCP socket of that cookie.
    """
    named = (socket for socket in world.environment.sockets if socket.cookie == cookie)
    strangers: dict[int, Socket] = world.kept.setdefault(_STRANGERS, {})
    socket = next(named, None) or strangers.get(cookie)
    if socket is None:
        socket = strangers[cookie] = Socket("tcp", ("0.0.0.0", 0), state=TCP_ESTABLISHED, cookie=cookie)
    return _hold(world, socket, by).region.start


def socket_at(world: World, address: int) -> Socket | int | None:
    """Return the socket that a program knows by an address, None where there is none.

    That of the packet, or of the hook, is its cookie where the context was given no Socket.
    """
    for held in _open(world).values():
        if address == held.region.start or (held.tcp is not None and address == held.tcp.start):
            return held.socket
    context = world.context
    if isinstance(context, NamedContext) and address in context.sockets:
        given = context.sockets[address]
        return world.environment.socket_cookie if given is None else given
    if isinstance(context, SkbContext) and address == context.sock.start:
        return world.environment.socket_cookie
    return None


def _tuple(address: int, size: int) -> tuple[Address, Address]:
    """Return source and destination of the struct bpf_sock_tuple at `address`."""
    width = _TUPLE_SIZES[size]
    source, destination, source_port, destination_port = struct.unpack(
        f">{width}s{width}sHH", memory.read(address, size)
    )
    return (
        (str(ip_address(source)), source_port),
        (str(ip_address(destination)), destination_port),
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
    return _hold(world, found, f"bpf_sk_lookup_{protocol}").region.start


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
    held = _open(world).get(address)
    if held is None:
        raise ExecutionError(f"bpf_sk_release of {address:#x}, which is no socket that a lookup gave")
    held.count -= 1
    holdings.give_back(world, (_OPEN, address))
    if not held.count:
        del _open(world)[address]
        memory.revoke(held.region)
        if held.tcp is not None:
            memory.revoke(held.tcp)
            held.shows_tcp = False
    return 0


@helper("bpf_sk_fullsock")
def sk_fullsock(world: World, address: int) -> int:
    """Return the socket itself: all are full ones."""
    memory.check(address, SOCK_SIZE if address else 0, "probe")
    return address


@helper("bpf_tcp_sock")
def tcp_sock(world: World, address: int) -> int:
    """Return the address of a socket's struct bpf_tcp_sock, 0 where it is not TCP."""
    held = _open(world).get(address)
    if held is None or held.socket.protocol != "tcp":
        return 0
    if held.tcp is None:
        held.tcp = _shown(TCP_SOCK, held.socket.tcp_to_bytes())
    if not held.shows_tcp:
        memory.grant_region(held.tcp)
        held.shows_tcp = True
    return held.tcp.start


@helper("bpf_get_listener_sock")
def get_listener_sock(world: World, address: int) -> int:
    """Return the socket where it listens, else 0."""
    held = _open(world).get(address)
    return address if held is not None and held.socket.effective_state == TCP_LISTEN else 0


@helper("bpf_sk_assign", differs="remembers the socket; nothing is delivered to it")
def sk_assign(world: World, context: int, address: int, flags: int) -> int:
    """Choose the socket that the packet goes to, 0 for none; 0 or a negative error number."""
    context_ = world.context
    lookup = context_ if isinstance(context_, NamedContext) and context_.type.name == "sk_lookup" else None
    if flags & ~(REPLACE_SELECTED | NO_REUSEPORT) or (flags and lookup is None):
        return -errno.EINVAL
    held = _open(world).get(address)
    if address and held is None:
        raise ExecutionError(f"bpf_sk_assign of {address:#x}, which is no socket that a lookup gave")
    if lookup is not None:
        refusal = lookup.select(
            None if held is None else held.socket, address, bool(flags & REPLACE_SELECTED)
        )
        if refusal:
            return refusal
    world.kept[ASSIGNED] = None if held is None else held.socket
    return 0


@helper("bpf_get_socket_cookie")
def get_socket_cookie(world: World, address: int) -> int:
    """Return the number of a socket, or of the one that the packet belongs to."""
    found = socket_at(world, address)
    return found.cookie if isinstance(found, Socket) else world.environment.socket_cookie


@helper("bpf_get_netns_cookie")
def get_netns_cookie(world: World, context: int) -> int:
    """Return the number of the network namespace."""
    return world.environment.netns_cookie


@helper("bpf_sock_ops_cb_flags_set", differs="sets the field of the context; the socket is a full one")
def sock_ops_cb_flags_set(world: World, context: int, flags: int) -> int:
    """Say which callbacks of the socket's life come from now on; return the flags that there are none of."""
    made = world.context
    if not isinstance(made, NamedContext) or "bpf_sock_ops_cb_flags" not in made.layout.by_name:
        raise ExecutionError("bpf_sock_ops_cb_flags_set is for sock_ops programs (sections 'sockops')")
    if isinstance(made, SockOpsContext) and not made.is_locked:
        return -errno.EOPNOTSUPP
    made.put("bpf_sock_ops_cb_flags", (flags & ALL_CALLBACKS).to_bytes(4, "little"))
    return W32.signed(flags & ~ALL_CALLBACKS)
