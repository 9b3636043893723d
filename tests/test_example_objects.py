"""Every object of examples/packets on real packets: both engines and Linux agree on all there is to see.

A scenario fills the maps as an operator would; `expected` is what the program is for, said by hand.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether

from ebpfjit import Environment, ExecutionError, Object, Result, kernel, load

OBJECTS = Path(__file__).resolve().parents[1] / "examples" / "packets"
ENGINES = ("interpreter", "jit", "kernel")
FRAME: dict[str, Any] = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
NEW_ADDRESSES = bytes.fromhex("020000000009") + bytes.fromhex("02000000000a")


def ipv4(source: str = "10.0.0.1", destination: str = "10.0.0.2", **fields: Any) -> Any:
    return Ether(**FRAME) / IP(src=source, dst=destination, **fields)


def address(text: str) -> bytes:
    return bytes(int(part) for part in text.split("."))


PACKETS: dict[str, bytes] = {
    name: bytes(packet)
    for name, packet in {
        "dns": ipv4() / UDP(sport=4000, dport=53) / b"what is the address of example.org",
        "http": ipv4() / TCP(sport=4001, dport=80, flags="A") / b"GET / HTTP/1.1\r\n\r\n",
        "syn": ipv4("10.0.0.3", "192.168.7.9") / TCP(sport=4002, dport=443, flags="S"),
        "fin": ipv4("10.0.0.3", "192.168.7.9") / TCP(sport=4002, dport=443, flags="FA"),
        "rst": ipv4("10.9.0.3", "192.168.8.9") / TCP(sport=4003, dport=22, flags="R"),
        "high port": ipv4("10.0.0.4", "8.8.8.8", ttl=200) / UDP(sport=53, dport=40000) / b"answer",
        "no checksum": ipv4("10.0.0.4", "10.0.0.2") / UDP(sport=53, dport=53, chksum=0) / b"unsummed",
        "ping": ipv4("10.0.0.5", "172.16.0.1", ttl=2) / ICMP() / b"abcdefgh",
        "last hop": ipv4("10.0.0.5", "172.16.0.1", ttl=1) / UDP(dport=20) / b"trace",
        "options": ipv4(options=[("NOP")] * 4) / UDP(sport=1, dport=53) / (b"with options" * 3),
        "tunnel": ipv4("192.0.2.1", "192.0.2.2") / IP(dst="10.7.0.2") / UDP(dport=9) / b"inner",
        "ipv6": Ether(**FRAME) / IPv6(dst="fd::2") / UDP(dport=53) / b"6",
        "arp": Ether(**FRAME) / ARP(psrc="10.0.0.1", pdst="10.0.0.2") / bytes(18),
        "vlan": Ether(**FRAME) / Dot1Q(vlan=100) / IP(dst="10.0.0.2") / UDP(dport=53) / b"tagged",
        "cut short": bytes(ipv4() / UDP(sport=1, dport=53))[:37],
    }.items()
}  # fmt: skip


def _nothing(_: Object) -> None:
    """Leave the maps as they are."""


@dataclass(frozen=True)
class Scenario:
    """An object's program, how its maps are filled, and verdicts (by packet) that are its purpose."""

    file: str
    program: str
    expected: dict[str, str | int] = field(default_factory=dict)
    fill: Callable[[Object], None] = _nothing

    @property
    def name(self) -> str:
        return f"{self.file}:{self.program}"


def _block_ports(obj: Object) -> None:
    for port in (53, 80, 9):
        obj.maps["blocked"][port] = 1


def _add_routes(obj: Object) -> None:
    for length, prefix in ((8, "10.0.0.0"), (24, "192.168.7.0"), (16, "192.168.0.0"), (12, "172.16.0.0")):
        hop = NEW_ADDRESSES[:5] + bytes([length]) + NEW_ADDRESSES[6:] + bytes(4)
        obj.maps["routes"][struct.pack("<I", length) + address(prefix)] = hop


