"""tcpdump's expressions: libpcap's own verdict on every packet, on every engine; as XDP programs that Linux
takes.
"""

from __future__ import annotations

import ctypes
import itertools
import shutil
import subprocess
from array import array
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, GRE, Dot1Q, Ether
from scapy.layers.sctp import SCTP

from ebpfjit import (
    BudgetExhausted,
    FilterError,
    TranslationError,
    VerifierError,
    capture,
    classic,
    filters,
    kernel,
    load,
)
from ebpfjit.filters import pcap
from tests.support.whole import WHOLE

try:
    pcap._library()
except FilterError as missing:
    pytest.skip(str(missing), allow_module_level=True)

HOSTS = ("10.0.0.1", "10.0.0.2", "192.168.7.9")
PORTS = (53, 80, 443)
SIMPLE = tuple(
    """

ip
ip6
arp
rarp
tcp
udp
icmp
icmp6
sctp
ether multicast
ether broadcast
ip multicast
vlan
vlan 7
vlan 7 and tcp
mpls
pppoes
less 60
greater 200
len = 60
ip[6:2] & 0x1fff != 0
tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn
tcp[13] = 2
ip[8] < 64
ip proto 47
ether[0] & 1 = 0 and ip[16] >= 224
ether proto 0x88cc
ether host 02:00:00:00:00:01
not ip
ip6[40] = 128
portrange 50-100
tcp portrange 440-450
src portrange 1-1023
ip net 10.0.0.0/8
dst net 192.168.0.0/16
ip6 net fe80::/10
host 10.0.0.1
(tcp or udp) and not port 53
tcp and (ip[2:2] - ((ip[0]&0xf)<<2)) - ((tcp[12]&0xf0)>>2) != 0
icmp[icmptype] = icmp-echo
udp[8:4] = 0x61626364
ip[0] & 0xf > 5
tcp[2:2] % 2 = 0
udp[4:2] / 4 > 3
ip[2:2] * 2 > 100
1 = 1
ip[ip[0] & 0xf] = 0
atalk
ipx
stp
""".splitlines()[1:]
)
WAYS, KINDS = ("", "src ", "dst "), ("tcp", "udp", "sctp", "")
MIXED = ("tcp", "ip6", "port 80", "net 10.0.0.0/8", "vlan")
EXPRESSIONS = (
    *SIMPLE,
    *(f"{way}host {host}" for way in WAYS for host in HOSTS),
    *(f"{kind} {way}port {port}" for kind in KINDS for way in WAYS for port in PORTS),
    *(f"tcp port {port} and host {host}" for port in PORTS for host in HOSTS),
    *(f"{one} and not {other}" for one, other in itertools.permutations(MIXED, 2)),
    *(f"({one}) or ({other})" for one, other in itertools.combinations(SIMPLE[1:12], 2)),
)


@cache
def packets() -> list[bytes]:
    ether = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    flags = ("S", "PA", "A")
    above: list[Any] = [TCP(sport=40000, dport=port, flags=each) for port in PORTS for each in flags]
    above += [UDP(sport=53, dport=port) / b"abcdefgh" for port in PORTS]
    above += [TCP(sport=80, dport=40000) / bytes(300), ICMP(), SCTP(dport=80), GRE() / IP() / TCP()]
    made: list[Any] = []
    for each in above:
        made += [
            ether / IP(src="10.0.0.1", dst="10.0.0.2") / each,
            ether / IP(src="192.168.7.9", dst="224.0.0.5", ttl=3, options=b"\1\1\1\1") / each,
            ether / Dot1Q(vlan=7) / IP(src="10.0.0.2", dst="8.8.8.8") / each,
            ether / IPv6(src="fe80::1", dst="fe80::2") / each,
        ]
    made += [
        ether / ARP(), ether / IPv6() / ICMPv6EchoRequest(), ether / IP(frag=5) / bytes(40),
        ether / IP(flags="MF") / UDP(),
        ether / IPv6() / IPv6ExtHdrFragment() / TCP(dport=80), Ether(dst="ff:ff:ff:ff:ff:ff") / IP() / UDP(),
        Ether(dst="01:80:c2:00:00:00", type=0x88CC) / bytes(46), ether / bytes(60),
    ]  # fmt: skip
    whole = [bytes(each) for each in made]
    return [*whole, *(each[:size] for each in whole[::7] for size in (14, 15, 23, 34, 36, 40, 54))]


@cache
def _bpf_filter() -> Any:
    function = pcap._library().bpf_filter
    function.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint)
    function.restype = ctypes.c_uint
    return function


