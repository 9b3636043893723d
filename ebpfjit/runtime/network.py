"""The network around a run, as bpf_fib_lookup and its like see it: interfaces, routes, neighbours.

The user fills it; the longest prefix wins, then the lowest metric:

    Network(routes=(Route("10.0.0.0/8", ifindex=2, gateway="10.1.1.1"),),
            neighbours={"10.1.1.1": "02:00:00:00:00:09"},
            interfaces={2: Interface(mac="02:00:00:00:00:02")})
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from ebpfjit.named import brief
from ebpfjit.record import dataclass, field
from ebpfjit.runtime.given import MAPPING, NUMBER, TEXT, TUPLE, U8, U16, U32, Kind, check, check_each

LOOPBACK = 1

if TYPE_CHECKING:
    import ipaddress
    from typing import TypeAlias

    IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
    IpNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

KINDS = ("unicast", "blackhole", "unreachable", "prohibit", "local")


def ip_address(address: str | bytes) -> IpAddress:
    """Return an address, by its text or its bytes. Raises ValueError."""
    import ipaddress  # few runs ask for it

    return ipaddress.ip_address(address)


def mac_bytes(text: str) -> bytes:
    """Return the 6 bytes of "02:00:00:00:00:01". Raises ValueError."""
    data = bytes.fromhex(text.replace(":", "").replace("-", ""))
    if len(data) != 6:
        raise ValueError(f"a link address has 6 bytes, {text!r} has {len(data)}")
    return data


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface: its MTU (`mtu`) in bytes, without the link header, and its link address (`mac`).

    `forwards` is true where packets that came in by it may be routed. Raises ValueError for a link
    address that is none and an MTU that is no u32, TypeError for what is something else.
    """

    mtu: int = 1500
    mac: str = "00:00:00:00:00:00"
    forwards: bool = True

    def __repr__(self) -> str:
        return brief(self)

    def __post_init__(self) -> None:
        check(self, _INTERFACE_KINDS)
        mac_bytes(self.mac)


_INTERFACE_KINDS = {"mtu": U32, "mac": TEXT}


@dataclass(frozen=True, slots=True)
class TunnelKey:
    """The outer header of a tunnel's packet: `id` and addresses as text, IPv4 or IPv6.

    `remote` is the far end, `local` this one; `tos`, `ttl` and the IPv6 flow `label` are those of
    the outer IP header, `flags` the TUNNEL_* of the kernel (u16). Raises ValueError for addresses
    that are none, or of both kinds, and numbers that have no room; TypeError for what is something else.
    """

    id: int = 0
    remote: str = "0.0.0.0"
    local: str = "0.0.0.0"
    tos: int = 0
    ttl: int = 0
    label: int = 0
    flags: int = 0

    def __repr__(self) -> str:
        return brief(self)

    def __post_init__(self) -> None:
        check(self, _TUNNEL_KINDS)
        if ip_address(self.remote).version != ip_address(self.local).version:
            raise ValueError(f"a tunnel from {self.local} to {self.remote}: one is IPv4, the other IPv6")


_TUNNEL_KINDS = {
    **dict.fromkeys(("id", "label"), U32),
    **dict.fromkeys(("remote", "local"), TEXT),
    **dict.fromkeys(("tos", "ttl"), U8),
    "flags": U16,
}


@dataclass(frozen=True)
class Route:
    """A route: packets to `network` ("10.0.0.0/8", "::/0") leave by interface `ifindex`.

    They go to `gateway` where there is one, else straight to their destination; `source` is the preferred
    source address, `metric` (u32) decides among routes of one network, the lowest one wins, `mtu` that of the
    path (None: the interface's). `kind` is one of KINDS; all but "unicast" forward nothing. `table` is what
    BPF_FIB_LOOKUP_TBID asks for. Raises ValueError for an address that is none and a number that is no u32,
    TypeError for what is something else.
    """

    network: str
    ifindex: int = 0
    gateway: str | None = None
    source: str | None = None
    metric: int = 0
    mtu: int | None = None
    kind: str = "unicast"
    table: int = 254

    def __repr__(self) -> str:
        return brief(self)

    def __post_init__(self) -> None:
        check(self, _ROUTE_KINDS)
        if self.kind not in KINDS:
            raise ValueError(f"no kind of route {self.kind!r}; there are: {', '.join(KINDS)}")
        self.prefix  # noqa: B018 - so that a wrong one is said here
        for address in (self.gateway, self.source):
            if address is not None:
                ip_address(address)

    @cached_property
    def prefix(self) -> IpNetwork:
        """The network, parsed."""
        import ipaddress  # few runs ask for it

        return ipaddress.ip_network(self.network, strict=False)


_ROUTE_KINDS = {
    **dict.fromkeys(("network", "kind"), TEXT),
    **dict.fromkeys(("gateway", "source"), TEXT.or_none()),
    **dict.fromkeys(("ifindex", "metric", "table"), U32),
    "mtu": U32.or_none(),
}


@dataclass(frozen=True)
class Network:
    """Interfaces by number, routes, and the link addresses of neighbours by IP address.

    Without `interfaces` every number is one, with an MTU of 1500 bytes (the loopback's, number 1:
    65536). Raises ValueError for an address that is none, TypeError for what is something else.
    """

    routes: tuple[Route, ...] = ()
    neighbours: Mapping[str, str] = field(default_factory=dict)
    interfaces: Mapping[int, Interface] | None = None

    def __repr__(self) -> str:
        return brief(self)

    def __post_init__(self) -> None:
        check(self, _NETWORK_KINDS)
        object.__setattr__(self, "routes", tuple(self.routes))
        check_each("routes", self.routes, _ROUTE)
        check_each("neighbours", [text for pair in self.neighbours.items() for text in pair], TEXT)
        check_each("the numbers of interfaces", self.interfaces or (), NUMBER)
        check_each("interfaces", (self.interfaces or {}).values(), _INTERFACE)
        self._link_addresses  # noqa: B018 - so that a wrong one is said here

    @cached_property
    def _link_addresses(self) -> dict[IpAddress, bytes]:
        if not self.neighbours:
            return {}
        return {ip_address(ip): mac_bytes(mac) for ip, mac in self.neighbours.items()}

    def interface(self, ifindex: int) -> Interface | None:
        """Return an interface by its number (`ifindex`), None where there is none."""
        if self.interfaces is not None:
            return self.interfaces.get(ifindex)
        return Interface(mtu=65536 if ifindex == LOOPBACK else 1500) if ifindex > 0 else None

    def link_address(self, address: IpAddress) -> bytes | None:
        """Return a neighbour's link address, None where it is not known."""
        return self._link_addresses.get(address)

    def route(
        self, address: IpAddress, *, table: int | None = None, ifindex: int | None = None
    ) -> Route | None:
        """Return the route to an address, of one `table`, or by one `ifindex`; None where there is none."""
        matching = (
            route
            for route in self.routes
            if route.prefix.version == address.version
            and address in route.prefix
            and table in (None, route.table)
            and (ifindex in (None, route.ifindex) or route.kind != "unicast")
        )
        return max(matching, key=_preference, default=None)


_NETWORK_KINDS = {"routes": TUPLE, "neighbours": MAPPING, "interfaces": MAPPING.or_none()}
_ROUTE, _INTERFACE = Kind(Route, "a Route"), Kind(Interface, "an Interface")


def _preference(route: Route) -> tuple[int, int]:
    return route.prefix.prefixlen, -route.metric


NOTHING_KNOWN = Network()
"""Every interface, and no routes."""
