"""The interpreter of classic BPF: the oracle of what a program means, as Linux has it, or libpcap.

A and X are u32, 0 at first. A load that is not inside of the packet, and a division by 0, end the program
with 0.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Mapping
from operator import index
from typing import Any

from ebpfjit.classic.check import check, check_given
from ebpfjit.classic.code import Instruction, decode
from ebpfjit.classic.payload import payload
from ebpfjit.classic.table import (
    CELLS,
    LINK,
    NETWORK,
    Form,
    Kind,
    Machine,
    ancillary,
    signed,
)
from ebpfjit.errors import BudgetExhausted
from ebpfjit.record import record
from ebpfjit.runtime.memory import flat_view

MASK = 0xFFFFFFFF
ETHERNET_HEADER = 14
MOST_ROUNDS = 1_000_000


@record
class Packet:
    """What a program runs on: bytes, what ancillary loads give by name, where the network header is; whose
    machine runs it; how long the packet was before a capture cut it off.
    """

    data: bytes
    about: Mapping[str, int]
    network: int
    machine: Machine = "linux"
    wire_length: int = 0


class _Ends(Exception):  # noqa: N818 - it ends a run, and is no error
    """The program's result is 0."""


ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "lsh": lambda a, b: a << (b & 31),
    "rsh": lambda a, b: a >> (b & 31),
    "neg": lambda a, b: -a,
}
"""What an operation gives, modulo 2**32. Shifts count modulo 32, as in Linux's eBPF."""

COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "jeq": lambda a, b: a == b,
    "jgt": lambda a, b: a > b,
    "jge": lambda a, b: a >= b,
    "jset": lambda a, b: bool(a & b),
}


def run(
    code: bytes,
    packet: Any,
    *,
    ancillaries: Mapping[str, int] | None = None,
    network: int = ETHERNET_HEADER,
    loops: bool = False,
    machine: Machine = "linux",
    wire_length: int | None = None,
) -> int:
    """Run the program in `code` on a packet (bytes from its link header on); return what it returns, a u32.

    `ancillaries` are what ancillary loads give, by bpf_asm's names ("proto", "ifidx", "vlan_tci", ...:
    table.py). Those that are not there are what Linux's test runs of a frame have: "proto" its ethertype,
    "type" by its receiver, "hatype" and "ifidx" 1, "poff" where its payload begins, "rand" a random number,
    the others 0. `network` is where the network header is. `machine` is whose meaning the program has:
    "linux", or "libpcap", where a shift by 32 or more gives 0, and no load counts from a header.
    `wire_length` (u32) is what `ld len` gives: of a packet that a capture cut off how many bytes it had, by
    default how many there are. Loads end where `packet` does.

    Raises VerifierError as `check` (`loops` is for that), DecodeError, BudgetExhausted where loops go round a
    million times, and ValueError for names that are none of those.
    """
    check(code, loops=loops, machine=machine)
    data = flat_view(packet).tobytes()
    wire = len(data) if wire_length is None else index(wire_length)
    if not 0 <= wire <= MASK:
        raise ValueError(f"a packet's length on the wire is a number of 32 bits, not {wire}")
    return interpret(decode(code), Packet(data, check_given(ancillaries), network, machine, wire))


