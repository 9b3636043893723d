"""Helpers of maps of sockets: the hook's socket put into one, packets and messages sent to what is there."""

from __future__ import annotations

import errno

from ebpfjit.bits import W32
from ebpfjit.errors import ExecutionError
from ebpfjit.runtime import memory
from ebpfjit.runtime.contexts.named import NamedContext
from ebpfjit.runtime.contexts.outcome import Redirect
from ebpfjit.runtime.contexts.skb import SkbContext
from ebpfjit.runtime.helpers.maps import map_of
from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.maps.base import Map
from ebpfjit.runtime.world import World

SK_DROP, SK_PASS = 0, 1
BPF_F_INGRESS = 1 << 0
_DIFFERS = "the socket is Environment.socket_cookie"
_SENDS = "says so in Result.redirect"


def _update(world: World, name: str, map_address: int, key: int, flags: int) -> int:
    """Store the cookie of the hook's socket, as wide as the map's values are."""
    found = map_of(world, map_address, name)
    definition = found.definition
    cookie = world.environment.socket_cookie & (1 << 8 * definition.value_size) - 1
    value = cookie.to_bytes(definition.value_size, "little")
    return found.update(memory.read(key, definition.key_size), value, flags)


@helper("bpf_sock_map_update", differs=_DIFFERS)
def sock_map_update(world: World, context: int, map_address: int, key: int, flags: int) -> int:
    """Put the hook's socket into a sockmap; 0 or a negative error number."""
    return _update(world, "bpf_sock_map_update", map_address, key, flags)


@helper("bpf_sock_hash_update", differs=_DIFFERS)
def sock_hash_update(world: World, context: int, map_address: int, key: int, flags: int) -> int:
    """Put the hook's socket into a sockhash; 0 or a negative error number."""
    return _update(world, "bpf_sock_hash_update", map_address, key, flags)


def _send(world: World, name: str, found: Map, key: bytes, flags: int) -> int:
    """Say where the packet goes and let it pass; drop it where there is no socket, or for other flags."""
    if flags & ~BPF_F_INGRESS or not found.lookup(key):
        return SK_DROP
    if isinstance(world.context, SkbContext | NamedContext):
        world.context.redirect = Redirect(name, None, found.name, key, flags)
    return SK_PASS


@helper("bpf_sk_redirect_map", differs=_SENDS)
def sk_redirect_map(world: World, context: int, map_address: int, key: int, flags: int) -> int:
    """Send the packet to a socket of a sockmap: SK_PASS, or SK_DROP where there is none."""
    name = "bpf_sk_redirect_map"
    return _send(world, name, map_of(world, map_address, name), W32.wrap(key).to_bytes(4, "little"), flags)


@helper("bpf_msg_redirect_map", differs=_SENDS)
def msg_redirect_map(world: World, context: int, map_address: int, key: int, flags: int) -> int:
    """Send the message to a socket of a sockmap: SK_PASS, or SK_DROP where there is none."""
    name = "bpf_msg_redirect_map"
    return _send(world, name, map_of(world, map_address, name), W32.wrap(key).to_bytes(4, "little"), flags)


@helper("bpf_sk_redirect_hash", differs=_SENDS)
def sk_redirect_hash(world: World, context: int, map_address: int, key: int, flags: int) -> int:
    """Send the packet to a socket of a sockhash: SK_PASS, or SK_DROP where there is none."""
    found = map_of(world, map_address, "bpf_sk_redirect_hash")
    return _send(world, "bpf_sk_redirect_hash", found, memory.read(key, found.definition.key_size), flags)


@helper("bpf_msg_redirect_hash", differs=_SENDS)
def msg_redirect_hash(world: World, context: int, map_address: int, key: int, flags: int) -> int:
    """Send the message to a socket of a sockhash: SK_PASS, or SK_DROP where there is none."""
    found = map_of(world, map_address, "bpf_msg_redirect_hash")
    return _send(world, "bpf_msg_redirect_hash", found, memory.read(key, found.definition.key_size), flags)


@helper(
    "bpf_sk_select_reuseport", differs="takes any socket for one of the group; says so in Result.redirect"
)
def sk_select_reuseport(world: World, context: int, map_address: int, key: int, flags: int) -> int:
    """Choose the socket that gets the packet from a map of sockets; 0 or a negative error number."""
    name = "bpf_sk_select_reuseport"
    found = map_of(world, map_address, name)
    chosen = world.context
    if not isinstance(chosen, NamedContext) or chosen.type.name != "sk_reuseport":
        raise ExecutionError(f"{name} needs a struct sk_reuseport_md as context; the program's type has none")
    key_bytes = memory.read(key, found.definition.key_size)
    if flags:
        return -errno.EINVAL
    if not found.lookup(key_bytes):
        return -errno.ENOENT
    chosen.redirect = Redirect(name, None, found.name, key_bytes)
    return 0
