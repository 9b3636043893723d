"""Code: a program as values in blocks, each value defined once (SSA, with arguments of blocks).

    Block 3, of pc 12, with the arguments v7 and v9:

    b3 pc 12 (v7, v9):
      pay 4 else leave 12 (r1 = v7, r6 = v9)
      bound load v7 + 0..4 else leave 12 (r1 = v7, r6 = v9)
      v10 = *(u32 *)(v7 + 0)
      v11 = v9 + v10
      if v11 > 5 goto b4(v7) else b3(v7, v11)

An operation is a row of the instruction table; those that only Code has (`isa.table.UNENCODED`) are:

    row      args          imm             offset        exit
    BOUND    base          size            from base on  where they are not all in one region that may be
                                                         loaded from ("load") or stored to
    BOUND    first, last   size            from base on  where not all from first on to the last `size` bytes
                                                         are in one region, or last is before first
    BOUND                  size            from the      where they are not all in the memory that r1 points
                                           argument on   to at the start, or that may not be stored to
                                                         (size 0: only that)
    ALIGNED  base          the multiple    from base on  where it is none
    PAY                    instructions  of these those  where so many of its own (0: all) are not left;
                                         of its own      None: nobody looks. Below zero they are given back.
                                                         Where it `stores` it leaves, else the slice ends
    LEAVE                                                always
    COUNT    [value]         how many        0 or 1      so many more, where runs are counted: for the segment
                                                         at its pc, or the branch there that is not taken

and of what the machine does at once (rules/ makes these):

    row              args                   imm       offset            results
    ROTATE64         value                  left by                     1
    MULHI64          two                                                the high half of their product
    SUM64            base, index                      added             base + index * scale + offset
    SELECT_JLT_K     x, chosen, other       y                           chosen if x < y else other
    SELECT_JLT_X     x, y, chosen, other                                the same
    INDEXED_LDXW     base, index                      displacement      what is there
    INDEXED_STXW     base, index, value               displacement
    SWAPPED_LDXW     base[, index]                    displacement      what is there, the first byte highest
    ADD_LDXW         base[, index], value             displacement      value + what is there
    ADD_STW_X        base[, index], value             displacement      none: it is added to what is there
    JLT_LDXW_X       base[, index], value             displacement      ends a block, as a branch
    REDUCE_XOR64_LDXW  base                 elements  displacement    so many from there on, joined by ^
    REDUCE_DOT32_LDXW  base, other          elements  displacement    the sum of their products with those
                                                                      from `other` on

An index is there where `scale` is not 0: it is added so many times.

Code never faults. What may fault, end its slice or cannot be translated leaves at an `Exit`: the run goes on
in baseline code, which does it again from that instruction on, with the fault, its pc and its account.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ebpfjit.analysis.segments import SEGMENT
from ebpfjit.analysis.verified import Verified
from ebpfjit.isa.spec import REGISTER_COUNT, Kind, Row
from ebpfjit.isa.unencoded import UNENCODED
from ebpfjit.optimizer.remarks import Remark
from ebpfjit.optimizer.shape import Shape
from ebpfjit.record import dataclass, field, lazy, record
from ebpfjit.runtime.counters import branch_word, segment_word

BOUND, ALIGNED, PAY, LEAVE, COUNT = (
    UNENCODED[name] for name in ("BOUND", "ALIGNED", "PAY", "LEAVE", "COUNT")
)

ENDS = frozenset({Kind.JUMP, Kind.BRANCH, Kind.BRANCH_LOAD, Kind.MAY_GOTO, Kind.EXIT, Kind.LEAVE})
"""Kinds that a block ends with."""

MAY_LEAVE = frozenset(
    {Kind.BOUND, Kind.ALIGNED, Kind.PACKET_LOAD, Kind.CALL_LOCAL, Kind.CALL_REGISTER, Kind.LEAVE}
)
"""Kinds that have an exit; PAY has one where somebody looks."""

ONLY = {name: f"only {name}" for name in ("argument", "packet")}
"""By region, what bounds have that hold there alone."""

CALL_RESULTS = 6
"""Values that a function of the program leaves in r0 to r5."""


@record
class Exit:
    """Where a run goes on in baseline code: at the instruction `pc`, as if it came there.

    Where it is `inside` of a block that starts there, what is paid and counted at the start is done.
    `registers` has for each of r0 to r10 the value that it is to have, None where it is not read any more,
    then those of slots of the frame: `slots` says where they are, in bytes from r10, and of how many.
    `refund` instructions go back to the budget: what is paid again there, or was paid for what comes later.
    Last in `registers` are values that count: `counts` has words of the program's counters, and for each a
    number that is added, and 1 for each of these values that is, -1 for what it is less.
    """

    pc: int
    registers: tuple[int | None, ...]
    refund: int = 0
    slots: tuple[tuple[int, int], ...] = ()
    inside: bool = False
    counts: tuple[tuple[int, int, tuple[int, ...]], ...] = ()

    @property
    def places(self) -> int:
        """How many of the first of `registers` have a place in baseline code."""
        return REGISTER_COUNT + len(self.slots)

    def naming(self, registers: Iterable[int | None]) -> Exit:
        """Return the exit with other values."""
        return Exit(self.pc, tuple(registers), self.refund, self.slots, self.inside, self.counts)

    def giving_back(self, refund: int) -> Exit:
        """Return the exit with another refund."""
        return Exit(self.pc, self.registers, refund, self.slots, self.inside, self.counts)


@record
class Op:
    """An operation, made from the instruction at `pc`.

    `args` are values, in the order of the row's dst and src, then what it reads besides. `results` are the
    values that it defines: none, one, or the CALL_RESULTS of a call. `imm` is the row's, or the whole of a
    constant of 64 bits. `stores` is for BOUND: whether the bytes are written; `region` is where they most
    likely are: "stack", "argument", "packet", or "" where that is not known. A bound that asks for "only
    argument" or "only packet" (ONLY) leaves where they are anywhere else, or that is a struct with rights.
    Where `scale` is not 0 (but 1, 2, 4 or 8) the second of `args` is an index, which is added to the first so
    many times.
    """

    row: Row
    args: tuple[int, ...]
    imm: int
    offset: int
    pc: int
    results: tuple[int, ...] = ()
    exit: Exit | None = None
    stores: bool = False
    region: str = ""
    scale: int = 0


@record
class Proof:
    """Why a BOUND or ALIGNED is gone, so that it can be looked at again where the access is.

    It stood for `size` bytes at `value` + `offset` (0 bytes: for the address being aligned). By the `rule`
    they are `low` to `high` in what the rule is about, counted from its start (a frame: from its end; what
    "covered" them: from the root of the value). `by` is the pc of the check that stands for them now.
    """

    rule: str
    value: int
    offset: int
    size: int
    stores: bool
    low: int
    high: int
    by: int | None = None


@record
class Way:
    """A way out of a block: to which, by number, and the values of its arguments."""

    block: int
    args: tuple[int, ...]


@record
class Block:
    """A basic block: `end` is of a kind in ENDS; of a branch the first of `ways` is the one that is taken.

    `pc` is where its first instruction is, or would be.
    """

    pc: int
    args: tuple[int, ...]
    ops: tuple[Op, ...]
    end: Op
    ways: tuple[Way, ...] = ()

    @property
    def all_ops(self) -> tuple[Op, ...]:
        """The operations, the end as the last."""
        return (*self.ops, self.end)


@record
class Entry:
    """A way in from outside: the registers, by number, that a block's arguments are."""

    block: int
    registers: tuple[int, ...]


