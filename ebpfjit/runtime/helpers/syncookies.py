"""Helpers of SYN cookies: sequence numbers that stand for a connection (net/ipv4/syncookies.c).

    cookie = hash(flow) + sequence number + minutes << 24 + (hash(flow, minutes) + index of MSS) % 2**24

Linux hashes with random keys, so that its cookies are others; what comes of them is the same.
"""

from __future__ import annotations

import errno
import struct

from ebpfjit.bits import W32
from ebpfjit.errors import ExecutionError
from ebpfjit.record import dataclass
from ebpfjit.runtime import memory
from ebpfjit.runtime.helpers.sockets import socket_at
from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.sockets import SOCK_SIZE, TCP_LISTEN, Socket
from ebpfjit.runtime.world import World

PERIOD = 60 * 10**9
"""Nanoseconds for which a cookie is made the same way (TCP_SYNCOOKIE_PERIOD)."""
MOST_PERIODS = 2
"""How many of them it is good for (MAX_SYNCOOKIE_AGE)."""
_COUNT_SHIFT, _LOW = 24, (1 << 24) - 1
TCP_HEADER_SIZE, TCP = 20, 6
FIN, SYN, RST, ACK = 1, 2, 4, 16
_END, _PADDING, _MSS, _MSS_SIZE = 0, 1, 2, 4
AF_INET6 = 10
_KEY = b"the same in every run"
_ANY_KEY = "Linux hashes with a random key, here equal flows have equal cookies"
_OF_SOCKETS = f"as where tcp_syncookies is 2, and the socket had too many SYNs of late; {_ANY_KEY}"


@dataclass(frozen=True, slots=True)
class _Version:
    """A version of IP: its header's bytes, where its addresses are, sizes of segments that cookies tell."""

    header: int
    addresses: slice
    sizes: tuple[int, ...]
    usual: int


_VERSIONS = {
    4: _Version(20, slice(12, 20), (536, 1300, 1440, 1460), 536),
    6: _Version(40, slice(8, 40), (1220, 1420, 1440, 8940), 1220),
}


def _hash(flow: bytes, count: int, number: int) -> int:
    import hashlib  # few programs ask for it, and it loads OpenSSL

    data = flow + struct.pack("<IB", count, number)
    return int.from_bytes(hashlib.blake2s(data, digest_size=4, key=_KEY).digest(), "little")


@dataclass(frozen=True, slots=True)
class _Flow:
    """What names a connection; `mss` is the index of its size of segments where it was told."""

    version: _Version
    name: bytes
    sequence: int
    acknowledged: int

    @classmethod
    def of(cls, version: _Version, ip: bytes, tcp: bytes) -> _Flow:
        source_and_destination, sequence, acknowledged = struct.unpack_from(">4sII", tcp)
        return cls(version, ip[version.addresses] + source_and_destination, sequence, acknowledged)

    def cookie(self, mss: int, count: int) -> int:
        """Return cookie | size of segments << 32 for what a SYN says (cookie_init_sequence)."""
        sizes = self.version.sizes
        index = max((at for at, size in enumerate(sizes) if mss >= size), default=0)
        low = W32.wrap(_hash(self.name, count, 1) + index) & _LOW
        made = _hash(self.name, 0, 0) + self.sequence + (count << _COUNT_SHIFT) + low
        return W32.wrap(made) | sizes[index] << 32

    def is_known(self, count: int) -> bool:
        """True where an ACK gives back a cookie that was made lately (cookie_check)."""
        cookie = W32.wrap(self.acknowledged - 1 - _hash(self.name, 0, 0) - W32.wrap(self.sequence - 1))
        age = (count - (cookie >> _COUNT_SHIFT)) & 0xFF
        if age >= MOST_PERIODS:
            return False
        return (cookie - _hash(self.name, W32.wrap(count - age), 1)) & _LOW < len(self.version.sizes)


