"""Tests of the firewall: pytest --ebpf-cov."""

from pathlib import Path

import pytest
from scapy.all import ARP, IP, TCP, UDP, Ether

from ebpfjit import load
from ebpfjit.cost import measure
from ebpfjit.fuzzing import ebpf_fuzz

OBJECT = Path(__file__).with_name("firewall.o")
DNS = bytes(Ether() / IP(dst="192.0.2.1") / UDP(dport=53))


def firewall():
    obj = load(OBJECT)
    obj.maps["blocked"][53] = 1
    return obj


@pytest.mark.parametrize(
    ("frame", "action"),
    [
        (Ether() / IP(dst="192.0.2.1") / UDP(dport=53), "XDP_DROP"),
        (Ether() / IP(dst="192.0.2.1") / UDP(dport=80), "XDP_PASS"),
        (Ether() / IP(dst="192.0.2.1") / TCP(dport=53), "XDP_PASS"),
        (Ether() / ARP(), "XDP_PASS"),
    ],
)
def test_verdicts(ebpf_run, frame, action):
    obj = firewall()
    result = ebpf_run(obj.programs["firewall"], bytes(frame))
    assert result.action == action
    assert obj.globals["dropped"] == (action == "XDP_DROP")


def test_what_ends_early_passes(ebpf_run):
    for size in range(14, len(DNS)):
        assert ebpf_run(firewall().programs["firewall"], DNS[:size]).action == "XDP_PASS"


RULE = """(
    action == XDP_DROP
    or len(packet) < 42 or u16(packet, 12) != 0x800 or u8(packet, 23) != 17     # no UDP over IPv4
    or u8(packet, 14) & 15 < 5 or len(packet) < 22 + 4 * (u8(packet, 14) & 15)  # cut off
    or u16(packet, 16 + 4 * (u8(packet, 14) & 15)) not in maps["blocked"]
)"""


@ebpf_fuzz(lambda: firewall().programs["firewall"], check=RULE, runs=20_000)
def test_no_packet_slips_through(packet, result, report):
    assert report.ways == report.all_ways  # every branch went both ways
    assert result.data == packet


def test_no_packet_costs_much():
    cost = measure(firewall().programs["firewall"], [DNS, bytes(60)])
    assert max(cost.by_packet) <= 40  # instructions