def interpret(instructions: tuple[Instruction, ...], packet: Packet) -> int:
    """Run instructions that were checked."""
    a = x = pc = rounds = 0
    cells = [0] * CELLS
    try:
        while True:
            this = instructions[pc]
            row, k = this.row, this.k
            assert row is not None  # it was checked
            pc += 1
            kind, form = row.kind, row.form
            operand = x if form is Form.INDEX else k
            if kind is Kind.LOAD:
                name = ancillary(row, k)
                a = _about(packet, name, a, x) if name else _loaded(packet, form, row.size, k, x, cells)
            elif kind is Kind.LOAD_INDEX:
                if form is Form.HEADER:
                    x = 4 * (_bytes(packet, k, 1) & 0xF)
                else:
                    x = _loaded(packet, form, 4, k, x, cells)
            elif kind is Kind.STORE:
                cells[k] = a if row.name == "st" else x
            elif kind is Kind.ARITHMETIC:
                if row.name in ("div", "mod") and operand == 0:
                    return 0
                is_gone = operand >= 32 and row.name in ("lsh", "rsh") and packet.machine == "libpcap"
                a = 0 if is_gone else ARITHMETIC[row.name](a, operand) & MASK
            elif kind is Kind.JUMP:
                pc += signed(k)
                if signed(k) < 0:
                    rounds += 1
                    if rounds > MOST_ROUNDS:
                        raise BudgetExhausted(f"instruction {pc}: a loop without an end", pc)
            elif kind is Kind.BRANCH:
                pc += this.jt if COMPARISONS[row.name](a, operand) else this.jf
            elif kind is Kind.RETURN:
                return a if form is Form.ACCUMULATOR else k
            elif row.name == "tax":
                x = a
            else:
                a = x
    except _Ends:
        return 0


def _loaded(packet: Packet, form: Form, size: int, k: int, x: int, cells: list[int]) -> int:
    if form is Form.NUMBER:
        return k
    if form is Form.CELL:
        return cells[k]
    if form is Form.LENGTH:
        return packet.wire_length & MASK
    return _bytes(packet, k + x if form is Form.INDIRECT else k, size)


def _bytes(packet: Packet, place: int, size: int) -> int:
    """Return bytes of a packet in network order; in Linux the place is a signed number of 32 bits."""
    offset = signed(place & MASK) if packet.machine == "linux" else place
    if offset < 0:
        if offset >= NETWORK:
            offset = offset - NETWORK + packet.network
        elif offset >= LINK:
            offset = offset - LINK
    if offset < 0 or offset + size > len(packet.data):
        raise _Ends
    return int.from_bytes(packet.data[offset : offset + size], "big")


def _about(packet: Packet, name: str, a: int, x: int) -> int:
    """Return what an ancillary load gives."""
    if name == "xor_x":
        return a ^ x
    if name in packet.about:
        return packet.about[name] & MASK
    match name:
        case "rand":
            return random.getrandbits(32)
        case "nla":
            return _attribute(packet.data, a, x)
        case "nlan":
            return _nested(packet.data, a, x)
        case "poff":
            return payload(packet.data, _about(packet, "proto", a, x), packet.network)
        case "proto":
            return int.from_bytes(packet.data[12:14], "big") if packet.network == ETHERNET_HEADER else 0
        case "type":
            return _receiver(packet) if packet.network == ETHERNET_HEADER else 0
        case "hatype" | "ifidx":
            return 1  # Ethernet; the first interface, on which test runs are
        case _:
            return 0


def _receiver(packet: Packet) -> int:
    """Return for whom a frame is: this host, several, or another (PACKET_HOST, _MULTICAST, _OTHERHOST).

    As in Linux's test runs, where the interface has the address 0.
    """
    to = packet.data[:6]
    return 0 if not any(to) else 2 if to[0] & 1 else 3


def _attribute(data: bytes, start: int, kind: int, end: int | None = None) -> int:
    """Return where the first netlink attribute of a type is, from a place on; 0 where there is none."""
    end = len(data) if end is None else end
    if start > len(data) - 4:
        return 0
    while start + 4 <= end:
        size, type_ = struct.unpack_from("<HH", data, start)
        if size < 4 or start + size > end:
            return 0
        if type_ & 0x3FFF == kind:
            return start
        start += (size + 3) & ~3
    return 0


def _nested(data: bytes, start: int, kind: int) -> int:
    """Return where an attribute of a type is inside of the one at a place; 0 where there is none."""
    if start > len(data) - 4:
        return 0
    size = int.from_bytes(data[start : start + 2], "little")
    if size > len(data) - start or size < 4:
        return 0
    return _attribute(data, start + 4, kind, start + size)
