"""Programs of classic BPF, made by chance: valid ones, with operands where mistakes show.

As a case of the fuzzer such a program is translated; what its own interpreter says of the packet is
right, and the engine `kernel` is Linux's machine of classic BPF.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

from ebpfjit import classic
from ebpfjit.classic.code import encode
from ebpfjit.classic.table import ANCILLARY, CELLS, LINK, NETWORK, ROWS, Form, Kind
from ebpfjit.difftest.case import Case, Input
from ebpfjit.difftest.outcome import Outcome, Runner
from ebpfjit.errors import BudgetExhausted, EbpfError, InputError, VerifierError

NUMBERS = (0, 1, 2, 3, 4, 14, 15, 31, 60, 63, 64, 255, 1 << 15, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
PLACES = (0, 1, 3, 12, 13, 14, 20, 57, 59, 60, 61, 63, 64, 100, 1 << 15, (1 << 20) - 1, 1 << 20, 1 << 31)
HEADERS = tuple(base + n & 0xFFFFFFFF for base in (LINK, NETWORK) for n in (0, 1, 14, 40, 60, 0xFFFFF))
XOR = ANCILLARY + 40 & 0xFFFFFFFF
LIMIT = 1_000_000
"""No filter comes near it: they have no loops."""


def case(chosen: random.Random) -> Case:
    """Return a filter as a case."""
    while True:
        of_headers = chosen.random() < 0.5  # a datagram in Linux has none
        code, data = program(chosen, headers=of_headers), packet(chosen)
        try:
            return case_of(code, (Input(data, LIMIT, read_only=chosen.random() < 0.5),))
        except VerifierError:  # an ancillary load that a place and X came to
            continue


def case_of(code: bytes, inputs: tuple[Input, ...], name: str = "") -> Case:
    """Return a filter as a case: translated, to run on plain memory.

    Raises VerifierError, and TranslationError.
    """
    return Case(classic.to_ebpf(code, None, loops=True).to_bytes(), inputs, name=name, classic=code)


def judges(case: Case) -> dict[str, Runner]:
    """Return what runs a filter's own interpreter, by its name; nothing for what is no filter."""

    def run(given: Input) -> Outcome | None:
        try:
            return Outcome("ok", classic.run(case.classic, given.memory, loops=True), memory=given.memory)
        except BudgetExhausted:
            return None

    return {"classic": run} if case.classic else {}


def in_linux(case: Case) -> Runner:
    """Return what runs a filter in Linux; it has no answer where that is about headers, or has loops."""

    def run(given: Input) -> Outcome | None:
        try:
            return Outcome("ok", classic.run_in_linux(case.classic, given.memory), memory=given.memory)
        except (VerifierError, InputError):
            return None

    return run


def simpler(case: Case) -> Iterator[Case]:
    """Yield the case with one instruction less, or another constant, where that is a filter."""
    instructions = classic.decode(case.classic)
    for pc in range(len(instructions)):
        kept = [each for each in instructions if each.pc != pc]
        yield from _if_valid(case, [_without(each, pc) for each in kept])
    for pc, this in enumerate(instructions):
        for k in (0, 1, this.k // 2):
            if k < this.k:
                fields = [(each.code, each.jt, each.jf, each.k) for each in instructions]
                fields[pc] = this.code, this.jt, this.jf, k
                yield from _if_valid(case, fields)


def _without(this: classic.Instruction, pc: int) -> tuple[int, int, int, int]:
    """Return the fields of an instruction where the one at `pc` goes."""

    def nearer(distance: int) -> int:
        return distance - (this.pc < pc <= this.pc + distance)

    if this.row is None or this.row.kind not in (Kind.JUMP, Kind.BRANCH):
        return this.code, this.jt, this.jf, this.k
    if this.row.kind is Kind.JUMP:
        return this.code, 0, 0, nearer(this.k)
    return this.code, nearer(this.jt), nearer(this.jf), this.k


def _if_valid(case: Case, fields: list[tuple[int, int, int, int]]) -> Iterator[Case]:
    """Yield the case with another filter, if that is one."""
    code = encode(fields)
    try:
        made = case_of(code, case.inputs)
    except EbpfError:
        return
    yield replace(case, code=made.code, classic=code)


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
