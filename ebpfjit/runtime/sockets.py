"""Sockets that a user puts into the world of a run, and how programs see them.

struct bpf_sock (include/uapi/linux/bpf.h), 80 bytes:
0 bound_dev_if  4 family  8 type  12 protocol  16 mark  20 priority
24 src_ip4  28 src_ip6[4]  44 src_port  48 dst_port (big-endian)
52 dst_ip4  56 dst_ip6[4]  72 state  76 rx_queue_mapping
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from operator import index

from ebpfjit.named import brief
from ebpfjit.record import dataclass, field
from ebpfjit.runtime.given import MAPPING, NUMBER, S32, TEXT, TUPLE, U32, U64, check

SOCK_SIZE = 80
_SOCK = struct.Struct("<6I4s16sIHxx4s16sIi")
_TCP_SOCK = struct.Struct("<20I2Q4I")
_AF_INET, _AF_INET6 = 2, 10
_TCP_ESTABLISHED, _TCP_CLOSE, TCP_LISTEN = 1, 7, 10
_PROTOCOLS = {"tcp": (1, 6), "udp": (2, 17)}  # type (SOCK_STREAM, SOCK_DGRAM) and IPPROTO_*

TCP_FIELDS = (
    "snd_cwnd", "srtt_us", "rtt_min", "snd_ssthresh", "rcv_nxt", "snd_nxt", "snd_una", "mss_cache",
    "ecn_flags", "rate_delivered", "rate_interval_us", "packets_out", "retrans_out", "total_retrans",
    "segs_in", "data_segs_in", "segs_out", "data_segs_out", "lost_out", "sacked_out",
    "bytes_received", "bytes_acked", "dsack_dups", "delivered", "delivered_ce", "icsk_retransmits",
)  # fmt: skip
"""The fields of struct bpf_tcp_sock, in order."""

_WIDE = ("bytes_received", "bytes_acked")

Address = tuple[str, int]
"""An IP address and a port, ("10.0.0.1", 80)."""


@dataclass(frozen=True, slots=True)
class Socket:
    """A socket of protocol "tcp" or "udp", bound to `local` and, where connected, to `remote`.

    `interface` is the number of the one it is bound to (0: none), `mark` and `priority` are its options, and
    `rx_queue` is the queue of its packets (-1: none). `state` is a TCP_*; where None, a connected socket is
    established and any other listens. `cookie` names it, `tcp` gives fields of struct bpf_tcp_sock that are
    not 0. Raises ValueError for a protocol, address, port or field that does not exist or a number that has
    no room, TypeError for what is something else.
    """

    protocol: str
    local: Address
    remote: Address | None = None
    interface: int = 0
    mark: int = 0
    priority: int = 0
    rx_queue: int = -1
    state: int | None = None
    cookie: int = 0
    tcp: Mapping[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        return brief(self)

    def __post_init__(self) -> None:
        import ipaddress  # few runs ask for it

        check(self, _KINDS)
        if self.protocol not in _PROTOCOLS:
            raise ValueError(f"a socket's protocol is one of {', '.join(_PROTOCOLS)}, not {self.protocol!r}")
        if unknown := set(self.tcp) - set(TCP_FIELDS):
            raise ValueError(f"struct bpf_tcp_sock has no field {', '.join(sorted(unknown))}")
        for name, value in self.tcp.items():
            (U64 if name in _WIDE else U32).check(f"tcp: {name}", value)
        versions = set()
        for side in ("local", "remote"):
            given = getattr(self, side)
            if given is None:
                continue
            if len(given) != 2:
                raise ValueError(f"a socket's address is an IP address and a port, not {given!r}")
            address, port = given
            TEXT.check("the IP address of a socket", address)
            NUMBER.check(f"the port of {address}", port)
            port = index(port)
            versions.add(ipaddress.ip_address(address).version)
            if not 0 <= port <= 0xFFFF:
                raise ValueError(f"port {port} of {address} is not from 0 to 65535")
            object.__setattr__(self, side, (address, port))
        if len(versions) > 1:
            raise ValueError(f"{self.local[0]} and {self.remote} are of two IP versions")

    def to_bytes(self) -> bytes:
        """Return it as struct bpf_sock."""
        import ipaddress  # few runs ask for it

        kind, protocol = _PROTOCOLS[self.protocol]
        source = ipaddress.ip_address(self.local[0]).packed
        address, port = self.remote or ("::" if len(source) == 16 else "0.0.0.0", 0)
        destination = ipaddress.ip_address(address).packed
        return _SOCK.pack(
            self.interface, _AF_INET if len(source) == 4 else _AF_INET6, kind, protocol,
            self.mark, self.priority, *_four_and_sixteen(source), self.local[1],
            int.from_bytes(port.to_bytes(2, "big"), "little"), *_four_and_sixteen(destination),
            self.effective_state, self.rx_queue,
        )  # fmt: skip

    def tcp_to_bytes(self) -> bytes:
        """Return it as struct bpf_tcp_sock."""
        return _TCP_SOCK.pack(*(self.tcp.get(name, 0) for name in TCP_FIELDS))

    @property
    def effective_state(self) -> int:
        """Its state, a TCP_* number."""
        if self.state is not None:
            return self.state
        if self.remote is not None:
            return _TCP_ESTABLISHED
        return TCP_LISTEN if self.protocol == "tcp" else _TCP_CLOSE


_KINDS = {
    "protocol": TEXT,
    "local": TUPLE,
    "remote": TUPLE.or_none(),
    **dict.fromkeys(("interface", "mark", "priority"), U32),
    "rx_queue": S32,
    "state": U32.or_none(),
    "cookie": U64,
    "tcp": MAPPING,
}


def _four_and_sixteen(packed: bytes) -> tuple[bytes, bytes]:
    """Return an address as the fields for IPv4 and for IPv6: one of them is zero."""
    return (packed, bytes(16)) if len(packed) == 4 else (bytes(4), packed)


def look_up(sockets: Iterable[Socket], protocol: str, source: Address, destination: Address) -> Socket | None:
    """Return the socket that a packet from `source` to `destination` belongs to, None where none.

    A connected socket goes before one that is bound to the address, that before one bound to all
    addresses; among equals the first.
    """
    best, best_score = None, 0
    for socket in sockets:
        score = _score(socket, protocol, source, destination)
        if score > best_score:
            best, best_score = socket, score
    return best


def _score(socket: Socket, protocol: str, source: Address, destination: Address) -> int:
    import ipaddress  # few runs ask for it

    if socket.protocol != protocol or socket.local[1] != destination[1]:
        return 0
    local, wanted = ipaddress.ip_address(socket.local[0]), ipaddress.ip_address(destination[0])
    if local.version != wanted.version or not (local == wanted or local.is_unspecified):
        return 0
    if socket.remote is None:
        return 1 if local.is_unspecified else 2
    remote = (ipaddress.ip_address(socket.remote[0]), socket.remote[1])
    return 3 if remote == (ipaddress.ip_address(source[0]), source[1]) else 0
