"""In a network namespace of its own: bpf_fib_lookup of the kernel and of Environment.network agree.

Started by test_fib_agrees.py with unshare(1). Prints "skipped: why", or one line for each difference
and a last one with the number of lookups.
"""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1] / "unit")]

from test_helpers_packets import fib  # noqa: E402 - found by the line above

from ebpfjit import Interface, Network, Route  # noqa: E402 - likewise
from tests.support.whole import part  # noqa: E402 - likewise

# p2 comes before d2: what a lookup names is the interface of a route, not the first there is.
COMMANDS = """
ip link set lo up
ip link add d2 type veth peer name p2
ip link add d3 type veth peer name p3
ip link set p2 up
ip link set p3 up
ip link set d2 address 02:00:00:00:00:a2 up
ip link set d3 address 02:00:00:00:00:a3 up
ip addr add 10.9.9.1/24 dev d2
ip addr add 10.0.0.77/24 dev d3 noprefixroute
ip route add 10.0.0.0/8 via 10.9.9.9 dev d2 metric 5
ip route add 10.0.0.0/24 dev d3 src 10.0.0.77 mtu lock 600
ip route add blackhole 10.66.0.0/16
ip route add prohibit 10.67.0.0/16
ip route add unreachable 10.68.0.0/16
ip neigh add 10.9.9.9 lladdr 02:00:00:00:09:09 dev d2 nud permanent
ip neigh add 10.0.0.2 lladdr 02:00:00:00:00:22 dev d3 nud permanent
sysctl -qw net.ipv4.conf.all.forwarding=1
sysctl -qw net.ipv6.conf.all.forwarding=1
ip -6 addr add fe80::a2/64 dev d2 nodad
ip -6 route add 2001:db8::/32 via fe80::1 dev d2
ip -6 neigh add fe80::1 lladdr 02:00:00:00:0f:e8 dev d2 nud permanent
"""


def network() -> tuple[Network, int]:
    """Return what the commands made, and the number of d2."""
    lines = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    fields = [line.split(":") for line in lines.splitlines()]
    index = {name.strip().split("@")[0]: int(number) for number, name, *_ in fields}
    d2, d3 = index["d2"], index["d3"]
    return Network(
        routes=(
            Route("10.0.0.0/8", ifindex=d2, gateway="10.9.9.9", metric=5, source="10.9.9.1"),
            Route("10.0.0.0/24", ifindex=d3, source="10.0.0.77", mtu=600),
            Route("10.66.0.0/16", kind="blackhole"),
            Route("10.67.0.0/16", kind="prohibit"),
            Route("10.68.0.0/16", kind="unreachable"),
            Route("2001:db8::/32", ifindex=d2, gateway="fe80::1", metric=1024, source="fe80::a2"),
            Route("10.9.9.0/24", ifindex=d2, source="10.9.9.1"),
            Route("10.9.9.1/32", kind="local"),
        ),
        neighbours={
            "10.9.9.9": "02:00:00:00:09:09",
            "10.0.0.2": "02:00:00:00:00:22",
            "fe80::1": "02:00:00:00:0f:e8",
        },
        interfaces={
            1: Interface(mtu=65536),
            d2: Interface(mac="02:00:00:00:00:a2"),
            d3: Interface(mac="02:00:00:00:00:a3"),
        },
    ), d2


DESTINATIONS = (
    "10.1.2.3", "10.0.0.2", "10.0.0.3", "10.66.0.1", "10.67.0.1", "10.68.0.1", "11.0.0.1", "2001:db8::5",
    "2a00::1", "10.9.9.1", "10.9.9.7",
)  # fmt: skip


def main() -> None:
    for command in COMMANDS.strip().splitlines():
        try:
            subprocess.run(command.split(), check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"skipped: {command}: {getattr(error, 'stderr', error)}")
            return
    known, d2 = network()
    count = 0
    every = product(
        ("xdp", "tc"), DESTINATIONS, (0, 100, 600, 601, 1501), (0, 1, 2, 4, 16, 20, 64), (1, d2, 99), (64, 63)
    )
    for type, destination, length, flags, ifindex, size in part(list(every), 5):
        if size == 63 and flags:
            continue
        given = {"type": type, "length": length, "flags": flags, "ifindex": ifindex, "size": size}
        theirs = fib(destination, engine="kernel", **given)  # type: ignore[arg-type]
        ours = fib(destination, engine="interpreter", network=known, **given)  # type: ignore[arg-type]
        count += 1
        if theirs != ours:
            print(f"{destination} {given}: the kernel {theirs}, here {ours}")
    print(f"{count} lookups")


if __name__ == "__main__":
    main()
