"""SYN cookies: made for headers, given back, refused; as Linux has them where it can be asked."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Any

import pytest

import ebpfjit
from ebpfjit import Clock, Environment, ExecutionError, MemoryFault, Program, Socket
from ebpfjit.assembler import assemble
from tests.support import cgroups
from tests.support.helper_runs import needs_kernel

ELF = Path(__file__).parents[1] / "elf"
OURS = ("interpreter", "jit")
needs_cgroups = pytest.mark.skipif(cgroups.why_not() is not None, reason=str(cgroups.why_not()))
FIN, SYN, RST, ACK = 1, 2, 4, 16
IPV4 = b"\x45" + bytes(11) + bytes((127, 0, 0, 1, 127, 0, 0, 1))
IPV6 = b"\x60" + bytes(7) + 2 * (bytes(15) + b"\1")


def mss(size: int) -> bytes:
    return struct.pack(">BBH", 2, 4, size)


def tcp(options: bytes = b"", flags: int = SYN, words: int | None = None, port: int = 80) -> bytes:
    words = 5 + len(options) // 4 if words is None else words
    return struct.pack(">HHIIBBHHH", 1000, port, 0xF1223344, 7, words << 4, flags, 100, 0, 0) + options


HEADERS = {
    "no option": tcp(),
    "536": tcp(mss(535)),
    "1300": tcp(mss(1300)),
    "1440": tcp(mss(1440)),
    "1460": tcp(mss(9000)),
    "two": tcp(mss(1400) + mss(700)),
    "none after one": tcp(mss(1400) + mss(0)),
    "behind padding": tcp(b"\1" + mss(1460) + b"\0\0\0"),
    "behind the end": tcp(b"\0\0\0\0" + mss(1460)),
    "of a wrong length": tcp(b"\2\3\5\xb4"),
    "behind one of no length": tcp(b"\3\0\0\0" + mss(1460)),
    "behind one that is cut": tcp(b"\3\x0c\0\0" + mss(1460)),
    "kind at the end": tcp(mss(1300) + b"\1\1\1\2"),
    "longest": tcp(10 * mss(1300)),
    "shorter than it says": tcp(words=6),
    "longer than it says": tcp(mss(1300), words=5),
    "too short": tcp()[:19],
    "nothing": b"",
    "no SYN": tcp(flags=ACK),
}
MADE = ("mss", "given", "given_wrong", "given_old")


@pytest.fixture(scope="module")
def loaded() -> ebpfjit.Object:
    return ebpfjit.load(ELF / "syncookies.o")


def prepare(loaded: ebpfjit.Object, ip: bytes, segment: bytes) -> None:
    loaded.globals["ip"], loaded.globals["ip_size"] = ip.ljust(40, b"\0"), len(ip)
    loaded.globals["tcp"], loaded.globals["tcp_size"] = segment.ljust(64, b"\0"), len(segment)
    for name in (*MADE, "made"):
        loaded.globals[name] = 0


def outcome(loaded: ebpfjit.Object, name: str, engine: str, **how: Any) -> list[int]:
    """Return the result, whether there is a cookie or why there is none, and what came of it."""
    result = loaded.programs[name].run(bytes(64), engine=engine, **how)
    return [result.return_value, min(loaded.globals["made"], 1), *(loaded.globals[each] for each in MADE)]


@needs_kernel
@pytest.mark.parametrize(("program", "ip"), [("raw_ipv4", IPV4), ("raw_ipv6", IPV6)], ids=["4", "6"])
def test_cookies_without_a_socket_are_as_linux_has_them(
    loaded: ebpfjit.Object, program: str, ip: bytes
) -> None:
    for name, segment in HEADERS.items():
        seen = {}
        for engine in (*OURS, "kernel"):
            prepare(loaded, ip, segment)
            seen[engine] = outcome(loaded, program, engine)
        assert seen["interpreter"] == seen["jit"] == seen["kernel"], name


@pytest.mark.parametrize("engine", OURS)
def test_what_cookies_tell(loaded: ebpfjit.Object, engine: str) -> None:
    sizes = {"no option": 536, "536": 536, "1440": 1440, "1460": 1460, "two": 536, "none after one": 1300}
    for name, size in sizes.items():
        prepare(loaded, IPV4, HEADERS[name])
        assert outcome(loaded, "raw_ipv4", engine) == [2, 1, size, 0, -13, -13]
    prepare(loaded, IPV6, HEADERS["1460"])
    assert outcome(loaded, "raw_ipv6", engine) == [2, 1, 8940, 0, -13, -13]
    prepare(loaded, IPV6, HEADERS["too short"])
    assert outcome(loaded, "raw_ipv6", engine)[:2] == [1, -22]


TAKES_BACK = """
    {stores}
    mov r1, r10
    add r1, -40
    mov r2, r10
    add r2, -20
    call 206
    exit
