"""Helpers of packets: what the kernel's test run cannot show. The rest is in tests/differential."""

from __future__ import annotations

import struct

import pytest

from ebpfjit import (
    Environment,
    ExecutionError,
    HelperNotFound,
    Interface,
    MemoryFault,
    Network,
    Program,
    Result,
    Route,
    TunnelKey,
)
from ebpfjit.assembler import assemble
from ebpfjit.runtime.contexts import Redirect
from ebpfjit.runtime.helpers.names import NUMBERS

ENGINES = ("jit", "interpreter")
engines = pytest.mark.parametrize("engine", ENGINES)
FRAME = bytes.fromhex("020000000002 020000000001 0800") + bytes.fromhex(
    "45000028 00010000 40060000 0a000001 0a000002"
) + bytes(range(20))  # fmt: skip


def run(
    type: str, *lines: str, engine: str = "jit", frame: bytes = FRAME, environment: Environment | None = None
) -> Result:
    text = "\n".join(["mov r6, r1", *lines, "exit"])
    for name, number in NUMBERS.items():
        text = text.replace(f"call {name}\n", f"call {number}\n")
    program = Program.from_bytes(assemble(text), type=type)
    return program.run(frame, engine=engine, environment=environment)


# --- where packets are sent ---


@engines
def test_redirects_are_told(engine: str) -> None:
    result = run("xdp", "mov r1, 7", "mov r2, 0", "call bpf_redirect", engine=engine)
    assert (result.action, result.redirect) == ("XDP_REDIRECT", Redirect("bpf_redirect", 7))
    result = run("tc", "mov r1, 7", "mov r2, 1", "call bpf_redirect", engine=engine)
    assert (result.action, result.redirect) == ("TC_ACT_REDIRECT", Redirect("bpf_redirect", 7, flags=1))
    result = run("tc", "mov r1, 8", "mov r2, 0", "call bpf_redirect_peer", engine=engine)
    assert result.redirect == Redirect("bpf_redirect_peer", 8)
    neighbour = ("mov r1, 9", "mov r2, 0", "mov r3, 0", "mov r4, 0", "call bpf_redirect_neigh")
    assert run("tc", *neighbour, engine=engine).redirect == Redirect("bpf_redirect_neigh", 9)
    assert run("xdp", "mov r0, 2", engine=engine).redirect is None


@engines
def test_copies_are_kept_as_they_were(engine: str) -> None:
    clone = ("mov r1, r6", "mov r2, 5", "mov r3, 0", "call bpf_clone_redirect")
    result = run("tc", *clone, "ldxw r2, [r6+76]", "stb [r2+0], 9", *clone, engine=engine)
    assert result.clones == ((5, FRAME), (5, b"\x09" + FRAME[1:]))
    alone = Environment(network=Network(interfaces={1: Interface()}))
    result = run("tc", *clone, engine=engine, environment=alone)
    assert (result.return_value, result.clones) == (0xFFFFFFEA, ())


# --- routes ---

NETWORK = Network(
    routes=(
        Route("10.0.0.0/8", ifindex=2, gateway="10.9.9.9", metric=5),
        Route("10.0.0.0/24", ifindex=3, source="10.0.0.77", mtu=600),
        Route("10.0.0.0/24", ifindex=4, metric=9),
        Route("10.66.0.0/16", kind="blackhole"),
        Route("10.67.0.0/16", kind="prohibit"),
        Route("10.68.0.0/16", kind="unreachable"),
        Route("2001:db8::/32", ifindex=2, gateway="fe80::1"),
        Route("0.0.0.0/0", ifindex=99),
    ),
    neighbours={
        "10.9.9.9": "02:00:00:00:09:09",
        "10.0.0.2": "02:00:00:00:00:22",
        "fe80::1": "02-00-00-00-0f-e8",
    },
    interfaces={
        1: Interface(mtu=65536),
        2: Interface(mac="02:00:00:00:00:a2"),
        3: Interface(mac="02:00:00:00:00:a3"),
        5: Interface(forwards=False),
    },
)
RESULTS = (
    "SUCCESS", "BLACKHOLE", "UNREACHABLE", "PROHIBIT", "NOT_FWDED", "FWD_DISABLED", "UNSUPP_LWT",
    "NO_NEIGH", "FRAG_NEEDED", "NO_SRC",
)  # fmt: skip