def _verdicts(expression: str, **options: Any) -> list[int]:
    """Return what libpcap's own machine gives for each packet."""
    code = filters.to_classic(expression, **options)
    return [_bpf_filter()(code, packet, len(packet), len(packet)) for packet in packets()]


def test_every_verdict_is_libpcaps() -> None:
    assert len(EXPRESSIONS) >= 170
    some = set()
    step = 1 if WHOLE else 3
    for number, expression in enumerate(EXPRESSIONS[::step]):
        expected = _verdicts(expression)
        plain = filters.compile(expression, type=None).compile(optimize=bool(number % 2))
        assert list(plain.map(packets())) == expected, expression
        if number % 4 == 0:
            assert list(filters.compile(expression).compile().map(packets())) == expected, expression
            program = filters.compile(expression)
            for packet, verdict in list(zip(packets(), expected, strict=True))[number % 8 :: 16]:
                assert program.run(packet, engine="interpreter").return_value == verdict, expression
        some.add(any(expected))
        xdp = filters.to_xdp(expression, "XDP_TX", otherwise="XDP_DROP").compile()
        assert [action == 3 for action in xdp.map(packets())] == list(map(bool, expected)), expression
    assert some == {True, False}


@pytest.mark.skipif(kernel.unavailable_reason() is not None, reason="bpf(2) is not allowed here")
def test_linux_takes_them_as_xdp_programs() -> None:
    refused = []
    for expression in EXPRESSIONS[::8]:
        program, expected = filters.to_xdp(expression), _verdicts(expression)
        try:
            for packet, verdict in list(zip(packets(), expected, strict=True))[::24]:
                action = program.run(packet, engine="kernel").action
                assert action == ("XDP_DROP" if verdict else "XDP_PASS"), expression
        except VerifierError as error:
            refused.append((expression, str(error)[-300:]))
    assert len(refused) <= len(EXPRESSIONS[::8]) * 0.05, refused


@pytest.mark.skipif(kernel.unavailable_reason() is not None, reason="bpf(2) is not allowed here")
def test_no_instruction_is_left_that_nothing_leads_to() -> None:
    """Linux takes none: of filters that look at no byte, or only where no packet has one."""
    frame = packets()[0]
    for expression in ("", "len > 5", "ether[70000] = 1", "ip[0xffff] = 1", "ether[70000:2] = 1 or len > 5"):
        action = "XDP_DROP" if any(filters.compile(expression).compile().map([frame])) else "XDP_PASS"
        assert filters.to_xdp(expression).run(frame, engine="kernel").action == action, expression