def _add_backends(obj: Object) -> None:
    obj.maps["protocols"][0] = obj.programs["balance_tcp"]
    obj.maps["protocols"][1] = obj.programs["balance_udp"]
    for index in range(4):
        mac = bytes([2, 0, 0, 0, 1, index])
        ip = int.from_bytes(address(f"10.1.0.{index}"), "little")
        obj.maps["backends"][index] = {"address": ip, "mac": mac, "unused": 0, "packets": 0}


def _some_backends(obj: Object) -> None:
    _add_backends(obj)
    del obj.maps["protocols"][1]


def _add_tunnels(obj: Object) -> None:
    for destination in ("10.0.0.2", "8.8.8.8"):
        obj.maps["tunnels"][address(destination)] = address("192.0.2.1") + address("192.0.2.2")


def _add_translations(obj: Object) -> None:
    for ip, port, new_ip, new_port in (
        ("10.0.0.2", 53, "10.0.0.53", 5353),
        ("10.0.0.2", 80, "10.0.0.80", 8080),
        ("192.168.7.9", 443, "10.0.0.43", 8443),
    ):
        key = address(ip) + port.to_bytes(2, "big") + bytes(2)
        obj.maps["translations"][key] = address(new_ip) + new_port.to_bytes(2, "big") + bytes(2)


def _never_refill(obj: Any) -> None:
    obj.globals["packets_per_second"] = 0
    obj.globals["burst"] = 2


def _configure(obj: Any) -> None:
    obj.globals["allowed_ports"] = {"first": 30000, "last": 50000}
    obj.globals["minimum_ttl"] = 3


SCENARIOS = (
    Scenario("xdp_port_filter", "port_filter", {"dns": "XDP_PASS", "http": "XDP_PASS"}),
    Scenario(
        "xdp_port_filter",
        "port_filter",
        {"dns": "XDP_DROP", "http": "XDP_DROP", "syn": "XDP_PASS", "ipv6": "XDP_PASS", "ping": "XDP_PASS"},
        _block_ports,
    ),
    Scenario(
        "lpm_router",
        "route",
        {"dns": "XDP_TX", "syn": "XDP_TX", "high port": "XDP_DROP", "last hop": "XDP_DROP"},
        _add_routes,
    ),
    Scenario("load_balancer", "dispatch", {"dns": "XDP_PASS", "http": "XDP_PASS"}),
    Scenario(
        "load_balancer",
        "dispatch",
        {"dns": "XDP_TX", "http": "XDP_TX", "ping": "XDP_PASS", "options": "XDP_DROP"},
        _add_backends,
    ),
    Scenario("load_balancer", "dispatch", {"dns": "XDP_PASS", "http": "XDP_TX"}, _some_backends),
    Scenario("vlan", "push", {"dns": "TC_ACT_OK", "vlan": "TC_ACT_SHOT"}),
    Scenario("vlan", "pop", {"dns": "TC_ACT_OK"}),
    Scenario("vlan", "push_and_pop", {"dns": "TC_ACT_OK", "arp": "TC_ACT_OK"}),
    Scenario("ipip", "encapsulate", {"dns": "XDP_TX", "syn": "XDP_PASS"}, _add_tunnels),
    Scenario("ipip", "decapsulate", {"tunnel": "XDP_PASS", "dns": "XDP_PASS"}),
    Scenario("rate_limiter", "limit", {"dns": "XDP_PASS", "no checksum": "XDP_PASS"}, _never_refill),
    Scenario("nat", "translate", {"dns": "TC_ACT_OK", "arp": "TC_ACT_OK"}, _add_translations),
    Scenario("event_logger", "log_connections", {"syn": "XDP_PASS", "dns": "XDP_PASS"}),
    Scenario("socket_statistics", "count", {"ipv6": 0, "arp": 0}),
    Scenario(
        "configurable",
        "configurable",
        {"high port": "XDP_PASS", "dns": "XDP_DROP", "ping": "XDP_DROP", "last hop": "XDP_DROP"},
        _configure,
    ),
)  # fmt: skip