def fib(
    destination: str, *, engine: str = "jit", ifindex: int = 1, length: int = 0, flags: int = 0,
    type: str = "xdp", network: Network = NETWORK, size: int = 64, family: int = 0,
) -> tuple[int, dict[str, object]]:  # fmt: skip
    """Look up; return the helper's result and what it wrote."""
    import ipaddress

    address = ipaddress.ip_address(destination)
    words = bytearray(64)
    words[0] = family or (2 if address.version == 4 else 10)
    struct.pack_into("<HI", words, 6, length, ifindex)
    words[32 : 32 + len(address.packed)] = address.packed
    stores = [
        f"stw [r10-{64 - offset}], {value}"
        for offset, value in zip(range(0, 64, 4), struct.unpack("<16i", words), strict=True)
    ]
    # What was written is copied over the packet, to be seen.
    store = "call bpf_xdp_store_bytes" if type == "xdp" else "call bpf_skb_store_bytes"
    back = ("mov r1, r6", "mov r2, 0", "mov r3, r10", "add r3, -64", "mov r4, 64", "mov r5, 0", store)
    call = (
        "mov r1, r6",
        "mov r2, r10",
        "add r2, -64",
        f"mov r3, {size}",
        f"mov r4, {flags}",
        "call bpf_fib_lookup",
    )
    lines = (*stores, *call, "mov r7, r0", *back, "mov r0, r7")
    environment = None if engine == "kernel" else Environment(network=network)
    result = run(type, *lines, engine=engine, frame=bytes(100), environment=environment)
    after = result.data[:64]
    width = 4 if after[0] == 2 else 16
    return result.return_value - (result.return_value >> 31 << 32), {
        "family": after[0],
        "length": int.from_bytes(after[6:8], "little"),
        "ifindex": int.from_bytes(after[8:12], "little"),
        "metric": int.from_bytes(after[12:16], "little"),
        "source": str(ipaddress.ip_address(after[16 : 16 + width])),
        "next_hop": str(ipaddress.ip_address(after[32 : 32 + width])),
        "smac": after[52:58].hex(":"),
        "dmac": after[58:64].hex(":"),
    }


@engines
def test_a_route_by_a_gateway(engine: str) -> None:
    result, found = fib("10.1.2.3", engine=engine)
    assert result == 0
    assert found == {
        "family": 2, "length": 1500, "ifindex": 2, "metric": 5, "source": "0.0.0.0", "next_hop": "10.9.9.9",
        "smac": "02:00:00:00:00:a2", "dmac": "02:00:00:00:09:09",
    }  # fmt: skip


@engines
def test_the_longest_prefix_and_the_lowest_metric_win(engine: str) -> None:
    result, found = fib("10.0.0.2", engine=engine)
    assert (result, found["ifindex"], found["next_hop"]) == (0, 3, "10.0.0.2")
    assert found["dmac"] == "02:00:00:00:00:22"


def test_ipv6_routes() -> None:
    result, found = fib("2001:db8::5")
    assert (result, found["family"], found["next_hop"]) == (0, 10, "fe80::1")
    assert found["dmac"] == "02:00:00:00:0f:e8"


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("BLACKHOLE", {"destination": "10.66.0.1"}),
        ("PROHIBIT", {"destination": "10.67.0.1"}),
        ("UNREACHABLE", {"destination": "10.68.0.1"}),
        ("NOT_FWDED", {"destination": "2a00::1"}),
        ("NO_NEIGH", {"destination": "10.0.0.3"}),
        ("SUCCESS", {"destination": "10.0.0.3", "flags": 4}),  # without a neighbour
        ("FRAG_NEEDED", {"destination": "10.0.0.2", "length": 601}),
        ("SUCCESS", {"destination": "10.0.0.2", "length": 600}),
        ("FWD_DISABLED", {"destination": "10.0.0.2", "ifindex": 5}),
        ("NO_SRC", {"destination": "10.1.2.3", "flags": 16}),
    ],
)
def test_what_a_lookup_returns(name: str, given: dict[str, object]) -> None:
    for engine in ENGINES:
        result, _ = fib(engine=engine, **given)  # type: ignore[arg-type]
        assert RESULTS[result] == name