def _cut(expression: str, sizes: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Return the verdicts of libpcap on packets that a capture cut off, and those of a program."""
    whole = packets()
    kept = [packet[: sizes[n % len(sizes)]] for n, packet in enumerate(whole)]
    code = filters.to_classic(expression)
    verdicts = [
        _bpf_filter()(code, data, len(packet), len(data)) for packet, data in zip(whole, kept, strict=True)
    ]
    for packet, data, verdict in zip(whole, kept, verdicts, strict=True):
        assert classic.run(code, data, wire_length=len(packet), machine="libpcap") == verdict, expression
    starts = array("Q", itertools.accumulate((len(data) for data in kept), initial=0))[:-1]
    columns = (
        starts,
        array("Q", map(len, kept)),
        array("Q", bytes(8 * len(kept))),
        array("Q", map(len, whole)),
    )
    batch = capture.Batch(memoryview(b"".join(kept)), *map(memoryview, columns)).with_wire_lengths()
    assert [bytes(each[8:]) for each in batch] == kept
    program = filters.compile(expression, type=None, lengths="wire")
    found = [list(program.compile(optimize=is_optimized).map(batch)) for is_optimized in (True, False)]
    assert found[0] == found[1], expression
    assert [program.run(bytes(each), engine="interpreter").return_value for each in batch] == found[0]
    return verdicts, found[0]


def test_len_is_that_of_the_wire_where_a_capture_cut_packets_off() -> None:
    some = set()
    for expression in (
        "len > 60", "greater 100", "less 60", "len = 54 or udp", "tcp and len > 54", "ip[2:2] = len - 14",
        "len & 1 = 0", "ether[20] < len", "ip6 and not less 70", "tcp port 80",
    ):  # fmt: skip
        for sizes in ((14,), (34, 200, 54, 0), (60, 1)):
            expected, found = _cut(expression, sizes)
            assert found == expected, (expression, sizes)
            some |= {(expression, bool(verdict)) for verdict in expected}
    assert len(some) == 20  # each expression matches some packets, and not others
    program = filters.compile("less 9", type=None, lengths="wire")
    for short in (b"", b"1234567"):  # not even a length: no packet
        assert program.run(short).return_value == 0


def test_numbers_that_link_types_have_in_files() -> None:
    numbers = {"ATM_RFC1483": 100, "RAW": 101, "SLIP_BSDOS": 102, "PPP_BSDOS": 103, "ATM_CLIP": 106}
    for name, number in numbers.items():
        code = filters.to_classic("ip", linktype=name)
        assert filters.to_classic("ip", linktype=number) == code, name
    ip = filters.compile("ip and udp", linktype=100, type=None)
    packet = bytes(IP() / UDP())
    for head, verdict in {"aaaa030000000800": filters.SNAPLEN, "aaaa0300000086dd": 0}.items():
        assert ip.run(bytes.fromhex(head) + packet).return_value == verdict


def test_snaplen_link_types_and_objects() -> None:
    frame = packets()[0]
    assert filters.compile("tcp", snaplen=99).run(frame).return_value == 99
    to_all = bytes(Ether() / IP(dst="10.0.0.255") / UDP())
    local = filters.compile("ip broadcast", netmask="255.255.255.0")
    assert [bool(local.run(packet).return_value) for packet in (to_all, frame)] == [True, False]
    raw = filters.compile("tcp port 53", linktype="raw")
    assert (raw.type, raw.run(frame).return_value) == ("socket_filter", 262_144)
    assert filters.compile("tcp port 53", linktype="raw", type=None).run(frame[14:]).return_value == 262_144
    cooked = filters.compile("ip", linktype="linux_sll", type=None)
    assert cooked.run(bytes(14) + b"\x08\x00" + frame[14:]).return_value == 262_144
    assert filters.compile("ip", linktype="DLT_EN10MB", type=None).run(frame).return_value == 262_144
    data = filters.to_object(filters.to_xdp("udp port 53", "XDP_DROP", name="no_dns"), "xdp")
    program = load(data).programs["no_dns"]
    assert program.type == "xdp"
    dns = next(packet for packet in packets() if packet[23:24] == b"\x11" and packet[36:38] == b"\0\x35")
    assert [program.run(packet).action for packet in (dns, frame)] == ["XDP_DROP", "XDP_PASS"]
    if kernel.unavailable_reason() is None:
        assert program.run(dns, engine="kernel").action == "XDP_DROP"


def test_objects_of_programs_that_refer_to_something() -> None:
    counter = load(Path(__file__).parents[1] / "elf" / "counter.o").programs
    for name, pc in {"count": 4, "without_maps": 0}.items():  # a map, a variable
        with pytest.raises(TranslationError, match=f"pc {pc}: the program refers to a map, a variable or"):
            filters.to_object(counter[name], "xdp")
    for options in ({"section": "xdp\0"}, {"section": "xdp", "license": "GPL\0"}):
        with pytest.raises(ValueError, match="has a zero byte"):
            filters.to_object(filters.to_xdp("tcp"), **options)


C_EXPRESSIONS = (
    "1 << ip[9] = 0 or ip[ip[8] - 66] = 8",
    "tcp port 80 and ip[2:2] % 3 != len / 7",
    "vlan 7 or ip6[40] << 1 = 2",
    "ether[ip[0] & 15] ^ 3 = 5",
)


@pytest.mark.skipif(shutil.which("clang") is None, reason="needs clang")
def test_as_source_of_c(tmp_path: Path) -> None:
    for expression in C_EXPRESSIONS:
        source = filters.to_c(expression, "XDP_TX", otherwise="XDP_DROP", name="mine")
        (tmp_path / "mine.c").write_text(source)
        build = next(line for line in source.splitlines() if "clang" in line).removeprefix("//").strip()
        subprocess.run(f"{build} -Wall -Werror", shell=True, cwd=tmp_path, check=True)
        program = load(tmp_path / "mine.o").program("mine")
        actions = [each == 3 for each in program.compile().map(packets())]
        assert actions == list(map(bool, _verdicts(expression))), expression
        if kernel.unavailable_reason() is None:
            action = program.run(packets()[0], engine="kernel").action
            assert action == ("XDP_TX" if actions[0] else "XDP_DROP")


def test_source_of_c_that_cannot_be() -> None:
    assert filters.to_c("tcp\nport 80").startswith("// tcp port 80 -- as tcpdump has it.\n")
    for arguments, kind, says in [
        (("ip6 protochain 6",), FilterError, "no XDP program has such a loop"),
        (("inbound",), TranslationError, "nothing that gives 'type'"),
        (("tcp", "DROP"), ValueError, "no action 'DROP'"),
    ]:
        with pytest.raises(kind, match=says):
            filters.to_c(*arguments)  # type: ignore[arg-type]  # what users may get wrong
    for name in ("a b", "\xe4", "int", "asm", "license", "__u8", "XDP_PASS", "memset"):
        with pytest.raises(ValueError, match="no name of a function in C"):
            filters.to_c("tcp", name=name)


LIBPCAPS = ("1 << ip[9] = 0", "0xff000000 >> (ip[9] & 63) = 0x1fe00", "ip[ip[8] - 66] = 8")
"""Where libpcap's machine and Linux's differ: shifts by 32 and more, places that end below 0."""


def test_what_expressions_mean_is_what_libpcap_does() -> None:
    for expression in LIBPCAPS:
        code, expected = filters.to_classic(expression), _verdicts(expression)
        found = {
            f"{type_} {is_optimized}": list(made.compile(optimize=is_optimized).map(packets()))
            for type_ in (None, "socket_filter")
            for made in [filters.compile(expression, type=type_)]  # type: ignore[arg-type]  # a loop over Literals
            for is_optimized in (True, False)
        }
        found["classic"] = [classic.run(code, packet, machine="libpcap") for packet in packets()]
        xdp = filters.to_xdp(expression, "XDP_TX", otherwise="XDP_DROP")
        found["xdp"] = [262_144 * (action == 3) for action in xdp.compile().map(packets())]
        for engine, verdicts in found.items():
            assert verdicts == expected, (expression, engine)
        if kernel.unavailable_reason() is None:
            some = packets()[::16]
            actions = [xdp.run(packet, engine="kernel").action == "XDP_TX" for packet in some]
            assert actions == list(map(bool, expected[::16])), expression
        plain = classic.to_ebpf(code, None).compile()
        assert list(plain.map(packets())) == [classic.run(code, packet) for packet in packets()] != expected
    with pytest.raises(ValueError, match='machine is "linux" or "libpcap", not \'bsd\''):
        classic.run(code, b"", machine="bsd")  # type: ignore[arg-type]  # what users may get wrong


def test_what_libpcap_makes_and_linux_refuses() -> None:
    """Places of Linux's at which nothing is, programs of any length, cells that nothing has written."""
    frame, many = packets()[0], " or ".join(f"ip[{place}] = {place}" for place in range(1, 300))
    for expression, optimize, says in [
        ("link[0xfffffffe] = 1 or len > 5", True, "offset 0xfffffffe is of no packet"),
        (many, False, "4168 instructions, at most 4096 are allowed"),
    ]:
        code = filters.to_classic(expression, optimize=optimize)
        with pytest.raises(VerifierError, match=says):
            classic.check(code)
        program = filters.compile(expression, type=None, optimize=optimize)
        found = {
            program.compile(optimize=False)(frame),
            program.run(frame, engine="interpreter").return_value,
            filters.compile(expression, optimize=optimize).run(frame).return_value,
            classic.run(code, frame, machine="libpcap"),
        }
        assert found == {_bpf_filter()(code, frame, len(frame), len(frame))}, expression
    with pytest.raises(VerifierError, match=r"M\[0\] is read before it is written"):
        classic.check(filters.to_classic("not geneve and ip", linktype="ppp"))
    assert filters.compile("not geneve and ip", linktype="ppp", type=None).run(frame).return_value == 0


def test_protochain_becomes_a_loop() -> None:
    # with addresses, which scapy asks the network for otherwise, a second each
    ether = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IPv6(src="fe80::1", dst="fe80::2")
    chains = [ether / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / last for last in (TCP(), UDP(), b"")]
    taken = [*packets(), *map(bytes, chains), *(bytes(each)[:60] for each in chains)]
    for expression in ("ip6 protochain 6", "ip protochain 17", "ip6 protochain 60 or tcp"):
        code = filters.to_classic(expression)
        expected = [_bpf_filter()(code, packet, len(packet), len(packet)) for packet in taken]
        assert any(expected), expression
        for type_ in (None, "socket_filter"):
            program = filters.compile(expression, type=type_)  # type: ignore[arg-type]  # a loop over Literals
            for is_optimized in (True, False):
                assert list(program.compile(optimize=is_optimized).map(taken)) == expected, expression
        action = filters.to_xdp(expression, "XDP_TX", otherwise="XDP_DROP").compile().map(taken)
        assert [each == 3 for each in action] == list(map(bool, expected)), expression
        assert [classic.run(code, packet, loops=True) for packet in taken] == expected, expression
        with pytest.raises(VerifierError, match="a jump back to"):
            classic.check(code)
    if kernel.unavailable_reason() is None:
        ran = filters.to_xdp("ip6 protochain 6").run(bytes(chains[0]), engine="kernel")
        assert ran.action == "XDP_DROP"
    endless = classic.encode([(0, 0, 0, 1), (5, 0, 0, (1 << 32) - 2), (6, 0, 0, 0)])
    with pytest.raises(BudgetExhausted):
        classic.to_ebpf(endless, None, loops=True).run(b"", limit=1000)
    for back in (-1, -2, -3, 1):  # to itself, to the start, before it, beyond the end
        code = classic.encode([(0, 0, 0, 1), (5, 0, 0, back & 0xFFFFFFFF), (6, 0, 0, 0)])
        if back in (-1, -2):
            classic.check(code, loops=True)
            continue
        with pytest.raises(VerifierError, match="a jump to"):
            classic.check(code, loops=True)


def test_what_is_wrong_is_said_in_libpcaps_words() -> None:
    for expression, says in {
        "tcp prot 80": "filter 'tcp prot 80': can't parse filter expression: syntax error",
        "host 300.1.1.1": "invalid IPv4 address '300.1.1.1'",
        "port nowhere-at-all": "unknown port 'nowhere-at-all'",
        "tcp\0": "no zero byte",
        "tcp \udcff": "surrogates not allowed at character 5",
        "a" * 100_000: r"^filter 'a{100}\.\.\.a{100}': .{0,300}$",
    }.items():
        with pytest.raises(FilterError, match=says):
            filters.compile(expression)
    with pytest.raises(FilterError, match="no link type 'token-string'; there are ethernet, null"):
        filters.compile("tcp", linktype="token-string")
    with pytest.raises(FilterError, match="socket filters take Ethernet frames, not packets of 'linux_sll'"):
        filters.compile("tcp", linktype="linux_sll")
    for options, kind, says in [
        ({"linktype": 1 << 32}, FilterError, "a number from 0 to 65535"),
        ({"linktype": -1}, FilterError, "a number from 0 to 65535, not -1"),
        ({"linktype": None}, TypeError, "not of type NoneType"), ({"snaplen": -1}, ValueError, "snaplen is"),
        ({"snaplen": 1 << 32}, ValueError, "snaplen is a number of bytes below"),
        ({"snaplen": 1.5}, TypeError, "snaplen is a number of bytes, not of type float"),
        ({"netmask": "255.255"}, FilterError, "'255.255' is no netmask"),
    ]:  # fmt: skip
        with pytest.raises(kind, match=says):
            filters.compile("tcp", **options)  # type: ignore[arg-type]  # what users may get wrong
    with pytest.raises(ValueError, match="no action 'DROP'; there are XDP_ABORTED, XDP_DROP"):
        filters.to_xdp("tcp", "DROP")
    with pytest.raises(ValueError, match='lengths is "captured" or "wire", not \'cut\''):
        filters.compile("tcp", type=None, lengths="cut")  # type: ignore[arg-type]  # none of them
    with pytest.raises(ValueError, match="lengths='wire' takes type=None"):
        filters.compile("tcp", lengths="wire")
    for wrong in (-1, 1 << 32):
        with pytest.raises(ValueError, match=f"a number of 32 bits, not {wrong}"):
            classic.run(filters.to_classic("tcp"), b"", wire_length=wrong)


def test_arguments_of_another_type_are_named() -> None:
    for given in (None, b"tcp", ["tcp"], 5):
        for make in (filters.compile, filters.to_classic, filters.to_xdp, filters.to_c):
            with pytest.raises(TypeError, match="a filter expression is text, not of type"):
                make(given)  # type: ignore[operator]  # on purpose
    for name in (None, 5, b"filter"):
        with pytest.raises(ValueError, match="is no name of a function in C"):
            filters.to_c("tcp", name=name)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(TypeError, match="an object is made of a Program, not of type bytes"):
        filters.to_object(b"", "xdp")  # type: ignore[arg-type]  # on purpose
    with pytest.raises(TypeError, match="a section and a license are text, not of type int"):
        filters.to_object(filters.to_xdp("tcp"), 5)  # type: ignore[arg-type]  # on purpose


def test_what_is_not_of_the_packet() -> None:
    says = r"'inbound': a packet alone has nothing that gives 'type'; socket filters have"
    with pytest.raises(TranslationError, match=says):
        filters.compile("inbound", type=None)
    with pytest.raises(TranslationError, match=r"an XDP program has nothing that gives 'type'$"):
        filters.to_xdp("inbound")
    with pytest.raises(TranslationError, match=r"say ancillaries=\{'type'"):
        classic.to_ebpf(filters.to_classic("inbound"), None)
    assert filters.compile("inbound").run(bytes(60)).return_value
