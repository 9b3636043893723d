"""Helpers: options of sockets, addresses to bind to.

What Linux takes and gives back is in one table; the values are those of `Environment.socket_options`, of all
sockets alike. Source: sol_socket_sockopt and its kin in net/core/filter.c, and what these call.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from typing import Any

from ebpfjit.bits import W32
from ebpfjit.record import dataclass
from ebpfjit.runtime import memory
from ebpfjit.runtime.contexts.sock_ops import SockOpsContext
from ebpfjit.runtime.helpers.sockets import ALL_CALLBACKS
from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.sockets import SOCK_SIZE
from ebpfjit.runtime.world import World

SOL_IP, SOL_SOCKET, SOL_TCP, SOL_IPV6 = 0, 1, 6, 41
AF_INET, AF_INET6, TCP = 2, 10, 6
INT_MAX = (1 << 31) - 1
ENOTSUPP = 524
INT_SIZE = 4
CONGESTION, SAVED_SYN, BIND_TO_DEVICE = (SOL_TCP, 13), (SOL_TCP, 28), (SOL_SOCKET, 25)
CALLBACK_FLAGS = (SOL_TCP, 1008)
SYN_FROM = {(SOL_TCP, 1005): 2, (SOL_TCP, 1006): 1, (SOL_TCP, 1007): 0}
"""TCP_BPF_SYN, TCP_BPF_SYN_IP and TCP_BPF_SYN_MAC: the first of the headers link, IP, TCP."""
CONGESTION_SIZE = 16
"""TCP_CA_NAME_MAX."""
SENDING_LEAST, RECEIVING_LEAST = 4608, 2304
"""SOCK_MIN_SNDBUF, SOCK_MIN_RCVBUF."""
BUFFER_MOST = 212_992
"""net.core.wmem_max and rmem_max, where nobody has changed them."""
DELAYED_ACK_MOST = 200_000
"""TCP_DELACK_MAX and TCP_RTO_MIN, in microseconds."""
FAMILY_SIZE, ADDRESS_SIZES = 2, {AF_INET: 16, AF_INET6: 24}
"""struct sockaddr_in; struct sockaddr_in6 up to its scope (SIN6_LEN_RFC2133)."""
NOT_FULL = frozenset({6, 12})
"""TCP_TIME_WAIT, TCP_NEW_SYN_RECV."""

_Kept = Callable[[int], int | None]


@dataclass(frozen=True, slots=True)
class Option:
    """An option that is an int: what becomes of a value (None: EINVAL), what it is before one was set.

    `reads` is false where Linux gives no value back.
    """

    name: str
    keeps: _Kept
    usual: int = 0
    reads: bool = True


def _any(value: int) -> int:
    return value


def _flag(value: int) -> int:
    return int(bool(value))


def _within(least: int, most: int) -> _Kept:
    return lambda value: value if least <= value <= most else None


def _doubled(least: int) -> _Kept:
    return lambda value: max(2 * min(value & 0xFFFFFFFF, BUFFER_MOST), least)


OPTIONS = {
    (SOL_SOCKET, 2): Option("SO_REUSEADDR", _flag),
    (SOL_SOCKET, 7): Option("SO_SNDBUF", _doubled(SENDING_LEAST), 16384),
    (SOL_SOCKET, 8): Option("SO_RCVBUF", _doubled(RECEIVING_LEAST), 131072),
    (SOL_SOCKET, 9): Option("SO_KEEPALIVE", _flag),
    (SOL_SOCKET, 12): Option("SO_PRIORITY", _any),
    (SOL_SOCKET, 15): Option("SO_REUSEPORT", _flag),
    (SOL_SOCKET, 18): Option("SO_RCVLOWAT", lambda value: INT_MAX if value < 0 else value or 1, 1),
    (SOL_SOCKET, 36): Option("SO_MARK", _any),
    (SOL_SOCKET, 47): Option("SO_MAX_PACING_RATE", _any, -1),
    (SOL_SOCKET, 62): Option("SO_BINDTOIFINDEX", _within(0, INT_MAX)),
    (SOL_SOCKET, 74): Option("SO_TXREHASH", lambda value: abs(value) if -1 <= value <= 1 else None, 1),
    (SOL_TCP, 1): Option("TCP_NODELAY", _flag),
    (SOL_TCP, 2): Option(
        "TCP_MAXSEG", lambda value: (value if 88 <= value <= 32767 else None) if value else 536, 536
    ),
    (SOL_TCP, 4): Option("TCP_KEEPIDLE", _within(1, 32767), 7200),
    (SOL_TCP, 5): Option("TCP_KEEPINTVL", _within(1, 32767), 75),
    (SOL_TCP, 6): Option("TCP_KEEPCNT", _within(1, 127), 9),
    (SOL_TCP, 7): Option("TCP_SYNCNT", _within(1, 127), 6),
    (SOL_TCP, 10): Option("TCP_WINDOW_CLAMP", lambda value: value and max(value, RECEIVING_LEAST // 2)),
    (SOL_TCP, 16): Option("TCP_THIN_LINEAR_TIMEOUTS", _within(0, 1)),
    (SOL_TCP, 18): Option("TCP_USER_TIMEOUT", _within(0, INT_MAX)),
    (SOL_TCP, 25): Option("TCP_NOTSENT_LOWAT", _any, -1),
    (SOL_TCP, 27): Option("TCP_SAVE_SYN", _within(0, 2)),
    (SOL_TCP, 1001): Option("TCP_BPF_IW", _within(1, INT_MAX), reads=False),
    (SOL_TCP, 1002): Option("TCP_BPF_SNDCWND_CLAMP", _within(1, INT_MAX), reads=False),
    (SOL_TCP, 1003): Option("TCP_BPF_DELACK_MAX", _within(1, DELAYED_ACK_MOST), reads=False),
    (SOL_TCP, 1004): Option("TCP_BPF_RTO_MIN", _within(1, DELAYED_ACK_MOST), reads=False),
    CALLBACK_FLAGS: Option("TCP_BPF_SOCK_OPS_CB_FLAGS", _within(0, ALL_CALLBACKS)),
    (SOL_IP, 1): Option("IP_TOS", lambda value: value & 0xFC),
    (SOL_IPV6, 67): Option("IPV6_TCLASS", lambda value: max(value, 0) & 0xFC if -1 <= value <= 255 else None),
    (SOL_IPV6, 70): Option("IPV6_AUTOFLOWLABEL", _flag),
}
"""What programs may set and get, by level and number."""

_OPTIONS = "Environment.socket_options, of all sockets alike; congestion control has any name"


@dataclass(frozen=True, slots=True)
class _Kind:
    """What is known of a socket; 0: anything."""

    family: int = 0
    protocol: int = 0
    is_full: bool = True

    def has(self, level: int) -> bool:
        """True for a level of options that such a socket has."""
        if level == SOL_TCP:
            return self.protocol in (0, TCP)
        if level == SOL_IPV6:
            return self.family in (0, AF_INET6)
        return level in (SOL_SOCKET, SOL_IP)


def _kind_of(world: World, address: int) -> _Kind:
    """Return what is known of the socket that a context, or a struct bpf_sock, stands for."""
    context = world.context
    layout = getattr(context, "layout", None)
    if layout is not None and address == context.arguments[0]:
        fields = (layout.by_name.get(name) for name in ("family", "protocol", "is_fullsock"))
        there = [field for field in fields if field is not None and field.stop <= len(context.memory)]
        seen = {field.name: field.read(context.memory) for field in there}
        if layout.name == "bpf_sock_ops":
            return _Kind(seen.get("family", 0), TCP, bool(seen.get("is_fullsock", 1)))
        return _Kind(seen.get("family", 0), seen.get("protocol", 0))
    found = memory.find(address, SOCK_SIZE, "load") if address else None
    if found is None:
        return _Kind()
    family, _, protocol = struct.unpack_from("<III", found, 4)
    (state,) = struct.unpack_from("<I", found, 72)
    return _Kind(family, protocol, state not in NOT_FULL)


def _text(data: bytes) -> bytes:
    return data.partition(b"\0")[0]


def _is_unlocked(world: World, address: int) -> bool:
    """True for a sock_ops program's context where the program may not use the socket."""
    context = world.context
    return isinstance(context, SockOpsContext) and address == context.start and not context.is_locked


