"""Tests of an XDP program, as a user writes them.

pytest examples/pytest                                        machine code
pytest examples/pytest --ebpf-engines=interpreter,jit,kernel  each test on each engine
"""

import struct

import pytest

ETHERNET = bytes.fromhex("020000000001 020000000002 0800")


def udp(port: int, payload: bytes = b"hello") -> bytes:
    """An Ethernet frame with a UDP packet to `port`."""
    datagram = struct.pack(">HHHH", 40000, port, 8 + len(payload), 0) + payload
    header = struct.pack(
        ">BBHHHBBH4s4s", 0x45, 0, 20 + len(datagram), 1, 0, 64, 17, 0, b"\x0a\0\0\1", b"\x0a\0\0\2"
    )
    return ETHERNET + header + datagram


@pytest.fixture
def program(ebpf_load):
    """The program under test; the path counts from this file."""
    return ebpf_load("drop_discard.o").programs["drop_discard"]


@pytest.mark.parametrize(("port", "action"), [(9, "XDP_DROP"), (8, "XDP_PASS"), (53, "XDP_PASS")])
def test_port(program, ebpf_run, port, action):
    result = ebpf_run(program, udp(port))
    assert result.action == action
    assert result.data == udp(port)  # the packet is left as it was


def test_what_is_too_short_passes(program, ebpf_run):
    for size in range(14, 14 + 20 + 8):
        assert ebpf_run(program, udp(9)[:size]).action == "XDP_PASS"


def test_ip_options_are_left_alone(program, ebpf_run):
    packet = bytearray(udp(9))
    packet[14] = 0x46
    assert ebpf_run(program, packet).action == "XDP_PASS"