def _count(world: World) -> int:
    return W32.wrap(world.environment.clock() // PERIOD)


def _mss(tcp: bytes) -> int:
    """Return what the option of a header says, 0 for none (tcp_parse_mss_option)."""
    at, found = TCP_HEADER_SIZE, 0
    while at < len(tcp) and tcp[at] != _END:
        if tcp[at] == _PADDING:
            at += 1
            continue
        size = tcp[at + 1] if at + 1 < len(tcp) else 0
        if not 2 <= size <= len(tcp) - at:
            break
        if tcp[at] == _MSS and size == _MSS_SIZE:
            found = int.from_bytes(tcp[at + 2 : at + 4], "big") or found
        at += size
    return found


def _is_whole(tcp: bytes) -> bool:
    """True for a TCP header with all of its options, and nothing else."""
    return len(tcp) >= TCP_HEADER_SIZE and len(tcp) == 4 * (tcp[12] >> 4)


# -- without a socket -------------------------------------------------------------------------------


def _raw_gen(world: World, number: int, ip: int, tcp: int, size: int) -> int:
    version, size = _VERSIONS[number], W32.wrap(size)
    header = memory.read(ip, version.header)
    memory.check(tcp, size, "load")
    if size < TCP_HEADER_SIZE or size > 4 * 15:
        return -errno.EINVAL
    segment = memory.read(tcp, size)
    if not _is_whole(segment):
        return -errno.EINVAL
    return _Flow.of(version, header, segment).cookie(_mss(segment) or version.usual, _count(world))


def _raw_check(world: World, number: int, ip: int, tcp: int) -> int:
    version = _VERSIONS[number]
    header, segment = memory.read(ip, version.header), memory.read(tcp, TCP_HEADER_SIZE)
    return 0 if _Flow.of(version, header, segment).is_known(_count(world)) else -errno.EACCES


@helper("bpf_tcp_raw_gen_syncookie_ipv4", asks_user=True, gpl=True, differs=_ANY_KEY)
def tcp_raw_gen_syncookie_ipv4(world: World, ip: int, tcp: int, tcp_size: int) -> int:
    """Return cookie | size of segments << 32 for a SYN, -EINVAL for what is no TCP header."""
    return _raw_gen(world, 4, ip, tcp, tcp_size)


@helper("bpf_tcp_raw_gen_syncookie_ipv6", asks_user=True, gpl=True, differs=_ANY_KEY)
def tcp_raw_gen_syncookie_ipv6(world: World, ip: int, tcp: int, tcp_size: int) -> int:
    """Return cookie | size of segments << 32 for a SYN, -EINVAL for what is no TCP header."""
    return _raw_gen(world, 6, ip, tcp, tcp_size)


@helper("bpf_tcp_raw_check_syncookie_ipv4", asks_user=True, gpl=True, differs=_ANY_KEY)
def tcp_raw_check_syncookie_ipv4(world: World, ip: int, tcp: int) -> int:
    """Return 0 where an ACK has a cookie of the last two minutes, else -EACCES."""
    return _raw_check(world, 4, ip, tcp)


@helper("bpf_tcp_raw_check_syncookie_ipv6", asks_user=True, gpl=True, differs=_ANY_KEY)
def tcp_raw_check_syncookie_ipv6(world: World, ip: int, tcp: int) -> int:
    """Return 0 where an ACK has a cookie of the last two minutes, else -EACCES."""
    return _raw_check(world, 6, ip, tcp)


# -- of a socket ------------------------------------------------------------------------------------


def _listener(world: World, address: int, name: str) -> int | None:
    """Return the family of a TCP socket that listens, None for any other. Raises ExecutionError for none."""
    found = socket_at(world, address)
    if found is None:
        raise ExecutionError(f"{name}: r1 is {address:#x}, which is no socket that a lookup gave")
    made = found.to_bytes() if isinstance(found, Socket) else memory.read(address, SOCK_SIZE)
    family, _, protocol = struct.unpack_from("<III", made, 4)
    (state,) = struct.unpack_from("<I", made, 72)
    return family if (protocol, state) == (TCP, TCP_LISTEN) else None


def _of_ip(ip: bytes, family: int) -> _Version | int:
    """Return the version of a packet for a socket, or a negative error number."""
    number = ip[0] >> 4
    version = _VERSIONS.get(number)
    if version is None:
        return -errno.EPROTONOSUPPORT
    if len(ip) < version.header or (number == 6 and family != AF_INET6):
        return -errno.EINVAL
    return version


def _headers(ip: int, ip_size: int, tcp: int, tcp_size: int) -> tuple[bytes, bytes]:
    """Return both headers, no more of each than the longest that there is."""
    memory.check(ip, W32.wrap(ip_size), "load")
    memory.check(tcp, W32.wrap(tcp_size), "load")
    return memory.read(ip, min(W32.wrap(ip_size), 60)), memory.read(tcp, min(W32.wrap(tcp_size), 61))


@helper("bpf_tcp_gen_syncookie", asks_user=True, gpl=True, differs=_OF_SOCKETS)
def tcp_gen_syncookie(world: World, socket: int, ip: int, ip_size: int, tcp: int, tcp_size: int) -> int:
    """Return cookie | size of segments << 32 for a SYN to a socket that listens, or -errno."""
    header, segment = _headers(ip, ip_size, tcp, tcp_size)
    if not socket or not _is_whole(segment):
        return -errno.EINVAL
    family = _listener(world, socket, "bpf_tcp_gen_syncookie")
    if family is None or segment[13] & (SYN | ACK | FIN | RST) != SYN or len(header) < _VERSIONS[4].header:
        return -errno.EINVAL
    version = _of_ip(header, family)
    if isinstance(version, int):
        return version
    return _Flow.of(version, header, segment).cookie(_mss(segment) or version.usual, _count(world))


@helper("bpf_tcp_check_syncookie", asks_user=True, gpl=True, differs=_OF_SOCKETS)
def tcp_check_syncookie(world: World, socket: int, ip: int, ip_size: int, tcp: int, tcp_size: int) -> int:
    """Return 0 where an ACK to a socket that listens has a cookie of the last two minutes, or -errno."""
    header, segment = _headers(ip, ip_size, tcp, tcp_size)
    if not socket or len(segment) < TCP_HEADER_SIZE:
        return -errno.EINVAL
    family = _listener(world, socket, "bpf_tcp_check_syncookie")
    if family is None:
        return -errno.EINVAL
    if segment[13] & (ACK | RST | SYN) != ACK:
        return -errno.ENOENT
    if len(header) < _VERSIONS[4].header:
        return -errno.EINVAL
    version = _of_ip(header, family)
    if isinstance(version, int):
        return version
    return 0 if _Flow.of(version, header, segment).is_known(_count(world)) else -errno.ENOENT
