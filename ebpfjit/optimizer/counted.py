"""Counted loops of one block: when so many rounds follow, and what is put in front of them then.

    b3 (v7):                                  where the loop is entered
      v8 = v2 + -4
      if v2 < 4 goto b1(v7) else b4()
    b4 ():
      if v7 < v8 goto b5(v7) else b1(v7)
    b5 (v9):                                  four rounds; this is what passes make
      ...
      if v10 < v8 goto b5(v10) else b1(v10)
    b1 (v3):                                  the last ones, as before
      ...
      if v4 < v2 goto b1(v4) else b2()

One more round follows on those that are done at once, always: what the loop makes is made in it as before.
"""

from __future__ import annotations

from collections.abc import Sequence

from ebpfjit.bits import W64, Width
from ebpfjit.isa.spec import Kind, Row
from ebpfjit.isa.table import BY_NAME, TABLE
from ebpfjit.optimizer.code import PAY, Block, Code, Op, Way
from ebpfjit.optimizer.flow import homes_of
from ebpfjit.optimizer.intervals import MIRRORED, RELATIONS, SIGNED
from ebpfjit.record import record, replace

BRANCHES = frozenset(row for row in TABLE if row.kind is Kind.BRANCH)
MOST_STEP = 1 << 12
"""How far what steps may step in a round."""
AT_LEAST = {"<=": "<", ">=": ">"}
"""A test that is taken for one that fails where it holds: so rounds are done one by one that need not be."""


@record
class Enough:
    """When enough rounds follow: where the argument `counter` is `far` from `bound`, a value or a number.

    It is below it by more (`relation` "<"), above it (">"), or not within (`!=`, from the side that it comes
    from); compared at a width, signed or not.
    """

    relation: str
    counter: int
    bound: int
    is_value: bool
    far: int
    rises: bool
    width: Width
    is_signed: bool


def way_back(
    code: Code, number: int, block: Block, before: Sequence[Sequence[int]]
) -> tuple[int, Way, int] | None:
    """Return which way of a block leads back to it, itself or by a block that only pays; what that pays."""
    if not block.args or block.end.row not in BRANCHES:
        return None
    for index, way in enumerate(block.ways):
        if block.ways[1 - index].block == number:
            continue
        if way.block == number:
            return index, way, 0
        between = code.blocks[way.block]
        is_back = len(between.ways) == 1 and between.ways[0].block == number and not between.args
        only_pays = all(op.row is PAY and op.exit is None for op in between.ops)
        if is_back and only_pays and before[way.block] == [number]:
            return index, between.ways[0], sum(op.imm for op in between.ops)
    return None


class Counted:
    """A loop of one block: what its arguments become in a round."""

    def __init__(self, code: Code, number: int, index: int, back: Way, paid: int) -> None:
        self.block = block = code.blocks[number]
        self.number, self.index, self.paid = number, index, paid
        self.after = dict(zip(block.args, back.args, strict=True))
        self.defined = {value: op for op in block.ops for value in op.results}
        self.cost = paid + sum(op.imm for op in block.ops if op.row is PAY)
        self.rounds = 1
        self.steps = {arg: op for arg in block.args if (op := self._stepping(arg)) is not None}
        """What steps, with the operation that does it."""

    def _stepping(self, arg: int) -> Op | None:
        op = self.defined.get(self.after[arg])
        steps = op is not None and op.row.meaning == "ADD" and not op.row.uses_src and op.args == (arg,)
        return op if steps and op is not None and 0 < abs(op.imm) <= MOST_STEP else None

    @property
    def varying(self) -> list[int]:
        """The arguments that rounds change."""
        return [arg for arg, value in self.after.items() if arg != value]

    def pays_first(self) -> bool:
        """True where the budget is looked at when a round starts, and nowhere else."""
        ops = self.block.ops
        if not ops or ops[0].row is not PAY or ops[0].exit is None:
            return False
        return all(op.row is not PAY or op.exit is None for op in ops[1:])

    def enough_rounds(self) -> Enough | None:
        """Return when enough rounds follow, by the test at the end of the loop."""
        end = self.block.end
        row, width = end.row, end.row.width
        if row.meaning not in RELATIONS:
            return None
        relation = RELATIONS[row.meaning][self.index]
        left, right = end.args[0], end.args[1] if row.uses_src else None
        counter = self._counter(left, width)
        if counter is None and right is not None:
            left, right, relation = right, left, MIRRORED[relation]
            counter = self._counter(left, width)
        if counter is None:
            return None
        arg, behind = counter
        if right is not None and (right in self.defined or self.after.get(right, right) != right):
            return None
        step = self.steps[arg].imm
        far = (self.rounds - 1 + behind) * abs(step)
        bound, is_value = (end.imm, False) if right is None else (right, True)
        relation = AT_LEAST.get(relation, relation)
        if relation == "!=" and step > 0 and (is_value or bound > far):
            relation = "<"  # what is past the bound comes to it when it has wrapped, one by one
        is_signed = row.meaning in SIGNED
        test = Enough(relation, arg, bound, is_value, far, step > 0, width, is_signed)
        if relation == "!=" or (relation == "<" and step > 0 and (is_value or bound > far)):
            return test
        is_small = 0 <= bound < 1 << 30
        return test if relation == ">" and step < 0 and not is_value and is_small else None

    def _counter(self, value: int, width: Width) -> tuple[int, int] | None:
        """Return the argument that a test is about, and how many steps behind it."""
        for arg, op in self.steps.items():
            if value in (arg, op.results[0]) and op.row.width.bits >= width.bits:
                return arg, int(value != arg)
        return None