def test_what_a_lookup_refuses() -> None:
    assert fib("10.0.0.2", ifindex=77)[0] == -19  # ENODEV
    assert fib("10.0.0.2", size=63)[0] == -22
    assert fib("10.0.0.2", flags=64)[0] == -22
    assert fib("10.0.0.2", family=3)[0] == -97
    assert fib("11.0.0.2")[0] == -19  # the route's interface


def test_a_lookup_tells_the_mtu_and_the_source() -> None:
    assert fib("10.0.0.2", length=100)[1]["length"] == 600
    assert fib("10.0.0.2", type="tc")[1]["length"] == 1500
    assert fib("10.0.0.2", flags=16)[1]["source"] == "10.0.0.77"


def test_without_a_network_there_are_no_routes() -> None:
    assert fib("10.0.0.2", network=Network())[0] == RESULTS.index("NOT_FWDED")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Route("10.0.0.0/33"),
        lambda: Route("10.0.0.0/8", kind="multi"),
        lambda: Network(neighbours={"10.0.0.1": "02:00"}),
        lambda: Network(neighbours={"10.0.0.x": "02:00:00:00:00:00"}),
        lambda: Interface(mac="nothing"),
        lambda: Route("10.0.0.0/8", gateway="here"),
        lambda: TunnelKey(remote="10.0.0.1", local="::1"),
    ],
)
def test_a_network_that_cannot_be(wrong) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r".+"):
        wrong()


# --- tunnels ---


@engines
def test_the_tunnel_that_a_packet_came_by(engine: str) -> None:
    get = (
        "mov r1, r6",
        "mov r2, r10",
        "add r2, -44",
        "mov r3, 44",
        "mov r4, {}",
        "call bpf_skb_get_tunnel_key",
    )
    key = Environment(tunnel=TunnelKey(id=42, remote="192.0.2.1", local="192.0.2.2", tos=3, ttl=64))
    lines = [line.format(0) for line in get]
    result = run("tc", *lines, "ldxw r0, [r10-40]", engine=engine, environment=key)
    assert result.return_value == 0xC0000201
    result = run("tc", *lines, "ldxb r0, [r10-23]", engine=engine, environment=key)
    assert result.return_value == 64
    assert run("tc", *lines, engine=engine).return_value == 0xFFFFFFEA
    key6 = Environment(tunnel=TunnelKey(id=42, remote="2001:db8::1", local="::"))
    lines = [line.format(1) for line in get]
    result = run("tc", *lines, "ldxw r0, [r10-40]", engine=engine, environment=key6)
    assert result.return_value == 0xB80D0120


# --- hashes ---


@engines
def test_packets_of_a_flow_have_one_hash(engine: str) -> None:
    def hashed(frame: bytes) -> int:
        return run("tc", "mov r1, r6", "call bpf_get_hash_recalc", engine=engine, frame=frame).return_value

    other_flow = FRAME[:-1] + b"\xff"  # behind the ports
    assert hashed(FRAME) == hashed(other_flow) != 0
    assert hashed(FRAME) != hashed(FRAME[:34] + b"\x77" + FRAME[35:])
    for size in range(14, 60):
        assert hashed(FRAME[:size]) != 0


# --- mistakes ---