def _copy_syn(context: SockOpsContext, value: int, size: int, first: int) -> int:
    """Write the headers of the SYN from one on, and zeros; their bytes, or a negative error number."""
    headers = context.syn or (b"", b"", b"")
    found = b"".join(headers[first:]) if headers[first] else b""
    memory.write(value, found[:size].ljust(size, b"\0"))
    return (len(found) if len(found) <= size else -errno.ENOSPC) if found else -errno.ENOENT


@helper("bpf_setsockopt", differs=_OPTIONS)
def setsockopt(world: World, socket: int, level: int, name: int, value: int, size: int) -> int:
    """Set an option of a socket; 0 or a negative error number."""
    size = W32.wrap(size)
    data = memory.read(value, size)
    key = W32.wrap(level), W32.wrap(name)
    kind = _kind_of(world, socket)
    options = world.environment.socket_options
    if _is_unlocked(world, socket):
        return -errno.EOPNOTSUPP
    if not kind.is_full or not kind.has(key[0]):
        return -errno.EINVAL
    if key == BIND_TO_DEVICE:
        options[key] = _text(data[:15])
        return 0
    if key == CONGESTION:
        if size < 2:
            return -errno.EINVAL
        if _text(data) == b"cdg":
            return -ENOTSUPP
        options[key] = _text(data[: CONGESTION_SIZE - 1])
        return 0
    option = OPTIONS.get(key)
    kept = option.keeps(int.from_bytes(data, "little", signed=True)) if option and size == INT_SIZE else None
    if kept is None:
        return -errno.EINVAL
    options[key] = kept
    if key == CALLBACK_FLAGS:
        _show_flags(world, kept)
    return 0


