"""Netfilter programs on packets: what they see of state and packet, and what a test run refuses, as Linux."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import ebpfjit
from ebpfjit import Environment, ExecutionError, InputError, MemoryFault, Program
from ebpfjit.assembler import assemble
from ebpfjit.kernel import unavailable_reason

ELF = Path(__file__).parents[1] / "elf"
VMLINUX = Path("/sys/kernel/btf/vmlinux")
needs_kernel = pytest.mark.skipif(
    unavailable_reason() is not None or not VMLINUX.exists(), reason=str(unavailable_reason() or VMLINUX)
)
OURS = ("interpreter", "jit")
ENGINES = (*OURS, pytest.param("kernel", marks=needs_kernel))

NAMES = (0, 99, 0, 53)  # the ports of a question for a name
IPV4 = bytes((0x45, 0, 0, 40, *bytes(5), 17, 0, 0, 8, 0, 0x45, 1, 10, 0, 0, 2, *NAMES, *bytes(16)))
IPV6 = bytes((0x60, 0, 0, 0, 0, 20, 17, 64, *bytes(32), *NAMES, *bytes(16)))
FRAME4, FRAME6 = bytes(12) + b"\x08\x00" + IPV4, bytes(12) + b"\x86\xdd" + IPV6
TO_OTHERS = b"\2" + FRAME4[1:]
RUNS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "packet": (IPV4, {}),
    "frame": (FRAME4, {}),
    "IPv6": (FRAME6, {}),
    "said to be IPv6": (IPV4, {"pf": 10}),
    "prerouting": (FRAME4, {"hook": 0}),
    "to others": (TO_OTHERS, {"hook": 1}),
    "IPv6 forward": (FRAME6, {"hook": 2, "pf": 10, "in": None, "sk": 0}),
    "packet after routing": (IPV4, {"hook": 4}),
    "a hook that there is none of": (FRAME4, {"hook": 255}),
    "shortest packet": (IPV4[:20], {}),
    "shortest frame": (FRAME4[:34], {"hook": 0}),
    "shortest frame of IPv6": (FRAME6[:54], {"hook": 0}),
    "longest in Linux": (IPV4 + bytes(3712 - len(IPV4)), {}),
}
REFUSED: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "short packet": (IPV4[:19], {}, "packets of 20 bytes"),
    "short frame": (FRAME4[:33], {"hook": 0}, "at least 34 bytes, this one has 33"),
    "short frame of IPv6": (FRAME6[:53], {"hook": 0}, "at least 54 bytes, this one has 53"),
    "other family": (FRAME4, {"hook": 0, "pf": 10}, "pf is 10, and the frame is one of 2"),
    "no IP": (bytes(60), {"hook": 0}, "frames of IPv4 or IPv6"),
    "no family": (IPV4, {"pf": 7}, r"pf is 2 \(NFPROTO_IPV4\) or 10 \(NFPROTO_IPV6\), not 7"),
    "no hook": (IPV4, {"hook": 256}, "hook is a number of 8 bits"),
    "a socket": (IPV4, {"sk": 1}, "field 'sk' of nf_hook_state cannot be set"),
    "no field": (IPV4, {"skb": 1}, "field 'skb' of nf_hook_state is not there"),
    "a name": (IPV4, {"in": "lo"}, "context field in takes a pointer"),
    "too long": (IPV4 + bytes(65536), {}, "to 65549, this one has 65576"),
}


def load(*, engine: str = "") -> ebpfjit.Object:
    """Return the programs: for this kernel where they run there, else for one that has just their structs."""
    return ebpfjit.load(ELF / "netfilter.o", btf=VMLINUX if engine == "kernel" else None)


@pytest.fixture(scope="module")
def for_linux() -> ebpfjit.Object:
    return load(engine="kernel")


@pytest.fixture(scope="module")
def plain() -> ebpfjit.Object:
    return load()


def seen(loaded: ebpfjit.Object) -> dict[str, Any]:
    return {name: loaded.globals[name] for name in loaded.globals if name != "_license"}


def looks(loaded: ebpfjit.Object, engine: str, data: bytes, context: dict[str, Any]) -> Any:
    result = loaded.programs["look"].run(data, context=context, engine=engine)
    assert (result.data, result.context, result.passes) == (data, {}, result.return_value == 1)
    return result.action, seen(loaded)


@needs_kernel
@pytest.mark.parametrize("name", RUNS)
def test_state_and_packet_are_those_of_linux(for_linux: ebpfjit.Object, name: str) -> None:
    in_kernel = looks(for_linux, "kernel", *RUNS[name])
    for engine in OURS:
        assert looks(for_linux, engine, *RUNS[name]) == in_kernel


@pytest.mark.parametrize("engine", OURS)
def test_state_and_packet(plain: ebpfjit.Object, engine: str) -> None:
    action, found = looks(plain, engine, *RUNS["to others"])
    assert action == "NF_ACCEPT"
    assert (found["hook"], found["pf"], found["in"], found["out"], found["dev"]) == (1, 2, 0, 1, 1)
    assert (found["len"], found["protocol"], found["pkt_type"]) == (40, 8, 3)
    assert (found["mac_at"], found["network_at"], found["data_at"], found["tail_at"]) == (64, 78, 78, 118)
    assert (found["probed"], bytes(found["first"])) == (0, IPV4[:20])


@pytest.mark.parametrize("engine", OURS)
def test_devices_that_linux_does_not_let_a_test_name(plain: ebpfjit.Object, engine: str) -> None:
    environment = Environment()
    device = environment.struct("net_device", ifindex=7, mtu=1400)
    for name in ("in", "out"):
        plain.programs["look"].run(
            FRAME4, context={"hook": 2, name: device}, engine=engine, environment=environment
        )
        assert (plain.globals[name], plain.globals["in_mtu"]) == (7, 1400 if name == "in" else 0)


@needs_kernel
def test_linux_chooses_the_devices(for_linux: ebpfjit.Object) -> None:
    with pytest.raises(InputError, match="chooses in and out itself"):
        for_linux.programs["look"].run(FRAME4, context={"hook": 2, "in": 8}, engine="kernel")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(request: pytest.FixtureRequest, engine: str, name: str) -> None:
    loaded = request.getfixturevalue("for_linux" if engine == "kernel" else "plain")
    data, context, text = REFUSED[name]
    with pytest.raises(InputError, match=text):
        loaded.programs["look"].run(data, context=context, engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_dynptrs_of_packets(request: pytest.FixtureRequest, engine: str) -> None:
    loaded = request.getfixturevalue("for_linux" if engine == "kernel" else "plain")
    no_names = loaded.programs["no_names"]
    cases = [(FRAME4, 0), (FRAME6, 0), (IPV4[:23] + b"\x50", 1), (IPV4[:22], 1), (IPV6[:40], 1)]
    for data, verdict in cases:
        assert no_names.run(data, engine=engine).return_value == verdict
        assert loaded.globals["sized"] == len(data) - (14 if data in (FRAME4, FRAME6) else 0)
    assert [loaded.globals[name] for name in ("flagged", "readonly", "past")] == [-22, 1, -7]


def test_compiled_functions_take_packets(plain: ebpfjit.Object) -> None:
    no_names = plain.programs["no_names"].compile()
    assert [no_names(data) for data in (FRAME4, FRAME6, IPV4[:20])] == [0, 0, 1]


def program(text: str) -> Program:
    return Program.from_bytes(assemble(text), type="netfilter")


@pytest.mark.parametrize("engine", OURS)
def test_programs_without_types(engine: str) -> None:
    assert program("mov r0, 1\nexit").run(IPV4, engine=engine).action == "NF_ACCEPT"
    with pytest.raises(ExecutionError, match=r"struct nf_hook_state .* neither .* give Environment\(btf=\)"):
        program("ldxdw r1, [r1]\nldxb r0, [r1]\nexit").run(IPV4, engine=engine)


@pytest.mark.parametrize("engine", OURS)
def test_a_packet_is_there_to_read(plain: ebpfjit.Object, engine: str) -> None:
    with pytest.raises(MemoryFault, match="store of 1 byte"):
        program("ldxdw r1, [r1+8]\nstb [r1], 1\nexit").run(IPV4, engine=engine)
    with pytest.raises(InputError, match=r"bpf_dynptr_from_skb: .* none: give it as data"):
        plain.programs["no_names"].run(context={"skb": 1 << 63, "state": 1 << 63}, engine=engine)
