"""Programs of classic BPF, made by chance: valid ones, with operands where mistakes show.

As a case of the fuzzer such a program is translated; its twin ends with what the interpreter of classic BPF
says of the packet.
"""

from __future__ import annotations

import random

from ebpfjit import classic
from ebpfjit.assembler import assemble
from ebpfjit.classic.code import encode
from ebpfjit.classic.table import ANCILLARY, CELLS, LINK, NETWORK, ROWS, Form, Kind, signed
from ebpfjit.difftest.case import Case, Input
from ebpfjit.errors import VerifierError

NUMBERS = (0, 1, 2, 3, 4, 14, 15, 31, 60, 63, 64, 255, 1 << 15, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
PLACES = (0, 1, 3, 12, 13, 14, 20, 57, 59, 60, 61, 63, 64, 100, 1 << 15, (1 << 20) - 1, 1 << 20, 1 << 31)
HEADERS = tuple(base + n & 0xFFFFFFFF for base in (LINK, NETWORK) for n in (0, 1, 14, 40, 60, 0xFFFFF))
XOR = ANCILLARY + 40 & 0xFFFFFFFF
LIMIT = 1_000_000
"""No filter comes near it: they have no loops."""


def case(chosen: random.Random) -> Case:
    """Return a filter as a case."""
    while True:
        code, data = program(chosen), packet(chosen)
        try:
            result = classic.run(code, data)
            translated = classic.to_ebpf(code, None).to_bytes()
        except VerifierError:  # an ancillary load that a place and X came to
            continue
        twin = assemble(f"mov32 r0, {signed(result)}\nexit")
        return Case(translated, (Input(data, LIMIT, read_only=chosen.random() < 0.5),), twin=twin)


def program(chosen: random.Random, length: int = 24, *, headers: bool = True) -> bytes:
    """Return a valid program; with `headers` some loads count from a header."""
    fields: list[tuple[int, int, int, int]] = []
    for cell in range(CELLS):  # so that all may be read
        if chosen.random() < 0.2:
            fields += [(0x00, 0, 0, chosen.choice(NUMBERS)), (0x02, 0, 0, cell)]
    written = {k for code, _, _, k in fields if code == 0x02}
    count = chosen.randrange(1, length)
    for left in range(count, 0, -1):
        row = chosen.choice(ROWS)
        k = jt = jf = 0
        if row.kind is Kind.RETURN and chosen.random() < 0.7:
            row = ROWS[0]
        if row.form in (Form.ABSOLUTE, Form.INDIRECT, Form.HEADER):
            k = chosen.choice(PLACES)
            if headers and chosen.random() < 0.15:
                k = chosen.choice(HEADERS)
            elif row.form is Form.ABSOLUTE and chosen.random() < 0.1:
                k = XOR
        elif row.form is Form.CELL:
            k = chosen.choice(sorted(written) or [0])
            if row.kind is not Kind.STORE and not written:
                row, k = ROWS[0], 12
        elif row.form is Form.NUMBER:
            k = chosen.choice(NUMBERS) if chosen.random() < 0.7 else chosen.getrandbits(32)
            if row.name in ("lsh", "rsh"):
                k &= 31
            elif row.name in ("div", "mod"):
                k = k or 1
        if row.kind is Kind.JUMP:
            k = chosen.randrange(min(left, 6))
        elif row.kind is Kind.BRANCH:
            jt, jf = chosen.randrange(min(left, 5)), chosen.randrange(min(left, 5))
        fields.append((row.code, jt, jf, k))
    fields.append(chosen.choice([(0x16, 0, 0, 0), (0x06, 0, 0, chosen.choice(NUMBERS))]))
    return encode(fields)


def packet(chosen: random.Random) -> bytes:
    """Return a packet of 14 bytes at least, as Linux wants them."""
    return chosen.randbytes(chosen.choice([14, 15, 20, 34, 60, 61, 64, 100]))
