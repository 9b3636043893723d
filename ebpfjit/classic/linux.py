"""Linux's own machine of classic BPF, asked through a socket filter: how much of a datagram it keeps.

What it keeps is the result, at most the datagram's length. So that all of a result is seen, a few bits are
asked for at a time: `ret #k` becomes `ret #(k >> n & mask)` in its place, `ret a` a jump behind the program:

    rsh #n;  and #mask;  ret a
"""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import Any

from ebpfjit.classic.check import check
from ebpfjit.classic.code import Instruction, decode, encode
from ebpfjit.classic.table import ANCILLARY, LINK, MOST, Form, Kind, ancillary, signed
from ebpfjit.errors import InputError, VerifierError
from ebpfjit.kernel.syscalls import KernelUnavailable
from ebpfjit.runtime.memory import flat_view

ATTACH_FILTER = 26
RESULT_BITS = 32
MOST_BITS = 8
"""Asked for at a time: what is left of the datagram is read each time."""
GIVEN = frozenset({"xor_x", "nla", "nlan"})
"""Ancillary loads that are of A, X and the packet only."""
RET, RET_A, JA, RSH, AND = 0x06, 0x16, 0x05, 0x74, 0x54


def run_in_linux(code: bytes, packet: Any) -> int:
    """Return what the program in `code` returns for a packet, a u32, as Linux runs it: on a datagram.

    It goes from one socket to another. No rights are needed. Where X leads to a header, which a datagram does
    not have, the result is 0.

    Raises KernelUnavailable where this is no Linux, VerifierError and DecodeError for what is no program,
    and InputError for an empty packet and for programs that ask for what a datagram does not have
    (`is_of_datagrams`).
    """
    check(code)
    data, instructions = flat_view(packet).tobytes(), decode(code)
    if not data:
        raise InputError("of an empty datagram nothing can be kept, so nothing is seen of the result")
    if not is_of_datagrams(code):
        raise InputError("the program asks for what a datagram between two sockets does not have")
    if len(instructions) > MOST - 3:
        raise InputError(f"{len(instructions)} instructions leave no room for three more, of {MOST}")
    bits = min((len(data) + 1).bit_length() - 1, MOST_BITS)
    mask = (1 << bits) - 1
    with _Sockets() as sockets:
        return sum(
            sockets.kept(_part(instructions, place, mask & 0xFFFFFFFF >> place), data) << place
            for place in range(0, RESULT_BITS, bits)
        )


def is_of_datagrams(code: bytes) -> bool:
    """True where no load counts from a header, and no ancillary load is of more than A, X and the packet."""
    for each in decode(code):
        row = each.row
        if row is None or row.form not in (Form.ABSOLUTE, Form.INDIRECT, Form.HEADER):
            continue
        if LINK <= signed(each.k) < ANCILLARY or ancillary(row, each.k) not in (None, *GIVEN):
            return False
    return True


def _part(instructions: tuple[Instruction, ...], place: int, mask: int) -> bytes:
    """Return a program whose result are some bits of another's."""
    end = len(instructions)
    made = []
    for each in instructions:
        fields = each.code, each.jt, each.jf, each.k
        if each.row is not None and each.row.kind is Kind.RETURN:
            is_number = each.row.form is Form.NUMBER
            fields = (RET, 0, 0, each.k >> place & mask) if is_number else (JA, 0, 0, end - each.pc - 1)
        made.append(fields)
    return encode([*made, (RSH, 0, 0, place), (AND, 0, 0, mask), (RET_A, 0, 0, 0)])


class _Sockets:
    """Two sockets, of which one filters what it hears."""

    def __enter__(self) -> _Sockets:
        if not hasattr(socket, "AF_UNIX") or not hasattr(socket, "AF_PACKET"):
            raise KernelUnavailable("no socket filters here: this is no Linux")
        try:
            self.says, self.hears = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        except OSError as error:
            raise KernelUnavailable(f"no sockets to filter on: {error}") from None
        self.says.setblocking(False)
        self.hears.setblocking(False)
        return self

    def __exit__(self, *error: object) -> None:
        self.says.close()
        self.hears.close()

    def kept(self, code: bytes, data: bytes) -> int:
        """Return how many bytes of a datagram a filter keeps."""
        buffer = ctypes.create_string_buffer(code, len(code))
        given = struct.pack("H6xQ", len(code) // 8, ctypes.addressof(buffer))
        try:
            self.hears.setsockopt(socket.SOL_SOCKET, ATTACH_FILTER, given)
        except OSError as error:
            raise VerifierError(f"Linux refuses the filter: {error}", rule="linux") from None
        try:
            self.says.send(data)
            return len(self.hears.recv(len(data)))
        except (PermissionError, BlockingIOError):  # nothing is kept
            return 0
        except OSError as error:
            raise InputError(f"Linux sends no datagram of {len(data)} bytes: {error}") from None