@engines
def test_a_helper_of_another_context_is_refused(engine: str) -> None:
    with pytest.raises(ExecutionError, match=r"bpf_xdp_adjust_head needs a struct xdp_md"):
        run("tc", "mov r1, r6", "mov r2, 0", "call bpf_xdp_adjust_head", engine=engine)
    with pytest.raises(ExecutionError, match=r"bpf_skb_pull_data needs a struct __sk_buff"):
        run("xdp", "mov r1, r6", "mov r2, 0", "call bpf_skb_pull_data", engine=engine)
    with pytest.raises(ExecutionError, match=r"r1 is 0x0, and the context is at"):
        run("xdp", "mov r1, 0", "mov r2, 0", "call bpf_xdp_adjust_head", engine=engine)
    with pytest.raises(ExecutionError, match=r"needs a struct xdp_md"):
        run("kprobe", "mov r1, r6", "mov r2, 0", "call bpf_xdp_adjust_head", engine=engine)


@engines
def test_buffers_of_helpers_are_the_programs(engine: str) -> None:
    load = ("mov r1, r6", "mov r2, 0", "mov r3, r10", "add r3, -8", "mov r4, 9", "call bpf_skb_load_bytes")
    with pytest.raises(MemoryFault) as fault:
        run("tc", *load, engine=engine)
    assert fault.value.pc is not None
    read_only = ("mov r1, r6", "mov r2, 0", "mov r3, r6", "mov r4, 8", "call bpf_skb_load_bytes")
    with pytest.raises(MemoryFault, match=r"__sk_buff\.len is read-only"):
        run("tc", *read_only, engine=engine)
    huge = ("mov r1, r6", "mov r2, 0", "mov r3, r10", "add r3, -8", "mov r4, -1", "call bpf_skb_load_bytes")
    with pytest.raises(MemoryFault):
        run("tc", *huge, engine=engine)


@engines
def test_what_a_helper_cut_off_is_not_the_programs_any_more(engine: str) -> None:
    cut = ("mov r7, 0", "ldxw r8, [r6+0]", "ldxb r7, [r8+50]", "mov r1, r6", "mov r2, -10",
           "call bpf_xdp_adjust_tail", "ldxb r0, [r8+50]")  # fmt: skip
    with pytest.raises(MemoryFault) as fault:
        run("xdp", *cut, engine=engine)
    assert fault.value.pc == 7


@engines
def test_a_helper_that_is_not_there(engine: str) -> None:
    with pytest.raises(HelperNotFound, match="bpf_snprintf_btf"):
        run("tc", "mov r1, r6", "call bpf_snprintf_btf", "mov r0, 0", engine=engine)


# --- a header in front of the packet ---


def push(kind: int, size: int = 20, first: int = 0x45) -> tuple[str, ...]:
    words = (first, 0, 0x2F40, 0x0100000A, 0x0200000A)
    stores = [f"stw [r10-{20 - 4 * at}], {word}" for at, word in enumerate(words)]
    place = ("mov r1, r6", f"mov r2, {kind}", "mov r3, r10", "add r3, -20", f"mov r4, {size}")
    return (*stores, *place, "call bpf_lwt_push_encap")


@engines
def test_an_ip_header_is_pushed(engine: str) -> None:
    for type in ("lwt_in", "lwt_xmit"):
        result = run(type, *push(2), engine=engine)
        assert (result.return_value, result.context["len"], result.data[34:]) == (0, 60, FRAME[14:])
        assert result.data[14:34].hex() == "4500000000000000402f66cd0a0000010a000002"
        assert run(type, *push(0), engine=engine).return_value == -22 & 0xFFFFFFFF
    with pytest.raises(ExecutionError, match="is for lwt_in and lwt_xmit programs, this one is tc"):
        run("tc", *push(2), engine=engine)
    with pytest.raises(MemoryFault, match="of 24 bytes"):
        run("lwt_in", *push(2, 24), engine=engine)


@engines
def test_a_header_in_front_of_segments(engine: str) -> None:
    text = "\n".join(["mov r6, r1", *push(2), "exit"]).replace("call bpf_lwt_push_encap", "call 73")
    program = Program.from_bytes(assemble(text), type="lwt_xmit")
    result = program.run(FRAME, engine=engine, context={"gso_size": 8, "gso_segs": 2})
    assert (result.return_value, result.context["len"]) == (-524 & 0xFFFFFFFF, 60)