@dataclass
class Code:
    """A program, or a part of one, as blocks; it is not to be changed.

    `entries` are the ways in by pc: those of functions, and where runs come from baseline code. `homes` has
    for each value, by number, the register that it was of: no more than a hint where to put it. `proofs` say
    by pc why checks that the instruction there had are gone. `starts` has for each block that was
    built the exit to its start, where values come from in front of it; None where some of them are gone.
    `remarks` is one list from `build` on, to which passes add what they leave alone. `layout` has the numbers
    of the blocks that control comes to in the order of their places, empty where that is all, by number.
    """

    verified: Verified
    blocks: tuple[Block, ...]
    entries: dict[int, Entry] = field(default_factory=dict)
    homes: list[int] = field(default_factory=list, compare=False)
    proofs: dict[int, tuple[Proof, ...]] = field(default_factory=dict, compare=False)
    starts: list[Exit | None] = field(default_factory=list, compare=False)
    remarks: list[Remark] = field(default_factory=list, compare=False)
    layout: Sequence[int] = ()

    def leave_alone(self, by: str, pc: int | None, why: str) -> None:
        """Note that a pass leaves alone what is at `pc`, None for the whole of the program."""
        self.remarks.append(Remark(by, pc, why))

    def read_by(self, function: int) -> Sequence[int]:
        """Return the registers, in order, that a function of the program reads, in this part or another."""
        entry = self.entries.get(function)
        if entry is not None:
            return entry.registers
        mask = self.verified.liveness.at[function]
        return [register for register in range(REGISTER_COUNT) if mask >> register & 1]

    @lazy
    def shape(self) -> Shape:
        """Which blocks lead to which; passes that leave it as it is hand it on (`flow.with_blocks`)."""
        ways: list[list[int]] = []
        for block in self.blocks:  # no comprehension inside of another: that is a call for each block
            match block.ways:
                case (way,):
                    ways.append([way.block])
                case (taken, other):
                    ways.append([taken.block, other.block])
                case _:
                    ways.append([])
        return Shape(ways, [entry.block for entry in self.entries.values()])

    @property
    def laid_out(self) -> Sequence[int]:
        """The numbers of the blocks in the order of their places."""
        return self.layout or range(len(self.blocks))

    def values(self) -> Iterator[int]:
        """Yield each value that is defined, in the order of its definition's place."""
        for block in self.blocks:
            yield from block.args
            for op in block.ops:
                yield from op.results


def with_exit(op: Op, leaves: Exit) -> Op:
    """Return an operation with another exit; `dataclasses.replace` takes six times as long."""
    return Op(
        op.row, op.args, op.imm, op.offset, op.pc, op.results, leaves, op.stores, op.region, op.scale
    )  # fmt: skip


def word_of(op: Op) -> int:
    """Return the word of the program's counters that a COUNT is about."""
    return segment_word(op.pc) if op.offset == SEGMENT else branch_word(op.pc)


def used_by(op: Op) -> Iterator[int]:
    """Yield the values that an operation reads, those of its exit too."""
    yield from op.args
    if op.exit is not None:
        yield from (value for value in op.exit.registers if value is not None)
