"""Loops that only put elements together do many rounds at once (vectorisation of reductions).

    before                                    after
                                              b3 (v7, v8):                      where the loop is entered
                                                v9 = v2 + -16
                                                if v2 < 16 goto b1(v7, v8) else b4()
                                              b4 ():
                                                if v7 < v9 goto b5(v7, v8) else b1(v7, v8)
                                              b5 (v10, v11):                    16 rounds
                                                pay 64 or else leave 3 (...)
                                                v12 = v1 + v10
                                                bound load v12 + 0..64 else leave 3 (...) refund 64
                                                v13 = reduce + 16 *(u32 *)(v12 + 0)
                                                v14 = v11 + v13
                                                v15 = v10 + 16
                                                if v15 < v9 goto b5(v15, v14) else b1(v15, v14)
    b1 (v3, v4):                              b1 (v3, v4):                      the last ones
      pay 4 else leave 3 (...)                  pay 4 else leave 3 (...)
      v5 = v1 + v3
      bound load v5 + 0..4 else leave 3 (...)   ...
      v6 = *(u32 *)(v5 + 0)
      v4' = v4 + v6
      v3' = v3 + 1
      if v3' < v2 goto b1(v3', v4') else b2()

Such a loop is one block, and perhaps a second one that is gone through on the way back. What it takes from
one round to the next steps by a number, stays as it is, or is put together, by an operation that knows no
order, from elements of arrays that lie one behind the other, or from products of those of two. It stores
nothing, and ends by one test, so rounds are done at once only where that says that one more follows: all else
that the loop makes, it makes in that one. Bounds that are left in it become those of all rounds; where an
address is made of 32 bits, rounds in which these would wrap are done one by one.
"""

from __future__ import annotations

from collections.abc import Sequence

from ebpfjit.bits import W32, W64, Width
from ebpfjit.isa.spec import Kind, Row
from ebpfjit.isa.table import BY_NAME
from ebpfjit.isa.unencoded import REDUCTIONS, UNENCODED
from ebpfjit.optimizer.code import BOUND, PAY, Code, Exit, Op, Way
from ebpfjit.optimizer.counted import MOST_STEP, Counted, Enough, Making, way_back
from ebpfjit.record import record, replace

VECTOR_BYTES, MOST_BYTES = 16, 64
"""Rounds at once load whole vectors, at most so many bytes of the array with the largest elements."""
LONGEST_ACCESS = 8
"""Bytes of one access; a bound of more never holds in a struct with rights."""
MOST_DEPTH = 6
"""Of how many operations an address is made at most."""

LOADS = frozenset(BY_NAME[f"LDX{letter}"] for letter in ("B", "H", "W", "DW"))
LETTERS = {1: "B", 2: "H", 4: "W", 8: "DW"}
PLAIN = frozenset(
    {Kind.PAY, Kind.BOUND, Kind.BINARY, Kind.MOVE, Kind.UNARY, Kind.LOAD_IMM64, Kind.SELECT, Kind.LOAD}
)
"""Kinds that a loop may have: what they do in a round that is done elsewhere needs not be done."""


@record
class Stream:
    """Elements of an array: their load, and the value that is their address."""

    load: Op
    address: int


@record
class Total:
    """What is put together: `row` reduces the elements of `streams`, `into` adds that to what there is."""

    row: Row
    into: Row
    streams: tuple[Stream, ...]


def vectorise(code: Code) -> Code:
    """Return the code with loops that only put elements together many rounds at once."""
    found: list[tuple[int, _Loop]] = []
    before = code.shape.before
    for number in sorted(code.shape.headers):
        back = way_back(code, number, code.blocks[number], before)
        if back is not None and (loop := _Loop(code, number, *back)).is_found():
            found.append((number, loop))
    if not found:
        return code
    made = _Making(code)
    for number, loop in found:
        made.rounds(number, loop)
    return replace(code, blocks=tuple(made.blocks), homes=made.homes)