def contents(obj: Object) -> dict[str, Any]:
    """Return what is in the maps: of those that hold values."""
    seen: dict[str, Any] = {}
    for name, map_ in obj.maps.items():
        if name in ("events", "protocols"):
            continue
        seen[name] = dict(map_.items())
    if "buckets" in seen:  # without the time, which is another in each run
        seen["buckets"] = {source: bucket[:8] for source, bucket in seen["buckets"].items()}
    return seen


def start(scenario: Scenario) -> Object:
    obj = load(OBJECTS / f"{scenario.file}.o")
    scenario.fill(obj)
    return obj


def run_all(scenario: Scenario, engine: str) -> tuple[dict[str, Result], Object]:
    obj = start(scenario)
    program = obj.programs[scenario.program]
    return {name: program.run(packet, engine=engine) for name, packet in PACKETS.items()}, obj


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("number", range(len(SCENARIOS)), ids=[s.name for s in SCENARIOS])
def test_verdicts_packets_maps_and_events(number: int, engine: str) -> None:
    scenario = SCENARIOS[number]
    if engine == "kernel" and (reason := kernel.unavailable_reason()):
        pytest.skip(reason)
    results, obj = run_all(scenario, engine)
    reference, reference_obj = run_all(scenario, "interpreter")
    for name, result in results.items():
        wanted = reference[name]
        assert (name, result.return_value, result.action) == (name, wanted.return_value, wanted.action)
        assert (name, result.data.hex()) == (name, wanted.data.hex())
        assert (name, result.events) == (name, wanted.events)
    assert contents(obj) == contents(reference_obj)
    for name, verdict in scenario.expected.items():
        result = results[name]
        assert (name, result.action or result.return_value) == (name, verdict)


@pytest.mark.parametrize("number", range(len(SCENARIOS)), ids=[s.name for s in SCENARIOS])
def test_functions_return_and_leave_the_same(number: int) -> None:
    """Compiled functions and batches have a way in of their own."""
    scenario = SCENARIOS[number]
    reference, reference_obj = run_all(scenario, "interpreter")
    wanted = [reference[name].return_value for name in PACKETS]
    obj = start(scenario)
    function = obj.programs[scenario.program].compile()
    assert [function(packet) for packet in PACKETS.values()] == wanted
    assert contents(obj) == contents(reference_obj)
    obj = start(scenario)
    function = obj.programs[scenario.program].compile()
    assert list(function.map(map(bytearray, PACKETS.values()))) == wanted
    assert contents(obj) == contents(reference_obj)


def test_a_dozen_packets_or_more() -> None:
    assert len(PACKETS) >= 12


def test_the_filter_counts_what_it_drops() -> None:
    results, obj = run_all(SCENARIOS[1], "jit")
    dropped = [PACKETS[name] for name, result in results.items() if result.action == "XDP_DROP"]
    packets, size = struct.unpack("<QQ", obj.maps["counters"][1])
    assert (packets, size) == (len(dropped), sum(map(len, dropped)))


def test_the_router_takes_the_longest_prefix_and_keeps_the_checksum_right() -> None:
    results, _ = run_all(SCENARIOS[2], "jit")
    for name, last_byte in (("dns", 8), ("syn", 24), ("rst", 16), ("ping", 12)):
        routed = Ether(results[name].data)
        assert (name, results[name].data[5]) == (name, last_byte)
        assert routed[IP].ttl == Ether(PACKETS[name])[IP].ttl - 1
        assert routed[IP].chksum == checksum_of(routed)


def checksum_of(frame: Any) -> int:
    """Return what the checksum of a frame's IPv4 header is to be."""
    copy = frame.copy()
    del copy[IP].chksum
    return int(Ether(bytes(copy))[IP].chksum)


def test_one_flow_has_one_backend() -> None:
    results, _ = run_all(SCENARIOS[4], "jit")
    assert Ether(results["syn"].data)[IP].dst == Ether(results["fin"].data)[IP].dst
    assert Ether(results["syn"].data)[IP].dst.startswith("10.1.0.")