@helper("bpf_getsockopt", differs=_OPTIONS)
def getsockopt(world: World, socket: int, level: int, name: int, value: int, size: int) -> int:
    """Write the value of an option of a socket; 0, or a negative error number and zeros."""
    size = W32.wrap(size)
    memory.check(value, size, "store")
    key = W32.wrap(level), W32.wrap(name)
    if _is_unlocked(world, socket):
        return -errno.EOPNOTSUPP
    if key in SYN_FROM and isinstance(world.context, SockOpsContext) and socket == world.context.start:
        return _copy_syn(world.context, value, size, SYN_FROM[key])
    kind = _kind_of(world, socket)
    found = _value(world, key, size) if kind.is_full and kind.has(key[0]) else None
    memory.write(value, (found or b"").ljust(size, b"\0"))
    return -errno.EINVAL if found is None else 0


def _value(world: World, key: tuple[int, int], size: int) -> bytes | None:
    """Return the bytes of an option, None for one that programs do not get."""
    options = world.environment.socket_options
    option = OPTIONS.get(key)
    if option is not None:
        if not option.reads or size != INT_SIZE:
            return None
        return (_number(options.get(key), option.usual) & 0xFFFFFFFF).to_bytes(INT_SIZE, "little")
    if key == CONGESTION and size >= 2:
        return _bytes(options.get(key, b"cubic"))[: min(size, CONGESTION_SIZE) - 1]
    if key == SAVED_SYN and key in options and 1 <= size <= len(_bytes(options[key])):
        return _bytes(options[key])[:size]
    return None


def _number(value: Any, usual: int) -> int:
    return value if isinstance(value, int) else usual


def _bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else b""


def _show_flags(world: World, flags: int) -> None:
    """Put the flags of a sock_ops program where it reads them."""
    layout = getattr(world.context, "layout", None)
    field = layout.by_name.get("bpf_sock_ops_cb_flags") if layout is not None else None
    if field is not None and field.stop <= len(world.context.memory):
        world.context.put("bpf_sock_ops_cb_flags", flags.to_bytes(INT_SIZE, "little"))


@helper("bpf_bind", differs="says whether Linux would take the address; nothing is bound")
def bind(world: World, context: int, address: int, size: int) -> int:
    """Bind a socket to an address before it is connected; 0 or a negative error number."""
    size = W32.wrap(size)
    data = memory.read(address, size)
    if size < FAMILY_SIZE:
        return -errno.EINVAL
    family = int.from_bytes(data[:FAMILY_SIZE], "little")
    if family not in ADDRESS_SIZES:
        return -errno.EAFNOSUPPORT
    return -errno.EINVAL if size < ADDRESS_SIZES[family] else 0