class _Loop(Counted):
    """A loop of one block: what it puts together."""

    def __init__(self, code: Code, number: int, index: int, back: Way, paid: int) -> None:
        super().__init__(code, number, index, back, paid)
        self.totals: dict[int, Total] = {}
        self.enough: Enough | None = None
        self.whole: dict[int, int] = {}
        """What is made of 32 bits and steps by so much, as long as it does not wrap."""

    def is_found(self) -> bool:
        """Return whether the loop is one of those, and find out about it."""
        if not self.pays_first():
            return False
        if any(op.row.kind not in PLAIN or op.row.is_ordered for op in self.block.ops):
            return False
        for arg in self.varying:
            if arg not in self.steps:
                op = self.defined.get(self.after[arg])
                total = None if op is None else self._total(arg, op)
                if total is None:
                    return False
                self.totals[arg] = total
        if not self.totals:
            return False
        sizes = {stream.load.row.size for total in self.totals.values() for stream in total.streams}
        self.rounds = MOST_BYTES // max(sizes)
        if self.rounds * min(sizes) < VECTOR_BYTES or not self._bounds():
            return False
        self.enough = self.enough_rounds()
        return self.enough is not None

    def _total(self, arg: int, op: Op) -> Total | None:
        """Return what an argument is put together from; None where it is something else."""
        row = op.row
        if (
            row.kind is not Kind.BINARY
            or row.meaning not in REDUCTIONS
            or not row.uses_src
            or arg not in op.args
        ):
            return None
        element = op.args[1] if op.args[0] == arg else op.args[0]
        made = self.defined.get(element)
        if made is None or element == arg:
            return None
        bits = row.width.bits
        if made.row in LOADS and made.row.size <= row.width.bytes:
            stream = self._stream(element)
            name = f"REDUCE_{row.meaning}{bits}_LDX{LETTERS[made.row.size]}"
            return None if stream is None else Total(UNENCODED[name], row, (stream,))
        is_whole = made.row.width is W64 or row.width is W32
        if row.meaning == "ADD" and made.row.meaning == "MUL" and made.row.uses_src and is_whole:
            streams = tuple(stream for value in made.args if (stream := self._stream(value)) is not None)
            if (
                len(streams) == 2
                and streams[0].load.row is streams[1].load.row
                and streams[0].load.row.size <= 4
            ):
                name = f"REDUCE_DOT{bits}_LDX{LETTERS[streams[0].load.row.size]}"
                return Total(UNENCODED[name], row, streams)
        return None

    def _stream(self, value: int) -> Stream | None:
        """Return the array that a value is an element of; None where the next one does not lie behind it."""
        load = self.defined.get(value)
        if load is None or load.row not in LOADS or self.step(load.args[0]) != load.row.size:
            return None
        return Stream(load, load.args[0])

    def _bounds(self) -> bool:
        """Return whether all bounds of the loop can be made for many rounds."""
        for op in self.block.ops:
            if op.row is BOUND and op.args:
                step = self.step(op.args[0])
                if len(op.args) > 1 or op.scale or step is None or step < 0:
                    return False
                if step and op.imm + (self.rounds - 1) * step <= LONGEST_ACCESS:
                    return False  # a struct with rights may allow that, and none of its parts
        return True

    def step(self, value: int, width: Width = W64, depth: int = MOST_DEPTH) -> int | None:
        """Return by how much a value steps each round; None where it does something else, or may."""
        if value in self.after:
            op = self.steps.get(value)
            if op is not None:
                return self._unwrapped(value, op.imm, op.row, width)
            return 0 if self.after[value] == value else None
        op = self.defined.get(value)
        if op is None or op.row.kind is Kind.LOAD_IMM64:
            return 0
        row = op.row
        if not depth or row.kind not in (Kind.BINARY, Kind.MOVE) or row.offset:
            return None
        inner = W32 if W32 in (width, row.width) else W64
        steps = []
        for arg in op.args:
            step = self.step(arg, inner, depth - 1)
            if step is None:
                return None
            steps.append(step)
        found = _stepped(row, steps, op.imm)
        return None if found is None or abs(found) > MOST_STEP else self._unwrapped(value, found, row, width)

    def _unwrapped(self, value: int, step: int, row: Row, width: Width) -> int | None:
        """Return a step; of 32 bits read as 64 it is to be asked whether the value wraps."""
        if row.width is W64 or width is W32 or not step:
            return step
        if step < 0:
            return None
        self.whole[value] = step
        return step