def test_what_goes_through_the_tunnel_comes_out_as_it_was() -> None:
    obj = load(OBJECTS / "ipip.o")
    _add_tunnels(obj)
    inside = obj.programs["encapsulate"].run(PACKETS["dns"])
    outer = Ether(inside.data)
    assert (outer[IP].src, outer[IP].dst, outer[IP].proto) == ("192.0.2.1", "192.0.2.2", 4)
    assert outer[IP].chksum == checksum_of(outer)
    assert obj.programs["decapsulate"].run(inside.data).data == PACKETS["dns"]


def test_both_checksums_are_right_after_translation() -> None:
    results, _ = run_all(SCENARIOS[12], "jit")
    for name, layer, ip, port in (("dns", UDP, "10.0.0.53", 5353), ("http", TCP, "10.0.0.80", 8080)):
        frame = Ether(results[name].data)
        assert (frame[IP].dst, frame[layer].dport) == (ip, port)
        copy = frame.copy()
        del copy[IP].chksum, copy[layer].chksum
        assert bytes(copy) == results[name].data
    assert Ether(results["no checksum"].data)[UDP].chksum == 0


def test_the_clock_fills_the_bucket_again() -> None:
    now = [10**9]
    obj = load(OBJECTS / "rate_limiter.o", environment=Environment(clock=lambda: now[0], cpu=1, cpus=2))
    program = obj.programs["limit"]
    for engine in ("jit", "interpreter"):
        now[0] += 10**12
        actions = [program.run(PACKETS["dns"], engine=engine).action for _ in range(6)]
        assert actions == ["XDP_PASS"] * 4 + ["XDP_DROP"] * 2
        now[0] += 10**6  # a thousandth of a second: one packet
        actions = [program.run(PACKETS["dns"], engine=engine).action for _ in range(2)]
        assert actions == ["XDP_PASS", "XDP_DROP"]
    # Both engines are in the totals, and they ran on processor 1.
    assert [int.from_bytes(value, "little") for value in obj.maps["totals"][0]] == [0, 10]
    assert [int.from_bytes(value, "little") for value in obj.maps["totals"][1]] == [0, 6]


@pytest.mark.parametrize("engine", ENGINES)
def test_connections_are_logged(engine: str) -> None:
    if engine == "kernel" and (reason := kernel.unavailable_reason()):
        pytest.skip(reason)
    results, obj = run_all(SCENARIOS[13], engine)
    assert [name for name, result in results.items() if result.events] == ["syn", "fin", "rst"]
    ((name, event),) = results["syn"].events
    assert name == "events"
    assert event == address("10.0.0.3") + address("192.168.7.9") + struct.pack(">HH4B", 4002, 443, 1, 0, 0, 0)
    assert obj.globals["lost"] == 0


def test_statistics_by_protocol_and_port() -> None:
    _, obj = run_all(SCENARIOS[14], "jit")
    ping = len(PACKETS["ping"]) - 14  # sockets see no Ethernet header
    assert int.from_bytes(obj.maps["bytes_by_protocol"][1], "little") == ping
    assert obj.maps["packets_by_port"].typed[443] == 2


def test_global_variables() -> None:
    _, obj = run_all(SCENARIOS[15], "jit")
    assert obj.globals["seen"] == len(PACKETS)
    assert obj.globals["dropped"] > 0
    assert obj.globals["name"].startswith(b"default")
    assert sum(obj.globals["by_ttl"]) == sum(
        1 for p in PACKETS.values() if p[12:14] == b"\x08\x00" and len(p) >= 34
    )


def test_a_section_that_tells_no_type_is_said() -> None:
    program = load(OBJECTS / "xdp_port_filter.o").programs["port_filter"]
    unknown = replace(program, type=None, section="firewall")
    with pytest.raises(ExecutionError, match="'port_filter': section 'firewall' tells no program type"):
        unknown.run(PACKETS["dns"])