class Making:
    """The blocks so far."""

    def __init__(self, code: Code) -> None:
        self.code, self.blocks, self.homes = code, [*code.blocks], homes_of(code)
        self.ops: list[Op] = []
        self.pc = 0

    def new(self, like: int = -1) -> int:
        """Return a new value, of the register that another one was of."""
        self.homes.append(self.homes[like] if like >= 0 else 0)
        return len(self.homes) - 1

    def emit(self, row: Row, args: tuple[int, ...], imm: int = 0, offset: int = 0, like: int = -1) -> int:
        """Add an operation; return its value."""
        value = self.new(like)
        self.ops.append(Op(row, args, imm, offset, self.pc, (value,)))
        return value

    def block(self, args: tuple[int, ...], end: Op, ways: tuple[Way, ...]) -> None:
        """Add a block with the operations so far."""
        self.blocks.append(Block(self.pc, args, tuple(self.ops), end, ways))
        self.ops = []

    def enter(self, number: int, loop: Counted) -> None:
        """Have all ways to a loop from outside come to the block that is made next."""
        target, inside = len(self.blocks), (number, loop.block.ways[loop.index].block)
        for index in {*self.code.shape.before[number]}.difference(inside):
            if index >= 0:  # else a run comes in from outside of the code
                block = self.blocks[index]
                ways = [Way(target, way.args) if way.block == number else way for way in block.ways]
                self.blocks[index] = replace(block, ways=tuple(ways))

    def row(self, meaning: str, width: Width, form: str) -> Row:
        """Return the row of an operation, or of a comparison."""
        bits = "" if meaning[0] == "J" and width is W64 else str(width.bits)
        return BY_NAME[f"{meaning}{bits}_{form}"]

    def near(self, test: Enough, limit: int) -> Op:
        """Return the end of a block that goes on where a bound leaves no room for so many rounds."""
        row = self.row("JSLT" if test.is_signed else "JLT", test.width, "K")
        return Op(row, (limit,), test.far, 0, self.pc)

    def enough(self, test: Enough, counter: int, limit: int | None) -> Op:
        """Return the end of a block whose first way is gone where enough rounds follow."""
        sign = "S" if test.is_signed else ""
        if test.relation == "!=":
            if limit is not None:
                pair = (limit, counter) if test.rises else (counter, limit)
            elif test.rises:
                pair = self.emit(self.row("MOV", test.width, "K"), (), test.bound), counter
            else:
                add = self.row("ADD", test.width, "K")
                way = self.emit(add, (counter,), -test.bound) if test.bound else counter
                return Op(self.row("JGT", test.width, "K"), (way,), test.far, 0, self.pc)
            way = self.emit(self.row("SUB", test.width, "X"), pair)
            return Op(self.row("JGT", test.width, "K"), (way,), test.far, 0, self.pc)
        if test.relation == "<":
            if limit is not None:
                return Op(self.row(f"J{sign}LT", test.width, "X"), (counter, limit), 0, 0, self.pc)
            return Op(self.row(f"J{sign}LT", test.width, "K"), (counter,), test.bound - test.far, 0, self.pc)
        return Op(self.row(f"J{sign}GT", test.width, "K"), (counter,), test.bound + test.far, 0, self.pc)

    def front(self, number: int, loop: Counted, test: Enough) -> tuple[dict[int, int], int | None]:
        """Put what asks whether enough rounds follow in front; return arguments, and what is compared with.

        The next block is that of the rounds: it takes the arguments that vary.
        """
        self.pc = loop.block.pc
        self.enter(number, loop)
        front = {arg: self.new(arg) for arg in loop.block.args}
        args = tuple(front.values())
        leaving = Way(number, args)
        limit = front.get(test.bound, test.bound) if test.is_value else None
        if test.relation == "<" and limit is not None:
            below = self.emit(self.row("ADD", test.width, "K"), (limit,), -test.far)
            self.block(args, self.near(test, limit), (leaving, Way(len(self.blocks) + 1, ())))
            args, limit = (), below
        inside = Way(len(self.blocks) + 1, tuple([front[arg] for arg in loop.varying]))
        self.block(args, self.enough(test, front[test.counter], limit), (inside, leaving))
        return front, limit

    def again(
        self,
        loop: Counted,
        head: int,
        args: tuple[int, ...],
        following: dict[int, int],
        end: Op,
    ) -> None:
        """Add the block of the rounds: where enough follow, `head` is gone to with what is `following`."""
        more = Way(head, tuple([following[arg] for arg in loop.varying]))
        self.block(args, end, (more, Way(loop.number, tuple([following[arg] for arg in loop.block.args]))))