def _stepped(row: Row, steps: Sequence[int], imm: int) -> int | None:
    """Return by how much the result of an operation steps whose operands step by so much."""
    if not any(steps):
        return 0
    match row.meaning:
        case "MOV":
            return steps[0]
        case "ADD":
            return sum(steps)
        case "SUB":
            return steps[0] - sum(steps[1:])
        case "LSH" if not row.uses_src and 0 <= imm < row.width.bits:
            return steps[0] << imm
    return None


class _Making(Making):
    """The blocks so far."""

    def rounds(self, number: int, loop: _Loop) -> None:
        """Put many rounds of a loop before it."""
        test = loop.enough
        assert test is not None  # it was found
        front, limit = self.front(number, loop, test)
        self.many(number, loop, front, limit)

    def many(self, number: int, loop: _Loop, front: dict[int, int], limit: int | None) -> None:
        """Add the blocks of many rounds: those of what may wrap, and of the rounds themselves."""
        varying = loop.varying
        of = {**front, **{arg: self.new(arg) for arg in varying}}
        head, args = len(self.blocks), tuple(of[arg] for arg in varying)
        alone = Way(number, tuple(of[arg] for arg in loop.block.args))
        for value, step in loop.whole.items():
            most = (1 << 32) - 1 - (loop.rounds - 1) * step
            wraps = Op(BY_NAME["JGT32_K"], (self.copied(loop, of, value),), W32.signed(most), 0, self.pc)
            self.block(args, wraps, (alone, Way(len(self.blocks) + 1, ())))
            args = ()
        pay = loop.block.ops[0]
        assert pay.exit is not None  # it was looked at
        registers = [None if value is None else of.get(value, value) for value in pay.exit.registers]
        cost = loop.rounds * loop.cost
        leaves = pay.exit.naming(registers)
        self.ops.append(Op(PAY, (), cost, 0, pay.pc, (), leaves, True))
        leaves = leaves.giving_back(leaves.refund + cost)
        for op in loop.block.ops:
            if op.row is BOUND:
                self.bound(loop, of, op, leaves)
        following = dict(of)
        for arg, total in loop.totals.items():
            made = self.reduced(loop, of, total)
            following[arg] = self.emit(total.into, (of[arg], made), like=arg)
        for arg, op in loop.steps.items():
            following[arg] = self.emit(op.row, (of[arg],), loop.rounds * op.imm, like=arg)
        test = loop.enough
        assert test is not None  # it was found
        end = self.enough(test, following[test.counter], limit)
        self.again(loop, head, args, following, end)

    def bound(self, loop: _Loop, of: dict[int, int], op: Op, leaves: Exit) -> None:
        """Add a bound for what all rounds ask for."""
        if not op.args:
            self.ops.append(replace(op, exit=leaves))
            return
        step = loop.step(op.args[0])
        assert step is not None  # it was looked at
        base, size = self.copied(loop, of, op.args[0]), op.imm + (loop.rounds - 1) * step
        self.ops.append(Op(BOUND, (base,), size, op.offset, op.pc, (), leaves, op.stores, op.region))

    def reduced(self, loop: _Loop, of: dict[int, int], total: Total) -> int:
        """Add what puts the elements of all rounds together; return its value."""
        first, *others = total.streams
        bases = [self.copied(loop, of, first.address)]
        for stream in others:
            base = self.copied(loop, of, stream.address)
            by = stream.load.offset
            bases.append(self.emit(BY_NAME["ADD64_K"], (base,), by) if by else base)
        value, load = self.new(), first.load
        self.ops.append(Op(total.row, tuple(bases), loop.rounds, load.offset, load.pc, (value,)))
        return value

    def copied(self, loop: _Loop, of: dict[int, int], value: int) -> int:
        """Return a value of the first of the rounds, with what it is made of."""
        if value in of:
            return of[value]
        op = loop.defined.get(value)
        if op is None:
            return value
        args = tuple(self.copied(loop, of, arg) for arg in op.args)
        of[value] = self.emit(op.row, args, op.imm, op.offset, like=value)
        return of[value]