"""


@pytest.mark.parametrize("engine", OURS)
def test_cookies_are_good_for_two_minutes(loaded: ebpfjit.Object, engine: str) -> None:
    clock = Clock(10**15)
    environment = Environment(clock=clock)
    prepare(loaded, IPV4, tcp())
    assert outcome(loaded, "raw_ipv4", engine, environment=environment)[0] == 2
    cookie = loaded.globals["made"] & 0xFFFFFFFF
    ack = struct.pack(">HHIIBBHHH", 1000, 80, 0xF1223345, (cookie + 1) & 0xFFFFFFFF, 5 << 4, ACK, 100, 0, 0)
    words = struct.unpack("<10i", IPV4 + ack)
    stores = "\n".join(f"stw [r10-{40 - 4 * at}], {word}" for at, word in enumerate(words))
    program = Program.from_bytes(assemble(TAKES_BACK.format(stores=stores)), type="xdp")

    def is_good() -> bool:
        return program.run(bytes(64), engine=engine, environment=environment).return_value == 0

    assert is_good()
    clock.advance(s=60)
    assert is_good()
    clock.advance(s=60)
    assert not is_good()


# -- of a socket --

OF_SOCKETS: dict[str, tuple[bytes, bytes]] = {
    "SYN": (IPV4, tcp(mss(1460))),
    "to nobody": (IPV4, tcp(port=81)),
    "IPv6": (IPV6, tcp(mss(1460))),
    "IPv4 to IPv6": (b"\x60" + IPV4[1:], tcp()),
    "no IP": (b"\x50" + IPV4[1:], tcp()),
    "ACK": (IPV4, tcp(flags=ACK)),
    "SYN and FIN": (IPV4, tcp(flags=SYN | FIN)),
    "SYN and RST": (IPV4, tcp(flags=SYN | RST)),
    "short IP": (IPV4[:19], tcp()),
    "short IPv6": (b"\x60" + IPV6[1:39], tcp()),
    "short TCP": (IPV4, tcp()[:19]),
    "options not all there": (IPV4, tcp(words=6)),
    "options that are not said": (IPV4, tcp(mss(1300), words=5)),
}
ALL = ("found", *MADE, "given_back")


def of_socket(loaded: ebpfjit.Object, name: str, engine: str, ports: dict[int, int], **how: Any) -> list[int]:
    ip, segment = OF_SOCKETS[name]
    segment = segment[:2] + ports.get(segment[3], 9).to_bytes(2, "big") + segment[4:]
    prepare(loaded, ip, segment)
    addresses = ip[8:40] if ip[0] >> 4 == 6 and len(ip) > 30 else IPV4[12:20]
    loaded.globals["tuple"] = (addresses + segment[:4]).ljust(36, b"\0")
    loaded.globals["tuple_size"] = len(addresses) + 4
    return [*outcome(loaded, "of_socket", engine, **how)[:2], *(loaded.globals[each] for each in ALL)]


def in_linux(loaded: ebpfjit.Object) -> dict[str, list[int]]:
    Path("/proc/sys/net/ipv4/tcp_syncookies").write_text("2")
    with socket.socket() as four, socket.socket(socket.AF_INET6) as six:
        four.bind(("127.0.0.1", 0))
        port = four.getsockname()[1]
        six.bind(("::1", port))
        four.listen()
        six.listen()
        return {name: of_socket(loaded, name, "kernel", {80: port}) for name in OF_SOCKETS}


@needs_cgroups
def test_cookies_of_sockets_are_as_linux_has_them(loaded: ebpfjit.Object) -> None:
    theirs = cgroups.in_a_cgroup(lambda group: in_linux(loaded))
    sockets = (Socket("tcp", ("127.0.0.1", 80)), Socket("tcp", ("::1", 80)))
    for engine in OURS:
        for name, expected in theirs.items():
            ours = of_socket(loaded, name, engine, {80: 80}, environment=Environment(sockets=sockets))
            assert ours == expected, (name, engine)


@pytest.mark.parametrize("engine", OURS)
def test_sockets_that_do_not_listen(loaded: ebpfjit.Object, engine: str) -> None:
    connected = Socket("tcp", ("127.0.0.1", 80), ("127.0.0.1", 1000))
    there = Environment(sockets=(connected,))
    ours = of_socket(loaded, "SYN", engine, {80: 80}, environment=there)
    assert ours[1:] == [-22, 1, 0, -22, -22, -22, -22]


CALL = "mov r1, {}\nmov r2, r10\nadd r2, -40\nmov r3, 20\nmov r4, r10\nadd r4, -20\nmov r5, {}\ncall {}\nexit"


@pytest.mark.parametrize("engine", OURS)
@pytest.mark.parametrize("number", [100, 110])
def test_what_is_refused(number: int, engine: str) -> None:
    def run(address: int, size: int) -> int:
        fill = "\n".join(f"stdw [r10-{at}], 0x50" for at in range(8, 48, 8))
        program = Program.from_bytes(assemble(f"{fill}\n{CALL.format(address, size, number)}"), type="tc")
        return program.run(bytes(64), engine=engine).return_value - (1 << 32)

    assert run(0, 20) == -22
    with pytest.raises(MemoryFault, match="of 24 bytes"):
        run(0, 24)
    if number == 100:
        with pytest.raises(ExecutionError, match="r1 is 0x1, which is no socket that a lookup gave"):
            run(1, 20)
