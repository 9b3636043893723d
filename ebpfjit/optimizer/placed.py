"""Placed Code: each operation with the registers of its values, and the moves between them.

Registers go by number: 0 to 10 are the homes of r0 to r10, what the machine has besides follows. From SPILLED
on numbers are words of the machine's stack, which only moves and exits name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ebpfjit.isa.spec import Kind, Reg, Row
from ebpfjit.isa.unencoded import NO_OPCODE
from ebpfjit.optimizer.code import Code, Op
from ebpfjit.record import record

MASK64 = (1 << 64) - 1


@record
class Move:
    """A copy of the whole register `src` to `dst`; each of them may be a word of the stack."""

    dst: int
    src: int


class Placed:
    """An operation as translators get it: `results` and `args` are registers.

    `exit` has for each of r0 to r10 the register that it is in where the operation leaves, None where it is
    not read any more. `kept` are the registers that have values which are read after a call of a function of
    the program. What else it has is worked out when somebody asks: for most the text is known by their key.
    """

    __slots__ = ("args", "exit", "kept", "op", "results", "row")

    def __init__(
        self,
        op: Op,
        results: tuple[int, ...],
        args: tuple[int, ...],
        exit_: tuple[int | None, ...] | None = None,
        kept: tuple[int, ...] = (),
    ) -> None:
        self.op, self.results, self.args, self.exit, self.kept = op, results, args, exit_, kept
        self.row = op.row

    @property
    def dst_reg(self) -> int:
        """What an instruction of its row has there."""
        dst = self.row.dst
        if dst is Reg.WRITE or dst is Reg.UPDATE:
            return self.results[0]
        return self.args[0] if self.args else 0

    @property
    def src_reg(self) -> int:
        """What an instruction of its row has there."""
        args = self.args
        if self.row.kind in _SOURCE_FIRST:
            return args[0] if args else 0
        return args[1] if len(args) > 1 else 0

    @property
    def imm(self) -> int:
        """The operation's number, or what tells its row apart: that is no operand."""
        row = self.row
        return row.imm if type(row.imm) is int and row.imm and row.opcode != NO_OPCODE else self.op.imm

    @property
    def offset(self) -> int:
        """The operation's displacement in bytes, or what tells its row apart."""
        row = self.row
        is_fixed = type(row.offset) is int and row.offset and row.opcode != NO_OPCODE
        return row.offset if is_fixed else self.op.offset  # type: ignore[return-value]  # it is an int there

    @property
    def imm64(self) -> int:
        """The immediate as u64."""
        return self.imm & MASK64

    @property
    def pc(self) -> int:
        """The slot of the instruction that it was made from."""
        return self.op.pc

    @property
    def stores(self) -> bool:
        """Whether a bound is for writing."""
        return self.op.stores

    @property
    def scale(self) -> int:
        """How often an index is added to the base, 0 where there is none."""
        return self.op.scale

    @property
    def region(self) -> str:
        """Where the bytes of a bound are likely to be, "" where nothing is known."""
        return self.op.region

    @property
    def target(self) -> int:
        """The function that is called."""
        return self.op.imm

    @property
    def key(self) -> tuple[Row, tuple[int, ...], tuple[int, ...], int, int, int]:
        """What its text depends on, where it jumps nowhere."""
        op = self.op
        return self.row, self.results, self.args, op.imm, op.offset, op.scale


_SOURCE_FIRST = frozenset({Kind.MOVE, Kind.LOAD, Kind.PACKET_LOAD})
"""Kinds of which the first argument is what src names."""


Places = tuple[tuple[int, ...], tuple[int, ...], tuple[int | None, ...] | None, tuple[int, ...]]
"""Of an operation what `Placed` has: `results`, `args`, `exit`, `kept`."""


@record
class PlacedBlock:
    """A block: for each of `ops`, the end as the last, its `places`.

    `between` has the moves in front of an operation, by its place; `moves` those on each way out. These are
    no objects for each step, as there are so many.
    """

    ops: Sequence[Op]
    places: Sequence[Places]
    between: Mapping[int, Sequence[Move]]
    moves: tuple[tuple[Move, ...], ...]

    @property
    def steps(self) -> list[Move | Placed]:
        """All that it does, in order, the end as the last."""
        found: list[Move | Placed] = []
        for index, (op, places) in enumerate(zip(self.ops, self.places, strict=True)):
            found += self.between.get(index, ())
            found.append(Placed(op, *places))
        return found


@record
class PlacedCode:
    """Code with registers; None for a block that control does not come to.

    `arrivals` say of each block in which register each of its values is at its start. It needs so many
    `words` of the stack.
    """

    code: Code
    blocks: tuple[PlacedBlock | None, ...]
    arrivals: tuple[Mapping[int, int], ...]
    words: int = 0
