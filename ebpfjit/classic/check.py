"""The structural rules of classic BPF, as Linux has them (bpf_check_classic, check_load_and_stores).

Programs of libpcap's keep most of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ebpfjit.classic.code import Instruction, decode
from ebpfjit.classic.table import (
    ANCILLARIES,
    CELLS,
    MOST,
    Form,
    Kind,
    Machine,
    ancillary,
    check_machine,
    signed,
)
from ebpfjit.errors import VerifierError
from ebpfjit.named import absent


def check(code: bytes, *, loops: bool = False, machine: Machine = "linux") -> None:
    """Raise VerifierError for the first rule that the program in `code` breaks, DecodeError for odd bytes.

    With `loops` a `ja` may go back, as libpcap's programs for `protochain` do; Linux takes no such programs.
    With the `machine` "libpcap" a program may be of any length, load from places of Linux's that nothing is
    at, and read cells that nothing has written: its compiler makes such programs.
    """
    check_machine(machine)
    instructions = decode(code)
    if not instructions:
        raise VerifierError("the program is empty: it needs at least a ret", rule="length")
    if len(instructions) > MOST and machine == "linux":
        raise VerifierError(f"{len(instructions)} instructions, at most {MOST} are allowed", rule="length")
    for instruction in instructions:
        for rule, what in _wrong(instruction, len(instructions), loops=loops, machine=machine):
            raise VerifierError(f"instruction {instruction.pc}: {what}", instruction.pc, rule)
    last = instructions[-1]
    if last.row is None or last.row.kind is not Kind.RETURN:
        raise VerifierError(f"instruction {last.pc}: the program ends without a ret", last.pc, "ends")
    if machine == "linux":
        _check_cells(instructions)


def check_given(ancillaries: Mapping[str, int] | None) -> Mapping[str, int]:
    """Return what ancillary loads give. Raises ValueError for a name that is none of theirs, TypeError."""
    given = {} if ancillaries is None else ancillaries
    if not isinstance(given, Mapping):
        what = f"a mapping of names to numbers, not of type {type(given).__name__}"
        raise TypeError(f"what ancillary loads give is {what}")
    for name, value in given.items():
        if name not in ANCILLARIES:
            raise ValueError(absent(name, "ancillary load", ANCILLARIES))
        if not isinstance(value, int):
            raise TypeError(f"what {name} gives is a number, not of type {type(value).__name__}")
    return given


def _wrong(
    instruction: Instruction, length: int, *, loops: bool, machine: Machine
) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with an instruction by itself: a rule, and words."""
    row, pc, k = instruction.row, instruction.pc, instruction.k
    if row is None:
        yield "known-code", f"code {instruction.code:#06x} is no operation"
        return
    if row.kind is Kind.ARITHMETIC and row.form is Form.NUMBER:
        if row.name in ("div", "mod") and k == 0:
            yield "divisor", f"{row.name} by the constant 0"
        if row.name in ("lsh", "rsh") and k >= 32:
            yield "shift", f"{row.name} by {k}, of 32 bits"
    if row.form is Form.CELL and k >= CELLS:
        yield "cell", f"M[{k}], and there are M[0] to M[{CELLS - 1}]"
    if row.kind is Kind.JUMP and -pc - 1 <= signed(k) < 0:
        if not loops:
            target = pc + 1 + signed(k)
            yield "target", f"a jump back to {target}, which is for libpcap's machine only (loops=True)"
    elif row.kind is Kind.JUMP and k >= length - pc - 1:
        yield "target", f"a jump to {pc + 1 + k}, and the program has {length} instructions"
    if row.kind is Kind.BRANCH:
        for way in (instruction.jt, instruction.jf):
            if pc + 1 + way >= length:
                yield "target", f"a branch to {pc + 1 + way}, and the program has {length} instructions"
    if ancillary(row, k) == "" and machine == "linux":
        yield "ancillary", f"offset {k:#x} is of no packet, and nothing that Linux knows is there"


def _check_cells(instructions: tuple[Instruction, ...]) -> None:
    """Raise VerifierError for a cell that is read before each way there has written it.

    As in Linux what stands behind a ret counts as if that led on.
    """
    everywhere = (1 << CELLS) - 1
    written = [everywhere] * len(instructions)  # as jumps go forward only, one walk sees all ways to a place
    known = 0
    for pc, instruction in enumerate(instructions):
        row, k = instruction.row, instruction.k
        assert row is not None  # that was looked at before
        known &= written[pc]
        if row.kind is Kind.STORE:
            known |= 1 << k
        elif row.form is Form.CELL and not known >> k & 1:
            raise VerifierError(f"instruction {pc}: M[{k}] is read before it is written", pc, "cell")
        elif row.kind is Kind.JUMP:
            if signed(k) >= 0:  # where a loop starts no more is known than on the way to it
                written[pc + 1 + k] &= known
            known = everywhere
        elif row.kind is Kind.BRANCH:
            written[pc + 1 + instruction.jt] &= known
            written[pc + 1 + instruction.jf] &= known
            known = everywhere
